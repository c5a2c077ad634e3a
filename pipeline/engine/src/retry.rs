//! The one place where anything is tried again: transient errors, a few times, with growing pauses and jitter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable as _};

use cdrvault_format::error::{Error, Result};
use cdrvault_format::index::Index;
use cdrvault_format::manifest::{Manifest, Notes, StoredObject};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::ObjectStream;
use cdrvault_plugin::sink::{Capabilities, Expected, Held, Identity, Live, Mirror, Place, Sealed, Vault};

/// Runs work again while it fails transiently.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(cx: &Context, work: impl FnMut() -> F) -> Result<T> {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(300))
        .with_max_delay(Duration::from_secs(10))
        .with_max_times(3)
        .with_jitter();
    work.retry(pauses)
        .when(|error: &Error| error.kind().passes() && !cx.cancel.is_cancelled())
        .notify(|error, pause| tracing::warn!("{}; trying again in {pause:.1?}", error.one_line()))
        .await
}

/// A sink whose transient errors are tried again.
pub struct Retrying(pub Arc<dyn Vault>);

impl Retrying {
    fn mirrored(&self) -> Result<&dyn Mirror> {
        self.0.mirror().ok_or_else(|| Error::failed(format!("{} is not a mirror", self.0.describe())))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Place for Retrying {
    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn try_write(&self, cx: &Context) -> Result<bool> {
        retry(cx, || self.0.try_write(cx)).await
    }

    async fn try_remove(&self, cx: &Context) -> Result<()> {
        retry(cx, || self.0.try_remove(cx)).await
    }

    fn is_made(&self) -> bool {
        self.0.is_made()
    }

    fn root(&self) -> Option<&Path> {
        self.0.root()
    }

    fn spool(&self) -> Option<PathBuf> {
        self.0.spool()
    }

    fn free_space(&self) -> Result<Option<u64>> {
        self.0.free_space()
    }

    fn clock_offset(&self) -> Option<i64> {
        self.0.clock_offset()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Vault for Retrying {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn open(&self, cx: &Context, expect: &Expected, dry_run: bool) -> Result<Identity> {
        retry(cx, || self.0.open(cx, expect, dry_run)).await
    }

    async fn index(&self, cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Held>> {
        retry(cx, || self.0.index(cx, dataset)).await
    }

    async fn datasets(&self, cx: &Context) -> Result<Vec<String>> {
        retry(cx, || self.0.datasets(cx)).await
    }

    async fn history(&self, cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
        retry(cx, || self.0.history(cx, dataset)).await
    }

    async fn recorded(&self, cx: &Context, dataset: &str) -> Result<Option<Index>> {
        retry(cx, || self.0.recorded(cx, dataset)).await
    }

    async fn record(&self, cx: &Context, dataset: &str) -> Result<()> {
        retry(cx, || self.0.record(cx, dataset)).await
    }

    async fn unrecord(&self, cx: &Context, gone: &[(Unit, u32)]) -> Result<()> {
        retry(cx, || self.0.unrecord(cx, gone)).await
    }

    async fn nameless(&self, cx: &Context, unit: &Unit) -> Result<Option<StoredObject>> {
        retry(cx, || self.0.nameless(cx, unit)).await
    }

    async fn live(&self, cx: &Context, unit: &Unit) -> Result<Live> {
        retry(cx, || self.0.live(cx, unit)).await
    }

    async fn manifest(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        retry(cx, || self.0.manifest(cx, unit, generation)).await
    }

    async fn publish(&self, cx: &Context, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        retry(cx, || self.0.publish(cx, sealed, over)).await
    }

    async fn read(&self, cx: &Context, manifest: &Manifest) -> Result<ObjectStream> {
        retry(cx, || self.0.read(cx, manifest)).await
    }

    async fn files(&self, cx: &Context, datasets: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        retry(cx, || self.0.files(cx, datasets)).await
    }

    async fn set_aside(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<String> {
        retry(cx, || self.0.set_aside(cx, unit, generation)).await
    }

    async fn mend(&self, cx: &Context, sealed: &Sealed) -> Result<()> {
        retry(cx, || self.0.mend(cx, sealed)).await
    }

    async fn remove(&self, cx: &Context, manifest: &Manifest) -> Result<()> {
        retry(cx, || self.0.remove(cx, manifest)).await
    }

    async fn bodies(&self, cx: &Context) -> Result<BTreeMap<String, u64>> {
        retry(cx, || self.0.bodies(cx)).await
    }

    async fn remove_body(&self, cx: &Context, sha256: &str) -> Result<()> {
        retry(cx, || self.0.remove_body(cx, sha256)).await
    }

    async fn notes(&self, cx: &Context, unit: &Unit) -> Result<Notes> {
        retry(cx, || self.0.notes(cx, unit)).await
    }

    async fn damaged_notes(&self, cx: &Context, datasets: &BTreeSet<String>) -> Result<Vec<(Option<Unit>, String)>> {
        retry(cx, || self.0.damaged_notes(cx, datasets)).await
    }

    async fn put_notes(&self, cx: &Context, unit: &Unit, notes: &Notes) -> Result<()> {
        retry(cx, || self.0.put_notes(cx, unit, notes)).await
    }

    fn mirror(&self) -> Option<&dyn Mirror> {
        self.0.mirror().map(|_| self as &dyn Mirror)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Mirror for Retrying {
    async fn flush(&self, cx: &Context) -> Result<()> {
        let mirror = self.mirrored()?;
        retry(cx, || mirror.flush(cx)).await
    }

    async fn prefetch(&self, cx: &Context, manifests: &[Manifest]) -> Result<()> {
        let mirror = self.mirrored()?;
        retry(cx, || mirror.prefetch(cx, manifests)).await
    }

    async fn still_has(&self, cx: &Context, manifest: &Manifest) -> Result<bool> {
        let mirror = self.mirrored()?;
        retry(cx, || mirror.still_has(cx, manifest)).await
    }

    async fn look_back(&self, cx: &Context, at: jiff::Timestamp) -> Result<()> {
        let mirror = self.mirrored()?;
        retry(cx, || mirror.look_back(cx, at)).await
    }

    async fn forget_history(&self, cx: &Context, before: jiff::Timestamp) -> Result<()> {
        let mirror = self.mirrored()?;
        retry(cx, || mirror.forget_history(cx, before)).await
    }
}
