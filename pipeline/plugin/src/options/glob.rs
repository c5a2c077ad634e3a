//! Patterns of file names.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::explained::{Explained, from_text};

/// A pattern of paths: `*`, `?`, `[a-z]`, `{a,b}` within one name, `**` across directories. Only its form is checked
/// here; the code that matches with it says against what.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

impl Glob {
    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Glob {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        let wrong = |cause: &str, help: &str| Err(Explained::new(format!("`{text}` {cause}"), help));
        if text.is_empty() {
            return Err(Explained::new(
                "an empty pattern matches nothing",
                "remove it, or write one such as \"ssl/**\"",
            ));
        }
        let mut braces = 0_usize;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' if characters.next().is_none() => {
                    return wrong("ends in a lone backslash", "write `\\\\` for a backslash itself");
                }
                '[' if !class_ends(&mut characters) => {
                    return wrong("opens a `[` that nothing closes", "write `\\[` for a bracket itself");
                }
                '{' => braces += 1,
                '}' if braces == 0 => {
                    return wrong("closes a `}` that nothing opened", "write `\\}` for a brace itself");
                }
                '}' => braces -= 1,
                '\0' => return wrong("holds a NUL, which no path does", "remove it"),
                _ => {}
            }
        }
        if braces > 0 {
            return wrong("opens a `{` that nothing closes", "write `\\{` for a brace itself");
        }
        Ok(Self(text.to_owned()))
    }
}

/// Goes past the `]` of a class; a `]` that comes first stands for itself.
fn class_ends(characters: &mut std::str::Chars<'_>) -> bool {
    let mut first = true;
    for character in characters {
        match character {
            '!' | '^' if first => {}
            ']' if !first => return true,
            _ => first = false,
        }
    }
    false
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

from_text!(Glob, "a pattern in quotes, such as \"ssl/private/**\"", |_: i64| Explained::new(
    "a number is not a pattern",
    "write it in quotes"
));

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for Glob {
    fn schema_name() -> Cow<'static, str> {
        "Glob".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "glob", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_patterns_is_checked() {
        for text in ["shadow*", "ssl/private/**", "[]a]", "[!]]", "[^x]", "{a,b{c,d}}", "a\\[", "ä"] {
            assert!(text.parse::<Glob>().is_ok(), "{text}");
        }
        for text in ["", "[a", "[]", "[!]", "{a", "a}", "a\\", "a\0"] {
            assert!(text.parse::<Glob>().is_err(), "{text}");
        }
    }
}
