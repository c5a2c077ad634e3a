//! The directory, and how files in it are made and read.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use sha2::{Digest as _, Sha256};

use crate::vault::Seen;

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) how: How,
    /// Whether hard links work; probed when the vault is opened.
    link: AtomicBool,
}

impl Place {
    pub(super) fn new(root: PathBuf, how: How) -> Self {
        // Sealed files are adopted by hard link; the spool is in the same file system.
        Self { root, how, link: AtomicBool::new(true) }
    }

    /// Where a name of [`layout`] is, if no symbolic link lies on the way to it: somebody could have put one there to
    /// make us write, or read, somewhere else. The last part may be a link, which is replaced or refused, not followed.
    pub(super) fn at(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        let mut part = self.root.clone();
        let above = Path::new(name).parent().into_iter().flat_map(Path::components);
        for component in above {
            part.push(component);
            match std::fs::symlink_metadata(&part) {
                Ok(found) if found.file_type().is_symlink() => {
                    return Err(Error::new(
                        Kind::Refused,
                        format!("{} is a symbolic link inside the vault", part.display()),
                    )
                    .hint("a vault has none; see who made it, and remove it"));
                }
                Ok(_) => {}
                Err(error) if is_absent(&error) => break,
                Err(error) => return Err(Error::io("look at", &part, error)),
            }
        }
        Ok(path)
    }

    /// The same, with the directories above it.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.at(name)?;
        if let Some(above) = path.parent() {
            durable::create_dirs(above, &self.how)?;
        }
        Ok(path)
    }

    pub(super) fn links(&self) -> bool {
        self.link.load(Ordering::Relaxed)
    }

    pub(super) fn probe_links(&self) -> Result<()> {
        let links = durable::can_link(&self.at(layout::PRIVATE)?.join(""))?;
        self.link.store(links, Ordering::Relaxed);
        Ok(())
    }

    /// Mirrors compare size and whole seconds: a new file must be later than the old one, or they do not see it.
    pub(super) fn how_later_than(&self, path: &Path) -> How {
        let now = SystemTime::now();
        let old = std::fs::symlink_metadata(path).and_then(|found| found.modified());
        How { modified: Some(old.map_or(now, |old| now.max(old + Duration::from_secs(1)))), ..self.how }
    }

    /// Every regular file below a directory. What is not valid UTF-8, or still being written, is not ours to see.
    pub(super) fn tree(&self, directory: &str) -> Result<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        let mut left = vec![directory.to_owned()];
        while let Some(directory) = left.pop() {
            let path = self.at(&format!("{directory}/x"))?;
            let path = path.parent().unwrap_or(&self.root);
            let failed = |error| Error::io("list", path, error);
            let entries = match std::fs::read_dir(path) {
                Ok(entries) => entries,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let kind = entry.file_type().map_err(failed)?;
                let full = format!("{directory}/{name}");
                if kind.is_dir() {
                    left.push(full);
                } else if kind.is_file() && !durable::is_temporary(&name) {
                    match entry.metadata() {
                        Ok(metadata) => drop(found.insert(full, metadata.len())),
                        Err(error) if is_absent(&error) => {}
                        Err(error) => return Err(Error::io("look at", &entry.path(), error)),
                    }
                }
            }
        }
        Ok(found)
    }

    pub(super) fn length(&self, name: &str) -> Result<Option<u64>> {
        let path = self.at(name)?;
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Err(Error::new(Kind::Refused, format!("{} is not a regular file", path.display()))
                .hint("the vault holds files only; see who put it there, and remove it")),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io("look at", &path, error)),
        }
    }

    pub(super) fn look(&self, name: &str) -> Result<Option<Seen>> {
        match self.length(name)? {
            None => Ok(None),
            Some(_) => Ok(Some(Seen { sha256: hash(&self.at(name)?)?, tag: None })),
        }
    }
}

/// There is no such file, nor a directory that it could be in.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

pub(super) fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// SHA-256 of a file, which is not a link.
pub(super) fn hash(path: &Path) -> Result<String> {
    let failed = |error| Error::io("read", path, error);
    let mut file = durable::open(path)?.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Receipts of large trees have some hundred megabytes at most; anything larger is not ours.
const SMALL: u64 = 1 << 30;

pub(super) fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(file) = durable::open(path)? else { return Ok(None) };
    let mut text = Vec::new();
    file.take(SMALL).read_to_end(&mut text).map_err(|error| Error::io("read", path, error))?;
    Ok(Some(text))
}

/// The names in a directory that are UTF-8; others are not ours. Empty where there is none.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io("list", directory, error);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
