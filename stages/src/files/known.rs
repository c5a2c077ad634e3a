//! Which files are those of the generation before, without reading them.
//!
//! A file is taken for unchanged when path, size, mtime, inode and ctime are what they were, **and** its times are older
//! than the moment when that generation began to be read by more than [`MARGIN`]. Without the second rule a file that was
//! written again right after it had been read, in the same tick of the file system's clock and with the same size, would
//! never be seen to have changed (git calls such an entry racily clean).

use cdrvault_format::entry::{Entry, EntryKind};
use cdrvault_format::manifest::{Content, Manifest};

/// In seconds: FAT counts in steps of two, and servers' clocks differ a little.
const MARGIN: i64 = 2;

/// The entries of the generation before.
#[derive(Default)]
pub(super) struct Known<'a> {
    entries: &'a [Entry],
    /// Times from this one on may be of a write that came after the read.
    racy: (i64, u32),
}

impl<'a> Known<'a> {
    /// What a generation holds.
    pub(super) fn new(manifest: &'a Manifest) -> Self {
        let opened = manifest.origin.snapshot;
        let racy = (opened.as_second() - MARGIN, u32::try_from(opened.subsec_nanosecond()).unwrap_or(0));
        match &manifest.content {
            Content::Tree { entries } => Self { entries, racy },
            Content::Object(_) => Self::default(),
        }
    }

    /// Whether nothing was saved before.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How much was saved before.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// `now` with the body of the generation before, if it is that file still.
    pub(super) fn unchanged(&self, now: &Entry) -> Option<Entry> {
        let index = self.entries.binary_search_by(|entry| entry.path.cmp(&now.path)).ok()?;
        let before = self.entries.get(index)?;
        let same = before.kind == EntryKind::File
            && before.size == now.size
            && before.mtime == now.mtime
            && before.seen == now.seen;
        let settled = now.mtime < self.racy && now.seen.as_ref().is_some_and(|seen| seen.ctime < self.racy);
        let stored = before.sha256.is_some() && before.stored.is_some();
        (same && settled && stored).then(|| Entry {
            sha256: before.sha256.clone(),
            stored: before.stored.clone(),
            sparse: before.sparse,
            ..now.clone()
        })
    }
}
