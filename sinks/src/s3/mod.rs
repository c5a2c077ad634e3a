//! `s3`: a vault in a bucket of AWS S3, or of a server that speaks its protocol.

mod failure;
mod options;
mod profile;
mod raw;
mod throttle;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path as LocalPath;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use cdrvault_pipeline::context::Writer;
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::payload::{Body, ByteStream};
use cdrvault_pipeline::sink::Capabilities;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, ObjectStore as _, ObjectStoreExt as _, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, UpdateVersion,
};
use sha2::{Digest as _, Sha256};

use crate::vault::{Seen, Store};
use raw::{NOTE, Raw};
use throttle::Throttle;

pub(crate) use options::plugin;

/// What is larger goes in parts of at least this size: that is all the memory that an upload needs, a few times.
const PART: u64 = 8 << 20;

/// Parts in flight of one upload.
const PARTS_AT_ONCE: usize = 3;

/// The protocol allows 10,000.
const MOST_PARTS: u64 = 9_000;

/// Written to find out whether the bucket refuses to write it again.
const PROBE: &str = ".cdrvault/probe";

/// Where the vault lies, and how its objects are made.
struct Bucket {
    shown: String,
    prefix: Path,
    region: String,
    storage_class: Option<&'static str>,
    bandwidth: Option<u64>,
}

/// A bucket that holds a vault.
pub(crate) struct S3 {
    bucket: Bucket,
    store: AmazonS3,
    /// With the credentials that may delete, where there are others for it.
    deletes: Option<AmazonS3>,
    raw: Raw,
    throttle: Throttle,
    /// Whether the bucket honours conditional writes; probed when the vault is opened.
    conditional: AtomicBool,
    /// Whether it keeps SHA-256 checksums; seen when something is written.
    checksums: AtomicBool,
}

impl S3 {
    fn new(bucket: Bucket, store: AmazonS3, deletes: Option<AmazonS3>, options: ClientOptions) -> Result<Self> {
        let raw = Raw::new(&options, &bucket.region)?;
        let throttle = Throttle::new(bucket.bandwidth);
        let (conditional, checksums) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { bucket, store, deletes, raw, throttle, conditional, checksums })
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

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if let Some(class) = self.bucket.storage_class {
            attributes.insert(Attribute::StorageClass, class.into());
        }
        attributes
    }

    /// Whether a second create-only write of the same object is refused.
    async fn probe(&self) -> Result<bool> {
        let create = || async {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            self.store.put_opts(&self.key(PROBE), PutPayload::from_static(b"cdrvault\n"), options).await
        };
        for _ in 0..2 {
            match create().await {
                Ok(_) => {}
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    return Ok(true);
                }
                // It knows that there is such a thing, and not how to do it.
                Err(object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. }) => {
                    return Ok(false);
                }
                Err(error) if error.to_string().contains("NotImplemented") => return Ok(false),
                Err(error) => return Err(self.told("write", PROBE)(error)),
            }
        }
        Ok(false)
    }

    /// What an interrupted run had begun to upload. Only we write below this prefix, so all of it is left over.
    async fn abort_unfinished(&self) -> Result<()> {
        let prefix = self.key("");
        let prefix = if prefix.as_ref().is_empty() { String::new() } else { format!("{prefix}/") };
        for upload in self.raw.unfinished(&self.store, &prefix).await? {
            if !upload.key.starts_with(&prefix) {
                continue;
            }
            let path = Path::parse(&upload.key).map_err(|error| {
                Error::failed(format!("`{}` is no name of an object", upload.key.escape_debug())).with_source(error)
            })?;
            match self.store.abort_multipart(&path, &upload.upload_id).await {
                // It may have ended by itself.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failure::told("abort the upload of", &upload.key, error)),
            }
        }
        Ok(())
    }

    fn mode(&self, over: Option<&Seen>) -> PutMode {
        match over {
            _ if !self.conditional.load(Ordering::Relaxed) => PutMode::Overwrite,
            None => PutMode::Create,
            Some(Seen { tag: Some(tag), .. }) => {
                PutMode::Update(UpdateVersion { e_tag: Some(tag.clone()), version: None })
            }
            Some(Seen { tag: None, .. }) => PutMode::Overwrite,
        }
    }

    async fn put_at_once(&self, file: &LocalPath, name: &str, sha256: &str, over: Option<&Seen>) -> Result<()> {
        let content = read_part(file, 0, PART).await?;
        if hex::encode(Sha256::digest(&content)) != sha256 {
            return Err(damaged(file));
        }
        self.throttle.take(content.len()).await;
        let options = PutOptions { mode: self.mode(over), attributes: self.attributes(), ..PutOptions::default() };
        match self.store.put_opts(&self.key(name), content.into(), options).await {
            Ok(_) => Ok(()),
            Err(error @ (object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })) => {
                match self.look(name).await? {
                    // The reply to an earlier try was lost: what is there is ours.
                    Some(seen) if seen.sha256 == sha256 => Ok(()),
                    _ => Err(self.told("write", name)(error)),
                }
            }
            Err(error) => Err(self.told("write", name)(error)),
        }
    }

    /// Uploads in parts, and returns the SHA-256 of their SHA-256.
    async fn put_in_parts(&self, file: &LocalPath, name: &str, sha256: &str, length: u64) -> Result<String> {
        let mut attributes = self.attributes();
        attributes.insert(Attribute::Metadata(NOTE.into()), sha256.to_owned().into());
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let begun = self.store.put_multipart_opts(&self.key(name), options).await;
        let mut upload = begun.map_err(self.told("write", name))?;
        let sending = async {
            let part = PART.max(length.div_ceil(MOST_PARTS));
            let (mut whole, mut of_parts) = (Sha256::new(), Sha256::new());
            let mut in_flight = stream::FuturesUnordered::new();
            let mut offset = 0;
            while offset < length {
                if in_flight.len() == PARTS_AT_ONCE
                    && let Some(sent) = in_flight.next().await
                {
                    let sent: object_store::Result<()> = sent;
                    sent.map_err(self.told("write", name))?;
                }
                let content = read_part(file, offset, part.min(length - offset)).await?;
                if content.is_empty() {
                    return Err(damaged(file));
                }
                self.throttle.take(content.len()).await;
                whole.update(&content);
                of_parts.update(Sha256::digest(&content));
                offset += content.len() as u64;
                in_flight.push(upload.put_part(content.into()));
            }
            while let Some(sent) = in_flight.next().await {
                sent.map_err(self.told("write", name))?;
            }
            if hex::encode(whole.finalize()) != sha256 {
                return Err(damaged(file));
            }
            upload.complete().await.map_err(self.told("write", name))?;
            Ok(hex::encode(of_parts.finalize()))
        };
        let sent = sending.await;
        if sent.is_err() {
            // What this leaves behind costs money for ever; the next run tries it again.
            let _ = upload.abort().await;
        }
        sent
    }

    /// What the server holds must be what we sent.
    async fn check(&self, name: &str, sha256: &str, of_parts: Option<&str>) -> Result<()> {
        let head = self.raw.head(&self.store, &self.key(name)).await.ok().flatten();
        if let Some(kept) = head.and_then(|head| head.kept) {
            self.checksums.store(true, Ordering::Relaxed);
            if kept == sha256 || Some(kept.as_str()) == of_parts {
                return Ok(());
            }
        }
        if self.read_again(name).await?.as_deref() == Some(sha256) {
            return Ok(());
        }
        Err(Error::new(Kind::Damaged, format!("{} holds other bytes than were sent", self.show(name)))
            .hint("another run may write into this vault; if none does, check the store"))
    }

    /// Reads an object to its end, for servers that keep no checksum.
    async fn read_again(&self, name: &str) -> Result<Option<String>> {
        let got = match self.store.get(&self.key(name)).await {
            Ok(got) => got,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.told("read", name)(error)),
        };
        let mut bytes = got.into_stream();
        let mut hash = Sha256::new();
        while let Some(chunk) = bytes.try_next().await.map_err(self.told("read", name))? {
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
}

#[async_trait]
impl Store for S3 {
    fn describe(&self) -> String {
        self.bucket.shown.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            conditional_put: self.conditional.load(Ordering::Relaxed),
            checksum: self.checksums.load(Ordering::Relaxed),
            ..Capabilities::default()
        }
    }

    async fn check_place(&self) -> Result<()> {
        let mut listing = self.store.list(Some(&self.key(".cdrvault")));
        listing.try_next().await.map(drop).map_err(self.told("list", ""))
    }

    async fn check_writable(&self) -> Result<()> {
        // Only writing would tell.
        Ok(())
    }

    async fn begin(&self, _writer: &Writer) -> Result<()> {
        let conditional = self.probe().await?;
        self.conditional.store(conditional, Ordering::Relaxed);
        if !conditional {
            tracing::info!(
                "{} ignores conditional writes: it relies on one writer a prefix, and on reading again",
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
        if let Ok(head) = self.raw.head(&self.store, &self.key(name)).await {
            let Some(head) = head else { return Ok(None) };
            if let Some(kept) = head.kept {
                self.checksums.store(true, Ordering::Relaxed);
                // Only what went in parts has a note, which belongs to the very upload that the server has the checksum of.
                return Ok(Some(Seen { sha256: head.noted.unwrap_or(kept), tag: head.tag }));
            }
        }
        // The tag first: what is read afterwards is that, or something newer, which a conditional write then refuses.
        let Some(tag) = self.tag(name).await? else { return Ok(None) };
        Ok(self.read_again(name).await?.map(|sha256| Seen { sha256, tag }))
    }

    async fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self.store.get(&self.key(name)).await {
            Ok(got) => Ok(Some(got.bytes().await.map_err(self.told("read", name))?.to_vec())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.told("read", name)(error)),
        }
    }

    async fn create(&self, name: &str, content: Vec<u8>) -> Result<()> {
        if !self.conditional.load(Ordering::Relaxed) {
            match self.small(name).await? {
                Some(there) if there == content => return Ok(()),
                Some(_) => return Err(Error::new(Kind::Conflict, format!("{} is there already", self.show(name)))),
                None => {}
            }
        }
        let options = PutOptions { mode: self.mode(None), ..PutOptions::default() };
        let sha256 = hex::encode(Sha256::digest(&content));
        match self.store.put_opts(&self.key(name), content.into(), options).await {
            Ok(_) => self.check(name, &sha256, None).await,
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                match self.look(name).await? {
                    // The reply to an earlier try was lost.
                    Some(seen) if seen.sha256 == sha256 => Ok(()),
                    _ => Err(Error::new(Kind::Conflict, format!("{} is there already", self.show(name)))),
                }
            }
            Err(error) => Err(self.told("write", name)(error)),
        }
    }

    async fn replace(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let sha256 = hex::encode(Sha256::digest(&content));
        self.store.put(&self.key(name), content.into()).await.map_err(self.told("write", name))?;
        self.check(name, &sha256, None).await
    }

    async fn put(&self, file: &LocalPath, name: &str, sha256: &str, over: Option<&Seen>) -> Result<()> {
        let length = std::fs::metadata(file).map_err(|error| Error::io("look at", file, error))?.len();
        if length <= PART {
            self.put_at_once(file, name, sha256, over).await?;
            return self.check(name, sha256, None).await;
        }
        let parts = self.put_in_parts(file, name, sha256, length).await?;
        self.check(name, sha256, Some(&parts)).await
    }

    async fn keep(&self, from: &str, to: &str) -> Result<()> {
        // By the server: nothing travels.
        self.store.copy(&self.key(from), &self.key(to)).await.map_err(self.told("keep a version as", to))?;
        let (old, new) = (self.length(from).await?, self.length(to).await?);
        if old == new {
            return Ok(());
        }
        Err(Error::new(Kind::Damaged, format!("{} is no whole copy", self.show(to))))
    }

    async fn body(&self, name: &str, sha256: &str) -> Result<Body> {
        let got = self.store.get_opts(&self.key(name), GetOptions::default()).await;
        let got = got.map_err(self.told("read", name))?;
        let shown = self.show(name);
        let failed = shown.clone();
        let bytes = got.into_stream().map_err(move |error| failure::told("read", &failed, error)).boxed();
        Ok(Body::Stream(hashed(bytes, sha256.to_owned(), shown)))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let store = self.deletes.as_ref().unwrap_or(&self.store);
        match store.delete(&self.key(name)).await {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.told("remove", name)(error)
                .hint("these credentials may not delete, or object lock holds the object; see prune-access-key-id")),
        }
    }
}

/// That of a bucket which is not there is another error.
fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket"))
}

fn damaged(file: &LocalPath) -> Error {
    Error::new(Kind::Damaged, format!("{} is not what was sealed, and is not sent", file.display()))
        .hint("check the disk and the memory of this machine")
}

async fn read_part(file: &LocalPath, offset: u64, length: u64) -> Result<Bytes> {
    let path = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        use std::io::Seek as _;
        let failed = |error| Error::io("read", &path, error);
        let mut file = File::open(&path).map_err(failed)?;
        file.seek(std::io::SeekFrom::Start(offset)).map_err(failed)?;
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(length).read_to_end(&mut content).map_err(failed)?;
        Ok(Bytes::from(content))
    });
    reading.await.map_err(|died| Error::failed("reading the spool stopped unexpectedly").with_source(died))?
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
