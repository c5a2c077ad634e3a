//! What a verification is asked for, and what it finds.

use std::collections::BTreeMap;
use std::fmt;

use cdrvault_format::partition::{DayRange, Unit};
use serde::{Deserialize, Serialize};

use crate::report::Failure;

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
    /// There is no pipeline that names the datasets: whatever looks like one is one.
    pub bare: bool,
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
    /// Human-readable.
    pub detail: String,
    /// It was put back and read again.
    pub repaired: bool,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// An object is not what its receipt says.
    Damaged,
    /// An object that a receipt names is not there.
    Missing,
    /// A receipt cannot be understood.
    DamagedReceipt,
    /// A receipt that was there is not there any more, or what is live has none.
    MissingReceipt,
    /// What is noted of a day, of the receipts or of the vault cannot be understood.
    DamagedNotes,
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
            Self::MissingReceipt => "missing receipt",
            Self::DamagedNotes => "damaged notes",
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
    /// The highest generation of each unit among those that were read and are good.
    #[serde(skip)]
    pub newest_good: BTreeMap<Unit, u32>,
    /// All that was asked for could be looked at.
    #[serde(skip)]
    pub whole: bool,
}
