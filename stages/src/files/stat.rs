//! What the file system knows of a name.

use std::os::fd::AsFd;

use cdrvault_pipeline::entry::{Entry, EntryKind, RawPath, Seen};
use rustix::fs::{AtFlags, FileType, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;

/// One file, link or directory, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) file_type: FileType,
    /// Of the file system.
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) ctime: (i64, u32),
}

impl Stat {
    /// Of a name in a directory; a link is looked at, not followed.
    pub(super) fn of_name(directory: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        // An automount point would otherwise be mounted by looking at it.
        Self::ask(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
    }

    /// Of what is open.
    pub(super) fn of_open(file: impl AsFd) -> Result<Self, Errno> {
        Self::ask(file, b"", AtFlags::EMPTY_PATH)
    }

    fn ask(directory: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Self, Errno> {
        let found = statx(directory, name, flags, StatxFlags::BASIC_STATS)?;
        let mode = u32::from(found.stx_mode);
        Ok(Self {
            file_type: FileType::from_raw_mode(mode),
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            mode: mode & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            size: found.stx_size,
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
        })
    }

    /// The entry of a snapshot; the size is that of a body only where there is one.
    pub(super) fn entry(&self, path: RawPath, kind: EntryKind) -> Entry {
        let file = kind == EntryKind::File;
        Entry {
            path,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            size: if file { self.size } else { 0 },
            sha256: None,
            stored: None,
            seen: file.then_some(Seen { inode: self.inode, ctime: self.ctime }),
        }
    }

    /// Whether nobody wrote to the file between two looks at it.
    pub(super) fn held_still(&self, later: &Self) -> bool {
        (self.size, self.mtime, self.ctime) == (later.size, later.mtime, later.ctime)
    }
}

fn time(stamp: StatxTimestamp) -> (i64, u32) {
    (stamp.tv_sec, stamp.tv_nsec)
}
