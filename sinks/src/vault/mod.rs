//! A vault in any [`Store`]: identity, receipts, versions, and the order in which they are written.

mod identity;
mod publish;
mod reading;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::Result;
use cdrvault_pipeline::layout;
use cdrvault_pipeline::manifest::{Content, Manifest, Notes};
use cdrvault_pipeline::partition::{Partition, Unit};
use cdrvault_pipeline::payload::ObjectStream;
use cdrvault_pipeline::sink::{Capabilities, Expected, Held, Identity, Live, Sealed, Sink};

pub(crate) use identity::{no_vault, parse as parse_identity};
pub(crate) use reading::{history_of, parse_manifest};
pub(crate) use store::{Seen, Store};

/// See the module.
pub(crate) struct Vault<S>(Arc<S>);

impl<S> Vault<S> {
    /// The vault in this place.
    pub(crate) fn new(store: S) -> Self {
        Self(Arc::new(store))
    }
}

#[async_trait]
impl<S: Store> Sink for Vault<S> {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn open(&self, cx: &Context, expect: &Expected, dry_run: bool) -> Result<Identity> {
        let checked = identity::check(&*self.0, &cx.writer, expect).await?;
        if !dry_run {
            // Under the lock, or two first runs could both think that it is theirs.
            self.0.begin(&cx.writer).await?;
            if let Err(error) = identity::make(&*self.0, &checked).await {
                self.0.end().await;
                return Err(error);
            }
        }
        Ok(checked.identity)
    }

    async fn index(&self, _cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Held>> {
        reading::index(&*self.0, dataset).await
    }

    async fn datasets(&self, _cx: &Context) -> Result<Vec<String>> {
        let mut names = self.0.names(layout::MANIFESTS).await?;
        names.retain(|name| layout::manifests_of(name).is_ok());
        Ok(names)
    }

    async fn history(&self, _cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
        reading::history(&*self.0, dataset).await
    }

    async fn live(&self, _cx: &Context, unit: &Unit) -> Result<Live> {
        Ok(reading::live(&*self.0, unit).await?.0)
    }

    async fn manifest(&self, _cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        reading::manifest(&*self.0, unit, generation).await
    }

    async fn publish(&self, _cx: &Context, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        publish::publish(&*self.0, sealed, over).await
    }

    async fn read(&self, _cx: &Context, manifest: &Manifest) -> Result<ObjectStream> {
        reading::objects(Arc::clone(&self.0), manifest).await
    }

    async fn files(&self, cx: &Context, datasets: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let mut files: BTreeSet<String> = self.0.tree(layout::OBJECTS).await?.into_keys().collect();
        let mut datasets = datasets.clone();
        datasets.extend(self.datasets(cx).await?);
        datasets.extend(reading::days_in_sight(&*self.0).await?);
        for dataset in datasets {
            for directory in
                [layout::live_directory(&dataset)?, layout::manifests_of(&dataset)?, layout::versions_of(&dataset)?]
            {
                files.extend(self.0.tree(&directory).await?.into_keys());
            }
        }
        Ok(files)
    }

    async fn mend(&self, _cx: &Context, sealed: &Sealed) -> Result<()> {
        publish::mend(&*self.0, sealed).await
    }

    async fn set_aside(&self, _cx: &Context, unit: &Unit, generation: u32) -> Result<String> {
        let name = layout::manifest(unit, generation)?;
        let aside = format!("{name}.damaged");
        self.0.keep(&name, &aside).await?;
        self.0.remove(&name).await?;
        Ok(self.0.show(&aside))
    }

    async fn remove(&self, _cx: &Context, manifest: &Manifest) -> Result<()> {
        // The receipt first: a body without a receipt is a leftover, a receipt without its body would be a lie.
        self.0.remove(&layout::manifest(&manifest.unit, manifest.generation)?).await?;
        match &manifest.content {
            Content::Object(object) => {
                self.0.remove(&layout::version(&manifest.unit, manifest.generation, &object.sha256)?).await
            }
            // What no receipt names any more is collected afterwards; other generations may share it.
            Content::Tree { .. } => Ok(()),
        }
    }

    async fn bodies(&self, _cx: &Context) -> Result<BTreeMap<String, u64>> {
        reading::all_bodies(&*self.0).await
    }

    async fn remove_body(&self, _cx: &Context, sha256: &str) -> Result<()> {
        self.0.remove(&layout::object(sha256)?).await
    }

    async fn notes(&self, _cx: &Context, unit: &Unit) -> Result<Notes> {
        reading::notes(&*self.0, unit).await
    }

    async fn put_notes(&self, _cx: &Context, unit: &Unit, notes: &Notes) -> Result<()> {
        publish::put_notes(&*self.0, unit, notes).await
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
        self.0.end().await;
    }
}
