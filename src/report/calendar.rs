//! The days of a flow, a month a row: coloured by their rows, marked by what is to be said of them.

use std::collections::BTreeMap;

use jiff::ToSpan as _;
use jiff::civil::Date;
use maud::{Markup, html};

use super::facts::Facts;
use super::figures::{count, moment, size};
use super::flows::{Flow, Saved, State};
use super::verdict::partition;
use crate::output;

/// Of colour, from few rows to many. A day without rows has none of them.
const SHADES: u64 = 4;

/// What a state looks like, what it is called, and what it means.
fn look(state: State) -> (&'static str, &'static str, &'static str, &'static str) {
    match state {
        State::Damaged => ("damaged", "‼", "damaged", "a verification found damage in a sink, which is not mended"),
        State::Unreadable => ("unreadable", "?", "not readable", "its receipt is damaged, or cannot be reached"),
        State::Undelivered => ("undelivered", "!", "not delivered", "a sink has an older generation, or none"),
        State::Shrunk => ("shrunk", "↓", "shrunk", "it lost rows; what it was before is pinned"),
        State::Incomplete => ("incomplete", "½", "incomplete", "not everything could be read"),
        State::Gone => ("gone", "–", "gone", "the database has no rows of it any more; the saved ones stay"),
        State::Open => ("open", "○", "open", "saved before the day had ended"),
        State::Changed => ("changed", "Δ", "changed", "saved again; an older version is kept"),
    }
}

const LEGEND: [State; 8] = [
    State::Changed,
    State::Open,
    State::Gone,
    State::Shrunk,
    State::Incomplete,
    State::Undelivered,
    State::Unreadable,
    State::Damaged,
];

/// The calendar, its legend, and all of it as a table.
pub(super) fn html(facts: &Facts, flow: &Flow) -> Markup {
    let days: BTreeMap<Date, &Saved> = flow.days().collect();
    let most = days.values().map(|saved| saved.rows).max().unwrap_or(0);
    let mut months: Vec<Date> = days.keys().map(|day| day.first_of_month()).collect();
    months.dedup();
    let (first, last) = (days.keys().next().copied(), days.keys().next_back().copied());
    // A month of which nothing is saved is a hole like any other.
    if let (Some(first), Some(last)) = (months.first().copied(), months.last().copied()) {
        months = first.series(1.month()).take_while(|month| *month <= last).collect();
    }
    let missing = |day: Date| first.is_some_and(|first| first < day) && last.is_some_and(|last| day < last);
    html! {
        h3 { "Day by day" }
        @if flow.earlier > 0 {
            p {
                (count(flow.earlier)) " older days are saved too; " code { "--months" } " shows more than the last "
                (facts.months) " months."
            }
        }
        table.calendar {
            caption.hidden { "Days of " (flow.dataset) ": a month in each row. The same as a list: below." }
            thead { tr {
                th scope="col" { span.hidden { "Month" } }
                @for day in 1..=31 { th scope="col" { (day) } }
            } }
            tbody {
                @for month in &months {
                    tr {
                        th scope="row" { (month.strftime("%Y-%m")) }
                        @for day in month.series(1.day()).take_while(|day| day.month() == month.month()) {
                            @match days.get(&day) {
                                Some(saved) => (cell(saved, most)),
                                None if missing(day) => td.missing data-day=(day) title={ (day) ": nothing is saved" } { "×" },
                                None => td.outside {},
                            }
                        }
                        @for _ in month.days_in_month()..31 { td.none {} }
                    }
                }
            }
        }
        (legend(flow, most))
        details.list {
            summary { "All " (output::plural(days.len() as u64, "day")) " as a list" @if !flow.missing.is_empty() { ", and those that are missing" } }
            (list(facts, flow, &days))
        }
    }
}

fn cell(saved: &Saved, most: u64) -> Markup {
    let (class, sign) = saved.states.first().map_or(("saved", ""), |state| {
        let (class, sign, _, _) = look(*state);
        (class, sign)
    });
    html! {
        td.{ "s" (shade(saved.rows, most)) }.(class) data-day=(saved.partition) title=(told(saved)) { (sign) }
    }
}

/// In words, for those who point at a day.
fn told(saved: &Saved) -> String {
    let mut text = format!("{}: {}", partition(saved.partition), states(saved));
    for damage in &saved.damage {
        text.push_str(&format!("; {damage}"));
    }
    if let Some(error) = &saved.error {
        return format!("{text}; {error}");
    }
    text.push_str(&format!(
        "; {}; {}; generation {}; in {}",
        output::plural(saved.rows, "row"),
        output::size(saved.bytes),
        saved.generation,
        if saved.sinks.is_empty() { "no sink".to_owned() } else { saved.sinks.join(", ") },
    ));
    if !saved.behind.is_empty() {
        text.push_str(&format!("; not in {}", saved.behind.join(", ")));
    }
    if !saved.pinned.is_empty() {
        text.push_str(&format!("; pinned: {}", saved.pinned.join("; ")));
    }
    text
}

fn states(saved: &Saved) -> String {
    if saved.states.is_empty() {
        return "saved".to_owned();
    }
    saved.states.iter().map(|state| look(*state).2).collect::<Vec<_>>().join(", ")
}

/// 0 for no rows, else 1 to [`SHADES`].
fn shade(rows: u64, most: u64) -> u64 {
    if rows == 0 { 0 } else { (rows.saturating_mul(SHADES)).div_ceil(most.max(1)).clamp(1, SHADES) }
}

fn legend(flow: &Flow, most: u64) -> Markup {
    html! {
        ul.legend aria-label="Legend" {
            @for shade in (1..=SHADES).filter(|shade| most * shade / SHADES > most * (shade - 1) / SHADES) {
                li { span.{ "s" (shade) }.box aria-hidden="true" {} " up to " (output::count(most * shade / SHADES)) " rows" }
            }
            @for state in LEGEND {
                @let (class, sign, name, meaning) = look(state);
                @let number = flow.days().filter(|(_, saved)| saved.states.contains(&state)).count();
                @if number > 0 {
                    li { span.s2.box.(class) aria-hidden="true" { (sign) } " " strong { (name) } " (" (count(number as u64)) "): " (meaning) }
                }
            }
            @if !flow.missing.is_empty() {
                li {
                    span.missing.box aria-hidden="true" { "×" } " " strong { "missing" } " (" (count(flow.missing.len() as u64))
                    "): nothing is saved; perhaps there were no calls"
                }
            }
        }
    }
}

fn list(facts: &Facts, flow: &Flow, days: &BTreeMap<Date, &Saved>) -> Markup {
    let mut all: Vec<(Date, Option<&Saved>)> = days.iter().map(|(day, saved)| (*day, Some(*saved))).collect();
    all.extend(flow.missing.iter().map(|day| (*day, None)));
    all.sort_by_key(|(day, _)| std::cmp::Reverse(*day));
    html! {
        table.stack.days {
            (head("Day"))
            tbody {
                @for (day, saved) in all {
                    @match saved {
                        Some(saved) => (row(facts, saved)),
                        None => tr data-partition=(day) {
                            th scope="row" { (day) }
                            td.wide data-label="State" colspan="7" { "missing: nothing is saved" }
                        },
                    }
                }
            }
        }
    }
}

fn head(what: &str) -> Markup {
    html! {
        thead { tr {
            th scope="col" { (what) } th scope="col" { "State" } th scope="col" { "Rows" } th scope="col" { "Stored" }
            th scope="col" { "Generation" } th scope="col" { "Old versions" } th scope="col" { "Received" } th scope="col" { "Sinks" }
        } }
    }
}

fn row(facts: &Facts, saved: &Saved) -> Markup {
    html! {
        tr data-partition=(saved.partition) {
            th scope="row" { (partition(saved.partition)) }
            td.state data-label="State" {
                (states(saved))
                @if let Some(since) = saved.gone { " since " (moment(facts, since)) }
                @for reason in &saved.pinned { "; pinned: " (reason) }
                @for damage in &saved.damage { "; " (damage) }
                @if let Some(error) = &saved.error { ": " (error) }
            }
            td.n.rows data-label="Rows" { (count(saved.rows)) }
            td.n.bytes data-label="Stored" { (size(saved.bytes)) }
            td.n.generation data-label="Generation" { (count(saved.generation.into())) }
            td.n.versions data-label="Old versions" { (count(saved.versions)) }
            td data-label="Received" { @if let Some(received) = saved.received { (moment(facts, received)) } }
            td data-label="Sinks" {
                (saved.sinks.join(", "))
                @if !saved.behind.is_empty() { "; not " (saved.behind.join(", ")) }
            }
        }
    }
}

/// What is not a day: a snapshot of files or a dump, or the rows without a date.
pub(super) fn others(facts: &Facts, flow: &Flow) -> Markup {
    html! {
        @if flow.days().next().is_some() { h3 { "Rows without a date" } }
        table.stack.days {
            (head("What"))
            tbody { @for saved in flow.others() { (row(facts, saved)) } }
        }
    }
}
