//! The main job: plan, claim, snapshot, seal, publish, settle, in the order of the commit protocol.
//!
//! | file | holds |
//! |---|---|
//! | `job` | one run, from its plan to its report |
//! | `needs` | whether this machine has what a run needs |
//! | `plan`, `planning`, `sweep` | which units are exported, and why, as a value; which days are looked at besides those announced |
//! | `marks` | whether a database is as the last run left it |
//! | `group` | one day of one database: claim, snapshot, read, deliver, settle |
//! | `seal`, `spool`, `tap` | a payload becomes a checked local object |
//! | `deliver`, `catch_up`, `mirroring` | a sealed generation reaches the sinks |

mod catch_up;
mod deliver;
mod group;
mod job;
mod marks;
mod mirroring;
mod needs;
mod plan;
mod planning;
mod seal;
mod spool;
mod sweep;
mod tap;

pub use job::{Ran, run};
pub use needs::{Need, needs, writable};
pub use plan::Plan;
