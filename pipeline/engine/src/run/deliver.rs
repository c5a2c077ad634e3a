//! A sealed generation reaches the sinks of its flow.

use std::sync::Arc;

use jiff::Timestamp;

use super::seal;
use super::spool::Spool;
use crate::config::OnSchemaChange;
use crate::opened::{OpenFlow, OpenSink, Opened};
use crate::options::Replay;
use crate::report::{Failure, UnitResult};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::failpoint;
use cdrvault_format::manifest::{Holding, Manifest, Pin};
use cdrvault_format::partition::Unit;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Live, Sealed, Vault};
use cdrvault_plugin::stage::Session;

/// What one sink had of a unit before the claim: publishing is compare-and-swap against it.
pub(super) struct Before<'a> {
    pub(super) open: &'a OpenSink,
    pub(super) sink: &'a Arc<dyn Vault>,
    pub(super) live: Live,
}

impl Before<'_> {
    /// What went wrong with this sink alone; an interruption concerns all.
    fn failure(&self, error: Error) -> Result<Failure> {
        if error.kind() == Kind::Interrupted {
            return Err(error);
        }
        Ok(Failure::of(&self.open.name, &error).counting(!self.open.optional))
    }

    /// What goes wrong with an optional sink is a warning.
    pub(super) fn tolerate(&self, done: Result<()>, warnings: &mut Vec<String>) -> Result<()> {
        match done {
            Err(error) if self.open.optional && error.kind() != Kind::Interrupted => {
                warnings.push(format!("sink `{}`: {}", self.open.name, error.one_line()));
                Ok(())
            }
            other => other,
        }
    }
}

/// What one sink must keep, another one must keep as well: its pins go before whatever supersedes what they hold.
pub(super) async fn pass_pins(cx: &Context, from: &Arc<dyn Vault>, to: &Arc<dyn Vault>, unit: &Unit) -> Result<()> {
    let pins = from.notes(cx, unit).await?.pins;
    if pins.is_empty() {
        return Ok(());
    }
    let mut notes = to.notes(cx, unit).await?;
    let known: Vec<u32> = notes.pins.iter().map(|pin| pin.generation).collect();
    let new: Vec<Pin> = pins.into_iter().filter(|pin| !known.contains(&pin.generation)).collect();
    if new.is_empty() {
        return Ok(());
    }
    notes.pins.extend(new);
    to.put_notes(cx, unit, &notes).await
}

/// What a delivery came to.
pub(super) struct Delivered {
    pub(super) result: UnitResult,
    /// Every required sink has it, or will have it after a flush: then the debt may go.
    pub(super) settled: bool,
    /// The mirrors that have to be flushed first.
    pub(super) awaits: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Delivered {
    /// Whether a sink has the unit now.
    pub(super) fn has(&self, sink: &str) -> bool {
        match &self.result {
            UnitResult::Published { missing, .. } => missing.iter().all(|failure| failure.of != sink),
            UnitResult::Unchanged | UnitResult::Gone => true,
            UnitResult::Failed { .. } => false,
        }
    }
}

/// The sinks of a flow with what they have of a unit, and the failures of those that cannot say.
pub(super) async fn look<'a>(
    cx: &Context,
    opened: &'a Opened,
    flow: &OpenFlow,
    unit: &Unit,
) -> (Vec<Before<'a>>, Vec<Failure>) {
    let (mut before, mut failures) = (Vec::new(), Vec::new());
    for index in &opened.spec(flow).sinks {
        let open = &opened.sinks[*index];
        let looked = match &open.sink {
            Ok(sink) => sink.live(cx, unit).await.map(|live| Before { open, sink, live }).map_err(Arc::new),
            Err(error) => Err(Arc::clone(error)),
        };
        match looked {
            Ok(found) => before.push(found),
            Err(error) => failures.push(Failure::of(&open.name, &error).counting(!open.optional)),
        }
    }
    (before, failures)
}

/// The generation that comes next: one more than the highest that any reachable sink has.
pub(super) fn next_generation(unit: &Unit, before: &[Before<'_>]) -> Result<u32> {
    let highest = before.iter().map(|sink| sink.live.generation()).max().unwrap_or(0);
    highest.checked_add(1).ok_or_else(|| {
        Error::new(Kind::Refused, format!("{unit}: there is a receipt of generation {highest}, and no number is left"))
            .hint(
                "no pipeline publishes that often: find out who put the receipt into the vault; `verify --repair` sets it aside",
            )
    })
}

/// The newest receipt of any reachable sink.
pub(super) fn newest<'a>(before: &'a [Before<'_>]) -> Option<&'a Arc<Manifest>> {
    before.iter().filter_map(|sink| sink.live.manifest.as_ref()).max_by_key(|manifest| manifest.generation)
}

/// Publishes what was sealed wherever it is not already.
pub(super) struct Delivery<'a> {
    pub(super) cx: &'a Context,
    pub(super) session: &'a Arc<dyn Session>,
    pub(super) spool: &'a Spool,
    pub(super) on_schema_change: OnSchemaChange,
    pub(super) replay: Option<Replay>,
    /// Of the sinks that cannot say what they have.
    pub(super) unreachable: Vec<Failure>,
    /// All sinks of the pipeline.
    pub(super) names: Vec<String>,
    /// Those of them that could be opened.
    pub(super) open: Vec<String>,
    /// Those of them that are mirrors.
    pub(super) mirrors: Vec<String>,
}

impl Delivery<'_> {
    pub(super) async fn run(self, sealed: &Sealed, before: &[Before<'_>]) -> Result<Delivered> {
        let mut warnings = Vec::new();
        let manifest = &sealed.manifest;
        let previous = newest(before).cloned();
        if let Some(previous) = &previous {
            self.check_schema(manifest, previous, &mut warnings)?;
        }
        let nothing_ever = manifest.rows == 0 && previous.is_none();
        let has = |sink: &Before<'_>| match &self.replay {
            Some(replay) if replay.force => false,
            Some(_) => sink.live.intact().is_some_and(|live| live.same_bytes(manifest)),
            None => sink.live.intact().is_some_and(|live| live.same_content(manifest)),
        };
        if nothing_ever || before.iter().all(&has) {
            return Ok(self.done(UnitResult::Unchanged, Vec::new(), warnings));
        }
        // What the newest generation holds already is copied from there, so that a generation is the same everywhere.
        let source = before
            .iter()
            .filter(|sink| self.replay.is_none() && has(sink))
            .find(|sink| Some(sink.live.generation()) == previous.as_ref().map(|p| p.generation));
        // A number that stands for something else somewhere is used up: then it is a new generation everywhere.
        let forked = before.iter().any(|sink| {
            let same =
                |live: &Arc<Manifest>| previous.as_ref().is_some_and(|previous| live.content == previous.content);
            Some(sink.live.generation()) == previous.as_ref().map(|p| p.generation)
                && !sink.live.manifest.as_ref().is_some_and(same)
        });
        if let (Some(source), Some(live), false) = (source, &previous, forked) {
            let objects = source.sink.read(self.cx, live).await?;
            let copy = seal::fetch(self.cx, self.spool, live, objects, seal::Files::Copied).await?;
            let (mut lacking, mut unpinned) = (Vec::new(), Vec::new());
            for sink in before.iter().filter(|sink| !has(sink)) {
                match pass_pins(self.cx, source.sink, sink.sink, &manifest.unit).await {
                    Ok(()) => lacking.push(sink),
                    Err(error) => unpinned.push(sink.failure(error)?),
                }
            }
            let (sinks, missing) = self.publish(&copy, &lacking, unpinned).await?;
            return Ok(self.published(&copy.manifest, sinks, missing, warnings));
        }
        let shrunk = previous.as_ref().and_then(|previous| shrunk(manifest, previous));
        if let (Some(shrunk), Some(replay)) = (&shrunk, &self.replay)
            && !replay.allow_shrink
        {
            return Err(Error::new(Kind::Refused, format!("{}: {shrunk}, and is not replaced", manifest.unit)).hint(
                "see what happened to the day; with --allow-shrink it is replaced, and the old generation kept",
            ));
        }
        // What cannot be read now has its last copy in the newest generation that was complete.
        let incomplete = manifest.incomplete && previous.as_ref().is_some_and(|previous| !previous.incomplete);
        let incomplete = incomplete.then(|| "not everything could be read this time".to_owned());
        let (mut to, mut unpinned): (Vec<&Before<'_>>, _) = (before.iter().collect(), Vec::new());
        if let (Some(shrunk), Some(previous)) = (&shrunk.or(incomplete), &previous) {
            unpinned = self.pin(before, previous, shrunk).await?;
            to.retain(|sink| unpinned.iter().all(|failure: &Failure| failure.of != sink.open.name));
            warnings.push(format!(
                "{}: {shrunk}; generation {} is kept until it is released",
                manifest.unit, previous.generation
            ));
        }
        let (sinks, missing) = self.publish(sealed, &to, unpinned).await?;
        Ok(self.published(manifest, sinks, missing, warnings))
    }

    fn check_schema(&self, new: &Manifest, previous: &Manifest, warnings: &mut Vec<String>) -> Result<()> {
        let Some(change) = new.schema_change(previous) else { return Ok(()) };
        match self.on_schema_change {
            OnSchemaChange::Evolve => {
                warnings.push(format!("{}: the table's columns changed: {change}", new.unit));
                Ok(())
            }
            OnSchemaChange::Refuse => {
                Err(Error::new(Kind::Refused, format!("{}: the table's columns changed: {change}", new.unit)).hint(
                    "look at the change, then write `on-schema-change = \"evolve\"` in the flow; the day stays owed",
                ))
            }
        }
    }

    /// Before the shrunk day is published: a crash in between leaves a pin too many, never one too few. A sink where the
    /// old generation cannot be pinned does not get the new one; the others do.
    async fn pin(&self, before: &[Before<'_>], previous: &Manifest, reason: &str) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        for sink in before.iter().filter(|sink| sink.live.generation() == previous.generation) {
            let pinning = async {
                let mut notes = sink.sink.notes(self.cx, &previous.unit).await?;
                if notes.pins.iter().all(|pin| pin.generation != previous.generation) {
                    notes.pins.push(Pin {
                        generation: previous.generation,
                        reason: reason.to_owned(),
                        since: Timestamp::now(),
                    });
                    sink.sink.put_notes(self.cx, &previous.unit, &notes).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = pinning.await {
                failures.push(sink.failure(error)?);
            }
        }
        Ok(failures)
    }

    /// `missing` are those that cannot have it, and so their mirrors cannot either.
    async fn publish(
        &self,
        sealed: &Sealed,
        to: &[&Before<'_>],
        mut missing: Vec<Failure>,
    ) -> Result<(Vec<String>, Vec<Failure>)> {
        let mut sinks = Vec::new();
        let (mirrors, direct): (Vec<_>, Vec<_>) = to.iter().partition(|sink| sink.open.mirrors.is_some());
        for sink in direct {
            // A run that lost the lock publishes nothing any more, anywhere.
            self.session.fence(self.cx).await?;
            match self.publish_to(sealed, sink).await {
                Ok(()) => sinks.push(sink.open.name.clone()),
                Err(error) => missing.push(Failure::of(&sink.open.name, &error).counting(!sink.open.optional)),
            }
        }
        for sink in mirrors {
            let mirrored = sink.open.mirrors.and_then(|index| self.names.get(index));
            let published = match mirrored.filter(|name| missing.iter().any(|failure| failure.of == **name)) {
                Some(name) => Err(Error::failed(format!("`{name}`, which it mirrors, did not get this"))),
                None => self.publish_to(sealed, sink).await,
            };
            match published {
                Ok(()) => sinks.push(sink.open.name.clone()),
                Err(error) => missing.push(Failure::of(&sink.open.name, &error).counting(!sink.open.optional)),
            }
        }
        failpoint::hit("after-publish")?;
        Ok((sinks, missing))
    }

    async fn publish_to(&self, sealed: &Sealed, sink: &Before<'_>) -> Result<()> {
        if let Some(free) = sink.sink.free_space()?
            && free < self.spool.min_free
        {
            return Err(Error::new(
                Kind::NoSpace,
                format!(
                    "{} has {} MiB free, and {} MiB are to stay free",
                    sink.sink.describe(),
                    free >> 20,
                    self.spool.min_free >> 20
                ),
            )
            .hint("free some space there, or lower `min-free`"));
        }
        sink.sink.publish(self.cx, sealed, &sink.live).await.map(drop)
    }

    fn published(
        &self,
        manifest: &Manifest,
        sinks: Vec<String>,
        mut missing: Vec<Failure>,
        warnings: Vec<String>,
    ) -> Delivered {
        missing.extend(self.unreachable.iter().cloned());
        if sinks.is_empty()
            && let Some(first) = missing.iter().find(|failure| failure.counts)
        {
            let result = UnitResult::Failed { error: first.clone() };
            return Delivered { result, settled: false, awaits: Vec::new(), warnings };
        }
        let result = UnitResult::Published {
            generation: manifest.generation,
            rows: manifest.rows,
            bytes: manifest.bytes(),
            sinks,
            missing: Vec::new(),
        };
        self.done(result, missing, warnings)
    }

    fn done(&self, result: UnitResult, mut lacking: Vec<Failure>, mut warnings: Vec<String>) -> Delivered {
        if matches!(result, UnitResult::Unchanged) {
            lacking.extend(self.unreachable.iter().cloned());
        }
        let settled = lacking.iter().all(|failure| !failure.counts);
        let awaits = match &result {
            UnitResult::Published { sinks, .. } => {
                sinks.iter().filter(|sink| self.mirrors.contains(sink)).cloned().collect()
            }
            _ => Vec::new(),
        };
        // A sink that could not be opened has its failure reported once, as a whole; what an open one says of this unit
        // alone is told here.
        let of_unit = lacking.iter().find(|failure| failure.counts && self.open.contains(&failure.of)).cloned();
        let result = match result {
            UnitResult::Unchanged if of_unit.is_some() => match of_unit {
                Some(error) => UnitResult::Failed { error },
                None => UnitResult::Unchanged,
            },
            UnitResult::Published { generation, rows, bytes, sinks, .. } => {
                UnitResult::Published { generation, rows, bytes, sinks, missing: lacking }
            }
            other => other,
        };
        warnings.dedup();
        Delivered { result, settled, awaits, warnings }
    }
}

/// How a day shrank, if it lost all of its rows or at least half of them, or that a tree is empty now: perhaps a disk is
/// not mounted.
fn shrunk(new: &Manifest, old: &Manifest) -> Option<String> {
    let before = old.rows;
    match new.holds() {
        _ if before == 0 => None,
        Holding::Rows if new.rows == 0 => Some(format!("the day is empty now, {before} rows were saved")),
        Holding::Rows if new.rows <= before / 2 => {
            Some(format!("the day has {} rows now, {before} were saved", new.rows))
        }
        Holding::Tree if new.rows == 0 => Some(format!("the directory is empty now, {before} entries were saved")),
        Holding::Rows | Holding::Tree | Holding::Document => None,
    }
}
