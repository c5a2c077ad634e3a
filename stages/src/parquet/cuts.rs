//! Batches cut anew, so that neither the reader's batches nor their sizes show in a file: the same rows are cut at the
//! same places, whatever batches they come in.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::coalesce::BatchCoalescer;

/// A cut has so many rows ...
const ROWS: usize = 8192;
/// ... or so many bytes, whichever comes first: rows may be as wide as a database allows.
const BYTES: u64 = 8 << 20;

/// See the module.
pub(super) struct Cuts {
    joined: BatchCoalescer,
    /// What every row takes in the columns of fixed width.
    fixed: u64,
    rows: usize,
    bytes: u64,
}

impl Cuts {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let fixed = schema.fields().iter().map(|field| width(field.data_type())).sum();
        // What comes in the right size is not copied.
        let joined =
            BatchCoalescer::new(SchemaRef::clone(schema), ROWS).with_biggest_coalesce_batch_size(Some(ROWS - 1));
        Self { joined, fixed, rows: 0, bytes: 0 }
    }

    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        // Row by row only where there may be a cut within.
        let (rows, bytes) = (self.rows + batch.num_rows(), self.bytes + self.size(batch));
        if rows <= ROWS && bytes < BYTES {
            (self.rows, self.bytes) = (rows, bytes);
            self.joined.push_batch(batch.clone())?;
            return if rows == ROWS { self.end() } else { Ok(()) };
        }
        let offsets = offsets(batch);
        let mut start = 0;
        for row in 0..batch.num_rows() {
            self.rows += 1;
            self.bytes += self.fixed + lengths(&offsets, row, row + 1);
            if self.rows == ROWS || self.bytes >= BYTES {
                self.joined.push_batch(batch.slice(start, row + 1 - start))?;
                self.end()?;
                start = row + 1;
            }
        }
        if start < batch.num_rows() {
            self.joined.push_batch(batch.slice(start, batch.num_rows() - start))?;
        }
        Ok(())
    }

    /// What was pushed since the last cut is the next one.
    pub(super) fn end(&mut self) -> Result<(), ArrowError> {
        (self.rows, self.bytes) = (0, 0);
        self.joined.finish_buffered_batch()
    }

    pub(super) fn next(&mut self) -> Option<RecordBatch> {
        self.joined.next_completed_batch()
    }

    /// How large a batch is before it is encoded, counted by its rows.
    pub(super) fn size(&self, batch: &RecordBatch) -> u64 {
        self.fixed * batch.num_rows() as u64 + lengths(&offsets(batch), 0, batch.num_rows())
    }
}

/// What a value takes in Parquet where it is encoded plainly.
fn width(kind: &DataType) -> u64 {
    match kind {
        DataType::Utf8 | DataType::Binary => 4,
        DataType::FixedSizeBinary(bytes) => u64::try_from(*bytes).unwrap_or(0),
        // No number there has fewer bytes.
        other => other.primitive_width().unwrap_or(1).max(4) as u64,
    }
}

/// Where the values of the columns of variable width begin and end.
fn offsets(batch: &RecordBatch) -> Vec<&[i32]> {
    let offsets = batch.columns().iter().filter_map(|column| match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value_offsets()),
        DataType::Binary => Some(column.as_binary::<i32>().value_offsets()),
        _ => None,
    });
    offsets.collect()
}

/// What they take in some rows.
fn lengths(offsets: &[&[i32]], from: usize, to: usize) -> u64 {
    offsets.iter().map(|of| u64::try_from(of[to] - of[from]).unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, Int8Array};

    use super::*;

    /// Rows of which some are wide.
    fn rows(count: usize) -> RecordBatch {
        let wide = |row: usize| vec![7; if row % 1000 < 300 { 40_000 } else { 10 }];
        let number: ArrayRef = Arc::new(Int8Array::from_iter((0..count).map(|row| (row % 3 > 0).then_some(1))));
        let text: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..count).map(wide)));
        RecordBatch::try_from_iter([("number", number), ("text", text)]).unwrap()
    }

    fn cut(whole: &RecordBatch, batches: usize) -> Vec<RecordBatch> {
        let mut cuts = Cuts::new(whole.schema_ref());
        let mut found = Vec::new();
        for start in (0..whole.num_rows()).step_by(batches) {
            cuts.push(&whole.slice(start, batches.min(whole.num_rows() - start))).unwrap();
            found.extend(std::iter::from_fn(|| cuts.next()));
        }
        cuts.end().unwrap();
        found.extend(std::iter::from_fn(|| cuts.next()));
        assert!(found.iter().all(|cut| cut.num_rows() <= ROWS && cuts.size(cut) < BYTES + 50_000));
        found
    }

    #[test]
    fn the_same_rows_are_cut_at_the_same_places() {
        let whole = rows(3000);
        let once = cut(&whole, 3000);
        assert!(once.len() > 3, "wide rows make more cuts");
        for batches in [1, 17, 209, 210, 2999] {
            assert_eq!(cut(&whole, batches), once, "batches of {batches}");
        }
        let narrow = whole.slice(300, 600);
        assert_eq!(cut(&narrow, 600).len(), 1);
    }
}
