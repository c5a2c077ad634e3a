//! What a restore has written so far, so that one which was interrupted goes on, and what others wrote is left alone.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Result};
use cdrvault_format::manifest::Manifest;

/// The file in the directory that is restored into. It goes when everything is there.
const NAME: &str = ".cdrvault-unfinished";

/// See the module.
pub(super) struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    pub(super) fn of(directory: &Path) -> Self {
        Self { path: directory.join(NAME) }
    }

    fn lines(&self) -> Result<Option<String>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &self.path, error)),
        }
    }

    /// Whether a restore into it was interrupted.
    pub(super) fn is_there(&self) -> Result<bool> {
        Ok(self.lines()?.is_some())
    }

    /// Whether this very content was written whole, or was about to get its name. It may have been changed since.
    pub(super) fn has(&self, manifest: &Manifest) -> Result<bool> {
        let wanted = line(manifest);
        Ok(self.lines()?.is_some_and(|lines| lines.lines().any(|line| line == wanted)))
    }

    /// Begins, where it did not yet.
    pub(super) fn begin(&self) -> Result<()> {
        if self.is_there()? { Ok(()) } else { durable::replace(&self.path, &How::private(), |_| Ok(())) }
    }

    /// Remembers that this content was written whole.
    pub(super) fn add(&self, manifest: &Manifest) -> Result<()> {
        if self.has(manifest)? {
            return Ok(());
        }
        let mut lines = self.lines()?.unwrap_or_default();
        lines += &line(manifest);
        lines.push('\n');
        durable::replace(&self.path, &How::private(), |file| file.write_all(lines.as_bytes()))
    }

    /// Everything is there.
    pub(super) fn end(&self) -> Result<()> {
        durable::remove(&self.path)
    }
}

fn line(manifest: &Manifest) -> String {
    format!("{} g{:04} {}", manifest.unit, manifest.generation, manifest.fingerprint.full)
}
