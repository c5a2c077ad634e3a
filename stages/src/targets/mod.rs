//! Where saved content is restored to: databases, CSV files, directories.

mod asterisell;
mod below;
mod csv;
mod directory;
mod finishing;
mod lacking;
mod load_data;
mod names;
mod standing;
mod tree;
mod unfinished;

use std::sync::Arc;

use cdrvault_format::error::Result;
use cdrvault_plugin::registry::TargetPlugin;
use cdrvault_plugin::target::{Target, TargetOptions};

use self::names::path_of;
use crate::database;
use crate::database::sqlite::SqliteTarget;

/// All of them.
pub(crate) fn plugins() -> Vec<TargetPlugin> {
    let database = |scheme, about| TargetPlugin { scheme, about, build: database::target };
    vec![
        database("mysql", "mysql://USER@HOST[:PORT]/DATABASE[?socket=PATH]: the tables of a database, and its dumps"),
        database("mariadb", "the same as mysql"),
        TargetPlugin { scheme: "sqlite", about: "sqlite:FILE: tables in a new SQLite file", build: sqlite },
        TargetPlugin {
            scheme: "csv",
            about: "csv:DIRECTORY: tables as files, one a day, and a script of LOAD DATA for them",
            build: |text, _| Ok(Arc::new(csv::Csv::new(path_of(text)?))),
        },
        TargetPlugin {
            scheme: "csv-asterisell",
            about: "csv-asterisell:DIRECTORY: days as the files that Asterisell's own import reads",
            build: |text, options| Ok(Arc::new(asterisell::Asterisell::new(path_of(text)?, &options.columns)?)),
        },
        TargetPlugin {
            scheme: "dir",
            about: "dir:DIRECTORY: files with their modes, owners and times, and dumps as files",
            build: |text, _| Ok(Arc::new(directory::Directory::new(path_of(text)?))),
        },
    ]
}

fn sqlite(text: &str, _: &TargetOptions) -> Result<Arc<dyn Target>> {
    let path = path_of(text)?;
    Ok(Arc::new(SqliteTarget::new(path)))
}
