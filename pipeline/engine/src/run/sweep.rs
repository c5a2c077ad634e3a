//! Which days are compared with the database besides those that were announced: events are hints.

use jiff::civil::Date;
use jiff::{Span, Timestamp};

use crate::state::FlowState;
use cdrvault_format::partition::DayRange;
use cdrvault_plugin::stage::{Days, Sweep};

/// The sweeps of a flow that is to sweep only where it must.
pub(super) const NEEDED: Sweep = Sweep { window_days: 40, every: std::time::Duration::from_hours(24) };

/// Of the days outside the window, each sweep looks at one in so many: those that were not looked at for longest.
const SHARE: usize = 30;

/// The days to compare now; `None` where no sweep is due.
pub(super) fn due(
    sweep: Sweep,
    every_run: bool,
    state: &FlowState,
    saved: &[Date],
    now: Timestamp,
    today: Date,
) -> Option<Days> {
    if is_full(state, now) {
        return Some(Days { ranges: vec![DayRange::ALL], single: saved.iter().copied().collect(), undated: true });
    }
    let last = state.swept?;
    let due = now < last || now.duration_since(last).unsigned_abs() >= sweep.every;
    if !due && !every_run {
        return None;
    }
    let from = today.checked_sub(Span::new().days(i64::from(sweep.window_days))).unwrap_or(Date::MIN);
    let ranges = vec![DayRange { from: Some(from), to: None }];
    // Rows without a valid date are in no window, and may be as new as any.
    let mut days = Days { ranges, undated: true, ..Days::default() };
    if due {
        let mut older: Vec<Date> = saved.iter().copied().filter(|day| *day < from).collect();
        // The date of the last look, oldest first; never looked at comes before all.
        older.sort_by_key(|day| (state.checked.get(day).copied(), *day));
        let share = older.len().div_ceil(SHARE);
        days.single.extend(older.into_iter().take(share));
    }
    Some(days)
}

/// Whether every day must be looked at: after a registration, or when the state was lost.
pub(super) fn is_full(state: &FlowState, now: Timestamp) -> bool {
    match state.full_until {
        Some(until) => state.swept.is_none_or(|swept| swept <= until),
        None => state.swept.is_none_or(|swept| swept > now),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SWEEP: Sweep = Sweep { window_days: 40, every: Duration::from_hours(24) };

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_lost_state_and_a_registration_are_swept_in_full() {
        let now = at("2026-06-15T03:00:00Z");
        let all = due(SWEEP, false, &FlowState::default(), &[], now, day("2026-06-15"));
        assert_eq!(all.unwrap().ranges, [DayRange::ALL]);
        let registered = FlowState { full_until: Some(at("2026-06-15T02:30:00Z")), ..FlowState::default() };
        assert!(is_full(&registered, now));
        let early = FlowState { swept: Some(at("2026-06-15T02:00:00Z")), ..registered.clone() };
        assert!(is_full(&early, now), "a transaction may have been open since before the registration");
        let late = FlowState { swept: Some(at("2026-06-15T02:45:00Z")), ..registered };
        assert!(!is_full(&late, now));
    }

    #[test]
    fn the_window_and_the_longest_unseen_thirtieth_are_swept_when_due() {
        let today = day("2026-06-15");
        let saved: Vec<Date> = (1..=100).map(|back| today.checked_sub(Span::new().days(back)).unwrap()).collect();
        let mut state = FlowState { swept: Some(at("2026-06-14T01:00:00Z")), ..FlowState::default() };
        for old in &saved {
            state.checked.insert(*old, day("2026-06-01"));
        }
        state.checked.insert(saved[70], day("2026-05-01"));
        state.checked.remove(&saved[80]);
        let days = due(SWEEP, false, &state, &saved, at("2026-06-15T03:00:00Z"), today).unwrap();
        assert!(days.undated && days.contains(saved[39]) && days.contains(day("2027-01-01")));
        assert_eq!(
            days.single.iter().copied().collect::<Vec<_>>(),
            [saved[80], saved[70]],
            "60 days outside: two of them"
        );
        assert_eq!(due(SWEEP, false, &state, &saved, at("2026-06-14T03:00:00Z"), today), None);
        let each = due(SWEEP, true, &state, &saved, at("2026-06-14T03:00:00Z"), today).unwrap();
        assert!(each.single.is_empty() && !each.ranges.is_empty(), "without events each run looks at the window");
    }
}
