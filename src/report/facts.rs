//! Everything that the page says, as a value: `report --json` prints it.

use std::sync::Arc;
use std::time::Duration;

use cdrvault_engine::config::Pipeline;
use cdrvault_engine::history::{self, Line};
use cdrvault_engine::opened::Opened;
use cdrvault_engine::opening;
use cdrvault_engine::prune::{self, PrunePlan};
use cdrvault_engine::report::Outcome;
use cdrvault_engine::survey::survey;
use cdrvault_engine::verified::Verified;
use cdrvault_engine::watch::watch;
use cdrvault_format::error::{Kind, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::notice::Level;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::finding::Verdict;
use super::flows::{self, Flow};
use crate::status::Status;
use crate::summary;

/// Without `--max-age`, a page is made each day at least.
const FRESH: Duration = Duration::from_hours(26);

/// So many runs are shown.
const RUNS: usize = 30;

/// More errors of one run than these help nobody.
const MOST_ERRORS: usize = 10;

/// What a sink keeps that has no `keep`.
pub(super) const EVERYTHING: &str = "every version";

/// What is asked for.
pub(super) struct Wanted {
    pub(super) months: u16,
    pub(super) max_age: Option<Duration>,
    /// The pipeline, as a command names it.
    pub(super) called: String,
}

/// See the module.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Facts {
    pub(super) made: Timestamp,
    /// What the page says of today holds until then.
    pub(super) fresh_until: Timestamp,
    pub(super) version: &'static str,
    pub(super) timezone: String,
    #[serde(skip)]
    pub(super) clock: TimeZone,
    #[serde(skip)]
    pub(super) called: String,
    pub(super) verdict: Verdict,
    /// What `status --json` shows.
    #[serde(flatten)]
    pub(super) status: Status,
    /// The sinks as the pipeline file describes them.
    pub(super) places: Vec<About>,
    /// Databases that do not answer.
    pub(super) unreachable: Vec<String>,
    pub(super) months: u16,
    pub(super) flows: Vec<Flow>,
    /// What `prune -n` would say.
    pub(super) prune: PrunePlan,
    /// Why nothing can be said of pruning.
    pub(super) prune_error: Option<String>,
    /// The newest first.
    pub(super) runs: Vec<Run>,
}

/// One sink, as the pipeline file describes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct About {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) place: String,
    /// Which superseded versions stay there, in words.
    pub(super) keep: String,
}

/// One run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Run {
    pub(super) verb: String,
    /// The flows that it was restricted to.
    pub(super) flows: Vec<String>,
    pub(super) outcome: Outcome,
    pub(super) began: Timestamp,
    pub(super) seconds: f64,
    pub(super) partitions: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// What it did, in words.
    pub(super) summary: String,
    /// What went wrong, each once.
    pub(super) errors: Vec<String>,
    /// Errors that are not shown.
    pub(super) more_errors: usize,
    pub(super) warnings: Vec<String>,
}

impl Facts {
    /// The sinks that cannot be read, each with whether that is only a warning.
    pub(super) fn unreadable(&self) -> Vec<(bool, String)> {
        let sinks = self.status.sinks.iter();
        sinks.filter_map(|sink| Some((sink.optional, sink.error.clone()?))).collect()
    }
}

/// Looks at everything. It changes nothing and takes no lock.
pub(super) async fn gather(cx: &Context, pipeline: &Arc<Pipeline>, wanted: &Wanted) -> Result<Facts> {
    let lines = history::read(&pipeline.state, history::MANY)?;
    let verified = Verified::load(&pipeline.state)?;
    let (_, state, opened) = opening::open_to_prune(cx, Arc::clone(pipeline), &[], Duration::ZERO, true).await?;
    let gathered = async {
        let now = Timestamp::now();
        let survey = survey(cx, &opened, &verified).await?;
        let data = watch(cx, &opened, &pipeline.watch, now).await?;
        let flows = flows::gather(cx, &opened, &survey.damage, wanted.months).await?;
        let (prune, prune_error) = match prune::plan(cx, &opened, &state, now).await {
            Ok(plan) => (plan, None),
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => (PrunePlan::default(), Some(error.one_line())),
        };
        let clock = pipeline.wall_clock();
        Ok(Facts {
            made: now,
            fresh_until: now.checked_add(wanted.max_age.unwrap_or(FRESH)).unwrap_or(Timestamp::MAX),
            version: env!("CARGO_PKG_VERSION"),
            timezone: clock.iana_name().unwrap_or("this host's").to_owned(),
            clock,
            called: wanted.called.clone(),
            verdict: Verdict::default(),
            status: Status::of(pipeline, &lines, survey, data, wanted.max_age),
            places: places(pipeline, &opened),
            unreachable: unreachable(&opened),
            months: wanted.months,
            flows,
            prune,
            prune_error,
            runs: lines.iter().rev().take(RUNS).map(Run::of).collect(),
        })
    };
    let gathered = gathered.await;
    opened.close().await;
    gathered
}

fn places(pipeline: &Pipeline, opened: &Opened) -> Vec<About> {
    let used = opened.sinks.iter().filter(|open| open.used).filter_map(|open| pipeline.sink(&open.name));
    used.map(|spec| {
        let keep = spec.keep.map(|keep| (keep.superseded, keep.last));
        About {
            name: spec.name.clone(),
            kind: spec.kind,
            place: spec.build.describe(),
            keep: match keep {
                None | Some((None, None)) => EVERYTHING.to_owned(),
                Some((Some(age), None)) => format!("versions replaced less than {age} ago"),
                Some((None, Some(last))) => format!("the last {last} of each partition"),
                Some((Some(age), Some(last))) => {
                    format!("versions replaced less than {age} ago, and the last {last} of each partition")
                }
            },
        }
    })
    .collect()
}

fn unreachable(opened: &Opened) -> Vec<String> {
    let failed = opened.sessions.iter().filter_map(|open| open.session.as_ref().err());
    let mut messages: Vec<String> = failed.map(|error| error.one_line()).collect();
    messages.dedup();
    messages
}

impl Run {
    fn of(line: &Line) -> Self {
        let report = &line.report;
        let (partitions, rows, bytes) = report.published();
        let mut errors: Vec<String> = Vec::new();
        let problems = report.units.iter().flat_map(|unit| {
            let problems = unit.notices.iter().filter(|notice| notice.level == Level::Problem);
            problems.map(|notice| format!("{}: {}", unit.unit, notice.message))
        });
        let failures = report.grouped_failures().into_iter().map(|failure| {
            let of = &failure.of;
            let message = if failure.message.starts_with(of) {
                failure.message.clone()
            } else {
                format!("{of}: {}", failure.message)
            };
            if failure.counts { message } else { message + " (optional)" }
        });
        let mut more_errors = 0;
        let found = line.verified.iter().flat_map(|verified| verified.findings.iter().cloned());
        for error in failures.chain(problems).chain(found) {
            if errors.contains(&error) {
                continue;
            }
            if errors.len() < MOST_ERRORS {
                errors.push(error);
            } else {
                more_errors += 1;
            }
        }
        Self {
            verb: line.verb.clone(),
            flows: line.flows.clone(),
            outcome: report.outcome,
            began: report.started,
            seconds: report.finished.duration_since(report.started).as_secs_f64(),
            partitions,
            rows,
            bytes,
            summary: summary::did(line),
            errors,
            more_errors,
            warnings: report.warnings.iter().take(MOST_ERRORS).cloned().collect(),
        }
    }

    /// Whether it did all that there was to do.
    pub(super) fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }
}
