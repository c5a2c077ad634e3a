//! Places below an open directory.
//!
//! Each directory on the way is opened relative to the one above it and never through a link, so that neither the length
//! of a path matters nor who meddles with the names: nothing leads out of the directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cdrvault_format::error::Error;
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fremovexattr, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::files::xattrs::{ACCESS_LIST, DEFAULT_LIST};

/// A directory as a place to go on from.
const WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mode of what is not finished yet.
const PRIVATE: Mode = Mode::RWXU;

/// See the module.
pub(super) struct Below {
    root: OwnedFd,
    /// The directory that was opened last: the next one is most often the same, or below it.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Where it will be, for messages.
    shown: PathBuf,
}

impl Below {
    /// Makes a directory that nobody else may enter. `shown` is the name that it will get.
    pub(super) fn make(path: &Path, shown: &Path) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::io("make the directory", path, errno.into());
        mkdirat(CWD, path, PRIVATE).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        // A list that the directory above hands down would let others in, and go on to all that is made here.
        for list in [DEFAULT_LIST, ACCESS_LIST] {
            match fremovexattr(&root, list) {
                Err(errno) if !matches!(errno, Errno::NODATA | Errno::OPNOTSUPP) => return Err(failed(errno)),
                _ => {}
            }
        }
        Ok(Self { root, last: None, shown: shown.to_owned() })
    }

    /// The directory that holds this entry, and its name there. `make` makes what is missing of the way.
    pub(super) fn parent<'n>(&mut self, path: &'n [u8], make: bool) -> Result<(BorrowedFd<'_>, &'n [u8]), Errno> {
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => Ok((self.directory(&path[..at], make)?, &path[at + 1..])),
            None => Ok((self.root.as_fd(), path)),
        }
    }

    /// Makes a directory, and those above it that are missing.
    pub(super) fn make_directory(&mut self, path: &[u8]) -> Result<(), Errno> {
        self.directory(path, true).map(drop)
    }

    fn directory(&mut self, path: &[u8], make: bool) -> Result<BorrowedFd<'_>, Errno> {
        let (mut at, mut rest) = (None, path);
        if let Some((last, directory)) = self.last.take() {
            if last == path {
                return Ok(self.last.insert((last, directory)).1.as_fd());
            }
            if let Some(below) = path.strip_prefix(last.as_slice()).and_then(|rest| rest.strip_prefix(b"/")) {
                (at, rest) = (Some(directory), below);
            }
        }
        for part in rest.split(|byte| *byte == b'/') {
            let above = at.as_ref().unwrap_or(&self.root);
            let next = match openat(above, part, WAY, Mode::empty()) {
                Err(Errno::NOENT) if make => {
                    mkdirat(above, part, PRIVATE)?;
                    openat(above, part, WAY, Mode::empty())?
                }
                next => next?,
            };
            at = Some(next);
        }
        match at {
            Some(directory) => Ok(self.last.insert((path.to_vec(), directory)).1.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// Removes a file that was not finished.
    pub(super) fn remove(&mut self, path: &[u8]) {
        if let Ok((directory, name)) = self.parent(path, false) {
            let _ = unlinkat(directory, name, AtFlags::empty());
        }
    }

    /// An error of one entry.
    pub(super) fn error(&self, doing: &str, path: &[u8], errno: Errno) -> Error {
        self.io_error(doing, path, errno.into())
    }

    /// An error of one entry.
    pub(super) fn io_error(&self, doing: &str, path: &[u8], error: std::io::Error) -> Error {
        Error::io(doing, &self.shown.join(OsStr::from_bytes(path)), error)
    }
}
