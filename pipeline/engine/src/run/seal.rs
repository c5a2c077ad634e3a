//! A payload becomes sealed: written to the spool, synced, read again and compared with what went in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::Xxh3;

use super::spool::Spool;
use super::tap;
use cdrvault_format::durable;
use cdrvault_format::entry::{Entry, RawPath, StoredBody};
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::facts::{FactGatherer, Facts};
use cdrvault_format::fingerprint;
use cdrvault_format::hash::{Hashes, hash_file};
use cdrvault_format::layout;
use cdrvault_format::manifest::{Content, FORMAT, Manifest, Origin, StoredObject};
use cdrvault_plugin::codec::{Codecs, Innermost};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Body, ByteStream, Form, Object, ObjectStream, Payload, file_stream};
use cdrvault_plugin::sink::Sealed;
use cdrvault_plugin::stage::{Transform, Work};

/// What is sealed, and what is to be said of it.
pub(super) struct Sealing<'a> {
    pub(super) cx: &'a Context,
    pub(super) spool: &'a Spool,
    pub(super) transforms: &'a [Arc<dyn Transform>],
    /// The way back, which is that of a restore.
    pub(super) codecs: &'a Codecs,
    pub(super) work: Work,
    pub(super) origin: Origin,
    /// The partition has not ended yet.
    pub(super) open: bool,
}

impl Sealing<'_> {
    /// Runs the payload through the transforms into the spool.
    pub(super) async fn seal(self, payload: Payload) -> Result<Sealed> {
        self.spool.check_space()?;
        let directory = self.spool.begin(&self.work.unit)?;
        let sealed = self.run(payload, &directory).await;
        if sealed.is_err() {
            // The cause matters more than what is left behind, which the next run removes.
            let _ = self.spool.discard(&self.work.unit);
        }
        sealed
    }

    async fn run(&self, payload: Payload, directory: &Path) -> Result<Sealed> {
        let (mut columns, mut table) = (Vec::new(), None);
        let last_body = tap::LastBody::default();
        let mut payload = match payload {
            Payload::Rows(rows) => {
                columns.clone_from(&rows.about.columns);
                table.clone_from(&rows.about.table);
                Payload::Rows(tap::rows(self.cx, &self.work.unit, rows, self.work.facts.clone()))
            }
            Payload::Objects(objects) => {
                Payload::Objects(tap::objects(self.cx, &self.work.unit, objects, Arc::clone(&last_body)))
            }
        };
        for transform in self.transforms {
            payload = transform.apply(&self.work, payload)?;
        }
        let Payload::Objects(mut objects) = payload else {
            return Err(Error::failed("the chain ended in rows, which no sink can store"));
        };
        let mut gathered = Gathered::default();
        while let Some(Object { mut entry, body }) = self.cx.unless_cancelled(objects.try_next()).await? {
            gathered.forget(&entry.path)?;
            let bytes = match body {
                Body::Withdrawn => continue,
                Body::None | Body::Unchanged => {
                    gathered.entries.push((entry, None));
                    continue;
                }
                Body::Stream(bytes) => bytes,
                Body::File(path) => file_stream(&path)?,
            };
            let path = gathered.next_path(directory);
            let written = self.write(bytes, path.clone()).await?;
            let plain = last_body.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((length, sha256)) = plain {
                entry.size = length;
                entry.sha256 = Some(sha256);
            }
            let encodings = entry.stored.take().map(|stored| stored.encodings).unwrap_or_default();
            let stored = self.read_back(&written, &path, &encodings).await;
            let stored = stored.at(format!("checking what was sealed of {}", self.work.unit))?;
            entry.stored = Some(StoredBody { sha256: stored.sha256.clone(), bytes: written.bytes, encodings });
            if let Some(plain) = &entry.sha256 {
                self.compare_bytes(&entry, &path, plain).await?;
            }
            gathered.add(entry, stored, path)?;
        }
        let Gathered { mut entries, bodies: sealed, .. } = gathered;
        if let (Some(facts), [(entry, Some(stored))]) = (self.work.facts.get(), entries.as_mut_slice())
            && let Some(path) = sealed.get(&stored.sha256)
        {
            let file = self.codecs.innermost(self.cx, entry, Body::File(path.clone())).await?;
            self.compare_rows(&file, facts).await?;
            if file.is_copy() {
                stored.data_sha256 = data_of(&file)?;
            }
        }
        let manifest = Manifest { columns, table, ..self.manifest(entries)? };
        let sealed = Sealed { manifest, bodies: sealed };
        durable::sync_dir(directory)?;
        self.spool.seal(&sealed)?;
        Ok(sealed)
    }

    /// Drains a stream into a new file, on a thread that may block.
    async fn write(&self, mut bytes: ByteStream, path: PathBuf) -> Result<Written> {
        let runtime = tokio::runtime::Handle::current();
        let (spool, cx) = (self.spool.clone(), self.cx.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let mut file = spool.create(path)?;
            let mut checksum = Xxh3::new();
            let mut length = 0_u64;
            while let Some(chunk) = runtime.block_on(bytes.next()) {
                let chunk = chunk?;
                cx.check()?;
                checksum.update(&chunk);
                file.write(&chunk)?;
                length += chunk.len() as u64;
            }
            file.sync()?;
            Ok(Written { bytes: length, checksum: checksum.digest128() })
        });
        writing.await.map_err(|died| Error::failed("writing to the spool stopped unexpectedly").with_source(died))?
    }

    /// What the disk gives back must be what was written.
    async fn read_back(&self, written: &Written, path: &Path, encodings: &[String]) -> Result<Stored> {
        let data_end = match encodings {
            [only] => self.codecs.codec(only)?.stable_prefix(path)?,
            _ => None,
        };
        let path = path.to_owned();
        let hashed = tokio::task::spawn_blocking(move || hash_file(&path, data_end.unwrap_or(u64::MAX)));
        let Hashes { data, whole, checksum } = hashed
            .await
            .map_err(|died| Error::failed("reading the spool stopped unexpectedly").with_source(died))??;
        if checksum != written.checksum {
            return Err(Error::new(Kind::Damaged, "the disk returns bytes other than those written")
                .hint("check the disk, the memory and the file system of the spool"));
        }
        Ok(Stored { sha256: whole, data_sha256: data_end.map(|_| data) })
    }

    /// Decodes the file and compares count and fingerprint.
    async fn compare_rows(&self, file: &Innermost<'_>, expected: &Facts) -> Result<()> {
        let mut rows = file.rows().await?;
        let mut found = FactGatherer::new(&rows.schema, &rows.about.renumbered);
        while let Some(batch) = self.cx.unless_cancelled(rows.batches.try_next()).await? {
            found = tokio::task::block_in_place(|| found.add(&batch).map(|()| found))?;
        }
        let found = found.finish();
        if found == *expected {
            return Ok(());
        }
        Err(Error::new(
            Kind::Damaged,
            format!(
                "{}: {} rows with fingerprint {} went in, {} rows with {} come out of the encoded file",
                self.work.unit, expected.rows, expected.fingerprint.full, found.rows, found.fingerprint.full
            ),
        )
        .hint("nothing was published; report this with the table's columns, and check the memory of this machine"))
    }

    /// Decodes the file and compares the bytes, where a transform changed them.
    async fn compare_bytes(&self, entry: &Entry, path: &Path, plain: &str) -> Result<()> {
        if entry.stored.as_ref().is_some_and(|stored| stored.sha256 == plain) {
            return Ok(());
        }
        let stored = Object { entry: entry.clone(), body: Body::File(path.to_owned()) };
        let mut hash = Sha256::new();
        if let Body::Stream(mut bytes) = self.codecs.plain(stored)?.body {
            while let Some(chunk) = self.cx.unless_cancelled(bytes.try_next()).await? {
                hash.update(&chunk);
            }
        }
        if hex::encode(hash.finalize()) == plain {
            return Ok(());
        }
        Err(Error::new(Kind::Damaged, format!("{} does not decode to what was read", entry.path.display())))
    }

    fn manifest(&self, mut entries: Vec<(Entry, Option<Stored>)>) -> Result<Manifest> {
        let unit = &self.work.unit;
        let facts = self.work.facts.get();
        let (rows, fingerprint, content) = if self.work.form == Form::Tree {
            let mut entries: Vec<Entry> = entries.into_iter().map(|(entry, _)| entry).collect();
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            (entries.len() as u64, fingerprint::of_entries(&entries), Content::Tree { entries })
        } else {
            let (Some((entry, Some(stored))), true) = (entries.pop(), entries.is_empty()) else {
                return Err(Error::failed(format!("{unit}: the chain gave no single object")));
            };
            let name = std::str::from_utf8(&entry.path.0).unwrap_or_default();
            let object = StoredObject {
                path: layout::live_path(unit, name)?,
                bytes: entry.stored.as_ref().map_or(0, |stored| stored.bytes),
                sha256: stored.sha256,
                data_sha256: stored.data_sha256,
                encodings: entry.stored.as_ref().map(|stored| stored.encodings.clone()).unwrap_or_default(),
            };
            match facts {
                Some(facts) => (facts.rows, facts.fingerprint.clone(), Content::Object(object)),
                None => (1, fingerprint::of_entries(std::slice::from_ref(&entry)), Content::Object(object)),
            }
        };
        Ok(Manifest {
            format: FORMAT,
            unit: unit.clone(),
            generation: self.work.generation,
            rows,
            content,
            fingerprint,
            tripwire: facts.map(|facts| facts.tripwire.clone()),
            columns: Vec::new(),
            table: None,
            origin: self.origin.clone(),
            open: self.open,
            incomplete: false,
            sealed: Timestamp::now(),
            received: None,
            replaced: None,
        })
    }
}

/// The hash of the first bytes of a file, which do not name the generation.
fn data_of(file: &Innermost<'_>) -> Result<Option<String>> {
    let Some(end) = file.stable_prefix()? else { return Ok(None) };
    tokio::task::block_in_place(|| hash_file(file.path(), end)).map(|hashes| Some(hashes.data))
}

/// The entries that went by, and the files of their bodies by SHA-256.
#[derive(Default)]
struct Gathered {
    entries: Vec<(Entry, Option<Stored>)>,
    bodies: BTreeMap<String, PathBuf>,
    count: usize,
}

impl Gathered {
    fn next_path(&mut self, directory: &Path) -> PathBuf {
        self.count += 1;
        directory.join(format!("body-{:08}", self.count))
    }

    /// An object whose path is that of the one before replaces it.
    fn forget(&mut self, path: &RawPath) -> Result<()> {
        if self.entries.last().is_none_or(|(last, _)| last.path != *path) {
            return Ok(());
        }
        let Some((_, Some(stored))) = self.entries.pop() else { return Ok(()) };
        let shared = self.entries.iter().flat_map(|(_, other)| other).any(|other| other.sha256 == stored.sha256);
        if shared {
            return Ok(());
        }
        self.bodies.remove(&stored.sha256).map_or(Ok(()), |file| durable::remove(&file))
    }

    /// Equal bodies are kept once.
    fn add(&mut self, entry: Entry, stored: Stored, file: PathBuf) -> Result<()> {
        if self.bodies.contains_key(&stored.sha256) {
            durable::remove(&file)?;
        } else {
            self.bodies.insert(stored.sha256.clone(), file);
        }
        self.entries.push((entry, Some(stored)));
        Ok(())
    }
}

struct Written {
    bytes: u64,
    /// XXH3: against accidents only, until the SHA-256 of what the disk gives back is known.
    checksum: u128,
}

struct Stored {
    sha256: String,
    data_sha256: Option<String>,
}

/// Whether files of a vault may be published from where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// They are copied: what lies in one vault is not to become part of another.
    Copied,
    /// They are read, and stay what they are.
    Lent,
}

/// The objects of a generation, as local files: what [`Sealed`] needs to be published elsewhere.
pub(super) async fn fetch(
    cx: &Context,
    spool: &Spool,
    manifest: &Manifest,
    objects: ObjectStream,
    files: Files,
) -> Result<Sealed> {
    spool.discard(&manifest.unit)?;
    let fetched = fetch_bodies(cx, spool, manifest, objects, files).await;
    if fetched.is_err() {
        // It may be too large for the disk; the cause matters more than what is left behind.
        let _ = spool.discard(&manifest.unit);
    }
    let manifest = Manifest { received: None, replaced: None, ..manifest.clone() };
    fetched.map(|bodies| Sealed { manifest, bodies })
}

/// The files by the SHA-256 that they should have.
async fn fetch_bodies(
    cx: &Context,
    spool: &Spool,
    manifest: &Manifest,
    mut objects: ObjectStream,
    files: Files,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut bodies = BTreeMap::new();
    while let Some(Object { entry, body }) = cx.unless_cancelled(objects.try_next()).await? {
        let sha256 = match (&manifest.content, &entry.stored) {
            (Content::Object(object), _) => object.sha256.clone(),
            (Content::Tree { .. }, Some(stored)) => stored.sha256.clone(),
            (Content::Tree { .. }, None) => continue,
        };
        let mut bytes = match body {
            Body::File(path) if files == Files::Lent => {
                bodies.insert(sha256, path);
                continue;
            }
            Body::File(path) => file_stream(&path)?,
            Body::Stream(bytes) => bytes,
            Body::None | Body::Unchanged | Body::Withdrawn => continue,
        };
        let path = spool.directory(&manifest.unit)?.join(format!("body-{:08}", bodies.len()));
        let mut file = spool.create(path.clone())?;
        while let Some(chunk) = cx.unless_cancelled(bytes.try_next()).await? {
            file.write(&chunk)?;
        }
        file.sync()?;
        bodies.insert(sha256, path);
    }
    Ok(bodies)
}
