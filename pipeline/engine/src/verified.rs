//! What verifications found: `verified.json` in the state directory. Damage stays in it, and so is an alarm, until a
//! repair or a later look says that it is mended. The file is apart from `state.json`, because a run that is going on
//! when a verification ends writes that one anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Pipeline;
use crate::opened::Opened;
use crate::recovery::findings::{self, Checked, Finding, Job, Problem};
use crate::report::{Report, UnitResult};
use crate::state::{State, VerifiedSink};
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::lock;

const FILE: &str = "verified.json";
const LOCK: &str = "verified.lock";

/// The file is written in a moment; who does not get it by then has hung.
const WAIT: Duration = Duration::from_secs(30);

/// The content of `verified.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Verified {
    /// When each sink was last verified as a whole.
    pub sinks: BTreeMap<String, VerifiedSink>,
    /// What was found and is not mended.
    pub open: Vec<Damage>,
}

/// Something that was found and is not mended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Damage {
    /// When it was last found.
    pub found: Timestamp,
    /// Where; empty where no sink has what the database has.
    pub sink: String,
    /// Of which unit, if it is of one.
    #[serde(flatten)]
    pub unit: Option<Unit>,
    /// Of which of its generations.
    pub generation: Option<u32>,
    /// What.
    pub problem: Problem,
    /// Human-readable.
    pub detail: String,
}

impl Damage {
    fn is(&self, finding: &Finding) -> bool {
        self.sink == finding.sink
            && self.unit == finding.unit
            && self.generation == finding.generation
            && self.problem == finding.problem
            && (self.unit.is_some() || self.detail == finding.detail)
    }

    /// As `ar_cdr 2026-01-02 damaged`.
    pub fn name(&self) -> String {
        match &self.unit {
            Some(unit) => format!("{unit} {}", self.problem),
            None => format!("{} {}", self.problem, self.detail),
        }
    }

    /// Whether this verification would have found it again.
    fn was_looked_for(&self, job: &Job, report: &findings::Report) -> bool {
        let flow = |unit: &Unit| job.flows.is_empty() || job.flows.contains(&unit.dataset);
        let in_days = |unit: &Unit| match unit.partition {
            Partition::Day(day) => job.days.contains(day),
            _ => job.days == DayRange::ALL,
        };
        if self.problem == Problem::SourceDiffers {
            let unit = self.unit.as_ref();
            return job.against_source && report.failures.is_empty() && unit.is_some_and(|u| flow(u) && in_days(u));
        }
        let Some(checked) = report.sinks.iter().find(|checked| checked.sink == self.sink && checked.whole) else {
            return false;
        };
        let Some(unit) = &self.unit else { return job.flows.is_empty() };
        flow(unit)
            && match self.problem {
                // Receipts are all looked at, of whatever day.
                Problem::DamagedReceipt => true,
                _ => in_days(unit) && (job.percent >= 100.0 || was_read(checked, unit, self.generation)),
            }
    }
}

/// A sample may have left it out.
fn was_read(checked: &Checked, unit: &Unit, generation: Option<u32>) -> bool {
    generation.is_some_and(|generation| checked.newest_good.get(unit) == Some(&generation))
}

impl Verified {
    /// Reads it from the state directory; empty where there is none.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                Error::new(Kind::Damaged, format!("{} is damaged", path.display()))
                    .with_source(error)
                    .hint("remove it, and let `cdrvault verify` find out anew what is damaged")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Up to version 0.1 it stood in the state, without names.
                let state = State::load(directory)?;
                Ok(Self { sinks: state.map(|state| state.verified).unwrap_or_default(), open: Vec::new() })
            }
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// What is not mended in a sink.
    pub fn of<'a>(&'a self, sink: &'a str) -> impl Iterator<Item = &'a Damage> {
        self.open.iter().filter(move |damage| damage.sink == sink)
    }

    /// How much that is. What an older version noted has no names.
    pub fn damage(&self, sink: &str) -> u64 {
        let named = self.of(sink).count() as u64;
        self.sinks.get(sink).map_or(0, |verified| verified.damage).max(named)
    }

    /// Takes over what a verification found.
    fn take(&mut self, pipeline: &Pipeline, job: &Job, report: &findings::Report, at: Timestamp) {
        let known = |sink: &str| sink.is_empty() || pipeline.sink(sink).is_some();
        self.sinks.retain(|sink, _| known(sink));
        let unnamed: BTreeSet<String> = self
            .sinks
            .iter()
            .filter(|(name, sink)| sink.damage > self.of(name).count() as u64)
            .map(|(name, _)| name.clone())
            .collect();
        self.open.retain(|damage| {
            known(&damage.sink)
                && !damage.was_looked_for(job, report)
                && !report.findings.iter().any(|finding| damage.is(finding))
        });
        // How far a sink lags is asked for each time anew, and not remembered.
        let open = report.findings.iter().filter(|one| one.problem.counts() && one.problem != Problem::Behind);
        self.open.extend(open.filter(|finding| !finding.repaired).map(|finding| Damage {
            found: at,
            sink: finding.sink.clone(),
            unit: finding.unit.clone(),
            generation: finding.generation,
            problem: finding.problem,
            detail: finding.detail.clone(),
        }));
        for checked in &report.sinks {
            // What was found in one day says nothing of the others.
            if checked.whole && job.flows.is_empty() && job.days == DayRange::ALL {
                let before = self.sinks.get(&checked.sink).map_or(0, |before| before.damage);
                let damage = if unnamed.contains(&checked.sink) && job.percent < 100.0 { before } else { 0 };
                self.sinks.insert(checked.sink.clone(), VerifiedSink { at, percent: job.percent, damage });
            }
        }
        self.count(&unnamed);
    }

    fn count(&mut self, unnamed: &BTreeSet<String>) {
        let mut named: BTreeMap<&str, u64> = BTreeMap::new();
        for damage in &self.open {
            *named.entry(&damage.sink).or_default() += 1;
        }
        for (name, sink) in &mut self.sinks {
            let now = named.get(name.as_str()).copied().unwrap_or(0);
            sink.damage = if unnamed.contains(name) { sink.damage.max(now) } else { now };
        }
    }
}

/// Remembers what a verification found. An error where there is no state directory: nothing is made to remember it in.
pub async fn record(cx: &Context, pipeline: &Pipeline, job: &Job, report: &findings::Report) -> Result<()> {
    change(cx, &pipeline.state, |verified| verified.take(pipeline, job, report, Timestamp::now())).await
}

/// What a run saved anew does not differ from the database any more, and what it brought back is not missing.
pub(super) async fn settle(cx: &Context, opened: &Opened, report: &Report, directory: &Path) -> Result<()> {
    let verified = Verified::load(directory)?;
    let settles = |result: &UnitResult| !matches!(result, UnitResult::Failed { .. });
    let saved: BTreeSet<&Unit> =
        report.units.iter().filter(|unit| settles(&unit.result)).map(|unit| &unit.unit).collect();
    let mut back: BTreeSet<(String, Unit)> = BTreeSet::new();
    for damage in verified.open.iter().filter(|damage| damage.problem == Problem::Missing) {
        let Some(unit) = &damage.unit else { continue };
        let open = opened.sinks.iter().find(|open| open.name == damage.sink);
        let Some(Ok(sink)) = open.map(|open| &open.sink) else { continue };
        let held = sink.index(cx, &unit.dataset).await?;
        let there =
            |held: &cdrvault_plugin::sink::Held| held.object_there && Some(held.generation) == damage.generation;
        if held.get(&unit.partition).is_some_and(there) {
            back.insert((damage.sink.clone(), unit.clone()));
        }
    }
    let settled = |damage: &Damage| match (&damage.unit, damage.problem) {
        (Some(unit), Problem::SourceDiffers) => saved.contains(unit),
        (Some(unit), Problem::Missing) => back.contains(&(damage.sink.clone(), unit.clone())),
        _ => false,
    };
    if !verified.open.iter().any(settled) {
        return Ok(());
    }
    change(cx, directory, |verified| {
        let named: BTreeMap<String, u64> =
            verified.sinks.keys().map(|sink| (sink.clone(), verified.of(sink).count() as u64)).collect();
        let unnamed = verified.sinks.iter().filter(|(name, sink)| named.get(*name).is_some_and(|n| sink.damage > *n));
        let unnamed = unnamed.map(|(name, _)| name.clone()).collect();
        verified.open.retain(|damage| !settled(damage));
        verified.count(&unnamed);
    })
    .await
}

async fn change(cx: &Context, directory: &Path, change: impl FnOnce(&mut Verified)) -> Result<()> {
    if !directory.is_dir() {
        return Err(Error::new(Kind::NotFound, format!("there is no state directory {}", directory.display()))
            .hint("verify where the runs are made, as the user who makes them"));
    }
    let _guard = lock::wait_for(cx, &directory.join(LOCK), WAIT).await?;
    let mut verified = Verified::load(directory).unwrap_or_else(|error| {
        tracing::warn!("{}; it is rebuilt", error.one_line());
        Verified::default()
    });
    change(&mut verified);
    let text =
        serde_json::to_vec_pretty(&verified).map_err(|error| Error::failed("cannot write JSON").with_source(error))?;
    durable::replace(&directory.join(FILE), &How::default(), |file| file.write_all(&text))
}
