//! The four steps of publishing: keep the old object, make the new one live, check it, write the receipt.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cdrvault_pipeline::durable::{self, How};
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::manifest::{Content, Manifest, Notes, StoredObject};
use cdrvault_pipeline::partition::Unit;
use cdrvault_pipeline::sink::{Live, LiveObject, Sealed};
use cdrvault_pipeline::{failpoint, layout};
use jiff::Timestamp;

use super::{Place, reading};

/// See [`cdrvault_pipeline::sink::Sink::publish`].
pub(super) fn publish(place: &Place, sealed: &Sealed, over: &Live) -> Result<Manifest> {
    let unit = &sealed.manifest.unit;
    let now = reading::live(place, unit)?;
    if let Some(manifest) = &now.manifest
        && manifest.generation == sealed.manifest.generation
    {
        return again(manifest, sealed, &now);
    }
    if now.generation() != over.generation() {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "{unit}: generation {} is live in {}, and {} was when this one was begun",
                now.generation(),
                place.root.display(),
                over.generation()
            ),
        )
        .hint("another run writes into this vault; see which, and let only one do it"));
    }
    match &sealed.manifest.content {
        Content::Object(object) => publish_object(place, sealed, object, &now)?,
        Content::Tree { entries } => {
            for stored in reading::bodies(entries) {
                put_body(place, sealed, &stored.sha256, stored.bytes)?;
            }
        }
    }
    failpoint::hit("after-check")?;
    let receipt = Manifest {
        received: Some(Timestamp::now()),
        replaced: now.manifest.as_ref().map(|manifest| manifest.generation),
        ..sealed.manifest.clone()
    };
    let path = place.make(&layout::manifest(unit, receipt.generation)?)?;
    let text = serde_json::to_vec(&receipt)
        .map_err(|error| Error::failed("cannot write a receipt as JSON").with_source(error))?;
    durable::create(&path, &place.how, |file| file.write_all(&text))?;
    failpoint::hit("after-receipt")?;
    Ok(receipt)
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

fn publish_object(place: &Place, sealed: &Sealed, object: &StoredObject, now: &Live) -> Result<()> {
    let unit = &sealed.manifest.unit;
    let path = place.make(&object.path)?;
    let there = match &now.object {
        LiveObject::Missing => reading::state_of(place, object)?,
        LiveObject::Intact => match &now.manifest {
            Some(live) => LiveObject::Other { sha256: live_sha256(live).unwrap_or_default().to_owned() },
            None => LiveObject::Missing,
        },
        other => other.clone(),
    };
    let is_live = match &there {
        LiveObject::Missing => false,
        LiveObject::Intact => true,
        LiveObject::Other { sha256 } => *sha256 == object.sha256,
    };
    // A run that ended between commit and receipt: what it made live is exactly this.
    if !is_live {
        if let LiveObject::Other { sha256 } = &there {
            keep_old(place, unit, sealed, now, sha256, &path)?;
        }
        failpoint::hit("after-version")?;
        let body = sealed.bodies.get(&object.sha256).ok_or_else(|| no_body(unit))?;
        let how = How { modified: Some(later_than(&path)), ..place.how };
        durable::adopt(body, &path, &how, place.links())?;
        failpoint::hit("after-live")?;
    }
    if reading::hash(&path)? == object.sha256 {
        return Ok(());
    }
    Err(Error::new(Kind::Damaged, format!("{} gives other bytes back than were written", path.display()))
        .hint("check the disk and the memory of this machine"))
}

/// The old live object stays, under a name of its own, until a retention rule removes it.
fn keep_old(place: &Place, unit: &Unit, sealed: &Sealed, now: &Live, sha256: &str, path: &Path) -> Result<()> {
    let attributed = now.manifest.as_ref().filter(|live| live_sha256(live) == Some(sha256));
    let name = match attributed {
        // Read before the day ended: its successor has the same calls, and more.
        Some(live) if live.open && sealed.manifest.rows >= live.rows => return Ok(()),
        Some(live) => layout::version(unit, live.generation, sha256)?,
        None => {
            tracing::warn!("{} is not what its receipt says; it is kept beside the new one", path.display());
            layout::unattributed(unit, sha256)?
        }
    };
    durable::keep(path, &place.make(&name)?, place.links())
}

fn live_sha256(manifest: &Manifest) -> Option<&str> {
    match &manifest.content {
        Content::Object(object) => Some(&object.sha256),
        Content::Tree { .. } => None,
    }
}

/// Mirrors compare size and whole seconds: a new object must be later than the old one, or they do not see it.
fn later_than(path: &Path) -> SystemTime {
    let now = SystemTime::now();
    let old = std::fs::symlink_metadata(path).and_then(|found| found.modified());
    match old {
        Ok(old) => now.max(old + Duration::from_secs(1)),
        Err(_) => now,
    }
}

/// Bodies are create-only: their name is their hash.
fn put_body(place: &Place, sealed: &Sealed, sha256: &str, bytes: u64) -> Result<()> {
    let path = place.make(&layout::object(sha256)?)?;
    let of_length =
        |bytes: u64| std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == bytes);
    if of_length(bytes) {
        return Ok(());
    }
    let body = sealed.bodies.get(sha256).ok_or_else(|| no_body(&sealed.manifest.unit))?;
    // A body of another length under this name is damage, and is replaced by what it should be.
    durable::adopt(body, &path, &place.how, place.links())?;
    if reading::hash(&path)? == sha256 {
        return Ok(());
    }
    Err(Error::new(Kind::Damaged, format!("{} gives other bytes back than were written", path.display()))
        .hint("check the disk and the memory of this machine"))
}

fn no_body(unit: &Unit) -> Error {
    Error::failed(format!("{unit}: a body is neither in the vault nor in the spool"))
}

/// Replaces what is noted of a unit.
pub(super) fn put_notes(place: &Place, unit: &Unit, notes: &Notes) -> Result<()> {
    let path = place.make(&layout::notes(unit)?)?;
    let text =
        serde_json::to_vec(notes).map_err(|error| Error::failed("cannot write notes as JSON").with_source(error))?;
    durable::replace(&path, &place.how, |file| file.write_all(&text))
}
