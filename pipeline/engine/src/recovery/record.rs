//! What was found good is noted in the vaults: `prune` keeps the last verified copy. What was found damaged is remembered
//! in the state, by [`crate::verified`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::findings::{Checked, Problem, Report};
use crate::config::Pipeline;
use crate::opening::open_to_note;
use cdrvault_format::error::Result;
use cdrvault_format::manifest::{Notes, Verified};
use cdrvault_format::partition::Unit;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::Vault;

/// Under the locks of a run, for as long as it takes to write. An error when a run is going on: nothing is lost but the
/// note. No vault is made, and no state directory.
pub async fn record(cx: &Context, pipeline: &Arc<Pipeline>, report: &Report, wait: Duration) -> Result<()> {
    let read = report.sinks.iter().any(|checked| noted(report, checked).next().is_some());
    if !read || !pipeline.state.is_dir() {
        return Ok(());
    }
    let (_guard, opened) = open_to_note(cx, Arc::clone(pipeline), wait).await?;
    let at = Timestamp::now();
    let recording = async {
        for checked in &report.sinks {
            let Some(open) = opened.sinks.iter().find(|open| open.name == checked.sink) else { continue };
            let Ok(sink) = &open.sink else { continue };
            // The notes of a mirror are those of the vault that it mirrors.
            if !sink.capabilities().mirror {
                note(cx, sink, report, checked, at).await?;
            }
        }
        Ok(())
    };
    let done = recording.await;
    opened.close().await;
    done
}

/// The units of a sink of which there is something to note.
fn noted<'a>(report: &'a Report, checked: &'a Checked) -> impl Iterator<Item = &'a Unit> {
    checked.newest_good.keys().chain(bad(report, &checked.sink).map(|(unit, _)| unit))
}

async fn note(cx: &Context, sink: &Arc<dyn Vault>, report: &Report, checked: &Checked, at: Timestamp) -> Result<()> {
    let bad: BTreeSet<(&Unit, u32)> = bad(report, &checked.sink).collect();
    let units: BTreeSet<&Unit> = noted(report, checked).collect();
    for unit in units {
        let good = checked.newest_good.get(unit).copied();
        let notes = sink.notes(cx, unit).await?;
        let noted = notes.verified.as_ref().map(|verified| verified.generation);
        // A copy that is damaged now protects nothing; an older one that is good, and was not noted, does not take the
        // place of a newer one that was not read this time.
        let better = good.is_some_and(|good| noted.is_none_or(|noted| noted < good));
        if better || noted.is_some_and(|noted| bad.contains(&(unit, noted))) {
            let verified = good.map(|generation| Verified { generation, at });
            sink.put_notes(cx, unit, &Notes { verified, ..notes }).await?;
        }
    }
    Ok(())
}

/// Generations of a sink that were read and are not good, whatever the reason.
fn bad<'a>(report: &'a Report, sink: &'a str) -> impl Iterator<Item = (&'a Unit, u32)> {
    use Problem::{Damaged, DamagedReceipt, Missing};
    let hurt = report.findings.iter().filter(move |finding| {
        finding.sink == sink && !finding.repaired && matches!(finding.problem, Damaged | Missing | DamagedReceipt)
    });
    hurt.filter_map(|finding| Some((finding.unit.as_ref()?, finding.generation?)))
}
