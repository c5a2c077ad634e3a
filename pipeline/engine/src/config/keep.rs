//! `keep`: how long superseded versions stay.

use cdrvault_plugin::options::Age;
use schemars::JsonSchema;
use serde::Deserialize;

/// Which superseded versions are kept: those that any of these keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Keep {
    /// Those that were replaced less than this ago, as `"30d"`.
    #[serde(default)]
    pub superseded: Option<Age>,
    /// The newest so many of each partition, however old.
    #[serde(default)]
    pub last: Option<u32>,
}
