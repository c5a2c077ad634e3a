//! Which encoding a column gets, estimated from its first rows.
//!
//! A dictionary costs its distinct values once and an index for each row; delta encoding costs the bits in which
//! neighbours differ. Compression comes after both, and finds more in indexes than in differences, which are packed
//! without regard to bytes: so the first are counted by their entropy. See <https://github.com/apache/parquet-format/blob/master/Encodings.md>.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, RecordBatch};
use arrow_buffer::ArrowNativeType as _;
use arrow_schema::{DataType, TimeUnit};
use parquet::basic::Encoding;
use xxhash_rust::xxh3::xxh3_64;

/// What a column is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chosen {
    /// A dictionary, and plain values where it grows too large.
    Dictionary,
    /// No dictionary.
    Direct(Encoding),
}

/// Values of a delta's miniblock, which share one width.
const MINIBLOCK: usize = 32;

/// Chooses for each column of the sample.
pub(super) fn choose(sample: &RecordBatch) -> Vec<Chosen> {
    sample.columns().iter().map(|column| choose_one(column.as_ref())).collect()
}

fn choose_one(column: &dyn Array) -> Chosen {
    match column.data_type() {
        DataType::Int8 => integers::<Int8Type>(column),
        DataType::Int16 => integers::<Int16Type>(column),
        DataType::Int32 => integers::<Int32Type>(column),
        DataType::Int64 => integers::<Int64Type>(column),
        DataType::UInt8 => integers::<UInt8Type>(column),
        DataType::UInt16 => integers::<UInt16Type>(column),
        DataType::UInt32 => integers::<UInt32Type>(column),
        DataType::UInt64 => integers::<UInt64Type>(column),
        DataType::Date32 => integers::<Date32Type>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => integers::<TimestampMicrosecondType>(column),
        DataType::Utf8 => strings(column.as_string::<i32>().iter().flatten().map(str::as_bytes)),
        DataType::Binary => strings(column.as_binary::<i32>().iter().flatten()),
        // Floats and decimals: a dictionary where values repeat, and the writer's own way out where they do not.
        _ => Chosen::Dictionary,
    }
}

fn integers<T: ArrowPrimitiveType>(column: &dyn Array) -> Chosen {
    let column = column.as_primitive::<T>();
    // What does not fit is a number beyond 63 bits, and counts for nothing.
    let mut values = Vec::with_capacity(column.len());
    match column.nulls() {
        None => values.extend(column.values().iter().filter_map(|value| value.to_i64())),
        Some(nulls) => values.extend(nulls.valid_indices().filter_map(|row| column.value(row).to_i64())),
    }
    let stored = if size_of::<T::Native>() > 4 { 64 } else { 32 };
    let dictionary = dictionary_bits(&values, stored);
    // As the encoding computes them. Blocks share the value at which one ends and the next begins.
    let deltas = |block: &[i64]| {
        let deltas = block.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        let (low, high) = deltas.fold((i64::MAX, i64::MIN), |(low, high), delta| (low.min(delta), high.max(delta)));
        (block.len() - 1) * bits(high.wrapping_sub(low)) + 8
    };
    let blocks = (0..values.len().saturating_sub(1)).step_by(MINIBLOCK);
    let delta: usize = blocks.map(|start| deltas(&values[start..values.len().min(start + MINIBLOCK + 1)])).sum();
    match (delta as f64).total_cmp(&dictionary) {
        Ordering::Less if delta < values.len() * stored => Chosen::Direct(Encoding::DELTA_BINARY_PACKED),
        Ordering::Less => Chosen::Direct(Encoding::PLAIN),
        _ => Chosen::Dictionary,
    }
}

/// What a dictionary comes to when it has been compressed: for each index the entropy of the values, since compression
/// finds again how unequal they are, and the values that are new in the second half of the sample, as often as there
/// are such halves. The first ones are soon paid for.
fn dictionary_bits(values: &[i64], stored: usize) -> f64 {
    let sorted = |values: &[i64]| {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        sorted
    };
    let of_first_half = sorted(&values[..values.len() / 2]).chunk_by(i64::eq).count();
    let sorted = sorted(values);
    let (mut distinct, mut entropy) = (0, 0.0);
    for equal in sorted.chunk_by(i64::eq) {
        distinct += 1;
        entropy += equal.len() as f64 * (values.len() as f64 / equal.len() as f64).log2();
    }
    entropy + (2 * (distinct - of_first_half) * stored) as f64
}

fn strings<'a>(values: impl Iterator<Item = &'a [u8]>) -> Chosen {
    let mut hashes: Vec<u64> = values.map(xxh3_64).collect();
    hashes.sort_unstable();
    let distinct = hashes.chunk_by(u64::eq).count();
    // With few repeats a dictionary only moves the values to another page. Their lengths stay between them, where they
    // help the compression to tell where a value begins.
    if distinct * 10 <= hashes.len() * 7 { Chosen::Dictionary } else { Chosen::Direct(Encoding::PLAIN) }
}

/// Of a difference, which is as wide as it is without a sign.
fn bits(difference: i64) -> usize {
    (u64::BITS - difference.cast_unsigned().leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt32Array};

    use super::*;

    #[test]
    fn growing_numbers_are_deltas_and_repeated_ones_a_dictionary() {
        let growing: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values((0..5000).map(|i| i * 7_000_000)));
        let few: ArrayRef = Arc::new(Int32Array::from_iter_values((0..5000).map(|i| (i * 7919) % 13)));
        // Most are one of a few, the others one of a thousand, and neighbours differ by a narrow range.
        let uneven = |i: i64| if i % 4 > 0 { i % 3 } else { (i / 4 * 7919) % 1000 };
        let uneven: ArrayRef = Arc::new(Int64Array::from_iter_values((0..20_000).map(uneven)));
        let random = |i: u32| i.wrapping_mul(2_654_435_761).rotate_left(7).wrapping_mul(0x9e37_79b9);
        let random: ArrayRef = Arc::new(UInt32Array::from_iter_values((0..20_000).map(random)));
        let same: ArrayRef = Arc::new(StringArray::from_iter_values((0..5000).map(|i| format!("customer {}", i % 50))));
        let unique: ArrayRef = Arc::new(StringArray::from_iter_values((0..5000).map(|i| format!("call {i}"))));
        let chosen = [growing, few, uneven, random, same, unique].map(|column| choose_one(column.as_ref()));
        assert_eq!(
            chosen,
            [
                Chosen::Direct(Encoding::DELTA_BINARY_PACKED),
                Chosen::Dictionary,
                Chosen::Dictionary,
                Chosen::Direct(Encoding::PLAIN),
                Chosen::Dictionary,
                Chosen::Direct(Encoding::PLAIN)
            ]
        );
    }
}
