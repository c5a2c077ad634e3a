//! What is generated.

use jiff::civil::Date;

/// What a generator makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Another seed gives other customers and other calls.
    pub seed: u64,
    /// The calls of an ordinary working day, at `start`.
    pub calls_per_day: u64,
    /// From this day on the volume grows.
    pub start: Date,
    /// By how many thousandths of `calls_per_day` the volume grows each day.
    pub growth: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 1, calls_per_day: 2_000, start: Date::constant(2026, 1, 1), growth: 8 }
    }
}
