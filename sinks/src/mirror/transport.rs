//! What a way to a far end has to be able to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use async_trait::async_trait;
use cdrvault_format::error::{Error, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::Capabilities;

/// How names and bytes get to the far end and back.
#[async_trait]
pub(crate) trait Transport: Send + Sync + 'static {
    fn describe(&self) -> String;

    fn capabilities(&self) -> Capabilities;

    /// Repairs what an interrupted transfer left, where [`Found::interrupted`] says so. Only before a run that writes.
    async fn heal(&self, cx: &Context) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Whether, before the transfer that was cut off, a file had the bytes there that it has in this directory; `None`
    /// where that cannot be found out. As long as it is cut off, nothing can be fetched.
    async fn was_same(&self, cx: &Context, root: &Path, name: &str) -> Result<Option<bool>> {
        let _ = (cx, root, name);
        Ok(None)
    }

    /// Files that an interrupted transfer left, to be removed.
    fn leftovers(&self, listing: &Listing) -> Vec<String> {
        let _ = listing;
        Vec::new()
    }

    /// What is there.
    async fn list(&self, cx: &Context) -> Result<Found>;

    /// When the states of its history were made, in seconds since 1970 and in order; the last one is what is there now.
    async fn sessions(&self, cx: &Context) -> Result<Vec<i64>> {
        let _ = cx;
        Ok(Vec::new())
    }

    /// Every file that was there after one of its sessions.
    async fn list_at(&self, cx: &Context, session: i64) -> Result<Listing> {
        let _ = (cx, session);
        Ok(Listing::new())
    }

    /// Brings files into a local directory, which is empty, under their names: as they are, or as they were after a
    /// session.
    async fn fetch(&self, cx: &Context, names: &[String], into: &Path, at: Option<i64>) -> Result<()>;

    /// Brings files to the far end, and returns when it has confirmed that it holds the very bytes.
    async fn send(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()>;

    /// The same for files that are damaged there, although it may not know.
    async fn mend(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()> {
        self.send(cx, root, parcel).await
    }

    /// Brings small files that lie in another directory, each of which ends with a checksum of its own.
    async fn send_small(&self, cx: &Context, root: &Path, names: &[String]) -> Result<()> {
        let _ = (cx, root, names);
        Err(Error::failed("it takes whole sessions only"))
    }

    /// Whether we may write there, by a file that is removed again and counts as one of [`Transport::leftovers`]; `false`
    /// where that cannot be tried without a trace.
    async fn try_write(&self, cx: &Context, listing: &Listing) -> Result<bool> {
        let _ = (cx, listing);
        Ok(false)
    }

    /// Removes files there.
    async fn remove(&self, cx: &Context, names: &[String]) -> Result<()>;

    /// See [`cdrvault_plugin::sink::Vault::clock_offset`].
    fn clock_offset(&self) -> Option<i64> {
        None
    }

    /// Drops the states that were made before this session.
    async fn forget_before(&self, cx: &Context, session: i64) -> Result<()> {
        let _ = (cx, session);
        Ok(())
    }
}

/// What is at a far end.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// `None` where there is nothing at all.
    pub(crate) listing: Option<Listing>,
    /// A transfer was cut off, and has to be undone before the next one.
    pub(crate) interrupted: bool,
}

/// The files of a far end, with their lengths where those are told.
pub(crate) type Listing = BTreeMap<String, Option<u64>>;

/// What one transfer is about.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    /// Everything of these datasets belongs there.
    pub(crate) datasets: Vec<String>,
    /// And these content-addressed bodies.
    pub(crate) bodies: BTreeSet<String>,
    /// Whose vault it is, where the far end does not know it yet: what is cut off after it is known for ours.
    pub(crate) identity: Vec<String>,
    /// What is new: objects, versions and bodies.
    pub(crate) objects: Vec<String>,
    /// What is new: receipts and notes, which may be there only after their objects.
    pub(crate) receipts: Vec<String>,
}
