//! The types of options, and [`Section`]: the part of a pipeline file that a stage reads.
//!
//! A stage turns its section into a struct of options; that struct is also its documentation ([`options_of`]) and its
//! JSON schema ([`schema_of`]). All problems of a file are found at once, each with its place and what to write instead.

mod age;
mod command;
mod day;
pub mod decode;
mod docs;
pub mod draft;
pub mod explained;
mod fault;
mod glob;
pub mod known;
pub mod mask;
mod mode;
pub mod nearest;
mod path;
mod problem;
mod reference;
mod resolve;
mod schema;
pub mod secret;
pub mod section;
mod size;
mod variables;

pub use age::Age;
pub use command::Command;
pub use day::Day;
pub use docs::{OptionDoc, options_of};
pub use explained::Explained;
pub use glob::Glob;
pub use mask::secret_in_url;
pub use mode::Mode;
pub use nearest::nearest;
pub use path::FilePath;
pub use problem::{Problem, Problems, Severity};
pub use reference::Reference;
pub use schema::schema_of;
pub use secret::Secret;
pub use section::Section;
pub use size::ByteSize;
