//! Which generations are meant.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use crate::config::SinkSpec;
use crate::context::Context;
use crate::engine::Retrying;
use crate::error::{At as _, Error, Kind, Result};
use crate::manifest::Manifest;
use crate::partition::{DayRange, Partition, Unit};
use crate::plugin::Around;
use crate::sink::{Expected, Identity, Sink};

/// So many receipts are asked for at a time.
const AT_ONCE: usize = 8;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// These datasets; all of them where it is empty.
    pub flows: Vec<String>,
    /// Days of tables. A range leaves out what has no day: files, dumps, and rows without a date.
    pub days: DayRange,
    /// As it was then, instead of as it is now.
    pub at: Option<Timestamp>,
}

/// What was found, in the order of dataset and partition.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The generations.
    pub manifests: Vec<Manifest>,
    /// Partitions in the range that had nothing yet at the time that was asked for.
    pub not_yet: Vec<Unit>,
}

/// Opens one sink to read from it, whoever's vault it is. Nothing is locked or written.
pub async fn open(cx: &Context, spec: &SinkSpec) -> Result<(Arc<dyn Sink>, Identity)> {
    let opening = async {
        let sink: Arc<dyn Sink> = Arc::new(Retrying(spec.build.build(&Around::default())?));
        let identity = sink.open(cx, &Expected { reading: true, ..Expected::default() }, true).await?;
        Ok((sink, identity))
    };
    opening.await.at(format!("sink `{}`", spec.name))
}

/// Finds the generations in a sink. An error when a dataset has none, or a receipt cannot be read.
pub async fn find(cx: &Context, sink: &Arc<dyn Sink>, wanted: &Wanted) -> Result<Selection> {
    let there: BTreeSet<String> = sink.datasets(cx).await?.into_iter().collect();
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    if let Some(unknown) = wanted.flows.iter().find(|name| !there.contains(*name)) {
        return Err(Error::new(Kind::NotFound, format!("{} holds nothing of `{unknown}`", sink.describe()))
            .hint(format!("it holds: {}", if there.is_empty() { "nothing".to_owned() } else { names(&there) })));
    }
    let mut selection = Selection::default();
    for dataset in there.iter().filter(|name| wanted.flows.is_empty() || wanted.flows.contains(name)) {
        let history = sink.history(cx, dataset).await?;
        let units = history.into_iter().filter(|(partition, _)| is_in(wanted.days, *partition));
        let found: Vec<(Unit, Option<Manifest>)> = stream::iter(units)
            .map(|(partition, generations)| async move {
                let unit = Unit::new(dataset.clone(), partition);
                let manifest = newest(cx, sink, &unit, &generations, wanted.at).await?;
                Ok::<_, Error>((unit, manifest))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (unit, manifest) in found {
            match manifest {
                Some(manifest) => selection.manifests.push(manifest),
                None => selection.not_yet.push(unit),
            }
        }
        let any = selection.manifests.iter().any(|manifest| manifest.unit.dataset == *dataset);
        if !any && wanted.flows.contains(dataset) {
            return Err(nothing(sink, &format!("of `{dataset}` "), wanted));
        }
    }
    if selection.manifests.is_empty() { Err(nothing(sink, "", wanted)) } else { Ok(selection) }
}

fn nothing(sink: &Arc<dyn Sink>, of: &str, wanted: &Wanted) -> Error {
    let days = if wanted.days == DayRange::ALL {
        String::new()
    } else {
        format!(" in the range {}", crate::engine::range_text(wanted.days))
    };
    let at = wanted.at.map(|at| format!(" at {at}")).unwrap_or_default();
    Error::new(Kind::NotFound, format!("{} holds nothing {of}{days}{at}", sink.describe()).replace("  ", " "))
        .hint("`snapshots --all` lists what is saved, and since when")
}

fn is_in(days: DayRange, partition: Partition) -> bool {
    match partition.day() {
        Some(day) => days.contains(day),
        None => days == DayRange::ALL,
    }
}

/// The newest generation that the sink had at that time.
async fn newest(
    cx: &Context,
    sink: &Arc<dyn Sink>,
    unit: &Unit,
    generations: &[u32],
    at: Option<Timestamp>,
) -> Result<Option<Manifest>> {
    let mut successor: Option<Manifest> = None;
    for generation in generations.iter().rev() {
        let manifest = sink.manifest(cx, unit, *generation).await?;
        if at.is_none_or(|at| manifest.received.unwrap_or(manifest.sealed) <= at) {
            // What was read before the day ended is not kept: its successor has the same calls, and more.
            return Ok(Some(successor.filter(|successor| successor.supersedes(&manifest)).unwrap_or(manifest)));
        }
        successor = Some(manifest);
    }
    Ok(None)
}
