//! The same calls, rated again.

use std::fmt::Write as _;

use super::cdr::Cdr;
use super::hash::{mix, scatter};

/// A rating of calls that had been rated before: every row gets another `id`, some get other rates.
///
/// Rows of one source call change together, whichever round they had before.
#[derive(Debug, Clone, Copy)]
pub struct Rerating {
    key: u64,
    round: u32,
    percent: u8,
}

impl Rerating {
    pub(super) fn new(seed: u64, round: u32, percent: u8) -> Self {
        Self { key: mix(&[seed, u64::from(round), 0x7265_7261_7465]), round, percent }
    }

    /// Rates a row again.
    pub fn apply(&self, cdr: &mut Cdr) {
        // A permutation, so that keys stay unique.
        cdr.id = scatter(cdr.id.unsigned_abs(), self.key);
        let call = cdr.from_source_cdr_id.map_or(0, i32::unsigned_abs);
        let draw = mix(&[self.key, u64::from(call)]);
        if cdr.income.is_none() || draw % 100 >= u64::from(self.percent) {
            return;
        }
        let percent = 85 + i64::try_from((draw >> 32) % 31).unwrap_or(0);
        cdr.income = cdr.income.map(|income| income * percent / 100);
        cdr.cost = cdr.cost.map(|cost| cost * (percent + 3) / 100);
        let rate = cdr.debug_income_rate.get_or_insert_default();
        // A free call stays free: the rate's name tells even there that it was rated anew.
        rate.truncate(rate.find(" #").unwrap_or(rate.len()));
        let _ = write!(rate, " #{}", self.round);
    }
}
