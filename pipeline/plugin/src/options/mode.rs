//! Permissions of files.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::explained::{Explained, from_text};

/// The permissions of a file, in octal digits in quotes: `"0640"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode(u32);

const HELP: &str = "write three octal digits after a zero, in quotes, as in \"0640\"";

impl Mode {
    /// The permission bits, of which only the lowest nine count.
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o777)
    }

    /// The permission bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The mode of a directory whose files have this mode: who may read files may enter.
    pub const fn of_directory(self) -> u32 {
        self.0 | (self.0 & 0o444) >> 2
    }
}

impl FromStr for Mode {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if octal && bits <= 0o777 => Ok(Self(bits)),
            Ok(_) if octal => Err(Explained::new(format!("`{text}` sets more than the permission bits"), HELP)),
            _ => Err(Explained::new(format!("`{text}` is not a file mode"), HELP)),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

from_text!(Mode, "a file mode in quotes, such as \"0640\"", |_: i64| Explained::new(
    "a file mode is not a number",
    HELP
));

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "mode", "pattern": "^0?[0-7]{3}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_permissions() {
        assert_eq!("0640".parse::<Mode>().unwrap().bits(), 0o640);
        assert_eq!("600".parse::<Mode>().unwrap().to_string(), "0600");
        assert_eq!("0640".parse::<Mode>().unwrap().of_directory(), 0o750);
        for text in ["", "64", "0680", "4755", "rw-r-----", "+640", "00640"] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
    }
}
