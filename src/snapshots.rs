//! `snapshots`: which generations are saved, and in which sinks.

use std::collections::BTreeMap;

use cdrvault_engine::opened::Opened;
use cdrvault_engine::state::State;
use cdrvault_format::error::{Error, Kind};
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::progress::Quiet;
use cdrvault_plugin::sink::Vault;
use jiff::civil::Date;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, session};

/// Show the saved generations.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault snapshots asterisell --flow ar_cdr --from 2026-01-01 --to 2026-02-01\n  cdrvault snapshots asterisell --day 2026-01-15 --all   # every generation of a day"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// Only this flow; may be given more than once.
    #[arg(long, value_name = "FLOW")]
    flow: Vec<String>,
    /// The first day.
    #[arg(long, value_name = "DAY", conflicts_with = "day")]
    from: Option<Date>,
    /// The day after the last one.
    #[arg(long, value_name = "DAY", conflicts_with = "day")]
    to: Option<Date>,
    /// Only this day.
    #[arg(long, value_name = "DAY")]
    day: Option<Date>,
    /// Older generations too, not only the live ones.
    #[arg(long)]
    all: bool,
}

/// When each sink received a generation.
type Received = BTreeMap<String, Option<jiff::Timestamp>>;

/// One generation, as `--json` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Snapshot {
    dataset: String,
    partition: Partition,
    generation: u32,
    live: bool,
    rows: u64,
    bytes: u64,
    content: String,
    full: String,
    open: bool,
    /// When each sink received it.
    sinks: Received,
    /// Sinks of the flow that have an older generation live, or none.
    behind: Vec<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Shown<'a> {
        snapshots: &'a [Snapshot],
    }
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    let range = match args.day {
        Some(day) => DayRange { from: Some(day), to: day.tomorrow().ok() },
        None => DayRange { from: args.from, to: args.to },
    };
    let runtime = session::runtime()?;
    let (snapshots, unreachable) = runtime.block_on(async {
        let cx = session::context(&pipeline, std::sync::Arc::new(Quiet))?;
        let state = State::load(&pipeline.state)?;
        let opened = Opened::vaults(&cx, pipeline.clone(), &args.flow, state.as_ref()).await?;
        let listed = list(&cx, &opened, range, args.all).await;
        opened.close().await;
        listed
    })?;
    for message in &unreachable {
        output::error(globals, message, None);
    }
    let exit = if unreachable.is_empty() { Exit::Done } else { Exit::Partial };
    if globals.json {
        output::json(&Shown { snapshots: &snapshots })?;
        return Ok(exit);
    }
    let rows = snapshots.iter().map(|snapshot| {
        let newest = snapshot.sinks.values().flatten().max();
        let received = newest.map(|at| at.to_zoned(pipeline.wall_clock()).strftime("%F %T").to_string());
        let mut state = if snapshot.live { "live".to_owned() } else { "kept".to_owned() };
        if snapshot.open {
            state.push_str(", open");
        }
        if !snapshot.behind.is_empty() {
            state.push_str(&format!(", behind: {}", snapshot.behind.join(" ")));
        }
        vec![
            snapshot.dataset.clone(),
            snapshot.partition.to_string(),
            format!("g{:04}", snapshot.generation),
            output::count(snapshot.rows),
            output::size(snapshot.bytes),
            received.unwrap_or_default(),
            snapshot.sinks.keys().cloned().collect::<Vec<_>>().join(" "),
            state,
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        output::text("nothing is saved\n");
    } else {
        let header = ["FLOW", "PARTITION", "GENERATION", "ROWS", "SIZE", "RECEIVED", "SINKS", "STATE"];
        output::text(&output::table(&header, rows, &[3, 4]));
    }
    Ok(exit)
}

async fn list(
    cx: &cdrvault_plugin::context::Context,
    opened: &Opened,
    range: DayRange,
    all: bool,
) -> cdrvault_format::error::Result<(Vec<Snapshot>, Vec<String>)> {
    let mut snapshots = Vec::new();
    let mut unreachable: Vec<String> = opened
        .sinks
        .iter()
        .filter(|open| open.used)
        .filter_map(|open| open.sink.as_ref().err())
        .map(|e| e.one_line())
        .collect();
    for flow in &opened.flows {
        let mut found: BTreeMap<(Partition, u32), (Manifest, Received)> = BTreeMap::new();
        let mut newest: BTreeMap<Partition, BTreeMap<&str, u32>> = BTreeMap::new();
        for (_, open, sink) in opened.sinks_of(flow) {
            let held = match sink.index(cx, &flow.name).await {
                Ok(held) => held,
                Err(error) => {
                    unreachable.push(error.one_line());
                    continue;
                }
            };
            for (partition, held) in held {
                if !in_range(partition, range) {
                    continue;
                }
                newest.entry(partition).or_default().insert(&open.name, held.generation);
                let unit = Unit::new(&flow.name, partition);
                let first = if all { 1 } else { held.generation };
                let mut successor: Option<Manifest> = None;
                for generation in (first..=held.generation).rev() {
                    match sink.manifest(cx, &unit, generation).await {
                        // What was read before the day ended is not kept: only its receipt is.
                        Ok(manifest) if successor.as_ref().is_some_and(|later| later.supersedes(&manifest)) => {
                            successor = Some(manifest);
                        }
                        Ok(manifest) if generation == held.generation || still_has(cx, &**sink, &manifest).await? => {
                            successor = Some(manifest.clone());
                            let received = manifest.received;
                            let entry = found.entry((partition, generation));
                            entry.or_insert_with(|| (manifest, BTreeMap::new())).1.insert(open.name.clone(), received);
                        }
                        Ok(_) => {}
                        Err(error) if error.kind() == Kind::NotFound => {}
                        Err(error) => unreachable.push(error.one_line()),
                    }
                }
            }
        }
        let names: Vec<&str> = opened.sinks_of(flow).iter().map(|(_, open, _)| open.name.as_str()).collect();
        for ((partition, generation), (manifest, sinks)) in found {
            let by_sink = newest.get(&partition);
            let highest = by_sink.and_then(|by| by.values().max()).copied().unwrap_or(0);
            let behind = names
                .iter()
                .filter(|name| generation == highest && by_sink.and_then(|by| by.get(*name)) != Some(&highest))
                .map(|name| (*name).to_owned());
            snapshots.push(Snapshot {
                dataset: flow.name.clone(),
                partition,
                generation,
                live: generation == highest,
                rows: manifest.rows,
                bytes: manifest.bytes(),
                content: manifest.fingerprint.content.to_string(),
                full: manifest.fingerprint.full.to_string(),
                open: manifest.open,
                sinks,
                behind: behind.collect(),
            });
        }
    }
    Ok((snapshots, unreachable))
}

fn in_range(partition: Partition, range: DayRange) -> bool {
    partition.day().map_or(range == DayRange::ALL, |day| range.contains(day))
}

/// Whether a superseded generation can still be read: a place that keeps history by itself may have dropped it.
async fn still_has(cx: &Context, sink: &dyn Vault, manifest: &Manifest) -> Result<bool, Error> {
    match sink.mirror() {
        Some(mirror) => mirror.still_has(cx, manifest).await,
        None => Ok(true),
    }
}
