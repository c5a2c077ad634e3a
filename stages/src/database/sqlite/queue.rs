//! The event tables in SQLite.

use std::collections::{BTreeMap, BTreeSet};

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Writer;
use cdrvault_plugin::stage::OnAnnounced;
use jiff::civil::Date;
use sqlx::SqliteConnection;

use super::connect::{execute, integer, literal, query, text};
use super::decode::date;
use crate::database::jobs::{
    JOBS, JobIds, JobNames, QUEUE, days_of_mark, delete_names, mark_name, marks_in, select_names,
};
use crate::database::tables::Queued;

/// The stand-in, in the queue's `day` column, for all rows without a real date.
const UNDATED: &str = "0000-00-00";

pub(super) async fn find_jobs(
    connection: &mut SqliteConnection,
    writer: &Writer,
    flow: &str,
) -> Result<Option<JobIds>> {
    let names = JobNames::new(writer, flow);
    let mut ids = Vec::new();
    for name in [&names.inbox, &names.debt] {
        let rows = query(connection, &format!("SELECT id FROM {JOBS} WHERE name = {}", literal(name))).await?;
        ids.push(rows.first().and_then(|row| integer(row, 0)));
    }
    Ok(match ids[..] {
        [Some(inbox), Some(debt)] => Some(JobIds { inbox, debt }),
        _ => None,
    })
}

/// Why events cannot work here, if they cannot.
pub(super) async fn obstacle(connection: &mut SqliteConnection, may_write: bool) -> Result<Option<String>> {
    for table in [JOBS, QUEUE] {
        let sql = format!("SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = {}", literal(table));
        if query(connection, &sql).await?.is_empty() {
            return Ok(Some(format!("the database has no table `{table}`")));
        }
    }
    Ok((!may_write).then(|| "the database can only be read".to_owned()))
}

pub(super) async fn names(connection: &mut SqliteConnection) -> Result<Vec<String>> {
    let rows = query(connection, &select_names()).await?;
    Ok(rows.iter().filter_map(|row| text(row, 0)).collect())
}

pub(super) async fn forget(connection: &mut SqliteConnection, names: &[String]) -> Result<()> {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    transaction(connection, async |connection| {
        for statement in delete_names(&names) {
            execute(connection, &statement).await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn register(
    connection: &mut SqliteConnection,
    writer: &Writer,
    flows: &[(String, Vec<Partition>)],
) -> Result<()> {
    transaction(connection, async |connection| {
        for (flow, partitions) in flows {
            let names = JobNames::new(writer, flow);
            for name in [&names.inbox, &names.debt] {
                let name = literal(name);
                let sql = format!(
                    "INSERT INTO {JOBS} (name) SELECT {name} WHERE NOT EXISTS (SELECT 1 FROM {JOBS} WHERE name = {name})"
                );
                execute(connection, &sql).await?;
            }
            let jobs = find_jobs(connection, writer, flow)
                .await?
                .ok_or_else(|| Error::failed(format!("the rows of flow `{flow}` in {JOBS} did not appear")))?;
            for some in partitions.chunks(500) {
                let values: Vec<String> = some.iter().map(|p| format!("('{}', {})", day_of(*p), jobs.debt)).collect();
                let sql = format!("INSERT OR IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) VALUES {}", values.join(", "));
                execute(connection, &sql).await?;
            }
        }
        Ok(())
    })
    .await
}

/// Reads a flow's two queues. Days that are not real dates are remembered in `odd`, so that they can be deleted.
pub(super) async fn queued(
    connection: &mut SqliteConnection,
    jobs: JobIds,
    odd: &mut BTreeSet<String>,
) -> Result<Queued> {
    let mut queued = Queued::default();
    for (job, into) in [(jobs.inbox, &mut queued.announced), (jobs.debt, &mut queued.owed)] {
        let rows = query(connection, &format!("SELECT day FROM {QUEUE} WHERE ar_daily_status_job_id = {job}")).await?;
        for row in &rows {
            let day = text(row, 0).unwrap_or_default();
            into.insert(if let Some(day) = date(day.as_bytes()) {
                Partition::Day(day)
            } else {
                odd.insert(day);
                Partition::Undated
            });
        }
    }
    Ok(queued)
}

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    jobs: &BTreeMap<String, JobIds>,
    units: &[Unit],
    odd: &BTreeSet<String>,
    on_announced: OnAnnounced<'_>,
) -> Result<()> {
    transaction(connection, async |connection| {
        for unit in units {
            let Some(jobs) = jobs.get(&unit.dataset) else { continue };
            let sql = format!(
                "INSERT OR IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) VALUES ('{}', {})",
                day_of(unit.partition),
                jobs.debt
            );
            execute(connection, &sql).await?;
            if delete(connection, unit.partition, jobs.inbox, odd).await? > 0 {
                on_announced(unit)?;
            }
        }
        Ok(())
    })
    .await
}

/// The marks that the database bears.
pub(super) async fn marks(connection: &mut SqliteConnection, writer: &Writer) -> Result<BTreeSet<u64>> {
    let sql = format!(
        "SELECT day FROM {QUEUE} WHERE ar_daily_status_job_id IN (SELECT id FROM {JOBS} WHERE name = {})",
        literal(&mark_name(writer))
    );
    let rows = query(connection, &sql).await?;
    let days: Vec<Date> = rows.iter().filter_map(|row| date(text(row, 0)?.as_bytes())).collect();
    Ok(marks_in(&days))
}

/// See [`cdrvault_plugin::stage::Session::mark`]. What the application announced to this job goes with the old mark.
pub(super) async fn mark(connection: &mut SqliteConnection, writer: &Writer, mark: u64) -> Result<()> {
    let name = literal(&mark_name(writer));
    let job = format!("(SELECT id FROM {JOBS} WHERE name = {name})");
    let [high, low] = days_of_mark(mark);
    let statements = [
        format!("INSERT INTO {JOBS} (name) SELECT {name} WHERE NOT EXISTS (SELECT 1 FROM {JOBS} WHERE name = {name})"),
        format!("DELETE FROM {QUEUE} WHERE ar_daily_status_job_id = {job}"),
        format!("INSERT INTO {QUEUE} (day, ar_daily_status_job_id) VALUES ('{high}', {job}), ('{low}', {job})"),
    ];
    transaction(connection, async |connection| {
        for statement in statements {
            execute(connection, &statement).await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn settle(
    connection: &mut SqliteConnection,
    jobs: &BTreeMap<String, JobIds>,
    units: &[Unit],
    odd: &BTreeSet<String>,
) -> Result<()> {
    transaction(connection, async |connection| {
        for unit in units {
            if let Some(jobs) = jobs.get(&unit.dataset) {
                delete(connection, unit.partition, jobs.debt, odd).await?;
            }
        }
        Ok(())
    })
    .await
}

async fn delete(
    connection: &mut SqliteConnection,
    partition: Partition,
    job: i64,
    odd: &BTreeSet<String>,
) -> Result<u64> {
    let mut days = vec![literal(&day_of(partition))];
    if partition == Partition::Undated {
        days.extend(odd.iter().map(|day| literal(day)));
    }
    let days = days.join(", ");
    execute(connection, &format!("DELETE FROM {QUEUE} WHERE day IN ({days}) AND ar_daily_status_job_id = {job}")).await
}

fn day_of(partition: Partition) -> String {
    partition.day().map_or_else(|| UNDATED.to_owned(), |day| day.to_string())
}

/// How often a commit is tried. Each waits for [`super::connect::BUSY_TIMEOUT`], and keeps new readers out meanwhile.
const COMMITS: usize = 4;

/// Takes the write lock first: a transaction that reads before it writes can fail at the end.
async fn transaction(
    connection: &mut SqliteConnection,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<()>,
) -> Result<()> {
    execute(connection, "BEGIN IMMEDIATE").await?;
    let mut done = work(connection).await;
    if done.is_ok() {
        done = commit(connection).await;
    }
    if done.is_err() {
        // A commit that found readers leaves the transaction open.
        let _ = execute(connection, "ROLLBACK").await;
    }
    done
}

async fn commit(connection: &mut SqliteConnection) -> Result<()> {
    let mut tried = 1;
    loop {
        match execute(connection, "COMMIT").await {
            Err(error) if error.kind() == Kind::Busy && tried < COMMITS => tried += 1,
            done => return done.map(drop),
        }
    }
}
