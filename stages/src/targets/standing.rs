//! What stands in a directory that an interrupted restore made, compared with what was saved.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cdrvault_pipeline::entry::{Entry, EntryKind};
use cdrvault_pipeline::error::{Error, Result};
use sha2::{Digest as _, Sha256};

use crate::blocking::CHUNK;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Every entry as it was saved, and nothing else.
    Whole,
    /// Something is missing, was written half or was changed since.
    Differs,
    /// Something that was not saved.
    Foreign(PathBuf),
}

impl Standing {
    /// What cannot be read is not known to be whole.
    pub(super) fn of(place: &Path, entries: &[Entry]) -> Result<Self> {
        let mut there = BTreeMap::new();
        list(place, &mut there)?;
        let mut whole = true;
        let mut named = BTreeSet::new();
        for entry in entries {
            let path = place.join(OsStr::from_bytes(&entry.path.0));
            whole = whole && there.get(&path).is_some_and(|found| is_as_saved(&path, found, entry));
            named.extend(path.ancestors().take_while(|above| *above != place).map(Path::to_owned));
        }
        if let Some(foreign) = there.into_keys().find(|path| !named.contains(path)) {
            return Ok(Self::Foreign(foreign));
        }
        Ok(if whole { Self::Whole } else { Self::Differs })
    }
}

/// Links are not followed.
fn list(directory: &Path, there: &mut BTreeMap<PathBuf, Metadata>) -> Result<()> {
    let failed = |error| Error::io("list", directory, error);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let found = path.symlink_metadata().map_err(failed)?;
        if found.is_dir() {
            list(&path, there)?;
        }
        there.insert(path, found);
    }
    Ok(())
}

fn is_as_saved(path: &Path, found: &Metadata, entry: &Entry) -> bool {
    let owned = !rustix::process::geteuid().is_root() || (found.uid(), found.gid()) == (entry.uid, entry.gid);
    let timed = (found.mtime(), found.mtime_nsec()) == (entry.mtime.0, entry.mtime.1.into());
    let moded = found.mode() & 0o7777 == entry.mode & 0o7777;
    owned
        && timed
        && match &entry.kind {
            EntryKind::Directory => found.is_dir() && moded,
            EntryKind::Symlink { target } => {
                std::fs::read_link(path).is_ok_and(|there| there.as_os_str().as_bytes() == target.0.as_slice())
            }
            EntryKind::File => {
                found.is_file() && moded && found.len() == entry.size && sha256(path).ok() == entry.sha256
            }
        }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}
