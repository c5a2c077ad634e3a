//! `parquet`: rows become one Parquet file, and back.
//!
//! The same rows give the same bytes: batches are cut anew at fixed numbers of rows or bytes, encodings are chosen from the
//! first rows, and nothing that changes from run to run is written but the footer's generation, which follows
//! everything else (see [`cdrvault_plugin::stage::Work::data_end`]).
//! Format: <https://github.com/apache/parquet-format>.

mod cuts;
mod encoding;
mod pages;
mod reader;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use cdrvault_format::entry::Entry;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Content, Holding, Manifest};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::options::{Section, schema_of};
use cdrvault_plugin::payload::{Body, Object, Payload, Shape};
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

/// Undoes what a generation's object bears the mark of.
pub(crate) fn decoder(manifest: &Manifest) -> Option<Arc<dyn Transform>> {
    let is_ours = manifest.holds() == Holding::Rows
        && matches!(&manifest.content, Content::Object(object) if object.path.ends_with(".parquet"));
    is_ours.then(|| Arc::new(Parquet { options: Options::default() }) as Arc<dyn Transform>)
}

struct Parquet {
    options: Options,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn Transform>> {
    let options: Options = section.options()?;
    Some(Box::new(Parquet { options }))
}

#[async_trait]
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
        let object = Object { entry: Entry::object(file_name(work)), body: Body::Stream(body) };
        Ok(Payload::Objects(stream::iter([Ok(object)]).boxed()))
    }

    async fn undo(&self, _work: &Work, input: Payload) -> Result<Payload> {
        let Payload::Objects(objects) = input else { return Err(wrong_shape()) };
        reader::decode(objects).await
    }
}

/// The name under which people and other programs find the file.
fn file_name(work: &Work) -> String {
    let dataset = &work.unit.dataset;
    match work.unit.partition {
        Partition::Day(day) => format!("{dataset}-{day}.parquet"),
        Partition::Undated => format!("{dataset}-undated.parquet"),
        Partition::Snapshot => format!("{dataset}.parquet"),
    }
}

fn wrong_shape() -> Error {
    Error::new(Kind::Failed, "`parquet` was given the wrong shape")
}
