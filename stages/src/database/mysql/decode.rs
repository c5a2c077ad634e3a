//! From the bytes of the binary protocol straight into Arrow builders.
//!
//! The forms are those of <https://mariadb.com/kb/en/resultset-row/#binary-resultset-row>. A value that does not fit
//! its column's type becomes NULL there and keeps its bytes in `__raw`.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Date32Builder, Decimal128Builder, Decimal256Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, TimestampMicrosecondBuilder, UInt8Builder,
    UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray};
use arrow_buffer::i256;
use arrow_schema::{ArrowError, DataType, SchemaRef};
use cdrvault_format::error::{Error, Result};
use cdrvault_format::raw::RawBuilder;
use jiff::civil::Date;

use super::columns::{Beside, Decoding, Reading};
use super::wire::BinaryRow;
use crate::calendar;
use crate::database::tables::{BATCH_BYTES, BATCH_ROWS, Table};

/// Builds batches of one table, row by row.
pub(super) struct BatchDecoder {
    table: Arc<Table<Reading>>,
    builders: Vec<Builder>,
    /// Where the second expression of a column stands in the select list.
    beside: Vec<Option<usize>>,
    raw: RawBuilder,
    rows: usize,
    bytes: usize,
}

impl BatchDecoder {
    pub(super) fn new(table: Arc<Table<Reading>>) -> Self {
        let mut next = table.columns.len();
        let beside = table
            .columns
            .iter()
            .map(|column| {
                column.reading.beside.as_ref().map(|_| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        let builders =
            table.columns.iter().map(|column| Builder::new(column.field.data_type(), Room::default())).collect();
        Self { table, builders, beside, raw: RawBuilder::default(), rows: 0, bytes: 0 }
    }

    /// The select list that [`BatchDecoder::push`] expects.
    pub(super) fn select_list(table: &Table<Reading>) -> String {
        let first = table.columns.iter().map(|column| column.reading.select.as_str());
        let second = table.columns.iter().filter_map(|column| column.reading.beside.as_ref()).map(Beside::select);
        first.chain(second).collect::<Vec<_>>().join(", ")
    }

    /// The expression for what the values of variable width in a row come to.
    pub(super) fn length(table: &Table<Reading>) -> String {
        let of = |select: &str| format!("COALESCE(OCTET_LENGTH({select}), 0)");
        let lengths = table.columns.iter().filter(|column| {
            matches!(column.reading.decoding, Decoding::Text | Decoding::Ascii | Decoding::Wide(_) | Decoding::Bytes)
        });
        let lengths = lengths.flat_map(|column| {
            let beside = column.reading.beside.as_ref().map(|beside| of(beside.select()));
            [of(&column.reading.select)].into_iter().chain(beside)
        });
        format!("({})", ["0".to_owned()].into_iter().chain(lengths).collect::<Vec<_>>().join(" + "))
    }

    /// Adds a row; gives a batch when there is enough for one.
    pub(super) fn push(&mut self, row: &BinaryRow<'_>) -> Result<Option<RecordBatch>> {
        for (index, column) in self.table.columns.iter().enumerate() {
            let builder = &mut self.builders[index];
            let Some(value) = row.get(index) else {
                builder.append_null();
                continue;
            };
            self.bytes += value.len();
            let beside = self.beside[index].and_then(|at| row.get(at));
            let mask;
            let kept = match (&column.reading.beside, beside) {
                (Some(Beside::StoredBytes(_)), Some(stored)) => Some(stored),
                (Some(Beside::Number(_)), Some(number)) => {
                    let number = unsigned(number).ok_or_else(|| Error::failed("a label has no number"))?;
                    let looks_empty = value.is_empty();
                    match column.reading.decoding {
                        Decoding::Label if number == 0 => Some(&b""[..]),
                        // The empty set and a set that holds the empty label look alike.
                        Decoding::Labels if looks_empty && number != 0 => {
                            mask = number.to_le_bytes();
                            Some(&mask[..])
                        }
                        _ => None,
                    }
                }
                _ => None,
            };
            let fits = kept.is_none() && builder.append(&column.reading.decoding, value);
            if !fits {
                builder.append_null();
                self.raw.keep(index, kept.unwrap_or(value));
            }
        }
        let table = &self.table;
        self.raw.end_row(|index| table.columns[index].field.name());
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.finish() } else { Ok(None) }
    }

    /// What is left, if anything is.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if self.rows == 0 {
            return Ok(None);
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let cannot = |error| Error::failed("cannot build a batch").with_source(error);
        let mut arrays = Vec::with_capacity(self.builders.len() + 1);
        for builder in &mut self.builders {
            let array = builder.finish().map_err(cannot)?;
            // The next batch will be much like this one: growing step by step would copy it as often.
            // But not for one with a long value.
            let bytes = bytes_in(&array).min(BATCH_BYTES);
            *builder = Builder::new(array.data_type(), Room { rows, bytes });
            arrays.push(array);
        }
        arrays.push(Arc::new(self.raw.finish()));
        RecordBatch::try_new(SchemaRef::clone(&self.table.schema), arrays).map(Some).map_err(cannot)
    }
}

/// How much of a column there is room for.
#[derive(Default)]
struct Room {
    rows: usize,
    /// Of text and bytes.
    bytes: usize,
}

fn bytes_in(array: &ArrayRef) -> usize {
    let text = array.as_string_opt::<i32>().map(|text| text.value_data().len());
    text.or_else(|| array.as_binary_opt::<i32>().map(|bytes| bytes.value_data().len())).unwrap_or(0)
}

/// A builder of one column.
enum Builder {
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal128(Decimal128Builder),
    Decimal256(Decimal256Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    /// Bytes, each checked; they become text together, by a second look at all of them that costs next to nothing.
    Text(BinaryBuilder),
    Fixed(FixedSizeBinaryBuilder),
    Binary(BinaryBuilder),
}

/// Runs the same expression on whichever builder it is.
macro_rules! on_each {
    ($builder:expr, $inner:ident => $what:expr) => {
        match $builder {
            Builder::Int8($inner) => $what,
            Builder::Int16($inner) => $what,
            Builder::Int32($inner) => $what,
            Builder::Int64($inner) => $what,
            Builder::UInt8($inner) => $what,
            Builder::UInt16($inner) => $what,
            Builder::UInt32($inner) => $what,
            Builder::UInt64($inner) => $what,
            Builder::Float32($inner) => $what,
            Builder::Float64($inner) => $what,
            Builder::Decimal128($inner) => $what,
            Builder::Decimal256($inner) => $what,
            Builder::Date($inner) => $what,
            Builder::Timestamp($inner) => $what,
            Builder::Text($inner) => $what,
            Builder::Fixed($inner) => $what,
            Builder::Binary($inner) => $what,
        }
    };
}

impl Builder {
    fn new(kind: &DataType, Room { rows, bytes }: Room) -> Self {
        match kind {
            DataType::Int8 => Self::Int8(Int8Builder::with_capacity(rows)),
            DataType::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            DataType::UInt8 => Self::UInt8(UInt8Builder::with_capacity(rows)),
            DataType::UInt16 => Self::UInt16(UInt16Builder::with_capacity(rows)),
            DataType::UInt32 => Self::UInt32(UInt32Builder::with_capacity(rows)),
            DataType::UInt64 => Self::UInt64(UInt64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(..) => {
                Self::Decimal128(Decimal128Builder::with_capacity(rows).with_data_type(kind.clone()))
            }
            DataType::Decimal256(..) => {
                Self::Decimal256(Decimal256Builder::with_capacity(rows).with_data_type(kind.clone()))
            }
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Timestamp(..) => {
                Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(kind.clone()))
            }
            DataType::Utf8 => Self::Text(BinaryBuilder::with_capacity(rows, bytes)),
            DataType::FixedSizeBinary(width) => Self::Fixed(FixedSizeBinaryBuilder::with_capacity(rows, *width)),
            _ => Self::Binary(BinaryBuilder::with_capacity(rows, bytes)),
        }
    }

    fn append_null(&mut self) {
        on_each!(self, builder => builder.append_null());
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        if let Self::Text(builder) = self {
            return Ok(Arc::new(StringArray::try_from_binary(builder.finish())?));
        }
        Ok(on_each!(self, builder => Arc::new(builder.finish())))
    }

    /// Appends a value, or answers `false` and appends nothing where the value does not fit.
    fn append(&mut self, decoding: &Decoding, value: &[u8]) -> bool {
        /// A little-endian number, if there are as many bytes as it has.
        macro_rules! number {
            ($kind:ty, $builder:expr) => {
                value.try_into().map(|bytes| $builder.append_value(<$kind>::from_le_bytes(bytes))).is_ok()
            };
        }
        match (self, decoding) {
            (Self::Int8(builder), _) => number!(i8, builder),
            (Self::Int16(builder), _) => number!(i16, builder),
            (Self::Int32(builder), _) => number!(i32, builder),
            (Self::UInt8(builder), _) => number!(u8, builder),
            (Self::UInt16(builder), _) => number!(u16, builder),
            (Self::UInt32(builder), _) => number!(u32, builder),
            (Self::Float32(builder), _) => number!(f32, builder),
            (Self::Float64(builder), _) => number!(f64, builder),
            (Self::Int64(builder), Decoding::Time) => time_of(value).map(|us| builder.append_value(us)).is_some(),
            (Self::Int64(builder), _) => number!(i64, builder),
            (Self::UInt64(builder), Decoding::Bits) => {
                if value.len() > 8 {
                    return false;
                }
                builder.append_value(value.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)));
                true
            }
            (Self::UInt64(builder), _) => number!(u64, builder),
            (Self::Decimal128(builder), Decoding::Decimal { scale }) => {
                decimal(value, *scale).and_then(i256::to_i128).map(|value| builder.append_value(value)).is_some()
            }
            (Self::Decimal256(builder), Decoding::Decimal { scale }) => {
                decimal(value, *scale).map(|value| builder.append_value(value)).is_some()
            }
            (Self::Date(builder), _) => {
                date_of(value).map(|date| builder.append_value(calendar::days_since_1970(date))).is_some()
            }
            (Self::Timestamp(builder), _) => micros_of(value).map(|us| builder.append_value(us)).is_some(),
            (Self::Text(builder), _) => {
                // Most texts are ASCII, which is told sooner.
                let fits = value.is_ascii() || std::str::from_utf8(value).is_ok();
                if fits {
                    builder.append_value(value);
                }
                fits
            }
            (Self::Fixed(builder), _) => uuid(value).is_some_and(|bytes| builder.append_value(bytes).is_ok()),
            (Self::Binary(builder), _) => {
                builder.append_value(value);
                true
            }
            (Self::Decimal128(_) | Self::Decimal256(_), _) => false,
        }
    }
}

/// An unsigned number of whatever width the server chose for it.
fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    (!bytes.is_empty()).then(|| u64::from_le_bytes(wide))
}

/// The date of a DATE, DATETIME or TIMESTAMP, if it is one that the calendar knows.
/// The bytes: their number, then year (2), month, day, and what follows. No bytes at all is `0000-00-00`.
fn date_of(value: &[u8]) -> Option<Date> {
    parts_of(value).and_then(valid_date)
}

/// The date, if it is one that the calendar knows. Year 0 is not told from a mistake by anyone who reads it later.
pub(super) fn valid_date((year, month, day): (i16, i8, i8)) -> Option<Date> {
    if year == 0 { None } else { Date::new(year, month, day).ok() }
}

/// Year, month and day, valid or not, of a date in the text protocol.
pub(super) fn parts_in_text(text: &str) -> Option<(i16, i8, i8)> {
    let mut parts = text.get(..10)?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Year, month and day as the server has them, valid or not; zeros where it sent no bytes.
fn parts_of(value: &[u8]) -> Option<(i16, i8, i8)> {
    match value {
        [0] | [] => Some((0, 0, 0)),
        [4 | 7 | 11, y0, y1, month, day, ..] => {
            Some((i16::from_le_bytes([*y0, *y1]), i8::try_from(*month).ok()?, i8::try_from(*day).ok()?))
        }
        _ => None,
    }
}

/// Microseconds since 1970 of a DATETIME or TIMESTAMP, without any zone.
fn micros_of(value: &[u8]) -> Option<i64> {
    let date = date_of(value)?;
    let (seconds, micros) = match value.get(5..) {
        None | Some([]) => (0, 0),
        Some([hour, minute, second]) => (clock(*hour, *minute, *second)?, 0),
        Some([hour, minute, second, m0, m1, m2, m3]) => {
            (clock(*hour, *minute, *second)?, u32::from_le_bytes([*m0, *m1, *m2, *m3]))
        }
        Some(_) => return None,
    };
    Some((i64::from(calendar::days_since_1970(date)) * 86_400 + seconds) * 1_000_000 + i64::from(micros))
}

fn clock(hour: u8, minute: u8, second: u8) -> Option<i64> {
    (hour < 24 && minute < 60 && second < 60)
        .then(|| i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second))
}

/// Microseconds of a TIME: negative?, days (4), hours, minutes, seconds, microseconds (4).
fn time_of(value: &[u8]) -> Option<i64> {
    let (negative, days, clock_part, micros) = match value {
        [0] | [] => return Some(0),
        [8, negative, d0, d1, d2, d3, h, m, s] => (*negative, [*d0, *d1, *d2, *d3], (*h, *m, *s), 0),
        [12, negative, d0, d1, d2, d3, h, m, s, u0, u1, u2, u3] => {
            (*negative, [*d0, *d1, *d2, *d3], (*h, *m, *s), u32::from_le_bytes([*u0, *u1, *u2, *u3]))
        }
        _ => return None,
    };
    let seconds = i64::from(u32::from_le_bytes(days)) * 86_400 + clock(clock_part.0, clock_part.1, clock_part.2)?;
    let total = seconds * 1_000_000 + i64::from(micros);
    Some(if negative == 0 { total } else { -total })
}

/// The unscaled value of digits such as `-12.340`, which must have exactly `scale` of them behind the point.
fn decimal(value: &[u8], scale: i8) -> Option<i256> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if i8::try_from(fraction.len()).ok()? != scale {
        return None;
    }
    i256::from_string(&format!("{whole}{fraction}"))
}

/// The 16 bytes of a UUID in text.
fn uuid(value: &[u8]) -> Option<[u8; 16]> {
    let digits: Vec<u8> = value.iter().copied().filter(|byte| *byte != b'-').collect();
    let mut bytes = [0; 16];
    (value.len() == 36 && digits.len() == 32).then_some(())?;
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_that_the_calendar_does_not_know_are_told() {
        let datetime = |year: u16, month, day| {
            let [y0, y1] = year.to_le_bytes();
            micros_of(&[7, y0, y1, month, day, 12, 30, 15])
        };
        assert_eq!(datetime(1970, 1, 2), Some((86_400 + 45_015) * 1_000_000));
        assert_eq!(datetime(9999, 12, 31).map(|us| us / 86_400_000_000), Some(2_932_896));
        for (year, month, day) in [(2024, 2, 31), (2024, 0, 10), (2024, 1, 0), (0, 0, 0), (0, 1, 1)] {
            assert_eq!(datetime(year, month, day), None, "{year}-{month}-{day}");
        }
        assert_eq!(micros_of(&[0]), None);
        assert_eq!(micros_of(&[4, 0xe8, 7, 2, 29]), Some(1_709_164_800_000_000));
    }

    #[test]
    fn numbers_of_labels_have_any_width() {
        assert_eq!(unsigned(&[1]), Some(1));
        assert_eq!(unsigned(&[5, 1, 0, 0]), Some(261));
        assert_eq!(unsigned(&[0xff; 8]), Some(u64::MAX));
        assert_eq!((unsigned(&[]), unsigned(&[0; 9])), (None, None));
    }

    #[test]
    fn times_beyond_a_day_are_kept() {
        // -838:59:59.999999 = 34 days 22:59:59.999999
        let longest = [12, 1, 34, 0, 0, 0, 22, 59, 59, 0x3f, 0x42, 0x0f, 0];
        assert_eq!(time_of(&longest), Some(-3_020_399_999_999));
        assert_eq!(time_of(&[0]), Some(0));
    }

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(decimal(b"-12.340", 3), Some(i256::from_i128(-12_340)));
        assert_eq!(decimal(b"0.1", 3), None);
        let longest = format!("-{}.{}", "9".repeat(35), "9".repeat(30));
        assert_eq!(decimal(longest.as_bytes(), 30).map(|v| v.to_string()), Some(format!("-{}", "9".repeat(65))));
    }
}
