//! How an object is written: in one request, or in parts. What is sent is hashed as a whole before; what is copied, the server
//! copies.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cdrvault_format::error::{Error, Kind, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use object_store::{PutMode, UpdateVersion};
use sha2::{Digest as _, Sha256};

use super::S3;
use super::parts::{COPIED_AT_ONCE, PART};
use super::raw::{self, Ask, NOTE, NOTE_OF_PARTS};
use super::upload::{Source, Upload};
use crate::vault::{Seen, Store as _};

/// Parts in flight of one upload.
const PARTS_AT_ONCE: usize = 3;

/// The protocol allows 10,000.
const MOST_PARTS: u64 = 9_000;

/// What an object in parts will be, computed before it is sent.
struct Planned {
    size: u64,
    parts: Vec<[u8; 32]>,
    of_parts: String,
}

impl S3 {
    /// Writes what goes in one request; the SHA-256 of what the server then keeps, where its answer tells that.
    pub(super) async fn write(
        &self,
        name: &str,
        content: Bytes,
        mode: &PutMode,
        class: Option<&'static str>,
    ) -> object_store::Result<Option<String>> {
        let mut headers = raw::checksum(&Sha256::digest(&content)).to_vec();
        headers.extend(class.map(|class| ("x-amz-storage-class", class.to_owned())));
        headers.extend(self.bucket.encryption.iter().cloned());
        headers.extend(raw::condition(mode));
        let key = self.key(name);
        let answer = self.raw.ask(Ask { headers: &headers, body: content, ..Ask::new(Method::PUT, &key) }).await?;
        Ok(answer.kept())
    }

    pub(super) fn mode(&self, over: Option<&Seen>) -> PutMode {
        let honours = self.honours();
        match over {
            None if honours.create => PutMode::Create,
            Some(Seen { tag: Some(tag), .. }) if honours.replace => {
                PutMode::Update(UpdateVersion { e_tag: Some(tag.clone()), version: None })
            }
            _ => PutMode::Overwrite,
        }
    }

    /// Whether a write that failed has arrived all the same: the reply to it, or to an earlier try, was lost.
    pub(super) async fn arrived(&self, name: &str, sha256: &str, error: &object_store::Error) -> bool {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        !matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
            && matches!(self.look(name).await, Ok(Some(seen)) if seen.sha256 == sha256)
    }

    /// See [`S3::write`].
    pub(super) async fn put_at_once(
        &self,
        file: &Path,
        name: &str,
        sha256: &str,
        over: Option<&Seen>,
    ) -> Result<Option<String>> {
        let _room = self.room.acquire().await;
        let content = read_part(file, 0, PART).await?;
        if hex::encode(Sha256::digest(&content)) != sha256 {
            return Err(damaged(file));
        }
        self.throttle.take(content.len()).await;
        match self.write(name, content, &self.mode(over), self.bucket.storage_class).await {
            Err(error) if !self.arrived(name, sha256, &error).await => Err(self.told("write", name)(error)),
            written => Ok(written.ok().flatten()),
        }
    }

    /// Uploads in parts, and returns the SHA-256 of their SHA-256.
    pub(super) async fn put_in_parts(
        &self,
        file: &Path,
        name: &str,
        sha256: &str,
        length: u64,
        over: Option<&Seen>,
    ) -> Result<String> {
        let planned = plan_parts(file, length, sha256).await?;
        let mut headers = vec![
            ("x-amz-checksum-algorithm", "SHA256".to_owned()),
            (NOTE, sha256.to_owned()),
            (NOTE_OF_PARTS, planned.of_parts.clone()),
        ];
        headers.extend(self.bucket.storage_class.map(|class| ("x-amz-storage-class", class.to_owned())));
        headers.extend(self.bucket.encryption.iter().cloned());
        let key = self.key(name);
        let upload = Upload::begin(&self.raw, &key, &headers).await.map_err(self.told("write", name))?;
        let sending = async {
            let (upload, size) = (&upload, planned.size);
            let sends = (1..).zip(planned.parts.iter().copied()).map(|(number, digest)| async move {
                let offset = size * (number as u64 - 1);
                let _room = self.room.acquire().await;
                let content = read_part(file, offset, size.min(length - offset)).await?;
                if Sha256::digest(&content)[..] != digest {
                    return Err(damaged(file));
                }
                self.throttle.take(content.len()).await;
                upload.send(number, content, &digest).await.map_err(self.told("write", name))
            });
            let parts: Vec<_> = stream::iter(sends).buffered(PARTS_AT_ONCE).try_collect().await?;
            match upload.complete(&parts, &self.mode(over)).await {
                Err(error) if !self.arrived(name, sha256, &error).await => Err(self.told("write", name)(error)),
                _ => Ok(()),
            }
        };
        let sent = sending.await;
        if sent.is_err() {
            upload.abort().await;
        }
        sent.map(|()| planned.of_parts)
    }

    /// What one request does not copy.
    pub(super) async fn copy_in_parts(&self, from: &str, to: &str, length: u64, tag: Option<&str>) -> Result<()> {
        let size = COPIED_AT_ONCE.max(length.div_ceil(MOST_PARTS));
        let (source, key) = (self.key(from), self.key(to));
        let source = Source { bucket: &self.bucket.name, path: &source, tag };
        // Without an algorithm: what the server would compute is that of parts which nobody has hashed.
        let begun = Upload::begin(&self.raw, &key, &self.bucket.encryption).await;
        let upload = begun.map_err(self.told("keep a version as", to))?;
        let copying = async {
            let count = usize::try_from(length.div_ceil(size)).unwrap_or(usize::MAX);
            let copies = (1..=count).map(|number| {
                let first = size * (number as u64 - 1);
                upload.copy(number, &source, first, (first + size).min(length) - 1)
            });
            let parts: Vec<_> = stream::iter(copies).buffered(PARTS_AT_ONCE).try_collect().await?;
            match upload.complete(&parts, &PutMode::Overwrite).await {
                // The reply to it, or to an earlier try, was lost. The name tells the content, and it is whole or not there.
                Err(error) if !matches!(self.length(to).await, Ok(Some(there)) if there == length) => Err(error),
                _ => Ok(()),
            }
        };
        let copied = copying.await;
        if copied.is_err() {
            upload.abort().await;
        }
        copied.map_err(self.told("keep a version as", to))
    }

    /// What the server holds must be what we sent.
    pub(super) async fn check(&self, name: &str, sha256: &str, of_parts: Option<&str>) -> Result<()> {
        let head = self.raw.head(&self.key(name)).await.ok().flatten();
        if let Some(kept) = head.as_ref().and_then(raw::Head::kept) {
            self.checksums.store(true, Ordering::Relaxed);
            if kept == sha256 || Some(kept) == of_parts {
                return Ok(());
            }
        }
        if self.read_again(name).await?.as_deref() == Some(sha256) {
            return Ok(());
        }
        Err(Error::new(Kind::Damaged, format!("{} holds other bytes than were sent", self.show(name)))
            .hint("another run may write into this vault; if none does, check the store"))
    }
}

fn damaged(file: &Path) -> Error {
    Error::new(Kind::Damaged, format!("{} is not what was sealed, and is not sent", file.display()))
        .hint("check the disk and the memory of this machine")
}

/// Hashes a file before any of it is sent, whole and in parts.
async fn plan_parts(file: &Path, length: u64, sha256: &str) -> Result<Planned> {
    let size = PART.max(length.div_ceil(MOST_PARTS));
    let (mut whole, mut of_parts, mut parts) = (Sha256::new(), Sha256::new(), Vec::new());
    let mut offset = 0;
    while offset < length {
        let content = read_part(file, offset, size.min(length - offset)).await?;
        if content.is_empty() {
            return Err(damaged(file));
        }
        whole.update(&content);
        let part = Sha256::digest(&content);
        of_parts.update(part);
        parts.push(part.into());
        offset += content.len() as u64;
    }
    if hex::encode(whole.finalize()) != sha256 {
        return Err(damaged(file));
    }
    Ok(Planned { size, parts, of_parts: hex::encode(of_parts.finalize()) })
}

async fn read_part(file: &Path, offset: u64, length: u64) -> Result<Bytes> {
    let path = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let failed = |error| Error::io("read", &path, error);
        let mut file = File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(length).read_to_end(&mut content).map_err(failed)?;
        Ok(Bytes::from(content))
    });
    reading.await.map_err(|died| Error::failed("reading the spool stopped unexpectedly").with_source(died))?
}
