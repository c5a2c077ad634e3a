//! The pipeline file, what a run does with it, and the way back. It knows no database and no store.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the pipeline file |
//! | [`options`] | what a run is asked for |
//! | [`opening`], [`opened`] | a pipeline whose databases and sinks are connected, under the locks that its use wants |
//! | [`run`] | the main job, in the order of the commit protocol |
//! | [`prune`] | superseded versions go when no rule keeps them |
//! | [`recovery`] | restore, verify, repair |
//! | [`state`], [`report`], [`history`], [`verified`] | what is remembered of all that |
//! | [`survey`], [`watch`] | what every sink holds, and what the saved days themselves tell |
//! | [`retry`] | an error that may pass is tried again |

pub mod config;
pub mod history;
pub mod opened;
pub mod opening;
pub mod options;
pub mod prune;
pub mod recovery;
pub mod report;
pub mod retry;
pub mod run;
pub mod state;
pub mod survey;
pub mod verified;
pub mod watch;
