//! Mirrors: a copy of a local vault at a far end. What is published is only noted; one transfer at the end of a run
//! brings it there. The local vault says what a generation is, the far end says what it has.

mod identity;
mod index;
mod moment;
mod past;
mod process;
mod rdiff;
mod receipts;
mod rsync;
mod sending;
mod ssh;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::index::Index;
use cdrvault_format::manifest::{Content, Manifest, Notes};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_format::{failpoint, layout};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Body, Object, ObjectStream, file_stream};
use cdrvault_plugin::registry::Around;
use cdrvault_plugin::scratch::Scratch;
use cdrvault_plugin::sink::{Capabilities, Expected, Held, Identity, Live, LiveObject, Mirror, Place, Sealed, Vault};

use futures::StreamExt as _;
use jiff::Timestamp;

use crate::{local, vault};

use moment::{Moment, below};
pub(crate) use rdiff::plugin as rdiff_plugin;
pub(crate) use rsync::plugin as rsync_plugin;
pub(crate) use transport::Found;
use transport::{Listing, Parcel, Transport};

/// By dataset, as the far end has them; what cannot be understood, with the reason.
type Indexes = BTreeMap<String, Result<Index, String>>;

/// Sent and removed again to find out whether we may: a name that rsync itself leaves when it is killed.
const PROBE: &str = ".cdrvault/.probe.json.tryout";

/// A copy of a local vault.
pub(crate) struct MirroredVault<T> {
    transport: T,
    around: Around,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the far end holds, as it was told.
    listing: Option<Listing>,
    /// Which receipts the far end must have.
    indexes: Indexes,
    /// What is noted, and not sent.
    queue: BTreeSet<Unit>,
    /// What is to be removed there.
    removals: Vec<String>,
    identity_differs: bool,
    /// What was expected of the far end when it was opened.
    expect: Expected,
    /// Receipts that only the far end has, by name.
    receipts: BTreeMap<String, Vec<u8>>,
    /// Vaults with objects that were brought here to be read. They stay as long as somebody reads from them.
    ahead: Vec<Arc<Scratch>>,
    /// The sessions of a far end that keeps history itself, until there is a new one.
    sessions: Option<Arc<Vec<i64>>>,
    /// What was there after some of them.
    past: BTreeMap<i64, Arc<Listing>>,
    /// Those whose receipts count beside those of now.
    remembered: BTreeMap<i64, Arc<Listing>>,
}

impl<T: Transport> MirroredVault<T> {
    fn new(transport: T, around: &Around) -> Self {
        Self { transport, around: around.clone(), state: Mutex::default() }
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mirrored(&self) -> Result<(&Arc<dyn Vault>, &Path)> {
        let sink = self.around.mirrored.as_ref().ok_or_else(|| Error::failed("a mirror of nothing"))?;
        let root = sink.root().ok_or_else(|| Error::failed("only a vault in a directory can be mirrored"))?;
        Ok((sink, root))
    }

    fn listed<R>(&self, work: impl FnOnce(&Listing) -> R) -> R {
        self.with(|state| work(state.listing.get_or_insert_default()))
    }

    fn history_of(&self, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
        let receipts = layout::manifests_of(dataset)?;
        let mut history = self.with(|state| {
            let remembered = state.remembered.values().map(|files| &**files);
            let all = state.listing.iter().chain(remembered);
            vault::history_of(all.flat_map(|files| below(files, &receipts)))
        });
        for generations in history.values_mut() {
            generations.dedup();
        }
        Ok(history)
    }

    /// In which state of the far end a receipt is: that of now, or one that is remembered.
    fn moment_of(&self, name: &str) -> Option<Moment> {
        self.with(|state| {
            if state.listing.as_ref().is_some_and(|files| files.contains_key(name)) {
                return Some(Moment::Now);
            }
            let remembered = state.remembered.iter().find(|(_, files)| files.contains_key(name));
            remembered.map(|(session, _)| Moment::After(*session))
        })
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
}

#[async_trait]
impl<T: Transport> Place for MirroredVault<T> {
    fn describe(&self) -> String {
        self.transport.describe()
    }

    fn clock_offset(&self) -> Option<i64> {
        self.transport.clock_offset()
    }

    fn is_made(&self) -> bool {
        self.listed(|files| files.contains_key(layout::IDENTITY))
    }

    async fn try_write(&self, cx: &Context) -> Result<bool> {
        match self.with(|state| state.listing.clone()) {
            Some(listing) => self.transport.try_write(cx, &listing).await,
            // The place is made by the first transfer, and nothing could take it away again.
            None => Ok(false),
        }
    }

    async fn try_remove(&self, cx: &Context) -> Result<()> {
        self.transport.remove(cx, &[PROBE.to_owned()]).await
    }
}

#[async_trait]
impl<T: Transport> Vault for MirroredVault<T> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { mirror: true, ..self.transport.capabilities() }
    }

    async fn open(&self, cx: &Context, expect: &Expected, dry_run: bool) -> Result<Identity> {
        let mut found = self.transport.list(cx).await?;
        if found.interrupted && !dry_run {
            self.check_may_heal(cx, expect).await?;
            self.transport.heal(cx).await?;
            found = self.transport.list(cx).await?;
        }
        let mut listing = found.listing;
        if expect.reading {
            let Some(listing) = listing.filter(|listing| listing.contains_key(layout::IDENTITY)) else {
                return Err(vault::no_vault(&self.describe()));
            };
            self.with(|state| state.listing = Some(listing.clone()));
            return self.identity(cx, &listing).await.map(|(identity, _)| identity);
        }
        let same = self.check_identity(cx, expect, listing.as_ref()).await?;
        if !dry_run {
            self.check_not_itself(cx, listing.as_ref()).await?;
        }
        if let Some(listing) = &mut listing {
            let mut leftovers = self.transport.leftovers(listing);
            // Nothing but ours is touched in a place that others use, too.
            let private = format!("{}/", layout::PRIVATE);
            let ours = |name: &str| self.around.datasets.iter().any(|dataset| name.starts_with(&format!("{dataset}/")));
            leftovers.retain(|name| name.starts_with(&private) || ours(name));
            if !leftovers.is_empty() && !dry_run {
                self.transport.remove(cx, &leftovers).await?;
            }
            listing.retain(|name, _| !leftovers.contains(name));
        }
        self.with(|state| {
            state.listing = listing;
            state.identity_differs = !same;
            state.expect = expect.clone();
        });
        expect.mirrored.clone().ok_or_else(|| Error::failed("what this mirrors has no identity"))
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
        let names: BTreeSet<String> = self.with(|state| {
            let remembered = state.remembered.values().map(|files| &**files);
            let indexed = state.indexes.keys().cloned();
            // All receipts of a dataset may be lost.
            state.listing.iter().chain(remembered).flat_map(datasets_in).chain(indexed).collect()
        });
        Ok(Vec::from_iter(names))
    }

    async fn history(&self, _cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
        self.history_of(dataset)
    }

    async fn recorded(&self, cx: &Context, dataset: &str) -> Result<Option<Index>> {
        let standing = self.history_of(dataset)?;
        match self.known_index(dataset)? {
            Some(index) if !index.lost(&standing).is_empty() => {
                self.look_again(cx).await?;
                self.known_index(dataset)
            }
            other => Ok(other),
        }
    }

    async fn record(&self, cx: &Context, dataset: &str) -> Result<()> {
        // What is noted is recorded when it was sent.
        if self.with(|state| !state.queue.is_empty()) {
            return Ok(());
        }
        self.add_to_indexes(cx, &BTreeSet::from([dataset])).await
    }

    async fn unrecord(&self, cx: &Context, gone: &[(Unit, u32)]) -> Result<()> {
        self.take_from_indexes(cx, gone).await
    }

    async fn damaged_notes(&self, _cx: &Context, datasets: &BTreeSet<String>) -> Result<Vec<(Option<Unit>, String)>> {
        let mut damaged = Vec::new();
        for dataset in datasets {
            if let Err(error) = self.known_index(dataset) {
                damaged.push((None, error.one_line()));
            }
        }
        Ok(damaged)
    }

    async fn live(&self, cx: &Context, unit: &Unit) -> Result<Live> {
        let Some(generation) = self.listed(|files| moment::newest_in(files, unit))? else { return Ok(Live::NOTHING) };
        let manifest = self.receipt(cx, unit, generation).await?;
        // Its bytes were compared when they were sent.
        let object = if self.has_objects(&manifest)? { LiveObject::Intact } else { LiveObject::Missing };
        Ok(Live { manifest: Some(Arc::new(manifest)), object })
    }

    async fn manifest(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        if self.moment_of(&layout::manifest(unit, generation)?).is_none() {
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

    async fn read(&self, cx: &Context, manifest: &Manifest) -> Result<ObjectStream> {
        for here in self.with(|state| state.ahead.clone()) {
            if let Ok(objects) = local::vault_in(here.path()).read(cx, manifest).await {
                // It stays as long as this sink.
                return Ok(objects);
            }
        }
        let (directory, objects) = self.fetch_objects(cx, manifest).await?;
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
        if self.moment(cx, &sealed.manifest).await? != Some(Moment::Now) {
            let message =
                format!("{unit} generation {} is in its history, which nobody can change", sealed.manifest.generation);
            return Err(Error::new(Kind::Refused, message));
        }
        let mut parcel = self.parcel(cx, &BTreeSet::from([unit.clone()])).await?;
        // A parcel has the receipts that the far end lacks; this one may be older.
        let receipt = layout::manifest(unit, sealed.manifest.generation)?;
        if !parcel.receipts.contains(&receipt) && root.join(&receipt).is_file() {
            parcel.receipts.push(receipt);
        }
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

    /// Those of the local vault, with which they travel; those of the far end, where the local vault was lost.
    async fn notes(&self, cx: &Context, unit: &Unit) -> Result<Notes> {
        let name = layout::notes(unit)?;
        if let Ok((mirrored, root)) = self.mirrored() {
            let here = mirrored.notes(cx, unit).await?;
            // Notes that say nothing any more are notes, too: a pin was released.
            if root.join(&name).exists() || here != Notes::default() {
                return Ok(here);
            }
        }
        if !self.listed(|files| files.contains_key(&name)) {
            return Ok(Notes::default());
        }
        let text = self.fetch_small(cx, &name, Moment::Now).await?;
        Notes::of_text(&text).or_else(|why| {
            tracing::warn!("{}/{name}: {why}", self.describe());
            let history = self.history_of(&unit.dataset)?;
            let generations = history.get(&unit.partition).cloned().unwrap_or_default();
            Ok(Notes::unreadable(&generations, Timestamp::now()))
        })
    }

    async fn put_notes(&self, _cx: &Context, unit: &Unit, _notes: &Notes) -> Result<()> {
        self.with(|state| state.queue.insert(unit.clone()));
        Ok(())
    }

    fn mirror(&self) -> Option<&dyn Mirror> {
        Some(self)
    }
}

#[async_trait]
impl<T: Transport> Mirror for MirroredVault<T> {
    async fn flush(&self, cx: &Context) -> Result<()> {
        // What is noted from now on travels with the next flush.
        let (queue, differs) = self.with(|state| (std::mem::take(&mut state.queue), state.identity_differs));
        if !queue.is_empty() || differs {
            let (_, root) = self.mirrored()?;
            let sending = async {
                if differs {
                    // It may be another vault's by now.
                    let expect = self.with(|state| state.expect.clone());
                    self.check_identity(cx, &expect, self.transport.list(cx).await?.listing.as_ref()).await?;
                }
                self.check_source(cx).await?;
                if self.capabilities().native_history {
                    self.check_untouched(cx, &queue).await?;
                }
                let parcel = self.parcel(cx, &queue).await?;
                self.with(|state| state.sessions = None);
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
            failpoint::hit("before-mirror-index")?;
            // Of what is there by now: a receipt that is named before it came would count as lost.
            let datasets = queue.iter().map(|unit| unit.dataset.as_str()).collect();
            if let Err(error) = self.add_to_indexes(cx, &datasets).await {
                self.with(|state| state.queue.extend(queue));
                return Err(error);
            }
        }
        let removals = self.with(|state| state.removals.clone());
        if !removals.is_empty() {
            self.transport.remove(cx, &removals).await?;
            self.with(|state| state.removals.clear());
        }
        Ok(())
    }

    async fn prefetch(&self, cx: &Context, manifests: &[Manifest]) -> Result<()> {
        self.fetch_ahead(cx, manifests).await
    }

    async fn still_has(&self, cx: &Context, manifest: &Manifest) -> Result<bool> {
        Ok(self.moment(cx, manifest).await?.is_some())
    }

    async fn look_back(&self, cx: &Context, at: Timestamp) -> Result<()> {
        if self.capabilities().native_history { self.remember(cx, at).await } else { Ok(()) }
    }

    async fn forget_history(&self, cx: &Context, before: Timestamp) -> Result<()> {
        self.check_source(cx).await?;
        self.forget(cx, before).await
    }
}

/// The datasets that have a receipt.
fn datasets_in(files: &Listing) -> BTreeSet<String> {
    let prefix = format!("{}/", layout::MANIFESTS);
    let of = |name: &String| name.strip_prefix(&prefix)?.split_once('/').map(|(dataset, _)| dataset.to_owned());
    files.keys().filter_map(of).filter(|name| layout::manifests_of(name).is_ok()).collect()
}
