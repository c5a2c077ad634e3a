//! The names of places and tables.

use std::path::PathBuf;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Holding, Manifest};

/// What follows the scheme; `//` before an absolute path is allowed.
pub(super) fn path_of(text: &str) -> Result<PathBuf> {
    let (_, rest) = text.split_once(':').unwrap_or_default();
    let path = rest.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
    if path.is_empty() || path.contains('\0') {
        return Err(Error::new(Kind::Config, format!("`{}` names no path", text.escape_debug())));
    }
    std::path::absolute(path).map_err(|error| Error::io("find", path.as_ref(), error))
}

/// The table of a generation's rows.
pub(super) fn table_of(manifest: &Manifest) -> Result<&str> {
    let table = manifest.table.as_ref().filter(|_| manifest.holds() == Holding::Rows);
    let named = table
        .filter(|table| !table.name.is_empty() && !table.name.contains(['/', '\0']) && !table.name.starts_with('.'));
    named
        .map(|table| table.name.as_str())
        .ok_or_else(|| Error::new(Kind::Refused, format!("the receipt of {} does not name its table", manifest.unit)))
}
