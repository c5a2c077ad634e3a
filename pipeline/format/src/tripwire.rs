//! A few sums of a day that the database and we can both compute: when one differs, the day has changed.
//!
//! It costs a server less than half of reading the day, and can miss a change that keeps every sum; the
//! fingerprint, which cannot, needs the rows. Which columns take part is written into the Arrow field by the
//! source (see [`Sum`]), so that both sides agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The metadata key of an Arrow field that takes part, with a [`Sum`] as its value.
pub const TRIPWIRE_KEY: &str = "cdrvault.tripwire";

/// How a column takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// The sum of its integers.
    Values,
    /// The sum of the lengths of its values, in bytes.
    Lengths,
}

impl Sum {
    /// The metadata value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Values => "values",
            Self::Lengths => "lengths",
        }
    }

    /// The inverse of [`Sum::as_str`].
    pub fn of(field: &arrow_schema::Field) -> Option<Self> {
        match field.metadata().get(TRIPWIRE_KEY).map(String::as_str) {
            Some("values") => Some(Self::Values),
            Some("lengths") => Some(Self::Lengths),
            _ => None,
        }
    }
}

/// The sums of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tripwire {
    /// `COUNT(*)`.
    pub rows: u64,
    /// Column to sum; `None` where no sum can be compared (a value outside the column's type).
    /// Text in JSON, because a sum of 64-bit values needs more than 64 bits.
    #[serde(with = "sums_as_text")]
    pub sums: BTreeMap<String, Option<i128>>,
}

impl Tripwire {
    /// What differs between what was `saved` and what is in the database `now`, as human-readable text.
    ///
    /// A column that was added since is not a difference while it holds its default everywhere: `default_weight`
    /// says what one row with the default adds to the sum, or `None` where that is not known.
    pub fn difference(saved: &Self, now: &Self, default_weight: impl Fn(&str) -> Option<i128>) -> Option<String> {
        if saved.rows != now.rows {
            return Some(format!("{} rows, {} were saved", now.rows, saved.rows));
        }
        for (column, sum) in &now.sums {
            let was = match saved.sums.get(column) {
                Some(was) => *was,
                None => default_weight(column).map(|weight| weight * i128::from(now.rows)),
            };
            if let (Some(was), Some(is)) = (was, *sum)
                && was != is
            {
                return Some(format!("`{column}` sums to {is}, {was} was saved"));
            }
        }
        None
    }
}

mod sums_as_text {
    use super::BTreeMap;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(sums: &BTreeMap<String, Option<i128>>, s: S) -> Result<S::Ok, S::Error> {
        let text: BTreeMap<&String, Option<String>> =
            sums.iter().map(|(name, sum)| (name, sum.map(|sum| sum.to_string()))).collect();
        text.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, Option<i128>>, D::Error> {
        BTreeMap::<String, Option<String>>::deserialize(d)?
            .into_iter()
            .map(|(name, sum)| match sum.map(|sum| sum.parse()).transpose() {
                Ok(sum) => Ok((name, sum)),
                Err(error) => Err(serde::de::Error::custom(error)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(rows: u64, sums: &[(&str, Option<i128>)]) -> Tripwire {
        Tripwire { rows, sums: sums.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect() }
    }

    #[test]
    fn a_new_column_is_no_change_while_it_holds_its_default() {
        let saved = wire(3, &[("a", Some(7))]);
        let weight = |column: &str| (column == "b").then_some(5);
        assert_eq!(Tripwire::difference(&saved, &wire(3, &[("a", Some(7)), ("b", Some(15))]), weight), None);
        assert!(Tripwire::difference(&saved, &wire(3, &[("a", Some(7)), ("b", Some(16))]), weight).is_some());
        assert_eq!(Tripwire::difference(&saved, &wire(3, &[("a", Some(7)), ("c", Some(1))]), weight), None);
    }

    #[test]
    fn counts_and_sums_that_differ_are_told() {
        let saved = wire(3, &[("a", Some(7)), ("b", None)]);
        assert_eq!(Tripwire::difference(&saved, &wire(4, &[]), |_| None).as_deref(), Some("4 rows, 3 were saved"));
        assert_eq!(
            Tripwire::difference(&saved, &wire(3, &[("a", Some(8)), ("b", Some(1))]), |_| None).as_deref(),
            Some("`a` sums to 8, 7 was saved")
        );
    }

    #[test]
    fn sums_beyond_64_bits_survive_json() {
        let saved = wire(1, &[("a", Some(i128::MAX)), ("b", None)]);
        let json = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Tripwire>(&json).unwrap(), saved);
    }
}
