//! From SQLite's values into Arrow builders.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Date32Builder, Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use cdrvault_format::error::{Error, Result};
use cdrvault_format::raw::RawBuilder;
use jiff::civil::{Date, DateTime};
use sqlx::sqlite::{SqliteRow, SqliteValueRef};
use sqlx::{Decode, Row as _, Sqlite, TypeInfo as _, ValueRef as _};

use super::columns::Declared;
use crate::calendar;
use crate::database::tables::{BATCH_BYTES, BATCH_ROWS, Table};

/// Builds batches of one table, row by row.
pub(super) struct BatchDecoder {
    table: Arc<Table<Declared>>,
    builders: Vec<Builder>,
    raw: RawBuilder,
    rows: usize,
    bytes: usize,
}

/// A value as SQLite stores it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stored<'r> {
    Integer(i64),
    Real(f64),
    Text(&'r [u8]),
    Blob(&'r [u8]),
}

impl BatchDecoder {
    pub(super) fn new(table: Arc<Table<Declared>>) -> Self {
        let builders = table.columns.iter().map(|column| Builder::new(column.field.data_type())).collect();
        Self { table, builders, raw: RawBuilder::default(), rows: 0, bytes: 0 }
    }

    /// Adds a row; gives a batch when there is enough for one.
    pub(super) fn push(&mut self, row: &SqliteRow) -> Result<Option<RecordBatch>> {
        for (index, builder) in self.builders.iter_mut().enumerate() {
            let unreadable = |cause| Error::failed("cannot read a column").with_source(cause);
            let value = row.try_get_raw(index).map_err(unreadable)?;
            let Some(stored) = Stored::of(value)? else {
                builder.append_null();
                continue;
            };
            if let Stored::Text(bytes) | Stored::Blob(bytes) = stored {
                self.bytes += bytes.len();
            }
            if !builder.append(stored) {
                builder.append_null();
                self.raw.keep(index, &stored.literal());
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
        (self.rows, self.bytes) = (0, 0);
        let mut arrays: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        arrays.push(Arc::new(self.raw.finish()));
        let batch = RecordBatch::try_new(SchemaRef::clone(&self.table.schema), arrays);
        batch.map(Some).map_err(|error| Error::failed("cannot build a batch").with_source(error))
    }
}

impl<'r> Stored<'r> {
    /// The value; `None` for NULL.
    pub(super) fn of(value: SqliteValueRef<'r>) -> Result<Option<Self>> {
        if value.is_null() {
            return Ok(None);
        }
        let kind = value.type_info().name().to_owned();
        let decoded = match kind.as_str() {
            "INTEGER" => <i64 as Decode<Sqlite>>::decode(value).map(Self::Integer),
            "REAL" => <f64 as Decode<Sqlite>>::decode(value).map(Self::Real),
            "TEXT" => <&[u8] as Decode<Sqlite>>::decode(value).map(Self::Text),
            _ => <&[u8] as Decode<Sqlite>>::decode(value).map(Self::Blob),
        };
        decoded.map(Some).map_err(|cause| Error::failed("cannot read a column").with_source(cause))
    }

    /// The SQL literal that gives the value back, type and all.
    pub(super) fn literal(self) -> Vec<u8> {
        match self {
            Self::Integer(value) => value.to_string().into_bytes(),
            Self::Real(value) if value.is_infinite() => if value > 0.0 { "9e999" } else { "-9e999" }.into(),
            Self::Real(value) => format!("{value:?}").into_bytes(),
            Self::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains('\0') => format!("'{}'", text.replace('\'', "''")).into_bytes(),
                _ => format!("CAST(X'{}' AS TEXT)", hex::encode(bytes)).into_bytes(),
            },
            Self::Blob(bytes) => format!("X'{}'", hex::encode(bytes)).into_bytes(),
        }
    }
}

enum Builder {
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

impl Builder {
    fn new(kind: &DataType) -> Self {
        match kind {
            DataType::Int8 => Self::Int8(Int8Builder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(..) => Self::Timestamp(TimestampMicrosecondBuilder::new()),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            _ => Self::Binary(BinaryBuilder::new()),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Int8(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Binary(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int8(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Binary(builder) => Arc::new(builder.finish()),
        }
    }

    /// Appends a value, or answers `false` and appends nothing where the value does not fit.
    fn append(&mut self, stored: Stored<'_>) -> bool {
        match (self, stored) {
            (Self::Int8(builder), Stored::Integer(value)) => value.try_into().map(|v| builder.append_value(v)).is_ok(),
            (Self::Int16(builder), Stored::Integer(value)) => value.try_into().map(|v| builder.append_value(v)).is_ok(),
            (Self::Int32(builder), Stored::Integer(value)) => value.try_into().map(|v| builder.append_value(v)).is_ok(),
            (Self::Int64(builder), Stored::Integer(value)) => {
                builder.append_value(value);
                true
            }
            (Self::Float64(builder), Stored::Real(value)) => {
                builder.append_value(value);
                true
            }
            (Self::Date(builder), Stored::Text(text)) => {
                date(text).map(|date| builder.append_value(calendar::days_since_1970(date))).is_some()
            }
            (Self::Timestamp(builder), Stored::Text(text)) => {
                micros(text).map(|micros| builder.append_value(micros)).is_some()
            }
            (Self::Text(builder), Stored::Text(text)) => {
                std::str::from_utf8(text).map(|text| builder.append_value(text)).is_ok()
            }
            (Self::Binary(builder), Stored::Blob(bytes)) => {
                builder.append_value(bytes);
                true
            }
            _ => false,
        }
    }
}

/// A date in the one form that gives the same text back.
pub(super) fn date(text: &[u8]) -> Option<Date> {
    let text = std::str::from_utf8(text).ok()?;
    let date: Date = text.parse().ok()?;
    (date.year() > 0 && date.to_string() == text).then_some(date)
}

/// Microseconds since 1970 of `2026-01-15 09:12:44`, with six more digits or none.
fn micros(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if !matches!(text.len(), 19 | 26) || text.as_bytes().get(10) != Some(&b' ') {
        return None;
    }
    let time: DateTime = text.parse().ok()?;
    let micros = i64::from(time.subsec_nanosecond() / 1000);
    let again = time.strftime(if text.len() == 19 { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S.%6f" });
    // `.000000` would come back as nothing.
    if again.to_string() != text || (text.len() == 26 && micros == 0) || time.year() < 1 {
        return None;
    }
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some((i64::from(calendar::days_since_1970(time.date())) * 86_400 + seconds) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_give_the_same_text_back_are_typed() {
        assert_eq!(micros(b"1970-01-02 00:00:01"), Some(86_401_000_000));
        assert_eq!(micros(b"1970-01-01 00:00:00.000007"), Some(7));
        for odd in ["2024-02-31 00:00:00", "2024-01-01T00:00:00", "2024-01-01", "2024-01-01 00:00:00.000000", "x", ""] {
            assert_eq!(micros(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn literals_give_type_and_bytes_back() {
        let of = |stored: Stored<'_>| String::from_utf8(stored.literal()).unwrap();
        assert_eq!(of(Stored::Text(b"it's")), "'it''s'");
        assert_eq!(of(Stored::Text(b"\xff\0")), "CAST(X'ff00' AS TEXT)");
        assert_eq!(of(Stored::Blob(b"\x01")), "X'01'");
        assert_eq!(of(Stored::Real(0.1)), "0.1");
        assert_eq!(of(Stored::Real(1.0)), "1.0");
        assert_eq!(of(Stored::Integer(-5)), "-5");
    }
}
