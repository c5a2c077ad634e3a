//! Files come back with their modes, owners and times.
//!
//! A snapshot is made in a new directory that nobody else may enter, and gets its name when everything is in it. No
//! path of it is trusted: each is checked when the receipt is read, and no link is ever followed, because links are made
//! last.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::durable::{self, How};
use cdrvault_pipeline::entry::{Entry, EntryKind};
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::manifest::{Content, Holding, Manifest};
use cdrvault_pipeline::payload::{Body, ByteStream, Object, ObjectStream, Payload, file_stream};
use cdrvault_pipeline::target::{Restored, Target};
use futures::TryStreamExt as _;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};
use sha2::{Digest as _, Sha256};

use super::standing::Standing;
use super::unfinished::Unfinished;

/// What the names of directories that are being written begin with.
const MARK: &str = ".cdrvault-tmp-";

/// See the module.
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn place_of(&self, manifest: &Manifest) -> PathBuf {
        self.root.join(&manifest.unit.dataset)
    }
}

#[async_trait]
impl Target for Directory {
    fn describe(&self) -> String {
        format!("dir:{}", self.root.display())
    }

    fn takes(&self, holding: Holding) -> bool {
        holding != Holding::Rows
    }

    async fn check(&self, _cx: &Context, wanted: &[Manifest]) -> Result<Vec<String>> {
        let log = Unfinished::of(&self.root);
        for manifest in wanted {
            let place = self.place_of(manifest);
            if log.has(manifest)? {
                continue;
            }
            let empty = std::fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_none());
            if place.symlink_metadata().is_ok() && !empty {
                return Err(Error::new(Kind::Refused, format!("{} is there already, and not empty", place.display()))
                    .hint("name another directory: what is there is never overwritten"));
            }
        }
        let owners =
            wanted.iter().any(|manifest| manifest.holds() == Holding::Tree) && !rustix::process::geteuid().is_root();
        Ok(owners
            .then(|| "without root, everything will belong to the account that restores".to_owned())
            .into_iter()
            .collect())
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        let Payload::Objects(objects) = payload else {
            return Err(Error::new(Kind::Refused, "rows are no files"));
        };
        let (log, place) = (Unfinished::of(&self.root), self.place_of(manifest));
        let mut again = log.has(manifest)? && place.symlink_metadata().is_ok();
        if again && let Content::Tree { entries } = &manifest.content {
            match tokio::task::block_in_place(|| Standing::of(&place, entries))? {
                Standing::Whole => return Ok(Restored::Same),
                Standing::Differs => {}
                Standing::Foreign(path) => {
                    return Err(Error::new(Kind::Refused, format!("{} was not saved", path.display())).hint(
                        "move it away: what an interrupted restore has made is made again where it is not whole",
                    ));
                }
            }
        }
        durable::create_dirs(&self.root, &How::default())?;
        remove_leftovers(&self.root)?;
        let unfinished = tempfile::Builder::new()
            .prefix(MARK)
            .tempdir_in(&self.root)
            .map_err(|error| Error::io("make a directory in", &self.root, error))?;
        let failed = |error| Error::io("lock", unfinished.path(), error);
        let at_work = File::open(unfinished.path()).map_err(failed)?;
        at_work.lock().map_err(failed)?;
        let made = unfinished.path().join("made");
        make_directory(&made)?;
        write(cx, manifest, objects, &made).await?;
        // First: between the two it is in the list and not there, and is made again.
        log.add(manifest)?;
        again &= std::fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_some());
        if again {
            tokio::task::block_in_place(|| durable::remove_tree(&place))?;
        }
        // It is empty, or not there.
        match std::fs::remove_dir(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("replace", &place, error));
            }
            _ => {}
        }
        // The mode of the saved directory itself is not known: nobody else may enter until somebody says so.
        durable::rename(&made, &place)?;
        Ok(Restored::Written)
    }

    async fn finish(&self, _cx: &Context, _restored: &[Manifest], complete: bool) -> Result<Vec<String>> {
        if complete {
            Unfinished::of(&self.root).end()?;
        }
        Ok(Vec::new())
    }
}

/// Directories of restores that were killed. One at work holds a lock on its own.
fn remove_leftovers(root: &Path) -> Result<()> {
    let failed = |error| Error::io("list", root, error);
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let ours = entry.file_name().as_bytes().starts_with(MARK.as_bytes());
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let idle = File::open(entry.path()).is_ok_and(|directory| directory.try_lock().is_ok());
            if idle {
                tokio::task::block_in_place(|| durable::remove_tree(&entry.path()))?;
            }
        }
    }
    Ok(())
}

/// Directories and files first, then links, then what the writing itself would have changed: modes, owners and times, the
/// deepest first.
async fn write(cx: &Context, manifest: &Manifest, mut objects: ObjectStream, made: &Path) -> Result<()> {
    let mut entries = Vec::new();
    while let Some(Object { entry, body }) = cx.unless_cancelled(objects.try_next()).await? {
        let path = made.join(OsStr::from_bytes(&entry.path.0));
        if let Some(above) = path.parent().filter(|above| *above != made) {
            make_directories(made, above)?;
        }
        match &entry.kind {
            EntryKind::Directory => make_directories(made, &path)?,
            EntryKind::Symlink { .. } => {}
            EntryKind::File => {
                let bytes = match body {
                    Body::Stream(bytes) => bytes,
                    Body::File(path) => file_stream(&path)?,
                    Body::None | Body::Unchanged | Body::Withdrawn => {
                        return Err(Error::new(Kind::Damaged, format!("`{}` has no body", entry.path.display())));
                    }
                };
                write_file(cx, manifest, bytes, &path, &entry).await?;
            }
        }
        entries.push((path, entry));
    }
    if manifest.holds() != Holding::Tree {
        return Ok(());
    }
    for (path, entry) in &entries {
        if let EntryKind::Symlink { target } = &entry.kind {
            std::os::unix::fs::symlink(OsStr::from_bytes(&target.0), path)
                .map_err(|error| Error::io("make the link", path, error))?;
        }
    }
    entries.sort_by(|(a, _), (b, _)| b.cmp(a));
    entries.iter().try_for_each(|(path, entry)| finish(path, entry))
}

fn make_directories(made: &Path, path: &Path) -> Result<()> {
    let below = path.strip_prefix(made).map_err(|_| Error::failed("a path leads out of the target"))?;
    let mut at = made.to_owned();
    for part in below.components() {
        at.push(part);
        if !at.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            make_directory(&at)?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(|error| Error::io("make the directory", path, error))
}

async fn write_file(
    cx: &Context,
    manifest: &Manifest,
    mut bytes: ByteStream,
    path: &Path,
    entry: &Entry,
) -> Result<()> {
    let failed = |error| Error::io("write", path, error);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let (mut hash, mut length) = (Sha256::new(), 0);
    while let Some(chunk) = cx.unless_cancelled(bytes.try_next()).await? {
        tokio::task::block_in_place(|| {
            hash.update(&chunk);
            file.write_all(&chunk)
        })
        .map_err(failed)?;
        length += chunk.len() as u64;
        cx.progress.read(&manifest.unit, 0, chunk.len() as u64);
    }
    let tree = manifest.holds() == Holding::Tree;
    if tree && (length != entry.size || entry.sha256 != Some(hex::encode(hash.finalize()))) {
        return Err(Error::new(
            Kind::Damaged,
            format!("`{}` decodes to other bytes than were saved", entry.path.display()),
        ));
    }
    tokio::task::block_in_place(|| file.sync_all()).map_err(failed)
}

fn finish(path: &Path, entry: &Entry) -> Result<()> {
    let failed = |doing: &'static str| move |error: rustix::io::Errno| Error::io(doing, path, error.into());
    if rustix::process::geteuid().is_root() {
        let (owner, group) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(CWD, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of"))?;
    }
    // After the owner, whose change takes set-user-id away. A link has no mode of its own.
    if !matches!(entry.kind, EntryKind::Symlink { .. }) {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(entry.mode & 0o7777), AtFlags::empty())
            .map_err(failed("set the mode of"))?;
    }
    let (seconds, nanoseconds) = entry.mtime;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the time of"))
}
