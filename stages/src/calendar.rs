//! Days as Arrow and databases count them.

use jiff::civil::Date;

const EPOCH: Date = Date::constant(1970, 1, 1);

/// Days since 1970-01-01, negative before.
pub(crate) fn days_since_1970(date: Date) -> i32 {
    EPOCH.duration_until(date).as_hours().try_into().map_or(i32::MAX, |hours: i32| hours / 24)
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar. The algorithm counts
/// in eras of 400 years that begin on the first of March, so that leap days come last.
pub(crate) fn civil(days: i32) -> (i32, u8, u8) {
    let shifted = i64::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (i32::try_from(year).unwrap_or(0), u8::try_from(month).unwrap_or(0), u8::try_from(day).unwrap_or(0))
}

/// The day after, which `0001-01-01` to `9999-12-30` have.
pub(crate) fn next_day(date: Date) -> Option<Date> {
    date.tomorrow().ok()
}

/// The first valid day after a stored date, which may not be a real one: after `2024-02-31` comes `2024-03-01`,
/// after `2024-00-10` comes `2024-01-01`, after `0000-00-00` comes `0001-01-01`.
pub(crate) fn first_day_after(year: i16, month: i8, day: i8) -> Option<Date> {
    if year < 1 {
        return Date::new(1, 1, 1).ok();
    }
    if month < 1 {
        return Date::new(year, 1, 1).ok();
    }
    if day < 1 {
        return Date::new(year, month, 1).ok();
    }
    match Date::new(year, month, day) {
        Ok(date) => next_day(date),
        Err(_) if month >= 12 => Date::new(year + 1, 1, 1).ok(),
        Err(_) => Date::new(year, month + 1, 1).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        let count = |text: &str| days_since_1970(text.parse().unwrap());
        assert_eq!((count("1970-01-01"), count("1969-12-31"), count("2024-02-29")), (0, -1, 19_782));
        assert_eq!((count("0001-01-01"), count("9999-12-31")), (-719_162, 2_932_896));
    }

    #[test]
    fn days_become_dates_again() {
        let mut date: Date = "0001-01-01".parse().unwrap();
        for days in -719_162..=2_932_896 {
            let (year, month, day) = civil(days);
            assert_eq!(
                (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs()),
                (year, month, day)
            );
            date = date.tomorrow().unwrap_or(date);
        }
    }

    #[test]
    fn the_walk_never_stands_still() {
        let after = |y, m, d| first_day_after(y, m, d).map(|date| date.to_string());
        assert_eq!(after(0, 0, 0).as_deref(), Some("0001-01-01"));
        assert_eq!(after(2024, 0, 10).as_deref(), Some("2024-01-01"));
        assert_eq!(after(2024, 2, 0).as_deref(), Some("2024-02-01"));
        assert_eq!(after(2024, 2, 31).as_deref(), Some("2024-03-01"));
        assert_eq!(after(2024, 12, 31).as_deref(), Some("2025-01-01"));
        assert_eq!(after(9999, 12, 31), None);
    }
}
