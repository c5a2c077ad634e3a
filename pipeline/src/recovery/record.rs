//! What was found good is remembered: `prune` keeps the last verified copy, `status` tells how old it is.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::verify::{Job, Report};
use crate::config::Pipeline;
use crate::context::Context;
use crate::engine::open_to_prune;
use crate::engine::state::VerifiedSink;
use crate::error::Result;
use crate::manifest::{Notes, Verified};

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
                for (unit, generation) in &checked.newest_good {
                    let notes = sink.notes(cx, unit).await?;
                    if notes.verified.as_ref().is_none_or(|verified| verified.generation != *generation) {
                        let verified = Some(Verified { generation: *generation, at });
                        sink.put_notes(cx, unit, &Notes { verified, ..notes }).await?;
                    }
                }
            }
            let of_sink = report.findings.iter().filter(|finding| finding.sink == checked.sink);
            let damage = of_sink.filter(|finding| finding.problem.counts() && !finding.repaired).count() as u64;
            let verified = VerifiedSink { at, percent: job.percent, damage };
            state.verified.insert(checked.sink.clone(), verified);
        }
        state.save(&pipeline.state)
    };
    let done = recording.await;
    opened.close().await;
    done
}
