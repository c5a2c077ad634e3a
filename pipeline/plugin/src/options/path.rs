//! Paths in the pipeline file.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A path of the pipeline file. A relative one is relative to the directory of the file, never to wherever the command
/// happens to run (cron starts it elsewhere): the loader has joined it already.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FilePath(PathBuf);

/// The newtype name by which the loader knows that a string is a path.
pub(super) const MARKER: &str = "$cdrvault::FilePath";

impl FilePath {
    /// The path itself.
    pub fn into_inner(self) -> PathBuf {
        self.0
    }
}

impl Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for FilePath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(MARKER, PathVisitor)
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = FilePath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path in quotes")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<FilePath, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FilePath, E> {
        self.visit_bytes(text.as_bytes())
    }

    // The loader's form: the directory that it joined need not be UTF-8.
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<FilePath, E> {
        Ok(FilePath(PathBuf::from(OsStr::from_bytes(bytes))))
    }
}

impl JsonSchema for FilePath {
    fn schema_name() -> Cow<'static, str> {
        "FilePath".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "path", "minLength": 1 })
    }
}
