//! Objects back into rows or files, and whether those are what the manifest says.

use futures::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use cdrvault_format::entry::{Entry, EntryKind, RawPath};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::facts::FactGatherer;
use cdrvault_format::fingerprint;
use cdrvault_format::hash::hash_file;
use cdrvault_format::manifest::{Content, Holding, Manifest};
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Body, Object, ObjectStream, Payload, RowStream};

/// The stored objects, decoded. Their checksums must have been checked.
pub async fn undo(cx: &Context, codecs: &Codecs, manifest: &Manifest, mut objects: ObjectStream) -> Result<Payload> {
    if let Content::Tree { entries } = &manifest.content
        && manifest.fingerprint.algorithm == fingerprint::ALGORITHM
        && fingerprint::of_entries(entries) != manifest.fingerprint
    {
        return Err(damaged(manifest, "its entries are not those that the receipt names"));
    }
    if manifest.holds() == Holding::Rows {
        let Some(Object { entry, body }) = objects.try_next().await? else {
            return Err(damaged(manifest, "it has no object"));
        };
        let rows = codecs.innermost(cx, &entry, body).await?.rows().await?;
        is_of(&rows, manifest)?;
        return Ok(Payload::Rows(rows));
    }
    let (codecs, holds) = (codecs.clone(), manifest.holds());
    let plain = move |object: Result<Object>| {
        let mut object = object?;
        // Only a name that we gave ourselves tells of encodings.
        if holds == Holding::Document
            && let (Some(stored), Ok(name)) = (&object.entry.stored, std::str::from_utf8(&object.entry.path.0))
        {
            object.entry.path = RawPath::from(codecs.plain_name(name, &stored.encodings));
        }
        codecs.plain(object)
    };
    Ok(Payload::Objects(objects.map(plain).boxed()))
}

/// A file names what it is; a receipt that names another content is forged, or was misplaced.
fn is_of(rows: &RowStream, manifest: &Manifest) -> Result<()> {
    let said = |key: &str| rows.about.metadata.get(key).map(String::as_str);
    let unit = &manifest.unit;
    if said("cdrvault.dataset").is_some_and(|dataset| dataset != unit.dataset)
        || said("cdrvault.partition").is_some_and(|partition| partition != unit.partition.to_string())
    {
        return Err(damaged(manifest, "the object names itself as another day or dataset"));
    }
    Ok(())
}

/// Reads the content to its end and compares it with what the manifest says of it.
pub async fn compare(cx: &Context, manifest: &Manifest, payload: Payload) -> Result<()> {
    match payload {
        Payload::Rows(rows) => compare_rows(cx, manifest, rows).await,
        Payload::Objects(objects) => compare_objects(cx, manifest, objects).await,
    }
}

async fn compare_rows(cx: &Context, manifest: &Manifest, mut rows: RowStream) -> Result<()> {
    let mut found = FactGatherer::new(&rows.schema, &rows.about.renumbered);
    while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
        found = tokio::task::block_in_place(|| found.add(&batch).map(|()| found))?;
    }
    if manifest.tells_of(&found.finish()) {
        return Ok(());
    }
    Err(damaged(manifest, "its rows are not those that the receipt names"))
}

async fn compare_objects(cx: &Context, manifest: &Manifest, mut objects: ObjectStream) -> Result<()> {
    let mut decoded = Vec::new();
    while let Some(Object { entry, body }) = cx.unless_cancelled(objects.try_next()).await? {
        let (size, sha256) = hash(cx, body).await?;
        let is_file = entry.kind == EntryKind::File;
        if manifest.holds() == Holding::Tree && is_file && (entry.size != size || entry.sha256 != sha256) {
            return Err(damaged(manifest, &format!("`{}` decodes to other bytes", entry.path.display())));
        }
        decoded.push((entry, size, sha256));
    }
    let same = match &manifest.content {
        Content::Tree { entries } => fingerprint::of_entries(entries) == manifest.fingerprint,
        Content::Object(object) => decoded.pop().is_some_and(|(_, size, sha256)| {
            let mut entry = Entry::object(object.path.rsplit('/').next().unwrap_or(&object.path));
            (entry.size, entry.sha256) = (size, sha256);
            fingerprint::of_entries(&[entry]) == manifest.fingerprint
        }),
    };
    if same { Ok(()) } else { Err(damaged(manifest, "its content is not what the receipt says")) }
}

async fn hash(cx: &Context, body: Body) -> Result<(u64, Option<String>)> {
    match body {
        Body::None | Body::Unchanged | Body::Withdrawn => Ok((0, None)),
        Body::File(path) => {
            let length = std::fs::metadata(&path).map_err(|error| Error::io("read", &path, error))?.len();
            let sha256 = tokio::task::block_in_place(|| hash_file(&path, u64::MAX))?.whole;
            Ok((length, Some(sha256)))
        }
        Body::Stream(mut bytes) => {
            let (mut hash, mut length) = (Sha256::new(), 0);
            while let Some(chunk) = cx.unless_cancelled(bytes.try_next()).await? {
                tokio::task::block_in_place(|| hash.update(&chunk));
                length += chunk.len() as u64;
            }
            Ok((length, Some(hex::encode(hash.finalize()))))
        }
    }
}

fn damaged(manifest: &Manifest, why: &str) -> Error {
    Error::new(Kind::Damaged, format!("{} generation {}: {why}", manifest.unit, manifest.generation))
}
