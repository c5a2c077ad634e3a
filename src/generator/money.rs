//! Amounts of money.

/// How many decimal digits an amount has: Asterisell stores the value times 10^4.
pub const MONEY_SCALE: u8 = 4;

/// The price of a call in the stored unit, rounded up as carriers do.
pub(super) fn price(per_minute: i64, setup: i64, seconds: i32) -> i64 {
    if seconds == 0 { 0 } else { setup + (per_minute * i64::from(seconds) + 59) / 60 }
}
