//! Why a value of the file is not what an option wants.

use std::fmt;
use std::ops::Range;

use serde::de::{self, Expected, Unexpected};

use super::nearest::did_you_mean;
use super::problem::Problem;

/// Why serde did not take a value. It never holds a text of the file, which might be a secret, unless the type that
/// refused it said so.
#[derive(Debug)]
pub struct Fault {
    /// The innermost value at fault, where it is known.
    pub span: Option<Range<usize>>,
    /// The keys that lead to it, the innermost first.
    keys: Vec<String>,
    pub why: Why,
}

#[derive(Debug)]
pub enum Why {
    Type {
        expected: String,
        found: &'static str,
    },
    Range {
        expected: String,
    },
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    UnknownValue {
        value: String,
        known: &'static [&'static str],
    },
    Missing(&'static str),
    /// Cause and, on a second line, help: see [`super::Explained`].
    Said(String),
}

impl Fault {
    pub fn new(span: Range<usize>, why: Why) -> Self {
        Self { span: Some(span), keys: Vec::new(), why }
    }

    /// Gives it a place unless it has a more precise one.
    pub fn within(mut self, span: &Range<usize>) -> Self {
        self.span.get_or_insert_with(|| span.clone());
        self
    }

    /// Says under which key the value at fault stands.
    pub fn under(mut self, key: &str) -> Self {
        self.keys.push(key.to_owned());
        self
    }

    /// Says more precisely which integers are expected.
    pub fn expect_integer(&mut self, which: &str) {
        match &mut self.why {
            Why::Type { expected, .. } if expected.starts_with("a whole number") => which.clone_into(expected),
            _ => {}
        }
    }

    /// What to tell of it. `outer` is what messages call the option at fault, and `place` where it is.
    pub fn problem(mut self, outer: &str, place: Range<usize>) -> Problem {
        self.keys.pop();
        self.keys.push(outer.to_owned());
        self.keys.reverse();
        let key = self.keys.join(".");
        let problem = |message: String| Problem::new(self.span.unwrap_or(place), message);
        match self.why {
            Why::Type { expected, found } => {
                let help = match (expected.as_str(), found) {
                    ("a string", "an integer" | "a number" | "a boolean" | "a date or time") => {
                        "write it in quotes".to_owned()
                    }
                    ("an array", "a string" | "a table") => "write it in brackets: [ ... ]".to_owned(),
                    (number, "a string") if number.contains("number") => "write it without quotes".to_owned(),
                    ("a boolean", _) => "write `true` or `false`, without quotes".to_owned(),
                    (expected, _) => format!("write {expected}"),
                };
                problem(format!("`{key}` must be {expected}, not {found}")).label(found).help(help)
            }
            Why::Range { expected } => problem(format!("`{key}` is out of range")).help(format!("write {expected}")),
            Why::UnknownKey { key: unknown, known } => {
                problem(format!("unknown key `{unknown}` in `{key}`")).help(did_you_mean(&unknown, known, "keys"))
            }
            Why::UnknownValue { value, known } => {
                problem(format!("`{key}` cannot be `{value}`")).help(did_you_mean(&value, known, "values"))
            }
            Why::Missing(missing) => {
                problem(format!("`{key}` lacks `{missing}`")).help(format!("add `{missing} = ...`"))
            }
            Why::Said(text) => match text.split_once('\n') {
                Some((cause, help)) => problem(format!("`{key}`: {cause}")).help(help),
                None => problem(format!("`{key}`: {text}")),
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.why, f)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { span: None, keys: Vec::new(), why: Why::Said(text.to_string()) }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self {
            span: None,
            keys: Vec::new(),
            why: Why::Type { expected: plain(&expected.to_string()), found: named(found) },
        }
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { span: None, keys: Vec::new(), why: Why::Range { expected: plain(&expected.to_string()) } }
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self { span: None, keys: Vec::new(), why: Why::Range { expected: plain(&expected.to_string()) } }
    }

    fn unknown_variant(value: &str, known: &'static [&'static str]) -> Self {
        Self { span: None, keys: Vec::new(), why: Why::UnknownValue { value: value.to_owned(), known } }
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self { span: None, keys: Vec::new(), why: Why::UnknownKey { key: key.to_owned(), known } }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { span: None, keys: Vec::new(), why: Why::Missing(field) }
    }
}

fn named(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Seq => "an array",
        Unexpected::Map => "a table",
        Unexpected::UnitVariant => "a name alone",
        Unexpected::NewtypeVariant | Unexpected::TupleVariant | Unexpected::StructVariant => "a name with options",
        _ => "something else",
    }
}

/// Rust's words for what was expected, in those of TOML.
fn plain(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number, 1 or more"
        }
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other if other.starts_with("enum ") => "a name in quotes",
        other => other,
    }
    .to_owned()
}
