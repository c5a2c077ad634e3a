//! The statements that load a CSV file so that every value is what it was.

use std::fmt::Write as _;

use cdrvault_format::error::Result;
use cdrvault_format::manifest::ColumnInfo;

use crate::cells::Rows;
use crate::database::mysql::columns::Decoding;
use crate::database::mysql::connect::{literal as text_literal, quoted};
use crate::database::mysql::literal;

/// What all statements need: no value is bent, and text is what the files have it in.
pub(super) const SESSION: &str = "SET NAMES utf8mb4;\nSET SESSION sql_mode = \
     'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00';\n";

/// For the error value of an ENUM, which a strict server refuses.
const LOOSE: &str = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO';\n";

/// How a column's values stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// As text that the server reads as it is meant.
    Plain,
    /// As digits; text of the same digits would mean something else.
    Number,
    /// As hexadecimal digits, because no character set has all bytes.
    Hex,
}

impl Written {
    pub(super) fn of(column: &ColumnInfo) -> Self {
        match (base(&column.sql_type), column.arrow_type.as_str()) {
            ("bit" | "year", _) => Self::Number,
            (_, "Binary") => Self::Hex,
            _ => Self::Plain,
        }
    }
}

/// The type without its length and attributes.
pub(super) fn base(sql_type: &str) -> &str {
    sql_type.split(['(', ' ']).next().unwrap_or_default()
}

/// Whether what the typed column could not hold cannot stand in a file either, in a way that `LOAD DATA` would read.
pub(super) fn is_odd(column: &ColumnInfo) -> bool {
    !matches!(base(&column.sql_type), "date" | "datetime" | "timestamp")
}

/// Loads a file but for its first lines.
pub(super) fn load(path: &str, table: &str, columns: &[ColumnInfo], ignored: u64) -> String {
    let path = path.replace('\\', "\\\\").replace('\'', "''");
    let (mut list, mut set) = (Vec::new(), Vec::new());
    for (index, column) in columns.iter().enumerate() {
        let name = quoted(&column.name);
        match Written::of(column) {
            Written::Plain => {
                list.push(name);
                continue;
            }
            Written::Number => set.push(format!("{name} = CAST(@c{index} AS UNSIGNED)")),
            Written::Hex => set.push(format!("{name} = UNHEX(@c{index})")),
        }
        list.push(format!("@c{index}"));
    }
    let ignore = if ignored == 0 { String::new() } else { format!(" IGNORE {ignored} LINES") };
    let set = if set.is_empty() { String::new() } else { format!(" SET {}", set.join(", ")) };
    format!(
        "LOAD DATA LOCAL INFILE '{path}' INTO TABLE {} CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' \
         ESCAPED BY '\\\\' LINES TERMINATED BY '\\n'{ignore} ({}){set};\n",
        quoted(table),
        list.join(", ")
    )
}

/// Inserts one row, as a restore into the server would.
pub(super) fn insert(table: &str, columns: &[ColumnInfo], rows: &Rows<'_>, row: usize) -> Result<String> {
    let raw = rows.raw(row)?;
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let mut sql = format!("INSERT INTO {} ({}) VALUES (", quoted(table), names.join(", "));
    let mut strict = true;
    for (index, (column, cells)) in columns.iter().zip(rows.columns()).enumerate() {
        if index > 0 {
            sql.push(',');
        }
        let decoding = decoding(column);
        match raw.get(column.name.as_str()) {
            Some(bytes) if decoding == Decoding::Text && is_wide(bytes) => sql += &wide(table, &column.name, bytes)?,
            Some(bytes) => strict &= literal::push_raw(&mut sql, bytes, &decoding)?,
            None => literal::push(&mut sql, cells.get(row), &decoding),
        }
    }
    sql.push_str(");\n");
    if !strict {
        let mut all = LOOSE.to_owned();
        let _ = write!(all, "{sql}{SESSION}");
        return Ok(all);
    }
    Ok(sql)
}

/// Whether the bytes are not as every server stores them: halves of pairs, which ucs2 and utf32 have in a form of their own.
fn is_wide(bytes: &[u8]) -> bool {
    [2, 4].into_iter().any(|width| *literal::stored(bytes, &Decoding::Wide(width)) != *bytes)
}

/// Such bytes as the column stores them. Receipts do not tell its character set, but the server does.
fn wide(table: &str, column: &str, bytes: &[u8]) -> Result<String> {
    let mut sql = format!(
        "CASE (SELECT CHARACTER_SET_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} \
         AND COLUMN_NAME = {})",
        text_literal(table),
        text_literal(column)
    );
    for (charset, decoding) in [
        (" WHEN 'ucs2' THEN ", Decoding::Wide(2)),
        (" WHEN 'utf32' THEN ", Decoding::Wide(4)),
        (" ELSE ", Decoding::Text),
    ] {
        sql += charset;
        literal::push_raw(&mut sql, bytes, &decoding)?;
    }
    Ok(sql + " END")
}

fn decoding(column: &ColumnInfo) -> Decoding {
    match base(&column.sql_type) {
        "date" => Decoding::Date,
        "datetime" | "timestamp" => Decoding::DateTime,
        "time" => Decoding::Time,
        "enum" => Decoding::Label,
        "set" => Decoding::Labels,
        "uuid" => Decoding::Uuid,
        _ if column.arrow_type == "Utf8" => Decoding::Text,
        _ => Decoding::Bytes,
    }
}
