//! Which generations are meant.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use crate::config::SinkSpec;
use crate::retry::Retrying;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_format::manifest::{Content, Manifest};
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::registry::Around;
use cdrvault_plugin::sink::{Expected, Identity, Vault};

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
    /// Where the generation that was live then was pruned: the one before it, or else the one after it.
    pub nearest: bool,
}

/// What was found, in the order of dataset and partition.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The generations.
    pub manifests: Vec<Manifest>,
    /// Partitions in the range that had nothing yet at the time that was asked for.
    pub not_yet: Vec<Unit>,
    /// Datasets that have nothing in the range.
    pub empty: Vec<String>,
    /// What the sink holds and cannot give back, because its receipts are gone: what, for a person to read.
    pub missing: Vec<String>,
    /// What may be restored instead of what a run has replaced since it was chosen.
    pub instead: Instead,
}

/// What does as well as a generation that is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instead {
    /// What is live was asked for: what is live by now.
    Newest,
    /// Of an earlier time: what has the same calls, and more. A day that had not ended was read again.
    Superseding,
    /// This very generation was asked for.
    #[default]
    Nothing,
}

/// What was live of a unit at a time.
enum Then {
    Live(Box<Manifest>),
    NotYet,
    /// It was pruned, and this is what there is around it.
    Pruned(String),
    /// It has no such generation, but others.
    Without(String),
}

/// Opens one sink to read from it, whichever pipeline owns it. Nothing is locked or written.
pub async fn open(cx: &Context, spec: &SinkSpec) -> Result<(Arc<dyn Vault>, Identity)> {
    let opening = async {
        let sink: Arc<dyn Vault> = Arc::new(Retrying(spec.build.build(&Around::default())?));
        let identity = sink.open(cx, &Expected { reading: true, ..Expected::default() }, true).await?;
        Ok((sink, identity))
    };
    opening.await.at(format!("sink `{}`", spec.name))
}

/// Finds the generations in a sink. An error when a dataset has none, or a receipt cannot be read.
pub async fn find(cx: &Context, sink: &Arc<dyn Vault>, wanted: &Wanted) -> Result<Selection> {
    find_generation(cx, sink, wanted, None).await
}

/// The same, of each partition the generation of this number, where one is given.
pub async fn find_generation(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    wanted: &Wanted,
    number: Option<u32>,
) -> Result<Selection> {
    if let (Some(at), Some(mirror)) = (wanted.at, sink.mirror()) {
        mirror.look_back(cx, at).await?;
    }
    let there: BTreeSet<String> = sink.datasets(cx).await?.into_iter().collect();
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    if let Some(unknown) = wanted.flows.iter().find(|name| !there.contains(*name)) {
        return Err(Error::new(Kind::NotFound, format!("{} holds nothing of `{unknown}`", sink.describe()))
            .hint(format!("it holds: {}", if there.is_empty() { "nothing".to_owned() } else { names(&there) })));
    }
    let instead = match (wanted.at, number) {
        (_, Some(_)) => Instead::Nothing,
        (Some(_), None) => Instead::Superseding,
        (None, None) => Instead::Newest,
    };
    let mut selection = Selection { instead, ..Selection::default() };
    let (mut pruned, mut without) = (Vec::new(), Vec::new());
    for dataset in there.iter().filter(|name| wanted.flows.is_empty() || wanted.flows.contains(name)) {
        let history = sink.history(cx, dataset).await?;
        let has_days = history.keys().any(|partition| partition.day().is_some());
        let units = history.into_iter().filter(|(partition, _)| is_in(wanted.days, *partition));
        let found: Vec<(Unit, Then)> = stream::iter(units)
            .map(|(partition, generations)| async move {
                let unit = Unit::new(dataset.clone(), partition);
                let then = match number {
                    None => live_then(cx, sink, &unit, &generations, wanted).await?,
                    Some(number) if generations.contains(&number) => {
                        Then::Live(Box::new(sink.manifest(cx, &unit, number).await?))
                    }
                    Some(_) => Then::Without(format!("{unit} (there is {})", numbers(&generations))),
                };
                Ok::<_, Error>((unit, then))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        if found.is_empty() && has_days {
            selection.empty.push(dataset.clone());
        }
        for (unit, then) in found {
            match then {
                Then::Live(manifest) => selection.manifests.push(*manifest),
                Then::NotYet => selection.not_yet.push(unit),
                Then::Pruned(around) => pruned.push(around),
                Then::Without(others) => without.push(others),
            }
        }
        if !pruned.is_empty() || !without.is_empty() {
            continue;
        }
        let any = selection.manifests.iter().any(|manifest| manifest.unit.dataset == *dataset);
        if !any && wanted.flows.contains(dataset) {
            return Err(nothing(cx, sink, &format!("of `{dataset}` "), wanted));
        }
    }
    let more = |list: &[String]| if list.len() > 1 { format!(", and {} more", list.len() - 1) } else { String::new() };
    if let (Some(first), Some(at)) = (pruned.first(), wanted.at) {
        let (at, more) = (local(cx, at), more(&pruned));
        return Err(Error::new(Kind::NotFound, format!("what was live at {at} was pruned: {first}{more}"))
            .hint("name another time; with --nearest, the generation before it is taken, or the one after it"));
    }
    if let (Some(first), Some(number)) = (without.first(), number) {
        let more = more(&without);
        let message = format!("{} has no generation {number} of {first}{more}", sink.describe());
        return Err(Error::new(Kind::NotFound, message)
            .hint("`snapshots --all` lists those that are kept; name one partition by --flow and --day"));
    }
    if number.is_none() {
        selection.missing = missing(cx, sink, wanted, &there, &selection.manifests).await?;
    }
    if selection.manifests.is_empty() { Err(nothing(cx, sink, "", wanted)) } else { Ok(selection) }
}

fn numbers(generations: &[u32]) -> String {
    generations.iter().map(|generation| format!("g{generation:04}")).collect::<Vec<_>>().join(", ")
}

/// A time as people see it elsewhere, in the pipeline's zone, in a form that `--at` takes.
fn local(cx: &Context, at: Timestamp) -> String {
    at.to_zoned(cx.writer.timezone.clone()).strftime("%F %T%:z").to_string()
}

/// What the vault holds, or held, and what should have been chosen instead: its receipt is gone.
async fn missing(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    wanted: &Wanted,
    datasets: &BTreeSet<String>,
    chosen: &[Manifest],
) -> Result<Vec<String>> {
    let files = sink.files(cx, datasets).await?;
    // Of a dataset all receipts may be lost.
    let in_sight = files.iter().filter_map(|name| Some(name.split_once("/day=")?.0));
    let in_sight = in_sight.filter(|name| layout::live_directory(name).is_ok());
    let datasets: BTreeSet<String> = in_sight
        .map(str::to_owned)
        .chain(datasets.iter().cloned())
        .filter(|name| wanted.flows.is_empty() || wanted.flows.contains(name))
        .collect();
    let of_unit = |unit: &Unit| chosen.iter().find(|manifest| manifest.unit == *unit);
    // What is live has no copy among the versions, unless another one took its place: only then the object is read for it.
    let replaced = |unit: &Unit, generation: u32| match of_unit(unit) {
        Some(Manifest { content: Content::Object(object), generation: own, .. }) if *own == generation => {
            layout::version(unit, generation, &object.sha256).is_ok_and(|name| files.contains(&name))
        }
        Some(_) => false,
        None => true,
    };
    let mut lost = super::lost(cx, sink, &datasets, wanted.days, &replaced).await?;
    // Of an earlier time, the one that followed what was chosen may have been live already.
    lost.retain(|lost| match of_unit(&lost.unit) {
        Some(chosen) if wanted.at.is_some() => lost.generation == chosen.generation + 1,
        _ => lost.newest,
    });
    Ok(lost.iter().map(|lost| format!("{} generation {}: {}", lost.unit, lost.generation, lost.detail)).collect())
}

fn nothing(cx: &Context, sink: &Arc<dyn Vault>, of: &str, wanted: &Wanted) -> Error {
    let days = if wanted.days == DayRange::ALL { String::new() } else { format!(" in the range {}", wanted.days) };
    let at = wanted.at.map(|at| format!(" at {}", local(cx, at))).unwrap_or_default();
    Error::new(Kind::NotFound, format!("{} holds nothing {of}{days}{at}", sink.describe()).replace("  ", " "))
        .hint("`snapshots --all` lists what is saved, and since when")
}

fn is_in(days: DayRange, partition: Partition) -> bool {
    match partition.day() {
        Some(day) => days.contains(day),
        None => days == DayRange::ALL,
    }
}

/// The generation that was live in the sink at that time.
async fn live_then(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    unit: &Unit,
    generations: &[u32],
    wanted: &Wanted,
) -> Result<Then> {
    // From the newest down to the one that was here by then.
    let mut later: Vec<Manifest> = Vec::new();
    let mut chosen = None;
    for generation in generations.iter().rev() {
        let manifest = sink.manifest(cx, unit, *generation).await?;
        if wanted.at.is_none_or(|at| since(&manifest) <= at) {
            chosen = Some(manifest);
            break;
        }
        later.push(manifest);
    }
    let before = chosen.as_ref().map(|manifest| manifest.generation);
    // What a receipt replaced was live until then; if its own is gone, that was pruned.
    let pruned = later.last().and_then(|next| next.replaced).is_some_and(|replaced| Some(replaced) != before);
    if pruned && !wanted.nearest {
        let around = chosen.iter().chain(later.last());
        let around: Vec<String> =
            around.map(|one| format!("g{:04} since {}", one.generation, local(cx, since(one)))).collect();
        return Ok(Then::Pruned(format!("{unit} (there is {})", around.join(", "))));
    }
    if pruned && chosen.is_none() {
        chosen = later.pop();
    }
    let Some(mut chosen) = chosen else { return Ok(Then::NotYet) };
    // What was read before the day ended is not kept: its successor has the same calls, and more.
    while let Some(next) = later.pop().filter(|next| next.supersedes(&chosen)) {
        chosen = next;
    }
    Ok(Then::Live(Box::new(chosen)))
}

fn since(manifest: &Manifest) -> Timestamp {
    manifest.received.unwrap_or(manifest.sealed)
}
