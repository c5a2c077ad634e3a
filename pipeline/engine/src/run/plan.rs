//! Which units are exported, and why: a value, which `-n` prints instead of executing it.

use std::collections::BTreeMap;

use serde::Serialize;

use cdrvault_format::partition::{Partition, Unit};
use cdrvault_format::tripwire::Tripwire;

/// What a run is going to do.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// To be read from their sources, in this order.
    pub tasks: Vec<Task>,
    /// Days that the database lost without a word: they are only noted.
    pub gone: Vec<Unit>,
    /// To be copied from one sink to another.
    pub copies: Vec<Copy>,
    /// Where in `tasks` a unit is: a first run has thousands.
    #[serde(skip)]
    index: BTreeMap<Unit, usize>,
}

/// One unit to be exported.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Task {
    /// Which one.
    #[serde(flatten)]
    pub unit: Unit,
    /// Why, at least one reason.
    pub reasons: Vec<String>,
    /// How many rows it has, where the plan knows it already; otherwise how many are saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How many bytes are saved of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its sums in the database, where a sweep asked for them.
    #[serde(skip)]
    pub swept: Option<Tripwire>,
}

/// One generation to be copied between sinks.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Copy {
    /// Which unit.
    #[serde(flatten)]
    pub unit: Unit,
    /// Which generation.
    pub generation: u32,
    /// Where it is; the first of them that holds it whole is copied from.
    pub from: Vec<String>,
    /// Where it lacks.
    pub to: String,
    /// Nothing at all is there of the unit.
    #[serde(skip)]
    pub first: bool,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.gone.is_empty() && self.copies.is_empty()
    }

    /// Adds a reason to a unit's task, which it makes where there is none.
    pub fn want(&mut self, unit: Unit, reason: String, rows: Option<u64>, bytes: Option<u64>) {
        if let Some(task) = self.index.get(&unit).and_then(|at| self.tasks.get_mut(*at)) {
            if !task.reasons.contains(&reason) {
                task.reasons.push(reason);
            }
            return;
        }
        self.index.insert(unit.clone(), self.tasks.len());
        self.tasks.push(Task { unit, reasons: vec![reason], rows, bytes, swept: None });
    }

    /// Remembers what a sweep found of a unit that is to be exported.
    pub(super) fn note_swept(&mut self, unit: &Unit, now: &Tripwire) {
        if let Some(task) = self.index.get(unit).and_then(|at| self.tasks.get_mut(*at)) {
            task.swept = Some(now.clone());
        }
    }

    /// Whether a unit is to be exported.
    pub fn exports(&self, unit: &Unit) -> bool {
        self.index.contains_key(unit)
    }

    /// The tasks by partition, oldest first: the flows of a day on the same database are worked on together.
    pub fn by_partition(&self) -> BTreeMap<Partition, Vec<&Task>> {
        let mut groups: BTreeMap<Partition, Vec<&Task>> = BTreeMap::new();
        for task in &self.tasks {
            groups.entry(task.unit.partition).or_default().push(task);
        }
        groups
    }
}
