//! What stands in a directory that an interrupted restore made, compared with what was saved.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cdrvault_format::entry::{Entry, EntryKind, RawPath};
use cdrvault_format::error::{Error, Result};
use cdrvault_plugin::notice::Notices;
use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, Mode, OFlags, openat, readlinkat};
use sha2::{Digest as _, Sha256};

use super::finishing::settable;
use crate::blocking::CHUNK;
use crate::files::selection::Selection;
use crate::files::stat::Stat;
use crate::files::walk::{Walk, open_root};
use crate::files::xattrs;

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
        let failed = |errno: rustix::io::Errno| Error::io("read the attributes below", place, errno.into());
        let (everything, notices) = (Selection::new(&[], &[])?, Notices::default());
        let mut walk = Walk::new(open_root(place)?, place, &everything, false, &notices)?;
        let mut wanted: HashMap<&[u8], &Entry> = entries.iter().map(|entry| (entry.path.0.as_slice(), entry)).collect();
        let above: BTreeSet<&[u8]> = wanted.keys().flat_map(|path| directories_above(path)).collect();
        let (mut whole, mut inodes) = (true, HashMap::new());
        while let Some(found) = walk.next()? {
            let path = found.path.0.as_slice();
            let Some(entry) = wanted.remove(path) else {
                if above.contains(path) && found.stat.file_type == FileType::Directory {
                    continue;
                }
                return Ok(Self::Foreign(place.join(OsStr::from_bytes(path))));
            };
            if !whole {
                continue;
            }
            inodes.insert(entry.path.clone(), found.stat.inode);
            let first = entry.linked_to.as_ref().map(|first| inodes.get(first));
            let linked = first.is_none_or(|first| first == Some(&found.stat.inode));
            let directory = walk.directory()?;
            let attributes = xattrs::of_name(directory, found.name(), &found.stat).map_err(failed)?;
            let attributed = attributes.is_some_and(|there| there.kept.iter().eq(settable(entry)));
            whole = linked && attributed && is_as_saved(directory, found.name(), &found.stat, entry);
        }
        whole = whole && wanted.is_empty() && notices.worst().is_none();
        Ok(if whole { Self::Whole } else { Self::Differs })
    }
}

fn directories_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

fn is_as_saved(directory: BorrowedFd<'_>, name: &[u8], found: &Stat, entry: &Entry) -> bool {
    let there = found.entry(RawPath(Vec::new()), entry.kind.clone());
    let owned = !rustix::process::geteuid().is_root() || (there.uid, there.gid) == (entry.uid, entry.gid);
    let moded = there.mode == entry.mode & 0o7777;
    owned
        && there.mtime == entry.mtime
        && match &entry.kind {
            EntryKind::Directory => found.file_type == FileType::Directory && moded,
            EntryKind::Symlink { target } => {
                readlinkat(directory, name, Vec::new()).is_ok_and(|there| there.as_bytes() == target.0.as_slice())
            }
            EntryKind::File => {
                found.file_type == FileType::RegularFile
                    && moded
                    && there.size == entry.size
                    && sha256(directory, name).ok() == entry.sha256
            }
        }
}

fn sha256(directory: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, Mode::empty())?);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}
