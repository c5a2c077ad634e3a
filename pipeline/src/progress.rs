//! Who hears how far a run is.

use crate::partition::Unit;

/// Hears of a run's steps; must return at once.
pub trait Progress: Send + Sync {
    /// The plan is made: so many units of each dataset follow.
    fn planned(&self, units: usize);
    /// A unit is in work.
    fn began(&self, unit: &Unit);
    /// Rows, or bytes of files, were read.
    fn read(&self, rows: u64, bytes: u64);
    /// A unit is finished, well or not.
    fn ended(&self, unit: &Unit, failed: bool);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn planned(&self, _: usize) {}
    fn began(&self, _: &Unit) {}
    fn read(&self, _: u64, _: u64) {}
    fn ended(&self, _: &Unit, _: bool) {}
}
