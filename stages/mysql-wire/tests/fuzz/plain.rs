//! A decoder that has all the bytes before it, and copies what it finds. Whatever is wrong is `None`. It follows the pages that
//! [`crate::encoded`] names.

use crate::encoded::{KINDS, PART, Shape, Value};

pub(crate) type Rows = Vec<Vec<Value>>;

/// What is not a row is no longer.
const WORDS: usize = 1 << 20;

/// The rest of what a server said, and the number of the next packet.
pub(crate) struct Plain<'b> {
    pub(crate) rest: &'b [u8],
    pub(crate) number: u8,
}

impl Plain<'_> {
    fn packet(&mut self, limit: usize) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let header = self.rest.get(..4)?;
            let length = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
            let part = self.rest.get(4..4 + length)?;
            if header[3] != self.number || whole.len() + length > limit {
                return None;
            }
            whole.extend_from_slice(part);
            self.number = self.number.wrapping_add(1);
            self.rest = &self.rest[4 + length..];
            if length < PART {
                return Some(whole);
            }
        }
    }

    fn is_end(packet: &[u8]) -> bool {
        packet.first() == Some(&0xfe) && packet.len() < 9
    }

    /// The shapes of so many columns.
    fn columns(&mut self, count: usize) -> Option<Vec<Shape>> {
        let columns = (0..count).map(|_| shape(&self.packet(WORDS)?)).collect::<Option<Vec<_>>>()?;
        Self::is_end(&self.packet(WORDS)?).then_some(columns)
    }

    /// The packets of the rows, which end.
    fn rows(&mut self, limit: usize) -> Option<Vec<Vec<u8>>> {
        let mut rows = Vec::new();
        loop {
            let packet = self.packet(limit.max(WORDS))?;
            if Self::is_end(&packet) {
                return Some(rows);
            }
            if packet.first() == Some(&0xff) {
                return None;
            }
            rows.push(packet);
        }
    }

    /// The answer to a query.
    pub(crate) fn query(&mut self, limit: usize) -> Option<Rows> {
        let first = self.packet(WORDS)?;
        if first.first() == Some(&0) {
            return number(&mut &first[1..]).map(|_| Vec::new());
        }
        let count = count(&first)?;
        self.columns(count)?;
        self.rows(limit)?.iter().map(|row| text_row(row, count)).collect()
    }

    /// The answers to preparing and executing a query.
    pub(crate) fn select(&mut self, limit: usize) -> Option<Rows> {
        let prepared = self.packet(WORDS)?;
        if prepared.len() < 12 || prepared[0] != 0 {
            return None;
        }
        for at in [7, 5] {
            let count = usize::from(u16::from_le_bytes([prepared[at], prepared[at + 1]]));
            if count > 0 {
                self.columns(count)?;
            }
        }
        self.number = 1;
        let first = self.packet(WORDS)?;
        if first.first() == Some(&0) {
            return None;
        }
        let count = count(&first)?;
        let shapes = self.columns(count)?;
        self.rows(limit)?.iter().map(|row| binary_row(row, &shapes)).collect()
    }
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let width = match take(rest, 1)?[0] {
        first @ ..=0xfa => return Some(first.into()),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    Some(take(rest, width)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn text<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = number(rest)?;
    take(rest, length)
}

fn count(mut packet: &[u8]) -> Option<usize> {
    let count = number(&mut packet).filter(|count| (1..=0xffff).contains(count))?;
    packet.is_empty().then_some(count)
}

fn shape(mut column: &[u8]) -> Option<Shape> {
    let texts = (0..6).map(|_| text(&mut column)).collect::<Option<Vec<_>>>()?;
    if texts[0] != b"def" || column.len() != 13 || column[0] != 12 {
        return None;
    }
    match column[7] {
        // Those that servers keep to themselves: a date, a timestamp, a date with time, a time.
        14 | 17..=19 => Some(Shape::Time),
        // Rare ones: arrays, vectors, an unknown type that is said to be one, blobs by their lengths, shapes.
        20 | 242 | 243 | 245..=251 | 255 => Some(Shape::Bytes),
        kind => KINDS.iter().find(|(known, _)| *known == kind).map(|(_, shape)| *shape),
    }
}

fn text_row(mut packet: &[u8], columns: usize) -> Option<Vec<Value>> {
    let mut row = Vec::new();
    for _ in 0..columns {
        if packet.first() == Some(&0xfb) {
            packet = &packet[1..];
            row.push(None);
        } else {
            row.push(Some(text(&mut packet)?.to_vec()));
        }
    }
    packet.is_empty().then_some(row)
}

fn binary_row(mut packet: &[u8], shapes: &[Shape]) -> Option<Vec<Value>> {
    if take(&mut packet, 1)?[0] != 0 {
        return None;
    }
    let nulls = take(&mut packet, (shapes.len() + 9) / 8)?;
    let mut row = Vec::new();
    for (index, shape) in shapes.iter().enumerate() {
        let bit = index + 2;
        row.push(if nulls[bit / 8] >> (bit % 8) & 1 == 1 {
            None
        } else {
            let length = match shape {
                Shape::Wide(length) => *length,
                Shape::Time => 1 + usize::from(*packet.first()?),
                Shape::Bytes => number(&mut packet)?,
            };
            Some(take(&mut packet, length)?.to_vec())
        });
    }
    packet.is_empty().then_some(row)
}
