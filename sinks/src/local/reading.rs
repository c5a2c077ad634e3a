//! What a vault holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use cdrvault_pipeline::entry::{Entry, StoredBody};
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::layout;
use cdrvault_pipeline::manifest::{Content, FORMAT, Manifest, Notes, StoredObject};
use cdrvault_pipeline::partition::{Partition, Unit};
use cdrvault_pipeline::payload::{Body, Object, ObjectStream};
use cdrvault_pipeline::sink::{Held, Live, LiveObject};
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::Place;

/// The highest generation of each partition, from names alone; one `stat` tells whether its object is there.
pub(super) fn index(place: &Place, dataset: &str) -> Result<BTreeMap<Partition, Held>> {
    let mut index = BTreeMap::new();
    let receipts = place.at(&layout::manifests_of(dataset)?)?;
    for name in names_in(&receipts)? {
        let Ok(partition) = name.parse::<Partition>() else { continue };
        let generations = names_in(&receipts.join(&name))?;
        let Some(generation) = generations.iter().filter_map(|name| layout::parse_manifest_name(name)).max() else {
            continue;
        };
        let unit = Unit::new(dataset, partition);
        index.insert(partition, Held { generation, object_there: is_there(place, &unit, generation)? });
    }
    Ok(index)
}

/// A day has one file of its name; only for other units the receipt must be opened to know the name.
fn is_there(place: &Place, unit: &Unit, generation: u32) -> Result<bool> {
    let guess = layout::live_path(unit, &format!("{}-{}.parquet", unit.dataset, unit.partition));
    if let (Some(_), Ok(path)) = (unit.partition.day(), guess)
        && is_file(&place.root.join(path))
    {
        return Ok(true);
    }
    Ok(match manifest(place, unit, generation)?.content {
        Content::Object(object) => is_file(&place.at(&object.path)?),
        Content::Tree { entries } => bodies(&entries).all(|stored| has_body(place, stored)),
    })
}

fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

pub(super) fn bodies(entries: &[Entry]) -> impl Iterator<Item = &StoredBody> {
    entries.iter().filter_map(|entry| entry.stored.as_ref())
}

/// Whether a body is there with its length. Its name is its hash, and it is never written twice.
pub(super) fn has_body(place: &Place, stored: &StoredBody) -> bool {
    let path = layout::object(&stored.sha256).and_then(|name| place.at(&name));
    path.is_ok_and(|path| {
        std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == stored.bytes)
    })
}

/// The newest receipt, and what lies under the live name.
pub(super) fn live(place: &Place, unit: &Unit) -> Result<Live> {
    let receipts = place.at(&layout::manifest_directory(unit)?)?;
    let generation = names_in(&receipts)?.iter().filter_map(|name| layout::parse_manifest_name(name)).max();
    let Some(generation) = generation else {
        return Ok(Live { manifest: None, object: unclaimed(place, unit)? });
    };
    let manifest = manifest(place, unit, generation)?;
    let object = match &manifest.content {
        Content::Object(object) => state_of(place, object)?,
        Content::Tree { entries } if bodies(entries).all(|stored| has_body(place, stored)) => LiveObject::Intact,
        Content::Tree { .. } => LiveObject::Missing,
    };
    Ok(Live { manifest: Some(Arc::new(manifest)), object })
}

/// A first generation that was made live and got no receipt.
fn unclaimed(place: &Place, unit: &Unit) -> Result<LiveObject> {
    let name = format!("{}-{}.parquet", unit.dataset, unit.partition);
    let path = place.at(&layout::live_path(unit, &name)?)?;
    if unit.partition.day().is_none() || !is_file(&path) {
        return Ok(LiveObject::Missing);
    }
    Ok(LiveObject::Other { sha256: hash(&path)? })
}

pub(super) fn state_of(place: &Place, object: &StoredObject) -> Result<LiveObject> {
    let path = place.at(&object.path)?;
    match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => {
            return Err(Error::new(Kind::Refused, format!("{} is no regular file", path.display()))
                .hint("the vault holds files only; see who put it there, and remove it"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(LiveObject::Missing),
        Err(error) => return Err(Error::io("look at", &path, error)),
    }
    let sha256 = hash(&path)?;
    Ok(if sha256 == object.sha256 { LiveObject::Intact } else { LiveObject::Other { sha256 } })
}

/// One receipt.
pub(super) fn manifest(place: &Place, unit: &Unit, generation: u32) -> Result<Manifest> {
    let path = place.at(&layout::manifest(unit, generation)?)?;
    let text = read_small(&path)?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("{unit} has no generation {generation} in {}", place.root.display()))
    })?;
    let damaged = |why: String| Error::new(Kind::Damaged, format!("the receipt {}: {why}", path.display()));
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if manifest.format > FORMAT {
        return Err(Error::new(Kind::Refused, format!("{} has the newer format {}", path.display(), manifest.format))
            .hint("use a newer cdrvault for this vault"));
    }
    if manifest.unit != *unit || manifest.generation != generation {
        return Err(damaged(format!("it is that of {} generation {}", manifest.unit, manifest.generation)));
    }
    Ok(manifest)
}

/// What is noted of a unit.
pub(super) fn notes(place: &Place, unit: &Unit) -> Result<Notes> {
    let path = place.at(&layout::notes(unit)?)?;
    match read_small(&path)? {
        None => Ok(Notes::default()),
        Some(text) => serde_json::from_slice(&text)
            .map_err(|error| Error::new(Kind::Damaged, format!("{} is damaged", path.display())).with_source(error)),
    }
}

/// The objects of a generation, live or kept; each was hashed before it is handed out.
pub(super) fn objects(place: &Place, manifest: &Manifest) -> Result<ObjectStream> {
    let mut objects = Vec::new();
    match &manifest.content {
        Content::Object(object) => {
            let live = place.at(&object.path)?;
            let kept = place.at(&layout::version(&manifest.unit, manifest.generation, &object.sha256)?)?;
            let path =
                [live, kept].into_iter().find(|path| is_file(path) && hash(path).is_ok_and(|h| h == object.sha256));
            let path = path.ok_or_else(|| {
                Error::new(
                    Kind::Damaged,
                    format!(
                        "{} generation {} is missing or damaged in {}",
                        manifest.unit,
                        manifest.generation,
                        place.root.display()
                    ),
                )
            })?;
            let name = object.path.rsplit('/').next().unwrap_or(&object.path);
            let mut entry = Entry::object(name);
            entry.stored =
                Some(StoredBody { sha256: object.sha256.clone(), bytes: object.bytes, encoding: Vec::new() });
            objects.push(Ok(Object { entry, body: Body::File(path) }));
        }
        Content::Tree { entries } => {
            for entry in entries {
                let body = match &entry.stored {
                    None => Body::None,
                    Some(stored) => {
                        let path = place.at(&layout::object(&stored.sha256)?)?;
                        if hash(&path)? != stored.sha256 {
                            return Err(Error::new(Kind::Damaged, format!("{} is damaged", path.display())));
                        }
                        Body::File(path)
                    }
                };
                objects.push(Ok(Object { entry: entry.clone(), body }));
            }
        }
    }
    Ok(stream::iter(objects).boxed())
}

/// SHA-256 of a file, which is no link.
pub(super) fn hash(path: &Path) -> Result<String> {
    let failed = |error| Error::io("read", path, error);
    let mut file = open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

/// Receipts of large trees have some hundred megabytes at most; anything larger is not ours.
const SMALL: u64 = 1 << 30;

fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    match open(path).and_then(|file| file.take(SMALL).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// The names in a directory that are UTF-8; others are not ours. Empty where there is none.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io("list", directory, error);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
