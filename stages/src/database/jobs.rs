//! Our rows in the application's list of jobs that want to hear of changed days: two for each flow, and one for the mark
//! of the last run.

use std::collections::BTreeSet;

use cdrvault_plugin::context::Writer;
use cdrvault_plugin::stage::MARK_BITS;
use jiff::Span;
use jiff::civil::{Date, date};

/// The table of jobs: `id`, `name`.
pub(crate) const JOBS: &str = "ar_daily_status_job";
/// The queue: `day`, `ar_daily_status_job_id`.
pub(crate) const QUEUE: &str = "ar_daily_status_change";

/// The names of a flow's two jobs. The queue rows of the first are what the application announced, those of the
/// second what we owe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobNames {
    pub(crate) inbox: String,
    pub(crate) debt: String,
}

impl JobNames {
    pub(crate) fn new(writer: &Writer, flow: &str) -> Self {
        let of = |what: &str| format!("cdrvault/{}/{}/{flow}/{what}", writer.pipeline, writer.id);
        Self { inbox: of("inbox"), debt: of("debt") }
    }
}

/// The name of the job whose queue rows are the mark of the last run.
pub(crate) fn mark_name(writer: &Writer) -> String {
    format!("{OURS}{}/{}/mark", writer.pipeline, writer.id)
}

/// A mark as it stands in the queue, where nothing but days fits: two days, each with half of its bits, in years that no
/// call has. The application announces the days of calls to this job, too; those are told apart by it, and removed.
pub(crate) fn days_of_mark(mark: u64) -> [Date; 2] {
    [day_of_half(0, mark >> HALF), day_of_half(1, mark)]
}

/// The marks that such days can be of; more than one where a call has such a day after all.
pub(crate) fn marks_in(days: &[Date]) -> BTreeSet<u64> {
    let [high, low] = [0, 1].map(|half| days.iter().filter_map(|day| half_of_day(half, *day)).collect::<Vec<_>>());
    high.iter().flat_map(|high| low.iter().map(move |low| high << HALF | low)).collect()
}

/// The first days of the two halves: from each on there are as many days as a half has values.
const FIRST: [Date; 2] = [date(4000, 1, 1), date(7000, 1, 1)];
const HALF: u32 = MARK_BITS / 2;
const VALUES: u64 = 1 << HALF;

fn day_of_half(half: usize, value: u64) -> Date {
    let days = i64::try_from(value % VALUES).unwrap_or_default();
    FIRST[half].saturating_add(Span::new().days(days))
}

fn half_of_day(half: usize, day: Date) -> Option<u64> {
    let days = day.duration_since(FIRST[half]).as_hours() / 24;
    u64::try_from(days).ok().filter(|value| *value < VALUES && FIRST[half] <= day)
}

/// All names of ours begin with this.
const OURS: &str = "cdrvault/";

/// The statement that lists all rows that may be ours.
pub(crate) fn select_names() -> String {
    format!("SELECT name FROM {JOBS} WHERE name LIKE '{OURS}%' ORDER BY name")
}

/// The statements that take rows away, given as SQL literals: first what is queued for them.
pub(crate) fn delete_names(literals: &[String]) -> [String; 2] {
    let list = literals.join(", ");
    [
        format!("DELETE FROM {QUEUE} WHERE ar_daily_status_job_id IN (SELECT id FROM {JOBS} WHERE name IN ({list}))"),
        format!("DELETE FROM {JOBS} WHERE name IN ({list})"),
    ]
}

/// The ids of a flow's two jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobIds {
    pub(crate) inbox: i64,
    pub(crate) debt: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_two_days_and_is_known_among_others() {
        for mark in [0, 1, VALUES - 1, VALUES, (1 << MARK_BITS) - 1, 0x12_3456_789a] {
            let [high, low] = days_of_mark(mark);
            assert!(date(4000, 1, 1) <= high && high < date(7000, 1, 1), "{high}");
            assert!(date(7000, 1, 1) <= low && low < date(9999, 1, 1), "{low}");
            assert_eq!(marks_in(&[low, date(2026, 1, 1), high]), [mark].into());
            assert!(marks_in(&[low, date(8000, 2, 3), high]).contains(&mark));
        }
        assert!(marks_in(&[date(2026, 1, 1), date(4000, 1, 1)]).is_empty());
    }
}
