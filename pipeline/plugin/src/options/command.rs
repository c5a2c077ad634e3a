//! A program and its arguments.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};

use super::explained::{Explained, from_text};

/// A program and its arguments, as in `["pass", "show", "billing"]`. No shell is involved.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// Its whole path, or its name alone, which is looked up in `PATH`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

const HELP: &str = "write the program and its arguments, as in [\"pass\", \"show\", \"billing\"]; no shell is involved";

impl Command {
    /// The command of a list of words.
    pub fn of(mut words: Vec<String>) -> Result<Self, Explained> {
        if words.first().is_none_or(String::is_empty) {
            return Err(Explained::new("the command names no program", HELP));
        }
        let program = words.remove(0);
        // Cron starts us in some other directory.
        if program.contains('/') && !program.starts_with('/') {
            return Err(Explained::new(
                format!("`{program}` would depend on the directory we are started in"),
                "write the whole path of the program, or its name alone to look it up in PATH",
            ));
        }
        Ok(Self { program, arguments: words })
    }
}

impl fmt::Display for Command {
    // Not the arguments: people put tokens there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self})")
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words: Vec<Word> = Vec::deserialize(deserializer)?;
        Self::of(words.into_iter().map(|word| word.0).collect()).map_err(D::Error::custom)
    }
}

/// A word as it is written: what holds a `$` may be for a shell.
struct Word(String);

impl FromStr for Word {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        Ok(Self(text.to_owned()))
    }
}

from_text!(Word, "a string", |_: i64| Explained::new("a number is not a word of a command", "write it in quotes"));

impl JsonSchema for Command {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })
    }
}
