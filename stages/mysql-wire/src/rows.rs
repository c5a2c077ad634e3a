//! Rows, in the forms of the text protocol and of the binary one.

use mysql_common::constants::ColumnType;

use crate::failure::Failure;

/// The types of what is sent.
pub(super) const VAR_STRING: u8 = ColumnType::MYSQL_TYPE_VAR_STRING as u8;
pub(super) const BLOB: u8 = ColumnType::MYSQL_TYPE_BLOB as u8;

/// Where a value lies in its packet; no value can begin at the end of the address space.
type Span = (usize, usize);
const NULL: Span = (usize::MAX, usize::MAX);

/// A row that is kept.
pub struct Row {
    packet: Vec<u8>,
    values: Vec<Span>,
}

impl Row {
    /// Of the text protocol: each value has its length before it.
    pub(super) fn parse(packet: &[u8], columns: usize) -> Result<Self, Failure> {
        const NULL_BYTE: u8 = 0xfb;
        let mut at = 0;
        let mut values = Vec::with_capacity(columns);
        for _ in 0..columns {
            values.push(if packet.get(at) == Some(&NULL_BYTE) {
                at += 1;
                NULL
            } else {
                with_length(packet, &mut at)?
            });
        }
        if at != packet.len() {
            return Err(longer_than_its_values());
        }
        Ok(Self { packet: packet.to_vec(), values })
    }

    /// How many bytes it takes to keep it: many times those of its packet, if its values are short.
    pub(super) fn kept(&self) -> usize {
        size_of::<Self>() + self.packet.len() + size_of_val(&*self.values)
    }

    /// The bytes of a value; `None` for NULL, and for a column that is not there.
    pub fn get(&self, column: usize) -> Option<&[u8]> {
        let (from, to) = *self.values.get(column)?;
        self.packet.get(from..to)
    }
}

/// A row of the binary protocol, where it arrived.
pub struct BinaryRow<'p> {
    packet: &'p [u8],
    values: &'p [Span],
}

impl BinaryRow<'_> {
    /// The bytes of a value; `None` for NULL. Those of a date or a time begin with their length.
    #[inline]
    pub fn get(&self, column: usize) -> Option<&[u8]> {
        let (from, to) = *self.values.get(column)?;
        self.packet.get(from..to)
    }
}

/// How long a value of a column is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Fixed(usize),
    /// A byte tells, and is part of the value.
    Time,
    /// What precedes the value tells.
    Bytes,
}

impl Kind {
    /// Of the packet that describes a column. `mysql_common` 0.38 takes a text whose length is that of NULL for an empty one,
    /// and whatever follows.
    pub(super) fn of_column(packet: &[u8]) -> Result<Self, Failure> {
        use ColumnType as Type;
        let mut at = 0;
        let (from, to) = with_length(packet, &mut at)?;
        if &packet[from..to] != b"def" {
            return Err(Failure::protocol("a column of another catalog than `def`"));
        }
        // Its database, its table and itself, each but the first by two names.
        for _ in 0..5 {
            with_length(packet, &mut at)?;
        }
        // How many bytes follow; charset (2), length (4), type, flags (2), decimals (1), and two that mean nothing.
        let [12, _, _, _, _, _, _, kind, _, _, _, _, _] = packet[at..] else {
            return Err(Failure::protocol("the description of a column has another length"));
        };
        let kind = Type::try_from(kind).map_err(|_| Failure::protocol("a column of an unknown type"))?;
        Ok(match kind {
            Type::MYSQL_TYPE_NULL => Self::Fixed(0),
            Type::MYSQL_TYPE_TINY => Self::Fixed(1),
            Type::MYSQL_TYPE_SHORT | Type::MYSQL_TYPE_YEAR => Self::Fixed(2),
            Type::MYSQL_TYPE_INT24 | Type::MYSQL_TYPE_LONG | Type::MYSQL_TYPE_FLOAT => Self::Fixed(4),
            Type::MYSQL_TYPE_LONGLONG | Type::MYSQL_TYPE_DOUBLE => Self::Fixed(8),
            Type::MYSQL_TYPE_DATE
            | Type::MYSQL_TYPE_NEWDATE
            | Type::MYSQL_TYPE_DATETIME
            | Type::MYSQL_TYPE_DATETIME2
            | Type::MYSQL_TYPE_TIMESTAMP
            | Type::MYSQL_TYPE_TIMESTAMP2
            | Type::MYSQL_TYPE_TIME
            | Type::MYSQL_TYPE_TIME2 => Self::Time,
            _ => Self::Bytes,
        })
    }
}

/// Where the values of a binary row lie. Each row takes the place of the one before.
pub(super) struct Spans {
    kinds: Vec<Kind>,
    values: Vec<Span>,
}

impl Spans {
    pub(super) fn new(kinds: Vec<Kind>) -> Self {
        let values = vec![NULL; kinds.len()];
        Self { kinds, values }
    }

    /// A zero byte, a bit for each column that is NULL after two that mean nothing, and the values of the others.
    pub(super) fn of<'p>(&'p mut self, packet: &'p [u8]) -> Result<BinaryRow<'p>, Failure> {
        if packet.first() != Some(&0) {
            return Err(Failure::protocol("a packet that is not a row"));
        }
        let mut at = 1 + (self.kinds.len() + 2).div_ceil(8);
        let nulls = packet.get(1..at).ok_or_else(too_short)?;
        for (index, (kind, value)) in self.kinds.iter().zip(&mut self.values).enumerate() {
            let bit = index + 2;
            if nulls[bit / 8] & (1 << (bit % 8)) != 0 {
                *value = NULL;
                continue;
            }
            let length = match kind {
                Kind::Fixed(length) => *length,
                Kind::Time => 1 + usize::from(*packet.get(at).ok_or_else(too_short)?),
                Kind::Bytes => usize::try_from(length(packet, &mut at)?).map_err(|_| too_short())?,
            };
            let end = at.checked_add(length).filter(|end| *end <= packet.len()).ok_or_else(too_short)?;
            *value = (at, end);
            at = end;
        }
        if at != packet.len() {
            return Err(longer_than_its_values());
        }
        Ok(BinaryRow { packet, values: &self.values })
    }
}

/// A length as the protocol writes it: in a byte, or in two, three or eight after one that tells so.
#[inline]
pub(super) fn length(packet: &[u8], at: &mut usize) -> Result<u64, Failure> {
    let first = *packet.get(*at).ok_or_else(too_short)?;
    *at += 1;
    let width = match first {
        0..=0xfa => return Ok(first.into()),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xfb | 0xff => return Err(Failure::protocol("an invalid length")),
    };
    let digits = packet.get(*at..*at + width).ok_or_else(too_short)?;
    *at += width;
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(digits);
    Ok(u64::from_le_bytes(bytes))
}

/// Where a value lies that has its length before it.
fn with_length(packet: &[u8], at: &mut usize) -> Result<Span, Failure> {
    let length = usize::try_from(length(packet, at)?).map_err(|_| too_short())?;
    let end = at.checked_add(length).filter(|end| *end <= packet.len()).ok_or_else(too_short)?;
    Ok((std::mem::replace(at, end), end))
}

/// Adds bytes with their length before them.
pub fn push_with_length(body: &mut Vec<u8>, bytes: &[u8]) {
    let length = (bytes.len() as u64).to_le_bytes();
    match bytes.len() {
        0..=0xfa => body.push(length[0]),
        0xfb..=0xffff => body.extend([&[0xfc], &length[..2]].concat()),
        0x1_0000..=0xff_ffff => body.extend([&[0xfd], &length[..3]].concat()),
        _ => body.extend([&[0xfe], &length[..]].concat()),
    }
    body.extend_from_slice(bytes);
}

fn longer_than_its_values() -> Failure {
    Failure::protocol("a row is longer than its values")
}

fn too_short() -> Failure {
    Failure::protocol("a packet ends too early")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_binary_row_is_taken_apart() {
        let kinds =
            vec![Kind::Fixed(4), Kind::Bytes, Kind::Time, Kind::Fixed(0), Kind::Bytes, Kind::Time, Kind::Fixed(1)];
        let mut spans = Spans::new(kinds);
        // The second and the seventh are NULL: bits 3 and 8.
        let row = [0, 0b0000_1000, 0b0000_0001, 1, 2, 3, 4, 2, 9, 9, 3, b'a', b'b', b'c', 0];
        let row = spans.of(&row).unwrap();
        let values: Vec<Option<&[u8]>> = (0..8).map(|column| row.get(column)).collect();
        let expected: [Option<&[u8]>; 8] =
            [Some(&[1, 2, 3, 4]), None, Some(&[2, 9, 9]), Some(&[]), Some(b"abc"), Some(&[0]), None, None];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        let mut spans = Spans::new(vec![Kind::Fixed(2), Kind::Bytes]);
        let whole = [0, 0, 7, 7, 2, b'h', b'i'];
        assert!(spans.of(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(spans.of(&whole[..end]).is_err(), "{end}");
        }
        assert!(spans.of(&[&whole[..], &[0]].concat()).is_err());
        assert!(spans.of(&[0, 0, 7, 7, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(spans.of(&[0, 0, 7, 7, 0xff]).is_err());
        assert!(spans.of(&[0xfe, 0, 7, 7, 2, b'h', b'i']).is_err());
    }

    #[test]
    fn a_row_of_text_has_nulls_and_empty_values() {
        let row = Row::parse(&[1, b'7', 0xfb, 0], 3).unwrap();
        assert_eq!([row.get(0), row.get(1), row.get(2), row.get(3)], [Some(&b"7"[..]), None, Some(&b""[..]), None]);
        assert!(Row::parse(&[2, b'7'], 1).is_err());
        assert!(Row::parse(&[1, b'7', 0xfb, 0], 2).is_err());
        assert!(Row::parse(&[], 1).is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_sends_makes_us_panic(packet: Vec<u8>, columns in 0..20_usize) {
            let kinds = (0..columns).map(|at| [Kind::Fixed(8), Kind::Time, Kind::Bytes][at % 3]).collect();
            let _ = Spans::new(kinds).of(&packet);
            let _ = Row::parse(&packet, columns);
            let _ = Kind::of_column(&packet);
            let _ = Failure::from_packet(&packet);
        }

        #[test]
        fn lengths_are_read_as_they_were_written(bytes in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let mut body = b"before".to_vec();
            push_with_length(&mut body, &bytes);
            let mut at = 6;
            let (from, to) = with_length(&body, &mut at).unwrap();
            prop_assert_eq!(&body[from..to], &bytes[..]);
            prop_assert_eq!(at, body.len());
        }
    }
}
