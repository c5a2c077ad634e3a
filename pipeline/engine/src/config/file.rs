//! Reading a pipeline file.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::load::{Input, load};
use super::pipeline::Pipeline;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::options::mask::Masked;
use cdrvault_plugin::options::{Problem, Problems, Severity};
use cdrvault_plugin::registry::Registry;

/// A pipeline file of this size was meant to be something else.
const LARGEST: u64 = 1 << 20;

/// Reads and loads a pipeline file. A secret that stands in the file itself is a problem when others can read the file.
/// What is wrong with the content is in the error: [`Problems::of`].
pub fn open(path: &Path, registry: &Registry) -> Result<Pipeline> {
    let read = |error| Error::io("read the pipeline file", path, error);
    let metadata = std::fs::metadata(path).map_err(read)?;
    if metadata.is_dir() {
        return Err(
            Error::new(Kind::Config, format!("{} is a directory", path.display())).hint("name the pipeline file in it")
        );
    }
    if metadata.len() > LARGEST {
        return Err(Error::new(Kind::Config, format!("{} is too large for a pipeline file", path.display())));
    }
    let bytes = std::fs::read(path).map_err(read)?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            return Err(not_utf8(path, &String::from_utf8_lossy(error.as_bytes()), at).into());
        }
    };
    let whole = std::path::absolute(path).map_err(read)?;
    let input = Input {
        path,
        base: whole.parent().unwrap_or(&whole),
        text: &text,
        exposed: metadata.permissions().mode() & 0o044 != 0,
    };
    Ok(load(&input, registry)?)
}

fn not_utf8(path: &Path, text: &str, at: usize) -> Problems {
    let problem = Problem::new(at..at + char::REPLACEMENT_CHARACTER.len_utf8(), "the file is not UTF-8");
    let problem = problem.label("this byte is not part of a character").help("save the file as UTF-8");
    Problems::new(path, text, Masked::new(text, &[]), Severity::Error, vec![problem], &BTreeSet::new())
}
