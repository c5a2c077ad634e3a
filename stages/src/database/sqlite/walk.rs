//! Which days a table has, and what a partition is in SQL.

use cdrvault_format::error::{Error, Result};
use cdrvault_format::partition::{DayRange, Partition};
use cdrvault_format::tripwire::{Sum, Tripwire};
use jiff::civil::Date;
use sqlx::{Row as _, SqliteConnection};

use super::columns::Declared;
use super::connect::{integer, query, quoted};
use super::decode::{Stored, date};
use crate::database::tables::{Found, Table};

/// What comes after all texts that begin like this one: `2026-01-15` and all that follows it ends before `2026-01-16`,
/// `2024-02-29` before `2024-02-2:`, whose last character follows `9`. So `2024-02-31 10:00:00` is in no day.
fn after_prefix(prefix: &str) -> String {
    let mut after = prefix.to_owned();
    let last = after.pop().unwrap_or('9');
    after.push(char::from_u32(u32::from(last) + 1).unwrap_or(char::MAX));
    after
}

fn day_condition(column: &str, day: Date) -> String {
    let day = day.to_string();
    format!("{column} >= '{day}' AND {column} < '{}'", after_prefix(&day))
}

/// The rows whose date is not a real date in text: they need a scan, which only a table that has some pays for.
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
    let from = range.from.map_or_else(|| "0001-01-01".to_owned(), |from| from.to_string());
    let mut beyond = format!(">= '{from}'");
    loop {
        let sql = format!("SELECT MIN({column}) FROM {name} WHERE {column} {beyond} AND {column} < X''");
        let rows = query(connection, &sql).await?;
        let Some(row) = rows.first() else { break };
        let value = row.try_get_raw(0).map_err(|cause| Error::failed("cannot read a date").with_source(cause))?;
        let Some(Stored::Text(value)) = Stored::of(value)? else { break };
        let prefix = value.get(..10);
        match prefix.and_then(date) {
            Some(day) if range.contains(day) => {
                found.days.push(day);
                // Not from the next day on: after `2024-02-29` there may be `2024-02-31`.
                beyond = format!(">= '{}'", after_prefix(&day.to_string()));
            }
            Some(_) => break,
            None => {
                found.undated = true;
                beyond = match prefix.map(std::str::from_utf8) {
                    // None of those that begin like it is a date.
                    Some(Ok(prefix)) if prefix.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) => {
                        format!(">= '{}'", after_prefix(prefix))
                    }
                    _ => format!("> {}", String::from_utf8_lossy(&Stored::Text(value).literal())),
                };
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
            // Two halves of 32 bits, because SUM fails beyond 64. What is not an integer sums to whatever SQLite takes it
            // for, so those are counted.
            let sums = match Sum::of(&column.field)? {
                Sum::Values => format!(
                    "SUM({name} >> 32), SUM({name} & 4294967295), SUM(typeof({name}) NOT IN ('integer', 'null'))"
                ),
                Sum::Lengths => format!("0, SUM(length(CAST({name} AS BLOB))), 0"),
            };
            Some((column.field.name().as_str(), sums))
        })
        .collect();
    let sums: String = summed.iter().map(|(_, sums)| format!(", {sums}")).collect();
    let condition = condition(table, partition);
    let sql = format!("SELECT COUNT(*){sums} FROM {} WHERE {condition}", quoted(&table.name));
    let rows = query(connection, &sql).await?;
    let mut wire = Tripwire::default();
    let Some(row) = rows.first() else { return Ok(wire) };
    wire.rows = integer(row, 0).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
    for (at, (name, _)) in summed.iter().enumerate() {
        // NULL is the sum of no values.
        let [high, low, odd] = [1, 2, 3].map(|of| i128::from(integer(row, 3 * at + of).unwrap_or(0)));
        wire.sums.insert((*name).to_owned(), (odd == 0).then(|| (high << 32) + low));
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
