//! What a run needs of this machine besides its databases and sinks, looked at without changing anything.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::spool::check_space;
use crate::opened::Opened;
use cdrvault_format::error::{Error, Kind, Result};

/// One need: what it is, and what was found.
pub type Need = (String, Result<String>);

/// The state directory, and room in the spool and in every vault of this machine.
pub fn needs(opened: &Opened) -> Vec<Need> {
    let state = &opened.pipeline.state;
    let min_free = opened.pipeline.min_free.as_u64();
    let mut needs = vec![("state directory".to_owned(), check_state(state))];
    // As `Opened::spool_root`, for sinks that are not open for writing.
    let mut required = opened.sinks.iter().filter(|open| open.used && !open.optional && open.mirrors.is_none());
    let spool = required.find_map(|open| Some(open.sink.as_ref().ok()?.root()?.to_owned()));
    let spool = spool.unwrap_or_else(|| state.clone());
    needs.push(("spool".to_owned(), check_room(&spool, min_free)));
    for (open, spec) in opened.sinks.iter().zip(&opened.pipeline.sinks).filter(|(open, _)| open.used) {
        let Ok(sink) = &open.sink else { continue };
        let what = format!("sink {}", open.name);
        if let Some(root) = sink.root().filter(|root| **root != *spool) {
            needs.push((what, check_room(root, min_free)));
        } else if open.mirrors.is_some()
            && let Some(directory) = spec.build.place().and_then(|place| place.path())
        {
            needs.push((what, writable(&directory)));
        }
    }
    needs
}

/// Whether files can be made in a directory, or the directory itself.
pub fn writable(directory: &Path) -> Result<String> {
    let there = nearest(directory);
    if !there.is_dir() {
        return Err(
            Error::new(Kind::Config, format!("{} is not a directory", there.display())).hint("name another one")
        );
    }
    access(&there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| Error::io("write into", &there, error.into()))?;
    let made = if there == directory { "can be written" } else { "can be made" };
    Ok(format!("{} {made}", directory.display()))
}

fn check_state(state: &Path) -> Result<String> {
    let found = writable(state)?;
    // An earlier run of another user may have made them.
    for name in ["lock", "history.jsonl", "spool"] {
        let path = state.join(name);
        if path.exists() {
            access(&path, Access::WRITE_OK).map_err(|error| Error::io("write", &path, error.into()))?;
        }
    }
    Ok(found)
}

fn check_room(directory: &Path, min_free: u64) -> Result<String> {
    check_space(&nearest(directory), min_free)?;
    Ok(format!("{} has more than {} MiB free", directory.display(), min_free >> 20))
}

/// The directory itself, or where it is still to be made.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|above| above.symlink_metadata().is_ok());
    there.map_or_else(|| PathBuf::from("."), Path::to_owned)
}
