//! A vault in any [`Store`]: identity, receipts, versions, and the order in which they are written.

mod identity;
mod index;
mod publish;
mod reading;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::index::Index;
use cdrvault_format::manifest::{Content, Manifest, Notes, StoredObject};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_format::{failpoint, layout};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::ObjectStream;
use cdrvault_plugin::sink::{Capabilities, Expected, Held, Identity, Live, Place, Sealed, Vault};

pub(crate) use identity::{no_vault, parse as parse_identity};
pub(crate) use reading::{history_of, parse_manifest};
pub(crate) use store::{Seen, Store};

/// See the module.
pub(crate) struct StoredVault<S> {
    store: Arc<S>,
    /// Those that were read, by dataset.
    indexes: Mutex<BTreeMap<String, Option<Index>>>,
    /// Whose it was when it was opened to be written to.
    ours: Mutex<Option<Identity>>,
}

impl<S> StoredVault<S> {
    /// The vault in this place.
    pub(crate) fn new(store: S) -> Self {
        Self { store: Arc::new(store), indexes: Mutex::default(), ours: Mutex::default() }
    }
}

impl<S: Store> StoredVault<S> {
    /// An error when somebody took the vault over since it was opened: not every place has a lock that would tell. What
    /// was begun then is finished by nobody, and stays owed.
    async fn still_ours(&self) -> Result<()> {
        let Some(ours) = self.ours.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(()) };
        let place = self.store.describe();
        let lost = |how: String| {
            Error::new(
                Kind::Refused,
                format!("the vault in {place} {how} since this run began; nothing more is written"),
            )
            .hint("let one host alone write into a vault: stop the runs of this one, or give it a vault of its own")
        };
        let Some(now) = identity::now(&*self.store).await? else {
            return Err(lost("went away".to_owned()));
        };
        if now.vault != ours.vault {
            return Err(lost("was replaced by another one".to_owned()));
        }
        if now.writer != ours.writer || now.pipeline != ours.pipeline {
            return Err(lost(format!("was taken over by writer {} of pipeline `{}`", now.writer, now.pipeline)));
        }
        Ok(())
    }
}

#[async_trait]
impl<S: Store> Place for StoredVault<S> {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn try_remove(&self, _cx: &Context) -> Result<()> {
        self.store.check_removable().await
    }

    fn root(&self) -> Option<&Path> {
        self.store.root()
    }

    fn spool(&self) -> Option<PathBuf> {
        self.store.spool()
    }

    fn free_space(&self) -> Result<Option<u64>> {
        self.store.free_space()
    }

    fn clock_offset(&self) -> Option<i64> {
        self.store.clock_offset()
    }

    async fn close(&self) {
        self.store.end().await;
    }
}

#[async_trait]
impl<S: Store> Vault for StoredVault<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn open(&self, cx: &Context, expect: &Expected, dry_run: bool) -> Result<Identity> {
        let checked = identity::check(&*self.store, &cx.writer, expect).await?;
        if !dry_run {
            // Under the lock, or two first runs could both think that it is theirs.
            self.store.begin(&cx.writer).await?;
            if let Err(error) = identity::make(&*self.store, &checked).await {
                self.store.end().await;
                return Err(error);
            }
            *self.ours.lock().unwrap_or_else(PoisonError::into_inner) = Some(checked.identity.clone());
        }
        Ok(checked.identity)
    }

    async fn index(&self, _cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Held>> {
        let recorded = self.known_index(dataset).await?;
        reading::index(&*self.store, dataset, recorded.as_ref()).await
    }

    async fn datasets(&self, _cx: &Context) -> Result<Vec<String>> {
        let mut names = self.store.names(layout::MANIFESTS).await?;
        // All receipts of a dataset may be lost.
        let indexes = self.store.names(layout::INDEXES).await?;
        names.extend(indexes.iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned)));
        names.retain(|name| layout::manifests_of(name).is_ok());
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn history(&self, _cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
        reading::history(&*self.store, dataset).await
    }

    async fn recorded(&self, _cx: &Context, dataset: &str) -> Result<Option<Index>> {
        self.read_index(dataset).await
    }

    async fn record(&self, _cx: &Context, dataset: &str) -> Result<()> {
        self.add_to_index(dataset).await
    }

    async fn unrecord(&self, _cx: &Context, gone: &[(Unit, u32)]) -> Result<()> {
        self.take_from_index(gone).await
    }

    async fn nameless(&self, _cx: &Context, unit: &Unit) -> Result<Option<StoredObject>> {
        reading::nameless(&*self.store, unit).await
    }

    async fn live(&self, _cx: &Context, unit: &Unit) -> Result<Live> {
        let recorded = self.newest_recorded(unit).await?;
        Ok(reading::live(&*self.store, unit, recorded).await?.0)
    }

    async fn manifest(&self, _cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        reading::manifest(&*self.store, unit, generation).await
    }

    async fn publish(&self, _cx: &Context, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        self.still_ours().await?;
        let recorded = self.newest_recorded(&sealed.manifest.unit).await?;
        publish::publish(&*self.store, sealed, over, recorded).await
    }

    async fn read(&self, _cx: &Context, manifest: &Manifest) -> Result<ObjectStream> {
        reading::objects(Arc::clone(&self.store), manifest).await
    }

    async fn files(&self, cx: &Context, datasets: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let mut files: BTreeSet<String> = self.store.tree(layout::OBJECTS).await?.into_keys().collect();
        let mut datasets = datasets.clone();
        datasets.extend(self.datasets(cx).await?);
        datasets.extend(reading::days_in_sight(&*self.store).await?);
        for dataset in datasets {
            for directory in
                [layout::live_directory(&dataset)?, layout::manifests_of(&dataset)?, layout::versions_of(&dataset)?]
            {
                files.extend(self.store.tree(&directory).await?.into_keys());
            }
        }
        Ok(files)
    }

    async fn mend(&self, _cx: &Context, sealed: &Sealed) -> Result<()> {
        self.still_ours().await?;
        let index = self.known_index(&sealed.manifest.unit.dataset).await?;
        let named = index.and_then(|index| index.generations.get(&sealed.manifest.unit.partition).cloned());
        let recorded = named.is_some_and(|all| all.contains(&sealed.manifest.generation));
        publish::mend(&*self.store, sealed, recorded).await
    }

    async fn set_aside(&self, _cx: &Context, unit: &Unit, generation: u32) -> Result<String> {
        let name = layout::manifest(unit, generation)?;
        let aside = format!("{name}.damaged");
        self.take_from_index(&[(unit.clone(), generation)]).await?;
        self.still_ours().await?;
        if let Some(seen) = self.store.look(&name).await? {
            self.store.keep(&name, &aside, &seen).await?;
        }
        self.store.remove(&name).await?;
        Ok(self.store.show(&aside))
    }

    async fn remove(&self, _cx: &Context, manifest: &Manifest) -> Result<()> {
        self.still_ours().await?;
        self.take_from_index(&[(manifest.unit.clone(), manifest.generation)]).await?;
        // The receipt first: a body without a receipt is a leftover, a receipt without its body would be a lie.
        self.store.remove(&layout::manifest(&manifest.unit, manifest.generation)?).await?;
        failpoint::hit("after-receipt-removed")?;
        match &manifest.content {
            Content::Object(object) => {
                self.store.remove(&layout::version(&manifest.unit, manifest.generation, &object.sha256)?).await
            }
            // What no receipt names any more is collected afterwards; other generations may share it.
            Content::Tree { .. } => Ok(()),
        }
    }

    async fn bodies(&self, _cx: &Context) -> Result<BTreeMap<String, u64>> {
        reading::all_bodies(&*self.store).await
    }

    async fn remove_body(&self, _cx: &Context, sha256: &str) -> Result<()> {
        self.still_ours().await?;
        self.store.remove(&layout::object(sha256)?).await
    }

    async fn notes(&self, _cx: &Context, unit: &Unit) -> Result<Notes> {
        reading::notes(&*self.store, unit).await
    }

    async fn damaged_notes(&self, _cx: &Context, datasets: &BTreeSet<String>) -> Result<Vec<(Option<Unit>, String)>> {
        reading::damaged_notes(&*self.store, datasets).await
    }

    async fn put_notes(&self, _cx: &Context, unit: &Unit, notes: &Notes) -> Result<()> {
        self.still_ours().await?;
        publish::put_notes(&*self.store, unit, notes).await
    }
}
