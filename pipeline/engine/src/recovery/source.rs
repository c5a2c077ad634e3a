//! What is saved is compared with what the database has now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt as _;

use super::findings::{Finding, Job, Problem, Report};
use super::look::{Brief, Held};
use crate::config::Pipeline;
use crate::opened::{OpenFlow, Opened};
use crate::report::Failure;
use crate::retry::retry;
use crate::state::State;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::facts::{FactGatherer, Facts};
use cdrvault_format::manifest::{ColumnInfo, Holding};
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::notice::Notices;
use cdrvault_plugin::payload::Payload;
use cdrvault_plugin::stage::{Ask, Read, Source};

/// Compares the rows of every day, as they are, with those of the newest generation.
pub(super) async fn compare(
    cx: &Context,
    pipeline: &Arc<Pipeline>,
    job: &Job,
    all: &[Held],
    report: &mut Report,
) -> Result<()> {
    let state = State::load(&pipeline.state)?;
    let opened = Opened::open(cx, Arc::clone(pipeline), &job.flows, state.as_ref(), true, false, false).await?;
    for flow in &opened.flows {
        let source = match &flow.source {
            Ok(source) => source,
            Err(error) => {
                report.failures.push(Failure::of(&flow.name, error));
                continue;
            }
        };
        match compare_flow(cx, &opened, flow, source, job, all, report).await {
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => report.failures.push(Failure::of(&flow.name, &error)),
            Ok(()) => {}
        }
    }
    opened.close().await;
    Ok(())
}

async fn compare_flow(
    cx: &Context,
    opened: &Opened,
    flow: &OpenFlow,
    source: &Arc<dyn Source>,
    job: &Job,
    all: &[Held],
    report: &mut Report,
) -> Result<()> {
    let mut saved: BTreeMap<Partition, (&Held, u32, &Brief)> = BTreeMap::new();
    for held in all {
        for (unit, generations) in held.generations.iter().filter(|(unit, _)| unit.dataset == flow.name) {
            let Some((generation, brief)) = generations.last_key_value() else { continue };
            let newest = saved.entry(unit.partition).or_insert((held, *generation, brief));
            if newest.1 < *generation {
                *newest = (held, *generation, brief);
            }
        }
    }
    // Files change all the time, and a run compares them anyway.
    if saved.values().any(|(_, _, brief)| brief.holds != Holding::Rows) {
        return Ok(());
    }
    let listing = Ask { listing: Some(job.days), ..Ask::default() };
    let there: BTreeSet<Partition> =
        retry(cx, || source.discover(cx, &listing)).await?.into_iter().map(|found| found.partition).collect();
    let is_in = |partition: &Partition| partition.day().map_or(job.days == DayRange::ALL, |day| job.days.contains(day));
    let partitions: BTreeSet<Partition> = saved.keys().copied().filter(is_in).chain(there.iter().copied()).collect();
    for partition in partitions {
        cx.check()?;
        let unit = Unit::new(&flow.name, partition);
        let saved = saved.get(&partition);
        let detail = match (there.contains(&partition), saved) {
            (true, None) => Some("it is in the database, and not saved".to_owned()),
            (true, Some((held, generation, brief))) => {
                report.compared += 1;
                let found = retry(cx, || facts(cx, opened, flow, source, (partition, &[]))).await?;
                match difference(&found, brief) {
                    Some(detail) => {
                        // It may have been saved in another form than is configured now.
                        let columns = held.sink.manifest(cx, &unit, *generation).await?.columns;
                        let found = retry(cx, || facts(cx, opened, flow, source, (partition, &columns))).await?;
                        difference(&found, brief).map(|_| detail)
                    }
                    None => None,
                }
            }
            (false, Some((held, _, brief))) if brief.rows > 0 => {
                let notes = held.sink.notes(cx, &unit).await?;
                notes.gone.is_none().then(|| format!("the database has none of its {} rows any more", brief.rows))
            }
            (false, _) => None,
        };
        let Some(detail) = detail else { continue };
        if is_pending(cx, opened, flow, source, partition).await? {
            report.pending += 1;
            continue;
        }
        let sink = saved.map_or_else(String::new, |(held, ..)| held.name.clone());
        report.findings.push(Finding {
            sink,
            unit: Some(unit),
            generation: saved.map(|(_, generation, _)| *generation),
            problem: Problem::SourceDiffers,
            detail,
            repaired: false,
        });
    }
    Ok(())
}

fn difference(found: &Facts, saved: &Brief) -> Option<String> {
    if found.rows != saved.rows {
        return Some(format!("the database has {} rows, and {} are saved", found.rows, saved.rows));
    }
    let same = found.fingerprint.algorithm == saved.fingerprint.algorithm
        && found.fingerprint.content == saved.fingerprint.content;
    (!same).then(|| "the database has other values".to_owned())
}

/// Whether a change of the day is announced, or owed: then the next run saves it.
async fn is_pending(
    cx: &Context,
    opened: &Opened,
    flow: &OpenFlow,
    source: &Arc<dyn Source>,
    partition: Partition,
) -> Result<bool> {
    let can = flow.events && opened.session_of(flow).is_ok();
    if !can {
        return Ok(false);
    }
    let ask = Ask { events: true, ..Ask::default() };
    Ok(retry(cx, || source.discover(cx, &ask)).await?.iter().any(|found| found.partition == partition))
}

async fn facts(
    cx: &Context,
    opened: &Opened,
    flow: &OpenFlow,
    source: &Arc<dyn Source>,
    (partition, columns): (Partition, &[ColumnInfo]),
) -> Result<Facts> {
    let session = opened.session_of(flow).map_err(|error| Error::new(error.kind(), error.one_line()))?;
    let snapshot = session.snapshot(cx).await?;
    let what = Read { partition, previous: None, compared_with: columns.to_vec(), notices: Notices::default() };
    let reading = async {
        let Payload::Rows(mut rows) = source.read(cx, &snapshot, &what).await? else {
            return Err(Error::failed("the source gave no rows"));
        };
        let mut found = FactGatherer::new(&rows.schema, &rows.about.renumbered);
        while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
            tokio::task::block_in_place(|| found.add(&batch))?;
        }
        Ok(found.finish())
    };
    reading.await.at(Unit::new(&flow.name, partition))
}
