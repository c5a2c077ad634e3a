//! Where saved content is restored to: databases, CSV files, directories.

mod asterisell;
mod below;
mod csv;
mod directory;
mod finishing;
mod lacking;
mod load_data;
mod standing;
mod tree;
mod unfinished;

use std::path::PathBuf;
use std::sync::Arc;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Holding, Manifest};
use cdrvault_plugin::registry::TargetPlugin;
use cdrvault_plugin::target::{Target, TargetOptions};

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

/// What follows the scheme; `//` before an absolute path is allowed.
fn path_of(text: &str) -> Result<PathBuf> {
    let (_, rest) = text.split_once(':').unwrap_or_default();
    let path = rest.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
    if path.is_empty() || path.contains('\0') {
        return Err(Error::new(Kind::Config, format!("`{}` names no path", text.escape_debug())));
    }
    std::path::absolute(path).map_err(|error| Error::io("find", path.as_ref(), error))
}

/// The table of a generation's rows.
fn table_of(manifest: &Manifest) -> Result<&str> {
    let table = manifest.table.as_ref().filter(|_| manifest.holds() == Holding::Rows);
    let named = table
        .filter(|table| !table.name.is_empty() && !table.name.contains(['/', '\0']) && !table.name.starts_with('.'));
    named
        .map(|table| table.name.as_str())
        .ok_or_else(|| Error::new(Kind::Refused, format!("the receipt of {} does not name its table", manifest.unit)))
}
