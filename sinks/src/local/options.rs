//! `[sink.NAME.local]` in the pipeline file.

use std::path::PathBuf;
use std::sync::Arc;

use cdrvault_format::durable::How;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::location::Location;
use cdrvault_plugin::options::{FilePath, Mode, Section, schema_of};
use cdrvault_plugin::registry::{Around, BuildSink, Plugin};
use cdrvault_plugin::sink::Vault;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Local;
use crate::vault::StoredVault;

/// See [`super`].
pub(crate) fn plugin() -> Plugin<dyn BuildSink> {
    Plugin {
        kind: "local",
        about: "a vault in a directory, on a disk or a mounted share",
        details: "Every write is synced to the disk before it counts. Superseded objects are kept by hard link where the \
                  file system can, else as copies. A vault knows which pipeline writes it: one that is missing (an unmounted \
                  disk) or somebody else's is refused until `run --adopt-vault`.",
        schema: schema_of::<Options>,
        parse,
    }
}

/// A vault in a directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The directory. It is made if the one above it is there.
    path: FilePath,
    /// Permission bits of files, as `"0640"`; directories get the `x` that goes with each `r`.
    #[serde(default = "private")]
    mode: Mode,
    /// The group that files and directories get, by name or number: who may query them.
    #[serde(default)]
    group: Option<String>,
}

fn private() -> Mode {
    Mode::new(0o600)
}

struct BuildLocal {
    path: PathBuf,
    mode: u32,
    group: Option<String>,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn BuildSink>> {
    let options: Options = section.options()?;
    Some(Box::new(BuildLocal { path: options.path.into_inner(), mode: options.mode.bits(), group: options.group }))
}

impl BuildSink for BuildLocal {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn is_directory(&self) -> bool {
        true
    }

    fn place(&self) -> Option<Location> {
        Some(Location::directory(&self.path))
    }

    fn build(&self, _around: &Around) -> Result<Arc<dyn Vault>> {
        let group = self.group.as_deref().map(group_number).transpose()?;
        let how = How { mode: Some(self.mode), group, modified: None };
        Ok(Arc::new(StoredVault::new(Local::new(self.path.clone(), how))))
    }
}

/// The number of a group, from /etc/group (group(5)), or the number that is written.
fn group_number(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find_map(|fields| (fields.first() == Some(&name)).then(|| fields.get(2)?.parse().ok()).flatten())
        .ok_or_else(|| {
            Error::new(Kind::Config, format!("there is no group `{name}` on this machine"))
                .hint("make it, or name one of /etc/group, or write its number")
        })
}
