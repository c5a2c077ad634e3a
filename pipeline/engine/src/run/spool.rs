//! Where payloads become local files before any sink sees them: one directory for each unit, which a `sealed.json`
//! makes complete. It lies in the first local vault's file system, so that publishing there needs no copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{FORMAT, Manifest};
use cdrvault_format::partition::Unit;
use cdrvault_plugin::sink::Sealed;

const SEAL: &str = "sealed.json";

/// The free space is looked at again after so many bytes.
const SPACE_CHECK: u64 = 64 << 20;

/// The spool of one writer.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    root: PathBuf,
    /// So much room is left free.
    pub min_free: u64,
    /// The [`crate::state::DatabaseState::era`] of each dataset: what was sealed in another one may hold what its
    /// database has lost since.
    pub eras: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Seal {
    manifest: Manifest,
    /// File names by SHA-256.
    bodies: BTreeMap<String, String>,
    #[serde(default)]
    era: u64,
}

impl Spool {
    /// The spool in this directory, which is made.
    pub(super) fn open(root: PathBuf, min_free: u64) -> Result<Self> {
        durable::create_dirs(&root, &How::default())?;
        Ok(Self { root, min_free, eras: BTreeMap::new() })
    }

    /// The directory of a unit, empty: what an earlier run left in it is removed.
    pub(super) fn begin(&self, unit: &Unit) -> Result<PathBuf> {
        self.discard(unit)?;
        self.directory(unit)
    }

    /// The directory of a unit.
    pub(super) fn directory(&self, unit: &Unit) -> Result<PathBuf> {
        let directory = self.path(unit);
        durable::create_dirs(&directory, &How::default())?;
        Ok(directory)
    }

    /// Completes a unit: its bodies, synced already, are named by a `sealed.json`.
    pub(super) fn seal(&self, sealed: &Sealed) -> Result<()> {
        let directory = self.path(&sealed.manifest.unit);
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let bodies = sealed.bodies.iter().filter_map(|(sha256, path)| Some((sha256.clone(), name(path)?))).collect();
        let era = self.era(&sealed.manifest.unit);
        let seal = serde_json::to_vec(&Seal { manifest: sealed.manifest.clone(), bodies, era })
            .map_err(|error| Error::new(Kind::Failed, "cannot write a seal as JSON").with_source(error))?;
        durable::replace(&directory.join(SEAL), &How::default(), |file| file.write_all(&seal))
    }

    /// What an earlier run sealed and did not deliver everywhere, if it is still what it was.
    pub(super) fn find(&self, unit: &Unit) -> Option<Sealed> {
        let directory = self.path(unit);
        let text = durable::read(&directory.join(SEAL)).ok()??;
        let seal: Seal = serde_json::from_slice(&text).ok()?;
        if seal.manifest.unit != *unit || seal.era != self.era(unit) || seal.manifest.format > FORMAT {
            return None;
        }
        let mut bodies = BTreeMap::new();
        for (sha256, name) in seal.bodies {
            let path = directory.join(Path::new(&name).file_name()?);
            let whole = cdrvault_format::hash::hash_file(&path, u64::MAX).ok()?.whole;
            if whole != sha256 {
                tracing::warn!("{} is damaged and is not used", path.display());
                return None;
            }
            bodies.insert(sha256, path);
        }
        Some(Sealed { manifest: seal.manifest.of_today(), bodies })
    }

    /// Removes what there is of a unit, its seal first and durably.
    pub(super) fn discard(&self, unit: &Unit) -> Result<()> {
        let directory = self.path(unit);
        if !directory.exists() {
            return Ok(());
        }
        let seal = directory.join(SEAL);
        if seal.exists() {
            durable::remove(&seal)?;
            durable::sync_dir(&directory)?;
        }
        durable::remove_tree(&directory)
    }

    /// Removes every unit that is not `owed`: what an interrupted run left, or one whose debt was settled otherwise.
    pub(super) fn tidy(&self, owed: impl Fn(&Unit) -> bool) -> Result<()> {
        for dataset in names_in(&self.root)? {
            for partition in names_in(&self.root.join(&dataset))? {
                let keep = partition.parse().is_ok_and(|partition| owed(&Unit::new(dataset.clone(), partition)))
                    && self.root.join(&dataset).join(&partition).join(SEAL).exists();
                if !keep {
                    durable::remove_tree(&self.root.join(&dataset).join(&partition))?;
                }
            }
        }
        Ok(())
    }

    /// An error when less than `min_free` bytes are left.
    pub(super) fn check_space(&self) -> Result<()> {
        check_space(&self.root, self.min_free)
    }

    /// Begins a file, which leaves free what is to stay free.
    pub(super) fn create(&self, path: PathBuf) -> Result<NewFile> {
        self.check_space()?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| Error::io("write", &path, error))?;
        Ok(NewFile { file, path, spool: self.clone(), unchecked: 0 })
    }

    fn era(&self, unit: &Unit) -> u64 {
        self.eras.get(&unit.dataset).copied().unwrap_or_default()
    }

    fn path(&self, unit: &Unit) -> PathBuf {
        self.root.join(&unit.dataset).join(unit.partition.to_string())
    }
}

/// A file of the spool that is being written.
pub(super) struct NewFile {
    file: File,
    path: PathBuf,
    spool: Spool,
    unchecked: u64,
}

impl NewFile {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))?;
        self.unchecked += bytes.len() as u64;
        if self.unchecked >= SPACE_CHECK {
            self.unchecked = 0;
            self.spool.check_space()?;
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("write", &self.path, error))
    }
}

/// An error when the file system of `path` has less than `min_free` bytes left for us.
pub(super) fn check_space(path: &Path, min_free: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(path).map_err(|error| Error::io("look at the free space of", path, error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= min_free {
        return Ok(());
    }
    Err(Error::new(
        Kind::NoSpace,
        format!("{} has {} MiB free, and {} MiB are to stay free", path.display(), free >> 20, min_free >> 20),
    )
    .hint("free some space there, or lower `min-free`; what is not delivered stays owed"))
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", directory, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
