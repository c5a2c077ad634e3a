//! The four steps of publishing: keep the old object, make the new one live, check it, write the receipt.

use std::collections::BTreeMap;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Content, Manifest, Notes, StoredObject};
use cdrvault_format::partition::Unit;
use cdrvault_format::{failpoint, layout};
use cdrvault_plugin::sink::{Live, LiveObject, Sealed};
use jiff::Timestamp;

use super::reading::{self, Looked};
use super::{Seen, Store};

/// See [`cdrvault_plugin::sink::Vault::publish`].
pub(super) async fn publish(
    store: &impl Store,
    sealed: &Sealed,
    over: &Live,
    recorded: Option<u32>,
) -> Result<Manifest> {
    let unit = &sealed.manifest.unit;
    let (now, looked) = reading::live(store, unit, recorded).await?;
    if let Some(manifest) = &now.manifest
        && manifest.generation == sealed.manifest.generation
    {
        if manifest.content == sealed.manifest.content && now.object != LiveObject::Intact {
            // Its object was lost or damaged: the same bytes again, under the same receipt.
            let manifest = Manifest::clone(manifest);
            put_content(store, sealed, &now, looked).await?;
            return Ok(manifest);
        }
        return again(manifest, sealed, &now);
    }
    if now.generation() != over.generation() {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "{unit}: generation {} is live in {}, and {} was when this one was begun",
                now.generation(),
                store.describe(),
                over.generation()
            ),
        )
        .hint("another run writes into this vault; see which, and let only one do it"));
    }
    let elsewhere = renamed(sealed, &now, looked.as_ref());
    put_content(store, sealed, &now, looked).await?;
    failpoint::hit("after-check")?;
    let receipt = Manifest {
        received: Some(Timestamp::now()),
        replaced: Some(now.generation()).filter(|older| *older > 0 && *older < sealed.manifest.generation),
        ..sealed.manifest.clone()
    };
    let text =
        receipt.to_receipt().map_err(|error| Error::failed("cannot write a receipt as JSON").with_source(error))?;
    let name = layout::manifest(unit, receipt.generation)?;
    // What another sink holds under the number of the damaged receipt comes back with its receipt.
    if now.object == (LiveObject::Unknown { generation: receipt.generation }) {
        store.replace(&name, text).await?;
        return Ok(receipt);
    }
    match store.create(&name, text).await {
        // Somebody else was faster, or we were ourselves, and never heard of it.
        Err(error) if error.kind() == Kind::Conflict => {
            let (now, _) = reading::live(store, unit, recorded).await?;
            return match &now.manifest {
                Some(manifest) if manifest.generation == receipt.generation => again(manifest, sealed, &now),
                _ => Err(error),
            };
        }
        other => other?,
    }
    failpoint::hit("after-receipt")?;
    // Kept as a version by now, and a reader of all live objects is to find each row once.
    if let Some(name) = elsewhere {
        store.remove(&name).await?;
    }
    Ok(receipt)
}

/// The live name of the generation before, where an object lies, if the new one has another name: its encodings changed.
fn renamed(sealed: &Sealed, now: &Live, looked: Option<&Looked>) -> Option<String> {
    let (old, new) = (live_object(now.manifest.as_ref()?)?, live_object(&sealed.manifest)?);
    let is_there = looked.is_some_and(|looked| looked.name == old.path && looked.seen.is_some());
    (old.path != new.path && is_there).then(|| old.path.clone())
}

/// See [`cdrvault_plugin::sink::Vault::mend`].
pub(super) async fn mend(store: &impl Store, sealed: &Sealed, recorded: bool) -> Result<()> {
    let Manifest { unit, generation, content, .. } = &sealed.manifest;
    let receipt = layout::manifest(unit, *generation)?;
    let known = match store.small(&receipt).await? {
        // It was here, and nobody removed it on purpose.
        None => recorded.then_some(false),
        Some(text) => match reading::parse_manifest(&store.show(&receipt), &text, unit, *generation) {
            Err(error) if error.kind() != Kind::Damaged => return Err(error),
            parsed => Some(parsed.is_ok()),
        },
    };
    let mut wanted = BTreeMap::new();
    match content {
        Content::Object(object) => {
            let live = reading::generations(store, unit).await?.last().is_none_or(|newest| newest <= generation);
            let kept = layout::version(unit, *generation, &object.sha256)?;
            let name = if live { object.path.clone() } else { kept };
            let there = store.look(&name).await?;
            match there.as_ref().map(|there| &there.sha256) {
                None if known.is_none() => return Err(not_here(unit, *generation)),
                Some(other) if *other != object.sha256 && known.is_none() => return Err(not_here(unit, *generation)),
                // Without its receipt nobody knows whether it is damaged, or another content under the same number.
                Some(other) if *other != object.sha256 && known == Some(false) => {
                    if let Some(seen) = &there {
                        store.keep(&name, &layout::unattributed(unit, other)?, seen).await?;
                    }
                }
                _ => {}
            }
            wanted.insert(name, object.sha256.as_str());
        }
        Content::Tree { entries } => {
            for stored in reading::bodies_of(entries) {
                wanted.insert(layout::object(&stored.sha256)?, stored.sha256.as_str());
            }
        }
    }
    for (name, sha256) in wanted {
        let there = store.look(&name).await?;
        if there.as_ref().is_none_or(|there| there.sha256 != sha256) {
            let body = sealed.bodies.get(sha256).ok_or_else(|| no_body(unit))?;
            store.put(body, &name, sha256, there.as_ref()).await?;
        }
    }
    if known == Some(true) {
        return Ok(());
    }
    // With the times of the sink that it comes from: those of this one went with it.
    let text = sealed.manifest.to_receipt();
    let text = text.map_err(|error| Error::failed("cannot write a receipt as JSON").with_source(error))?;
    store.replace(&receipt, text).await
}

fn not_here(unit: &Unit, generation: u32) -> Error {
    Error::new(Kind::NotFound, format!("{unit} generation {generation} is not here")).hint("the next run brings it")
}

async fn put_content(store: &impl Store, sealed: &Sealed, now: &Live, looked: Option<Looked>) -> Result<()> {
    match &sealed.manifest.content {
        Content::Object(object) => publish_object(store, sealed, object, now, looked).await,
        Content::Tree { entries } => {
            let there = reading::all_bodies(store).await?;
            for stored in reading::bodies_of(entries) {
                put_body(store, sealed, &there, &stored.sha256, stored.bytes).await?;
            }
            Ok(())
        }
    }
}

/// The receipt is there already: we were here before, or somebody else was.
fn again(manifest: &Manifest, sealed: &Sealed, now: &Live) -> Result<Manifest> {
    if manifest.content == sealed.manifest.content && now.object == LiveObject::Intact {
        return Ok(manifest.clone());
    }
    Err(Error::new(
        Kind::Conflict,
        format!("{}: generation {} is there already, and is another one", manifest.unit, manifest.generation),
    )
    .hint("another run writes into this vault; see which, and let only one do it"))
}

async fn publish_object(
    store: &impl Store,
    sealed: &Sealed,
    object: &StoredObject,
    now: &Live,
    looked: Option<Looked>,
) -> Result<()> {
    let unit = &sealed.manifest.unit;
    if let (Some(name), Some(Looked { seen: Some(seen), .. })) = (renamed(sealed, now, looked.as_ref()), &looked) {
        keep_old(store, unit, sealed, now, seen, &name).await?;
    }
    let there = match looked {
        Some(looked) if looked.name == object.path => looked.seen,
        // The live name may be another one than that of the generation before.
        _ => store.look(&object.path).await?,
    };
    // A run that ended between commit and receipt: what it made live is exactly this.
    if there.as_ref().is_some_and(|there| there.sha256 == object.sha256) {
        return Ok(());
    }
    if let Some(there) = &there {
        keep_old(store, unit, sealed, now, there, &object.path).await?;
    }
    failpoint::hit("after-version")?;
    let body = sealed.bodies.get(&object.sha256).ok_or_else(|| no_body(unit))?;
    store.put(body, &object.path, &object.sha256, there.as_ref()).await?;
    failpoint::hit("after-live")
}

/// The old live object stays, under a name of its own, until a retention rule removes it.
async fn keep_old(
    store: &impl Store,
    unit: &Unit,
    sealed: &Sealed,
    now: &Live,
    there: &Seen,
    path: &str,
) -> Result<()> {
    let sha256 = there.sha256.as_str();
    let attributed = now.manifest.as_ref().filter(|live| live_object(live).is_some_and(|live| live.sha256 == sha256));
    let name = match attributed {
        // Read before the day ended: its successor has the same calls, and more.
        Some(live) if sealed.manifest.supersedes(live) => return Ok(()),
        Some(live) => layout::version(unit, live.generation, sha256)?,
        None => {
            tracing::warn!("{} is not what its receipt says; it is kept beside the new one", store.show(path));
            layout::unattributed(unit, sha256)?
        }
    };
    store.keep(path, &name, there).await
}

fn live_object(manifest: &Manifest) -> Option<&StoredObject> {
    match &manifest.content {
        Content::Object(object) => Some(object),
        Content::Tree { .. } => None,
    }
}

/// Bodies are create-only: their name is their hash. One of another length is damage, and is replaced.
async fn put_body(
    store: &impl Store,
    sealed: &Sealed,
    there: &BTreeMap<String, u64>,
    sha256: &str,
    bytes: u64,
) -> Result<()> {
    if there.get(sha256) == Some(&bytes) {
        return Ok(());
    }
    let body = sealed.bodies.get(sha256).ok_or_else(|| no_body(&sealed.manifest.unit))?;
    let name = layout::object(sha256)?;
    let damaged = if there.contains_key(sha256) { store.look(&name).await? } else { None };
    store.put(body, &name, sha256, damaged.as_ref()).await
}

fn no_body(unit: &Unit) -> Error {
    Error::failed(format!("{unit}: a body is neither in the vault nor in the spool"))
}

/// Replaces what is noted of a unit.
pub(super) async fn put_notes(store: &impl Store, unit: &Unit, notes: &Notes) -> Result<()> {
    let text = notes.to_text().map_err(|error| Error::failed("cannot write notes as JSON").with_source(error))?;
    store.replace(&layout::notes(unit)?, text).await
}
