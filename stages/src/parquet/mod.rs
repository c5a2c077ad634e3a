//! `parquet`: rows become one Parquet file, and back.
//!
//! The same rows give the same bytes: batches are cut anew at fixed numbers of rows or bytes, encodings are chosen from the
//! first rows, and nothing that changes from run to run is written but the footer's generation, which follows
//! everything else (see [`Codec::stable_prefix`]).
//! Format: <https://github.com/apache/parquet-format>.

mod cuts;
mod encoding;
mod pages;
mod reader;
mod writer;

use std::path::Path;

use async_trait::async_trait;
use cdrvault_format::entry::Entry;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::codec::Codec;
use cdrvault_plugin::options::{Section, schema_of};
use cdrvault_plugin::payload::{Body, Object, Payload, RowStream, Shape};
use cdrvault_plugin::registry::Plugin;
use cdrvault_plugin::stage::{Transform, Work};
use futures::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::compression::Compression;

pub(crate) fn plugin() -> Plugin<dyn Transform> {
    Plugin {
        kind: "parquet",
        about: "rows to one Parquet file a partition, sorted by the table's key",
        details: "Statistics and page indexes are written, Bloom filters are not. Each column's encoding is chosen from its \
                  data. The footer names dataset, partition, generation and fingerprints, so that a file identifies itself.",
        schema: schema_of::<Options>,
        parse,
    }
}

/// Rows to Parquet.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Options {
    /// `"zstd"` or `"zstd(LEVEL)"`, levels 1 to 22.
    compression: Compression,
    /// The number of rows after which a new row group begins, at most. It also ends at 64 MiB of encoded
    /// data, and at 256 MiB of what that decodes to.
    #[schemars(range(min = 1024, max = 16_777_216))]
    row_group_rows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { compression: Compression::default(), row_group_rows: 1 << 19 }
    }
}

/// In receipts.
const ENCODING: &str = "parquet";

/// After the name of a live object.
const SUFFIX: &str = ".parquet";

/// The way back.
pub(crate) struct Rows;

#[async_trait]
impl Codec for Rows {
    fn name(&self) -> &'static str {
        ENCODING
    }

    fn suffix(&self) -> &'static str {
        SUFFIX
    }

    async fn rows(&self, encoded: &Path) -> Result<RowStream> {
        reader::decode(encoded.to_owned()).await
    }

    /// The footer names the generation.
    fn stable_prefix(&self, encoded: &Path) -> Result<Option<u64>> {
        reader::footer_start(encoded).map(Some)
    }
}

struct Parquet {
    options: Options,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn Transform>> {
    let options: Options = section.options()?;
    Some(Box::new(Parquet { options }))
}

impl Transform for Parquet {
    fn kind(&self) -> &'static str {
        "parquet"
    }

    fn accepts(&self, input: Shape) -> Option<Shape> {
        (input == Shape::Rows).then_some(Shape::Objects)
    }

    fn apply(&self, work: &Work, input: Payload) -> Result<Payload> {
        let Payload::Rows(rows) = input else { return Err(wrong_shape()) };
        let options =
            writer::Options { level: self.options.compression.level(), row_group_rows: self.options.row_group_rows };
        let body = writer::encode(rows, options, work.clone());
        let mut entry = Entry::object(file_name(work));
        entry.encoded(ENCODING);
        Ok(Payload::Objects(stream::iter([Ok(Object { entry, body: Body::Stream(body) })]).boxed()))
    }
}

/// The name under which people and other programs find the file.
fn file_name(work: &Work) -> String {
    let dataset = &work.unit.dataset;
    match work.unit.partition {
        Partition::Day(day) => format!("{dataset}-{day}{SUFFIX}"),
        Partition::Undated => format!("{dataset}-undated{SUFFIX}"),
        Partition::Snapshot => format!("{dataset}{SUFFIX}"),
    }
}

fn wrong_shape() -> Error {
    Error::new(Kind::Failed, "`parquet` was given the wrong shape")
}
