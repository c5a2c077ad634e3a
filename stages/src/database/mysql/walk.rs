//! Which days a table has, and what a partition is in SQL.

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::{DayRange, Partition};
use cdrvault_format::tripwire::{Sum, Tripwire};
use jiff::civil::Date;

use super::columns::Reading;
use super::connect::{integer, query, quoted, text};
use super::decode::{parts_in_text, valid_date};
use super::wire::Connection;
use crate::calendar::first_day_after;
use crate::database::tables::{Found, Table};

/// Finds the days that have rows, one index look-up each, and the gaps in the calendar that have rows.
async fn walk(connection: &mut Connection, table: &Table<Reading>, range: DayRange) -> Result<Walked> {
    let (column, name) = (quoted(&table.date_column), quoted(&table.name));
    let mut walked = Walked::default();
    if table.date_nullable {
        let sql = format!("SELECT 1 FROM {name} WHERE {column} IS NULL LIMIT 1");
        walked.nulls = !query(connection, &sql).await?.is_empty();
    }
    // Before year 1 there are only zero dates: `0000-00-00` and the like.
    let sql = format!("SELECT 1 FROM {name} WHERE {column} < '0001-01-01' LIMIT 1");
    if !query(connection, &sql).await?.is_empty() {
        walked.gaps.push(format!("{column} < '0001-01-01'"));
    }
    let first = range.from.or_else(|| first_day_after(0, 0, 0)).unwrap_or(Date::MIN);
    let mut after = format!("{column} >= '{first}'");
    loop {
        let sql = format!("SELECT MIN({column}) FROM {name} WHERE {after}");
        let rows = query(connection, &sql).await?;
        let Some(found) = rows.first().and_then(|row| text(row, 0)) else { break };
        let parts = parts_in_text(&found).ok_or_else(|| {
            Error::new(Kind::Damaged, format!("column {column} of table {name} holds `{found}`, which is not a date"))
        })?;
        match valid_date(parts) {
            Some(date) if range.contains(date) => {
                walked.days.push(date);
                // Not from the next day on: after `2024-02-29` there may be `2024-02-31`.
                after = format!("{column} > '{date} 23:59:59.999999'");
            }
            Some(_) => break,
            None => {
                let (year, month, day) = parts;
                let from = format!("{column} >= '{year:04}-{month:02}-{day:02}'");
                let Some(next) = first_day_after(year, month, day) else {
                    walked.gaps.push(from);
                    break;
                };
                walked.gaps.push(format!("({from} AND {column} < '{next}')"));
                after = format!("{column} >= '{next}'");
            }
        }
    }
    Ok(walked)
}

#[derive(Default)]
struct Walked {
    days: Vec<Date>,
    /// Conditions under which lie the rows without a real date.
    gaps: Vec<String>,
    nulls: bool,
}

pub(super) async fn days(connection: &mut Connection, table: &Table<Reading>, range: DayRange) -> Result<Found> {
    let walked = walk(connection, table, range).await?;
    Ok(Found { undated: walked.nulls || !walked.gaps.is_empty(), days: walked.days })
}

/// The condition that selects a partition's rows, by the primary key. A day ends with its last microsecond, not with
/// the next day: between `2024-02-29 23:59:59.999999` and `2024-03-01` there may be `2024-02-31`.
pub(super) async fn condition(
    connection: &mut Connection,
    table: &Table<Reading>,
    partition: Partition,
) -> Result<String> {
    let column = quoted(&table.date_column);
    Ok(match partition {
        Partition::Day(day) => {
            format!("{column} >= '{day} 00:00:00' AND {column} <= '{day} 23:59:59.999999'")
        }
        Partition::Snapshot => "TRUE".to_owned(),
        Partition::Undated => {
            let mut walked = walk(connection, table, DayRange::ALL).await?;
            if table.date_nullable {
                walked.gaps.push(format!("{column} IS NULL"));
            }
            if walked.gaps.is_empty() { "FALSE".to_owned() } else { walked.gaps.join(" OR ") }
        }
    })
}

/// `COUNT(*)` and the sums of a partition.
pub(super) async fn tripwire(
    connection: &mut Connection,
    table: &Table<Reading>,
    partition: Partition,
) -> Result<Tripwire> {
    let summed: Vec<(&str, String)> = table
        .columns
        .iter()
        .filter_map(|column| {
            let sum = match Sum::of(&column.field)? {
                Sum::Values => format!("SUM({})", column.reading.select),
                Sum::Lengths => format!("SUM(OCTET_LENGTH({}))", column.reading.select),
            };
            Some((column.field.name().as_str(), sum))
        })
        .collect();
    let condition = condition(connection, table, partition).await?;
    let sums: String = summed.iter().map(|(_, sum)| format!(", {sum}")).collect();
    let sql = format!("SELECT COUNT(*){sums} FROM {} WHERE {condition}", quoted(&table.name));
    let rows = query(connection, &sql).await?;
    let mut wire = Tripwire::default();
    let Some(row) = rows.first() else { return Ok(wire) };
    wire.rows = integer(row, 0).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
    for (at, (name, _)) in summed.iter().enumerate() {
        // A sum over no values is NULL.
        let sum = match text(row, at + 1) {
            None => Some(0),
            Some(digits) => digits.parse().ok(),
        };
        wire.sums.insert((*name).to_owned(), sum);
    }
    Ok(wire)
}
