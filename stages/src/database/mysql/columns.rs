//! Which Arrow type each column type becomes, how it is selected, and how its bytes are decoded.

use std::collections::HashMap;

use arrow_schema::{DataType, Field, TimeUnit};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::tripwire::{Sum, TRIPWIRE_KEY};

use super::connect::{literal, query, quoted, text};
use super::wire::Connection;
use crate::database::tables::{Column, Table, check_names};

/// How a value is selected and decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// The expression in the select list.
    pub(crate) select: String,
    /// A second expression, which tells what the first one cannot.
    pub(crate) beside: Option<Beside>,
    /// How the bytes of the first one become a value.
    pub(crate) decoding: Decoding,
}

/// What is selected beside a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Beside {
    /// The stored bytes, where converting to utf8mb4 and back does not give them; else NULL.
    StoredBytes(String),
    /// The number of an ENUM's label: 0 is the error value, which looks like ''. A SET has a bitmask instead.
    Number(String),
}

impl Beside {
    pub(crate) fn select(&self) -> &str {
        match self {
            Self::StoredBytes(select) | Self::Number(select) => select,
        }
    }
}

/// How the bytes of a value become a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decoding {
    /// An integer, little-endian, of the width of the Arrow type.
    Int,
    /// BIT: big-endian, as many bytes as needed.
    Bits,
    Float,
    Double,
    /// Digits in text.
    Decimal {
        scale: i8,
    },
    /// The same, kept as text.
    Digits,
    /// DATE.
    Date,
    /// DATETIME and TIMESTAMP.
    DateTime,
    /// TIME, as microseconds.
    Time,
    /// Text that should be UTF-8.
    Text,
    /// The same of the charset `ascii`, which is not a promise: a server stores bytes above 0x7F in it.
    Ascii,
    /// The same of a charset whose letters have this many bytes, and may be halves of a pair of UTF-16 (ucs2, utf32): these
    /// come as UTF-8 would have them, if it had them.
    Wide(usize),
    /// ENUM: its labels, by number from 1.
    Label,
    /// SET: a number that must be read with the labels.
    Labels,
    Bytes,
    /// UUID in its text form.
    Uuid,
}

/// Reads a table's columns and key from the catalogue.
pub(crate) async fn describe(connection: &mut Connection, table: &str, date_column: &str) -> Result<Table<Reading>> {
    let rows = query(
        connection,
        &format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, \
             CAST(NUMERIC_PRECISION AS CHAR), CAST(NUMERIC_SCALE AS CHAR) FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
            literal(table)
        ),
    )
    .await?;
    if rows.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("the database has no table `{table}` that we may read"))
            .hint("check the database's name in `url`, and grant SELECT on the table"));
    }
    let mut columns = Vec::with_capacity(rows.len());
    let mut date_nullable = None;
    for row in &rows {
        let at = |column: usize| text(row, column).unwrap_or_default();
        let found = Catalogued {
            name: at(0),
            data_type: at(1).to_ascii_lowercase(),
            column_type: at(2).to_ascii_lowercase(),
            charset: text(row, 3),
            nullable: at(4) == "YES",
            default: text(row, 5),
            precision: at(7).parse().unwrap_or(0),
            scale: at(8).parse().unwrap_or(0),
        };
        // Generated columns follow from the others and cannot be inserted.
        if at(6).to_ascii_uppercase().contains("GENERATED") && !at(6).to_ascii_uppercase().contains("DEFAULT_GENERATED")
        {
            continue;
        }
        if found.name == date_column {
            if !matches!(found.data_type.as_str(), "datetime" | "timestamp" | "date") {
                return Err(Error::new(
                    Kind::Config,
                    format!("column `{date_column}` of table `{table}` is {}, not a date or a time", found.column_type),
                ));
            }
            date_nullable = Some(found.nullable);
        }
        columns.push(found.plan()?);
    }
    let Some(date_nullable) = date_nullable else {
        return Err(Error::new(Kind::Config, format!("table `{table}` has no column `{date_column}`")));
    };
    check_names(table, &columns)?;
    let key = primary_key(connection, table).await?;
    let mut described = Table::new(table, date_column, date_nullable, columns, key);
    described.remarks.extend(inconsistent(connection, table).await?);
    Ok(described)
}

/// The same table, of which those decimals of more than 38 digits are read as text that are wanted so: the server sends them as
/// digits anyway.
pub(crate) fn with_decimals_as_text(mut table: Table<Reading>, wanted: impl Fn(&str) -> bool) -> Table<Reading> {
    for column in &mut table.columns {
        if matches!(column.field.data_type(), DataType::Decimal256(..)) && wanted(column.field.name()) {
            column.field.set_data_type(DataType::Utf8);
            column.reading.decoding = Decoding::Digits;
        }
    }
    table.with_own_schema()
}

/// What a snapshot does not do for a table.
async fn inconsistent(connection: &mut Connection, table: &str) -> Result<Option<String>> {
    let sql = format!(
        "SELECT t.TABLE_TYPE, t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t \
         LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
         WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME = {}",
        literal(table)
    );
    let rows = query(connection, &sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(match (text(row, 0).as_deref(), text(row, 1), text(row, 2).as_deref()) {
        (_, _, Some("YES")) => None,
        (Some("VIEW"), ..) => Some(format!(
            "`{table}` is a view: its rows are as of one moment only where all of its tables have transactions, and a restore \
             needs a table of this name"
        )),
        (_, Some(engine), _) => Some(format!(
            "table `{table}` is of the engine {engine}, which has no transactions: what is written while a day is read may be \
             saved in part; the next run takes the rest if the day is announced or its sums changed \
             (`ALTER TABLE {} ENGINE = InnoDB` ends this)",
            quoted(table)
        )),
        _ => None,
    })
}

async fn primary_key(connection: &mut Connection, table: &str) -> Result<Vec<String>> {
    let rows = query(
        connection,
        &format!(
            "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} \
             AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
            literal(table)
        ),
    )
    .await?;
    Ok(rows.iter().map(|row| text(row, 0).unwrap_or_default()).collect())
}

/// A column as the catalogue has it.
struct Catalogued {
    name: String,
    data_type: String,
    column_type: String,
    charset: Option<String>,
    nullable: bool,
    default: Option<String>,
    precision: u8,
    scale: i8,
}

impl Catalogued {
    fn plan(self) -> Result<Column<Reading>> {
        let unsigned = self.column_type.contains("unsigned");
        let int =
            |signed: DataType, without_sign: DataType| (if unsigned { without_sign } else { signed }, Decoding::Int);
        let (arrow_type, decoding) = match self.data_type.as_str() {
            // TINYINT(1) is not a boolean: it holds -128 to 127 all the same.
            "tinyint" => int(DataType::Int8, DataType::UInt8),
            "smallint" => int(DataType::Int16, DataType::UInt16),
            "mediumint" | "int" => int(DataType::Int32, DataType::UInt32),
            "bigint" => int(DataType::Int64, DataType::UInt64),
            "year" => (DataType::UInt16, Decoding::Int),
            "bit" => (DataType::UInt64, Decoding::Bits),
            "float" => (DataType::Float32, Decoding::Float),
            "double" => (DataType::Float64, Decoding::Double),
            "decimal" => {
                let kind = if self.precision > 38 { DataType::Decimal256 } else { DataType::Decimal128 };
                (kind(self.precision, self.scale), Decoding::Decimal { scale: self.scale })
            }
            "date" => (DataType::Date32, Decoding::Date),
            "datetime" => (DataType::Timestamp(TimeUnit::Microsecond, None), Decoding::DateTime),
            "timestamp" => (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), Decoding::DateTime),
            "time" => (DataType::Int64, Decoding::Time),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "json" | "inet4" | "inet6" => {
                let decoding = match self.charset.as_deref() {
                    Some("ascii") => Decoding::Ascii,
                    Some("ucs2") => Decoding::Wide(2),
                    Some("utf32") => Decoding::Wide(4),
                    _ => Decoding::Text,
                };
                (DataType::Utf8, decoding)
            }
            "enum" => (DataType::Utf8, Decoding::Label),
            "set" => (DataType::Utf8, Decoding::Labels),
            "uuid" => (DataType::FixedSizeBinary(16), Decoding::Uuid),
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "geometry" | "point"
            | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
            | "geomcollection" | "vector" => (DataType::Binary, Decoding::Bytes),
            other => {
                return Err(Error::new(
                    Kind::Config,
                    format!("column `{}` has the type {other}, which cdrvault cannot read", self.name),
                )
                .hint("tell us about it; until then the table cannot be saved without losing that column"));
            }
        };
        let (select, beside) = self.expressions(&decoding);
        let sum = match decoding {
            Decoding::Int => Some(Sum::Values),
            Decoding::Text | Decoding::Ascii | Decoding::Wide(_) | Decoding::Bytes => Some(Sum::Lengths),
            _ => None,
        };
        // A typed column is nullable even where the table's is not: what does not fit it goes to `__raw`.
        let mut field = Field::new(&self.name, arrow_type, true);
        if let Some(sum) = sum {
            field.set_metadata(HashMap::from([(TRIPWIRE_KEY.to_owned(), sum.as_str().to_owned())]));
        }
        let default_weight = sum.and_then(|sum| self.default_weight(sum));
        Ok(Column { field, sql_type: self.column_type, default_weight, reading: Reading { select, beside, decoding } })
    }

    fn expressions(&self, decoding: &Decoding) -> (String, Option<Beside>) {
        let column = quoted(&self.name);
        match decoding {
            Decoding::Label | Decoding::Labels => {
                let number = format!("CAST({column} AS UNSIGNED)");
                (format!("CONVERT({column} USING utf8mb4)"), Some(Beside::Number(number)))
            }
            Decoding::Text | Decoding::Wide(_) => match self.charset.as_deref() {
                // Our results keep their charset, so these arrive as they are stored.
                None | Some("utf8mb4" | "utf8mb3" | "utf8" | "binary") => (column, None),
                Some(charset) => {
                    let converted = format!("CONVERT({column} USING utf8mb4)");
                    let stored = format!(
                        "IF(CAST(CONVERT({converted} USING {charset}) AS BINARY) <=> CAST({column} AS BINARY), \
                         NULL, CAST({column} AS BINARY))"
                    );
                    (converted, Some(Beside::StoredBytes(stored)))
                }
            },
            _ => (column, None),
        }
    }

    /// MariaDB gives a default as an expression (`'abc'`, `NULL`, `0`), MySQL as bare text.
    fn default_weight(&self, sum: Sum) -> Option<i128> {
        let default = match self.default.as_deref() {
            None | Some("NULL") => return self.nullable.then_some(0),
            Some(text) => text,
        };
        let quoted = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        match sum {
            Sum::Values => quoted.unwrap_or(default).parse().ok(),
            Sum::Lengths => quoted.filter(|text| !text.contains(['\'', '\\'])).map(|text| text.len() as i128),
        }
    }
}
