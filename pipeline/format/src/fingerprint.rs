//! The fingerprint: one order-independent hash of a partition's rows, the same in seal, verify and restore.
//!
//! A cell's hash is XXH3-128 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>) of its canonical
//! bytes, seeded with its column's name and the kind of value. A row's hash is XXH3-128 of the sum of its cells'
//! hashes, so the order of the columns does not count; a partition's is the sum of its rows' hashes, so neither
//! the order of the rows nor the batches they came in count. Sums are modulo 2^128; they keep equal rows, where
//! XOR would cancel them. The number of rows is part of it.
//!
//! | value | canonical bytes |
//! |---|---|
//! | NULL | none, with a kind of its own: NULL is not '' |
//! | integers and booleans | 8 bytes, little-endian, two's complement; another kind above 2^63-1 |
//! | floats | 8 bytes, IEEE 754 binary64, little-endian |
//! | decimals | 32 bytes, little-endian, two's complement, then the scale |
//! | text, binary | their bytes |
//! | timestamps | microseconds since 1970 as 8 bytes, with or without zone |
//! | dates | days since 1970 as 8 bytes |
//!
//! Trees of files are hashed entry by entry, see [`of_entries`].
//!
//! It finds changes and damage; it is not a signature. What an attacker could do is left to SHA-256.

use std::fmt;
use std::str::FromStr;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, RecordBatch};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use crate::entry::Entry;
use crate::error::{Error, Result};

/// The name of the algorithm described above. With another one, recompute from the stored object.
pub const ALGORITHM: &str = "xxh3-128-sum/1";

/// The two hashes of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fingerprint {
    /// [`ALGORITHM`] of the writer.
    pub algorithm: String,
    /// Without the columns that the application renumbers: says whether anything changed.
    pub content: Digest,
    /// Every column: proves a restore.
    pub full: Digest,
}

/// A count and a sum of hashes; in text `12345-0f...`, the count in decimal and the sum as 32 hex digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// Rows.
    pub count: u64,
    /// Sum of the rows' hashes modulo 2^128.
    pub sum: u128,
}

impl Digest {
    /// Adds one row, or one entry of a tree, by its hash.
    pub fn add(&mut self, hash: u128) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.count, self.sum)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a digest: a count, `-` and 32 hex digits");
        let (count, sum) = text.split_once('-').ok_or_else(wrong)?;
        if sum.len() != 32 {
            return Err(wrong());
        }
        Ok(Self {
            count: count.parse().map_err(|_| wrong())?,
            sum: u128::from_str_radix(sum, 16).map_err(|_| wrong())?,
        })
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The fingerprint of a tree, or of one object: each entry is hashed as JSON, without the inode and the stored form.
pub fn of_entries(entries: &[Entry]) -> Fingerprint {
    let mut digest = Digest::default();
    for entry in entries {
        let content = Entry { stored: None, seen: None, ..entry.clone() };
        // Plain data with text keys always has a JSON form.
        digest.add(xxh3_128(&serde_json::to_vec(&content).unwrap_or_default()));
    }
    Fingerprint { algorithm: ALGORITHM.to_owned(), content: digest, full: digest }
}

/// What a cell is; part of its seed.
#[derive(Clone, Copy)]
enum CellKind {
    Null = 0,
    Int = 1,
    BigUnsigned = 2,
    Float = 3,
    Decimal = 4,
    Bytes = 5,
    Timestamp = 6,
    Date = 7,
}

/// The seeds of one column, one for each [`CellKind`].
#[derive(Debug, Clone)]
struct Seeds([u64; 8]);

impl Seeds {
    fn new(column: &str) -> Self {
        Self(std::array::from_fn(|kind| {
            let mut name = column.as_bytes().to_vec();
            name.extend([0, u8::try_from(kind).unwrap_or_default()]);
            xxh3_64(&name)
        }))
    }

    fn of(&self, kind: CellKind) -> u64 {
        self.0[kind as usize]
    }
}

/// Computes a [`Fingerprint`] from batches.
#[derive(Debug)]
pub struct Fingerprinter {
    columns: Vec<Column>,
    content: Digest,
    full: Digest,
    content_rows: Vec<u128>,
    full_rows: Vec<u128>,
}

#[derive(Debug)]
struct Column {
    index: usize,
    seeds: Seeds,
    in_content: bool,
}

impl Fingerprinter {
    /// Over every column of the schema; `renumbered` are left out of `content`.
    pub fn new(schema: &SchemaRef, renumbered: &[String]) -> Self {
        Self::over(schema, renumbered, |_| true)
    }

    /// Over the columns that `takes` accepts, such as those that an older generation had.
    pub fn over(schema: &SchemaRef, renumbered: &[String], takes: impl Fn(&str) -> bool) -> Self {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| takes(field.name()))
            .map(|(index, field)| Column {
                index,
                seeds: Seeds::new(field.name()),
                in_content: !renumbered.contains(field.name()),
            })
            .collect();
        Self {
            columns,
            content: Digest::default(),
            full: Digest::default(),
            content_rows: Vec::new(),
            full_rows: Vec::new(),
        }
    }

    /// Adds the rows of a batch, whose schema must be the one given to [`Fingerprinter::new`].
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let Self { columns, content_rows, full_rows, .. } = self;
        for sums in [&mut *content_rows, &mut *full_rows] {
            sums.clear();
            sums.resize(rows, 0);
        }
        for column in &*columns {
            let sums = if column.in_content { &mut *content_rows } else { &mut *full_rows };
            add_column(batch.column(column.index).as_ref(), &column.seeds, sums)?;
        }
        for (content, rest) in self.content_rows.iter().zip(&self.full_rows) {
            self.content.add(xxh3_128(&content.to_le_bytes()));
            self.full.add(xxh3_128(&content.wrapping_add(*rest).to_le_bytes()));
        }
        Ok(())
    }

    /// The fingerprint of all rows added.
    pub fn finish(&self) -> Fingerprint {
        Fingerprint { algorithm: ALGORITHM.to_owned(), content: self.content, full: self.full }
    }
}

/// Adds the hash of each cell of `array` to the sum of its row.
fn add_column(array: &dyn Array, seeds: &Seeds, sums: &mut [u128]) -> Result<()> {
    match array.data_type() {
        DataType::Int8 => add_ints::<Int8Type>(array, seeds, sums),
        DataType::Int16 => add_ints::<Int16Type>(array, seeds, sums),
        DataType::Int32 => add_ints::<Int32Type>(array, seeds, sums),
        DataType::Int64 => add_ints::<Int64Type>(array, seeds, sums),
        DataType::UInt8 => add_ints::<UInt8Type>(array, seeds, sums),
        DataType::UInt16 => add_ints::<UInt16Type>(array, seeds, sums),
        DataType::UInt32 => add_ints::<UInt32Type>(array, seeds, sums),
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>();
            add_cells(array, seeds, sums, |row| {
                let value = values.value(row);
                let kind = if i64::try_from(value).is_ok() { CellKind::Int } else { CellKind::BigUnsigned };
                (kind, value.to_le_bytes())
            });
        }
        DataType::Boolean => {
            let values = array.as_boolean();
            add_cells(array, seeds, sums, |row| (CellKind::Int, i64::from(values.value(row)).to_le_bytes()));
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            add_cells(array, seeds, sums, |row| (CellKind::Float, f64::from(values.value(row)).to_le_bytes()));
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            add_cells(array, seeds, sums, |row| (CellKind::Float, values.value(row).to_le_bytes()));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = array.as_primitive::<TimestampMicrosecondType>();
            add_cells(array, seeds, sums, |row| (CellKind::Timestamp, values.value(row).to_le_bytes()));
        }
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>();
            add_cells(array, seeds, sums, |row| (CellKind::Date, i64::from(values.value(row)).to_le_bytes()));
        }
        DataType::Decimal128(_, scale) => {
            let values = array.as_primitive::<Decimal128Type>();
            add_cells(array, seeds, sums, |row| {
                let value = arrow_buffer::i256::from_i128(values.value(row));
                (CellKind::Decimal, decimal_bytes(value, *scale))
            });
        }
        DataType::Decimal256(_, scale) => {
            let values = array.as_primitive::<Decimal256Type>();
            add_cells(array, seeds, sums, |row| (CellKind::Decimal, decimal_bytes(values.value(row), *scale)));
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            add_cells(array, seeds, sums, |row| (CellKind::Bytes, values.value(row)));
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>();
            add_cells(array, seeds, sums, |row| (CellKind::Bytes, values.value(row)));
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            add_cells(array, seeds, sums, |row| (CellKind::Bytes, values.value(row)));
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>();
            add_cells(array, seeds, sums, |row| (CellKind::Bytes, values.value(row)));
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            add_cells(array, seeds, sums, |row| (CellKind::Bytes, values.value(row)));
        }
        other => return Err(Error::failed(format!("no canonical form is defined for a column of type {other}"))),
    }
    Ok(())
}

fn add_ints<T: ArrowPrimitiveType>(array: &dyn Array, seeds: &Seeds, sums: &mut [u128])
where
    T::Native: Into<i64>,
{
    let values = array.as_primitive::<T>();
    add_cells(array, seeds, sums, |row| {
        let value: i64 = values.value(row).into();
        (CellKind::Int, value.to_le_bytes())
    });
}

fn add_cells<B: AsRef<[u8]>>(
    array: &dyn Array,
    seeds: &Seeds,
    sums: &mut [u128],
    cell: impl Fn(usize) -> (CellKind, B),
) {
    let null = xxh3_128_with_seed(&[], seeds.of(CellKind::Null));
    let nulls = array.nulls();
    for (row, sum) in sums.iter_mut().enumerate() {
        let hash = if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            null
        } else {
            let (kind, bytes) = cell(row);
            xxh3_128_with_seed(bytes.as_ref(), seeds.of(kind))
        };
        *sum = sum.wrapping_add(hash);
    }
}

fn decimal_bytes(value: arrow_buffer::i256, scale: i8) -> [u8; 33] {
    let mut bytes = [0; 33];
    bytes[..32].copy_from_slice(&value.to_le_bytes());
    bytes[32] = scale.to_le_bytes()[0];
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<i32>, Option<String>, Option<i64>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let ints: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.0)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1.clone())));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|r| r.2)));
        RecordBatch::try_from_iter_with_nullable([("id", ints, true), ("text", texts, true), ("at", times, true)])
            .unwrap()
    }

    fn of(batches: &[RecordBatch]) -> Fingerprint {
        let mut made = Fingerprinter::new(&batches[0].schema(), &["id".to_owned()]);
        for batch in batches {
            made.add(batch).unwrap();
        }
        made.finish()
    }

    proptest! {
        #[test]
        fn order_batches_and_column_order_do_not_count(
            mut rows in proptest::collection::vec(any::<Row>(), 1..60), cut in any::<prop::sample::Index>(), seed in any::<u64>(),
        ) {
            let whole = of(&[batch(&rows)]);
            let at = cut.index(rows.len());
            let turn = usize::try_from(seed % rows.len() as u64).unwrap();
            rows.rotate_left(turn);
            let all = batch(&rows);
            prop_assert_eq!(&of(&[all.slice(0, at), all.slice(at, rows.len() - at)]), &whole);
            let turned = all.project(&[2, 0, 1]).unwrap();
            prop_assert_eq!(&of(&[turned]), &whole);
        }

        #[test]
        fn any_changed_cell_counts(
            rows in proptest::collection::vec(any::<Row>(), 1..20), at in any::<prop::sample::Index>(), new in any::<Row>(),
        ) {
            let mut changed = rows.clone();
            let at = at.index(rows.len());
            changed[at] = new.clone();
            prop_assert_eq!(of(&[batch(&rows)]).full == of(&[batch(&changed)]).full, rows[at] == new);
            changed[at].0 = rows[at].0;
            let same = rows[at].1 == new.1 && rows[at].2 == new.2;
            prop_assert_eq!(of(&[batch(&rows)]).content == of(&[batch(&changed)]).content, same);
        }
    }

    #[test]
    fn the_algorithm_stays_what_it_is() {
        let rows =
            [(Some(-1), Some("Pölten".to_owned()), Some(1_700_000_000_000_000)), (None, Some(String::new()), None)];
        insta::assert_snapshot!(of(&[batch(&rows)]).full, @"2-5c8561d413559e92f84c4dd226e55af5");
    }

    #[test]
    fn equal_rows_do_not_cancel_and_null_is_not_empty() {
        let row = |text: Option<&str>| (Some(1), text.map(str::to_owned), None);
        let once = of(&[batch(&[row(Some("a"))])]);
        let thrice = of(&[batch(&[row(Some("a")), row(Some("a")), row(Some("a"))])]);
        assert_ne!(once.full.sum, thrice.full.sum);
        assert_ne!(of(&[batch(&[row(None)])]), of(&[batch(&[row(Some(""))])]));
    }

    #[test]
    fn values_do_not_wander_between_rows_or_columns() {
        let pair = |a: &str, b: &str, c: i32, d: i32| {
            of(&[batch(&[(Some(c), Some(a.to_owned()), None), (Some(d), Some(b.to_owned()), None)])]).full
        };
        assert_ne!(pair("x", "y", 1, 2), pair("y", "x", 1, 2));
    }

    #[test]
    fn width_and_text_or_binary_do_not_count() {
        let one = |array: ArrayRef| of(&[RecordBatch::try_from_iter([("a", array)]).unwrap()]);
        assert_eq!(one(Arc::new(Int32Array::from(vec![-5]))), one(Arc::new(Int64Array::from(vec![-5]))));
        assert_eq!(one(Arc::new(StringArray::from(vec!["x"]))), one(Arc::new(BinaryArray::from_vec(vec![b"x"]))));
    }

    #[test]
    fn a_column_can_be_left_out_afterwards() {
        let rows = [(Some(7), Some("a".to_owned()), Some(3))];
        let all = batch(&rows);
        let older = all.project(&[0, 1]).unwrap();
        let mut made = Fingerprinter::over(&all.schema(), &["id".to_owned()], |name| name != "at");
        made.add(&all).unwrap();
        assert_eq!(made.finish(), of(&[older]));
    }

    #[test]
    fn digests_survive_their_text_form() {
        let digest = Digest { count: 12, sum: u128::MAX - 5 };
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("12-0".parse::<Digest>().is_err());
    }
}
