//! What streams through a flow: rows, or named byte streams.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use cdrvault_format::entry::Entry;
use cdrvault_format::error::{Error, Result};
use cdrvault_format::manifest::{ColumnInfo, TableInfo};

/// Which of the two a stage takes or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Arrow batches with a schema.
    Rows,
    /// Named byte streams.
    Objects,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rows => "rows",
            Self::Objects => "objects",
        })
    }
}

/// How a dataset's partitions lie in the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One object at a stable live path.
    Object,
    /// A manifest of entries, with content-addressed bodies.
    Tree,
}

/// The content of one partition on its way.
pub enum Payload {
    /// Rows of a table.
    Rows(RowStream),
    /// Files, or one encoded object.
    Objects(ObjectStream),
}

impl Payload {
    /// Its shape.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Rows(_) => Shape::Rows,
            Self::Objects(_) => Shape::Objects,
        }
    }
}

/// Batches that share one schema. The last error or the end of the stream ends it; dropping it stops the reader.
pub struct RowStream {
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// What else is to be known of the rows.
    pub about: RowsAbout,
    /// The rows, in the order of `about.key`.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

/// What a source knows of its rows besides their schema.
#[derive(Debug, Clone, Default)]
pub struct RowsAbout {
    /// The columns that the rows are sorted by.
    pub key: Vec<String>,
    /// The columns that the application renumbers without a change of content.
    pub renumbered: Vec<String>,
    /// The table that they are of.
    pub table: Option<TableInfo>,
    /// The columns as the database has them.
    pub columns: Vec<ColumnInfo>,
    /// Facts for readers of the stored object, such as the scale of money.
    pub metadata: BTreeMap<String, String>,
}

/// A stream of bytes of one object, in chunks of any size.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The bytes of a local file, which is opened now: it may be removed before they are read.
pub fn file_stream(path: &Path) -> Result<ByteStream> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let path = path.to_owned();
    let chunks = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), 1 << 17);
    Ok(chunks.map_err(move |error| Error::io("read", &path, error)).boxed())
}

/// Objects, in the order of their paths.
///
/// The body of an object is read to its end, or dropped, before the next object is asked for. An object whose path is
/// that of the object before it replaces that one, which is to be forgotten: the source found that it had changed while
/// it was being read, and reads it again (see also [`Body::Withdrawn`]). So a source can send a file of any size on
/// its way before it knows whether it will hold still. A content is whole when the stream of objects has ended.
pub type ObjectStream = BoxStream<'static, Result<Object>>;

/// One named byte stream.
pub struct Object {
    /// Its name and what the file system knows of it.
    pub entry: Entry,
    /// Its bytes.
    pub body: Body,
}

/// Where the bytes of an object are.
pub enum Body {
    /// There are none: a directory or a link.
    None,
    /// They come by stream.
    Stream(ByteStream),
    /// They lie in a local file, for those who need to seek.
    File(PathBuf),
    /// They are those of the live generation: `entry.stored` names an object that every sink of the flow holds.
    Unchanged,
    /// There are none after all: the object before, of the same path, could not be read to its end and is to be
    /// forgotten. The source has said so in its [notices](crate::notice).
    Withdrawn,
}
