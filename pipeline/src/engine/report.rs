//! What happened in a run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::notice::Notice;
use crate::partition::Unit;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything that there was to do is done.
    Done,
    /// Some of it is not; the rest is.
    Partial,
    /// Nothing that there was to do is done.
    Failed,
    /// Stopped by the user or the system.
    Interrupted,
    /// A verification found damage, or a difference.
    Damage,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The units in work, in the order of the plan.
    pub units: Vec<UnitReport>,
    /// What went wrong with a flow, a database or a sink as a whole.
    pub failures: Vec<Failure>,
    /// What somebody should know although nothing went wrong.
    pub warnings: Vec<String>,
    /// Generations that a sink lacked and got from another one, by sink.
    pub caught_up: BTreeMap<String, u64>,
    /// Superseded versions that no rule kept, by sink.
    #[serde(default)]
    pub pruned: BTreeMap<String, u64>,
}

/// What happened to one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnitReport {
    /// Which one.
    #[serde(flatten)]
    pub unit: Unit,
    /// Why it was in the plan.
    pub reasons: Vec<String>,
    /// What became of it.
    #[serde(flatten)]
    pub result: UnitResult,
    /// What its source had to say about single entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// What became of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum UnitResult {
    /// A new generation is live in these sinks.
    Published {
        /// Its number.
        generation: u32,
        /// Rows, or entries of a tree.
        rows: u64,
        /// Stored bytes.
        bytes: u64,
        /// The sinks that have it.
        sinks: Vec<String>,
        /// The sinks that do not, and why; an optional one only warns.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<Failure>,
    },
    /// It was read, and is what is saved already.
    Unchanged,
    /// The database lost it without a word; what is saved stays.
    Gone,
    /// Nothing of it was published. It stays owed.
    Failed {
        /// Why.
        error: Failure,
    },
}

/// An error, as a run reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// The flow, the database or the sink.
    pub of: String,
    /// What, where and why, on one line.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// It makes the run fail, wholly or partly; an optional sink's does not.
    pub counts: bool,
    /// Only because we were asked to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

impl Failure {
    /// A failure of something that must work.
    pub fn of(of: impl Into<String>, error: &Error) -> Self {
        Self {
            of: of.into(),
            message: error.one_line(),
            hint: error.hint_text().map(str::to_owned),
            counts: true,
            interrupted: error.kind() == Kind::Interrupted,
        }
    }

    /// The same, if it counts; else a warning.
    #[must_use]
    pub fn counting(mut self, counts: bool) -> Self {
        self.counts = counts;
        self
    }
}

impl Report {
    /// An empty report of a run that begins now.
    pub fn begin() -> Self {
        let now = Timestamp::now();
        Self {
            outcome: Outcome::Done,
            started: now,
            finished: now,
            units: Vec::new(),
            failures: Vec::new(),
            warnings: Vec::new(),
            caught_up: BTreeMap::new(),
            pruned: BTreeMap::new(),
        }
    }

    /// Sets the time and the outcome.
    pub fn end(&mut self, interrupted: bool) {
        self.finished = Timestamp::now();
        let unit_failed = |unit: &UnitReport| match &unit.result {
            UnitResult::Failed { .. } => true,
            UnitResult::Published { missing, .. } => missing.iter().any(|failure| failure.counts),
            UnitResult::Unchanged | UnitResult::Gone => false,
        };
        let incomplete = |unit: &UnitReport| unit.notices.iter().any(|n| n.level == crate::notice::Level::Problem);
        let failed = self.failures.iter().filter(|failure| failure.counts).count()
            + self.units.iter().filter(|unit| unit_failed(unit)).count();
        let something = !self.caught_up.is_empty()
            || self.units.iter().any(|unit| !matches!(unit.result, UnitResult::Failed { .. }));
        self.outcome = if interrupted {
            Outcome::Interrupted
        } else if failed > 0 {
            if something { Outcome::Partial } else { Outcome::Failed }
        } else if self.units.iter().any(incomplete) {
            Outcome::Partial
        } else {
            Outcome::Done
        };
    }

    /// Whether something failed only because we were asked to stop.
    pub(super) fn was_interrupted(&self) -> bool {
        self.all_failures().iter().any(|failure| failure.interrupted)
    }

    /// Units, rows and bytes that were published.
    pub fn published(&self) -> (u64, u64, u64) {
        self.units.iter().fold((0, 0, 0), |sum, unit| match unit.result {
            UnitResult::Published { rows, bytes, .. } => (sum.0 + 1, sum.1 + rows, sum.2 + bytes),
            _ => sum,
        })
    }

    /// Every failure, of units too, whether it counts or not.
    pub fn all_failures(&self) -> Vec<&Failure> {
        let of_units = self.units.iter().flat_map(|unit| match &unit.result {
            UnitResult::Failed { error } => vec![error],
            UnitResult::Published { missing, .. } => missing.iter().collect(),
            UnitResult::Unchanged | UnitResult::Gone => Vec::new(),
        });
        self.failures.iter().chain(of_units).collect()
    }
}
