//! `validate --connect`: whether what the pipeline file points at is there, lets us in, and has room.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdrvault_engine::config::Pipeline;
use cdrvault_engine::opening;
use cdrvault_engine::run::{needs, writable};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::progress::Quiet;
use rustix::fs::{Access, access};
use serde::Serialize;

use crate::globals::Globals;
use crate::{notify, output, session};

/// One thing that was tried.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Check {
    what: String,
    ok: bool,
    /// It would not make a run fail.
    optional: bool,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    fn good(what: String, finding: String) -> Self {
        Self { what, ok: true, optional: false, finding, hint: None }
    }

    fn of(what: String, found: Result<String>) -> Self {
        match found {
            Ok(finding) => Self::good(what, finding),
            Err(error) => Self::bad(what, false, &error),
        }
    }

    fn bad(what: String, optional: bool, error: &Error) -> Self {
        Self { what, ok: false, optional, finding: error.one_line(), hint: error.hint_text().map(str::to_owned) }
    }
}

/// Whether a run could do its work.
pub(crate) fn all_good(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.ok || check.optional)
}

/// Tries everything that a run would need, and changes nothing; a bucket or a mirror gets a probe, since only writing tells.
pub(crate) fn check(pipeline: Arc<Pipeline>) -> Result<Vec<Check>> {
    let runtime = session::runtime()?;
    runtime.block_on(async {
        let cx = session::context(&pipeline, Arc::new(Quiet))?;
        let opened = opening::open(&cx, pipeline).await?;
        let mut checks = Vec::new();
        for (at, open) in opened.sessions.iter().enumerate() {
            let Some(name) = &open.database else { continue };
            let what = format!("database {name}");
            match &open.session {
                Ok((_, found)) => {
                    let events = match &found.without_events {
                        // Nothing else reads by it than programs that have a session of their own.
                        None if opened.flows.iter().all(|flow| flow.session != at) => String::new(),
                        None => "; changes are announced to us".to_owned(),
                        Some(why) => format!("; changes are found by comparing sums ({why})"),
                    };
                    let clock = clock(found.clock_offset);
                    checks.push(Check::good(what, format!("connected to {}{events}{clock}", open.identity)));
                }
                Err(error) => checks.push(Check::bad(what, false, error)),
            }
        }
        for flow in &opened.flows {
            let what = format!("flow {}", flow.name);
            match &flow.source {
                Ok(source) => {
                    let unseen: String = flow.unseen.iter().map(|what| format!("; warning: {what}")).collect();
                    checks.push(Check::good(what, format!("can be read: {}{unseen}", source.describe())));
                }
                Err(error) => checks.push(Check::bad(what, false, error)),
            }
        }
        for open in opened.sinks.iter().filter(|open| open.used) {
            let what = format!("sink {}", open.name);
            match &open.sink {
                Ok(sink) => {
                    let room = match sink.free_space() {
                        Ok(Some(bytes)) => format!(", {} free", output::size(bytes)),
                        Ok(None) | Err(_) => String::new(),
                    };
                    let able = sink.capabilities();
                    let written = match &open.identity {
                        None => None,
                        Some(_) => match sink.try_write(&cx).await {
                            Ok(written) => Some(written),
                            Err(error) => {
                                checks.push(Check::bad(what, open.optional, &error));
                                continue;
                            }
                        },
                    };
                    let vault = match written {
                        None => "no vault",
                        Some(false) => "can be read; whether it can be written was not tried",
                        Some(true) => "can be written",
                    };
                    // A directory is locked instead, and a mirror has a writer of its own.
                    let conditions = match able.conditional_put {
                        _ if able.mirror || sink.root().is_some() => "",
                        true => "; it honours conditional writes",
                        false => "; it does not honour conditional writes, so no other program may write there",
                    };
                    let clock = clock(sink.clock_offset());
                    let found = format!("{}: {vault}{room}{conditions}{clock}", sink.describe());
                    // A run that cannot prune warns.
                    if open.keep.is_some()
                        && written == Some(true)
                        && let Err(error) = sink.try_remove(&cx).await
                    {
                        checks.push(Check::bad(format!("pruning of {what}"), true, &error));
                    }
                    checks.push(Check::good(what, found));
                }
                Err(error) => checks.push(Check::bad(what, open.optional, error)),
            }
        }
        checks.extend(needs(&opened).into_iter().map(|(what, found)| Check::of(what, found)));
        opened.close().await;
        let pipeline = Arc::clone(&opened.pipeline);
        let alerts = tokio::task::spawn_blocking(move || alerts(&pipeline)).await;
        checks.extend(alerts.map_err(|died| Error::failed("a check stopped unexpectedly").with_source(died))?);
        Ok(checks)
    })
}

/// What tells others of a run. Nothing is sent: only the places are looked at.
fn alerts(pipeline: &Pipeline) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(path) = &pipeline.metrics {
        let directory = path.parent().unwrap_or(Path::new("/"));
        // The run does not make it: that of the collector is elsewhere, then.
        let found = if directory.is_dir() {
            writable(directory)
        } else {
            Err(Error::new(Kind::Config, format!("there is no directory {}", directory.display()))
                .hint("make it, or correct `textfile`"))
        };
        checks.push(Check::of("metrics".to_owned(), found));
    }
    let Some(notify) = &pipeline.notify else { return checks };
    for (what, url) in [("ping", &notify.ping), ("webhook", &notify.webhook)] {
        let Some(url) = url else { continue };
        let found = url.resolve().and_then(|url| notify::target(&url)).map(|_| "its URL is known".to_owned());
        checks.push(Check::of(what.to_owned(), found));
    }
    if let Some(command) = &notify.command {
        checks.push(Check::of("command of notify".to_owned(), program(&command.program)));
    }
    checks
}

/// Where a program is, as it would be found when it is started.
fn program(name: &str) -> Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = if name.contains('/') {
        vec![PathBuf::from(name)]
    } else {
        std::env::split_paths(&path).map(|directory| directory.join(name)).collect()
    };
    let can_be_run = |place: &&PathBuf| place.is_file() && access(place.as_path(), Access::EXEC_OK).is_ok();
    match places.iter().find(can_be_run) {
        Some(place) => Ok(format!("{} can be run", place.display())),
        None => Err(Error::new(Kind::Config, format!("there is no program {name} that we may run"))
            .hint("write its whole path, and make it executable")),
    }
}

fn clock(offset: Option<i64>) -> String {
    match offset {
        Some(offset) if offset.abs() > 1 => format!("; its clock is {offset} s ahead of ours"),
        _ => String::new(),
    }
}

/// The checks, human-readable.
pub(crate) fn show(checks: &[Check], globals: &Globals) {
    if !globals.quiet {
        let rows = checks.iter().map(|check| {
            let mark = if check.ok { "ok" } else { "FAILED" };
            vec![mark.to_owned(), check.what.clone(), if check.ok { check.finding.clone() } else { String::new() }]
        });
        output::text(&format!("\n{}", output::table(&["", "WHAT", "FINDING"], rows.collect(), &[])));
    }
    for check in checks.iter().filter(|check| !check.ok) {
        output::error(globals, &format!("{}: {}", check.what, check.finding), check.hint.as_deref());
    }
}
