//! The pipeline file: one TOML file that names databases, sinks and flows.
//!
//! [`load`] is pure: no file, no network, no clock, no secret is touched, and all errors of a file are found at once,
//! each with its place and what to write instead ([`Problems`]). [`open`] reads the file first.
//! A stage sees its own part of the file as a [`Section`] and turns it into a struct of options; that struct is also
//! its documentation ([`options_of`]) and its JSON schema ([`schema`]).

mod age;
mod alerts;
mod chain;
mod command;
mod day;
mod decode;
mod draft;
mod explained;
mod fault;
mod file;
mod flow;
mod glob;
mod header;
mod kind;
mod known;
mod load;
mod mask;
mod mode;
mod name;
mod nearest;
mod options;
mod path;
mod pipeline;
pub(crate) mod places;
mod problem;
mod reference;
mod resolve;
mod schema;
mod secret;
mod section;
mod sink;
mod size;
mod syntax;
mod table;
mod variables;
mod watch;

use std::path::Path;

pub use age::Age;
pub use alerts::{Notify, NotifyOn};
pub use command::Command;
pub use day::Day;
pub use explained::Explained;
pub use file::open;
pub use glob::Glob;
pub use mask::secret_in_url;
pub use mode::Mode;
pub use nearest::nearest;
pub use options::{OptionDoc, options_of};
pub use path::FilePath;
pub use pipeline::{DatabaseSpec, FlowSpec, OnSchemaChange, Pipeline, SinkSpec};
pub use problem::{Problem, Problems, Severity};
pub use reference::Reference;
pub use schema::{schema, schema_of};
pub use secret::Secret;
pub use section::Section;
pub use sink::{Keep, SinkOptions};
pub use size::ByteSize;
pub use watch::{Percent, Watch};

use crate::plugin::Registry;

/// Loads the text of a pipeline file. Relative paths in it are relative to the directory of `path`.
pub fn load(path: &Path, text: &str, registry: &Registry) -> Result<Pipeline, Problems> {
    let base = path.parent().unwrap_or(Path::new(""));
    load::load(&load::Input { path, base, text, exposed: false }, registry)
}
