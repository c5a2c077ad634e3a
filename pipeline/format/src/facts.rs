//! What is learnt of a partition's rows while they stream by: count, fingerprint, tripwire.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ByteArrayType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, GenericByteArray, RecordBatch};
use arrow_buffer::ArrowNativeType as _;
use arrow_schema::{DataType, SchemaRef};

use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::raw::{self, RAW_COLUMN};
use crate::tripwire::{Sum, Tripwire};

/// What the rows of a partition add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// How many.
    pub rows: u64,
    /// See [`crate::fingerprint`].
    pub fingerprint: Fingerprint,
    /// See [`crate::tripwire`].
    pub tripwire: Tripwire,
}

/// Gathers [`Facts`] batch by batch.
#[derive(Debug)]
pub struct FactGatherer {
    fingerprint: Fingerprinter,
    rows: u64,
    sums: Vec<(usize, Sum, String)>,
    tripwire: BTreeMap<String, Option<i128>>,
    raw: Option<usize>,
}

impl FactGatherer {
    /// For batches of this schema; `renumbered` columns are left out of the content fingerprint and the tripwire.
    pub fn new(schema: &SchemaRef, renumbered: &[String]) -> Self {
        let sums: Vec<_> = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| !renumbered.contains(field.name()))
            .filter_map(|(index, field)| Sum::of(field).map(|sum| (index, sum, field.name().clone())))
            .collect();
        Self {
            fingerprint: Fingerprinter::new(schema, renumbered),
            rows: 0,
            tripwire: sums.iter().map(|(_, _, name)| (name.clone(), Some(0))).collect(),
            sums,
            raw: schema.index_of(RAW_COLUMN).ok(),
        }
    }

    /// Adds the rows of a batch.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.fingerprint.add(batch)?;
        self.rows += batch.num_rows() as u64;
        for (index, sum, name) in &self.sums {
            let part = match sum {
                Sum::Values => sum_values(batch.column(*index).as_ref())?,
                Sum::Lengths => sum_lengths(batch.column(*index).as_ref())?,
            };
            if let Some(Some(total)) = self.tripwire.get_mut(name) {
                *total += part;
            }
        }
        self.give_up_sums_of_raw_values(batch)
    }

    /// The server sums what it holds, we only what fits the type: where they are not the same, nothing can be compared.
    fn give_up_sums_of_raw_values(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(index) = self.raw else { return Ok(()) };
        let cells = batch.column(index).as_binary::<i32>();
        if cells.null_count() == cells.len() {
            return Ok(());
        }
        for cell in cells.iter().flatten() {
            for (name, _) in raw::decode(cell)? {
                if let Some(sum) = self.tripwire.get_mut(name) {
                    *sum = None;
                }
            }
        }
        Ok(())
    }

    /// The facts of all rows added.
    pub fn finish(&self) -> Facts {
        Facts {
            rows: self.rows,
            fingerprint: self.fingerprint.finish(),
            tripwire: Tripwire { rows: self.rows, sums: self.tripwire.clone() },
        }
    }
}

fn sum_values(array: &dyn Array) -> Result<i128> {
    /// Small values cannot overflow 64 bits within a batch, and are summed many at a time.
    fn narrow<T: ArrowPrimitiveType>(array: &dyn Array) -> i128
    where
        T::Native: Into<i64>,
    {
        sum_slices::<T>(array, |values| values.iter().map(|value| Into::<i64>::into(*value)).sum::<i64>().into())
    }
    fn wide<T: ArrowPrimitiveType>(array: &dyn Array) -> i128
    where
        T::Native: Into<i128>,
    {
        sum_slices::<T>(array, |values| values.iter().map(|value| Into::<i128>::into(*value)).sum())
    }
    /// What lies under a NULL can be anything.
    fn sum_slices<T: ArrowPrimitiveType>(array: &dyn Array, sum: impl Fn(&[T::Native]) -> i128) -> i128 {
        let values = array.as_primitive::<T>();
        match values.nulls() {
            None => sum(values.values()),
            Some(nulls) => nulls.valid_slices().map(|(start, end)| sum(&values.values()[start..end])).sum(),
        }
    }
    Ok(match array.data_type() {
        DataType::Int8 => narrow::<Int8Type>(array),
        DataType::Int16 => narrow::<Int16Type>(array),
        DataType::Int32 => narrow::<Int32Type>(array),
        DataType::Int64 => wide::<Int64Type>(array),
        DataType::UInt8 => narrow::<UInt8Type>(array),
        DataType::UInt16 => narrow::<UInt16Type>(array),
        DataType::UInt32 => narrow::<UInt32Type>(array),
        DataType::UInt64 => wide::<UInt64Type>(array),
        other => return Err(Error::failed(format!("a column of type {other} has no sum of values"))),
    })
}

fn sum_lengths(array: &dyn Array) -> Result<i128> {
    // A NULL has no bytes between its offsets only if the builder wrote none; ours does not, a reader's may.
    fn sum<T: ByteArrayType>(values: &GenericByteArray<T>) -> i128 {
        let offsets = values.value_offsets();
        let length = |at: usize| offsets[at + 1].as_usize() - offsets[at].as_usize();
        let lengths = match values.nulls() {
            None => offsets[values.len()].as_usize() - offsets[0].as_usize(),
            Some(nulls) => nulls.valid_indices().map(length).sum(),
        };
        lengths as i128
    }
    Ok(match array.data_type() {
        DataType::Utf8 => sum(array.as_string::<i32>()),
        DataType::LargeUtf8 => sum(array.as_string::<i64>()),
        DataType::Binary => sum(array.as_binary::<i32>()),
        DataType::LargeBinary => sum(array.as_binary::<i64>()),
        other => return Err(Error::failed(format!("a column of type {other} has no sum of lengths"))),
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::{BinaryArray, Int32Array, Int64Array, StringArray};
    use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

    use super::*;

    #[test]
    fn sums_are_of_values_and_not_of_what_lies_under_a_null() {
        let nulls = Some(NullBuffer::from(vec![true, false, true, true, false]));
        let small = Int32Array::new(ScalarBuffer::from(vec![i32::MAX, 7, i32::MAX, -1, 9]), nulls.clone());
        assert_eq!(sum_values(&small).unwrap(), 2 * i128::from(i32::MAX) - 1);
        assert_eq!(sum_values(&small.slice(1, 3)).unwrap(), i128::from(i32::MAX) - 1, "a part has NULLs of its own");
        let large = Int64Array::new(ScalarBuffer::from(vec![i64::MAX, 7, i64::MAX, 1, 9]), nulls);
        assert_eq!(sum_values(&large).unwrap(), 2 * i128::from(i64::MAX) + 1);
        assert_eq!(sum_values(&Int64Array::from(vec![i64::MIN; 3])).unwrap(), 3 * i128::from(i64::MIN));
    }

    #[test]
    fn lengths_are_of_values_and_not_of_what_lies_between() {
        let text = StringArray::from(vec![Some("a"), None, Some("\u{20ac}"), Some("")]);
        assert_eq!(sum_lengths(&text).unwrap(), 4);
        assert_eq!(sum_lengths(&text.slice(2, 2)).unwrap(), 3, "a part of an array has offsets of its own");
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 2, 9, 10]));
        let nulls = NullBuffer::from(vec![true, false, true]);
        let bytes = BinaryArray::new(offsets.clone(), Buffer::from(b"0123456789"), Some(nulls));
        assert_eq!(sum_lengths(&bytes).unwrap(), 3, "what a NULL covers does not count");
        let bytes = BinaryArray::new(offsets, Buffer::from(b"0123456789"), None);
        assert_eq!(sum_lengths(&bytes.slice(1, 2)).unwrap(), 8);
        assert_eq!(sum_lengths(&bytes.slice(1, 0)).unwrap(), 0);
    }
}
