//! The unit of work: one partition of one dataset.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The name that Hive-aware readers give to rows whose partition value is unknown.
pub const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Which part of a dataset: a wall-clock day, the rows without a valid date, or one whole snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    /// The rows with `day 00:00:00 <= date < next day 00:00:00`, in the wall clock of the database's host.
    Day(Date),
    /// The rows whose date is NULL or no real date, such as `2024-02-31`.
    Undated,
    /// Everything a source has, as of one moment (files, dumps).
    Snapshot,
}

impl Partition {
    /// The day, for partitions that are one.
    pub fn day(self) -> Option<Date> {
        match self {
            Self::Day(day) => Some(day),
            _ => None,
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Debian's `date -I` and Hive agree on this form; it also sorts.
            Self::Day(day) => write!(f, "{day}"),
            Self::Undated => f.write_str(HIVE_NULL),
            Self::Snapshot => f.write_str("snapshot"),
        }
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            HIVE_NULL => Ok(Self::Undated),
            "snapshot" => Ok(Self::Snapshot),
            _ => match text.parse::<Date>() {
                Ok(day) if day.to_string() == text => Ok(Self::Day(day)),
                _ => Err(format!("`{text}` is not a partition: a day (2026-01-15), `snapshot` or `{HIVE_NULL}`")),
            },
        }
    }
}

impl Serialize for Partition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Partition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One partition of one flow's dataset; what is claimed, sealed, published and settled as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unit {
    /// The flow, and so the dataset.
    pub dataset: String,
    /// Which part of it.
    pub partition: Partition,
}

impl Unit {
    /// The unit of `partition` in `dataset`.
    pub fn new(dataset: impl Into<String>, partition: Partition) -> Self {
        Self { dataset: dataset.into(), partition }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dataset, self.partition)
    }
}

/// A half-open range of days, `from <= day < to`; an open end has no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DayRange {
    /// The first day.
    pub from: Option<Date>,
    /// The first day that is no longer in the range.
    pub to: Option<Date>,
}

impl DayRange {
    /// Every day there is.
    pub const ALL: Self = Self { from: None, to: None };

    /// Whether the day lies in the range.
    pub fn contains(&self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day < to)
    }
}

/// Human-readable: `2026-01-01 <= day < the end`.
impl fmt::Display for DayRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |day: Option<Date>, open: &str| day.map_or_else(|| open.to_owned(), |day| day.to_string());
        write!(f, "{} <= day < {}", end(self.from, "the first"), end(self.to, "the end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_survive_their_text_form() {
        for text in ["2026-01-15", HIVE_NULL, "snapshot"] {
            assert_eq!(text.parse::<Partition>().unwrap().to_string(), text);
        }
        for text in ["2026-1-15", "2026-02-30", "20260115", "../x", ""] {
            assert!(text.parse::<Partition>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_half_open() {
        let day = |text: &str| text.parse::<Date>().unwrap();
        let range = DayRange { from: Some(day("2026-01-01")), to: Some(day("2026-02-01")) };
        assert!(range.contains(day("2026-01-01")) && range.contains(day("2026-01-31")));
        assert!(!range.contains(day("2025-12-31")) && !range.contains(day("2026-02-01")));
    }
}
