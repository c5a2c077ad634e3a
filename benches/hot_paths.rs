//! The paths that every row, or every receipt, goes through: `cargo bench`.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs, reason = "a benchmark")]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use cdrvault_engine::config::{self, Pipeline};
use cdrvault_format::facts::FactGatherer;
use cdrvault_format::fingerprint::Fingerprinter;
use cdrvault_format::layout;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::codec::Codec;
use cdrvault_plugin::context::{Context, Writer};
use cdrvault_plugin::payload::{Body, Form, Payload, RowStream, RowsAbout};
use cdrvault_plugin::progress::Quiet;
use cdrvault_plugin::registry::Around;
use cdrvault_plugin::stage::{Transform, Work};
use cdrvault_stages::bench::Answer;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

fn main() {
    divan::main();
}

/// Rows like those of calls: ids, a time, money, numbers of telephones.
fn calls(rows: usize) -> RecordBatch {
    let count = i64::try_from(rows).unwrap();
    let times = TimestampMicrosecondArray::from_iter_values((0..count).map(|n| 1_767_225_600_000_000 + n * 43_000));
    let telephones = (0..count).map(|n| format!("39059{:07}", n * 7919 % 10_000_000));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..count))),
        ("calldate", Arc::new(times)),
        ("income", Arc::new(Int64Array::from_iter_values((0..count).map(|n| n * 31 % 90_000)))),
        ("cost", Arc::new(Int64Array::from_iter_values((0..count).map(|n| n * 17 % 90_000)))),
        ("duration", Arc::new(Int64Array::from_iter_values((0..count).map(|n| n % 1_800)))),
        ("external_telephone_number", Arc::new(BinaryArray::from_iter_values(telephones))),
    ];
    let kinds = [
        DataType::Int64,
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Int64,
        DataType::Int64,
        DataType::Int64,
        DataType::Binary,
    ];
    let fields: Vec<Field> =
        columns.iter().zip(kinds).map(|((name, _), kind)| Field::new(*name, kind, false)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// The hashes of the rows of one batch, and of its columns.
#[divan::bench(args = [8_192])]
fn row_hash(bencher: divan::Bencher<'_, '_>, rows: usize) {
    let batch = calls(rows);
    bencher.counter(divan::counter::ItemsCount::new(rows)).bench(|| {
        let mut fingerprinter = Fingerprinter::new(&batch.schema(), &["id".to_owned()]);
        fingerprinter.add(&batch).unwrap();
        fingerprinter.finish()
    });
}

/// Fingerprint and tripwire of one batch.
#[divan::bench(args = [1_024, 8_192, 65_536])]
fn fingerprint(bencher: divan::Bencher<'_, '_>, rows: usize) {
    let batch = calls(rows);
    bencher.counter(divan::counter::ItemsCount::new(rows)).bench(|| {
        let mut facts = FactGatherer::new(&batch.schema(), &["id".to_owned()]);
        facts.add(&batch).unwrap();
        facts.finish()
    });
}

/// Rows that come from a server, and of a Parquet file that is made, or read.
const FILE_ROWS: usize = 100_000;

/// What a server sends into rows. What a socket and TLS cost is not in it.
#[divan::bench]
fn receive(bencher: divan::Bencher<'_, '_>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = Answer::of_calls(u32::try_from(FILE_ROWS).unwrap());
    let counter = divan::counter::ItemsCount::new(FILE_ROWS);
    bencher.counter(counter).bench_local(|| assert_eq!(runtime.block_on(answer.read()).unwrap(), FILE_ROWS));
}

/// Calls into a vault in this directory, with the default settings.
fn pipeline(directory: &Path) -> Pipeline {
    const PIPELINE: &str = r#"
name = "bench"
timezone = "UTC"
[database.billing]
url = "mysql://cdrvault@localhost/billing"
[sink.vault.local]
path = "vault"
[flow.ar_cdr]
source.ar-cdr = { database = "billing" }
transforms = ["incremental", "parquet"]
sinks = ["vault"]
"#;
    config::load(&directory.join("bench.toml"), PIPELINE, &cdrvault::registry()).unwrap()
}

/// What makes Parquet of rows and rows of Parquet.
fn parquet() -> Arc<dyn Transform> {
    pipeline(Path::new("/")).flows[0].transforms.last().map(Arc::clone).unwrap()
}

fn unit() -> Unit {
    Unit::new("ar_cdr", Partition::Day("2026-01-01".parse().unwrap()))
}

/// The bytes of the file of one batch.
async fn encoded(parquet: &dyn Transform, batch: &RecordBatch) -> Vec<u8> {
    let work = Work::new(unit(), 1, Form::Object);
    work.facts.set(FactGatherer::new(&batch.schema(), &[]).finish());
    let batches = stream::iter([Ok(batch.clone())]).boxed();
    let rows = RowStream { schema: batch.schema(), about: RowsAbout::default(), batches };
    let Payload::Objects(mut objects) = parquet.apply(&work, Payload::Rows(rows)).unwrap() else { unreachable!() };
    let object = objects.try_next().await.unwrap().unwrap();
    let Body::Stream(bytes) = object.body else { unreachable!() };
    bytes
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
        .unwrap()
}

/// How many rows a file gives.
async fn decoded(codec: &dyn Codec, path: &Path) -> usize {
    let rows = codec.rows(path).await.unwrap();
    rows.batches.try_fold(0, async |rows, batch| Ok(rows + batch.num_rows())).await.unwrap()
}

/// Rows into the bytes of a Parquet file.
#[divan::bench]
fn encode(bencher: divan::Bencher<'_, '_>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (parquet, batch) = (parquet(), calls(FILE_ROWS));
    let counter = divan::counter::ItemsCount::new(FILE_ROWS);
    bencher.counter(counter).bench_local(|| runtime.block_on(encoded(parquet.as_ref(), &batch)));
}

/// A Parquet file into rows.
#[divan::bench]
fn decode(bencher: divan::Bencher<'_, '_>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let codecs = cdrvault::registry().codecs;
    let codec = codecs.codec("parquet").unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&runtime.block_on(encoded(parquet().as_ref(), &calls(FILE_ROWS)))).unwrap();
    let counter = divan::counter::ItemsCount::new(FILE_ROWS);
    bencher.counter(counter).bench_local(|| {
        assert_eq!(runtime.block_on(decoded(codec, file.path())), FILE_ROWS);
    });
}

/// The names of the receipts of 5,000 days in a directory.
#[divan::bench]
fn list_receipts_of_5000_days(bencher: divan::Bencher<'_, '_>) {
    let place = tempfile::tempdir().unwrap();
    let first: jiff::civil::Date = "2015-01-01".parse().unwrap();
    for day in 0..5_000 {
        let unit = Unit::new("ar_cdr", Partition::Day(first + jiff::Span::new().days(day)));
        let receipt = place.path().join("vault").join(layout::manifest(&unit, 7).unwrap());
        std::fs::create_dir_all(receipt.parent().unwrap()).unwrap();
        std::fs::File::create_new(receipt).unwrap();
    }
    let around = Around { datasets: vec!["ar_cdr".to_owned()], mirrored: None };
    let vault = pipeline(place.path()).sinks[0].build.build(&around).unwrap();
    let writer = Writer {
        pipeline: "bench".to_owned(),
        id: "00000000".to_owned(),
        timezone: jiff::tz::TimeZone::UTC,
        state: place.path().join("state"),
    };
    let cx = Context {
        cancel: CancellationToken::new(),
        progress: Arc::new(Quiet),
        writer: Arc::new(writer),
        scratch: None,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    bencher.bench_local(|| assert_eq!(runtime.block_on(vault.history(&cx, "ar_cdr")).unwrap().len(), 5_000));
}
