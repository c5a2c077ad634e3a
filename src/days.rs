//! Which days a verb is about.

use cdrvault_format::partition::DayRange;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::exit::Failure;

/// A range, a day or a month.
#[derive(Debug, clap::Args)]
pub(crate) struct DayArgs {
    /// The first day.
    #[arg(long, value_name = "DAY", requires = "to", conflicts_with_all = ["day", "month"])]
    from: Option<Date>,
    /// The day after the last one.
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<Date>,
    /// One day.
    #[arg(long, value_name = "DAY", conflicts_with = "month")]
    day: Option<Date>,
    /// One month, as 2026-01.
    #[arg(long, value_name = "MONTH")]
    month: Option<String>,
}

impl DayArgs {
    /// The range that is meant; `None` where nothing is said.
    pub(crate) fn range(&self) -> Result<Option<DayRange>, Failure> {
        self.resolve().map_err(Failure::Usage)
    }

    fn resolve(&self) -> Result<Option<DayRange>, String> {
        // Nothing comes after the last day that a database can hold: then the range has no end.
        let after = |day: Date| day.tomorrow().ok();
        let (from, to) = match (self.from, self.to, self.day, &self.month) {
            (Some(from), Some(to), None, None) if from < to => (from, Some(to)),
            (Some(from), Some(to), None, None) => {
                return Err(format!("--from {from} --to {to} holds no day: --to is the day after the last one"));
            }
            (None, None, Some(day), None) => (day, after(day)),
            (None, None, None, Some(month)) => {
                let first: Date =
                    format!("{month}-01").parse().map_err(|_| format!("`{month}` is not a month, as 2026-01"))?;
                (first, after(first.last_of_month()))
            }
            _ => return Ok(None),
        };
        Ok(Some(DayRange { from: Some(from), to }))
    }
}

/// `2026-01-15T10:00:00Z`, or without a zone in that of the pipeline: `2026-01-15 10:00`, or `2026-01-15` for its beginning.
/// Where there is no pipeline, whose zone is meant cannot be known. A time without a fraction is the end of that second:
/// what other verbs show as saved at that time is saved by then.
pub(crate) fn parse_time(text: &str, zone: Option<&TimeZone>) -> Result<Timestamp, Failure> {
    let end = |time: Timestamp| {
        let rest = jiff::SignedDuration::new(0, 999_999_999);
        if text.contains(['.', ',']) { time } else { time.saturating_add(rest).unwrap_or(Timestamp::MAX) }
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(end(time));
    }
    let Some(zone) = zone else {
        return Err(Failure::Usage(format!(
            "`{text}` is not a time with a zone, which --vault needs: write 2026-01-15T10:00:00Z or 2026-01-15T10:00:00+01:00"
        )));
    };
    let zoned = match text.parse::<Date>().ok().filter(|date| date.to_string() == text) {
        Some(date) => date.to_zoned(zone.clone()).map(|zoned| zoned.timestamp()),
        None => {
            text.parse::<DateTime>().and_then(|civil| civil.to_zoned(zone.clone())).map(|zoned| end(zoned.timestamp()))
        }
    };
    zoned.map_err(|_| {
        Failure::Usage(format!(
            "`{text}` is not a time: write 2026-01-15, \"2026-01-15 10:00\" or 2026-01-15T10:00:00Z"
        ))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        days: DayArgs,
    }

    fn of(line: &str) -> Result<String, String> {
        let parsed = Line::try_parse_from(["replay"].into_iter().chain(line.split_whitespace()));
        let range = parsed.map_err(|error| error.to_string())?.days.resolve()?;
        Ok(range.map_or_else(|| "everything".to_owned(), |days| days.to_string()))
    }

    #[test]
    fn days_are_half_open() {
        assert_eq!(of("--day 2026-02-28").unwrap(), "2026-02-28 <= day < 2026-03-01");
        assert_eq!(of("--month 2024-02").unwrap(), "2024-02-01 <= day < 2024-03-01");
        assert_eq!(of("--from 2026-01-01 --to 2026-01-03").unwrap(), "2026-01-01 <= day < 2026-01-03");
        assert_eq!(of("").unwrap(), "everything");
        for last in ["--day 9999-12-31", "--from 9999-12-30 --to 9999-12-31", "--month 9999-12"] {
            assert!(of(last).is_ok(), "{last}: {:?}", of(last));
        }
        assert_eq!(of("--day 9999-12-31").unwrap(), "9999-12-31 <= day < the end");
        assert_eq!(of("--day 9999-12-30").unwrap(), "9999-12-30 <= day < 9999-12-31");
        assert_eq!(of("--month 9999-12").unwrap(), "9999-12-01 <= day < the end");
        assert_eq!(of("--day 0000-01-01").unwrap(), "0000-01-01 <= day < 0000-01-02");
        assert_eq!(of("--month 0000-01").unwrap(), "0000-01-01 <= day < 0000-02-01");
        for wrong in [
            "--from 2026-01-01",
            "--from 2026-01-02 --to 2026-01-02",
            "--month 2026-13",
            "--month 10000-01",
            "--month -0001-01",
            "--month 2026",
            "--day 10000-01-01",
            "--day 0000-00-00",
            "--from 9999-12-31 --to 9999-12-31",
            "--day 2026-02-30",
            "--day 2026-01-01 --month 2026-01",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_without_a_zone_are_those_of_the_pipeline() {
        let rome = TimeZone::get("Europe/Rome").unwrap();
        let of = |text: &str| parse_time(text, Some(&rome)).ok().map(|time| time.to_string());
        assert_eq!(of("2026-01-15").as_deref(), Some("2026-01-14T23:00:00Z"));
        assert_eq!(of("2026-07-15 10:30").as_deref(), Some("2026-07-15T08:30:00.999999999Z"));
        assert_eq!(of("2026-07-15 10:30:07").as_deref(), Some("2026-07-15T08:30:07.999999999Z"));
        assert_eq!(of("2026-07-15 10:30:07.5").as_deref(), Some("2026-07-15T08:30:07.5Z"));
        assert_eq!(of("2026-01-15T10:00:00Z").as_deref(), Some("2026-01-15T10:00:00.999999999Z"));
        assert_eq!(of("2026-01-15T10:00:00.000Z").as_deref(), Some("2026-01-15T10:00:00Z"));
        assert_eq!(of("yesterday"), None);
    }

    #[test]
    fn a_bare_vault_needs_a_zone() {
        assert!(parse_time("2026-01-15 10:00", None).is_err());
        let time = parse_time("2026-01-15T10:00:00+01:00", None).ok();
        assert_eq!(time.map(|time| time.to_string()).as_deref(), Some("2026-01-15T09:00:00.999999999Z"));
    }
}
