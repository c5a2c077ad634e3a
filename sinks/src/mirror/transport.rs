//! What a way to a far end has to be able to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::Result;
use cdrvault_pipeline::sink::Capabilities;

/// How names and bytes get to the far end and back.
#[async_trait]
pub(crate) trait Transport: Send + Sync + 'static {
    fn describe(&self) -> String;

    fn capabilities(&self) -> Capabilities;

    /// Repairs what an interrupted transfer left. Only before a run that writes.
    async fn heal(&self, cx: &Context) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Files that an interrupted transfer left, to be removed.
    fn leftovers(&self, listing: &Listing) -> Vec<String> {
        let _ = listing;
        Vec::new()
    }

    /// Every file there, with its length where that is told; `None` where there is nothing at all.
    async fn list(&self, cx: &Context) -> Result<Option<Listing>>;

    /// Brings files into a local directory, which is empty, under their names: as they are, or, where the place keeps
    /// history, as they were at this second since 1970.
    async fn fetch(&self, cx: &Context, names: &[String], into: &Path, at: Option<i64>) -> Result<()>;

    /// Brings files to the far end, and returns when it has confirmed that it holds the very bytes.
    async fn send(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()>;

    /// The same for files that are damaged there, although it may not know.
    async fn mend(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()> {
        self.send(cx, root, parcel).await
    }

    /// Removes files there.
    async fn remove(&self, cx: &Context, names: &[String]) -> Result<()>;

    /// See [`Sink::forget_history`].
    async fn forget_history(&self, cx: &Context, older_than: Duration) -> Result<()> {
        let _ = (cx, older_than);
        Ok(())
    }
}

/// The files of a far end.
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
