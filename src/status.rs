//! `status`: what is where, how old it is, and whether somebody should worry.

use std::sync::Arc;
use std::time::Duration;

use cdrvault_pipeline::config::{NotifyOn, Pipeline};
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::engine::history::{self, Line};
use cdrvault_pipeline::engine::state::State;
use cdrvault_pipeline::engine::survey::{Dataset, Place, Survey, survey};
use cdrvault_pipeline::engine::{Opened, Outcome};
use cdrvault_pipeline::partition::Partition;
use cdrvault_pipeline::progress::Quiet;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{Exit, Failure, Globals};
use crate::{notify, output, session};

/// Show what is saved where, and how old it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault status asterisell\n  cdrvault status asterisell --max-age 26h   # exit status 1 when no run went well for longer\n  cdrvault status asterisell --max-age 26h --nagios"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// Fail when the last run that went well is older.
    #[arg(long, value_name = "TIME", value_parser = output::parse_age)]
    max_age: Option<Duration>,
    /// One line as the plugins of Nagios and Icinga write it; exit status 0 OK, 1 WARNING (a sink lags), 2 CRITICAL, 3 UNKNOWN.
    #[arg(long, conflicts_with = "json")]
    nagios: bool,
}

/// What is told when a run is overdue.
#[derive(Serialize)]
struct Alarms<'a> {
    alarms: &'a [String],
}

/// What `--json` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Status {
    pub(crate) pipeline: String,
    /// Since when every flow is saved, by the history; without one, when a sink last received anything.
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) last_run: Option<LastRun>,
    pub(crate) datasets: Vec<Dataset>,
    pub(crate) sinks: Vec<Place>,
    /// Why this is not as it should be; empty when all is well.
    pub(crate) alarms: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LastRun {
    pub(crate) began: Timestamp,
    pub(crate) outcome: Outcome,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let looked = find(args, globals);
    if args.nagios {
        return Ok(nagios(&looked));
    }
    let status = looked?;
    if globals.json {
        output::json(&status)?;
    } else {
        show(&status);
        for alarm in &status.alarms {
            output::error(globals, alarm, None);
        }
    }
    Ok(if status.alarms.is_empty() { Exit::Done } else { Exit::Failed })
}

fn find(args: &Args, globals: &Globals) -> Result<Status, Failure> {
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    let runs = history::read(&pipeline.state, history::MANY)?;
    session::runtime()?.block_on(async {
        let cx = session::context(&pipeline, Arc::new(Quiet))?;
        let status = Status::of(&pipeline, &runs, look(&cx, &pipeline).await?, args.max_age);
        if let (Some(first), Some(_)) = (status.alarms.first(), args.max_age) {
            notify::tell(&pipeline, NotifyOn::Overdue, first, &Alarms { alarms: &status.alarms }, globals).await;
        }
        Ok(status)
    })
}

impl Status {
    /// `runs` with the newest last.
    pub(crate) fn of(pipeline: &Pipeline, runs: &[Line], survey: Survey, max_age: Option<Duration>) -> Self {
        let Survey { datasets, sinks } = survey;
        let flows = pipeline.flows.iter().map(|flow| flow.name.as_str());
        let good = match runs {
            // The history may be deleted without harm: then it is the vaults that tell.
            [] => datasets.iter().filter_map(|dataset| dataset.received).max(),
            runs => history::last_success(runs, flows),
        };
        let last_run = runs.last().map(|line| LastRun { began: line.report.started, outcome: line.report.outcome });
        let mut status =
            Self { pipeline: pipeline.name.clone(), last_success: good, last_run, datasets, sinks, alarms: Vec::new() };
        status.alarms = alarms(&status, max_age);
        status
    }
}

/// What every sink of a pipeline holds.
pub(crate) async fn look(cx: &Context, pipeline: &Arc<Pipeline>) -> cdrvault_pipeline::error::Result<Survey> {
    let state = State::load(&pipeline.state)?;
    let opened = Opened::vaults(cx, Arc::clone(pipeline), &[], state.as_ref()).await?;
    let found = survey(cx, &opened, &state.unwrap_or_default()).await;
    opened.close().await;
    found
}

/// One line as monitoring plugins write it, and their exit statuses.
fn nagios(looked: &Result<Status, Failure>) -> Exit {
    let now = Timestamp::now();
    let (word, text, exit) = match looked {
        Err(failure) => ("UNKNOWN", failure.text(), Exit::Plugin(3)),
        Ok(status) => {
            let lagging: Vec<String> = status.datasets.iter().filter(|one| one.behind > 0).map(lag).collect();
            let last = match status.last_success {
                Some(at) => format!("last good run {} ago", output::ago(now.duration_since(at).as_secs())),
                None => "no good run yet".to_owned(),
            };
            match (status.alarms.as_slice(), lagging.as_slice()) {
                ([], []) => ("OK", format!("{}: {last}", status.pipeline), Exit::Done),
                ([], lagging) => ("WARNING", format!("{}: {}", status.pipeline, lagging.join(", ")), Exit::Plugin(1)),
                (alarms, _) => ("CRITICAL", format!("{}: {}", status.pipeline, alarms.join("; ")), Exit::Plugin(2)),
            }
        }
    };
    let mut line = format!("CDRVAULT {word} - {}", text.replace(['|', '\n'], " "));
    if let Ok(status) = looked {
        let age = status.last_success.map_or_else(|| "U".to_owned(), |at| now.duration_since(at).as_secs().to_string());
        let behind: u64 = status.datasets.iter().map(|dataset| dataset.behind).sum();
        let partitions: u64 = status.datasets.iter().map(|dataset| dataset.partitions).sum();
        line.push_str(&format!(" | age={age}s;;;0 behind={behind};;;0 partitions={partitions};;;0"));
    }
    output::text(&(line + "\n"));
    exit
}

fn lag(dataset: &Dataset) -> String {
    format!("{} is {} behind in {}", dataset.name, dataset.behind, dataset.sink)
}

/// A sink that cannot be read is an alarm always, age only where a limit was given.
fn alarms(status: &Status, max_age: Option<Duration>) -> Vec<String> {
    let mut alarms: Vec<String> = Vec::new();
    for dataset in &status.datasets {
        if let Some(error) = dataset.error.as_ref().filter(|error| !dataset.optional && !alarms.contains(error)) {
            alarms.push(error.clone());
        }
    }
    if let Some(limit) = max_age {
        match status.last_success {
            None => alarms.push("no run has gone well yet".to_owned()),
            Some(at) => {
                let age = Timestamp::now().duration_since(at);
                if age.unsigned_abs() > limit && !age.is_negative() {
                    alarms.push(format!("the last run that went well ended {} ago", output::ago(age.as_secs())));
                }
            }
        }
    }
    alarms
}

fn show(status: &Status) {
    let now = Timestamp::now();
    let since = |at: Timestamp| output::ago(now.duration_since(at).as_secs());
    let mut head = format!("pipeline {}\n", status.pipeline);
    match status.last_success {
        Some(at) => head.push_str(&format!("last good run: {} ago\n", since(at))),
        None => head.push_str("last good run: none\n"),
    }
    if let Some(last) = status.last_run.as_ref().filter(|last| last.outcome != Outcome::Done) {
        let how = match last.outcome {
            Outcome::Partial => "was partly done",
            Outcome::Interrupted => "was interrupted",
            Outcome::Done | Outcome::Failed => "failed",
        };
        head.push_str(&format!("last run: {} ago, {how} (`cdrvault history` tells more)\n", since(last.began)));
    }
    let rows = status.datasets.iter().map(|dataset| {
        let partition = |one: Option<Partition>| one.map(|p| p.to_string()).unwrap_or_default();
        vec![
            dataset.name.clone(),
            dataset.sink.clone(),
            output::count(dataset.partitions),
            partition(dataset.oldest),
            partition(dataset.newest),
            dataset.received.map(|at| format!("{} ago", since(at))).unwrap_or_default(),
            match &dataset.verified {
                None => "never".to_owned(),
                Some(verified) if verified.damage > 0 => {
                    format!("{} ago, {} findings", since(verified.at), verified.damage)
                }
                Some(verified) => format!("{} ago", since(verified.at)),
            },
            match (&dataset.error, dataset.behind) {
                (Some(_), _) => "cannot be read".to_owned(),
                (None, 0) => "up to date".to_owned(),
                (None, behind) => match dataset.behind_since {
                    Some(at) => format!("{behind} behind, for {}", output::ago(now.duration_since(at).as_secs())),
                    None => format!("{behind} behind"),
                },
            },
        ]
    });
    let header = ["FLOW", "SINK", "PARTITIONS", "FROM", "TO", "RECEIVED", "VERIFIED", "STATE"];
    output::text(&(head + "\n" + &output::table(&header, rows.collect(), &[2])));
}
