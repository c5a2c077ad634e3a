//! Removes what the plan says: a version's receipt and object, then the bodies that nothing names any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::planning::{PrunePlan, SinkPlan};
use crate::opened::Opened;
use crate::report::Failure;
use crate::state::State;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Content, Manifest};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::Vault;

/// What pruning came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pruned {
    /// Versions that are gone, by sink.
    pub removed: BTreeMap<String, u64>,
    /// What could not be removed.
    pub failures: Vec<Failure>,
    /// Sinks that were left alone until somebody says yes.
    pub waiting: Vec<String>,
}

/// Removes what the plan says. Where somebody has to say yes and did not, the sink is left alone.
pub async fn execute(cx: &Context, opened: &Opened, plan: &PrunePlan, yes: bool, state: &mut State) -> Result<Pruned> {
    let mut pruned = Pruned { failures: plan.failures.clone(), ..Pruned::default() };
    for open in &opened.sinks {
        let (Ok(sink), true) = (&open.sink, state.pruning.contains_key(&open.name)) else { continue };
        match go_on(cx, sink, &open.name, state).await {
            Ok(0) => {}
            Ok(removed) => *pruned.removed.entry(open.name.clone()).or_default() += removed,
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => pruned.failures.push(Failure::of(&open.name, &error).counting(!open.optional)),
        }
    }
    for planned in &plan.sinks {
        let Some(open) = opened.sinks.iter().find(|open| open.name == planned.sink) else { continue };
        let (Ok(sink), Some(keep)) = (&open.sink, open.keep) else { continue };
        if let (Some(why), false) = (&planned.needs_yes, yes) {
            pruned.waiting.push(format!(
                "sink `{}` is not pruned: {why}; see `cdrvault prune -n`, then `cdrvault prune --yes`",
                planned.sink
            ));
            continue;
        }
        match execute_sink(cx, sink, planned, state, &opened.pipeline.state).await {
            Ok((removed, damaged)) => {
                if removed > 0 {
                    *pruned.removed.entry(planned.sink.clone()).or_default() += removed;
                }
                state.kept.insert(planned.sink.clone(), Some(keep.into()));
                for error in damaged {
                    let failure = Failure::of(&planned.sink, &error).counting(!open.optional);
                    // The plan may tell of it already.
                    if !pruned.failures.contains(&failure) {
                        pruned.failures.push(failure);
                    }
                }
            }
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => pruned.failures.push(Failure::of(&planned.sink, &error).counting(!open.optional)),
        }
    }
    Ok(pruned)
}

/// So many versions are written down at a time before they are removed.
const PORTION: usize = 500;

/// How many versions are gone, and the receipts that cannot be read: what they name stays.
async fn execute_sink(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    planned: &SinkPlan,
    state: &mut State,
    directory: &Path,
) -> Result<(u64, Vec<Error>)> {
    let mut damaged = Vec::new();
    if let Some(before) = planned.history_before {
        if let Some(mirror) = sink.mirror() {
            mirror.forget_history(cx, before).await?;
        }
        return Ok((0, damaged));
    }
    // First of all: a receipt that the index names and that is not there was lost.
    let gone: Vec<(Unit, u32)> = planned.removals().map(|one| (one.unit.clone(), one.generation)).collect();
    sink.unrecord(cx, &gone).await?;
    let (mut removed, mut trees) = (0, false);
    let going: Vec<_> = planned.removals().collect();
    for portion in going.chunks(PORTION) {
        let mut manifests = Vec::new();
        for version in portion {
            cx.check()?;
            match sink.manifest(cx, &version.unit, version.generation).await {
                Ok(manifest) => manifests.push(without_details(manifest)),
                Err(error) if error.kind() == Kind::Damaged => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        // Between the receipt and what it names nothing else tells that this version is to go.
        state.pruning.insert(planned.sink.clone(), manifests.clone());
        state.save(directory)?;
        for manifest in &manifests {
            cx.check()?;
            sink.remove(cx, manifest).await?;
            trees |= is_tree(manifest);
            removed += 1;
        }
        flush(cx, sink).await?;
    }
    if trees {
        match remove_nameless(cx, sink).await {
            // Nobody knows which bodies it names: all stay.
            Err(error) if error.kind() == Kind::Damaged => damaged.push(error),
            other => other?,
        }
        flush(cx, sink).await?;
    }
    state.pruning.remove(&planned.sink);
    Ok((removed, damaged))
}

/// A mirror only notes what is removed.
async fn flush(cx: &Context, sink: &Arc<dyn Vault>) -> Result<()> {
    match sink.mirror() {
        Some(mirror) => mirror.flush(cx).await,
        None => Ok(()),
    }
}

/// Removes what is left of versions whose removal was cut off. One whose receipt is there is judged anew.
async fn go_on(cx: &Context, sink: &Arc<dyn Vault>, name: &str, state: &mut State) -> Result<u64> {
    let (mut removed, mut trees) = (0, false);
    for manifest in state.pruning.get(name).into_iter().flatten() {
        cx.check()?;
        trees |= is_tree(manifest);
        match sink.manifest(cx, &manifest.unit, manifest.generation).await {
            Err(error) if error.kind() == Kind::NotFound => {
                sink.remove(cx, manifest).await?;
                removed += 1;
            }
            Err(error) if error.kind() != Kind::Damaged => return Err(error),
            _ => {}
        }
    }
    if trees {
        remove_nameless(cx, sink).await?;
    }
    flush(cx, sink).await?;
    state.pruning.remove(name);
    Ok(removed)
}

/// What its removal needs of it.
fn without_details(manifest: Manifest) -> Manifest {
    let content = match manifest.content {
        Content::Tree { .. } => Content::Tree { entries: Vec::new() },
        object @ Content::Object(_) => object,
    };
    Manifest { content, columns: Vec::new(), tripwire: None, table: None, ..manifest }
}

fn is_tree(manifest: &Manifest) -> bool {
    matches!(manifest.content, Content::Tree { .. })
}

/// Removes the bodies that no receipt of the vault names, of whatever dataset.
async fn remove_nameless(cx: &Context, sink: &Arc<dyn Vault>) -> Result<()> {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for dataset in sink.datasets(cx).await? {
        for (partition, generations) in sink.history(cx, &dataset).await? {
            // Days are objects of their own.
            if partition != Partition::Snapshot {
                continue;
            }
            for generation in generations {
                let manifest = sink.manifest(cx, &Unit::new(&dataset, partition), generation).await?;
                named.extend(bodies_of(&manifest));
            }
        }
    }
    for sha256 in sink.bodies(cx).await?.into_keys().filter(|sha256| !named.contains(sha256)) {
        cx.check()?;
        sink.remove_body(cx, &sha256).await?;
    }
    Ok(())
}

fn bodies_of(manifest: &Manifest) -> Vec<String> {
    match &manifest.content {
        Content::Tree { entries } => {
            entries.iter().filter_map(|entry| entry.stored.as_ref()).map(|stored| stored.sha256.clone()).collect()
        }
        Content::Object(_) => Vec::new(),
    }
}
