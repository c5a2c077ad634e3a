//! The pipeline file: one TOML file that names databases, sinks and flows.
//!
//! [`load`] is pure: no file, no network, no clock, no secret is touched, and all errors of a file are found at once,
//! each with its place and what to write instead ([`Problems`]). [`open`] reads the file first.
//! A stage sees its own part of the file as a [`Section`](cdrvault_plugin::options::Section) and turns it into a struct of options; that struct is also
//! its documentation ([`options_of`](cdrvault_plugin::options::options_of)) and its JSON schema ([`schema`]).

mod alerts;
mod chain;
mod file;
mod flow;
mod header;
mod keep;
mod kind;
mod load;
mod name;
mod pipeline;
pub(crate) mod places;
mod schema;
mod sink;
mod syntax;
mod table;
mod watch;

use std::path::Path;

pub use alerts::{Notify, NotifyOn};
pub use file::open;
pub use keep::Keep;
pub use pipeline::{DatabaseSpec, FlowSpec, OnSchemaChange, Pipeline, SinkSpec};
pub use schema::schema;
pub use sink::SinkOptions;
pub use watch::{Percent, Watch};

use cdrvault_plugin::options::Problems;
use cdrvault_plugin::registry::Registry;

/// Loads the text of a pipeline file. Relative paths in it are relative to the directory of `path`.
pub fn load(path: &Path, text: &str, registry: &Registry) -> Result<Pipeline, Problems> {
    let base = path.parent().unwrap_or(Path::new(""));
    load::load(&load::Input { path, base, text, exposed: false }, registry)
}
