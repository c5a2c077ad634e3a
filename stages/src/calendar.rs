//! Days as Arrow and databases count them.

use jiff::civil::Date;

const EPOCH: Date = Date::constant(1970, 1, 1);

/// Days since 1970-01-01, negative before.
pub(crate) fn days_since_1970(date: Date) -> i32 {
    EPOCH.duration_until(date).as_hours().try_into().map_or(i32::MAX, |hours: i32| hours / 24)
}

/// The day after, which `0001-01-01` to `9999-12-30` have.
pub(crate) fn next_day(date: Date) -> Option<Date> {
    date.tomorrow().ok()
}

/// The first valid day after a stored date, which may be no real one: after `2024-02-31` comes `2024-03-01`,
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
