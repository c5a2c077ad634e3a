//! Passwords and keys: where they are, not what they are.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::command::Command;
use super::explained::Explained;
use super::path::FilePath;
use super::variables;

/// A secret of the pipeline file: a typed reference to it, or, in a file that nobody else can read, the secret itself.
/// It is looked up by [`Secret::resolve`] when a run needs it, and never shown.
///
/// ```toml
/// password = { file = "billing.password" }               # the content of a file, without its last newline
/// password = { credential = "billing" }                  # systemd: $CREDENTIALS_DIRECTORY/billing
/// password = { env = "BILLING_PASSWORD" }                # an environment variable
/// password = { command = ["pass", "show", "billing"] }   # what a program writes to its standard output
/// ```
#[derive(Clone)]
pub struct Secret(pub(super) Place);

/// Where a secret is.
#[derive(Clone)]
pub(super) enum Place {
    File(PathBuf),
    Env(String),
    Credential(String),
    Command(Command),
    Literal(SecretString),
}

/// The newtype name by which the loader knows that a string is a secret.
pub(super) const MARKER: &str = "$cdrvault::Secret";

/// What to write instead of a literal secret, and of every wrong form.
pub const FORMS: &str = "write where it is: { file = \"...\" }, { env = \"...\" }, { credential = \"...\" } or \
                                { command = [\"...\"] }";

/// The keys of the forms, by which a secret is known not to be there itself.
pub const KEYS: &[&str] = &["file", "env", "credential", "command"];

impl Secret {
    /// The secret that lies in this file.
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        Self(Place::File(path.into()))
    }

    /// A secret that is known already.
    pub fn literal(secret: impl Into<SecretString>) -> Self {
        Self(Place::Literal(secret.into()))
    }

    /// Whether it stands in the pipeline file itself.
    pub fn is_literal(&self) -> bool {
        matches!(self.0, Place::Literal(_))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) => write!(f, "file {}", path.display()),
            Place::Env(name) => write!(f, "environment variable {name}"),
            Place::Credential(name) => write!(f, "systemd credential {name}"),
            Place::Command(command) => write!(f, "output of {command}"),
            Place::Literal(_) => f.write_str("literal"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(MARKER, SecretVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    File,
    Env,
    Credential,
    Command,
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place of a secret, such as { file = \"...\" }")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(self)
    }

    // No message of these may repeat the text.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        if text.is_empty() {
            return Err(E::custom(Explained::new("the secret is empty", FORMS)));
        }
        match variables::in_secret(text) {
            Some(refused) => Err(E::custom(refused)),
            None => Ok(Secret::literal(text)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let Some(key) = map.next_key::<Key>()? else {
            return Err(de::Error::custom(Explained::new("it does not say where the secret is", FORMS)));
        };
        let place = match key {
            Key::File => Place::File(map.next_value::<FilePath>()?.into_inner()),
            Key::Env => Place::Env(named(map.next_value()?, "the name of the variable", &['='])?),
            Key::Credential => Place::Credential(named(map.next_value()?, "the name of the credential", &['/'])?),
            Key::Command => Place::Command(map.next_value()?),
        };
        match map.next_key::<Key>()? {
            None => Ok(Secret(place)),
            Some(_) => Err(de::Error::custom(Explained::new("the secret is in two places", "keep one of them"))),
        }
    }
}

fn named<E: de::Error>(name: String, what: &str, without: &[char]) -> Result<String, E> {
    if name.is_empty() || name.contains('\0') || name.contains(without) {
        return Err(E::custom(Explained::new(format!("{what} is not valid"), format!("write {what} alone"))));
    }
    Ok(name)
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = |key: &str, schema: serde_json::Value| {
            serde_json::json!({
                "type": "object", "properties": { key: schema }, "required": [key], "additionalProperties": false
            })
        };
        let text = serde_json::json!({ "type": "string", "minLength": 1 });
        json_schema!({
            "format": "secret",
            "anyOf": [
                one("file", text.clone()),
                one("env", text.clone()),
                one("credential", text.clone()),
                one("command", Command::json_schema(generator).to_value()),
                { "type": "string", "minLength": 1, "description": "Only in a file that no other user can read." },
            ]
        })
    }
}
