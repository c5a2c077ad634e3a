//! The databases that sources read: one session for all flows of a pipeline on the same one.

mod jobs;
pub(crate) mod mysql;
mod options;
pub(crate) mod reading;
pub(crate) mod sqlite;
pub(crate) mod tables;

pub(crate) use options::{plugins, target};
