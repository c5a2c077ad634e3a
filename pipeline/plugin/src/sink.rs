//! The contract of sinks: places that hold a vault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::payload::ObjectStream;
use cdrvault_format::error::{Error, Result};
use cdrvault_format::index::Index;
use cdrvault_format::manifest::{Manifest, Notes, StoredObject};
use cdrvault_format::partition::{Partition, Unit};

/// Where a vault lies.
#[async_trait]
pub trait Place: Send + Sync {
    /// Where it is, for a person to read, without secrets.
    fn describe(&self) -> String;

    /// The directory that the vault is in, for mirrors of it.
    fn root(&self) -> Option<&Path> {
        None
    }

    /// Where the spool should lie so that publishing here needs no copy.
    fn spool(&self) -> Option<PathBuf> {
        None
    }

    /// Bytes free, where that can be known.
    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// How far the place's clock is ahead of ours, in seconds, where that is known.
    fn clock_offset(&self) -> Option<i64> {
        None
    }

    /// Whether there is a vault by now, so that finding none at the next opening means that it was lost. A mirror is made
    /// by its first flush.
    fn is_made(&self) -> bool {
        true
    }

    /// Whether we may write here, where opening does not try it: by a probe that is removed again, and that the next opening
    /// removes if we are killed. `false` where nothing can be tried without a trace.
    async fn try_write(&self, cx: &Context) -> Result<bool> {
        let _ = cx;
        Ok(true)
    }

    /// Whether we may remove here, as pruning does.
    async fn try_remove(&self, cx: &Context) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Gives the vault's lock back.
    async fn close(&self) {}
}

/// A place that holds a vault.
///
/// Every method may be called again after an error and then converges. Nothing that failed leaves anything visible
/// under a live name. Methods that write are called by one run at a time, which holds the vault's lock; those that
/// read may be called at any time, by anybody.
#[async_trait]
pub trait Vault: Place {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Checks the vault's identity, makes the vault where there is none yet and none is expected, probes what the place
    /// can do, takes the vault's lock and removes what an interrupted run left in the way. With `dry_run` it writes nothing, unless
    /// `expect` asks for a probe and only writing can tell.
    async fn open(&self, cx: &Context, expect: &Expected, dry_run: bool) -> Result<Identity>;

    /// The highest generation of each partition of a dataset, from names alone.
    async fn index(&self, cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Held>>;

    /// The datasets that have a receipt, from any writer.
    async fn datasets(&self, cx: &Context) -> Result<Vec<String>>;

    /// The generations of each partition of a dataset that have a receipt, in order.
    async fn history(&self, cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>>;

    /// The generations of a dataset that must have a receipt, by the index that the vault keeps of them; `None` where it has
    /// none, because an older version wrote it.
    async fn recorded(&self, cx: &Context, dataset: &str) -> Result<Option<Index>> {
        let _ = (cx, dataset);
        Ok(None)
    }

    /// Brings the index of a dataset up to date: what has a receipt now is added. What it names and has no receipt stays.
    async fn record(&self, cx: &Context, dataset: &str) -> Result<()> {
        let _ = (cx, dataset);
        Ok(())
    }

    /// Takes generations out of the index before their receipts are removed, or given up: what it names must be there.
    async fn unrecord(&self, cx: &Context, gone: &[(Unit, u32)]) -> Result<()> {
        let _ = (cx, gone);
        Ok(())
    }

    /// What lies under the live name of a unit, if that is not the object of its newest receipt.
    async fn nameless(&self, cx: &Context, unit: &Unit) -> Result<Option<StoredObject>> {
        let _ = (cx, unit);
        Ok(None)
    }

    /// The live generation of a unit with the state of its object, whose bytes are read and hashed.
    async fn live(&self, cx: &Context, unit: &Unit) -> Result<Live>;

    /// One manifest, or `NotFound`.
    async fn manifest(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest>;

    /// Makes `sealed` the live generation, whole or not at all, if the live one is still `over`; otherwise `Conflict`.
    /// The order of protocol.md: keep the old object, make the new one live, check what is stored, write the receipt.
    /// What is live already, without a receipt, only gets its receipt. The receipt is returned.
    async fn publish(&self, cx: &Context, sealed: &Sealed, over: &Live) -> Result<Manifest>;

    /// The stored objects of one generation, live or kept, their checksums checked while they stream.
    async fn read(&self, cx: &Context, manifest: &Manifest) -> Result<ObjectStream>;

    /// Every file of these datasets, of those that have a receipt, and of whatever else looks like days of a dataset; and
    /// every body. By name: what a listing alone can tell.
    async fn files(&self, cx: &Context, datasets: &BTreeSet<String>) -> Result<BTreeSet<String>>;

    /// Puts the objects of a generation back that are missing or damaged, then its receipt, if that is. A generation
    /// without a receipt gets it only if its object is here: otherwise it was never published, or was removed.
    async fn mend(&self, cx: &Context, sealed: &Sealed) -> Result<()>;

    /// Renames a receipt that cannot be understood and that nobody else has, so that no name of a receipt is left; gives
    /// its new name. Its object stays.
    async fn set_aside(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<String> {
        let _ = (cx, unit, generation);
        Err(Error::failed("it has the receipts of the vault that it mirrors; repair that one"))
    }

    /// Removes a generation that is not live: its receipt, then its object. The bodies of a tree stay; see
    /// [`Vault::remove_body`].
    async fn remove(&self, cx: &Context, manifest: &Manifest) -> Result<()>;

    /// The content-addressed bodies that are stored, with their lengths.
    async fn bodies(&self, cx: &Context) -> Result<BTreeMap<String, u64>>;

    /// Removes a body that no receipt names any more.
    async fn remove_body(&self, cx: &Context, sha256: &str) -> Result<()>;

    /// What is noted of a unit. Where that cannot be understood, every generation is pinned.
    async fn notes(&self, cx: &Context, unit: &Unit) -> Result<Notes>;

    /// Replaces what is noted of a unit.
    async fn put_notes(&self, cx: &Context, unit: &Unit, notes: &Notes) -> Result<()>;

    /// What is noted and cannot be understood: of a unit, or of the vault and its datasets.
    async fn damaged_notes(&self, cx: &Context, datasets: &BTreeSet<String>) -> Result<Vec<(Option<Unit>, String)>> {
        let _ = (cx, datasets);
        Ok(Vec::new())
    }

    /// What it can do beyond that where it copies a vault that lies elsewhere.
    fn mirror(&self) -> Option<&dyn Mirror> {
        None
    }
}

/// A vault that copies one which lies elsewhere: what is published is only noted, and travels later.
#[async_trait]
pub trait Mirror: Vault {
    /// Brings everything published so far to the far end, and returns when the far end has confirmed it. A unit that a
    /// mirror has is settled only after it.
    async fn flush(&self, cx: &Context) -> Result<()>;

    /// Brings what [`Vault::read`] will be asked for here at once, where one transfer is cheaper than many.
    async fn prefetch(&self, cx: &Context, manifests: &[Manifest]) -> Result<()>;

    /// Whether a generation that has its receipt here can still be read. Only a place with `native_history` may have
    /// dropped a superseded one while its receipt stays.
    async fn still_has(&self, cx: &Context, manifest: &Manifest) -> Result<bool>;

    /// From now on the receipts count, too, that were here at this time: a place with `native_history` has them although
    /// they are gone since.
    async fn look_back(&self, cx: &Context, at: jiff::Timestamp) -> Result<()>;

    /// Drops from the history that the place itself keeps what was replaced before this time; what was live at this time
    /// stays. Only for sinks with `native_history`.
    async fn forget_history(&self, cx: &Context, before: jiff::Timestamp) -> Result<()>;
}

/// What a sink can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent abilities of a place, not a state")]
pub struct Capabilities {
    /// Replaces an object only if it still is what we think.
    pub conditional_put: bool,
    /// Old versions cost no space beyond their own.
    pub hard_link: bool,
    /// Keeps old versions by itself.
    pub native_history: bool,
    /// Copies a vault that lies elsewhere: what is published is only noted, and travels with [`Mirror::flush`].
    pub mirror: bool,
    /// Checks what it stored by itself.
    pub checksum: bool,
}

/// What a run expects of a vault before it writes into it.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent expectations, not a state")]
pub struct Expected {
    /// The databases of the pipeline, as their sessions name them.
    pub databases: Vec<String>,
    /// We were here before: a vault without identity is an unmounted disk.
    pub known: bool,
    /// Find out whether we may write there, also in a dry run.
    pub probe_write: bool,
    /// Nothing will be written: whose vault it is does not matter, but there must be one.
    pub reading: bool,
    /// For a mirror: whose vault it is a copy of.
    pub mirrored: Option<Identity>,
    /// `--adopt-vault`: take over a vault of another writer, or make one where one was expected.
    pub adopt: bool,
}

/// The identity of a vault: the content of `vault.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// [`cdrvault_format::manifest::FORMAT`] of the vault.
    pub format: u32,
    /// 32 hex digits, made with the vault.
    pub vault: String,
    /// The pipeline that writes it.
    pub pipeline: String,
    /// The writer, as in [`crate::context::Writer::id`].
    pub writer: String,
    /// What it is a backup of.
    pub databases: Vec<String>,
    /// When it was made.
    pub created: jiff::Timestamp,
}

/// What a sink holds of one partition, from names alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The highest generation that has a receipt.
    pub generation: u32,
    /// Whether the live object is there (not whether it is intact).
    pub object_there: bool,
}

/// The live generation of a unit in one sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// The newest receipt that can be understood.
    pub manifest: Option<Arc<Manifest>>,
    /// What lies under the live name.
    pub object: LiveObject,
}

impl Live {
    /// Nothing was ever published.
    pub const NOTHING: Self = Self { manifest: None, object: LiveObject::Missing };

    /// The receipt, if the object is what the receipt says.
    pub fn intact(&self) -> Option<&Arc<Manifest>> {
        self.manifest.as_ref().filter(|_| self.object == LiveObject::Intact)
    }

    /// The generation of the newest receipt, 0 where there is none.
    pub fn generation(&self) -> u32 {
        match self.object {
            LiveObject::Unknown { generation } => generation,
            _ => self.manifest.as_ref().map_or(0, |manifest| manifest.generation),
        }
    }
}

/// What lies under a live name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveObject {
    /// Nothing.
    Missing,
    /// The bytes that the receipt names.
    Intact,
    /// Nobody knows what it should be: the newest receipt, of this generation, is damaged.
    Unknown {
        /// The number is used up.
        generation: u32,
    },
    /// Other bytes: damage, a foreign hand, or a run that ended between commit and receipt.
    Other {
        /// Their SHA-256, in hex.
        sha256: String,
    },
}

/// A generation in the spool, complete and checked, ready to be published anywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// Without `received` and `replaced`.
    pub manifest: Manifest,
    /// The local files with the stored bodies, by SHA-256 in hex. Bodies that every sink holds already are not in it.
    pub bodies: BTreeMap<String, PathBuf>,
}
