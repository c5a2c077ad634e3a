//! A Parquet file of ours back into rows.

use std::fs::File;
use std::sync::Arc;

use arrow_array::RecordBatch;
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::manifest::ColumnInfo;
use cdrvault_pipeline::payload::{Body, Object, ObjectStream, Payload, RowStream, RowsAbout};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use crate::blocking;

/// Footer key: the columns that the application renumbers, by comma.
pub(super) const RENUMBERED: &str = "cdrvault.renumbered";
/// Footer key: the columns as the database had them, as JSON.
pub(super) const COLUMNS: &str = "cdrvault.columns";

/// A batch has so many rows ...
const BATCH_ROWS: usize = 8192;
/// ... or about so many bytes, where rows are wide.
const BATCH_BYTES: u64 = 8 << 20;

/// No row group that we write is larger, decompressed.
const ROW_GROUP_LIMIT: u64 = 1 << 30;

/// The rows of the one file among `objects`. Its checksum must have been checked: the reader may panic on damaged
/// input (which ends the stream with an error, not the program).
pub(super) async fn decode(mut objects: ObjectStream) -> Result<Payload> {
    // The footer gives the schema, and it is in the file: one must look into it before any row is asked for.
    let first = objects.try_next().await?;
    let Some(Object { body: Body::File(path), .. }) = first else {
        return Err(Error::failed("`parquet` decodes a local file, and was given something else"));
    };
    let open = || File::open(&path).map_err(|error| Error::io("open", &path, error));
    let metadata = ArrowReaderMetadata::load(&open()?, ArrowReaderOptions::new()).map_err(explain)?;
    for group in metadata.metadata().row_groups() {
        if u64::try_from(group.total_byte_size()).unwrap_or(u64::MAX) > ROW_GROUP_LIMIT {
            return Err(Error::new(Kind::Damaged, "the Parquet file would need more memory than any of ours")
                .hint("it was not written by cdrvault; see how it came into the vault"));
        }
    }
    let batch_rows = batch_rows(metadata.metadata().row_groups());
    let schema = Arc::clone(metadata.schema());
    let about = about(&metadata)?;
    // The reader adds the footer's keys to the schema; the rows' own schema has none.
    let schema = Arc::new(arrow_schema::Schema::new(schema.fields().clone()));
    let file = open()?;
    let nothing: BoxStream<'static, Result<()>> = stream::empty().boxed();
    let own = Arc::clone(&schema);
    let batches = blocking::work(nothing, move |_, outputs| {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_batch_size(batch_rows)
            .build()
            .map_err(explain)?;
        for batch in reader {
            let batch = batch.map_err(|error| damaged().with_source(error))?;
            let batch = RecordBatch::try_new(Arc::clone(&own), batch.columns().to_vec());
            outputs.send(batch.map_err(|error| damaged().with_source(error))?)?;
        }
        Ok(())
    });
    Ok(Payload::Rows(RowStream { schema, about, batches }))
}

/// How many rows of the widest row group make a batch.
fn batch_rows(groups: &[RowGroupMetaData]) -> usize {
    let widths = groups.iter().map(|group| {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        // What a dictionary holds once comes out many times.
        let texts = group.columns().iter().filter_map(ColumnChunkMetaData::unencoded_byte_array_data_bytes);
        let decoded = texts.map(count).sum::<u64>().max(count(group.total_byte_size()));
        decoded / count(group.num_rows()).max(1)
    });
    let widest = widths.max().unwrap_or(0).max(1);
    usize::try_from(BATCH_BYTES / widest).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
}

fn about(metadata: &ArrowReaderMetadata) -> Result<RowsAbout> {
    let mut about = RowsAbout::default();
    let entries = metadata.metadata().file_metadata().key_value_metadata();
    for entry in entries.into_iter().flatten() {
        let Some(value) = &entry.value else { continue };
        match entry.key.as_str() {
            RENUMBERED => about.renumbered = value.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect(),
            COLUMNS => {
                about.columns =
                    serde_json::from_str::<Vec<ColumnInfo>>(value).map_err(|error| damaged().with_source(error))?;
            }
            key if key.starts_with("cdrvault.") => {
                about.metadata.insert(key.to_owned(), value.clone());
            }
            _ => {}
        }
    }
    Ok(about)
}

fn explain(error: ParquetError) -> Error {
    damaged().with_source(error)
}

fn damaged() -> Error {
    Error::new(Kind::Damaged, "the Parquet file cannot be decoded")
}
