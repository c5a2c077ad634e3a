//! How far the clock of a place is ahead of ours, by the time of a file that was just written there.

use std::time::{Duration, SystemTime};

/// In seconds. The file was written between `before` and `after` by our clock, and is of `there` by that of the place.
/// `None` where the place notes no times.
pub(crate) fn offset(before: SystemTime, after: SystemTime, there: SystemTime) -> Option<i64> {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    if there <= SystemTime::UNIX_EPOCH + Duration::from_hours(24) {
        return None;
    }
    if let Ok(behind) = before.duration_since(there) {
        return Some(-seconds(behind));
    }
    Some(there.duration_since(after).map_or(0, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_no_offset() {
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second);
        assert_eq!(offset(at(10), at(20), at(15)), Some(0));
        assert_eq!(offset(at(10), at(20), at(3)), Some(-7));
        assert_eq!(offset(at(10), at(20), at(420)), Some(400));
        assert_eq!(offset(at(10), at(20), SystemTime::UNIX_EPOCH), None);
    }
}
