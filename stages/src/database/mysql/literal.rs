//! Values as SQL literals that give every byte back, whatever the session's character set.

use std::borrow::Cow;

use cdrvault_format::error::{Error, Kind, Result};

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
        // A strict server takes letters that are not in the charset for mistakes, but not bytes.
        Cell::Text(text) if *decoding == Decoding::Ascii && !text.is_ascii() => push_bytes(out, text.as_bytes()),
        // Only digits, wherever the file comes from.
        Cell::Text(text) if *decoding == Decoding::Digits && is_number(text) => out.push_str(text),
        Cell::Text(text) => push_text(out, text),
        Cell::Bytes(bytes) if *decoding == Decoding::Uuid => push_text(out, &uuid(bytes)),
        Cell::Bytes(bytes) => push_bytes(out, bytes),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.chars().all(|one| one.is_ascii_digit() || one == '.')
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
        Decoding::Text | Decoding::Ascii | Decoding::Wide(_) | Decoding::Label => {
            push_bytes(out, &stored(bytes, decoding));
        }
        _ => return Err(unknown()),
    }
    Ok(true)
}

/// The bytes that a server stores, of those that it sent.
pub(crate) fn stored<'b>(sent: &'b [u8], decoding: &Decoding) -> Cow<'b, [u8]> {
    let letters = match decoding {
        Decoding::Wide(width) => letters(sent).map(|letters| (letters, *width)),
        _ => None,
    };
    let Some((letters, width)) = letters else { return Cow::Borrowed(sent) };
    // Where a server did not convert them, they were sent as they are stored.
    let is_half = |letter: &u32| (0xd800..0xe000).contains(letter);
    if !letters.iter().any(is_half) || letters.iter().any(|letter| width == 2 && *letter > 0xffff) {
        return Cow::Borrowed(sent);
    }
    Cow::Owned(letters.iter().flat_map(|letter| letter.to_be_bytes().into_iter().skip(4 - width)).collect())
}

/// The numbers of letters in UTF-8, or in what would be UTF-8 if it had halves of pairs: `None` for anything else.
fn letters(mut bytes: &[u8]) -> Option<Vec<u32>> {
    let mut letters = Vec::with_capacity(bytes.len() / 2);
    while let [first, rest @ ..] = bytes {
        let (more, least, high) = match first {
            0..=0x7f => (0, 0, u32::from(*first)),
            0xc2..=0xdf => (1, 0x80, u32::from(first & 0x1f)),
            0xe0..=0xef => (2, 0x800, u32::from(first & 0x0f)),
            0xf0..=0xf4 => (3, 0x1_0000, u32::from(first & 0x07)),
            _ => return None,
        };
        let (own, next) = rest.split_at_checked(more)?;
        let is_whole = own.iter().all(|byte| byte & 0xc0 == 0x80);
        let letter = own.iter().fold(high, |letter, byte| letter << 6 | u32::from(byte & 0x3f));
        if !is_whole || letter < least || letter > 0x10_ffff {
            return None;
        }
        letters.push(letter);
        bytes = next;
    }
    Some(letters)
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
    fn halves_of_pairs_are_stored_as_they_were() {
        let of = |sent: &[u8], width| hex::encode(stored(sent, &Decoding::Wide(width)));
        assert_eq!(of(b"\xed\xa0\x80A", 2), "d8000041");
        assert_eq!(of(b"\xed\xbf\xbf\xc3\xa9", 4), "0000dfff000000e9");
        assert_eq!(of(b"\xf0\x9f\x98\x80\xed\xa0\x80", 4), "0001f6000000d800");
        // As they are stored, or nothing that a server sends.
        for sent in [&b"\xd8\x00\x00A"[..], b"\xed\xa0", b"\xe0\x80\x80\xed\xa0\x80", b"plain", b"\xff\xed\xa0\x80"] {
            assert_eq!(of(sent, 4), hex::encode(sent));
        }
        assert_eq!(stored(b"\xed\xa0\x80", &Decoding::Text).as_ref(), b"\xed\xa0\x80");
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
