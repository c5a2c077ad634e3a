//! The event tables, as K sees them: all writes to them go through the connection that holds the lock.

use std::collections::{BTreeMap, BTreeSet};

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Writer;
use cdrvault_plugin::stage::OnAnnounced;
use jiff::civil::Date;

use super::connect::{literal, text};
use super::decode::{parts_in_text, valid_date};
use super::holder::Holder;
use crate::database::jobs::{
    JOBS, JobIds, JobNames, QUEUE, days_of_mark, delete_names, mark_name, marks_in, select_names,
};
use crate::database::tables::Queued;

/// The stand-in, in the queue's `day` column, for all rows without a real date.
const UNDATED: &str = "0000-00-00";

/// The ids of the flow's jobs, if both are registered.
pub(super) async fn find_jobs(k: &mut Holder, writer: &Writer, flow: &str) -> Result<Option<JobIds>> {
    let names = JobNames::new(writer, flow);
    let mut id_of = BTreeMap::new();
    for name in [&names.inbox, &names.debt] {
        let sql = format!("SELECT id FROM {JOBS} WHERE name = {}", literal(name));
        if let Some(id) = k.query_integer(&sql).await? {
            id_of.insert(name, id);
        }
    }
    Ok(match (id_of.get(&names.inbox), id_of.get(&names.debt)) {
        (Some(inbox), Some(debt)) => Some(JobIds { inbox: *inbox, debt: *debt }),
        _ => None,
    })
}

/// Why events cannot work for this account, if they cannot: the server checks privileges even where no row matches.
pub(super) async fn obstacle(k: &mut Holder) -> Result<Option<String>> {
    let probes = [
        format!("SELECT id, name FROM {JOBS} LIMIT 0"),
        format!("INSERT INTO {JOBS} (name) SELECT name FROM {JOBS} WHERE FALSE"),
        format!(
            "INSERT IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) SELECT day, ar_daily_status_job_id FROM {QUEUE} WHERE FALSE"
        ),
        format!("DELETE FROM {QUEUE} WHERE day = '0001-01-01' AND ar_daily_status_job_id = -1"),
    ];
    for probe in probes {
        match k.execute(&probe).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound | Kind::Config) => {
                return Ok(Some(error.one_line()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// See [`cdrvault_plugin::stage::Session::job_names`].
pub(super) async fn names(k: &mut Holder) -> Result<Vec<String>> {
    let rows = k.query(&select_names()).await?;
    Ok(rows.iter().map(|row| text(row, 0).unwrap_or_default()).collect())
}

/// See [`cdrvault_plugin::stage::Session::forget_jobs`].
pub(super) async fn forget(k: &mut Holder, names: &[String]) -> Result<()> {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    k.execute("START TRANSACTION").await?;
    let work = async {
        for statement in delete_names(&names) {
            k.execute(&statement).await?;
        }
        Ok(())
    };
    let done = work.await;
    end(k, done).await
}

/// Makes the flows' job rows, and every partition given a debt, in one transaction.
pub(super) async fn register(k: &mut Holder, writer: &Writer, flows: &[(String, Vec<Partition>)]) -> Result<()> {
    k.execute("START TRANSACTION").await?;
    let work = async {
        for (flow, partitions) in flows {
            let names = JobNames::new(writer, flow);
            for name in [&names.inbox, &names.debt] {
                let name = literal(name);
                // One of the two may stand already, when somebody deleted the other.
                k.execute(&format!("INSERT INTO {JOBS} (name) SELECT {name} FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM {JOBS} WHERE name = {name})"),
                )
                .await?;
            }
            let jobs = find_jobs(k, writer, flow)
                .await?
                .ok_or_else(|| Error::failed(format!("the rows of flow `{flow}` in {JOBS} did not appear")))?;
            let days: Vec<&Partition> = partitions.iter().collect();
            for some in days.chunks(1000) {
                let values: Vec<String> = some.iter().map(|p| format!("('{}', {})", day_of(**p), jobs.debt)).collect();
                k.execute(&format!(
                    "INSERT IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) VALUES {}",
                    values.join(", ")
                ))
                .await?;
            }
        }
        Ok(())
    };
    let done = work.await;
    end(k, done).await
}

/// Reads a flow's two queues. Days that are not real dates are remembered in `odd`, so that they can be deleted.
pub(super) async fn queued(k: &mut Holder, jobs: JobIds, odd: &mut BTreeSet<String>) -> Result<Queued> {
    let mut queued = Queued::default();
    for (job, into) in [(jobs.inbox, &mut queued.announced), (jobs.debt, &mut queued.owed)] {
        let rows = k.query(&format!("SELECT day FROM {QUEUE} WHERE ar_daily_status_job_id = {job}")).await?;
        for row in &rows {
            let day = text(row, 0).unwrap_or_default();
            into.insert(if let Some(day) = parts_in_text(&day).and_then(valid_date) {
                Partition::Day(day)
            } else {
                odd.insert(day);
                Partition::Undated
            });
        }
    }
    Ok(queued)
}

/// See [`cdrvault_plugin::stage::Session::claim`].
pub(super) async fn claim(
    k: &mut Holder,
    jobs: &BTreeMap<String, JobIds>,
    units: &[Unit],
    odd: &BTreeSet<String>,
    on_announced: OnAnnounced<'_>,
) -> Result<()> {
    k.execute("START TRANSACTION").await?;
    let work = async {
        for unit in units {
            let Some(jobs) = jobs.get(&unit.dataset) else { continue };
            k.execute(&format!(
                "INSERT IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) VALUES ('{}', {})",
                day_of(unit.partition),
                jobs.debt
            ))
            .await?;
            if delete(k, unit.partition, jobs.inbox, odd).await? > 0 {
                on_announced(unit)?;
            }
        }
        Ok(())
    };
    let done = work.await;
    end(k, done).await
}

/// The marks that the database bears, and all days that stand in the queue of that job.
pub(super) async fn marks(k: &mut Holder, writer: &Writer) -> Result<(BTreeSet<u64>, Vec<String>)> {
    let rows = k
        .query(&format!(
            "SELECT day FROM {QUEUE} WHERE ar_daily_status_job_id IN (SELECT id FROM {JOBS} WHERE name = {})",
            literal(&mark_name(writer))
        ))
        .await?;
    let queued: Vec<String> = rows.iter().filter_map(|row| text(row, 0)).collect();
    let days: Vec<Date> = queued.iter().filter_map(|day| parts_in_text(day).and_then(valid_date)).collect();
    Ok((marks_in(&days), queued))
}

/// See [`cdrvault_plugin::stage::Session::mark`].
pub(super) async fn mark(k: &mut Holder, writer: &Writer, mark: u64) -> Result<()> {
    let name = literal(&mark_name(writer));
    k.execute(&format!(
        "INSERT INTO {JOBS} (name) SELECT {name} FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM {JOBS} WHERE name = {name})"
    ))
    .await?;
    let job = k.query_integer(&format!("SELECT id FROM {JOBS} WHERE name = {name}")).await?;
    let job = job.ok_or_else(|| Error::failed(format!("the row of our mark in {JOBS} did not appear")))?;
    let (marks, queued) = marks(k, writer).await?;
    let text = |mark: &u64| days_of_mark(*mark).map(|day| day.to_string());
    let new = text(&mark);
    let old: BTreeSet<String> = marks.iter().flat_map(text).filter(|day| !new.contains(day)).collect();
    let announced: Vec<&String> = queued.iter().filter(|day| !old.contains(*day) && !new.contains(day)).collect();
    k.execute("START TRANSACTION").await?;
    let work = async {
        for day in &new {
            let sql = format!("INSERT IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) VALUES ('{day}', {job})");
            k.execute(&sql).await?;
        }
        for day in &old {
            k.execute(&delete_queued(day, job)).await?;
        }
        Ok(())
    };
    let done = work.await;
    end(k, done).await?;
    // One at a time: the application, which may hold one of these rows, must never wait for another one.
    for day in announced {
        match k.execute(&delete_queued(day, job)).await {
            Err(error) if error.kind() == Kind::Busy => break,
            done => drop(done?),
        }
    }
    Ok(())
}

fn delete_queued(day: &str, job: i64) -> String {
    format!("DELETE FROM {QUEUE} WHERE day = {} AND ar_daily_status_job_id = {job}", literal(day))
}

/// Deletes the units' debts.
pub(super) async fn settle(
    k: &mut Holder,
    jobs: &BTreeMap<String, JobIds>,
    units: &[Unit],
    odd: &BTreeSet<String>,
) -> Result<()> {
    for unit in units {
        if let Some(jobs) = jobs.get(&unit.dataset) {
            delete(k, unit.partition, jobs.debt, odd).await?;
        }
    }
    Ok(())
}

async fn delete(k: &mut Holder, partition: Partition, job: i64, odd: &BTreeSet<String>) -> Result<u64> {
    let days = match partition {
        Partition::Undated => {
            let mut days: Vec<String> = odd.iter().map(|day| literal(day)).collect();
            days.push(format!("'{UNDATED}'"));
            days.join(", ")
        }
        _ => format!("'{}'", day_of(partition)),
    };
    k.execute(&format!("DELETE FROM {QUEUE} WHERE day IN ({days}) AND ar_daily_status_job_id = {job}")).await
}

pub(super) fn day_of(partition: Partition) -> String {
    partition.day().map_or_else(|| UNDATED.to_owned(), |day| day.to_string())
}

/// Commits what went well and rolls back what did not.
async fn end(k: &mut Holder, done: Result<()>) -> Result<()> {
    match done {
        Ok(()) => k.execute("COMMIT").await.map(drop),
        Err(error) => {
            let _ = k.execute("ROLLBACK").await;
            Err(error)
        }
    }
}
