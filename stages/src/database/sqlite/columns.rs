//! Which Arrow type each declared type becomes. SQLite keeps values of any type in any column: what does not fit
//! the declared type goes to `__raw`, as the SQL literal that gives the value back.

use std::collections::HashMap;

use arrow_schema::{DataType, Field, TimeUnit};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::tripwire::{Sum, TRIPWIRE_KEY};
use sqlx::SqliteConnection;

use super::connect::{integer, literal, query, text};
use crate::database::tables::{Column, Table, check_names};

/// Nothing beyond the Arrow type is needed to read a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared;

/// Reads a table's columns and key.
pub(super) async fn describe(
    connection: &mut SqliteConnection,
    table: &str,
    date_column: &str,
) -> Result<Table<Declared>> {
    let sql = format!(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo({}) ORDER BY cid",
        literal(table)
    );
    let rows = query(connection, &sql).await?;
    if rows.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("the database has no table `{table}`"))
            .hint("check that `url` names the database of the billing application"));
    }
    let mut columns = Vec::with_capacity(rows.len());
    let mut key = Vec::new();
    let mut date_nullable = None;
    for row in &rows {
        let name = text(row, 0).unwrap_or_default();
        // 2 and 3 are generated columns: they follow from the others and cannot be inserted.
        if matches!(integer(row, 5), Some(2 | 3)) {
            continue;
        }
        let declared = text(row, 1).unwrap_or_default();
        let nullable = integer(row, 2) == Some(0);
        if let Some(position) = integer(row, 4).filter(|position| *position > 0) {
            key.push((position, name.clone()));
        }
        if name == date_column {
            date_nullable = Some(nullable);
        }
        let arrow_type = arrow_type(&declared);
        let sum = match arrow_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Sum::Values),
            DataType::Utf8 | DataType::Binary => Some(Sum::Lengths),
            _ => None,
        };
        let mut field = Field::new(&name, arrow_type, true);
        if let Some(sum) = sum {
            field.set_metadata(HashMap::from([(TRIPWIRE_KEY.to_owned(), sum.as_str().to_owned())]));
        }
        let default_weight = sum.and_then(|sum| default_weight(text(row, 3).as_deref(), nullable, sum));
        columns.push(Column { field, sql_type: declared.to_ascii_lowercase(), default_weight, reading: Declared });
    }
    let Some(date_nullable) = date_nullable else {
        return Err(Error::new(Kind::Config, format!("table `{table}` has no column `{date_column}`")));
    };
    check_names(table, &columns)?;
    key.sort();
    let key = key.into_iter().map(|(_, name)| name).collect();
    Ok(Table::new(table, date_column, date_nullable, columns, key))
}

/// The type that the declaration means on other databases, so that a column is the same wherever it comes from.
fn arrow_type(declared: &str) -> DataType {
    let declared = declared.to_ascii_uppercase();
    let base = declared.split(['(', ' ']).next().unwrap_or_default();
    match base {
        "TINYINT" => DataType::Int8,
        "SMALLINT" => DataType::Int16,
        "MEDIUMINT" | "INT" => DataType::Int32,
        "DATE" => DataType::Date32,
        "DATETIME" | "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, None),
        // The rules of <https://sqlite.org/datatype3.html#determination_of_column_affinity>, in their order.
        _ if declared.contains("INT") => DataType::Int64,
        _ if ["CHAR", "CLOB", "TEXT"].iter().any(|part| declared.contains(part)) => DataType::Utf8,
        _ if declared.contains("BLOB") || declared.contains("BINARY") || declared.is_empty() => DataType::Binary,
        _ if ["REAL", "FLOA", "DOUB"].iter().any(|part| declared.contains(part)) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

fn default_weight(default: Option<&str>, nullable: bool, sum: Sum) -> Option<i128> {
    let default = match default {
        None | Some("NULL") => return nullable.then_some(0),
        Some(text) => text,
    };
    match sum {
        Sum::Values => default.parse().ok(),
        Sum::Lengths => {
            let inner = default.strip_prefix('\'')?.strip_suffix('\'')?;
            (!inner.contains('\'')).then_some(inner.len() as i128)
        }
    }
}
