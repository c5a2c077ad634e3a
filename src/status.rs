//! `status`: what is where, how old it is, and whether somebody should worry.

use std::collections::BTreeMap;
use std::time::Duration;

use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::engine::history;
use cdrvault_pipeline::engine::state::{State, VerifiedSink};
use cdrvault_pipeline::engine::{Opened, Outcome};
use cdrvault_pipeline::error::{Kind, Result};
use cdrvault_pipeline::partition::{Partition, Unit};
use cdrvault_pipeline::progress::Quiet;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{Exit, Failure, Globals};
use crate::{output, session};

/// Show what is saved where, and how old it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault status asterisell\n  cdrvault status asterisell --max-age 26h   # exit status 1 when no run went well for longer"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// Fail when the last run that went well is older.
    #[arg(long, value_name = "TIME", value_parser = output::parse_age)]
    max_age: Option<Duration>,
}

/// What `--json` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    pipeline: String,
    /// When a run last went well, by the history; without one, when a sink last received anything.
    last_success: Option<Timestamp>,
    last_run: Option<LastRun>,
    datasets: Vec<Dataset>,
    /// Why this is not as it should be; empty when all is well.
    alarms: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LastRun {
    began: Timestamp,
    outcome: Outcome,
}

/// One dataset in one sink.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Dataset {
    #[serde(rename = "dataset")]
    name: String,
    sink: String,
    optional: bool,
    partitions: u64,
    oldest: Option<Partition>,
    newest: Option<Partition>,
    /// When the newest partition was received.
    received: Option<Timestamp>,
    /// Partitions of which another sink has a newer generation, or this one has no object.
    behind: u64,
    /// When the sink was last verified.
    verified: Option<VerifiedSink>,
    /// Why the sink cannot be read.
    error: Option<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    let runtime = session::runtime()?;
    let runs = history::read(&pipeline.state, 1000)?;
    let datasets = runtime.block_on(async {
        let cx = session::context(&pipeline, std::sync::Arc::new(Quiet))?;
        let state = State::load(&pipeline.state)?;
        let opened = Opened::vaults(&cx, pipeline.clone(), &[], state.as_ref()).await?;
        let datasets = look(&cx, &opened, &state.unwrap_or_default()).await;
        opened.close().await;
        datasets
    })?;
    let good = runs.iter().rev().find(|line| line.report.outcome == Outcome::Done).map(|line| line.report.finished);
    let last_run = runs.last().map(|line| LastRun { began: line.report.started, outcome: line.report.outcome });
    let mut status = Status {
        pipeline: pipeline.name.clone(),
        last_success: good.or_else(|| datasets.iter().filter_map(|dataset| dataset.received).max()),
        last_run,
        datasets,
        alarms: Vec::new(),
    };
    status.alarms = alarms(&status, args.max_age);
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
                (None, behind) => format!("{behind} behind"),
            },
        ]
    });
    let header = ["FLOW", "SINK", "PARTITIONS", "FROM", "TO", "RECEIVED", "VERIFIED", "STATE"];
    output::text(&(head + "\n" + &output::table(&header, rows.collect(), &[2])));
}

async fn look(cx: &Context, opened: &Opened, state: &State) -> Result<Vec<Dataset>> {
    let mut datasets = Vec::new();
    for flow in &opened.flows {
        let mut by_sink = Vec::new();
        for index in &opened.spec(flow).sinks {
            let open = &opened.sinks[*index];
            let held = match &open.sink {
                Ok(sink) => sink.index(cx, &flow.name).await.map_err(|error| error.one_line()),
                Err(error) => Err(error.one_line()),
            };
            by_sink.push((open, held));
        }
        let mut newest: BTreeMap<Partition, u32> = BTreeMap::new();
        for (partition, held) in by_sink.iter().filter_map(|(_, held)| held.as_ref().ok()).flatten() {
            let highest = newest.entry(*partition).or_default();
            *highest = held.generation.max(*highest);
        }
        for (open, held) in by_sink {
            let mut dataset = Dataset {
                name: flow.name.clone(),
                sink: open.name.clone(),
                optional: open.optional,
                partitions: 0,
                oldest: None,
                newest: None,
                received: None,
                behind: 0,
                verified: state.verified.get(&open.name).cloned(),
                error: None,
            };
            match (held, &open.sink) {
                (Ok(held), Ok(sink)) => {
                    dataset.partitions = held.len() as u64;
                    let days = || held.keys().filter(|partition| partition.day().is_some() || held.len() == 1);
                    dataset.oldest = days().next().copied();
                    dataset.newest = days().next_back().copied();
                    let lags = |(partition, highest): (&Partition, &u32)| {
                        held.get(partition).is_none_or(|held| held.generation < *highest || !held.object_there)
                    };
                    dataset.behind = newest.iter().filter(|pair| lags(*pair)).count() as u64;
                    if let Some((partition, held)) = held.last_key_value() {
                        let unit = Unit::new(&flow.name, *partition);
                        match sink.manifest(cx, &unit, held.generation).await {
                            Ok(manifest) => dataset.received = manifest.received,
                            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                            Err(error) => dataset.error = Some(error.one_line()),
                        }
                    }
                }
                (Err(error), _) => dataset.error = Some(error),
                (_, Err(error)) => dataset.error = Some(error.one_line()),
            }
            datasets.push(dataset);
        }
    }
    Ok(datasets)
}
