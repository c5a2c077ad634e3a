//! Mirrors: a copy of a local vault at a far end. What is published is only noted; one transfer at the end of a run
//! brings it there. The local vault says what a generation is, the far end says what it has.

mod process;
mod rdiff;
mod rsync;
mod sending;
mod ssh;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::layout;
use cdrvault_pipeline::manifest::{Content, Manifest, Notes};
use cdrvault_pipeline::partition::{Partition, Unit};
use cdrvault_pipeline::payload::{Body, Object, ObjectStream, file_stream};
use cdrvault_pipeline::plugin::Around;
use cdrvault_pipeline::sink::{Capabilities, Expected, Held, Identity, Live, LiveObject, Sealed, Sink};

use futures::StreamExt as _;

use crate::{local, vault};

pub(crate) use rdiff::plugin as rdiff_plugin;
pub(crate) use rsync::plugin as rsync_plugin;
use transport::{Listing, Parcel, Transport};

/// A copy of a local vault.
pub(crate) struct Mirror<T> {
    transport: T,
    around: Around,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the far end holds, as it was told.
    listing: Option<Listing>,
    /// What is noted, and not sent.
    queue: BTreeSet<Unit>,
    /// What is to be removed there.
    removals: Vec<String>,
    identity_differs: bool,
    /// Receipts that only the far end has, by name.
    receipts: BTreeMap<String, Vec<u8>>,
    /// A vault with the objects that were brought here to be read.
    prefetched: Option<Arc<tempfile::TempDir>>,
}

impl<T: Transport> Mirror<T> {
    fn new(transport: T, around: &Around) -> Self {
        Self { transport, around: around.clone(), state: Mutex::default() }
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mirrored(&self) -> Result<(&Arc<dyn Sink>, &Path)> {
        let sink = self.around.mirrored.as_ref().ok_or_else(|| Error::failed("a mirror of nothing"))?;
        let root = sink.root().ok_or_else(|| Error::failed("only a vault in a directory can be mirrored"))?;
        Ok((sink, root))
    }

    fn listed<R>(&self, work: impl FnOnce(&Listing) -> R) -> R {
        self.with(|state| work(state.listing.get_or_insert_default()))
    }

    fn history_of(&self, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
        let receipts = layout::manifests_of(dataset)?;
        Ok(self.listed(|files| vault::history_of(files.keys().filter_map(|name| name.strip_prefix(&receipts)))))
    }

    /// Whether the objects of a generation are there, by their names and, where they are told, their lengths.
    fn has_objects(&self, manifest: &Manifest) -> Result<bool> {
        let has = |name: &str, bytes: u64| {
            self.listed(|files| files.get(name).is_some_and(|length| length.is_none_or(|length| length == bytes)))
        };
        Ok(match &manifest.content {
            Content::Object(object) => has(&object.path, object.bytes),
            Content::Tree { entries } => {
                let mut all = true;
                for stored in entries.iter().filter_map(|entry| entry.stored.as_ref()) {
                    all &= has(&layout::object(&stored.sha256)?, stored.bytes);
                }
                all
            }
        })
    }

    /// A receipt, from the local vault where it has it; they are the same bytes.
    async fn receipt(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        if let Some(mirrored) = &self.around.mirrored {
            match mirrored.manifest(cx, unit, generation).await {
                Err(error) if error.kind() == Kind::NotFound => {}
                other => return other,
            }
        }
        let name = layout::manifest(unit, generation)?;
        if !self.listed(|files| files.contains_key(&name)) {
            return Err(self.has_not(unit, generation));
        }
        self.fetch_receipts(cx, &unit.dataset).await?;
        let known = self.with(|state| state.receipts.get(&name).cloned());
        let text = match known {
            Some(text) => text,
            None => self.fetch_small(cx, &name).await?,
        };
        vault::parse_manifest(&format!("{}/{name}", self.describe()), &text, unit, generation)
    }

    fn has_not(&self, unit: &Unit, generation: u32) -> Error {
        Error::new(Kind::NotFound, format!("{unit} has no generation {generation} in {}", self.describe()))
    }

    /// Fetches all receipts at once that the local vault lacks: it may have been lost, or there is none here.
    async fn fetch_receipts(&self, cx: &Context, dataset: &str) -> Result<()> {
        let here = match &self.around.mirrored {
            Some(mirrored) => mirrored.history(cx, dataset).await?,
            None => BTreeMap::new(),
        };
        let mut names = Vec::new();
        for (partition, generations) in self.history_of(dataset)? {
            let here = here.get(&partition);
            for generation in generations {
                if here.is_none_or(|here| !here.contains(&generation)) {
                    names.push(layout::manifest(&Unit::new(dataset, partition), generation)?);
                }
            }
        }
        names.retain(|name| self.with(|state| !state.receipts.contains_key(name)));
        if names.is_empty() {
            return Ok(());
        }
        let directory = scratch()?;
        self.transport.fetch(cx, &names, directory.path(), None).await?;
        for name in names {
            let path = directory.path().join(&name);
            let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
            self.with(|state| state.receipts.insert(name, text));
        }
        Ok(())
    }

    /// The objects of a generation. Where the place keeps history itself, an older one is in the last session before its
    /// successor came. Sessions and receipts are told apart by the second: so the session before is asked, too.
    async fn fetch_objects(
        &self,
        cx: &Context,
        manifest: &Manifest,
        names: &[String],
    ) -> Result<(tempfile::TempDir, ObjectStream)> {
        let (unit, generation) = (&manifest.unit, manifest.generation);
        let generations = self.history_of(&unit.dataset)?.remove(&unit.partition).unwrap_or_default();
        let successor = generations.into_iter().find(|other| *other > generation);
        let mut times = vec![None];
        if let (Some(successor), true) = (successor, self.capabilities().native_history)
            && let Some(replaced) = self.receipt(cx, unit, successor).await?.received
        {
            times = [0, 1].map(|earlier| Some(replaced.as_second() - earlier)).to_vec();
        }
        let mut failed = None;
        for at in times {
            let directory = scratch()?;
            let fetching = async {
                self.transport.fetch(cx, names, directory.path(), at).await?;
                local::vault_in(directory.path()).read(cx, manifest).await
            };
            match fetching.await {
                Ok(objects) => return Ok((directory, objects)),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::failed("nothing was fetched")))
    }

    async fn fetch_small(&self, cx: &Context, name: &str) -> Result<Vec<u8>> {
        let directory = scratch()?;
        self.transport.fetch(cx, &[name.to_owned()], directory.path(), None).await?;
        let path = directory.path().join(name);
        std::fs::read(&path).map_err(|error| Error::io("read", &path, error))
    }

    /// The names under which the objects of a generation may be.
    fn names_of(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let mut names = Vec::new();
        match &manifest.content {
            Content::Object(object) => {
                let kept = layout::version(&manifest.unit, manifest.generation, &object.sha256)?;
                let both = [object.path.clone(), kept].into_iter();
                names.extend(both.filter(|name| self.listed(|files| files.contains_key(name))));
            }
            Content::Tree { entries } => {
                for stored in entries.iter().filter_map(|entry| entry.stored.as_ref()) {
                    names.push(layout::object(&stored.sha256)?);
                }
                names.sort();
                names.dedup();
            }
        }
        Ok(names)
    }

    /// The identity of the vault over there.
    async fn identity(&self, cx: &Context) -> Result<Identity> {
        let text = self.fetch_small(cx, layout::IDENTITY).await?;
        vault::parse_identity(&format!("{}/{}", self.describe(), layout::IDENTITY), &text)
    }

    /// Whether the far end is a copy of what is mirrored, as it is now.
    async fn check_identity(&self, cx: &Context, expect: &Expected, listing: Option<&Listing>) -> Result<bool> {
        let place = self.describe();
        let Some(listing) = listing.filter(|listing| !listing.is_empty()) else {
            if expect.known && !expect.adopt {
                return Err(Error::new(
                    Kind::Refused,
                    format!("there is no vault in {place}, although this pipeline wrote one there"),
                )
                .hint("see what happened to it; if it is lost, run once with --adopt-vault: it is filled again"));
            }
            return Ok(false);
        };
        if !listing.contains_key(layout::IDENTITY) {
            let ours = |name: &String| name.starts_with(&format!("{}/", layout::PRIVATE));
            return match listing.keys().find(|name| !ours(name)) {
                Some(name) if !expect.adopt => Err(Error::new(
                    Kind::Refused,
                    format!("{place} is no vault and not empty: there is `{}`", name.escape_debug()),
                )
                .hint("name an empty place, or a new one; --adopt-vault makes a vault beside what is there")),
                _ => Ok(false),
            };
        }
        let found = self.identity(cx).await?;
        match &expect.mirrored {
            Some(mirrored) if found.vault != mirrored.vault && !expect.adopt => Err(Error::new(
                Kind::Refused,
                format!(
                    "{place} is a copy of another vault: {} of pipeline `{}`, made {}",
                    found.vault, found.pipeline, found.created
                ),
            )
            .hint("give each vault a mirror of its own; if this one is to be taken over, run once with --adopt-vault")),
            Some(mirrored) => Ok(found == *mirrored),
            None => Ok(true),
        }
    }
}

#[async_trait]
impl<T: Transport> Sink for Mirror<T> {
    fn describe(&self) -> String {
        self.transport.describe()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { mirror: true, ..self.transport.capabilities() }
    }

    async fn open(&self, cx: &Context, expect: &Expected, dry_run: bool) -> Result<Identity> {
        if !dry_run {
            self.transport.heal(cx).await?;
        }
        let mut listing = self.transport.list(cx).await?;
        if expect.reading {
            if !listing.as_ref().is_some_and(|listing| listing.contains_key(layout::IDENTITY)) {
                return Err(vault::no_vault(&self.describe()));
            }
            self.with(|state| state.listing = listing);
            return self.identity(cx).await;
        }
        let same = self.check_identity(cx, expect, listing.as_ref()).await?;
        if let Some(listing) = &mut listing {
            let mut leftovers = self.transport.leftovers(listing);
            // Nothing but ours is touched in a place that others use, too.
            let private = format!("{}/", layout::PRIVATE);
            let ours =
                |name: &str| self.around.datasets.iter().any(|dataset| name.starts_with(&format!("{dataset}/day=")));
            leftovers.retain(|name| name.starts_with(&private) || ours(name));
            if !leftovers.is_empty() && !dry_run {
                self.transport.remove(cx, &leftovers).await?;
            }
            listing.retain(|name, _| !leftovers.contains(name));
        }
        self.with(|state| {
            state.listing = listing;
            state.identity_differs = !same;
        });
        expect.mirrored.clone().ok_or_else(|| Error::failed("what this mirrors has no identity"))
    }

    fn is_made(&self) -> bool {
        self.listed(|files| files.contains_key(layout::IDENTITY))
    }

    async fn index(&self, cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Held>> {
        self.fetch_receipts(cx, dataset).await?;
        let mut index = BTreeMap::new();
        for (partition, generations) in self.history_of(dataset)? {
            let Some(generation) = generations.last().copied() else { continue };
            let manifest = self.receipt(cx, &Unit::new(dataset, partition), generation).await?;
            index.insert(partition, Held { generation, object_there: self.has_objects(&manifest)? });
        }
        Ok(index)
    }

    async fn datasets(&self, _cx: &Context) -> Result<Vec<String>> {
        let prefix = format!("{}/", layout::MANIFESTS);
        let of = |name: &String| name.strip_prefix(&prefix)?.split_once('/').map(|(dataset, _)| dataset.to_owned());
        let names: BTreeSet<String> = self.listed(|files| files.keys().filter_map(of).collect());
        Ok(names.into_iter().filter(|name| layout::manifests_of(name).is_ok()).collect())
    }

    async fn history(&self, _cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
        self.history_of(dataset)
    }

    async fn live(&self, cx: &Context, unit: &Unit) -> Result<Live> {
        let Some(generation) = self.history_of(&unit.dataset)?.remove(&unit.partition).and_then(|mut all| all.pop())
        else {
            return Ok(Live::NOTHING);
        };
        let manifest = self.receipt(cx, unit, generation).await?;
        // Its bytes were compared when they were sent.
        let object = if self.has_objects(&manifest)? { LiveObject::Intact } else { LiveObject::Missing };
        Ok(Live { manifest: Some(Arc::new(manifest)), object })
    }

    async fn manifest(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        let there = self.history_of(&unit.dataset)?.remove(&unit.partition).unwrap_or_default();
        if !there.contains(&generation) {
            return Err(self.has_not(unit, generation));
        }
        self.receipt(cx, unit, generation).await
    }

    async fn publish(&self, cx: &Context, sealed: &Sealed, _over: &Live) -> Result<Manifest> {
        let (mirrored, _) = self.mirrored()?;
        let unit = &sealed.manifest.unit;
        let manifest = mirrored.manifest(cx, unit, sealed.manifest.generation).await?;
        self.with(|state| state.queue.insert(unit.clone()));
        Ok(manifest)
    }

    async fn flush(&self, cx: &Context) -> Result<()> {
        // What is noted from now on travels with the next flush.
        let (queue, removals, differs) =
            self.with(|state| (std::mem::take(&mut state.queue), state.removals.clone(), state.identity_differs));
        if !queue.is_empty() || differs {
            let (_, root) = self.mirrored()?;
            let sending = async {
                self.check_source(cx).await?;
                let parcel = self.parcel(cx, &queue).await?;
                self.transport.send(cx, root, &parcel).await?;
                Ok(parcel)
            };
            let parcel = match sending.await {
                Ok(parcel) => parcel,
                Err(error) => {
                    self.with(|state| state.queue.extend(queue));
                    return Err(error);
                }
            };
            self.with(|state| {
                state.identity_differs = false;
                let listing = state.listing.get_or_insert_default();
                for name in parcel.identity.iter().chain(&parcel.objects).chain(&parcel.receipts) {
                    let length = std::fs::metadata(root.join(name)).ok().map(|found| found.len());
                    listing.insert(name.clone(), length);
                }
            });
        }
        if !removals.is_empty() {
            self.transport.remove(cx, &removals).await?;
            self.with(|state| state.removals.clear());
        }
        Ok(())
    }

    /// One transfer for all that is there now; what only the place's own history has is fetched when it is read.
    async fn prefetch(&self, cx: &Context, manifests: &[Manifest]) -> Result<()> {
        let mut names = BTreeSet::new();
        for manifest in manifests {
            names.extend(self.names_of(manifest)?);
        }
        names.retain(|name| self.listed(|files| files.contains_key(name)));
        let directory = scratch()?;
        if !names.is_empty() {
            self.transport.fetch(cx, &Vec::from_iter(names), directory.path(), None).await?;
        }
        self.with(|state| state.prefetched = Some(Arc::new(directory)));
        Ok(())
    }

    async fn read(&self, cx: &Context, manifest: &Manifest) -> Result<ObjectStream> {
        let prefetched = self.with(|state| state.prefetched.clone());
        if let Some(here) = prefetched
            && let Ok(objects) = local::vault_in(here.path()).read(cx, manifest).await
        {
            // It stays as long as this sink.
            return Ok(objects);
        }
        let names = self.names_of(manifest)?;
        let (directory, objects) = self.fetch_objects(cx, manifest, &names).await?;
        let opened = move |object: Result<Object>| {
            // Opened now: the directory goes with the stream.
            let _ = &directory;
            let Object { entry, body } = object?;
            let body = match body {
                Body::File(path) => Body::Stream(file_stream(&path)?),
                other => other,
            };
            Ok(Object { entry, body })
        };
        Ok(objects.map(opened).boxed())
    }

    async fn files(&self, _cx: &Context, _datasets: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        // Some tell of directories, too.
        let is_directory = |name: &str, files: &Listing| {
            let below = format!("{name}/");
            files.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
        };
        Ok(self.listed(|files| files.keys().filter(|name| !is_directory(name, files)).cloned().collect()))
    }

    /// What the local vault holds of it goes there again.
    async fn mend(&self, cx: &Context, sealed: &Sealed) -> Result<()> {
        self.check_source(cx).await?;
        let (_, root) = self.mirrored()?;
        let unit = &sealed.manifest.unit;
        let mut parcel = self.parcel(cx, &BTreeSet::from([unit.clone()])).await?;
        match &sealed.manifest.content {
            Content::Object(object) => {
                parcel.objects.push(object.path.clone());
                if !self.capabilities().native_history {
                    parcel.objects.push(layout::version(unit, sealed.manifest.generation, &object.sha256)?);
                }
            }
            Content::Tree { entries } => {
                for stored in entries.iter().filter_map(|entry| entry.stored.as_ref()) {
                    parcel.objects.push(layout::object(&stored.sha256)?);
                }
            }
        }
        parcel.objects.retain(|name| root.join(name).is_file());
        parcel.objects.sort();
        parcel.objects.dedup();
        self.transport.mend(cx, root, &parcel).await
    }

    async fn remove(&self, _cx: &Context, manifest: &Manifest) -> Result<()> {
        let mut names = vec![layout::manifest(&manifest.unit, manifest.generation)?];
        if let Content::Object(object) = &manifest.content {
            names.push(layout::version(&manifest.unit, manifest.generation, &object.sha256)?);
        }
        self.with(|state| {
            if let Some(listing) = &mut state.listing {
                listing.retain(|name, _| !names.contains(name));
            }
            state.removals.extend(names);
        });
        Ok(())
    }

    async fn bodies(&self, _cx: &Context) -> Result<BTreeMap<String, u64>> {
        let prefix = format!("{}/", layout::OBJECTS);
        let of = |(name, length): (&String, &Option<u64>)| {
            let sha256 = name.strip_prefix(&prefix)?.split_once('/')?.1;
            (layout::object(sha256).ok()? == *name).then(|| (sha256.to_owned(), length.unwrap_or(0)))
        };
        Ok(self.listed(|files| files.iter().filter_map(of).collect()))
    }

    async fn remove_body(&self, _cx: &Context, sha256: &str) -> Result<()> {
        let name = layout::object(sha256)?;
        self.with(|state| state.removals.push(name));
        Ok(())
    }

    async fn forget_history(&self, cx: &Context, older_than: Duration) -> Result<()> {
        self.check_source(cx).await?;
        self.transport.forget_history(cx, older_than).await
    }

    /// Those of the local vault, with which they travel; those of the far end, where the local vault was lost.
    async fn notes(&self, cx: &Context, unit: &Unit) -> Result<Notes> {
        let here = match &self.around.mirrored {
            Some(mirrored) => mirrored.notes(cx, unit).await?,
            None => Notes::default(),
        };
        let name = layout::notes(unit)?;
        if here != Notes::default() || !self.listed(|files| files.contains_key(&name)) {
            return Ok(here);
        }
        let text = self.fetch_small(cx, &name).await?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::new(Kind::Damaged, format!("{}/{name} is damaged", self.describe())).with_source(error)
        })
    }

    async fn put_notes(&self, _cx: &Context, unit: &Unit, _notes: &Notes) -> Result<()> {
        self.with(|state| state.queue.insert(unit.clone()));
        Ok(())
    }
}

fn scratch() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("cdrvault-")
        .tempdir()
        .map_err(|error| Error::failed("cannot make a temporary directory").with_source(error))
}
