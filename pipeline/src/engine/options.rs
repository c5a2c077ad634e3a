//! What a run is asked for.

use std::time::Duration;

use crate::partition::DayRange;

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

/// A range of days to be exported again.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    /// Which days.
    pub days: DayRange,
    /// Publish also what has the same bytes as what is stored.
    pub force: bool,
    /// Publish also days that have lost half of their rows, or all.
    pub allow_shrink: bool,
}
