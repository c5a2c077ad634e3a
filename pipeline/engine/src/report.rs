//! What happened in a run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use cdrvault_format::error::{Error, Kind};
use cdrvault_format::partition::Unit;
use cdrvault_plugin::notice::Notice;

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

/// A text with a mark in the place of each day, and the days.
fn without_days(text: &str) -> (String, Vec<String>) {
    const FORM: &[u8] = b"0000-00-00";
    let is_day = |bytes: &[u8]| {
        bytes.len() == FORM.len()
            && bytes
                .iter()
                .zip(FORM)
                .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form })
    };
    let (mut words, mut days, mut rest) = (String::new(), Vec::new(), text);
    while let Some(next) = rest.chars().next() {
        if let Some(day) = rest.get(..FORM.len()).filter(|day| is_day(day.as_bytes())) {
            words.push('\0');
            days.push(day.to_owned());
            rest = &rest[FORM.len()..];
        } else {
            words.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    (words, days)
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
        let incomplete =
            |unit: &UnitReport| unit.notices.iter().any(|n| n.level == cdrvault_plugin::notice::Level::Problem);
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

    /// Every failure, of units too. What is said of each day in the same words is said once, with the first day, how many
    /// they are, and the last one.
    pub fn grouped_failures(&self) -> Vec<Failure> {
        let mut groups: Vec<(String, Failure, BTreeSet<String>)> = Vec::new();
        for failure in self.all_failures() {
            let (words, days) = without_days(&failure.message);
            let key = format!("{}\0{}\0{words}", failure.of, failure.counts);
            let day = days.into_iter().next();
            match groups.iter_mut().find(|(known, ..)| *known == key) {
                Some((.., days)) => days.extend(day),
                None => groups.push((key, failure.clone(), day.into_iter().collect())),
            }
        }
        let told = groups.into_iter().map(|(_, mut failure, days)| {
            if let (Some(first), Some(last)) = (days.first(), days.last().filter(|_| days.len() > 1)) {
                failure.message += &format!(" (and so for {} days from {first} to {last})", days.len());
            }
            failure
        });
        told.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(of: &str, message: &str) -> Failure {
        Failure { of: of.to_owned(), message: message.to_owned(), hint: None, counts: true, interrupted: false }
    }

    #[test]
    fn what_is_said_of_many_days_is_said_once() {
        let mut report = Report::begin();
        for day in 1..=30 {
            report
                .failures
                .push(failed("ar_cdr", &format!("ar_cdr 2026-01-{day:02}: no table ar_cdr-2026-01-{day:02}")));
            report.failures.push(failed("etc", "no table"));
        }
        report.failures.push(failed("ar_cdr", "ar_cdr 2026-01-05: something else, é2026-1-1"));
        let told: Vec<String> = report.grouped_failures().into_iter().map(|failure| failure.message).collect();
        assert_eq!(
            told,
            [
                "ar_cdr 2026-01-01: no table ar_cdr-2026-01-01 (and so for 30 days from 2026-01-01 to 2026-01-30)",
                "no table",
                "ar_cdr 2026-01-05: something else, é2026-1-1"
            ]
        );
    }
}
