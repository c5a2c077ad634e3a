//! Days.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::explained::{Explained, from_text};

/// A day of the calendar, with or without quotes: `"2015-01-01"`, `2015-01-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub Date);

const HELP: &str = "write year, month and day, as in \"2015-01-31\"";

impl FromStr for Day {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        match text.parse::<Date>() {
            // Jiff also reads `20150101` and the date of a longer text.
            Ok(date) if date.to_string() == text => Ok(Self(date)),
            _ => Err(Explained::new(format!("`{text}` is not a day"), HELP)),
        }
    }
}

impl From<Day> for Date {
    fn from(day: Day) -> Self {
        day.0
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

from_text!(Day, "a day, such as 2015-01-31", |_: i64| Explained::new("a number is not a day", HELP));

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Day {
    fn schema_name() -> Cow<'static, str> {
        "Day".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates_of_the_calendar() {
        assert_eq!("2024-02-29".parse::<Day>().unwrap().to_string(), "2024-02-29");
        for text in ["", "2023-02-29", "20230228", "2023-2-28", "2023-02-28T00:00:00", "yesterday"] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }
}
