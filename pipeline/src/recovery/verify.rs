//! Every byte is read again, decoded, and compared with what the receipts say; and the sinks with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::repair::Mending;
use super::{Fetched, compare, find, source, undo};
use crate::config::Pipeline;
use crate::context::Context;
use crate::engine::report::Failure;
use crate::engine::retry::retry;
use crate::error::{Error, Kind, Result};
use crate::layout;
use crate::manifest::{Content, Manifest};
use crate::partition::{DayRange, Partition, Unit};
use crate::plugin::Decoder;
use crate::progress::by_dataset;
use crate::sink::Sink;

/// So many bytes, or generations, are fetched at a time from a place where one transfer is cheaper than many.
const PORTION: (u64, usize) = (1 << 30, 256);

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct Job {
    /// These flows; all where it is empty.
    pub flows: Vec<String>,
    /// These sinks; all where it is empty.
    pub sinks: Vec<String>,
    /// These days, and what has no day if it is all days.
    pub days: DayRange,
    /// So many percent of the generations are read, others the next day; listings are always looked at whole.
    pub percent: f64,
    /// Compare with the database, too.
    pub against_source: bool,
    /// Put back what another sink holds.
    pub repair: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Where.
    pub sink: String,
    /// Of which unit, if it is of one.
    #[serde(flatten)]
    pub unit: Option<Unit>,
    /// Of which of its generations.
    pub generation: Option<u32>,
    /// What.
    pub problem: Problem,
    /// For people.
    pub detail: String,
    /// It was put back and read again.
    pub repaired: bool,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// An object is not what its receipt says.
    Damaged,
    /// An object that a receipt names is not there.
    Missing,
    /// A receipt cannot be understood.
    DamagedReceipt,
    /// A file that no receipt names stands where others read.
    Extra,
    /// A body, or a kept object, that nothing names. `prune` removes what an interrupted run left.
    Orphaned,
    /// One generation has another content here than in another sink.
    Differs,
    /// Another sink has a newer generation.
    Behind,
    /// The database has other rows.
    SourceDiffers,
}

impl Problem {
    /// Whether it makes the verification fail.
    pub fn counts(self) -> bool {
        self != Self::Orphaned
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::DamagedReceipt => "damaged receipt",
            Self::Extra => "extra file",
            Self::Orphaned => "orphaned",
            Self::Differs => "differs",
            Self::Behind => "behind",
            Self::SourceDiffers => "differs from the database",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// What was read.
    pub sinks: Vec<Checked>,
    /// What could not be looked at.
    pub failures: Vec<Failure>,
    /// Days that were compared with the database.
    pub compared: u64,
    /// Days that the database has announced a change of, which the next run will save.
    pub pending: u64,
}

impl Report {
    /// Findings that count and were not repaired.
    pub fn damage(&self) -> u64 {
        self.findings.iter().filter(|finding| finding.problem.counts() && !finding.repaired).count() as u64
    }
}

/// What was read of a sink.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checked {
    /// Its name.
    pub sink: String,
    /// Generations that have a receipt.
    pub generations: u64,
    /// Those that were read, and are good.
    pub good: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The newest generation of each unit that was read and is good.
    #[serde(skip)]
    pub newest_good: BTreeMap<Unit, u32>,
}

/// What one sink holds, by its receipts.
pub(super) struct Held {
    pub(super) name: String,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) manifests: BTreeMap<Unit, BTreeMap<u32, Manifest>>,
}

/// Looks at the sinks of a pipeline. Nothing is locked or written, unless something is to be repaired.
pub async fn verify(cx: &Context, pipeline: &Arc<Pipeline>, decoders: &[Decoder], job: &Job) -> Result<Report> {
    let mut report = Report::default();
    let mut all = Vec::new();
    let listing = |index: &usize| {
        pipeline
            .flows
            .iter()
            .any(|flow| flow.sinks.contains(index) && (job.flows.is_empty() || job.flows.contains(&flow.name)))
    };
    for spec in (0..pipeline.sinks.len()).filter(listing).map(|index| &pipeline.sinks[index]) {
        if !job.sinks.is_empty() && !job.sinks.contains(&spec.name) {
            continue;
        }
        let looking = async {
            let (sink, _) = find::open(cx, spec).await?;
            let mut one = Looking { cx, decoders, job, name: spec.name.clone(), sink, findings: Vec::new() };
            let held = one.receipts().await?;
            one.listing(&held).await?;
            let checked = one.content(&held).await?;
            Ok::<_, Error>((one.findings, checked, held))
        };
        match looking.await {
            Ok((findings, checked, held)) => {
                report.findings.extend(findings);
                report.sinks.push(checked);
                all.push(held);
            }
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => report.failures.push(Failure::of(&spec.name, &error).counting(!spec.optional)),
        }
    }
    report.findings.extend(between(&all));
    if job.against_source {
        source::compare(cx, pipeline, job, &all, &mut report).await?;
    }
    if job.repair {
        Mending { cx, pipeline, decoders, all: &all }.mend(&mut report.findings).await?;
    }
    for held in &all {
        held.sink.close().await;
    }
    Ok(report)
}

/// One sink, on its own.
struct Looking<'a> {
    cx: &'a Context,
    decoders: &'a [Decoder],
    job: &'a Job,
    name: String,
    sink: Arc<dyn Sink>,
    findings: Vec<Finding>,
}

impl Looking<'_> {
    fn found(&mut self, unit: Option<&Unit>, generation: Option<u32>, problem: Problem, detail: String) {
        let (sink, unit) = (self.name.clone(), unit.cloned());
        self.findings.push(Finding { sink, unit, generation, problem, detail, repaired: false });
    }

    /// Every receipt, read and understood.
    async fn receipts(&mut self) -> Result<Held> {
        let mut manifests: BTreeMap<Unit, BTreeMap<u32, Manifest>> = BTreeMap::new();
        for dataset in self.sink.datasets(self.cx).await? {
            if !self.job.flows.is_empty() && !self.job.flows.contains(&dataset) {
                continue;
            }
            for (partition, generations) in self.sink.history(self.cx, &dataset).await? {
                let unit = Unit::new(&dataset, partition);
                for generation in generations {
                    match self.sink.manifest(self.cx, &unit, generation).await {
                        Ok(manifest) => {
                            manifests.entry(unit.clone()).or_default().insert(generation, manifest);
                        }
                        // Pruned since it was listed.
                        Err(error) if error.kind() == Kind::NotFound => {}
                        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Refused) => {
                            self.found(Some(&unit), Some(generation), Problem::DamagedReceipt, error.one_line());
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(Held { name: self.name.clone(), sink: Arc::clone(&self.sink), manifests })
    }

    /// Files that no receipt names.
    async fn listing(&mut self, held: &Held) -> Result<()> {
        let mut named = BTreeSet::new();
        for (unit, generations) in &held.manifests {
            for (generation, manifest) in generations {
                match &manifest.content {
                    Content::Object(object) => {
                        named.insert(object.path.clone());
                        named.insert(layout::version(unit, *generation, &object.sha256)?);
                    }
                    Content::Tree { entries } => {
                        for stored in entries.iter().filter_map(|entry| entry.stored.as_ref()) {
                            named.insert(layout::object(&stored.sha256)?);
                        }
                    }
                }
            }
        }
        let datasets: BTreeSet<&str> = held.manifests.keys().map(|unit| unit.dataset.as_str()).collect();
        let of_dataset = |name: &str| {
            datasets.iter().any(|dataset| name.strip_prefix(dataset).is_some_and(|rest| rest.starts_with('/')))
        };
        let of_versions = |name: &str| {
            datasets.iter().any(|dataset| {
                layout::versions_of(dataset)
                    .is_ok_and(|prefix| name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('/')))
            })
        };
        // Bodies are shared by all datasets.
        let whole = self.job.flows.is_empty();
        let mut extra = Vec::new();
        for name in self.sink.files(self.cx).await? {
            if named.contains(&name) || name.contains("cdrvault-tmp") {
                continue;
            }
            if of_dataset(&name) {
                extra.push((Problem::Extra, name));
            } else if of_versions(&name) || (whole && name.starts_with(&format!("{}/", layout::OBJECTS))) {
                extra.push((Problem::Orphaned, name));
            }
        }
        // A run may be at work: what got its receipt meanwhile is not extra.
        let again = if extra.is_empty() { None } else { Some(self.sink.files(self.cx).await?) };
        for (problem, name) in extra {
            if again.as_ref().is_some_and(|again| again.contains(&name)) {
                self.found(None, None, problem, name);
            }
        }
        Ok(())
    }

    /// The objects, read and decoded.
    async fn content(&mut self, held: &Held) -> Result<Checked> {
        let mut checked = Checked {
            sink: self.name.clone(),
            generations: held.manifests.values().map(|generations| generations.len() as u64).sum(),
            good: 0,
            bytes: 0,
            newest_good: BTreeMap::new(),
        };
        let mut wanted = Vec::new();
        for (unit, generations) in &held.manifests {
            let newest = generations.last_key_value().map(|(generation, _)| *generation);
            for (generation, manifest) in generations {
                let successor = generations.range(generation + 1..).next().map(|(_, manifest)| manifest);
                // It was not kept.
                let gone = successor.is_some_and(|successor| successor.supersedes(manifest));
                if !gone && self.is_wanted(unit, *generation) {
                    wanted.push((manifest.clone(), Some(*generation) == newest));
                }
            }
        }
        self.cx.progress.planned(&by_dataset(wanted.iter().map(|(manifest, _)| &manifest.unit)));
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            while count < rest.len() && count < PORTION.1 && (count == 0 || bytes < PORTION.0) {
                bytes += rest[count].0.bytes();
                count += 1;
            }
            let (portion, later) = rest.split_at(count);
            rest = later;
            let manifests: Vec<Manifest> = portion.iter().map(|(manifest, _)| manifest.clone()).collect();
            // What is missing fails the transfer of all: each is then fetched on its own.
            if let Err(error) = self.sink.prefetch(self.cx, &manifests).await {
                tracing::debug!("{}", error.one_line());
            }
            for (manifest, newest) in portion {
                self.cx.check()?;
                self.cx.progress.began(&manifest.unit);
                let error = self.check(manifest).await.err();
                self.cx.progress.read(&manifest.unit, manifest.rows, manifest.bytes());
                self.cx.progress.ended(&manifest.unit, error.is_some());
                match error {
                    None => {
                        checked.good += 1;
                        checked.bytes += manifest.bytes();
                        if *newest {
                            checked.newest_good.insert(manifest.unit.clone(), manifest.generation);
                        }
                    }
                    Some(error) => self.blame(manifest, error).await?,
                }
            }
        }
        Ok(checked)
    }

    async fn check(&self, manifest: &Manifest) -> Result<()> {
        let fetched = retry(self.cx, || Fetched::fetch(self.cx, &self.sink, manifest.clone())).await?;
        compare(self.cx, manifest, undo(self.decoders, manifest, fetched.objects()?).await?).await
    }

    /// Is it damage, or did somebody remove it meanwhile?
    async fn blame(&mut self, manifest: &Manifest, error: Error) -> Result<()> {
        if !matches!(error.kind(), Kind::Damaged | Kind::NotFound | Kind::Refused | Kind::Failed) {
            return Err(error);
        }
        let (unit, generation) = (&manifest.unit, manifest.generation);
        match self.sink.manifest(self.cx, unit, generation).await {
            Err(gone) if gone.kind() == Kind::NotFound => return Ok(()),
            _ => {}
        }
        let files = self.sink.files(self.cx).await?;
        let there = match &manifest.content {
            Content::Object(object) => {
                let live = self.sink.history(self.cx, &unit.dataset).await?;
                let newest = live.get(&unit.partition).and_then(|all| all.last().copied());
                let kept = layout::version(unit, generation, &object.sha256)?;
                files.contains(if newest == Some(generation) { &object.path } else { &kept })
            }
            Content::Tree { .. } => false,
        };
        let problem = if there { Problem::Damaged } else { Problem::Missing };
        // Which of the bodies of a tree it is, the message says.
        let problem = if matches!(manifest.content, Content::Tree { .. }) { Problem::Damaged } else { problem };
        self.found(Some(unit), Some(generation), problem, error.one_line());
        Ok(())
    }

    fn is_wanted(&self, unit: &Unit, generation: u32) -> bool {
        let days = self.job.days;
        let in_range = match unit.partition {
            Partition::Day(day) => days.contains(day),
            _ => days == DayRange::ALL,
        };
        in_range && (self.job.percent >= 100.0 || lot(unit, generation) < self.job.percent)
    }
}

/// A number from 0 to 100 that is another one each day.
fn lot(unit: &Unit, generation: u32) -> f64 {
    let today = Timestamp::now().as_second() / 86_400;
    let hash = Sha256::digest(format!("{today} {unit} {generation}"));
    f64::from(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX) * 100.0
}

/// All sinks must hold the same content under the same number, and the same newest one.
fn between(all: &[Held]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut first: BTreeMap<(&Unit, u32), (&Held, &Manifest)> = BTreeMap::new();
    let mut newest: BTreeMap<&Unit, u32> = BTreeMap::new();
    for held in all {
        for (unit, generations) in &held.manifests {
            for (generation, manifest) in generations {
                let highest = newest.entry(unit).or_default();
                *highest = (*highest).max(*generation);
                let (other, reference) = first.entry((unit, *generation)).or_insert((held, manifest));
                if reference.content != manifest.content {
                    findings.push(Finding {
                        sink: held.name.clone(),
                        unit: Some(unit.clone()),
                        generation: Some(*generation),
                        problem: Problem::Differs,
                        detail: format!("it has another content than in `{}`", other.name),
                        repaired: false,
                    });
                }
            }
        }
    }
    for held in all {
        let datasets: BTreeSet<&str> = held.manifests.keys().map(|unit| unit.dataset.as_str()).collect();
        for (unit, highest) in newest.iter().filter(|(unit, _)| datasets.contains(unit.dataset.as_str())) {
            let here = held.manifests.get(*unit).and_then(|all| all.last_key_value()).map_or(0, |(g, _)| *g);
            if here < *highest {
                findings.push(Finding {
                    sink: held.name.clone(),
                    unit: Some((*unit).clone()),
                    generation: Some(*highest),
                    problem: Problem::Behind,
                    detail: if here == 0 { "it has none".to_owned() } else { format!("it has generation {here}") },
                    repaired: false,
                });
            }
        }
    }
    findings
}
