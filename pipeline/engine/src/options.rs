//! What a run is asked for.

use std::time::Duration;

use cdrvault_format::partition::{DayRange, Partition};

/// What `run` and `replay` are asked for on the command line.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Only these flows; all of them when empty.
    pub flows: Vec<String>,
    /// Make the plan, and change nothing anywhere.
    pub dry_run: bool,
    /// Export these days again, changed or not.
    pub replay: Option<Replay>,
    /// Take over a vault that was written by somebody else, or make one where one should be.
    pub adopt_vault: bool,
    /// Look at what every sink holds when all is done.
    pub survey: bool,
    /// How long to wait for another run to end.
    pub wait_lock: Duration,
}

/// What is to be exported again: a range of days, or the rows without a date.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    /// Which days; `None` for the rows without a date.
    pub days: Option<DayRange>,
    /// Publish also what has the same bytes as what is stored.
    pub force: bool,
    /// Publish also days that have lost half of their rows, or all.
    pub allow_shrink: bool,
}

impl Replay {
    /// Whether it is about this part of a dataset.
    pub(super) fn means(&self, partition: Partition) -> bool {
        match (self.days, partition) {
            (Some(days), Partition::Day(day)) => days.contains(day),
            (Some(days), _) => days == DayRange::ALL,
            (None, other) => other == Partition::Undated,
        }
    }
}
