//! Sizes in bytes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::explained::{Explained, from_text};

/// A number of bytes with its unit: `"8MiB"`, `"1GB"`. There is no size without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// The first that divides a size is the one it is written with.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

const HELP: &str = "write a whole number and a unit: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in \"8MiB\"";

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 2^20 bytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// How many bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// How many bytes, or the largest number there is.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        let (digits, unit) = super::explained::number_and_unit(text);
        if digits.is_empty() {
            return Err(Explained::new(format!("`{text}` is not a size"), HELP));
        }
        if unit.is_empty() {
            return Err(Explained::new(format!("`{text}` has no unit"), HELP));
        }
        // `KB` and `mb` are common; `Mib` and `Mb` (bits) are not guessed at.
        let unit = match unit {
            "KB" => "kB",
            unit => unit,
        };
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(Explained::new(format!("`{unit}` is not a unit of size"), HELP));
        };
        let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*factor));
        bytes.map(Self).ok_or_else(|| Explained::new(format!("`{text}` is too large"), HELP))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (name, factor) = unit.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

from_text!(ByteSize, "a size with its unit, such as \"8MiB\"", |number: i64| Explained::new(
    format!("`{number}` has no unit"),
    HELP
));

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "size", "pattern": "^[0-9]+ ?([kKMGT]?B|[KMGT]iB)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("8MiB", 8 << 20), ("1GB", 1_000_000_000), ("0B", 0), ("64 KiB", 65536), ("5KB", 5000)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().as_u64(), bytes, "{text}");
        }
        for text in ["8", "", "MiB", "-1MB", "1.5GB", "8mib", "8Mb", "99999999999TiB", "8MiB "] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        for text in ["8MiB", "1GB", "0B", "1500kB", "1023B", "256MiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }
}
