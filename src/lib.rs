//! cdrvault keeps the call records of a VoIP billing system safe and small.
//!
//! The command line: one file for each verb, and what they share. The engine is in `cdrvault-engine`, the stages and
//! the sinks in crates of their own; only [`registry`] joins them.

mod bare;
pub mod cli;
mod completions;
mod connect;
mod days;
mod demo;
mod exit;
mod forget;
pub mod generator;
mod globals;
mod history;
mod init;
mod locate;
mod man;
mod metrics;
mod notify;
mod output;
mod progress;
mod prune;
mod registry;
mod replay;
mod report;
mod restore;
mod run;
mod schema;
mod session;
mod snapshots;
mod stages;
mod status;
mod summary;
mod validate;
mod verify;

pub use registry::registry;
