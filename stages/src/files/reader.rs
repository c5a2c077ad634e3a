//! Reads what the walk finds.
//!
//! Nothing holds a tree still while it is read. A file counts as read when size, mtime and ctime are after the read
//! what they were before, and exactly `size` bytes came. Otherwise it is read again, from the same open file, so that
//! a file which was renamed or deleted meanwhile is still saved whole. When it does not hold still, the last read is
//! kept with a warning: of a log that only grows this is its beginning, up to the size it had.
//!
//! Each read goes straight to the consumer, who forgets the one before (see [`ObjectStream`]). Copying a file first, to
//! look whether it held still, would cost a second copy of every new file, and room for the largest; sending it again
//! costs something only for files that do change, and no memory.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry as Slot, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cdrvault_format::entry::{Entry, EntryKind, RawPath};
use cdrvault_format::error::{Error, Result};
use cdrvault_format::manifest::Manifest;
use cdrvault_plugin::notice::Notices;
use cdrvault_plugin::payload::{Body, Object, ObjectStream};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, openat, readlinkat, seek};
use rustix::io::{Errno, pread};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::known::Known;
use super::selection::Selection;
use super::stat::Stat;
use super::walk::{Found, Walk, open_root};
use super::xattrs::{self, Attributes};
use crate::blocking::{self, CHUNK, Inputs, Outputs};

/// How often a file that changed is read again, or a name that changed is looked at again.
const AGAIN: u32 = 3;

/// Before a file is read again, to let a burst of writes pass; twice and three times as long the next times.
const PAUSE: Duration = Duration::from_millis(100);

/// Chunks of a body on their way.
const IN_FLIGHT: usize = 4;

/// What is to be read, and who hears of it.
pub(super) struct Job {
    pub(super) path: PathBuf,
    pub(super) leave_out: Vec<PathBuf>,
    pub(super) selection: Arc<Selection>,
    pub(super) one_file_system: bool,
    pub(super) previous: Option<Arc<Manifest>>,
    pub(super) notices: Notices,
    pub(super) cancel: CancellationToken,
}

/// The tree as objects, read on a thread of its own.
pub(super) fn objects(job: Job) -> ObjectStream {
    let nothing: BoxStream<'static, Result<()>> = stream::empty().boxed();
    blocking::work(nothing, move |_: Inputs<()>, outputs| read(&job, outputs))
}

fn read(job: &Job, outputs: &Outputs<Object>) -> Result<()> {
    let root = open_root(&job.path)?;
    let known = job.previous.as_deref().map(Known::new).unwrap_or_default();
    let with_attributes = xattrs::can_be_read(root.as_fd());
    if !with_attributes {
        job.notices
            .problem("/proc is not mounted: extended attributes, access control lists and capabilities are not saved");
    }
    let (first_names, not_kept) = (HashMap::new(), BTreeMap::new());
    let mut reader = Reader { job, outputs, known, with_attributes, first_names, not_kept, sent: false };
    let mut walk = Walk::new(root, &job.path, &job.selection, job.one_file_system, &job.notices)?;
    walk.leave_out(&job.leave_out);
    while let Some(found) = walk.next()? {
        reader.save(&walk, found)?;
    }
    reader.check()?;
    for idle in job.selection.idle(&job.path).into_iter().filter(|_| reader.sent) {
        let message = format!("`{}` of `{}` matches nothing in {}", idle.pattern, idle.option, job.path.display());
        if idle.odd { job.notices.warning(message) } else { job.notices.note(message) }
    }
    reader.say_what_is_not_kept();
    if !reader.sent && !reader.known.is_empty() {
        job.notices.warning(format!(
            "{} is empty, and {} entries of it were saved before: is something not mounted?",
            job.path.display(),
            reader.known.len()
        ));
    }
    Ok(())
}

struct Reader<'a> {
    job: &'a Job,
    outputs: &'a Outputs<Object>,
    known: Known<'a>,
    with_attributes: bool,
    /// Of files that have more than one: the first that was saved, by device and inode.
    first_names: HashMap<((u32, u32), u64), RawPath>,
    /// What of the entries is not saved: where first, and how often.
    not_kept: BTreeMap<String, (String, u64)>,
    sent: bool,
}

/// How one read of a file went.
enum Poured {
    /// So many bytes as the file has.
    Whole,
    /// Fewer, or there are more.
    Otherwise,
    /// The consumer wants no more of it.
    Unwanted,
    Failed(Errno),
}

impl Reader<'_> {
    fn save(&mut self, walk: &Walk<'_>, found: Found) -> Result<()> {
        let (directory, mut stat) = (walk.directory()?, found.stat);
        for _ in 0..=AGAIN {
            self.check()?;
            match stat.file_type {
                FileType::RegularFile => {
                    let entry = stat.entry(found.path.clone(), EntryKind::File);
                    if let Some(entry) = self.known.unchanged(&entry)
                        && let Some(attributes) = self.attributes(walk, &found, &stat)?
                    {
                        let mut entry = self.complete(walk, entry, &stat, attributes);
                        // An older version did not look. Where all of it is allocated, there is nothing to see.
                        if !entry.sparse && stat.allocated < stat.size {
                            let opened = open(directory, found.name()).ok().flatten();
                            entry.sparse = opened.is_some_and(|(file, stat)| has_holes(&file, stat.size));
                        }
                        self.remember_name(&stat, &entry.path);
                        return self.send(entry, Body::Unchanged);
                    }
                    match open(directory, found.name()) {
                        Ok(Some((file, stat))) => return self.file(walk, &file, stat, &found.path),
                        Ok(None) => {}
                        Err(errno) => return walk.cannot("open", &found.path.0, errno),
                    }
                }
                FileType::Symlink => match readlinkat(directory, found.name(), Vec::new()) {
                    Ok(target) => {
                        if let Some(attributes) = self.attributes(walk, &found, &stat)? {
                            let target = RawPath(target.into_bytes());
                            let entry = stat.entry(found.path, EntryKind::Symlink { target });
                            let entry = self.complete(walk, entry, &stat, attributes);
                            return self.send(entry, Body::None);
                        }
                    }
                    Err(Errno::INVAL) => {}
                    Err(errno) => return walk.cannot("read the link", &found.path.0, errno),
                },
                FileType::Directory if found.stat.file_type == FileType::Directory => {
                    if let Some(attributes) = self.attributes(walk, &found, &stat)? {
                        let entry = stat.entry(found.path, EntryKind::Directory);
                        let entry = self.complete(walk, entry, &stat, attributes);
                        return self.send(entry, Body::None);
                    }
                }
                // The walk did not see a directory there, so nothing of it would follow.
                FileType::Directory => break,
                other => {
                    let place = walk.place(&found.path.0);
                    self.job.notices.note(format!("{place} is {}, which is not saved", name_of(other)));
                    return Ok(());
                }
            }
            // Another kind of thing has taken the name since it was looked at.
            stat = match Stat::of_name(directory, found.name()) {
                Ok(stat) => stat,
                Err(errno) => return walk.cannot("look at", &found.path.0, errno),
            };
        }
        let place = walk.place(&found.path.0);
        self.job.notices.problem(format!("{place} became something else while the tree was read; it is not saved"));
        Ok(())
    }

    fn file(&mut self, walk: &Walk<'_>, file: &OwnedFd, mut before: Stat, path: &RawPath) -> Result<()> {
        for attempt in 0..=AGAIN {
            let (to, body) = mpsc::channel(IN_FLIGHT);
            let attributes = if self.with_attributes { xattrs::of_open(file) } else { Ok(Attributes::default()) };
            let attributes = attributes.unwrap_or_else(|errno| {
                self.cannot_read_attributes(walk, path, errno);
                Attributes::default()
            });
            let entry = before.entry(path.clone(), EntryKind::File);
            let mut entry = self.complete(walk, entry, &before, attributes);
            entry.sparse = has_holes(file, before.size);
            self.send(entry, Body::Stream(stream_of(body)))?;
            let poured = self.pour(file, before.size, &to)?;
            // Ends the body: its reader must not wait for a pause or for the next object.
            drop(to);
            let after = Stat::of_open(file);
            match (poured, after) {
                (Poured::Unwanted, _) => return Ok(()),
                (Poured::Failed(errno), _) | (_, Err(errno)) => {
                    self.send(before.entry(path.clone(), EntryKind::File), Body::Withdrawn)?;
                    return walk.cannot("read", &path.0, errno);
                }
                (Poured::Whole, Ok(after)) if before.held_still(&after) => {
                    self.remember_name(&before, path);
                    return Ok(());
                }
                (_, Ok(_)) if attempt == AGAIN => {}
                (_, Ok(_)) => {
                    std::thread::sleep(PAUSE * (attempt + 1));
                    before = match Stat::of_open(file) {
                        Ok(now) => now,
                        Err(errno) => {
                            self.send(before.entry(path.clone(), EntryKind::File), Body::Withdrawn)?;
                            return walk.cannot("read", &path.0, errno);
                        }
                    };
                }
            }
        }
        let place = walk.place(&path.0);
        let times = AGAIN + 1;
        self.job
            .notices
            .warning(format!("{place} changed each of the {times} times it was read; the last read is saved"));
        Ok(())
    }

    /// `None` where another thing has taken the name.
    fn attributes(&self, walk: &Walk<'_>, found: &Found, stat: &Stat) -> Result<Option<Attributes>> {
        if !self.with_attributes {
            return Ok(Some(Attributes::default()));
        }
        match xattrs::of_name(walk.directory()?, found.name(), stat) {
            Ok(attributes) => Ok(attributes),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => {
                self.cannot_read_attributes(walk, &found.path, errno);
                Ok(Some(Attributes::default()))
            }
        }
    }

    fn cannot_read_attributes(&self, walk: &Walk<'_>, path: &RawPath, errno: Errno) {
        let place = walk.place(&path.0);
        self.job
            .notices
            .problem(format!("cannot read the extended attributes of {place}: {errno}; it is saved without them"));
    }

    /// The entry with all that is known besides its stat, and a word of what is not kept.
    fn complete(&mut self, walk: &Walk<'_>, mut entry: Entry, stat: &Stat, attributes: Attributes) -> Entry {
        entry.xattrs = attributes.kept;
        if entry.kind == EntryKind::File && stat.names > 1 {
            let first = self.first_names.get(&(stat.device, stat.inode));
            entry.linked_to = first.filter(|first| **first != entry.path).cloned();
        }
        let flags =
            [(stat.flags.immutable, "the flag `immutable`"), (stat.flags.append_only, "the flag `append only`")];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
        let others = attributes.left_out.iter().map(|name| format!("the attribute `{}`", name.display()));
        for what in flags.chain(others) {
            let (_, count) = self.not_kept.entry(what).or_insert_with(|| (walk.place(&entry.path.0), 0));
            *count += 1;
        }
        entry
    }

    fn remember_name(&mut self, stat: &Stat, path: &RawPath) {
        if stat.names > 1
            && let Slot::Vacant(first) = self.first_names.entry((stat.device, stat.inode))
        {
            first.insert(path.clone());
        }
    }

    fn say_what_is_not_kept(&self) {
        for (what, (place, count)) in &self.not_kept {
            let more = if *count > 1 { format!(", and of {} more", count - 1) } else { String::new() };
            self.job.notices.note(format!("{what} of {place}{more} is not saved"));
        }
    }

    /// Sends no more than `size` bytes: what has no end, or grows faster than it is read, must not fill the vault.
    fn pour(&self, file: &OwnedFd, size: u64, to: &mpsc::Sender<Bytes>) -> Result<Poured> {
        let mut at = 0;
        loop {
            self.check()?;
            // At the end, one byte to see whether it is the end. (Files of /proc say that they have no size.)
            let want = usize::try_from(size - at).map_or(CHUNK, |left| left.clamp(1, CHUNK));
            let mut chunk = vec![0; want];
            let count = match pread(file, chunk.as_mut_slice(), at) {
                Ok(0) if at == size => return Ok(Poured::Whole),
                Ok(0) => return Ok(Poured::Otherwise),
                Ok(_) if at == size => return Ok(Poured::Otherwise),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Ok(Poured::Failed(errno)),
            };
            chunk.truncate(count);
            at += count as u64;
            if to.blocking_send(Bytes::from(chunk)).is_err() {
                return Ok(Poured::Unwanted);
            }
        }
    }

    fn send(&mut self, entry: Entry, body: Body) -> Result<()> {
        self.sent = true;
        self.outputs.send(Object { entry, body })
    }

    fn check(&self) -> Result<()> {
        if self.job.cancel.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// Opens a regular file, or gives `None` where there is none any more. It never waits: a pipe that took the file's name
/// would block an open without `NONBLOCK` until somebody writes to it.
fn open(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<(OwnedFd, Stat)>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        // A link, or a socket.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let stat = Stat::of_open(&file)?;
    Ok((stat.file_type == FileType::RegularFile).then_some((file, stat)))
}

/// Where a file system cannot tell, there are none.
fn has_holes(file: &OwnedFd, size: u64) -> bool {
    size > 0 && seek(file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < size)
}

fn stream_of(body: mpsc::Receiver<Bytes>) -> BoxStream<'static, Result<Bytes>> {
    stream::unfold(body, |mut body| async move { body.recv().await.map(|chunk| (Ok(chunk), body)) }).boxed()
}

fn name_of(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of no kind that can be saved",
    }
}
