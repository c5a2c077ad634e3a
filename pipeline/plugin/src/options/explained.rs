//! What is wrong with the text of a value, and what to write instead.

use std::fmt;

/// The reason why a text is not a value of its type. Through serde it travels as two lines, cause and help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What is wrong, without a full stop.
    pub cause: String,
    /// What to write instead.
    pub help: String,
}

impl Explained {
    /// A cause and a help.
    pub fn new(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { cause: cause.into(), help: help.into() }
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.cause, self.help)
    }
}

impl std::error::Error for Explained {}

/// Splits `12mo` into `12` and `mo`; one space between them is allowed.
pub fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits, rest.strip_prefix(' ').unwrap_or(rest))
}

/// `Deserialize` from a string through `FromStr`. `$expects` is what an error about the type says, `$number` explains
/// what is wrong with a number without quotes.
#[macro_export]
macro_rules! from_text {
    ($type:ty, $expects:literal, $number:expr) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expects)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                        Err(E::custom($number(number)))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub use crate::from_text;
