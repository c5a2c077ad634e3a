//! A pipeline as it was loaded: checked, but nothing is connected and no secret resolved.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alerts::Notify;
use super::keep::Keep;
use super::watch::Watch;
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::options::{ByteSize, Problems};
use cdrvault_plugin::registry::{BuildDatabase, BuildSink, BuildSource};
use cdrvault_plugin::stage::Transform;

/// One pipeline file, loaded.
pub struct Pipeline {
    /// Its name, which vaults and event rows carry.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The wall clock of the billing host, where the file names it; see [`Pipeline::wall_clock`].
    pub timezone: Option<TimeZone>,
    /// The directory of the lock, the spool and the run history.
    pub state: PathBuf,
    /// How many units are worked on at a time.
    pub workers: usize,
    /// So much room is left free in the spool and in every vault.
    pub min_free: ByteSize,
    /// In the order of the file.
    pub databases: Vec<DatabaseSpec>,
    /// In the order of the file.
    pub sinks: Vec<SinkSpec>,
    /// In the order of the file; at least one.
    pub flows: Vec<FlowSpec>,
    /// The file for Prometheus's textfile collector.
    pub metrics: Option<PathBuf>,
    /// Who hears of runs.
    pub notify: Option<Notify>,
    /// What of the saved data is an alarm.
    pub watch: Watch,
    /// How what it saves is decoded.
    pub codecs: Codecs,
    /// What is not an error, but hardly meant.
    pub warnings: Problems,
}

impl Pipeline {
    /// The wall clock of the billing host: the file's time zone, or this system's.
    pub fn wall_clock(&self) -> TimeZone {
        self.timezone.clone().unwrap_or_else(TimeZone::system)
    }

    /// The directory that relative paths of the file are relative to.
    pub fn base(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// A flow by its name.
    pub fn flow(&self, name: &str) -> Option<&FlowSpec> {
        self.flows.iter().find(|flow| flow.name == name)
    }

    /// A sink by its name.
    pub fn sink(&self, name: &str) -> Option<&SinkSpec> {
        self.sinks.iter().find(|sink| sink.name == name)
    }

    /// A database by its name.
    pub fn database(&self, name: &str) -> Option<&DatabaseSpec> {
        self.databases.iter().find(|database| database.name == name)
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("databases", &self.databases)
            .field("sinks", &self.sinks)
            .field("flows", &self.flows)
            .finish_non_exhaustive()
    }
}

/// `[database.NAME]`
pub struct DatabaseSpec {
    /// Its name in the file.
    pub name: String,
    /// What opens it.
    pub build: Box<dyn BuildDatabase>,
}

impl fmt::Debug for DatabaseSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.build.identity())
    }
}

/// `[sink.NAME.KIND]`
pub struct SinkSpec {
    /// Its name in the file.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its failure is a warning; it catches up later.
    pub optional: bool,
    /// Which superseded versions stay; all of them by default.
    pub keep: Option<Keep>,
    /// What opens it.
    pub build: Box<dyn BuildSink>,
}

impl fmt::Debug for SinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} = {}", self.name, self.kind, self.build.describe())
    }
}

/// `[flow.NAME]`
pub struct FlowSpec {
    /// Its name, and that of its dataset.
    pub name: String,
    /// The kind of its source.
    pub source_kind: &'static str,
    /// What opens its source.
    pub source: Box<dyn BuildSource>,
    /// What happens on the way, in order. The chain ends in objects.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// Where it goes: indexes into [`Pipeline::sinks`]. At least one is not optional.
    pub sinks: Vec<usize>,
    /// What to do when the table has other columns than the live generation.
    pub on_schema_change: OnSchemaChange,
}

impl fmt::Debug for FlowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transforms: Vec<_> = self.transforms.iter().map(|transform| transform.kind()).collect();
        write!(f, "{} = {} {transforms:?} {:?}", self.name, self.source_kind, self.sinks)
    }
}

/// What to do when the table has other columns than the live generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnSchemaChange {
    /// Go on; old partitions stay as they are, and readable.
    #[default]
    Evolve,
    /// Refuse the partition until somebody has looked.
    Refuse,
}
