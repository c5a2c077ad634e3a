//! How many calls a day has, and at which minutes.

use jiff::civil::{Date, Weekday};

use super::hash::mix;
use super::settings::Settings;

/// Minutes of a day.
pub(super) const MINUTES: u32 = 24 * 60;

/// The load at each full hour: offices with a lunch break, and a night valley.
const WORKING: [u64; 25] =
    [4, 2, 1, 1, 1, 3, 10, 30, 75, 100, 108, 104, 82, 58, 78, 96, 98, 92, 74, 50, 34, 22, 14, 8, 4];

/// Weekends wake late and peak in the evening.
const WEEKEND: [u64; 25] = [9, 6, 4, 3, 2, 2, 4, 9, 20, 36, 48, 54, 50, 38, 34, 36, 42, 50, 58, 60, 52, 38, 24, 15, 9];

/// The calls of a day: growing, fewer at weekends, never quite the same.
pub(super) fn volume(settings: &Settings, date: Date) -> u64 {
    let weekday = match date.weekday() {
        Weekday::Monday => 1040,
        Weekday::Tuesday => 1030,
        Weekday::Wednesday => 1000,
        Weekday::Thursday => 1010,
        Weekday::Friday => 960,
        Weekday::Saturday => 520,
        Weekday::Sunday => 310,
    };
    let days = u64::from(days_between(settings.start, date));
    let grown = 1000 + u64::from(settings.growth) * days;
    let mood = 970 + mix(&[settings.seed, ordinal(date), 0x766f_6c75_6d65]) % 61;
    let calls = u128::from(settings.calls_per_day) * u128::from(weekday * grown * mood) / 1_000_000_000;
    u64::try_from(calls).unwrap_or(u64::MAX)
}

/// A number for each day, to seed with.
pub(super) fn ordinal(date: Date) -> u64 {
    u64::from(days_between(Date::MIN, date))
}

/// Whole days from one date to a later one; 0 where it is earlier.
fn days_between(from: Date, to: Date) -> u32 {
    let hours = from.duration_until(to).as_hours();
    u32::try_from(hours / 24).unwrap_or(0)
}

/// Deals a day's calls out to its minutes.
#[derive(Debug)]
pub(super) struct Minutes {
    load: &'static [u64; 25],
    calls: u64,
    total: u64,
    dealt: u64,
    passed: u64,
    minute: u32,
}

impl Minutes {
    pub(super) fn new(date: Date, calls: u64) -> Self {
        let load = match date.weekday() {
            Weekday::Saturday | Weekday::Sunday => &WEEKEND,
            _ => &WORKING,
        };
        let total = (0..MINUTES).map(|minute| weight(load, minute)).sum();
        Self { load, calls, total, dealt: 0, passed: 0, minute: 0 }
    }
}

/// The load of a minute, between those of the full hours around it.
fn weight(load: &[u64; 25], minute: u32) -> u64 {
    let (hour, past) = ((minute / 60) as usize, u64::from(minute % 60));
    match load.get(hour..hour + 2) {
        Some(&[this, next]) => this * (60 - past) + next * past,
        _ => 0,
    }
}

impl Iterator for Minutes {
    /// The minute, and its number of calls.
    type Item = (u32, u64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.minute == MINUTES {
            return None;
        }
        let minute = self.minute;
        self.minute += 1;
        self.passed += weight(self.load, minute);
        // Rounding the sum instead of each minute deals out every call.
        let due = u128::from(self.calls) * u128::from(self.passed) / u128::from(self.total.max(1));
        let due = u64::try_from(due).unwrap_or(self.calls);
        let now = due - self.dealt;
        self.dealt = due;
        Some((minute, now))
    }
}
