//! What a host remembers of its pipeline between runs. All of it can be thrown away: it costs a full sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::config::Keep;
use cdrvault_format::durable;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::Partition;
use cdrvault_plugin::stage::Server;

const FILE: &str = "state.json";

/// The content of `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct State {
    /// The pipeline whose state it is.
    pub pipeline: Option<String>,
    /// Sinks that were written to, with the ids of their vaults: one that is empty now is an unmounted disk.
    pub vaults: BTreeMap<String, String>,
    /// The `keep` of each sink when it was last pruned; `None` where it had none when it was last written to.
    pub kept: BTreeMap<String, Option<Applied>>,
    /// What is being removed from each sink: a removal that was cut off is finished by the next one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pruning: BTreeMap<String, Vec<Manifest>>,
    /// Sinks whose pruning waits for somebody to say yes, with the `keep` of which that was told.
    pub waiting: BTreeMap<String, Applied>,
    /// When each sink was last verified, as versions before `verified.json` noted it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub verified: BTreeMap<String, VerifiedSink>,
    /// By flow.
    pub flows: BTreeMap<String, FlowState>,
    /// By database: how the last run left it.
    pub databases: BTreeMap<String, DatabaseState>,
}

/// What is remembered of a flow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct FlowState {
    /// Every sweep is a full one until one has begun after this moment.
    pub full_until: Option<Timestamp>,
    /// When the last sweep that went through began.
    pub swept: Option<Timestamp>,
    /// When each day was last compared with the database.
    pub checked: BTreeMap<Date, Date>,
    /// Claimed, and not delivered everywhere: the debt of flows without event tables.
    pub owed: BTreeSet<Partition>,
    /// The database is not as the last run left it: every day is to be read again, whatever its sums say.
    pub again: bool,
}

/// How the last run left a database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DatabaseState {
    /// Its mark; two while it is not known whether the second was written.
    pub marks: BTreeSet<u64>,
    /// The server.
    pub server: Option<Server>,
    /// Another number since each time that the database was not as it was left: what was sealed before is not used.
    pub era: u64,
}

impl State {
    /// Reads it from the state directory; `None` where there is none, or none that can be understood.
    pub fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match durable::read(&path)? {
            Some(text) => Ok(serde_json::from_slice(&text)
                .inspect_err(|error| tracing::warn!("{} is damaged and is rebuilt: {error}", path.display()))
                .ok()),
            None => Ok(None),
        }
    }

    /// Refuses the state of another pipeline: each would take the other's sinks and flows for its own.
    pub fn check_owner(&self, directory: &Path, pipeline: &str) -> Result<()> {
        match &self.pipeline {
            Some(owner) if owner != pipeline => Err(Error::new(
                Kind::Refused,
                format!("{} is the state directory of pipeline `{owner}`, and this one is `{pipeline}`", directory.display()),
            )
            .hint("set `state` to a directory of its own; after a change of the pipeline's name, run once with --adopt-vault")),
            _ => Ok(()),
        }
    }

    /// Writes it to the state directory.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::new(Kind::Failed, "cannot write the state as JSON").with_source(error))?;
        durable::replace(&path(directory), &durable::How::default(), |file| file.write_all(&text))
    }

    /// The part of a flow.
    pub fn flow(&mut self, name: &str) -> &mut FlowState {
        self.flows.entry(name.to_owned()).or_default()
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// A sink that was read again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VerifiedSink {
    /// When.
    pub at: Timestamp,
    /// So many percent of its generations were read.
    pub percent: f64,
    /// What is found and not repaired.
    pub damage: u64,
}

/// The rule of a sink when it was last applied, to know when it gets shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Applied {
    /// Seconds.
    pub superseded: Option<u64>,
    /// Versions.
    pub last: Option<u32>,
}

impl From<Keep> for Applied {
    fn from(keep: Keep) -> Self {
        Self { superseded: keep.superseded.map(|age| age.to_duration().as_secs()), last: keep.last }
    }
}

impl Applied {
    /// Whether this keeps less than `before` in any case.
    pub fn shorter_than(self, before: Self) -> bool {
        // A rule that is not there keeps nothing; it is the others that keep something.
        self.superseded.unwrap_or(0) < before.superseded.unwrap_or(0)
            || self.last.unwrap_or(0) < before.last.unwrap_or(0)
    }
}
