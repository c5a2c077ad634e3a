//! What was found good is remembered: `prune` keeps the last verified copy, `status` tells how old it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::verify::{Job, Problem, Report};
use crate::config::Pipeline;
use crate::context::Context;
use crate::engine::open_to_prune;
use crate::engine::state::VerifiedSink;
use crate::error::Result;
use crate::manifest::{Notes, Verified};
use crate::partition::{DayRange, Unit};

/// Under the locks of a run, for as long as it takes to write. An error when a run is at work: nothing is lost but the note.
pub async fn record(cx: &Context, pipeline: &Arc<Pipeline>, job: &Job, report: &Report) -> Result<()> {
    let (_guard, mut state, opened) = open_to_prune(cx, Arc::clone(pipeline), &[], Duration::ZERO, false).await?;
    let at = Timestamp::now();
    let recording = async {
        for checked in &report.sinks {
            let Some(open) = opened.sinks.iter().find(|open| open.name == checked.sink) else { continue };
            let Ok(sink) = &open.sink else { continue };
            // The notes of a mirror are those of the vault that it mirrors.
            if !sink.capabilities().mirror {
                let bad: BTreeSet<(&Unit, u32)> = bad(report, &checked.sink).collect();
                let units: BTreeSet<&Unit> =
                    checked.newest_good.keys().chain(bad.iter().map(|(unit, _)| *unit)).collect();
                for unit in units {
                    let good = checked.newest_good.get(unit).copied();
                    let notes = sink.notes(cx, unit).await?;
                    let noted = notes.verified.as_ref().map(|verified| verified.generation);
                    // A copy that is damaged now protects nothing; an older one that is good, and was not noted, does not
                    // take the place of a newer one that was not read this time.
                    let better = good.is_some_and(|good| noted.is_none_or(|noted| noted < good));
                    if better || noted.is_some_and(|noted| bad.contains(&(unit, noted))) {
                        let verified = good.map(|generation| Verified { generation, at });
                        sink.put_notes(cx, unit, &Notes { verified, ..notes }).await?;
                    }
                }
            }
            let of_sink = report.findings.iter().filter(|finding| finding.sink == checked.sink);
            let damage = of_sink.filter(|finding| finding.problem.counts() && !finding.repaired).count() as u64;
            // What was found in one day says nothing of the others.
            let whole = checked.whole && job.flows.is_empty() && job.days == DayRange::ALL;
            if whole {
                let verified = VerifiedSink { at, percent: job.percent, damage };
                state.verified.insert(checked.sink.clone(), verified);
            } else if let Some(before) = state.verified.get_mut(&checked.sink) {
                before.damage = before.damage.max(damage);
            }
        }
        state.save(&pipeline.state)
    };
    let done = recording.await;
    opened.close().await;
    done
}

/// Generations of a sink that were read and are not good, whatever the reason.
fn bad<'a>(report: &'a Report, sink: &'a str) -> impl Iterator<Item = (&'a Unit, u32)> {
    use Problem::{Damaged, DamagedReceipt, Missing};
    let hurt = report.findings.iter().filter(move |finding| {
        finding.sink == sink && !finding.repaired && matches!(finding.problem, Damaged | Missing | DamagedReceipt)
    });
    hurt.filter_map(|finding| Some((finding.unit.as_ref()?, finding.generation?)))
}
