//! What a sound server sends, written as plainly as the documentation tells it:
//!
//! - packets: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html>
//! - lengths: <https://mariadb.com/kb/en/protocol-data-types/>
//! - results, columns, and the numbers of types: <https://mariadb.com/kb/en/resultset/>
//! - prepared statements: <https://mariadb.com/kb/en/com_stmt_prepare/>
//! - binary rows: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html>

/// The longest part of a packet.
pub(crate) const PART: usize = 0xff_ffff;

/// A value of a row; `None` is NULL.
pub(crate) type Value = Option<Vec<u8>>;

/// A packet, and the number of its first part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packet {
    pub(crate) number: u8,
    pub(crate) body: Vec<u8>,
    /// What its header tells, if not its length.
    pub(crate) length: Option<u32>,
}

/// Packets that follow each other, the first with the number 1, as in each answer.
pub(crate) fn answer(bodies: impl IntoIterator<Item = Vec<u8>>) -> Vec<Packet> {
    let mut number = 1_u8;
    let mut packets = Vec::new();
    for body in bodies {
        let parts = body.len() / PART + 1;
        packets.push(Packet { number, body, length: None });
        number = number.wrapping_add(parts as u8);
    }
    packets
}

/// The bytes on the stream.
pub(crate) fn framed(packets: &[Packet]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Packet { number, body, length } in packets {
        let mut number = *number;
        let mut rest = &body[..];
        loop {
            let (part, after) = rest.split_at(rest.len().min(PART));
            let told = length.unwrap_or(part.len() as u32);
            bytes.extend_from_slice(&told.to_le_bytes()[..3]);
            bytes.push(number);
            bytes.extend_from_slice(part);
            number = number.wrapping_add(1);
            rest = after;
            if part.len() < PART {
                break;
            }
        }
    }
    bytes
}

pub(crate) fn length(length: usize) -> Vec<u8> {
    let bytes = (length as u64).to_le_bytes();
    if length < 0xfb {
        vec![length as u8]
    } else if length < 1 << 16 {
        vec![0xfc, bytes[0], bytes[1]]
    } else if length < 1 << 24 {
        vec![0xfd, bytes[0], bytes[1], bytes[2]]
    } else {
        [&[0xfe], &bytes[..]].concat()
    }
}

pub(crate) fn text(text: &[u8]) -> Vec<u8> {
    [&length(text.len()), text].concat()
}

pub(crate) fn end() -> Vec<u8> {
    vec![0xfe, 0, 0, 2, 0]
}

/// Nothing was touched.
pub(crate) fn done() -> Vec<u8> {
    vec![0, 0, 0, 2, 0, 0, 0]
}

pub(crate) fn column(kind: u8) -> Vec<u8> {
    let mut body: Vec<u8> =
        ["def", "billing", "t", "t", "c", "c"].iter().flat_map(|name| text(name.as_bytes())).collect();
    body.extend([0x0c, 45, 0, 0xff, 0xff, 0, 0, kind, 0, 0, 0, 0, 0]);
    body
}

/// A result in the form of the text protocol.
pub(crate) fn text_result(columns: usize, rows: &[Vec<Value>]) -> Vec<Vec<u8>> {
    let mut bodies = vec![length(columns)];
    bodies.extend((0..columns).map(|_| column(0xfd)));
    bodies.push(end());
    bodies.extend(rows.iter().map(|row| {
        row.iter().flat_map(|value| value.as_ref().map_or_else(|| vec![0xfb], |bytes| text(bytes))).collect()
    }));
    bodies.push(end());
    bodies
}

/// How a type's values look in the binary protocol.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    Wide(usize),
    Time,
    Bytes,
}

/// Types by their numbers in the documentation.
pub(crate) const KINDS: [(u8, Shape); 24] = [
    (0, Shape::Bytes),
    (1, Shape::Wide(1)),
    (2, Shape::Wide(2)),
    (3, Shape::Wide(4)),
    (4, Shape::Wide(4)),
    (5, Shape::Wide(8)),
    (6, Shape::Wide(0)),
    (7, Shape::Time),
    (8, Shape::Wide(8)),
    (9, Shape::Wide(4)),
    (10, Shape::Time),
    (11, Shape::Time),
    (12, Shape::Time),
    (13, Shape::Wide(2)),
    (15, Shape::Bytes),
    (16, Shape::Bytes),
    (245, Shape::Bytes),
    (246, Shape::Bytes),
    (247, Shape::Bytes),
    (248, Shape::Bytes),
    (249, Shape::Bytes),
    (252, Shape::Bytes),
    (253, Shape::Bytes),
    (254, Shape::Bytes),
];

/// The answers to preparing a statement of these columns and to executing it. Of times, values have their length in front, as
/// they are sent.
pub(crate) fn binary_result(kinds: &[(u8, Shape)], rows: &[Vec<Value>]) -> [Vec<Vec<u8>>; 2] {
    let columns = || kinds.iter().map(|(kind, _)| column(*kind)).chain([end()]);
    let mut prepared = vec![vec![0, 7, 0, 0, 0, kinds.len() as u8, 0, 0, 0, 0, 0, 0]];
    prepared.extend(columns());
    let mut executed = vec![length(kinds.len())];
    executed.extend(columns());
    executed.extend(rows.iter().map(|row| binary_row(kinds, row)));
    executed.push(end());
    [prepared, executed]
}

fn binary_row(kinds: &[(u8, Shape)], row: &[Value]) -> Vec<u8> {
    let mut nulls = vec![0; (row.len() + 2).div_ceil(8)];
    let mut values = Vec::new();
    for (index, ((_, shape), value)) in kinds.iter().zip(row).enumerate() {
        match (shape, value) {
            (_, None) => nulls[(index + 2) / 8] |= 1 << ((index + 2) % 8),
            (Shape::Bytes, Some(bytes)) => values.extend(text(bytes)),
            (_, Some(bytes)) => values.extend_from_slice(bytes),
        }
    }
    [vec![0], nulls, values].concat()
}
