//! The main job: plan, claim, snapshot, seal, publish, settle, in the order of the commit protocol.
//!
//! | file | holds |
//! |---|---|
//! | `options` | what a run is asked for |
//! | `opened` | a pipeline whose databases and sinks are connected |
//! | `needs` | whether this machine has what a run needs |
//! | `plan`, `planning` | which units are exported, and why, as a value |
//! | `sweep`, `state` | which days are looked at besides those announced |
//! | `marks` | whether a database is as the last run left it |
//! | `group` | one day of one database: claim, snapshot, read, deliver, settle |
//! | `seal`, `spool` | a payload becomes a checked local object |
//! | `deliver`, `catch_up`, `mirroring` | a sealed generation reaches the sinks |
//! | `prune` | superseded versions go when no rule keeps them |
//! | `survey` | what every sink holds, and how far it lags |
//! | `verified` | what verifications found, until it is mended |
//! | `watch` | what the saved days themselves tell |
//! | `report`, `history` | what happened |

pub mod catch_up;
mod deliver;
mod group;
pub mod history;
mod marks;
mod mirroring;
mod needs;
pub mod opened;
pub mod options;
pub mod plan;
mod planning;
pub mod prune;
pub mod report;
pub(crate) mod retry;
mod run;
mod seal;
pub mod spool;
pub mod state;
pub mod survey;
mod sweep;
mod tap;
pub mod verified;
pub mod watch;

pub use needs::{Need, needs, writable};
pub use opened::Opened;
pub use options::RunOptions;
pub use plan::Plan;
pub use planning::range_text;
pub use report::{Outcome, Report};
pub use retry::Retrying;
pub(crate) use run::open_to_note;
pub use run::{Ran, lock, open, open_to_prune, run};
pub(crate) use seal::hash_file;
