//! `[watch]`: what of the saved data itself is an alarm.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::alerts::table;
use cdrvault_plugin::options::draft::Draft;
use cdrvault_plugin::options::explained::{Explained, from_text};
use cdrvault_plugin::options::{Age, Section};

/// The options of `[watch]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct WatchOptions {
    /// An alarm when the newest day of a flow that is saved, and has rows, ended longer ago: a telephone system that stopped
    /// writing calls. Longer than the pause between two runs, plus the time without calls.
    max_data_age: Option<Age>,
    /// An alarm when a day has fewer rows than so much of what its weekday usually has, as `"10%"`.
    min_calls: Option<Percent>,
    /// An alarm when a day after tomorrow is saved: the clock of a telephone system is wrong.
    #[serde(default)]
    no_future_days: bool,
}

/// `[watch]`, and the flags of `status` that say the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watch {
    /// How long ago the newest day with rows may have ended.
    pub max_data_age: Option<Duration>,
    /// How much of what is usual a day has to have.
    pub min_calls: Option<Percent>,
    /// A day after tomorrow is an alarm.
    pub no_future_days: bool,
}

impl Watch {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is said on the command line takes the place of what the file says.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        Self {
            max_data_age: self.max_data_age.or(file.max_data_age),
            min_calls: self.min_calls.or(file.min_calls),
            no_future_days: self.no_future_days || file.no_future_days,
        }
    }
}

/// `[watch]`, where there is one.
pub(super) fn watch<'a>(draft: &'a Draft<'a>, root: &mut Section<'a>) -> Option<Watch> {
    let WatchOptions { max_data_age, min_calls, no_future_days } = table(draft, "watch", root)?.options()?;
    Some(Watch { max_data_age: max_data_age.map(Age::to_duration), min_calls, no_future_days })
}

/// A whole number of percent from 1 to 100, with its sign: `"10%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

const HELP: &str = "write a whole number from 1 to 100 and the sign, as in \"10%\"";

impl Percent {
    /// Whether so much of `whole` is more than `part`.
    pub fn is_more_than(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 100 < u128::from(whole) * u128::from(self.0)
    }
}

impl FromStr for Percent {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse().ok());
        number
            .filter(|percent| (1..=100).contains(percent))
            .map(Self)
            .ok_or_else(|| Explained::new(format!("`{text}` is not a percentage"), HELP))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

from_text!(Percent, "a percentage such as \"10%\"", |number: i64| Explained::new(
    format!("`{number}` has no sign"),
    HELP
));

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A percentage: `\"10%\"`.",
            "pattern": "^([1-9][0-9]?|100)%$",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn a_percentage_is_a_whole_number_with_its_sign() {
        let ten: Percent = "10%".parse().unwrap();
        assert_eq!(ten.to_string(), "10%");
        assert!(ten.is_more_than(9, 100) && !ten.is_more_than(10, 100) && !ten.is_more_than(0, 0));
        for text in ["10", "0%", "101%", "-1%", "1.5%", "%", ""] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
