//! A saved tree, or a dump, is written into a new directory.
//!
//! What cannot be made of one entry is told, and the others go on; what would fail alike for all of them ends the work.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use cdrvault_format::entry::{Entry, EntryKind};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Holding, Manifest};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Body, ByteStream, Object, ObjectStream, file_stream};
use futures::TryStreamExt as _;
use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, symlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::below::Below;
use super::finishing;
use super::lacking::{Failed, Lacking};

/// An entry that is there, and still has to get its owner, mode and times.
struct Written {
    entry: Entry,
    /// It is another name of one that gets them anyway.
    linked: bool,
}

/// Directories and files first, then links, then what the writing itself would have changed, the deepest first.
pub(super) async fn write(
    cx: &Context,
    manifest: &Manifest,
    mut objects: ObjectStream,
    below: &mut Below,
) -> Result<Lacking> {
    let (mut written, mut lacking) = (Vec::new(), Lacking::default());
    while let Some(Object { entry, body }) = cx.unless_cancelled(objects.try_next()).await? {
        match one(cx, manifest, body, below, &entry, &written, &mut lacking).await {
            Ok(linked) => written.push(Written { entry, linked }),
            Err(Failed::Entry(error)) => lacking.add(error),
            Err(Failed::All(error)) => return Err(error),
        }
    }
    if manifest.holds() != Holding::Tree {
        return match lacking.into_errors().into_iter().next() {
            Some(error) => Err(error),
            None => Ok(Lacking::default()),
        };
    }
    written.retain(|one| match &one.entry.kind {
        EntryKind::Symlink { target } => {
            let path = &one.entry.path.0;
            let made = below.parent(path, true).and_then(|(at, name)| symlinkat(target.0.as_slice(), at, name));
            made.map_err(|errno| lacking.add(below.error("make the link", path, errno))).is_ok()
        }
        _ => true,
    });
    written.sort_by(|a, b| b.entry.path.cmp(&a.entry.path));
    for one in written.iter().filter(|one| !one.linked) {
        match finishing::finish(below, &one.entry, &mut lacking) {
            Err(Failed::All(error)) => return Err(error),
            Err(Failed::Entry(error)) => lacking.add(error),
            Ok(()) => {}
        }
    }
    Ok(lacking)
}

/// Whether it was made by linking it to what is there.
async fn one(
    cx: &Context,
    manifest: &Manifest,
    body: Body,
    below: &mut Below,
    entry: &Entry,
    written: &[Written],
    lacking: &mut Lacking,
) -> Result<bool, Failed> {
    let path = entry.path.0.as_slice();
    match &entry.kind {
        EntryKind::Directory => {
            let made = below.make_directory(path);
            made.map_err(|errno| Failed::of(errno, below.error("make the directory", path, errno)))?;
            Ok(false)
        }
        EntryKind::Symlink { .. } => Ok(false),
        EntryKind::File => {
            if let Some(first) = first_name(entry, written) {
                match link(below, &first.path.0, path) {
                    Ok(()) => return Ok(true),
                    Err(errno) => lacking.add(
                        below
                            .error("make another name of a file as", path, errno)
                            .hint("it is restored as a file of its own"),
                    ),
                }
            }
            let bytes = match body {
                Body::Stream(bytes) => bytes,
                Body::File(path) => file_stream(&path).map_err(Failed::All)?,
                Body::None | Body::Unchanged | Body::Withdrawn => {
                    let error = Error::new(Kind::Damaged, format!("`{}` has no body", entry.path.display()));
                    return Err(Failed::Entry(error));
                }
            };
            let done = write_file(cx, manifest, bytes, below, entry).await;
            if done.is_err() {
                below.remove(path);
            }
            done.map(|()| false)
        }
    }
}

/// The entry that this one is another name of, provided that it has the same content: it may have changed while the tree
/// was saved.
fn first_name<'w>(entry: &Entry, written: &'w [Written]) -> Option<&'w Entry> {
    let first = entry.linked_to.as_ref()?;
    let index = written.binary_search_by(|one| one.entry.path.cmp(first)).ok()?;
    let first = &written.get(index)?.entry;
    let same = first.kind == EntryKind::File && (first.size, &first.sha256) == (entry.size, &entry.sha256);
    same.then_some(first)
}

/// No link stands in the way: they are made last.
fn link(below: &mut Below, first: &[u8], path: &[u8]) -> Result<(), Errno> {
    let (directory, name) = below.parent(first, false)?;
    let (directory, name) = (rustix::io::fcntl_dupfd_cloexec(directory, 0)?, name.to_vec());
    let (there, new) = below.parent(path, true)?;
    linkat(&directory, name.as_slice(), there, new, AtFlags::empty())
}

async fn write_file(
    cx: &Context,
    manifest: &Manifest,
    mut bytes: ByteStream,
    below: &mut Below,
    entry: &Entry,
) -> Result<(), Failed> {
    let path = entry.path.0.as_slice();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = below.parent(path, true).and_then(|(at, name)| openat(at, name, flags, Mode::RUSR | Mode::WUSR));
    let file = opened.map_err(|errno| Failed::of(errno, below.error("write", path, errno)))?;
    let mut file = Filling { file: File::from(file), sparse: entry.sparse, length: 0 };
    let mut hash = Sha256::new();
    loop {
        let chunk = match cx.unless_cancelled(bytes.try_next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) if error.kind() == Kind::Damaged => {
                return Err(Failed::Entry(error.at(entry.path.display())));
            }
            Err(error) => return Err(Failed::All(error)),
        };
        tokio::task::block_in_place(|| {
            hash.update(&chunk);
            file.write(&chunk)
        })
        .map_err(|error| Failed::of_io(error, |error| below.io_error("write", path, error)))?;
        cx.progress.read(&manifest.unit, 0, chunk.len() as u64);
    }
    let tree = manifest.holds() == Holding::Tree;
    if tree && (file.length != entry.size || entry.sha256 != Some(hex::encode(hash.finalize()))) {
        let message = format!("`{}` decodes to other bytes than were saved", entry.path.display());
        return Err(Failed::Entry(Error::new(Kind::Damaged, message)));
    }
    tokio::task::block_in_place(|| file.end())
        .map_err(|error| Failed::of_io(error, |error| below.io_error("write", path, error)))
}

/// Blocks of this size become holes where they hold zeros alone.
const BLOCK: u64 = 4096;

/// A file that is being filled.
struct Filling {
    file: File,
    sparse: bool,
    length: u64,
}

impl Filling {
    fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        if !self.sparse {
            self.length += bytes.len() as u64;
            return self.file.write_all(bytes);
        }
        while !bytes.is_empty() {
            let room = usize::try_from(BLOCK - self.length % BLOCK).unwrap_or(usize::MAX);
            let (block, rest) = bytes.split_at(room.min(bytes.len()));
            if block.iter().all(|byte| *byte == 0) {
                self.file.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap_or(i64::MAX)))?;
            } else {
                self.file.write_all(block)?;
            }
            self.length += block.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// It may end in a hole.
    fn end(&self) -> std::io::Result<()> {
        if self.sparse {
            self.file.set_len(self.length)?;
        }
        self.file.sync_all()
    }
}
