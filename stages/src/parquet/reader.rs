//! A Parquet file of ours back into rows.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Fields, Schema};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::ColumnInfo;
use cdrvault_plugin::payload::{RowStream, RowsAbout};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::pages;
use crate::blocking;

/// Footer key: the columns that the application renumbers, by comma.
pub(super) const RENUMBERED: &str = "cdrvault.renumbered";
/// Footer key: the columns as the database had them, as JSON.
pub(super) const COLUMNS: &str = "cdrvault.columns";

const BATCH_ROWS: usize = 8192;

/// A batch that goes on has no more bytes of text than this, unless one row has.
const BATCH_BYTES: usize = 16 << 20;

/// The pages that a batch is read from should not have more than this.
const PAGES_BYTES: usize = 64 << 20;

/// No row group that we write is larger, decompressed: it ends at 64 MiB encoded.
const ROW_GROUP_LIMIT: u64 = 1 << 30;

/// The rows of a file. Its checksum must have been checked: the reader may panic on damaged input (which ends the stream
/// with an error, not the program).
pub(super) async fn decode(path: PathBuf) -> Result<RowStream> {
    // The footer gives the schema, and it is in the file: one must look into it before any row is asked for.
    let opening = tokio::task::spawn_blocking(move || open(&path));
    let opened = opening.await.map_err(|died| damaged().with_source(died))??;
    let Opened { file, metadata, batch_rows } = opened;
    let about = about(&metadata)?;
    // The reader adds the footer's keys to the schema; the rows' own schema has none.
    let schema = Arc::new(arrow_schema::Schema::new(without_views(metadata.schema())));
    let nothing: BoxStream<'static, Result<()>> = stream::empty().boxed();
    let own = Arc::clone(&schema);
    let batches = blocking::work(nothing, move |_, outputs| {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_batch_size(batch_rows)
            .build()
            .map_err(explain)?;
        for batch in reader {
            let batch = batch.map_err(|error| damaged().with_source(error))?;
            let mut rest = batch;
            while rest.num_rows() > 0 {
                let rows = rows_of(&rest, BATCH_BYTES);
                outputs.send(copied(&own, &rest.slice(0, rows))?)?;
                rest = rest.slice(rows, rest.num_rows() - rows);
            }
        }
        Ok(())
    });
    Ok(RowStream { schema, about, batches })
}

/// Where the footer of a file begins: <https://parquet.apache.org/docs/file-format/>
pub(super) fn footer_start(path: &Path) -> Result<u64> {
    let failed = |error| Error::io("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let Some(end) = length.checked_sub(8) else { return Err(damaged()) };
    file.seek(SeekFrom::Start(end)).map_err(failed)?;
    let mut footer = [0; 4];
    file.read_exact(&mut footer).map_err(failed)?;
    end.checked_sub(u64::from(u32::from_le_bytes(footer))).ok_or_else(damaged)
}

struct Opened {
    file: File,
    metadata: ArrowReaderMetadata,
    batch_rows: usize,
}

/// Reads the footer and the headers of all pages. Text and bytes are read as views into their pages: of a dictionary with
/// one long value, which every row names, no row has a copy.
fn open(path: &Path) -> Result<Opened> {
    let failed = |error| Error::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(explain)?;
    let mut batch_rows = BATCH_ROWS;
    for group in metadata.metadata().row_groups() {
        let bytes = pages::decompressed(&file, group).map_err(|error| damaged().with_source(error))?;
        if bytes > ROW_GROUP_LIMIT {
            return Err(Error::new(Kind::Damaged, "the Parquet file would need more memory than any of ours")
                .hint("it was not written by cdrvault; see how it came into the vault"));
        }
        let rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
        // As many rows as the pages of a batch have room for, if all rows are alike.
        let fit = (PAGES_BYTES as u64).saturating_mul(rows) / bytes.max(1);
        batch_rows = batch_rows.min(usize::try_from(fit).unwrap_or(BATCH_ROWS)).max(1);
    }
    let views = metadata.schema().fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            DataType::Binary => DataType::BinaryView,
            other => other.clone(),
        };
        field.as_ref().clone().with_data_type(kind)
    });
    let schema = Arc::new(Schema::new_with_metadata(views.collect::<Fields>(), metadata.schema().metadata().clone()));
    let options = ArrowReaderOptions::new().with_schema(schema);
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options).map_err(explain)?;
    Ok(Opened { file, metadata, batch_rows })
}

fn without_views(schema: &Schema) -> Fields {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            other => other.clone(),
        };
        field.as_ref().clone().with_data_type(kind)
    });
    fields.collect()
}

/// How many of the first rows have no more than so many bytes of text and bytes; at least one.
fn rows_of(batch: &RecordBatch, limit: usize) -> usize {
    let lengths: Vec<_> = batch.columns().iter().filter_map(lengths).collect();
    let mut bytes: usize = 0;
    for row in 0..batch.num_rows() {
        for lengths in &lengths {
            // The low half of a view is the length of its value.
            bytes = bytes.saturating_add((lengths[row] & u128::from(u32::MAX)) as usize);
        }
        if bytes > limit && row > 0 {
            return row;
        }
    }
    batch.num_rows()
}

fn lengths(column: &ArrayRef) -> Option<&[u128]> {
    let text = column.as_string_view_opt().map(|views| views.views().as_ref());
    text.or_else(|| column.as_binary_view_opt().map(|views| views.views().as_ref()))
}

/// The same rows in memory of their own, of the types that all others know.
fn copied(schema: &Arc<Schema>, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        if let Some(views) = column.as_string_view_opt() {
            let mut text = StringBuilder::with_capacity(views.len(), views.total_bytes_len());
            text.extend(views);
            return Arc::new(text.finish());
        }
        if let Some(views) = column.as_binary_view_opt() {
            let mut bytes = BinaryBuilder::with_capacity(views.len(), views.total_bytes_len());
            bytes.extend(views);
            return Arc::new(bytes.finish());
        }
        Arc::clone(column)
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let made = RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect(), &options);
    made.map_err(|error| damaged().with_source(error))
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
