//! Names of pipelines, databases, sinks and flows.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use cdrvault_plugin::options::explained::{Explained, from_text};

/// A name that is safe as a directory, as a part of an object key, and in the job rows of the billing system. It can be
/// neither `.cdrvault` nor `day=...`, which have a meaning in a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

/// What a name looks like.
pub(super) const PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$";

const LONGEST: usize = 64;

// `ar_daily_status_job.name` takes 200 characters: `cdrvault/<pipeline>/<8 hex digits>/<flow>/inbox`.
const _: () = assert!("cdrvault//01234567//inbox".len() + 2 * LONGEST <= 200);

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_inner(self) -> String {
        self.0
    }
}

/// Whether a text is a name.
pub(super) fn check(text: &str) -> Result<(), Explained> {
    let wrong = |cause: String, help: &str| Err(Explained::new(cause, help));
    if text.is_empty() {
        return wrong("a name is empty".to_owned(), "write a short name, such as `asterisell`");
    }
    if text.chars().count() > LONGEST {
        return wrong(format!("the name `{text}` is longer than {LONGEST} characters"), "write a shorter one");
    }
    if text.starts_with(['.', '-']) {
        return wrong(format!("the name `{text}` begins with `{}`", &text[..1]), "begin with a letter, a digit or `_`");
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
        Some(other) => wrong(
            format!("the name `{text}` contains `{}`", other.escape_debug()),
            "use letters without accents, digits, `_`, `-` and `.` alone",
        ),
        None => Ok(()),
    }
}

impl FromStr for Name {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn number(_: i64) -> Explained {
    Explained::new("a name is a text", "write it in quotes")
}

from_text!(Name, "a name in quotes", number);

impl JsonSchema for Name {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "name", "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths_and_rows() {
        for text in ["a", "ar_cdr", "_x", "9.9-z", &"x".repeat(64)] {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in ["", ".", "..", ".cdrvault", "-x", "a/b", "day=2026-01-01", "é", "a b", "a\n", &"x".repeat(65)] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
