//! Spans of time.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::explained::{Explained, from_text};

/// A span of time with its unit: `"30s"`, `"5m"`, `"26h"`, `"7d"`, `"2w"`, `"12mo"`, `"1y"`. There is none without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Age {
    count: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

const DAY: u64 = 86_400;

const HELP: &str = "write a whole number and a unit: s, m (minutes), h, d, w, mo (months) or y, as in \"7d\"";

impl Unit {
    const ALL: [Self; 7] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    const fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
            Self::Week => "w",
            Self::Month => "mo",
            Self::Year => "y",
        }
    }
}

impl Age {
    /// So many seconds.
    pub const fn seconds(count: u32) -> Self {
        Self { count, unit: Unit::Second }
    }

    /// So many hours.
    pub const fn hours(count: u32) -> Self {
        Self { count, unit: Unit::Hour }
    }

    /// So many days.
    pub const fn days(count: u32) -> Self {
        Self { count, unit: Unit::Day }
    }

    /// How long it is, where a month is the twelfth part of a year, and a year has 365 days.
    pub fn to_duration(self) -> Duration {
        let count = u64::from(self.count);
        Duration::from_secs(match self.unit {
            Unit::Second => count,
            Unit::Minute => count * 60,
            Unit::Hour => count * 3_600,
            Unit::Day => count * DAY,
            Unit::Week => count * 7 * DAY,
            Unit::Month => count * 365 * DAY / 12,
            Unit::Year => count * 365 * DAY,
        })
    }

    /// How many days it touches: [`Age::to_duration`], rounded up.
    pub fn to_days(self) -> u32 {
        u32::try_from(self.to_duration().as_secs().div_ceil(DAY)).unwrap_or(u32::MAX)
    }
}

impl FromStr for Age {
    type Err = Explained;

    fn from_str(text: &str) -> Result<Self, Explained> {
        let (digits, unit) = super::explained::number_and_unit(text);
        if digits.is_empty() {
            return Err(Explained::new(format!("`{text}` is not a span of time"), HELP));
        }
        if unit.is_empty() {
            return Err(Explained::new(format!("`{text}` has no unit"), HELP));
        }
        let Some(unit) = Unit::ALL.into_iter().find(|known| known.name() == unit) else {
            return Err(Explained::new(format!("`{unit}` is not a unit of time"), HELP));
        };
        let age = digits.parse().ok().map(|count| Self { count, unit });
        // A thousand years are enough for everybody, and no sum of days overflows.
        let sensible = age.filter(|age| age.to_days() <= 365_000);
        sensible.ok_or_else(|| Explained::new(format!("`{text}` is too long"), HELP))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.name())
    }
}

from_text!(Age, "a span of time with its unit, such as \"7d\"", |number: i64| Explained::new(
    format!("`{number}` has no unit"),
    HELP
));

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Age {
    fn schema_name() -> Cow<'static, str> {
        "Age".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "age", "pattern": "^[0-9]+ ?(s|m|h|d|w|mo|y)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        for (text, seconds) in [
            ("30s", 30),
            ("5m", 300),
            ("26h", 93_600),
            ("7d", 7 * DAY),
            ("2w", 14 * DAY),
            ("12mo", 365 * DAY),
            ("1y", 365 * DAY),
        ] {
            let age = text.parse::<Age>().unwrap();
            assert_eq!(age.to_duration().as_secs(), seconds, "{text}");
            assert_eq!(age.to_string(), text);
        }
        for text in ["7", "", "d", "7 days", "7D", "1M", "-1d", "1.5h", "4294967295y", "99999999999d"] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_rounded_up() {
        assert_eq!("26h".parse::<Age>().unwrap().to_days(), 2);
        assert_eq!("40d".parse::<Age>().unwrap().to_days(), 40);
        assert_eq!("0s".parse::<Age>().unwrap().to_days(), 0);
    }
}
