//! Who hears how far a run is.

use std::collections::BTreeMap;

use cdrvault_format::partition::Unit;

/// Hears of the steps of a run, a restore or a verification; must return at once.
pub trait Progress: Send + Sync {
    /// The plan is made: so many units of each dataset follow.
    fn planned(&self, units: &BTreeMap<String, u64>);
    /// A unit is in work.
    fn began(&self, unit: &Unit);
    /// Rows, or bytes of files, of a unit went through.
    fn read(&self, unit: &Unit, rows: u64, bytes: u64);
    /// A unit is finished, well or not.
    fn ended(&self, unit: &Unit, failed: bool);
}

/// How many units of each dataset there are.
pub fn by_dataset<'a>(units: impl Iterator<Item = &'a Unit>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for unit in units {
        *counts.entry(unit.dataset.clone()).or_default() += 1;
    }
    counts
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn planned(&self, _: &BTreeMap<String, u64>) {}
    fn began(&self, _: &Unit) {}
    fn read(&self, _: &Unit, _: u64, _: u64) {}
    fn ended(&self, _: &Unit, _: bool) {}
}
