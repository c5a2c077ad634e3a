//! What the file system knows of a name.

use std::os::fd::AsFd;

use cdrvault_format::entry::{Entry, EntryKind, RawPath, Seen};
use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;

/// One file, link or directory, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) file_type: FileType,
    /// Of the file system.
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    /// How many names it has.
    pub(crate) names: u32,
    /// Bytes that it takes on the disk.
    pub(crate) allocated: u64,
    /// `chattr +i` or `+a`.
    pub(crate) flags: Flags,
    mode: u32,
    uid: u32,
    gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
}

/// What nobody may do to it, root included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    pub(crate) immutable: bool,
    pub(crate) append_only: bool,
}

impl Stat {
    /// Of a name in a directory; a link is looked at, not followed.
    pub(crate) fn of_name(directory: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        // An automount point would otherwise be mounted by looking at it.
        Self::ask(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
    }

    /// Of what is open.
    pub(crate) fn of_open(file: impl AsFd) -> Result<Self, Errno> {
        Self::ask(file, b"", AtFlags::EMPTY_PATH)
    }

    fn ask(directory: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Self, Errno> {
        let found = statx(directory, name, flags, StatxFlags::BASIC_STATS)?;
        let mode = u32::from(found.stx_mode);
        Ok(Self {
            file_type: FileType::from_raw_mode(mode),
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            names: found.stx_nlink,
            // In units of 512 bytes, whatever the file system's own.
            allocated: found.stx_blocks.saturating_mul(512),
            flags: Flags {
                immutable: found.stx_attributes.contains(StatxAttributes::IMMUTABLE),
                append_only: found.stx_attributes.contains(StatxAttributes::APPEND),
            },
            mode: mode & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            size: found.stx_size,
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
        })
    }

    /// The entry of a snapshot; the size is that of a body only where there is one.
    pub(crate) fn entry(&self, path: RawPath, kind: EntryKind) -> Entry {
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
            xattrs: Vec::new(),
            sparse: false,
            linked_to: None,
            stored: None,
            seen: file.then_some(Seen { inode: self.inode, ctime: self.ctime }),
        }
    }

    /// Whether nobody wrote to the file between two looks at it.
    pub(crate) fn held_still(&self, later: &Self) -> bool {
        (self.size, self.mtime, self.ctime) == (later.size, later.mtime, later.ctime)
    }
}

fn time(stamp: StatxTimestamp) -> (i64, u32) {
    (stamp.tv_sec, stamp.tv_nsec)
}
