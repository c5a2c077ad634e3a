//! Receipts that were there once: what they told of is in nobody's list, and would be left out without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdrvault_format::error::{Kind, Result};
use cdrvault_format::index::Generations;
use cdrvault_format::layout;
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::lock;
use cdrvault_plugin::sink::Vault;

/// A run may be about to write the receipt of what it has just made live, or about to prune: so often it is looked at again.
const AGAIN: u32 = 3;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// A generation whose receipt is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Of what.
    pub unit: Unit,
    /// Which one; of a live object that nothing names, the one after the newest that has a receipt.
    pub generation: u32,
    /// No later one has a receipt: what is newest cannot be restored.
    pub newest: bool,
    /// The index of the vault names it. Otherwise a run may have ended before it wrote the receipt.
    pub recorded: bool,
    /// Human-readable.
    pub detail: String,
}

/// The receipts of these datasets that are missing, for units in the range: those that the index names, those of live
/// objects that are not what the newest receipt says, and those of days that have an object and no receipt. The live objects
/// of the units that are `wanted` are read for it, where the place keeps no checksums.
pub async fn lost(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    datasets: &BTreeSet<String>,
    days: DayRange,
    wanted: &(dyn Fn(&Unit, u32) -> bool + Sync),
) -> Result<Vec<Lost>> {
    let mut found = look(cx, sink, datasets, days, wanted).await?;
    let tries = if may_be_written(sink) { AGAIN } else { 2 };
    for _ in 1..tries {
        if found.is_empty() {
            break;
        }
        if may_be_written(sink) {
            pause(cx).await?;
        }
        let suspects: BTreeSet<Unit> = found.iter().map(|lost| lost.unit.clone()).collect();
        let again = suspects.iter().map(|unit| unit.dataset.clone()).collect();
        let suspect = |unit: &Unit, generation: u32| suspects.contains(unit) && wanted(unit, generation);
        let now = look(cx, sink, &again, days, &suspect).await?;
        found.retain(|lost| now.contains(lost));
    }
    Ok(found)
}

/// Whether a run may be in progress there: of a directory its lock tells, and a mirror changes in one transfer.
pub(super) fn may_be_written(sink: &Arc<dyn Vault>) -> bool {
    !sink.capabilities().mirror && sink.root().is_none_or(|root| lock::is_held(&root.join(layout::LOCK)))
}

pub(super) async fn pause(cx: &Context) -> Result<()> {
    cx.unless_cancelled(async {
        tokio::time::sleep(PAUSE).await;
        Ok(())
    })
    .await
}

async fn look(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    datasets: &BTreeSet<String>,
    days: DayRange,
    wanted: &(dyn Fn(&Unit, u32) -> bool + Sync),
) -> Result<Vec<Lost>> {
    let is_in = |partition: Partition| partition.day().map_or(days == DayRange::ALL, |day| days.contains(day));
    let mut all = Vec::new();
    let files = sink.files(cx, datasets).await?;
    for dataset in datasets {
        cx.check()?;
        let index = match sink.recorded(cx, dataset).await {
            // That it is damaged is told by itself.
            Err(error) if error.kind() == Kind::Damaged => None,
            other => other?,
        };
        // After the index: what is removed on purpose goes from the index first.
        let mut standing = sink.history(cx, dataset).await?;
        standing.retain(|partition, _| is_in(*partition));
        let newest = |partition: Partition| newest_of(&standing, partition);
        let named = index.map(|index| index.lost(&standing)).unwrap_or_default();
        let mut of_units: BTreeMap<Partition, Vec<Lost>> = BTreeMap::new();
        for (partition, generation) in named.into_iter().filter(|(partition, _)| is_in(*partition)) {
            of_units.entry(partition).or_default().push(Lost {
                unit: Unit::new(dataset, partition),
                generation,
                newest: newest(partition) < generation,
                recorded: true,
                detail: "the index of the vault names it, and its receipt is not there".to_owned(),
            });
        }
        for partition in standing.keys().copied() {
            let (unit, generation) = (Unit::new(dataset, partition), newest(partition));
            let known = of_units.get(&partition).is_some_and(|lost| lost.iter().any(|lost| lost.newest));
            if !known && wanted(&unit, generation) && sink.nameless(cx, &unit).await?.is_some() {
                of_units.entry(partition).or_default().push(Lost {
                    unit,
                    generation: generation.saturating_add(1),
                    newest: true,
                    recorded: false,
                    detail: format!(
                        "what is live is not generation {generation}, the newest that has a receipt: a receipt was lost, or \
                         the object was replaced, or a run ended before it wrote the receipt"
                    ),
                });
            }
        }
        for partition in files.iter().filter_map(|name| day_of(name, dataset)) {
            let unit = Unit::new(dataset, partition);
            if is_in(partition)
                && !standing.contains_key(&partition)
                && !of_units.contains_key(&partition)
                && wanted(&unit, 0)
            {
                of_units.entry(partition).or_default().push(Lost {
                    unit,
                    generation: 1,
                    newest: true,
                    recorded: false,
                    detail: "it has an object and no receipt".to_owned(),
                });
            }
        }
        all.extend(of_units.into_values().flatten());
    }
    Ok(all)
}

fn newest_of(standing: &Generations, partition: Partition) -> u32 {
    standing.get(&partition).and_then(|all| all.last()).copied().unwrap_or(0)
}

/// `ar_cdr/day=2026-01-15/...`
fn day_of(name: &str, dataset: &str) -> Option<Partition> {
    let (day, file) = name.strip_prefix(dataset)?.strip_prefix("/day=")?.split_once('/')?;
    let rows = format!("{dataset}-{day}.parquet");
    day.parse().ok().filter(|_| layout::is_rows_path(file, &rows))
}
