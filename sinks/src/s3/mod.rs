//! `s3`: a vault in a bucket of AWS S3, or of a server that speaks its protocol.

mod failure;
mod options;
mod parts;
mod patience;
mod profile;
mod raw;
mod reading;
mod throttle;
mod upload;
mod writing;

use std::collections::BTreeMap;
use std::path::Path as LocalPath;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::context::Writer;
use cdrvault_plugin::payload::{Body, ByteStream};
use cdrvault_plugin::sink::Capabilities;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use object_store::aws::AmazonS3;
use object_store::client::HttpConnector as _;
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore as _, ObjectStoreExt as _, PutMode, UpdateVersion};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, Semaphore};

use crate::vault::{Seen, Store};
use parts::{COPIED_AT_ONCE, PART};
use patience::Patience;
use raw::{Ask, Raw};
use throttle::Throttle;
use upload::Source;

pub(crate) use options::plugin;

/// Pieces of at most [`PART`] that are in memory at a time, whatever is uploaded.
const PIECES_AT_ONCE: usize = 8;

/// Written to find out whether we may write, and whether the bucket refuses to write it again.
const PROBE: &str = ".cdrvault/probe";

/// Where the vault lies, and how its objects are made.
struct Bucket {
    name: String,
    shown: String,
    prefix: Path,
    region: String,
    storage_class: Option<&'static str>,
    /// Headers of everything that is written.
    encryption: Vec<(&'static str, String)>,
    bandwidth: Option<u64>,
}

/// Makes the client whose credentials may delete: they are asked for when something is to be removed.
type Deleting = Box<dyn Fn() -> Result<AmazonS3> + Send + Sync>;

/// A bucket that holds a vault.
pub(crate) struct S3 {
    bucket: Bucket,
    store: AmazonS3,
    /// Where there are other credentials for it.
    deleting: Option<Deleting>,
    deletes: OnceLock<Raw>,
    raw: Raw,
    patience: Patience,
    throttle: Throttle,
    /// For the pieces in memory.
    room: Semaphore,
    /// Probed before anything is written.
    conditions: OnceCell<Conditions>,
    /// Whether it keeps SHA-256 checksums; seen when something is written.
    checksums: AtomicBool,
}

/// Which conditional writes a bucket honours.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    /// Only where there is nothing.
    create: bool,
    /// Only over what has this tag.
    replace: bool,
}

impl S3 {
    fn new(
        bucket: Bucket,
        store: AmazonS3,
        deleting: Option<Deleting>,
        patience: Patience,
        options: &ClientOptions,
    ) -> Result<Self> {
        let http = patience.connect(options);
        let http = http.map_err(|error| Error::failed("cannot prepare HTTP requests").with_source(error))?;
        let raw = Raw { http, store: store.clone(), region: bucket.region.clone() };
        Ok(Self {
            throttle: Throttle::new(bucket.bandwidth),
            room: Semaphore::new(PIECES_AT_ONCE),
            bucket,
            store,
            deleting,
            deletes: OnceLock::new(),
            raw,
            patience,
            conditions: OnceCell::new(),
            checksums: AtomicBool::new(false),
        })
    }

    /// The key of a name. What the vault's format allows needs no escape; the prefix is taken as it is written.
    fn key(&self, name: &str) -> Path {
        self.bucket.prefix.parts().chain(Path::from(name).parts()).collect()
    }

    /// The inverse of [`S3::key`].
    fn name(&self, key: &Path) -> Option<String> {
        let key = key.as_ref();
        match self.bucket.prefix.as_ref() {
            "" => Some(key.to_owned()),
            prefix => key.strip_prefix(prefix)?.strip_prefix('/').map(str::to_owned),
        }
    }

    fn told<'a>(&'a self, doing: &'a str, name: &'a str) -> impl Fn(object_store::Error) -> Error + 'a {
        move |error| failure::told(doing, &self.show(name), error)
    }

    fn honours(&self) -> Conditions {
        self.conditions.get().copied().unwrap_or_default()
    }

    /// Writes, and finds out which conditions stop a write that they must stop.
    async fn probe(&self) -> Result<Conditions> {
        let write = |mode: PutMode| async move {
            match self.write(PROBE, Bytes::from_static(b"cdrvault\n"), &mode, None).await {
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(true),
                // It knows that there is such a thing, and not how to do it.
                Ok(_) | Err(object_store::Error::NotImplemented { .. }) => Ok(false),
                Err(error) if error.to_string().contains("NotImplemented") => Ok(false),
                Err(error) => Err(self.told("write", PROBE)(error)),
            }
        };
        // It may be there since an earlier run, and if not, it is there the second time.
        let create = write(PutMode::Create).await? || write(PutMode::Create).await?;
        // That of no content at all: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>
        let another = UpdateVersion { e_tag: Some("\"00000000000000000000000000000000\"".to_owned()), version: None };
        let replace = write(PutMode::Update(another)).await?;
        if !create && !replace {
            // Where conditions are not understood, nothing may have been written yet.
            write(PutMode::Overwrite).await?;
        }
        Ok(Conditions { create, replace })
    }

    /// What an interrupted run had begun to upload. Only we write below this prefix, so all of it is left over.
    async fn abort_unfinished(&self) -> Result<()> {
        let prefix = self.key("");
        let prefix = if prefix.as_ref().is_empty() { String::new() } else { format!("{prefix}/") };
        let unfinished = self.raw.unfinished(&prefix).await;
        for upload in unfinished.map_err(self.told("list unfinished uploads in", ""))? {
            if !upload.key.starts_with(&prefix) {
                continue;
            }
            let path = Path::parse(&upload.key).map_err(|error| {
                Error::failed(format!("`{}` is not an object name", upload.key.escape_debug())).with_source(error)
            })?;
            match self.store.abort_multipart(&path, &upload.upload_id).await {
                // It may have ended by itself.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failure::told("abort the upload of", &upload.key, error)),
            }
        }
        Ok(())
    }

    /// Begins to read an object; `None` where there is none.
    async fn read(&self, name: &str) -> Result<Option<ByteStream>> {
        match reading::read(&self.store, self.key(name), &self.patience).await {
            Ok(bytes) => {
                let shown = self.show(name);
                Ok(Some(bytes.map_err(move |error| failure::told("read", &shown, error)).boxed()))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.told("read", name)(error)),
        }
    }

    /// Reads an object to its end, for servers that keep no checksum.
    async fn read_again(&self, name: &str) -> Result<Option<String>> {
        let Some(mut bytes) = self.read(name).await? else { return Ok(None) };
        let mut hash = Sha256::new();
        while let Some(chunk) = bytes.try_next().await? {
            hash.update(&chunk);
        }
        Ok(Some(hex::encode(hash.finalize())))
    }

    async fn tag(&self, name: &str) -> Result<Option<Option<String>>> {
        match self.store.head(&self.key(name)).await {
            Ok(meta) => Ok(Some(meta.e_tag)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.told("look at", name)(error)),
        }
    }

    /// The client that removes.
    fn deletes(&self) -> Result<&Raw> {
        match (&self.deleting, self.deletes.get()) {
            (None, _) => Ok(&self.raw),
            (Some(_), Some(made)) => Ok(made),
            (Some(make), None) => {
                let made = Raw { store: make()?, ..self.raw.clone() };
                Ok(self.deletes.get_or_init(|| made))
            }
        }
    }
}

#[async_trait]
impl Store for S3 {
    fn describe(&self) -> String {
        self.bucket.shown.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            conditional_put: self.honours().create && self.honours().replace,
            checksum: self.checksums.load(Ordering::Relaxed),
            ..Capabilities::default()
        }
    }

    async fn check_place(&self) -> Result<()> {
        let mut listing = self.store.list(Some(&self.key(".cdrvault")));
        listing.try_next().await.map(drop).map_err(self.told("list", ""))
    }

    // Only writing tells.
    async fn check_writable(&self) -> Result<()> {
        self.conditions.get_or_try_init(|| self.probe()).await.map(drop)
    }

    async fn check_removable(&self) -> Result<()> {
        self.remove(PROBE).await
    }

    async fn begin(&self, _writer: &Writer) -> Result<()> {
        self.check_writable().await?;
        let honours = self.honours();
        if !honours.create || !honours.replace {
            tracing::info!(
                "{} does not honour all conditional writes: it relies on one writer a prefix, and on reading again",
                self.describe()
            );
        }
        if let Err(error) = self.abort_unfinished().await {
            tracing::warn!("cannot clean up unfinished uploads in {}: {}", self.describe(), error.one_line());
        }
        Ok(())
    }

    async fn end(&self) {}

    async fn names(&self, directory: &str) -> Result<Vec<String>> {
        let prefix = self.key(directory);
        let prefix = Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let listed = self.store.list_with_delimiter(prefix).await.map_err(self.told("list", directory))?;
        let objects = listed.objects.into_iter().map(|object| object.location);
        let paths = objects.chain(listed.common_prefixes);
        Ok(paths.filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    async fn tree(&self, directory: &str) -> Result<BTreeMap<String, u64>> {
        let prefix = self.key(directory);
        let mut listing = self.store.list(Some(&prefix));
        let mut found = BTreeMap::new();
        while let Some(object) = listing.try_next().await.map_err(self.told("list", directory))? {
            if let Some(name) = self.name(&object.location) {
                found.insert(name, object.size);
            }
        }
        Ok(found)
    }

    async fn length(&self, name: &str) -> Result<Option<u64>> {
        match self.store.head(&self.key(name)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.told("look at", name)(error)),
        }
    }

    async fn look(&self, name: &str) -> Result<Option<Seen>> {
        if let Ok(head) = self.raw.head(&self.key(name)).await {
            let Some(head) = head else { return Ok(None) };
            if let Some(sha256) = head.sha256() {
                self.checksums.store(true, Ordering::Relaxed);
                return Ok(Some(Seen { sha256: sha256.to_owned(), tag: head.tag }));
            }
        }
        // The tag first: what is read afterwards is that, or something newer, which a conditional write then refuses.
        let Some(tag) = self.tag(name).await? else { return Ok(None) };
        Ok(self.read_again(name).await?.map(|sha256| Seen { sha256, tag }))
    }

    async fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut bytes) = self.read(name).await? else { return Ok(None) };
        let mut content = Vec::new();
        while let Some(chunk) = bytes.try_next().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(Some(content))
    }

    async fn create(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let sha256 = hex::encode(Sha256::digest(&content));
        match self.write(name, content.into(), &self.mode(None), None).await {
            // Not by the answer alone: where conditions are ignored, somebody else may have written it since.
            Ok(_) => self.check(name, &sha256, None).await,
            Err(error) if self.arrived(name, &sha256, &error).await => Ok(()),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Err(Error::new(Kind::Conflict, format!("{} is there already", self.show(name))))
            }
            Err(error) => Err(self.told("write", name)(error)),
        }
    }

    async fn replace(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let sha256 = hex::encode(Sha256::digest(&content));
        self.write(name, content.into(), &PutMode::Overwrite, None).await.map_err(self.told("write", name))?;
        self.check(name, &sha256, None).await
    }

    async fn put(&self, file: &LocalPath, name: &str, sha256: &str, over: Option<&Seen>) -> Result<()> {
        let length = std::fs::metadata(file).map_err(|error| Error::io("look at", file, error))?.len();
        if length <= PART {
            if self.put_at_once(file, name, sha256, over).await?.as_deref() == Some(sha256) {
                self.checksums.store(true, Ordering::Relaxed);
                return Ok(());
            }
            return self.check(name, sha256, None).await;
        }
        let parts = self.put_in_parts(file, name, sha256, length, over).await?;
        self.check(name, sha256, Some(&parts)).await
    }

    async fn swap(&self, name: &str, content: Vec<u8>, over: Option<&Seen>) -> Result<()> {
        let sha256 = hex::encode(Sha256::digest(&content));
        match self.write(name, content.into(), &self.mode(over), None).await {
            Ok(_) => self.check(name, &sha256, None).await,
            Err(error) if self.arrived(name, &sha256, &error).await => Ok(()),
            Err(error) => Err(self.told("write", name)(error)),
        }
    }

    async fn keep(&self, from: &str, to: &str, seen: &Seen) -> Result<()> {
        // The name tells the content: it is there since an earlier try, or it is not what it should be.
        if self.look(to).await?.is_some_and(|there| there.sha256 == seen.sha256) {
            return Ok(());
        }
        let old = self.store.head(&self.key(from)).await.map_err(self.told("look at", from))?;
        let changed = || {
            Error::new(Kind::Conflict, format!("{} was changed while it was kept", self.show(from)))
                .hint("another run writes into this vault; see which, and let only one do it")
        };
        if seen.tag.is_some() && seen.tag != old.e_tag {
            return Err(changed());
        }
        // By the server: nothing travels. What was seen, and nothing that came since.
        let tag = seen.tag.as_deref().or(old.e_tag.as_deref());
        if old.size > COPIED_AT_ONCE {
            self.copy_in_parts(from, to, old.size, tag).await?;
        } else {
            let source = Source { bucket: &self.bucket.name, path: &self.key(from), tag };
            let copied = source.copy_at_once(&self.raw, &self.key(to), &self.bucket.encryption).await;
            copied.map_err(self.told("keep a version as", to))?;
        }
        // Not every server heeds the condition.
        if self.look(to).await?.is_some_and(|kept| kept.sha256 == seen.sha256) {
            return Ok(());
        }
        if let Err(error) = self.remove(to).await {
            tracing::warn!("{}", error.one_line());
        }
        Err(changed())
    }

    async fn body(&self, name: &str, sha256: &str) -> Result<Body> {
        let shown = self.show(name);
        let bytes = self.read(name).await?;
        let bytes = bytes.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no {shown}")))?;
        Ok(Body::Stream(hashed(bytes, sha256.to_owned(), shown)))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match self.deletes()?.ask(Ask::new(Method::DELETE, &self.key(name))).await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => {
                let error = self.told("remove", name)(error);
                let hint = match (error.kind(), &self.deleting) {
                    (Kind::Denied, Some(_)) => {
                        "correct `prune-access-key-id` and `prune-secret-access-key`, and let that key delete; object lock \
                         may hold the object, too"
                    }
                    (Kind::Denied, None) => {
                        "these credentials may not delete, or object lock holds the object; see prune-access-key-id"
                    }
                    _ => return Err(error),
                };
                Err(error.hint(hint))
            }
        }
    }

    fn clock_offset(&self) -> Option<i64> {
        self.patience.clock_offset()
    }
}

/// That of a bucket which is not there is another error.
fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket"))
}

/// The same bytes, and an error at their end unless they have this hash.
fn hashed(bytes: ByteStream, sha256: String, shown: String) -> ByteStream {
    let state = (bytes, Some(Sha256::new()), sha256, shown);
    stream::try_unfold(state, |(mut bytes, hash, sha256, shown)| async move {
        let Some(mut hash) = hash else { return Ok(None) };
        match bytes.try_next().await? {
            Some(chunk) => {
                hash.update(&chunk);
                Ok(Some((chunk, (bytes, Some(hash), sha256, shown))))
            }
            None if hex::encode(hash.finalize()) == sha256 => Ok(None),
            None => Err(Error::new(Kind::Damaged, format!("{shown} is damaged"))),
        }
    })
    .boxed()
}
