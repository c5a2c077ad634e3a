//! What every sink holds, and how far it lags behind: what `status`, the metrics and the report are made of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::opened::{OpenFlow, OpenSink, Opened};
use crate::state::VerifiedSink;
use crate::verified::{Damage, Verified};
use crate::watch::{Data, Days};
use cdrvault_format::error::{Kind, Result};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Held, Vault};

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survey {
    /// Each flow in each of its sinks, in the order of the file.
    pub datasets: Vec<Dataset>,
    /// Each sink that a flow uses, in the order of the file.
    pub sinks: Vec<Place>,
    /// What verifications found and is not mended.
    pub damage: Vec<Damage>,
    /// What the days themselves tell, of each flow that has days.
    pub data: Vec<Data>,
}

/// One dataset in one sink.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dataset {
    /// The flow's name.
    #[serde(rename = "dataset")]
    pub name: String,
    /// The sink's name.
    pub sink: String,
    /// Its failure is a warning.
    pub optional: bool,
    /// Partitions that have a live generation.
    pub partitions: u64,
    /// Superseded generations that are kept. Of a sink that keeps history by itself they are not counted.
    pub versions: u64,
    /// The first day.
    pub oldest: Option<Partition>,
    /// The last day.
    pub newest: Option<Partition>,
    /// When the newest partition was received.
    pub received: Option<Timestamp>,
    /// Partitions of which another sink has a newer generation, or this one has no object.
    pub behind: u64,
    /// When the first of them was received by another sink.
    pub behind_since: Option<Timestamp>,
    /// When the sink was last verified.
    pub verified: Option<VerifiedSink>,
    /// What verifications found in it that is not mended.
    pub damage: u64,
    /// Why the sink cannot be read.
    pub error: Option<String>,
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its failure is a warning.
    pub optional: bool,
    /// Bytes free there, where that can be known.
    pub free: Option<u64>,
    /// When it was last verified.
    pub verified: Option<VerifiedSink>,
    /// What verifications found there that is not mended.
    pub damage: u64,
    /// Why it cannot be used.
    pub error: Option<String>,
}

/// Looks at every sink. What cannot be read is an error in its place; only an interruption ends it.
pub async fn survey(cx: &Context, opened: &Opened, verified: &Verified) -> Result<Survey> {
    let (mut datasets, mut data) = (Vec::new(), Vec::new());
    for flow in &opened.flows {
        let (of_sinks, told) = of_flow(cx, opened, flow, verified).await?;
        datasets.extend(of_sinks);
        data.extend(told);
    }
    let sinks = opened.sinks.iter().filter(|open| open.used).map(|open| {
        let free = open.sink.as_ref().ok().map(|sink| sink.free_space());
        let unreadable = datasets.iter().find(|dataset| dataset.sink == open.name).and_then(|one| one.error.clone());
        Place {
            name: open.name.clone(),
            optional: open.optional,
            free: free.and_then(|free| free.ok().flatten()),
            verified: verified.sinks.get(&open.name).cloned(),
            damage: verified.damage(&open.name),
            error: unreadable.or_else(|| open.sink.as_ref().err().map(|error| error.one_line())),
        }
    });
    let sinks = sinks.collect();
    let used = |damage: &&Damage| damage.sink.is_empty() || opened.sinks.iter().any(|open| open.name == damage.sink);
    let damage = verified.open.iter().filter(used).cloned().collect();
    Ok(Survey { datasets, sinks, damage, data })
}

/// What one sink holds of the flow in work, or why that cannot be known.
struct Found<'a> {
    open: &'a OpenSink,
    held: Result<(BTreeMap<Partition, Held>, u64), String>,
}

async fn of_flow(
    cx: &Context,
    opened: &Opened,
    flow: &OpenFlow,
    verified: &Verified,
) -> Result<(Vec<Dataset>, Option<Data>)> {
    let mut found = Vec::new();
    for index in &opened.spec(flow).sinks {
        let open = &opened.sinks[*index];
        let held = match &open.sink {
            Ok(sink) => match held(cx, sink.as_ref(), &flow.name).await {
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                held => held.map_err(|error| error.one_line()),
            },
            Err(error) => Err(error.one_line()),
        };
        found.push(Found { open, held });
    }
    // The newest generation of each partition, and who has it.
    let mut newest: BTreeMap<Partition, (u32, &OpenSink)> = BTreeMap::new();
    for Found { open, held } in &found {
        for (partition, held) in held.iter().flat_map(|(held, _)| held) {
            let highest = newest.entry(*partition).or_insert((0, open));
            if held.generation > highest.0 {
                *highest = (held.generation, open);
            }
        }
    }
    let mut datasets = Vec::new();
    for Found { open, held } in &found {
        let of_flow = |damage: &&Damage| damage.unit.as_ref().is_some_and(|unit| unit.dataset == flow.name);
        let damaged = verified.of(&open.name).filter(of_flow).count();
        let mut dataset = Dataset {
            name: flow.name.clone(),
            sink: open.name.clone(),
            optional: open.optional,
            partitions: 0,
            versions: 0,
            oldest: None,
            newest: None,
            received: None,
            behind: 0,
            behind_since: None,
            verified: verified.sinks.get(&open.name).cloned(),
            damage: damaged as u64,
            error: None,
        };
        match held {
            Ok((held, versions)) => {
                dataset.versions = *versions;
                if let Err(error) = look_at(cx, &mut dataset, open, held, &newest).await {
                    if error.kind() == Kind::Interrupted {
                        return Err(error);
                    }
                    dataset.error = Some(error.one_line());
                }
            }
            Err(error) => dataset.error = Some(error.clone()),
        }
        datasets.push(dataset);
    }
    let days = newest.iter().filter_map(|(partition, (generation, open))| {
        Some((partition.day()?, (*generation, open.sink.as_ref().ok()?)))
    });
    let data = Days::found(cx, &flow.name, days.collect()).data(&opened.pipeline.watch).await?;
    Ok((datasets, data))
}

async fn held(cx: &Context, sink: &dyn Vault, dataset: &str) -> Result<(BTreeMap<Partition, Held>, u64)> {
    let held = sink.index(cx, dataset).await?;
    let mut versions = 0;
    if !sink.capabilities().native_history {
        let history = sink.history(cx, dataset).await?;
        versions = history.values().map(|generations| generations.len().saturating_sub(1) as u64).sum();
    }
    Ok((held, versions))
}

async fn look_at(
    cx: &Context,
    dataset: &mut Dataset,
    open: &OpenSink,
    held: &BTreeMap<Partition, Held>,
    newest: &BTreeMap<Partition, (u32, &OpenSink)>,
) -> Result<()> {
    dataset.partitions = held.len() as u64;
    let days = || held.keys().filter(|partition| partition.day().is_some() || held.len() == 1);
    dataset.oldest = days().next().copied();
    dataset.newest = days().next_back().copied();
    for (partition, (highest, who)) in newest {
        let unit = Unit::new(&dataset.name, *partition);
        if held.get(partition).is_some_and(|held| held.generation >= *highest && held.object_there) {
            continue;
        }
        dataset.behind += 1;
        // The receipts of a sink that is new are many, and all of them old.
        if dataset.behind <= MOST_RECEIPTS
            && let Ok(sink) = &who.sink
            && let Ok(receipt) = sink.manifest(cx, &unit, *highest).await
        {
            dataset.behind_since = receipt.received.into_iter().chain(dataset.behind_since).min();
        }
    }
    if let (Ok(sink), Some((partition, held))) = (&open.sink, held.last_key_value()) {
        let unit = Unit::new(&dataset.name, *partition);
        dataset.received = sink.manifest(cx, &unit, held.generation).await?.received;
    }
    Ok(())
}

/// How many receipts are read to know since when a sink lags.
const MOST_RECEIPTS: u64 = 50;
