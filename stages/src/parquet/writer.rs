//! Rows into the bytes of a Parquet file, on a thread of their own.

use std::io::Write;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use cdrvault_format::error::{Error, Result};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::payload::{ByteStream, RowStream, RowsAbout};
use cdrvault_plugin::stage::Work;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::cuts::Cuts;
use super::encoding::{self, Chosen};
use crate::blocking::{self, ChannelWriter};

/// Rows of a page, if they are not 1 MiB sooner. Each page is compressed for itself, and begins with nothing known.
const PAGE_ROWS: usize = 200_000;

/// Encodings are chosen from so many cuts.
const SAMPLE_CUTS: usize = 2;
/// ... or from one, if it is longer than this. A cut of short rows is half as long.
const SAMPLE_BYTES: u64 = 16 << 20;
/// A row group ends at this size, whatever its rows.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// ... and at this one before it is encoded: what compresses well must fit into a reader's memory too.
const ROW_GROUP_RAW_BYTES: u64 = 256 << 20;
/// Where a dictionary is given up. Customers and prefixes of a large operator fit.
const DICTIONARY_BYTES: usize = 2 << 20;

#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) level: i32,
    pub(super) row_group_rows: usize,
}

/// The bytes of the file. What the footer says of the rows is taken from `work.facts` when the rows have ended.
pub(super) fn encode(rows: RowStream, options: Options, work: Work) -> ByteStream {
    let RowStream { schema, about, batches } = rows;
    blocking::work(batches, move |inputs, outputs| {
        let mut encoder = Encoder {
            writer: Writer::Waiting(ChannelWriter::new(outputs)),
            cuts: Cuts::new(&schema),
            sample: Vec::new(),
            group_bytes: 0,
            sorted: work.unit.partition != Partition::Undated,
            schema,
            about,
            options,
        };
        for batch in inputs {
            encoder.push(&batch?)?;
        }
        encoder.finish(&work)
    })
}

struct Encoder<'a> {
    schema: SchemaRef,
    about: RowsAbout,
    options: Options,
    cuts: Cuts,
    sample: Vec<RecordBatch>,
    /// Of the row group that is being written, before it is encoded.
    group_bytes: u64,
    /// Whether the rows are in the order of the key as it is stored. Invalid dates are stored as NULL, and
    /// ordered by what they really are.
    sorted: bool,
    writer: Writer<'a>,
}

enum Writer<'a> {
    /// For the sample to be complete.
    Waiting(ChannelWriter<'a>),
    Open(Box<ArrowWriter<ChannelWriter<'a>>>),
    /// Only while one turns into the other, or after an error.
    Gone,
}

impl Encoder<'_> {
    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.cuts.push(batch).map_err(|error| Error::failed("cannot cut a batch").with_source(error))?;
        while let Some(cut) = self.cuts.next() {
            self.write(cut)?;
        }
        Ok(())
    }

    fn write(&mut self, cut: RecordBatch) -> Result<()> {
        if let Writer::Open(writer) = &mut self.writer {
            let bytes = self.cuts.size(&cut);
            if self.group_bytes + bytes > ROW_GROUP_RAW_BYTES {
                writer.flush().map_err(explain)?;
                self.group_bytes = 0;
            }
            writer.write(&cut).map_err(explain)?;
            // Another of the limits may have begun a new row group within the cut.
            let began = writer.in_progress_rows() < cut.num_rows();
            self.group_bytes = if began { bytes } else { self.group_bytes + bytes };
            return Ok(());
        }
        // Of long rows, two would take too much memory, and one cut tells as much.
        let is_long = self.cuts.size(&cut) > SAMPLE_BYTES;
        self.sample.push(cut);
        if self.sample.len() == SAMPLE_CUTS || is_long { self.open() } else { Ok(()) }
    }

    /// Chooses the encodings and writes what was held back.
    fn open(&mut self) -> Result<()> {
        if matches!(self.writer, Writer::Open(_)) {
            return Ok(());
        }
        let Writer::Waiting(out) = std::mem::replace(&mut self.writer, Writer::Gone) else { return Ok(()) };
        let sample = match self.sample.as_slice() {
            [only] => only.clone(),
            several => concat_batches(&self.schema, several)
                .map_err(|error| Error::failed("cannot join batches").with_source(error))?,
        };
        let options = ArrowWriterOptions::new().with_properties(self.properties(&encoding::choose(&sample))?);
        let writer = ArrowWriter::try_new_with_options(out, Arc::clone(&self.schema), options).map_err(explain)?;
        self.writer = Writer::Open(Box::new(writer));
        std::mem::take(&mut self.sample).into_iter().try_for_each(|cut| self.write(cut))
    }

    fn properties(&self, chosen: &[Chosen]) -> Result<WriterProperties> {
        let level = ZstdLevel::try_new(self.options.level).map_err(explain)?;
        let sorting = self.about.key.iter().filter(|_| self.sorted).filter_map(|name| {
            let column_idx = self.schema.index_of(name).ok().and_then(|index| i32::try_from(index).ok())?;
            Some(SortingColumn { column_idx, descending: false, nulls_first: false })
        });
        let mut builder: WriterPropertiesBuilder = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by(concat!("cdrvault version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(self.options.row_group_rows))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_dictionary_page_size_limit(DICTIONARY_BYTES)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_bloom_filter_enabled(false)
            .set_sorting_columns(Some(sorting.collect::<Vec<_>>()).filter(|columns| !columns.is_empty()));
        for (field, chosen) in self.schema.fields().iter().zip(chosen) {
            let path = ColumnPath::from(field.name().as_str());
            builder = match chosen {
                Chosen::Dictionary => builder,
                Chosen::Direct(encoding) => {
                    builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, *encoding)
                }
            };
        }
        Ok(builder.build())
    }

    fn finish(mut self, work: &Work) -> Result<()> {
        self.cuts.end().map_err(|error| Error::failed("cannot cut a batch").with_source(error))?;
        while let Some(cut) = self.cuts.next() {
            self.write(cut)?;
        }
        self.open()?;
        let Writer::Open(mut writer) = self.writer else {
            return Err(Error::failed("the Parquet file was never opened"));
        };
        for (key, value) in footer(work, &self.about)? {
            writer.append_key_value_metadata(KeyValue::new(key, value));
        }
        let mut out = writer.into_inner().map_err(explain)?;
        out.flush().map_err(|error| blocking::unwrap_io("encode Parquet", error))
    }
}

/// What the file says of itself.
fn footer(work: &Work, about: &RowsAbout) -> Result<Vec<(String, String)>> {
    let facts = work.facts.get().ok_or_else(|| Error::failed("the rows ended without their facts"))?;
    let columns = serde_json::to_string(&about.columns)
        .map_err(|error| Error::failed("cannot write the columns as JSON").with_source(error))?;
    let mut entries = vec![
        ("cdrvault.format", cdrvault_format::manifest::NOTES_FORMAT.to_string()),
        ("cdrvault.dataset", work.unit.dataset.clone()),
        ("cdrvault.partition", work.unit.partition.to_string()),
        ("cdrvault.generation", work.generation.to_string()),
        ("cdrvault.rows", facts.rows.to_string()),
        ("cdrvault.fingerprint.algorithm", facts.fingerprint.algorithm.clone()),
        ("cdrvault.fingerprint.content", facts.fingerprint.content.to_string()),
        ("cdrvault.fingerprint.full", facts.fingerprint.full.to_string()),
        (super::reader::RENUMBERED, about.renumbered.join(",")),
        (super::reader::COLUMNS, columns),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect::<Vec<_>>();
    entries.extend(about.metadata.clone());
    Ok(entries)
}

fn explain(error: ParquetError) -> Error {
    match error {
        // What our own channel said comes back as it was.
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(io) => blocking::unwrap_io("encode Parquet", *io),
            Err(cause) => Error::failed("cannot encode Parquet").with_source(cause),
        },
        other => Error::failed("cannot encode Parquet").with_source(other),
    }
}
