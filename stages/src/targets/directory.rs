//! Files come back with their modes, owners, times and attributes.
//!
//! A snapshot is made in a new directory that nobody else may enter, and gets its name when everything is in it. No
//! path of it is trusted: each is checked when the receipt is read, and no link is ever followed, because links are made
//! last.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Content, Holding, Manifest};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::Payload;
use cdrvault_plugin::target::{Restored, Target};

use super::below::Below;
use super::lacking::Lacking;
use super::standing::Standing;
use super::tree;
use super::unfinished::Unfinished;

/// What the names of directories that are being written begin with.
const MARK: &str = ".cdrvault-tmp-";

/// See the module.
pub(super) struct Directory {
    root: PathBuf,
    /// What was not restored as it was saved, by dataset.
    lacking: Mutex<BTreeMap<String, Lacking>>,
}

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, lacking: Mutex::default() }
    }

    fn known_lacking(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Lacking>> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner)
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
            .then(|| {
                "without root, everything will belong to the account that restores, and capabilities and trusted \
                 attributes are left out"
                    .to_owned()
            })
            .into_iter()
            .collect())
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        let Payload::Objects(objects) = payload else {
            return Err(Error::new(Kind::Refused, "the directory target takes files, not rows"));
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
        let lacking = tree::write(cx, manifest, objects, &mut Below::make(&made, &place)?).await?;
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
        if !lacking.is_empty() {
            self.known_lacking().insert(manifest.unit.dataset.clone(), lacking);
        }
        Ok(Restored::Written)
    }

    async fn finish(&self, _cx: &Context, _restored: &[Manifest], complete: bool) -> Result<Vec<String>> {
        // Where something is missing, the same restore again makes it anew.
        if complete && self.known_lacking().is_empty() {
            Unfinished::of(&self.root).end()?;
        }
        Ok(Vec::new())
    }

    fn lacking(&self) -> Vec<(String, Error)> {
        let lacking = std::mem::take(&mut *self.known_lacking());
        let errors = |(dataset, lacking): (String, Lacking)| {
            lacking.into_errors().into_iter().map(move |error| (dataset.clone(), error))
        };
        lacking.into_iter().flat_map(errors).collect()
    }
}

/// Directories of restores that were killed. One in progress holds a lock on its own.
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
