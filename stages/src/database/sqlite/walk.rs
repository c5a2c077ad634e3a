//! Which days a table has, and what a partition is in SQL.

use cdrvault_pipeline::error::Result;
use cdrvault_pipeline::partition::{DayRange, Partition};
use cdrvault_pipeline::tripwire::{Sum, Tripwire};
use jiff::civil::Date;
use sqlx::SqliteConnection;

use super::columns::Declared;
use super::connect::{integer, query, quoted, text};
use super::decode::date;
use crate::calendar::next_day;
use crate::database::tables::{Found, Table};

/// A day is a prefix of the text: `2026-01-15` up to, not including, `2026-01-1:`, whose last character follows `9`'s.
/// So `2024-02-31 10:00:00` is in no day.
fn day_condition(column: &str, day: Date) -> String {
    let text = day.to_string();
    let (all_but_last, last) = text.split_at(text.len() - 1);
    let after = char::from(last.as_bytes().first().map_or(b':', |byte| byte + 1));
    format!("{column} >= '{text}' AND {column} < '{all_but_last}{after}'")
}

/// The rows whose date is no real date in text: they need a scan, which only a table that has some pays for.
fn undated_condition(column: &str) -> String {
    format!(
        "{column} IS NULL OR typeof({column}) <> 'text' OR date(substr({column}, 1, 10)) IS NOT substr({column}, 1, 10) \
         OR {column} < '0001-01-01'"
    )
}

pub(super) fn condition(table: &Table<Declared>, partition: Partition) -> String {
    let column = quoted(&table.date_column);
    match partition {
        Partition::Day(day) => day_condition(&column, day),
        Partition::Undated => undated_condition(&column),
        Partition::Snapshot => "1".to_owned(),
    }
}

pub(super) async fn days(connection: &mut SqliteConnection, table: &Table<Declared>, range: DayRange) -> Result<Found> {
    let (column, name) = (quoted(&table.date_column), quoted(&table.name));
    let mut found = Found::default();
    // Text comes after NULL and numbers, and before blobs, in SQLite's order.
    let odd =
        format!("SELECT 1 FROM {name} WHERE {column} IS NULL OR {column} < '0001-01-01' OR {column} >= X'' LIMIT 1");
    found.undated = !query(connection, &odd).await?.is_empty();
    let mut next = range.from.map_or_else(|| "0001-01-01".to_owned(), |from| from.to_string());
    loop {
        let sql = format!("SELECT MIN({column}) FROM {name} WHERE {column} >= '{next}' AND {column} < X''");
        let rows = query(connection, &sql).await?;
        let Some(value) = rows.first().and_then(|row| text(row, 0)) else { break };
        let day = value.get(..10).and_then(|day| date(day.as_bytes()));
        match day {
            Some(day) if range.contains(day) => {
                found.days.push(day);
                match next_day(day) {
                    Some(after) => next = after.to_string(),
                    None => break,
                }
            }
            Some(_) => break,
            None => {
                found.undated = true;
                // Step over this very value; there are few of its kind.
                next = format!("{}\u{1}", value.replace('\'', "''"));
            }
        }
    }
    Ok(found)
}

pub(super) async fn tripwire(
    connection: &mut SqliteConnection,
    table: &Table<Declared>,
    partition: Partition,
) -> Result<Tripwire> {
    let summed: Vec<(&str, String)> = table
        .columns
        .iter()
        .filter_map(|column| {
            let name = quoted(column.field.name());
            let sum = match Sum::of(&column.field)? {
                Sum::Values => format!("SUM({name})"),
                Sum::Lengths => format!("SUM(length(CAST({name} AS BLOB)))"),
            };
            Some((column.field.name().as_str(), sum))
        })
        .collect();
    let sums: String = summed.iter().map(|(_, sum)| format!(", {sum}")).collect();
    let condition = condition(table, partition);
    let sql = format!("SELECT COUNT(*){sums} FROM {} WHERE {condition}", quoted(&table.name));
    let rows = query(connection, &sql).await?;
    let mut wire = Tripwire::default();
    let Some(row) = rows.first() else { return Ok(wire) };
    wire.rows = integer(row, 0).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
    for (at, (name, _)) in summed.iter().enumerate() {
        // NULL is the sum of no values; a REAL sum comes of values that are no integers, and cannot be compared.
        let sum = match text(row, at + 1) {
            None => Some(0),
            Some(digits) => digits.parse().ok(),
        };
        wire.sums.insert((*name).to_owned(), sum);
    }
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_prefix() {
        let of = |day: &str| day_condition("c", day.parse().unwrap());
        assert_eq!(of("2026-01-15"), "c >= '2026-01-15' AND c < '2026-01-16'");
        assert_eq!(of("2024-02-29"), "c >= '2024-02-29' AND c < '2024-02-2:'");
    }
}
