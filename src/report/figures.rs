//! Numbers, sizes and times in the page.

use jiff::Timestamp;
use maud::{Markup, html};

use super::facts::Facts;
use crate::output;

/// A number, readable by people and by programs.
pub(super) fn count(number: u64) -> Markup {
    html! { data value=(number) { (output::count(number)) } }
}

/// Bytes, readable by people and by programs.
pub(super) fn size(bytes: u64) -> Markup {
    html! { data value=(bytes) { (output::size(bytes)) } }
}

/// When, in the wall clock of the billing host.
pub(super) fn moment(facts: &Facts, at: Timestamp) -> Markup {
    let shown = at.to_zoned(facts.clock.clone()).strftime("%F %H:%M").to_string();
    html! { time datetime=(at) { (shown) } }
}
