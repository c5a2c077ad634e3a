//! The paths that every row, or every receipt, goes through: `cargo bench`.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs, reason = "a benchmark")]

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use cdrvault_pipeline::facts::FactGatherer;
use cdrvault_pipeline::layout;
use cdrvault_pipeline::partition::{Partition, Unit};

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

/// From the name of a receipt to its partition and generation, 5,000 times.
#[divan::bench]
fn receipts_of_5000_days(bencher: divan::Bencher<'_, '_>) {
    let first: jiff::civil::Date = "2015-01-01".parse().unwrap();
    let names: Vec<String> = (0..5_000)
        .map(|day| {
            let unit = Unit::new("ar_cdr", Partition::Day(first + jiff::Span::new().days(day)));
            layout::manifest(&unit, 7).unwrap()
        })
        .collect();
    bencher.bench(|| {
        let parse = |name: &String| {
            let mut parts = name.rsplit('/');
            let generation = layout::parse_manifest_name(parts.next()?)?;
            Some((parts.next()?.parse::<Partition>().ok()?, generation))
        };
        names.iter().filter_map(parse).count()
    });
}
