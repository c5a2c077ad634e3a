//! How strongly something is compressed, as the pipeline file says it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use cdrvault_plugin::options::Explained;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// zstd with its level: `zstd`, or `zstd(1)` (fast) to `zstd(22)` (small). RFC 8878.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compression {
    level: u8,
}

impl Compression {
    /// The level, 1 to 22.
    pub(crate) fn level(self) -> i32 {
        i32::from(self.level)
    }
}

impl Default for Compression {
    /// zstd's own default.
    fn default() -> Self {
        Self { level: 3 }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zstd({})", self.level)
    }
}

impl FromStr for Compression {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        let Some(rest) = text.strip_prefix("zstd") else {
            return Err(Explained::new(
                format!("`{text}` is not a compression that cdrvault knows"),
                "write \"zstd\", or with a level \"zstd(9)\"",
            ));
        };
        if rest.is_empty() {
            return Ok(Self::default());
        }
        rest.strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            // `parse` would take a sign.
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|level| (1..=22).contains(level))
            .map(|level| Self { level })
            .ok_or_else(|| {
                Explained::new(
                    format!("`{text}` has no level that zstd knows"),
                    "write a level from 1 (fast) to 22 (small), such as \"zstd(9)\"",
                )
            })
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Compression;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a compression in quotes, such as \"zstd(9)\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Compression, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl serde::Serialize for Compression {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Compression {
    fn schema_name() -> Cow<'static, str> {
        "Compression".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^zstd(\(([1-9]|1[0-9]|2[0-2])\))?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_said() {
        for (text, level) in [("zstd", 3), ("zstd(1)", 1), ("zstd(9)", 9), ("zstd(22)", 22)] {
            assert_eq!(text.parse::<Compression>().map(Compression::level), Ok(level), "{text}");
        }
        for text in
            ["zstd(0)", "zstd(23)", "zstd(-1)", "zstd(+1)", "zstd()", "zstd(9", "zstd9", "zstd (9)", "zstd(999)"]
        {
            assert!(text.parse::<Compression>().unwrap_err().help.contains("from 1 (fast) to 22"), "{text}");
        }
        for text in ["", "gzip", "ZSTD", "9"] {
            assert!(text.parse::<Compression>().unwrap_err().help.contains("\"zstd(9)\""), "{text}");
        }
    }

    #[test]
    fn the_text_form_is_read_back() {
        for level in 1..=22 {
            let compression = Compression { level };
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
    }
}
