//! How stored objects are decoded: by the names that receipts give to their encodings, whichever pipeline wrote them.
//!
//! A seal that checks itself, a restore, `verify` and a repair go this one way back. What encrypts objects will be one
//! more [`Codec`] beside the transform that applies it.

use std::fmt;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::context::Context;
use crate::payload::{Body, ByteStream, Object, RowStream, file_stream};
use crate::scratch::Scratch;
use cdrvault_format::entry::Entry;
use cdrvault_format::error::{Error, Kind, Result};

/// One encoding, backwards. It gives back bytes or rows, and implements the one of [`Codec::bytes`] and [`Codec::rows`].
#[async_trait]
pub trait Codec: Send + Sync {
    /// As receipts name it. A name means the same for ever.
    fn name(&self) -> &'static str;

    /// What stands after the name of a live object that is encoded so; the files of a tree keep their names.
    fn suffix(&self) -> &'static str;

    /// The bytes that were encoded. Nothing is read before the result is polled. More than `limit` bytes are damage.
    fn bytes(&self, encoded: ByteStream, limit: Option<u64>) -> Result<ByteStream> {
        let _ = (encoded, limit);
        Err(Error::new(Kind::Damaged, format!("`{}` holds rows, and bytes are asked for", self.name())))
    }

    /// The rows that were encoded, from a local file whose checksum holds. The name of the file may go away as soon as
    /// this returns.
    async fn rows(&self, encoded: &Path) -> Result<RowStream> {
        let _ = encoded;
        Err(Error::new(Kind::Damaged, format!("`{}` holds bytes, and rows are asked for", self.name())))
    }

    /// How many of the file's first bytes follow from its content alone; what comes after them names the generation.
    /// `None` where all bytes follow from the content.
    fn stable_prefix(&self, encoded: &Path) -> Result<Option<u64>> {
        let _ = encoded;
        Ok(None)
    }
}

/// Every encoding that this program knows.
#[derive(Clone, Default)]
pub struct Codecs(Vec<Arc<dyn Codec>>);

impl fmt::Debug for Codecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|codec| codec.name())).finish()
    }
}

impl Codecs {
    /// Adds one.
    pub fn add(&mut self, codec: impl Codec + 'static) {
        self.0.push(Arc::new(codec));
    }

    /// The encoding of this name.
    pub fn codec(&self, name: &str) -> Result<&dyn Codec> {
        let found = self.0.iter().find(|codec| codec.name() == name);
        found.map(|codec| &**codec).ok_or_else(|| {
            Error::new(
                Kind::Refused,
                format!("this cdrvault cannot decode `{}`, which the receipt names", name.escape_debug()),
            )
            .hint("use the cdrvault that wrote it, or a newer one")
        })
    }

    /// The object as it was before any encoding. Where it has no bytes, or is stored as it is, it stays what it is.
    pub fn plain(&self, object: Object) -> Result<Object> {
        let Object { mut entry, body } = object;
        let encodings = entry.stored.as_mut().map(|stored| std::mem::take(&mut stored.encodings)).unwrap_or_default();
        let bytes = match body {
            _ if encodings.is_empty() => return Ok(Object { entry, body }),
            Body::Stream(bytes) => bytes,
            Body::File(path) => file_stream(&path)?,
            Body::None | Body::Unchanged | Body::Withdrawn => return Ok(Object { entry, body }),
        };
        let limit = entry.sha256.is_some().then_some(entry.size);
        let name = entry.path.display();
        let decoded = self.undo(bytes, &encodings, limit)?;
        let decoded = decoded.map_err(move |error| error.at(format_args!("`{name}`"))).boxed();
        Ok(Object { entry, body: Body::Stream(decoded) })
    }

    /// The innermost encoding of an object of rows, as a local file: the object itself, or a copy of it without the
    /// encodings around that one.
    pub async fn innermost(&self, cx: &Context, entry: &Entry, body: Body) -> Result<Innermost<'_>> {
        let encodings = entry.stored.as_ref().map(|stored| stored.encodings.as_slice()).unwrap_or_default();
        let [first, around @ ..] = encodings else {
            return Err(Error::new(Kind::Damaged, "nothing says how the rows are encoded"));
        };
        let codec = self.codec(first)?;
        let bytes = match body {
            Body::File(path) if around.is_empty() => return Ok(Innermost { codec, path, scratch: None }),
            Body::File(path) => file_stream(&path)?,
            Body::Stream(bytes) => bytes,
            Body::None | Body::Unchanged | Body::Withdrawn => {
                return Err(Error::new(Kind::Damaged, "the object of rows has no bytes"));
            }
        };
        let scratch = Scratch::new(cx)?;
        let path = scratch.path().join("decoded");
        write(cx, self.undo(bytes, around, None)?, &path).await?;
        Ok(Innermost { codec, path, scratch: Some(scratch) })
    }

    /// The name of a live object without what its encodings put after it.
    pub fn plain_name<'a>(&self, name: &'a str, encodings: &[String]) -> &'a str {
        let suffixes = encodings.iter().rev().filter_map(|encoding| self.codec(encoding).ok()).map(Codec::suffix);
        suffixes.fold(name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name))
    }

    /// The last encoding was applied last. What comes out of the first one has a known length, if any has.
    fn undo(&self, mut bytes: ByteStream, encodings: &[String], limit: Option<u64>) -> Result<ByteStream> {
        for (index, name) in encodings.iter().enumerate().rev() {
            bytes = self.codec(name)?.bytes(bytes, limit.filter(|_| index == 0))?;
        }
        Ok(bytes)
    }
}

/// See [`Codecs::innermost`]. A copy goes when it is dropped.
pub struct Innermost<'a> {
    codec: &'a dyn Codec,
    path: PathBuf,
    scratch: Option<Scratch>,
}

impl Innermost<'_> {
    /// Its rows, which may outlive this.
    pub async fn rows(&self) -> Result<RowStream> {
        self.codec.rows(&self.path).await
    }

    /// See [`Codec::stable_prefix`].
    pub fn stable_prefix(&self) -> Result<Option<u64>> {
        self.codec.stable_prefix(&self.path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is not the object itself, but a copy without what encodes it further.
    pub fn is_copy(&self) -> bool {
        self.scratch.is_some()
    }
}

/// Drains a stream into a new file.
pub async fn write(cx: &Context, mut bytes: ByteStream, path: &Path) -> Result<()> {
    use std::io::Write as _;
    let failed = |error| Error::io("write", path, error).hint("name a place with enough room by --scratch DIRECTORY");
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    while let Some(chunk) = cx.unless_cancelled(bytes.try_next()).await? {
        tokio::task::block_in_place(|| file.write_all(&chunk)).map_err(failed)?;
    }
    Ok(())
}
