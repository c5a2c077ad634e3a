//! How much memory a row group needs when it is decoded: the sum that its pages give, for the footer can say anything.
//!
//! No page decompresses to more than its header says: the decoder ends there with an error. A header is a struct in the
//! compact protocol of Thrift, whose fields 2 and 3 are the sizes of the page, decompressed and as it is stored:
//! <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>,
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};

use parquet::file::metadata::RowGroupMetaData;

/// Structs in structs in a header: statistics. No more are followed.
const DEPTH: u32 = 8;

/// The bytes of all pages of a row group, decompressed.
pub(super) fn decompressed(file: &File, group: &RowGroupMetaData) -> io::Result<u64> {
    let mut sum: u64 = 0;
    for column in group.columns() {
        let (start, length) = column.byte_range();
        let end = start.saturating_add(length);
        let mut pages = Pages { file: BufReader::new(file), at: start };
        pages.file.seek(SeekFrom::Start(start))?;
        while pages.at < end {
            let (inner, stored) = pages.header()?;
            sum = sum.saturating_add(inner);
            pages.leave_out(stored)?;
        }
    }
    Ok(sum)
}

struct Pages<'a> {
    file: BufReader<&'a File>,
    at: u64,
}

impl Pages<'_> {
    /// The sizes of the next page, decompressed and stored.
    fn header(&mut self) -> io::Result<(u64, u64)> {
        let (mut inner, mut stored, mut last) = (None, None, 0);
        while let Some((id, kind)) = self.field(last)? {
            match (id, kind) {
                (2, 5) => inner = Some(self.size()?),
                (3, 5) => stored = Some(self.size()?),
                _ => self.value(kind, DEPTH)?,
            }
            last = id;
        }
        inner.zip(stored).ok_or_else(|| wrong("has no sizes"))
    }

    /// The number and the type of the next field of a struct; `None` at its end.
    fn field(&mut self, last: i64) -> io::Result<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let id = if byte >> 4 == 0 { self.number()? } else { last + i64::from(byte >> 4) };
        Ok(Some((id, byte & 0x0f)))
    }

    /// Leaves out a value of this type.
    fn value(&mut self, kind: u8, depth: u32) -> io::Result<()> {
        match kind {
            // Booleans are in the type.
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.leave_out(8),
            8 => {
                let length = self.varint()?;
                self.leave_out(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                for _ in 0..count {
                    match byte & 0x0f {
                        1 | 2 => self.byte().map(drop)?,
                        kind if depth > 0 => self.value(kind, depth - 1)?,
                        _ => return Err(wrong("is too deep")),
                    }
                }
                Ok(())
            }
            12 if depth > 0 => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    self.value(kind, depth - 1)?;
                    last = id;
                }
                Ok(())
            }
            _ => Err(wrong("has a field of another kind")),
        }
    }

    fn size(&mut self) -> io::Result<u64> {
        u64::try_from(self.number()?).map_err(|_| wrong("has a negative size"))
    }

    /// Zigzag.
    fn number(&mut self) -> io::Result<i64> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(wrong("has a number that does not end"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.file.read_exact(&mut byte)?;
        self.at += 1;
        Ok(byte[0])
    }

    fn leave_out(&mut self, bytes: u64) -> io::Result<()> {
        let step = i64::try_from(bytes).map_err(|_| wrong("leads out of the file"))?;
        self.file.seek_relative(step)?;
        self.at = self.at.saturating_add(bytes);
        Ok(())
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a page's header {why}"))
}
