//! Values of Arrow arrays, one by one, for those who write rows.

use std::collections::HashMap;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, BinaryArray, Date32Array, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, TimeUnit};
use cdrvault_format::error::{Error, Result};
use cdrvault_format::raw::{self, RAW_COLUMN};

use crate::calendar;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Decimal128(i128, i8),
    Decimal256(arrow_buffer::i256, i8),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970.
    DateTime(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A column whose type was looked at once.
pub(crate) enum Cells<'a> {
    Int8(&'a Int8Array),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    UInt8(&'a UInt8Array),
    UInt16(&'a UInt16Array),
    UInt32(&'a UInt32Array),
    UInt64(&'a UInt64Array),
    Float(&'a Float32Array),
    Double(&'a Float64Array),
    Decimal128(&'a Decimal128Array, i8),
    Decimal256(&'a Decimal256Array, i8),
    Date(&'a Date32Array),
    DateTime(&'a TimestampMicrosecondArray),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Fixed(&'a FixedSizeBinaryArray),
}

impl<'a> Cells<'a> {
    fn of(array: &'a dyn Array) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Int8 => Self::Int8(array.as_primitive::<Int8Type>()),
            DataType::Int16 => Self::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::UInt8 => Self::UInt8(array.as_primitive::<UInt8Type>()),
            DataType::UInt16 => Self::UInt16(array.as_primitive::<UInt16Type>()),
            DataType::UInt32 => Self::UInt32(array.as_primitive::<UInt32Type>()),
            DataType::UInt64 => Self::UInt64(array.as_primitive::<UInt64Type>()),
            DataType::Float32 => Self::Float(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>()),
            DataType::Decimal128(_, scale) => Self::Decimal128(array.as_primitive::<Decimal128Type>(), *scale),
            DataType::Decimal256(_, scale) => Self::Decimal256(array.as_primitive::<Decimal256Type>(), *scale),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::DateTime(array.as_primitive::<TimestampMicrosecondType>())
            }
            DataType::Utf8 => Self::Text(array.as_string::<i32>()),
            DataType::Binary => Self::Bytes(array.as_binary::<i32>()),
            DataType::FixedSizeBinary(_) => Self::Fixed(array.as_fixed_size_binary()),
            other => return Err(Error::failed(format!("a column of type {other} cannot be restored"))),
        })
    }

    pub(crate) fn get(&self, row: usize) -> Cell<'a> {
        macro_rules! value {
            ($array:expr, $value:ident => $cell:expr) => {
                if $array.is_null(row) {
                    Cell::Null
                } else {
                    let $value = $array.value(row);
                    $cell
                }
            };
        }
        match self {
            Self::Int8(array) => value!(array, v => Cell::Int(v.into())),
            Self::Int16(array) => value!(array, v => Cell::Int(v.into())),
            Self::Int32(array) => value!(array, v => Cell::Int(v.into())),
            Self::Int64(array) => value!(array, v => Cell::Int(v)),
            Self::UInt8(array) => value!(array, v => Cell::UInt(v.into())),
            Self::UInt16(array) => value!(array, v => Cell::UInt(v.into())),
            Self::UInt32(array) => value!(array, v => Cell::UInt(v.into())),
            Self::UInt64(array) => value!(array, v => Cell::UInt(v)),
            Self::Float(array) => value!(array, v => Cell::Float(v)),
            Self::Double(array) => value!(array, v => Cell::Double(v)),
            Self::Decimal128(array, scale) => value!(array, v => Cell::Decimal128(v, *scale)),
            Self::Decimal256(array, scale) => value!(array, v => Cell::Decimal256(v, *scale)),
            Self::Date(array) => value!(array, v => Cell::Date(v)),
            Self::DateTime(array) => value!(array, v => Cell::DateTime(v)),
            Self::Text(array) => value!(array, v => Cell::Text(v)),
            Self::Bytes(array) => value!(array, v => Cell::Bytes(v)),
            Self::Fixed(array) => value!(array, v => Cell::Bytes(v)),
        }
    }
}

/// A batch, row by row, with the values that its typed columns could not hold.
pub(crate) struct Rows<'a> {
    columns: Vec<Cells<'a>>,
    raw: Option<&'a BinaryArray>,
}

impl<'a> Rows<'a> {
    /// The columns of these names, in this order.
    pub(crate) fn of<'n>(batch: &'a RecordBatch, names: impl Iterator<Item = &'n str>) -> Result<Self> {
        let column = |name: &str| {
            let found = batch.column_by_name(name);
            found.ok_or_else(|| Error::failed(format!("the saved rows have no column `{name}`")))
        };
        let columns = names.map(|name| Cells::of(column(name)?)).collect::<Result<_>>()?;
        let raw = batch.column_by_name(RAW_COLUMN).and_then(|array| array.as_binary_opt::<i32>());
        Ok(Self { columns, raw })
    }

    pub(crate) fn columns(&self) -> &[Cells<'a>] {
        &self.columns
    }

    /// What the typed columns of a row could not hold, by column name.
    pub(crate) fn raw(&self, row: usize) -> Result<HashMap<&'a str, &'a [u8]>> {
        match self.raw.filter(|array| array.is_valid(row)) {
            Some(array) => Ok(raw::decode(array.value(row))?.into_iter().collect()),
            None => Ok(HashMap::new()),
        }
    }
}

/// `2026-01-15`.
pub(crate) fn push_date(out: &mut String, days: i32) {
    let (year, month, day) = calendar::civil(days);
    push_digits(out, year.unsigned_abs().into(), 4);
    out.push('-');
    push_digits(out, month.into(), 2);
    out.push('-');
    push_digits(out, day.into(), 2);
}

/// `2026-01-15 09:12:44`, with six more digits where they are not zero.
pub(crate) fn push_datetime(out: &mut String, micros: i64) {
    const DAY: i64 = 86_400_000_000;
    push_date(out, i32::try_from(micros.div_euclid(DAY)).unwrap_or(0));
    out.push(' ');
    push_clock(out, micros.rem_euclid(DAY).unsigned_abs());
}

/// `-838:59:59.999999`, of microseconds.
pub(crate) fn push_time(out: &mut String, micros: i64) {
    if micros < 0 {
        out.push('-');
    }
    push_clock(out, micros.unsigned_abs());
}

fn push_clock(out: &mut String, micros: u64) {
    let seconds = micros / 1_000_000;
    push_digits(out, seconds / 3600, 2);
    out.push(':');
    push_digits(out, seconds / 60 % 60, 2);
    out.push(':');
    push_digits(out, seconds % 60, 2);
    if !micros.is_multiple_of(1_000_000) {
        out.push('.');
        push_digits(out, micros % 1_000_000, 6);
    }
}

/// At least so many digits.
fn push_digits(out: &mut String, value: u64, width: u32) {
    for place in (1..width).rev() {
        if value < 10_u64.pow(place) {
            out.push('0');
        }
    }
    out.push_str(itoa::Buffer::new().format(value));
}

/// Digits with the point where the scale says.
pub(crate) fn decimal(digits: &str, scale: i8) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let scale = usize::try_from(scale).unwrap_or(0);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// The text of an invalid date, from its bytes in the binary protocol: length, year (2), month, day, time.
pub(crate) fn stored_date(bytes: &[u8], with_time: bool) -> Option<String> {
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    if !matches!(bytes, [] | [0] | [4 | 7 | 11, _, _, _, _, ..]) {
        return None;
    }
    let year = u16::from_le_bytes([at(1), at(2)]);
    let mut text = format!("{year:04}-{:02}-{:02}", at(3), at(4));
    if with_time {
        text += &format!(" {:02}:{:02}:{:02}", at(5), at(6), at(7));
        let micros = u32::from_le_bytes([at(8), at(9), at(10), at(11)]);
        if micros > 0 {
            text += &format!(".{micros:06}");
        }
    }
    Some(text)
}

/// The text form of a UUID.
pub(crate) fn uuid(bytes: &[u8]) -> String {
    let digits = hex::encode(bytes);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_have_the_form_of_the_database() {
        let made = |push: &dyn Fn(&mut String)| {
            let mut out = String::new();
            push(&mut out);
            out
        };
        assert_eq!(made(&|out| push_date(out, -719_162)), "0001-01-01");
        assert_eq!(made(&|out| push_date(out, 19_782)), "2024-02-29");
        assert_eq!(made(&|out| push_datetime(out, -1)), "1969-12-31 23:59:59.999999");
        assert_eq!(made(&|out| push_datetime(out, 253_402_300_799_000_000)), "9999-12-31 23:59:59");
        assert_eq!(made(&|out| push_time(out, -3_020_399_999_999)), "-838:59:59.999999");
        assert_eq!(made(&|out| push_time(out, 5_000_000)), "00:00:05");
    }

    #[test]
    fn decimals_get_their_point() {
        assert_eq!(decimal("-5", 3), "-0.005");
        assert_eq!(decimal("12340", 3), "12.340");
        assert_eq!(decimal("7", 0), "7");
    }

    #[test]
    fn dates_that_are_none_have_the_text_that_was_stored() {
        assert_eq!(stored_date(&[], true).as_deref(), Some("0000-00-00 00:00:00"));
        assert_eq!(stored_date(&[4, 0xe8, 7, 2, 31], false).as_deref(), Some("2024-02-31"));
        assert_eq!(stored_date(&[7, 0xe8, 7, 0, 10, 1, 2, 3], true).as_deref(), Some("2024-00-10 01:02:03"));
        assert_eq!(stored_date(&[9], true), None);
    }
}
