//! Values as SQL literals that give every byte back, whatever the session's character set.

use cdrvault_pipeline::error::{Error, Kind, Result};

use super::columns::Decoding;
use crate::cells::{Cell, decimal, push_date, push_datetime, push_time, stored_date, uuid};

/// Appends the literal of a value.
pub(crate) fn push(out: &mut String, cell: Cell<'_>, decoding: &Decoding) {
    match cell {
        Cell::Null => out.push_str("NULL"),
        Cell::Int(micros) if *decoding == Decoding::Time => {
            out.push('\'');
            push_time(out, micros);
            out.push('\'');
        }
        Cell::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
        Cell::UInt(value) => out.push_str(itoa::Buffer::new().format(value)),
        // With an exponent it is a DOUBLE and not a DECIMAL, so that -0 keeps its sign. The FLOAT that a value came from
        // is the nearest one to it.
        Cell::Float(value) => *out += &format!("{:e}", f64::from(value)),
        Cell::Double(value) => *out += &format!("{value:e}"),
        Cell::Decimal128(digits, scale) => *out += &decimal(&digits.to_string(), scale),
        Cell::Decimal256(digits, scale) => *out += &decimal(&digits.to_string(), scale),
        Cell::Date(days) => {
            out.push('\'');
            push_date(out, days);
            out.push('\'');
        }
        Cell::DateTime(micros) => {
            out.push('\'');
            push_datetime(out, micros);
            out.push('\'');
        }
        Cell::Text(text) => push_text(out, text),
        Cell::Bytes(bytes) if *decoding == Decoding::Uuid => push_text(out, &uuid(bytes)),
        Cell::Bytes(bytes) => push_bytes(out, bytes),
    }
}

/// Appends what the typed column could not hold. `false` says that the value is the error value of an ENUM, which a
/// server in strict mode refuses.
pub(crate) fn push_raw(out: &mut String, bytes: &[u8], decoding: &Decoding) -> Result<bool> {
    match decoding {
        Decoding::Date | Decoding::DateTime => {
            let text = stored_date(bytes, *decoding == Decoding::DateTime).ok_or_else(unknown)?;
            push_text(out, &text);
        }
        Decoding::Label if bytes.is_empty() => {
            out.push('0');
            return Ok(false);
        }
        // A SET is its bitmask, where its text is ambiguous.
        Decoding::Labels => {
            let mask = bytes.try_into().map(u64::from_le_bytes).map_err(|_| unknown())?;
            out.push_str(itoa::Buffer::new().format(mask));
        }
        // A binary literal is stored as it is, whatever the column's character set.
        Decoding::Text | Decoding::Label => push_bytes(out, bytes),
        _ => return Err(unknown()),
    }
    Ok(true)
}

fn unknown() -> Error {
    Error::new(Kind::Refused, "a saved value has a form that no server of this kind has written")
}

fn push_bytes(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len() * 2 + 3);
    out.push_str("X'");
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out.push('\'');
}

fn push_text(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('\'');
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '\\', '\0']) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        // All three are one byte long.
        match after.as_bytes()[0] {
            b'\'' => out.push_str("''"),
            b'\\' => out.push_str("\\\\"),
            _ => out.push_str("\\0"),
        }
        rest = &after[1..];
    }
    out.push_str(rest);
    out.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cell: Cell<'_>) -> String {
        let mut out = String::new();
        push(&mut out, cell, &Decoding::Int);
        out
    }

    #[test]
    fn no_text_ends_its_literal() {
        assert_eq!(of(Cell::Text("it's \\ \0 x")), "'it''s \\\\ \\0 x'");
        assert_eq!(of(Cell::Text("")), "''");
        assert_eq!(of(Cell::Bytes(b"\xff\0")), "X'FF00'");
    }

    #[test]
    fn floats_are_doubles_that_give_the_same_float() {
        assert_eq!(of(Cell::Float(16_777_216.0)), "1.6777216e7");
        assert_eq!(of(Cell::Double(-0.0)), "-0e0");
        for value in [0.1_f32, f32::MIN_POSITIVE, f32::MAX, 1e-45] {
            assert_eq!(of(Cell::Float(value)).parse::<f64>().unwrap().to_bits(), f64::from(value).to_bits());
        }
    }
}
