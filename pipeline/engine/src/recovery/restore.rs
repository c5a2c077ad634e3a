//! Content goes to a target: found, checked whole, and only then restored, unit by unit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::fetch::AGAIN;
use super::find::Instead;
use super::{Fetched, Selection, compare, undo};
use crate::report::Failure;
use crate::retry::retry;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::failpoint;
use cdrvault_format::manifest::{Holding, Manifest};
use cdrvault_format::partition::Unit;
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::progress::by_dataset;
use cdrvault_plugin::sink::Vault;
use cdrvault_plugin::target::{Restored, Target};

/// What will be restored, for users and scripts.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Where from.
    pub from: String,
    /// Where to.
    pub into: String,
    /// In the order in which they are restored: dumps first, for they make the tables.
    pub units: Vec<PlannedUnit>,
    /// Units that the target cannot take, or that had nothing yet at the time that was asked for.
    pub left_out: Vec<String>,
    /// What the sink holds of it, and cannot give back.
    pub missing: Vec<String>,
    /// What the target says before anything is touched.
    pub remarks: Vec<String>,
    #[serde(skip)]
    manifests: Vec<Manifest>,
    /// See [`Selection::instead`].
    #[serde(skip)]
    instead: Instead,
}

/// One unit of a plan.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedUnit {
    /// Which.
    #[serde(flatten)]
    pub unit: Unit,
    /// Which of its generations.
    pub generation: u32,
    /// Since when the sink has it.
    pub received: Option<jiff::Timestamp>,
    /// What it is.
    pub holds: Holding,
    /// Rows, or entries.
    pub rows: u64,
    /// As stored.
    pub bytes: u64,
}

/// What became of it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Units that were written.
    pub restored: Vec<Unit>,
    /// Units that were there already.
    pub same: Vec<Unit>,
    /// Units that are as they were before.
    pub failed: Vec<Failure>,
    /// Units that were not tried, because what failed would have failed for them, too.
    pub not_tried: Vec<Unit>,
    /// Units that were written, and taken back because the target keeps all or nothing.
    pub taken_back: Vec<Unit>,
    /// Rows and entries that were written.
    pub rows: u64,
    /// What people have to do now.
    pub remarks: Vec<String>,
}

/// Plans a restore. `every` says that each dataset was asked for by name: one that the target cannot take is an error.
pub async fn plan(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    selection: Selection,
    target: &Arc<dyn Target>,
    every: bool,
) -> Result<Plan> {
    let mut left_out: Vec<String> =
        selection.not_yet.iter().map(|unit| format!("{unit} was not saved yet at that time")).collect();
    left_out.extend(selection.empty.iter().map(|dataset| format!("{dataset}: nothing is saved in the range")));
    let (mut manifests, others): (Vec<_>, Vec<_>) =
        selection.manifests.into_iter().partition(|manifest| target.takes(manifest.holds()));
    if let (Some(other), true) = (others.first(), every || manifests.is_empty()) {
        let message =
            format!("`{}` is {}, and {} cannot take that", other.unit.dataset, other.holds(), target.describe());
        return Err(Error::new(Kind::Refused, message)
            .hint("rows go into a database or `csv:DIRECTORY`, files into `dir:DIRECTORY`, dumps into either"));
    }
    let mut datasets: Vec<&str> = others.iter().map(|manifest| manifest.unit.dataset.as_str()).collect();
    datasets.dedup();
    left_out.extend(datasets.iter().map(|dataset| format!("{dataset}: {} cannot take it", target.describe())));
    // Dumps first: they make the tables.
    manifests.sort_by(|a, b| (a.holds(), &a.unit).cmp(&(b.holds(), &b.unit)));
    let remarks = retry(cx, || target.check(cx, &manifests)).await?;
    let units = manifests
        .iter()
        .map(|manifest| PlannedUnit {
            unit: manifest.unit.clone(),
            generation: manifest.generation,
            received: manifest.received,
            holds: manifest.holds(),
            rows: manifest.rows,
            bytes: manifest.bytes(),
        })
        .collect();
    let (missing, instead) = (selection.missing, selection.instead);
    Ok(Plan { from: sink.describe(), into: target.describe(), units, left_out, missing, remarks, manifests, instead })
}

/// Fetches everything, and only when all checksums hold touches the target.
pub async fn execute(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    codecs: &Codecs,
    plan: &Plan,
    target: &Arc<dyn Target>,
) -> Result<Report> {
    let fetched = fetch_all(cx, sink, &plan.manifests, plan.instead).await?;
    let mut report = Report::default();
    cx.progress.planned(&by_dataset(fetched.iter().map(|one| &one.manifest.unit)));
    let work = Restoring { cx, sink, codecs, target, instead: plan.instead, stopped: AtomicBool::new(false) };
    let dumps = fetched.partition_point(|one| one.manifest.holds() == Holding::Document);
    let outcomes: Vec<_> = stream::iter(0..dumps)
        .then(|index| work.restore(&fetched[index]))
        .chain(stream::iter(dumps..fetched.len()).map(|index| work.restore(&fetched[index])).buffered(target.at_once()))
        .collect()
        .await;
    let mut done = Vec::new();
    for (one, outcome) in fetched.iter().zip(outcomes) {
        let unit = &one.manifest.unit;
        match outcome {
            None => report.not_tried.push(unit.clone()),
            Some(Ok((restored, manifest))) => {
                let rows = manifest.rows;
                done.push(manifest);
                if restored == Restored::Written {
                    report.rows += rows;
                    report.restored.push(unit.clone());
                } else {
                    report.same.push(unit.clone());
                }
            }
            Some(Err(error)) => report.failed.push(Failure::of(&unit.dataset, &error)),
        }
    }
    let complete = report.failed.is_empty() && report.not_tried.is_empty();
    match target.finish(cx, &done, complete).await {
        Ok(remarks) => report.remarks = remarks,
        Err(error) => report.failed.push(Failure::of(target.describe(), &error)),
    }
    report.failed.extend(target.lacking().iter().map(|(dataset, error)| Failure::of(dataset, error)));
    if !report.failed.is_empty() || !report.not_tried.is_empty() {
        // An error of `finish` counts as well.
        if !target.keeps_parts() {
            report.taken_back = std::mem::take(&mut report.restored);
            report.rows = 0;
        }
    }
    Ok(report)
}

struct Restoring<'a> {
    cx: &'a Context,
    sink: &'a Arc<dyn Vault>,
    codecs: &'a Codecs,
    target: &'a Arc<dyn Target>,
    instead: Instead,
    /// By an error that would come again for every other unit.
    stopped: AtomicBool,
}

impl Restoring<'_> {
    /// What was restored in the end; `None` if it was not tried.
    async fn restore(&self, one: &Fetched) -> Option<Result<(Restored, Manifest)>> {
        let Self { cx, codecs, target, stopped, .. } = self;
        let unit = &one.manifest.unit;
        if stopped.load(Ordering::Relaxed) || cx.check().is_err() {
            return None;
        }
        cx.progress.began(unit);
        let restoring = retry(cx, || async {
            failpoint::hit("before-restore")?;
            let again;
            let (one, reading) = match one.open() {
                Err(error) if error.kind() == Kind::NotFound => {
                    again = fetch(cx, self.sink, &one.manifest, self.instead).await?;
                    (&again, again.open()?)
                }
                opened => (one, opened?),
            };
            let manifest = &one.manifest;
            // A dump that turns out to be damaged halfway could not be taken back.
            if manifest.holds() == Holding::Document {
                compare(cx, manifest, undo(cx, codecs, manifest, reading.objects()?).await?).await?;
            }
            let payload = undo(cx, codecs, manifest, reading.objects()?).await?;
            Ok((target.restore(cx, manifest, payload).await?, manifest.clone()))
        });
        let restored = restoring.await.at(unit);
        cx.progress.ended(unit, restored.is_err());
        // A server that went away and a full disk fail for everything alike, and so does a missing right for every day.
        // What a dump lacks may be there already: each day is compared after it was put in place.
        let is_dump = one.manifest.holds() == Holding::Document;
        if restored.as_ref().is_err_and(|error| match error.kind() {
            Kind::Transient | Kind::Busy | Kind::NoSpace | Kind::Interrupted => true,
            Kind::Denied => !is_dump,
            _ => false,
        }) {
            stopped.store(true, Ordering::Relaxed);
        }
        Some(restored)
    }
}

/// Everything that is damaged or missing is told at once.
async fn fetch_all(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    manifests: &[Manifest],
    instead: Instead,
) -> Result<Vec<Fetched>> {
    failpoint::hit("before-fetch")?;
    if let Some(mirror) = sink.mirror() {
        mirror.prefetch(cx, manifests).await?;
    }
    let mut fetched = Vec::new();
    let mut failed = Vec::new();
    for manifest in manifests {
        cx.check()?;
        match fetch(cx, sink, manifest, instead).await {
            Ok(one) => fetched.push(one),
            Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotFound | Kind::Refused) => failed.push(error),
            Err(error) => return Err(error),
        }
    }
    let Some(first) = failed.first() else { return Ok(fetched) };
    let more = match failed.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    // A run was faster: that is not damage.
    let hint = match failed.iter().find(|error| error.hint_text() != Some(AGAIN)) {
        Some(_) => "`verify` lists all that is damaged; restore from another sink, or `verify --repair` first",
        None => AGAIN,
    };
    Err(Error::new(Kind::Damaged, format!("nothing was restored: {}{more}", first.one_line())).hint(hint))
}

/// One generation, or what does as well: a run may have superseded it, or removed what was kept of it, since it was chosen.
async fn fetch(cx: &Context, sink: &Arc<dyn Vault>, chosen: &Manifest, instead: Instead) -> Result<Fetched> {
    let mut manifest = chosen.clone();
    loop {
        let error = match retry(cx, || Fetched::fetch(cx, sink, manifest.clone())).await {
            Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotFound) => error,
            other => return other,
        };
        let (unit, generation) = (&manifest.unit, manifest.generation);
        if let Some(other) = later(cx, sink, &manifest, instead).await? {
            let is = other.generation;
            tracing::info!(
                "{unit}: generation {is} took the place of generation {generation} meanwhile, and is restored"
            );
            manifest = other;
            continue;
        }
        let receipt = sink.manifest(cx, unit, generation).await;
        let removed = receipt.is_err_and(|error| error.kind() == Kind::NotFound);
        if !removed && later(cx, sink, &manifest, Instead::Superseding).await?.is_none() {
            return Err(error);
        }
        let message =
            format!("{unit} generation {generation} was replaced by a run meanwhile, and nothing of it is kept");
        return Err(Error::new(Kind::NotFound, message).hint(AGAIN));
    }
}

/// What came after a generation and may be restored instead.
async fn later(cx: &Context, sink: &Arc<dyn Vault>, than: &Manifest, instead: Instead) -> Result<Option<Manifest>> {
    let history = sink.history(cx, &than.unit.dataset).await?;
    let mut later = history.get(&than.unit.partition).into_iter().flatten().filter(|one| **one > than.generation);
    let other = match instead {
        Instead::Newest => later.next_back(),
        Instead::Superseding => later.next(),
        Instead::Nothing => None,
    };
    let Some(other) = other else { return Ok(None) };
    let other = sink.manifest(cx, &than.unit, *other).await?;
    Ok(Some(other).filter(|other| instead == Instead::Newest || other.supersedes(than)))
}
