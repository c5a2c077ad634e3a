//! What the verbs that work on a pipeline share: the file, the runtime, signals, who we are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdrvault_engine::config::{self, Pipeline};
use cdrvault_format::error::{Error, Result};
use cdrvault_plugin::context::{Context, Writer};
use cdrvault_plugin::program;
use cdrvault_plugin::progress::Progress;
use cdrvault_plugin::scratch;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use crate::globals::Globals;
use crate::locate;
use crate::output;
use crate::registry;

/// Finds and loads the pipeline that a verb's argument, or `--config`, names.
pub(crate) fn load(name: Option<&str>, globals: &Globals) -> Result<Arc<Pipeline>, Failure> {
    let path: PathBuf = match (&globals.config, name) {
        (Some(_), Some(_)) => {
            return Err(Failure::Usage("name the pipeline once: as an argument or by --config".to_owned()));
        }
        (Some(path), None) => path.clone(),
        (None, Some(name)) => locate::locate(name)?,
        (None, None) => {
            return Err(Failure::Usage("name the pipeline: its file, or its name in pipelines.d".to_owned()));
        }
    };
    let pipeline = config::open(&path, &registry())?;
    if !pipeline.warnings.is_empty() && !globals.quiet && output::on_terminal() {
        output::problems(globals, &pipeline.warnings);
    }
    Ok(Arc::new(pipeline))
}

/// The runtime of a verb. Two threads more than cores would only fight the database on the same host.
pub(crate) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed("cannot start the runtime").with_source(error))
}

/// Set by the first signal.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Whether somebody asked us to stop.
pub(crate) fn was_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// The context of a verb: cancelled by the first SIGINT or SIGTERM; the second ends the program at once.
pub(crate) fn context(pipeline: &Pipeline, progress: Arc<dyn Progress>) -> Result<Context> {
    let cancel = CancellationToken::new();
    listen(cancel.clone())?;
    let writer = Writer {
        pipeline: pipeline.name.clone(),
        id: writer_id(&pipeline.state),
        timezone: pipeline.wall_clock(),
        state: pipeline.state.clone(),
    };
    let cx = Context { cancel, progress, writer: Arc::new(writer), scratch: None };
    scratch::tidy(&cx);
    Ok(cx)
}

/// Listens to signals in a thread of its own: also when the verb's runtime has ended, and what remains is to write to a
/// pipe that nobody reads.
fn listen(cancel: CancellationToken) -> Result<()> {
    let failed = |error| Error::failed("cannot listen to signals").with_source(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _within = runtime.enter();
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    let listening = async move {
        for times in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if times > 0 {
                exit_now();
            }
            STOPPED.store(true, Ordering::Relaxed);
            tracing::warn!("stopping: what is being published is finished; once more to stop at once");
            cancel.cancel();
            program::stop();
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || runtime.block_on(listening)).map_err(failed).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "the user asked twice; every step is safe to interrupt")]
fn exit_now() {
    program::kill_all();
    std::process::exit(130);
}

/// Eight hex digits that tell two hosts, a clone, and two state directories on one host apart.
fn writer_id(state: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    hash.update(std::fs::read("/etc/machine-id").unwrap_or_default());
    hash.update([0]);
    hash.update(rustix::system::uname().nodename().to_bytes());
    hash.update([0]);
    let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
    hash.update(state.as_os_str().as_encoded_bytes());
    hash.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
