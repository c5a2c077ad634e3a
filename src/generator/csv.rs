//! Rows as the CSV that `SELECT ... INTO OUTFILE` writes, to compare sizes with.
//!
//! The options are those of Asterisell's own backup: `FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '"' ESCAPED BY '\\'`,
//! <https://mariadb.com/kb/en/select-into-outfile/>.

use std::io::{self, Write};

use super::row::{Row, Value};

/// Writes a row as one line.
pub fn write<R: Row>(out: &mut impl Write, row: &R) -> io::Result<()> {
    for (index, value) in row.values().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        match value {
            Value::Null => out.write_all(b"\\N")?,
            Value::Integer(integer) => write!(out, "{integer}")?,
            Value::Text(text) => quoted(out, text.as_bytes())?,
            Value::Bytes(bytes) => quoted(out, bytes)?,
            Value::DateTime(clock) => write!(out, "\"{clock}\"")?,
        }
    }
    out.write_all(b"\n")
}

fn quoted(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    for part in bytes.split_inclusive(|byte| matches!(byte, b'"' | b'\\' | 0)) {
        let (special, plain) = match part.split_last() {
            Some((last @ (b'"' | b'\\' | 0), plain)) => (Some(*last), plain),
            _ => (None, part),
        };
        out.write_all(plain)?;
        match special {
            Some(0) => out.write_all(b"\\0")?,
            Some(special) => out.write_all(&[b'\\', special])?,
            None => {}
        }
    }
    out.write_all(b"\"")
}

/// Counts the bytes that rows would take.
#[derive(Debug, Default)]
pub struct Size {
    bytes: u64,
}

impl Size {
    /// Adds a row.
    pub fn add<R: Row>(&mut self, row: &R) {
        // The writer below cannot fail.
        let _ = write(self, row);
    }

    /// The bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
