//! The `__raw` column: the values of a row that their typed columns cannot hold, as the server sent them.
//!
//! A cell of `__raw` is NULL, or one CBOR map (RFC 8949) from column name (text string) to value (byte string),
//! in the order of the columns. CBOR, because it holds any bytes, has a specification and readers everywhere.

use arrow_array::BinaryArray;
use arrow_array::builder::BinaryBuilder;
use arrow_schema::{DataType, Field};

use crate::error::{Error, Kind, Result};

/// The name of the column.
pub const RAW_COLUMN: &str = "__raw";

/// The column's field, the same in every file.
pub fn raw_field() -> Field {
    Field::new(RAW_COLUMN, DataType::Binary, true)
}

/// Builds the `__raw` column of one batch.
#[derive(Debug, Default)]
pub struct RawBuilder {
    cells: BinaryBuilder,
    pending: Vec<(usize, Vec<u8>)>,
}

impl RawBuilder {
    /// Keeps `bytes` as the value of column number `column` in the row being read.
    pub fn keep(&mut self, column: usize, bytes: &[u8]) {
        self.pending.push((column, bytes.to_vec()));
    }

    /// Ends the row; `name` gives a column's name by its number.
    pub fn end_row<'a>(&mut self, name: impl Fn(usize) -> &'a str) {
        if self.pending.is_empty() {
            self.cells.append_null();
            return;
        }
        let cells: Vec<(&str, &[u8])> = self.pending.iter().map(|(n, b)| (name(*n), b.as_slice())).collect();
        self.cells.append_value(encode(&cells));
        self.pending.clear();
    }

    /// The column, and a builder that is empty again.
    pub fn finish(&mut self) -> BinaryArray {
        self.cells.finish()
    }
}

/// One cell of `__raw`.
pub fn encode(cells: &[(&str, &[u8])]) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    // Writing into a Vec cannot fail.
    let _ = encoder.map(cells.len() as u64);
    for (name, bytes) in cells {
        let _ = encoder.str(name).and_then(|e| e.bytes(bytes));
    }
    encoder.into_writer()
}

/// The values of one cell of `__raw`.
pub fn decode(cell: &[u8]) -> Result<Vec<(&str, &[u8])>> {
    let damaged = |cause: minicbor::decode::Error| {
        Error::new(Kind::Damaged, format!("the `{RAW_COLUMN}` column is not a CBOR map of names to bytes: {cause}"))
    };
    let mut decoder = minicbor::Decoder::new(cell);
    let mut cells = Vec::new();
    let length = decoder.map().map_err(damaged)?;
    let length = length.ok_or_else(|| {
        Error::new(Kind::Damaged, format!("the `{RAW_COLUMN}` column holds a CBOR map of indefinite length"))
    })?;
    for _ in 0..length {
        let name = decoder.str().map_err(damaged)?;
        cells.push((name, decoder.bytes().map_err(damaged)?));
    }
    if decoder.position() == cell.len() {
        Ok(cells)
    } else {
        Err(Error::new(Kind::Damaged, format!("the `{RAW_COLUMN}` column has bytes after its CBOR map")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_kept_comes_back(cells in proptest::collection::vec((".{0,40}", proptest::collection::vec(any::<u8>(), 0..300)), 0..20)) {
            let view: Vec<(&str, &[u8])> = cells.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
            let encoded = encode(&view);
            prop_assert_eq!(decode(&encoded).unwrap(), view);
        }

        #[test]
        fn any_bytes_are_read_or_refused(cell in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&cell);
        }
    }
}
