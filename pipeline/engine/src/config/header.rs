//! What stands before the first table of a pipeline file.

use std::borrow::Cow;
use std::str::FromStr;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::name::Name;
use cdrvault_plugin::options::explained::{Explained, from_text};
use cdrvault_plugin::options::nearest::nearest;
use cdrvault_plugin::options::{ByteSize, FilePath};

/// The options of the pipeline itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Header {
    /// The name of the pipeline. Vaults and event rows carry it: do not change it later.
    pub(super) name: Name,
    /// The wall clock of the billing host, as an IANA name such as `Europe/Rome`. Without it, that of this system.
    pub(super) timezone: Option<Zone>,
    /// The directory of the lock, the spool and the run history. Without it, `/var/lib/cdrvault/<name>`.
    pub(super) state: Option<FilePath>,
    /// How many days are worked on at a time, 1 to 16.
    #[serde(default = "workers")]
    #[schemars(range(min = 1, max = 16))]
    pub(super) workers: u8,
    /// So much room is left free in the spool and in every vault.
    #[serde(default = "min_free")]
    pub(super) min_free: ByteSize,
}

fn workers() -> u8 {
    2
}

fn min_free() -> ByteSize {
    ByteSize::mebibytes(256)
}

/// A time zone of the bundled database, so that a file is right or wrong on every host alike.
#[derive(Debug, Clone)]
pub(super) struct Zone(pub(super) TimeZone);

impl FromStr for Zone {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        let database = TimeZoneDatabase::bundled();
        if let Ok(zone) = database.get(text) {
            return Ok(Self(zone));
        }
        let known: Vec<_> = database.available().map(|name| name.as_str().to_owned()).collect();
        let help = match nearest(text, known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "write an IANA name, such as \"Europe/Rome\" or \"UTC\"".to_owned(),
        };
        Err(Explained::new(format!("`{text}` is not a time zone"), help))
    }
}

fn number(_: i64) -> Explained {
    Explained::new(
        "a number is not a time zone",
        "write an IANA name, such as \"Europe/Rome\": it knows of summer time",
    )
}

from_text!(Zone, "the name of a time zone in quotes", number);

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "timezone", "minLength": 1 })
    }
}
