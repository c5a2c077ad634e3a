//! Superseded versions go when no rule keeps them: first a plan, then its execution.

mod execution;
mod planning;

pub use execution::{Pruned, execute};
pub(crate) use planning::check_clocks;
pub use planning::{PrunePlan, SinkPlan, Version, kept_whole, plan, release};
