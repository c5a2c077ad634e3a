//! A pipeline is opened under the locks that its use wants.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdrvault_format::durable::{self, How};
use cdrvault_format::error::Result;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::lock;

use crate::config::Pipeline;
use crate::opened::Opened;
use crate::options::RunOptions;
use crate::state::State;

/// Opens a pipeline to find out whether a run could do its work: nothing is locked, and nothing is written but a probe
/// where only writing tells.
pub async fn open(cx: &Context, pipeline: Arc<Pipeline>) -> Result<Opened> {
    let state = State::load(&pipeline.state)?;
    check_owner(cx, state.as_ref(), &pipeline.state, false)?;
    Opened::open(cx, pipeline, &[], state.as_ref(), true, true, false).await
}

/// Opens a pipeline to prune it: unless it is only planned, locks are taken. Databases are only asked what time it is.
pub async fn open_to_prune(
    cx: &Context,
    pipeline: Arc<Pipeline>,
    only: &[String],
    wait_lock: Duration,
    dry_run: bool,
) -> Result<(Option<lock::Guard>, State, Opened)> {
    let guard = if dry_run { None } else { Some(lock_state(cx, &pipeline.state, wait_lock, false).await?) };
    let state = State::load(&pipeline.state)?;
    let opened = Opened::open_to_prune(cx, pipeline, only, state.as_ref(), dry_run).await?;
    Ok((guard, state.unwrap_or_default(), opened))
}

/// Opens the vaults that there are to note something in them: locks are taken, and no database is asked.
pub async fn open_to_note(cx: &Context, pipeline: Arc<Pipeline>, wait_lock: Duration) -> Result<(lock::Guard, Opened)> {
    let guard = lock_state(cx, &pipeline.state, wait_lock, false).await?;
    let mut state = State::load(&pipeline.state)?.unwrap_or_default();
    // A vault that is expected everywhere is made nowhere.
    for sink in &pipeline.sinks {
        state.vaults.entry(sink.name.clone()).or_default();
    }
    let opened = Opened::open_to_note(cx, pipeline, &state).await?;
    Ok((guard, opened))
}

/// The lock that a run holds, and so the right to begin one. A dry run needs none.
pub async fn lock(cx: &Context, pipeline: &Pipeline, options: &RunOptions) -> Result<Option<lock::Guard>> {
    if options.dry_run {
        Ok(None)
    } else {
        lock_state(cx, &pipeline.state, options.wait_lock, options.adopt_vault).await.map(Some)
    }
}

/// Refuses a state that belongs to another pipeline, unless it is to be adopted.
pub(crate) fn check_owner(cx: &Context, state: Option<&State>, directory: &Path, adopt: bool) -> Result<()> {
    let state = state.filter(|_| !adopt);
    state.map_or(Ok(()), |state| state.check_owner(directory, &cx.writer.pipeline))
}

async fn lock_state(cx: &Context, directory: &Path, wait: Duration, adopt: bool) -> Result<lock::Guard> {
    // Before the lock: while the other pipeline holds it, nobody would hear of it.
    check_owner(cx, State::load(directory).unwrap_or_default().as_ref(), directory, adopt)?;
    durable::create_dirs(directory, &How::private()).map_err(|error| {
        error
            .at("the state directory")
            .hint("give it to the user who runs cdrvault, or set `state` to a place of theirs")
    })?;
    let guard = lock::wait_for(cx, &directory.join("lock"), wait).await?;
    durable::remove_temporaries(directory)?;
    Ok(guard)
}
