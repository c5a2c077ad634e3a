//! What a vault holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use cdrvault_format::entry::{Entry, StoredBody};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::index::Index;
use cdrvault_format::manifest::{Content, FORMAT, Manifest, Notes, StoredObject};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_format::{checksum, layout};
use cdrvault_plugin::payload::{Body, Object, ObjectStream};
use cdrvault_plugin::sink::{Held, Live, LiveObject};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::{Seen, Store};

/// The highest generation of each partition, from names alone.
pub(super) async fn index(
    store: &impl Store,
    dataset: &str,
    recorded: Option<&Index>,
) -> Result<BTreeMap<Partition, Held>> {
    let history = history(store, dataset).await?;
    let objects = store.tree(&layout::live_directory(dataset)?).await?;
    let mut bodies = None;
    let mut index = BTreeMap::new();
    for (partition, generations) in history {
        let Some(generation) = generations.last().copied() else { continue };
        let unit = Unit::new(dataset, partition);
        // A day has one file of its name; only of other units the receipt must be opened to know the name.
        let object_there = if layout::rows_path(&unit)?.is_some_and(|rows| named_so(&objects, &rows).count() == 1) {
            true
        } else {
            match manifest(store, &unit, generation).await.map(|manifest| manifest.content) {
                // Nobody knows what it names. One damaged receipt must not stop the others.
                Err(error) if error.kind() == Kind::Damaged => false,
                Err(error) => return Err(error),
                Ok(Content::Object(object)) => objects.contains_key(&object.path),
                Ok(Content::Tree { entries }) => {
                    if bodies.is_none() {
                        bodies = Some(all_bodies(store).await?);
                    }
                    let has = |stored: &StoredBody| {
                        bodies.as_ref().is_some_and(|bodies| bodies.get(&stored.sha256) == Some(&stored.bytes))
                    };
                    bodies_of(&entries).all(has)
                }
            }
        };
        index.insert(partition, Held { generation, object_there });
    }
    // What lost its newest receipt is not held, whatever is left of it.
    for partition in recorded.iter().flat_map(|index| index.generations.keys()).copied() {
        let newest = recorded.and_then(|index| index.newest(partition)).unwrap_or(0);
        if index.get(&partition).is_none_or(|held| held.generation < newest) {
            index.insert(partition, Held { generation: newest, object_there: false });
        }
    }
    Ok(index)
}

/// The generations of each partition that have a receipt, in order.
pub(super) async fn history(store: &impl Store, dataset: &str) -> Result<BTreeMap<Partition, Vec<u32>>> {
    let receipts = layout::manifests_of(dataset)?;
    let names = store.tree(&receipts).await?;
    Ok(history_of(names.keys().filter_map(|name| name.strip_prefix(&receipts))))
}

/// The same, from the names below the receipts of a dataset.
pub(crate) fn history_of<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<Partition, Vec<u32>> {
    let mut history: BTreeMap<Partition, Vec<u32>> = BTreeMap::new();
    for (partition, generation) in names.filter_map(receipt_of) {
        history.entry(partition).or_default().push(generation);
    }
    for generations in history.values_mut() {
        generations.sort_unstable();
    }
    history
}

/// `/2026-01-15/g0007.json`, below the receipts of a dataset.
fn receipt_of(below: &str) -> Option<(Partition, u32)> {
    let (partition, name) = below.strip_prefix('/')?.split_once('/')?;
    Some((partition.parse().ok()?, layout::parse_manifest_name(name)?))
}

/// Those of the names that are of the rows of a day, whatever encodes them.
fn named_so<'a>(names: &'a BTreeMap<String, u64>, rows: &'a str) -> impl Iterator<Item = &'a String> {
    let from = names.range::<str, _>((Bound::Included(rows), Bound::Unbounded)).map(|(name, _)| name);
    from.take_while(move |name| name.starts_with(rows)).filter(move |name| layout::is_rows_path(name, rows))
}

/// The generations of a unit that have a receipt, in order.
pub(super) async fn generations(store: &impl Store, unit: &Unit) -> Result<Vec<u32>> {
    let names = store.names(&layout::manifest_directory(unit)?).await?;
    let mut generations: Vec<u32> = names.iter().filter_map(|name| layout::parse_manifest_name(name)).collect();
    generations.sort_unstable();
    Ok(generations)
}

pub(super) fn bodies_of(entries: &[Entry]) -> impl Iterator<Item = &StoredBody> {
    entries.iter().filter_map(|entry| entry.stored.as_ref())
}

/// Every content-addressed body, with its length.
pub(super) async fn all_bodies(store: &impl Store) -> Result<BTreeMap<String, u64>> {
    let files = store.tree(layout::OBJECTS).await?;
    let bodies = files.into_iter().filter_map(|(name, bytes)| {
        let sha256 = name.rsplit('/').next()?.to_owned();
        (layout::object(&sha256).ok()? == name).then_some((sha256, bytes))
    });
    Ok(bodies.collect())
}

/// The directories that look like days of a dataset, whether or not there is a receipt.
pub(super) async fn days_in_sight(store: &impl Store) -> Result<Vec<String>> {
    let mut datasets = Vec::new();
    for name in store.names("").await? {
        if layout::live_directory(&name).is_err() {
            continue;
        }
        match store.names(&name).await {
            Ok(below) if below.iter().any(|name| name.starts_with("day=")) => datasets.push(name),
            // A file, or a directory of somebody else's.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(datasets)
}

/// What was found under a name.
pub(super) struct Looked {
    pub(super) name: String,
    pub(super) seen: Option<Seen>,
}

impl Looked {
    async fn at(store: &impl Store, name: String) -> Result<Self> {
        let seen = store.look(&name).await?;
        Ok(Self { name, seen })
    }
}

/// The newest receipt, and what lies under the live name, if one object does, also as the store knows it.
pub(super) async fn live(store: &impl Store, unit: &Unit, recorded: Option<u32>) -> Result<(Live, Option<Looked>)> {
    let mut generations = generations(store, unit).await?;
    // Its receipt was lost: the number is used up, and nobody knows what was live.
    if let Some(recorded) = recorded.filter(|recorded| generations.last().is_none_or(|newest| newest < recorded)) {
        return unknown(store, unit, recorded, &generations).await;
    }
    let Some(generation) = generations.pop() else {
        // A first generation may have been made live and got no receipt.
        let Some(name) = layout::rows_path(unit)? else { return Ok((Live::NOTHING, None)) };
        let looked = Looked::at(store, name).await?;
        let other = |seen: &Seen| LiveObject::Other { sha256: seen.sha256.clone() };
        let object = looked.seen.as_ref().map_or(LiveObject::Missing, other);
        return Ok((Live { manifest: None, object }, Some(looked)));
    };
    let manifest = match manifest(store, unit, generation).await {
        Err(error) if error.kind() == Kind::Damaged => return unknown(store, unit, generation, &generations).await,
        other => other?,
    };
    let (object, looked) = match &manifest.content {
        Content::Object(object) => {
            let looked = Looked::at(store, object.path.clone()).await?;
            let state = match &looked.seen {
                None => LiveObject::Missing,
                Some(seen) if seen.sha256 == object.sha256 => LiveObject::Intact,
                Some(seen) => LiveObject::Other { sha256: seen.sha256.clone() },
            };
            (state, Some(looked))
        }
        Content::Tree { entries } => {
            let bodies = all_bodies(store).await?;
            let whole = bodies_of(entries).all(|stored| bodies.get(&stored.sha256) == Some(&stored.bytes));
            (if whole { LiveObject::Intact } else { LiveObject::Missing }, None)
        }
    };
    Ok((Live { manifest: Some(Arc::new(manifest)), object }, looked))
}

/// See [`cdrvault_plugin::sink::Vault::nameless`].
pub(super) async fn nameless(store: &impl Store, unit: &Unit) -> Result<Option<StoredObject>> {
    let (live, looked) = live(store, unit, None).await?;
    let (sha256, name) = match (live.object, looked) {
        (LiveObject::Other { sha256 }, Some(Looked { name, .. })) => (sha256, name),
        (LiveObject::Missing, _) => {
            // Without its receipt nothing but its name tells what encodes it.
            let Some(rows) = layout::rows_path(unit)? else { return Ok(None) };
            let objects = store.tree(&layout::live_directory(&unit.dataset)?).await?;
            let Some(name) = named_so(&objects, &rows).next() else { return Ok(None) };
            let Some(seen) = store.look(name).await? else { return Ok(None) };
            (seen.sha256, name.clone())
        }
        _ => return Ok(None),
    };
    let bytes = store.length(&name).await?;
    Ok(bytes.map(|bytes| StoredObject { path: name, bytes, sha256, data_sha256: None, encodings: Vec::new() }))
}

/// The newest receipt is damaged or lost: the next generation is published over it, and compared with the one before.
async fn unknown(store: &impl Store, unit: &Unit, newest: u32, older: &[u32]) -> Result<(Live, Option<Looked>)> {
    let mut before = None;
    for generation in older.iter().rev() {
        match manifest(store, unit, *generation).await {
            Ok(manifest) => {
                before = Some(Arc::new(manifest));
                break;
            }
            Err(error) if error.kind() == Kind::Damaged => {}
            Err(error) => return Err(error),
        }
    }
    Ok((Live { manifest: before, object: LiveObject::Unknown { generation: newest } }, None))
}

/// One receipt.
pub(super) async fn manifest(store: &impl Store, unit: &Unit, generation: u32) -> Result<Manifest> {
    let name = layout::manifest(unit, generation)?;
    let text = store.small(&name).await?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("{unit} has no generation {generation} in {}", store.describe()))
    })?;
    parse_manifest(&store.show(&name), &text, unit, generation)
}

#[derive(serde::Deserialize)]
struct Versioned {
    format: u32,
}

/// A receipt's content, if it is that of this generation.
pub(crate) fn parse_manifest(shown: &str, text: &[u8], unit: &Unit, generation: u32) -> Result<Manifest> {
    let damaged = |why: String| Error::new(Kind::Damaged, format!("the receipt {shown}: {why}"));
    // A newer format may have other fields, and ends with its checksum as well: a flipped bit is not a newer format.
    let format = serde_json::from_slice::<Versioned>(text).map_or(0, |versioned| versioned.format);
    if format > FORMAT && checksum::check_if_sealed(text).is_ok() {
        return Err(Error::new(Kind::Refused, format!("{shown} has the newer format {format}"))
            .hint("use a newer cdrvault for this vault"));
    }
    let manifest = Manifest::of_receipt(text).map_err(damaged)?;
    if manifest.unit != *unit || manifest.generation != generation {
        return Err(damaged(format!("it is that of {} generation {}", manifest.unit, manifest.generation)));
    }
    Ok(manifest)
}

/// What is noted of a unit.
pub(super) async fn notes(store: &impl Store, unit: &Unit) -> Result<Notes> {
    let name = layout::notes(unit)?;
    let Some(text) = store.small(&name).await? else { return Ok(Notes::default()) };
    match Notes::of_text(&text) {
        Ok(notes) => Ok(notes),
        // Whatever is noted next replaces them.
        Err(why) => {
            tracing::warn!("{}: {why}; no generation of {unit} is pruned until `prune --release`", store.show(&name));
            Ok(Notes::unreadable(&generations(store, unit).await?, Timestamp::now()))
        }
    }
}

/// See [`cdrvault_plugin::sink::Vault::damaged_notes`].
pub(super) async fn damaged_notes(
    store: &impl Store,
    datasets: &BTreeSet<String>,
) -> Result<Vec<(Option<Unit>, String)>> {
    let mut damaged = Vec::new();
    for name in [layout::IDENTITY, layout::IDENTITY_COPY] {
        if let Some(text) = store.small(name).await?
            && let Err(error) = super::identity::parse(&store.show(name), &text)
        {
            damaged.push((None, error.one_line()));
        }
    }
    for dataset in datasets {
        let name = layout::index(dataset)?;
        if let Some(text) = store.small(&name).await?
            && let Err(why) = Index::of_text(&text, dataset)
        {
            damaged.push((None, format!("{}: {why}", store.show(&name))));
        }
        let directory = layout::notes_of(dataset)?;
        for name in store.tree(&directory).await?.into_keys() {
            let of = name.strip_prefix(&directory).and_then(|rest| rest.strip_prefix('/')?.strip_suffix(".json"));
            let Some(partition) = of.and_then(|partition| partition.parse::<Partition>().ok()) else { continue };
            if let Some(text) = store.small(&name).await?
                && let Err(why) = Notes::of_text(&text)
            {
                damaged.push((Some(Unit::new(dataset, partition)), format!("{}: {why}", store.show(&name))));
            }
        }
    }
    Ok(damaged)
}

/// The objects of a generation, live or kept, whose hashes are checked before or while they stream.
pub(super) async fn objects<S: Store>(store: Arc<S>, manifest: &Manifest) -> Result<ObjectStream> {
    match &manifest.content {
        Content::Object(object) => {
            let body = body_of(&*store, manifest, object).await?;
            let file_name = object.path.rsplit('/').next().unwrap_or(&object.path);
            let mut entry = Entry::object(file_name);
            entry.stored = Some(StoredBody {
                sha256: object.sha256.clone(),
                bytes: object.bytes,
                encodings: object.encodings.clone(),
            });
            Ok(stream::iter([Ok(Object { entry, body })]).boxed())
        }
        Content::Tree { entries } => {
            // One at a time, when it is asked for: each may be a connection.
            let objects = stream::iter(entries.clone()).then(move |entry| {
                let store = Arc::clone(&store);
                async move {
                    let body = match &entry.stored {
                        None => Body::None,
                        Some(stored) => store.body(&layout::object(&stored.sha256)?, &stored.sha256).await?,
                    };
                    Ok(Object { entry, body })
                }
            });
            Ok(objects.boxed())
        }
    }
}

/// The bytes of an object, under whichever of its two names it is.
async fn body_of(store: &impl Store, manifest: &Manifest, object: &StoredObject) -> Result<Body> {
    let kept = layout::version(&manifest.unit, manifest.generation, &object.sha256)?;
    for name in [&object.path, &kept] {
        // Another length is known without reading.
        if store.length(name).await? != Some(object.bytes) || !store.may_be(name, &object.sha256).await? {
            continue;
        }
        match store.body(name, &object.sha256).await {
            Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotFound) => {}
            body => return body,
        }
    }
    Err(Error::new(
        Kind::Damaged,
        format!("{} generation {} is missing or damaged in {}", manifest.unit, manifest.generation, store.describe()),
    ))
}
