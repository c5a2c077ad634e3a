//! One sink, on its own: its receipts, its listing, and every byte of its objects.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::findings::{Checked, Finding, Job, Problem};
use super::lost::{may_be_written, pause};
use super::{Fetched, compare, lost, undo};
use crate::config::SinkSpec;
use crate::report::Failure;
use crate::retry::retry;
use cdrvault_format::entry::Entry;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::fingerprint::{self, Fingerprint};
use cdrvault_format::layout;
use cdrvault_format::manifest::{Content, Holding, Manifest};
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::progress::by_dataset;
use cdrvault_plugin::sink::Vault;

/// So many bytes, or generations, are fetched at a time from a place where one transfer is cheaper than many.
const PORTION: (u64, usize) = (1 << 30, 256);

/// Receipts of trees are long: no more entries than this are held at a time, unless one receipt has more.
const ENTRIES: u64 = 100_000;

/// After so many objects in a row that a place cannot be asked for, the others are not asked for either.
const PATIENCE: u32 = 3;

/// So often at most a run that may be in progress is waited for, before its traces are called damage.
const PAUSES: u32 = 4;

/// What one sink holds, by its receipts.
pub(super) struct Held {
    pub(super) name: String,
    pub(super) sink: Arc<dyn Vault>,
    /// Those that have a receipt here, and those that should have one.
    pub(super) datasets: BTreeSet<String>,
    pub(super) generations: BTreeMap<Unit, BTreeMap<u32, Brief>>,
    /// Units that have a receipt which cannot be read, or understood.
    pub(super) unknown: BTreeSet<Unit>,
    /// All its receipts were looked at.
    pub(super) listed: bool,
}

/// What is remembered of a receipt: a whole one of a tree has a line for each file.
pub(super) struct Brief {
    /// The SHA-256 of what it says is stored.
    pub(super) content: [u8; 32],
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) holds: Holding,
    pub(super) fingerprint: Fingerprint,
    open: bool,
}

impl Brief {
    fn of(manifest: &Manifest) -> Result<Self> {
        let content = serde_json::to_vec(&manifest.content)
            .map_err(|error| Error::failed("cannot write a receipt as JSON").with_source(error))?;
        Ok(Self {
            content: Sha256::digest(content).into(),
            bytes: manifest.bytes(),
            rows: manifest.rows,
            holds: manifest.holds(),
            fingerprint: manifest.fingerprint.clone(),
            open: manifest.was_open(),
        })
    }

    /// See [`Manifest::supersedes`].
    fn supersedes(&self, older: &Self) -> bool {
        older.open && self.rows >= older.rows
    }
}

/// See the module.
pub(super) struct Looking<'a> {
    cx: &'a Context,
    codecs: &'a Codecs,
    job: &'a Job,
    optional: bool,
    held: Held,
    checked: Checked,
    findings: Vec<Finding>,
    failures: Vec<Failure>,
    /// Every name that a receipt gives.
    named: BTreeSet<String>,
    /// What the listing showed.
    files: BTreeSet<String>,
    /// Bodies that were read and are good: the snapshots of a tree share most of theirs.
    sound: HashSet<[u8; 32]>,
    /// So many things in a row could not be looked at.
    in_vain: u32,
    /// So often a run that may be in progress is waited for.
    pauses: u32,
}

impl<'a> Looking<'a> {
    pub(super) fn new(
        cx: &'a Context,
        codecs: &'a Codecs,
        job: &'a Job,
        spec: &SinkSpec,
        sink: Arc<dyn Vault>,
        datasets: Vec<&String>,
    ) -> Self {
        let held = Held {
            name: spec.name.clone(),
            sink,
            datasets: datasets.into_iter().cloned().collect(),
            generations: BTreeMap::new(),
            unknown: BTreeSet::new(),
            listed: false,
        };
        let checked = Checked {
            sink: spec.name.clone(),
            generations: 0,
            good: 0,
            bytes: 0,
            newest_good: BTreeMap::new(),
            whole: false,
        };
        Self {
            cx,
            codecs,
            job,
            optional: spec.optional,
            held,
            checked,
            findings: Vec::new(),
            failures: Vec::new(),
            named: BTreeSet::new(),
            files: BTreeSet::new(),
            sound: HashSet::new(),
            in_vain: 0,
            pauses: PAUSES,
        }
    }

    /// Looks at everything. After an error, what was found before it stands.
    pub(super) async fn look(&mut self) -> Result<()> {
        self.receipts().await?;
        self.held.listed = true;
        self.listing().await?;
        self.content().await?;
        self.lost().await?;
        self.notes().await
    }

    /// What is noted and cannot be understood.
    async fn notes(&mut self) -> Result<()> {
        for (unit, detail) in self.held.sink.damaged_notes(self.cx, &self.held.datasets).await? {
            self.found(unit.as_ref(), None, Problem::DamagedNotes, detail);
        }
        Ok(())
    }

    /// Receipts that are missing. Last, for a run may be in progress: what it was doing is done by now.
    async fn lost(&mut self) -> Result<()> {
        let datasets = self.held.datasets.clone();
        let (job, days) = (self.job, self.job.days);
        // What is damaged was told when it was read.
        let told: BTreeSet<Unit> = self.findings.iter().filter_map(|finding| finding.unit.clone()).collect();
        let wanted = |unit: &Unit, generation: u32| !told.contains(unit) && is_wanted(job, unit, generation);
        for lost in lost(self.cx, &self.held.sink, &datasets, days, &wanted).await? {
            // What is live without any receipt is an extra file, and was told as such; better is what the index says of it.
            let live = layout::live_path(&lost.unit, "x")?;
            let extra = |finding: &Finding| {
                finding.problem == Problem::Extra && finding.detail.starts_with(live.trim_end_matches('x'))
            };
            if lost.recorded && lost.unit.partition != Partition::Snapshot {
                self.findings.retain(|finding| !extra(finding));
            } else if self.findings.iter().any(extra) {
                continue;
            }
            self.found(Some(&lost.unit), Some(lost.generation), Problem::MissingReceipt, lost.detail);
        }
        Ok(())
    }

    /// What was found.
    pub(super) fn into_parts(self) -> (Held, Checked, Vec<Finding>, Vec<Failure>) {
        (self.held, self.checked, self.findings, self.failures)
    }

    fn found(&mut self, unit: Option<&Unit>, generation: Option<u32>, problem: Problem, detail: String) {
        let (sink, unit) = (self.held.name.clone(), unit.cloned());
        self.findings.push(Finding { sink, unit, generation, problem, detail, repaired: false });
    }

    /// One thing that could not be looked at: the next one may be. Where a place does not answer at all, that is enough.
    fn failed(&mut self, unit: &Unit, generation: u32, error: Error) -> Result<()> {
        if error.kind() == Kind::Interrupted {
            return Err(error);
        }
        if matches!(error.kind(), Kind::Transient | Kind::NoSpace) {
            self.in_vain += 1;
        }
        if self.in_vain >= PATIENCE {
            return Err(error.at("the rest is not looked at"));
        }
        let error = error.at(format!("{unit} g{generation:04}"));
        self.failures.push(Failure::of(&self.held.name, &error).counting(!self.optional));
        Ok(())
    }

    /// Every receipt, read and understood.
    async fn receipts(&mut self) -> Result<()> {
        let there = self.held.sink.datasets(self.cx).await?;
        self.held
            .datasets
            .extend(there.into_iter().filter(|name| self.job.flows.is_empty() || self.job.flows.contains(name)));
        for dataset in self.held.datasets.clone() {
            for (partition, generations) in self.held.sink.history(self.cx, &dataset).await? {
                let unit = Unit::new(&dataset, partition);
                for generation in generations {
                    self.cx.check()?;
                    self.receipt(&unit, generation).await?;
                }
            }
        }
        Ok(())
    }

    async fn receipt(&mut self, unit: &Unit, generation: u32) -> Result<()> {
        match self.held.sink.manifest(self.cx, unit, generation).await {
            Ok(manifest) => {
                self.in_vain = 0;
                self.name(&manifest)?;
                self.checked.generations += 1;
                self.held.generations.entry(unit.clone()).or_default().insert(generation, Brief::of(&manifest)?);
            }
            // Pruned since it was listed.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => {
                self.held.unknown.insert(unit.clone());
                // One that a newer cdrvault wrote is not damaged, and is not set aside.
                if error.kind() == Kind::Damaged {
                    self.found(Some(unit), Some(generation), Problem::DamagedReceipt, error.one_line());
                } else {
                    self.failed(unit, generation, error)?;
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, manifest: &Manifest) -> Result<()> {
        match &manifest.content {
            Content::Object(object) => {
                self.named.insert(object.path.clone());
                self.named.insert(layout::version(&manifest.unit, manifest.generation, &object.sha256)?);
            }
            Content::Tree { entries } => {
                for stored in entries.iter().filter_map(|entry| entry.stored.as_ref()) {
                    self.named.insert(layout::object(&stored.sha256)?);
                }
            }
        }
        Ok(())
    }

    /// Files that no receipt names.
    async fn listing(&mut self) -> Result<()> {
        self.files = self.held.sink.files(self.cx, &self.held.datasets).await?;
        let mut datasets = self.held.datasets.clone();
        if self.job.bare {
            let of_day = |name: &String| name.split_once("/day=").map(|(dataset, _)| dataset.to_owned());
            datasets.extend(self.files.iter().filter_map(of_day).filter(|name| layout::live_directory(name).is_ok()));
        }
        // What a receipt names that cannot be understood, nobody knows.
        let mut hidden = Vec::new();
        for unit in &self.held.unknown {
            hidden.push(layout::live_path(unit, "x")?.trim_end_matches('x').to_owned());
            hidden.push(format!("{}/", layout::version_directory(unit)?));
            if unit.partition == Partition::Snapshot {
                hidden.push(format!("{}/", layout::OBJECTS));
            }
        }
        let below =
            |name: &str, directory: &str| name.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        let of_dataset = |name: &str| datasets.iter().any(|dataset| below(name, dataset));
        let of_versions = |name: &str| {
            datasets.iter().any(|dataset| layout::versions_of(dataset).is_ok_and(|directory| below(name, &directory)))
        };
        // Bodies are shared by all datasets.
        let whole = self.job.flows.is_empty();
        let mut extra = Vec::new();
        for name in self.files.difference(&self.named) {
            if name.contains("cdrvault-tmp") || hidden.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            if of_dataset(name) {
                extra.push((Problem::Extra, name.clone()));
            } else if of_versions(name) || (whole && below(name, layout::OBJECTS)) {
                extra.push((Problem::Orphaned, name.clone()));
            }
        }
        if extra.is_empty() {
            return Ok(());
        }
        // A run may be in progress: what got its receipt meanwhile is not extra.
        let again = self.held.sink.files(self.cx, &self.held.datasets).await?;
        for (problem, name) in extra.into_iter().filter(|(_, name)| again.contains(name)) {
            self.found(None, None, problem, name);
        }
        Ok(())
    }

    /// The objects, read and decoded.
    async fn content(&mut self) -> Result<()> {
        let mut wanted = Vec::new();
        for (unit, generations) in &self.held.generations {
            for (generation, brief) in generations {
                let later = (Bound::Excluded(*generation), Bound::Unbounded);
                let successor = generations.range(later).next().map(|(_, successor)| successor);
                // It was not kept.
                let gone = successor.is_some_and(|successor| successor.supersedes(brief));
                if !gone && is_wanted(self.job, unit, *generation) {
                    let entries = if brief.holds == Holding::Tree { brief.rows } else { 0 };
                    wanted.push((unit.clone(), *generation, brief.bytes, entries));
                }
            }
        }
        self.cx.progress.planned(&by_dataset(wanted.iter().map(|(unit, ..)| unit)));
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let (mut bytes, mut entries, mut count) = (0, 0, 0);
            while count < rest.len()
                && count < PORTION.1
                && (count == 0 || (bytes < PORTION.0 && entries + rest[count].3 <= ENTRIES))
            {
                bytes += rest[count].2;
                entries += rest[count].3;
                count += 1;
            }
            let (portion, later) = rest.split_at(count);
            rest = later;
            self.portion(portion).await?;
        }
        Ok(())
    }

    async fn portion(&mut self, portion: &[(Unit, u32, u64, u64)]) -> Result<()> {
        let mut manifests = Vec::new();
        for (unit, generation, ..) in portion {
            match self.held.sink.manifest(self.cx, unit, *generation).await {
                Ok(manifest) => match self.still_has(&manifest).await {
                    Ok(true) => manifests.push(self.unread(manifest)),
                    // A place that keeps history by itself has dropped it, and its receipt stays.
                    Ok(false) => {}
                    Err(error) => self.failed(unit, *generation, error)?,
                },
                // Pruned since it was listed.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => self.failed(unit, *generation, error)?,
            }
        }
        // What is missing fails the transfer of all: each is then fetched on its own.
        if let Some(mirror) = self.held.sink.mirror()
            && let Err(error) = mirror.prefetch(self.cx, &manifests).await
        {
            tracing::debug!("{}", error.one_line());
        }
        for manifest in manifests {
            self.cx.check()?;
            let (unit, generation) = (manifest.unit.clone(), manifest.generation);
            self.cx.progress.began(&unit);
            let manifest = self.unread(manifest);
            let error = self.check(&manifest).await.err();
            self.cx.progress.read(&unit, manifest.rows, manifest.bytes());
            self.cx.progress.ended(&unit, error.is_some());
            let Some(error) = error else {
                self.in_vain = 0;
                self.checked.good += 1;
                self.checked.bytes += manifest.bytes();
                self.checked.newest_good.insert(unit, generation);
                if let Content::Tree { entries } = &manifest.content {
                    self.sound.extend(entries.iter().filter_map(body));
                }
                continue;
            };
            if matches!(error.kind(), Kind::Damaged | Kind::NotFound | Kind::Refused | Kind::Failed) {
                self.blame(&manifest).await?;
            } else {
                self.failed(&unit, generation, error)?;
            }
        }
        Ok(())
    }

    async fn still_has(&self, manifest: &Manifest) -> Result<bool> {
        let newest = self.held.generations.get(&manifest.unit).and_then(|all| all.keys().next_back());
        match self.held.sink.mirror() {
            Some(mirror) if newest != Some(&manifest.generation) => mirror.still_has(self.cx, manifest).await,
            _ => Ok(true),
        }
    }

    /// A tree without the bodies that were read before; a receipt whose entries are not what it tells stays as it is.
    fn unread(&self, mut manifest: Manifest) -> Manifest {
        if let Content::Tree { entries } = &mut manifest.content
            && fingerprint::of_entries(entries) == manifest.fingerprint
        {
            entries.retain(|entry| body(entry).is_none_or(|body| !self.sound.contains(&body)));
            manifest.fingerprint = fingerprint::of_entries(entries);
        }
        manifest
    }

    async fn check(&self, manifest: &Manifest) -> Result<()> {
        let fetched = retry(self.cx, || Fetched::fetch(self.cx, &self.held.sink, manifest.clone())).await?;
        let reading = fetched.open()?;
        compare(self.cx, manifest, undo(self.cx, self.codecs, manifest, reading.objects()?).await?).await
    }

    /// Is it damage, or did a run replace or remove it meanwhile?
    async fn blame(&mut self, manifest: &Manifest) -> Result<()> {
        let (unit, generation) = (&manifest.unit, manifest.generation);
        let error = loop {
            match self.held.sink.manifest(self.cx, unit, generation).await {
                Err(gone) if gone.kind() == Kind::NotFound => return Ok(()),
                _ => {}
            }
            if self.is_superseded(manifest).await {
                return Ok(());
            }
            // It may have moved to the name of a version while it was read.
            let error = match self.check(manifest).await {
                Ok(()) => {
                    self.checked.good += 1;
                    self.checked.bytes += manifest.bytes();
                    return Ok(());
                }
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => error,
            };
            if self.pauses == 0 || !may_be_written(&self.held.sink) {
                break error;
            }
            self.pauses -= 1;
            pause(self.cx).await?;
        };
        let problem = match &manifest.content {
            Content::Object(object) => {
                let newest =
                    self.held.generations.get(unit).and_then(|all| all.last_key_value()).map(|(newest, _)| *newest);
                let kept = layout::version(unit, generation, &object.sha256)?;
                let name = if newest == Some(generation) { &object.path } else { &kept };
                if self.files.contains(name) { Problem::Damaged } else { Problem::Missing }
            }
            // Which of the bodies of a tree it is, the message says.
            Content::Tree { .. } => Problem::Damaged,
        };
        self.found(Some(unit), Some(generation), problem, error.one_line());
        Ok(())
    }

    /// Whether a later generation is there by now, and nothing is kept of this one.
    async fn is_superseded(&self, manifest: &Manifest) -> bool {
        if !manifest.was_open() {
            return false;
        }
        let newest = self.held.generations.get(&manifest.unit).and_then(|all| all.keys().next_back()).copied();
        let later = manifest.generation.saturating_add(1)..=newest.unwrap_or(0).saturating_add(1);
        for generation in later {
            if let Ok(later) = self.held.sink.manifest(self.cx, &manifest.unit, generation).await
                && later.supersedes(manifest)
            {
                return true;
            }
        }
        false
    }
}

fn is_wanted(job: &Job, unit: &Unit, generation: u32) -> bool {
    let in_range = match unit.partition {
        Partition::Day(day) => job.days.contains(day),
        _ => job.days == DayRange::ALL,
    };
    in_range && (job.percent >= 100.0 || lot(unit, generation) < job.percent)
}

/// What was checked when a body was: what is stored, and what it decodes to.
fn body(entry: &Entry) -> Option<[u8; 32]> {
    let stored = entry.stored.as_ref()?;
    let told = (&stored.sha256, &stored.encodings, entry.size, &entry.sha256);
    Some(Sha256::digest(serde_json::to_vec(&told).ok()?).into())
}

/// A number from 0 to 100 that is another one each day.
fn lot(unit: &Unit, generation: u32) -> f64 {
    let today = Timestamp::now().as_second() / 86_400;
    let hash = Sha256::digest(format!("{today} {unit} {generation}"));
    f64::from(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX) * 100.0
}
