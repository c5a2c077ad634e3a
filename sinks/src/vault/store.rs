//! What a place must be able to do so that a [`super::StoredVault`] can lie in it: names and bytes, nothing of generations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use cdrvault_format::error::Result;
use cdrvault_plugin::context::Writer;
use cdrvault_plugin::payload::Body;
use cdrvault_plugin::sink::Capabilities;

/// A place for files. Names are those of [`cdrvault_format::layout`]: relative, `/` between their parts.
///
/// Whatever writes is whole or invisible, and durable when it returns. What failed may be done again.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Where it is, for a person to read, without secrets.
    fn describe(&self) -> String;

    /// Where a name of it is, for a person to read.
    fn show(&self, name: &str) -> String {
        format!("{}/{name}", self.describe())
    }

    /// What it can do, as far as it was probed.
    fn capabilities(&self) -> Capabilities;

    /// An error when no vault could be made here: the directory above is missing, there is no such bucket.
    async fn check_place(&self) -> Result<()>;

    /// An error when we may not write here, also where there is no vault yet; writes a probe at most.
    async fn check_writable(&self) -> Result<()>;

    /// An error when we may not remove what we wrote here; removes the probe at most.
    async fn check_removable(&self) -> Result<()> {
        Ok(())
    }

    /// Makes the place where it is missing, takes the lock, probes, and removes what an interrupted run left.
    async fn begin(&self, writer: &Writer) -> Result<()>;

    /// Gives the lock back.
    async fn end(&self);

    /// The names directly in a directory, of files and of directories, that are UTF-8; none where there is none.
    async fn names(&self, directory: &str) -> Result<Vec<String>>;

    /// Every file below a directory, by its full name, with its length; none where there is none.
    async fn tree(&self, directory: &str) -> Result<BTreeMap<String, u64>>;

    /// The length of a file.
    async fn length(&self, name: &str) -> Result<Option<u64>>;

    /// What a file is: read to its end, unless the place has checked it itself and says what it found.
    async fn look(&self, name: &str) -> Result<Option<Seen>>;

    /// Whether a file can have this hash, for one whose bytes are asked for next: where [`Store::body`] reads all of them
    /// before it gives any, nobody needs to know better.
    async fn may_be(&self, name: &str, sha256: &str) -> Result<bool> {
        Ok(self.look(name).await?.is_some_and(|seen| seen.sha256 == sha256))
    }

    /// The content of a small file.
    async fn small(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Writes a small file where there is none, as was just seen; `Conflict` where the place can tell that there is one
    /// with another content by now.
    async fn create(&self, name: &str, content: Vec<u8>) -> Result<()>;

    /// Writes a small file, in the place of one that may be there.
    async fn replace(&self, name: &str, content: Vec<u8>) -> Result<()>;

    /// Writes a small file in the place of what was seen there; `Conflict` where the place can tell that it is something
    /// else by now.
    async fn swap(&self, name: &str, content: Vec<u8>, over: Option<&Seen>) -> Result<()> {
        let _ = over;
        self.replace(name, content).await
    }

    /// Makes a local file, which is synced and has this hash, the content of `name`, in the place of `over`; then
    /// checks what is stored. `Conflict` where the place can tell that `over` is not there any more.
    async fn put(&self, file: &Path, name: &str, sha256: &str, over: Option<&Seen>) -> Result<()>;

    /// Keeps what `from` was when it was seen under a second name, which tells its hash; `Conflict` where it is something
    /// else by now. What stands there and is not that is replaced.
    async fn keep(&self, from: &str, to: &str, seen: &Seen) -> Result<()>;

    /// The bytes of a file, which turn out to be an error unless they have this hash.
    async fn body(&self, name: &str, sha256: &str) -> Result<Body>;

    /// Removes a file; that there is none is as good.
    async fn remove(&self, name: &str) -> Result<()>;

    /// See [`cdrvault_plugin::sink::Vault::root`].
    fn root(&self) -> Option<&Path> {
        None
    }

    /// See [`cdrvault_plugin::sink::Vault::spool`].
    fn spool(&self) -> Option<PathBuf> {
        None
    }

    /// See [`cdrvault_plugin::sink::Vault::free_space`].
    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// See [`cdrvault_plugin::sink::Vault::clock_offset`].
    fn clock_offset(&self) -> Option<i64> {
        None
    }
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) sha256: String,
    /// By which the place knows this very content: an `ETag`.
    pub(crate) tag: Option<String>,
}
