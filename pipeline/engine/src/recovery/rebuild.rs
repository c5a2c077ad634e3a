//! A receipt made anew from the object that it told of: a Parquet file says itself what it is.

use std::sync::Arc;

use futures::TryStreamExt as _;
use jiff::Timestamp;

use super::Fetched;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::facts::FactGatherer;
use cdrvault_format::fingerprint::{Digest, Fingerprint};
use cdrvault_format::hash::hash_file;
use cdrvault_format::manifest::{Content, FORMAT, Manifest, Origin, StoredObject, encodings_by_name};
use cdrvault_format::partition::Unit;
use cdrvault_format::tripwire::Tripwire;
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::Object;
use cdrvault_plugin::sink::Vault;

/// The receipt of an object of rows that lies in a sink, read and compared with what it says of itself. What a file does not
/// tell (the name of the table) is taken from another receipt of the dataset.
pub(super) async fn rebuild(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    codecs: &Codecs,
    unit: &Unit,
    found: StoredObject,
    like: Option<&Manifest>,
) -> Result<Manifest> {
    let now = Timestamp::now();
    let found = StoredObject { encodings: encodings_by_name(&found.path, true), ..found };
    let skeleton = Manifest {
        format: FORMAT,
        unit: unit.clone(),
        generation: 1,
        rows: 0,
        content: Content::Object(found),
        fingerprint: Fingerprint { algorithm: String::new(), content: Digest::default(), full: Digest::default() },
        tripwire: Some(Tripwire::default()),
        columns: Vec::new(),
        table: like.and_then(|like| like.table.clone()),
        origin: Origin {
            pipeline: cx.writer.pipeline.clone(),
            writer: cx.writer.id.clone(),
            source: like.map_or_else(|| "unknown".to_owned(), |like| like.origin.source.clone()),
            snapshot: now,
            reasons: vec!["its receipt was lost, and is rebuilt from the object".to_owned()],
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        open: false,
        incomplete: false,
        sealed: now,
        received: Some(now),
        replaced: like.filter(|like| like.unit == *unit).map(|like| like.generation),
    };
    let fetched = Fetched::fetch(cx, sink, skeleton).await?;
    let reading = fetched.open()?;
    let Some(Object { entry, body }) = reading.objects()?.try_next().await? else {
        return Err(Error::new(Kind::NotFound, "the object does not say what it is"));
    };
    let file = codecs.innermost(cx, &entry, body).await?;
    let mut rows = file.rows().await?;
    let said = |key: &str| rows.about.metadata.get(key).cloned().unwrap_or_default();
    let generation = said("cdrvault.generation").parse::<u32>().ok().filter(|generation| *generation > 0);
    let (said_content, said_full) = (said("cdrvault.fingerprint.content"), said("cdrvault.fingerprint.full"));
    let algorithm = said("cdrvault.fingerprint.algorithm");
    let is_ours = said("cdrvault.dataset") == unit.dataset && said("cdrvault.partition") == unit.partition.to_string();
    let (Some(generation), true) = (generation, is_ours) else {
        return Err(Error::new(Kind::NotFound, "the object does not say which generation it is"));
    };
    let columns = rows.about.columns.clone();
    let mut gathered = FactGatherer::new(&rows.schema, &rows.about.renumbered);
    while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
        gathered = tokio::task::block_in_place(|| gathered.add(&batch).map(|()| gathered))?;
    }
    let facts = gathered.finish();
    let same = algorithm == facts.fingerprint.algorithm
        && said_content == facts.fingerprint.content.to_string()
        && said_full == facts.fingerprint.full.to_string();
    if !same {
        return Err(Error::new(Kind::Damaged, "the rows of the object are not those that it tells of itself"));
    }
    let mut manifest = Manifest {
        generation,
        rows: facts.rows,
        fingerprint: facts.fingerprint,
        tripwire: Some(facts.tripwire),
        columns,
        ..fetched.manifest.clone()
    };
    if let (Content::Object(object), Some(end)) = (&mut manifest.content, file.stable_prefix()?) {
        object.data_sha256 = Some(hash_file(file.path(), end)?.data);
    }
    Ok(manifest)
}
