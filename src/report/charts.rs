//! What the days of a flow take, month by month: two charts and the table that they show.

use maud::{Markup, html};

use super::figures::{count, size};
use super::flows::{Flow, Month};
use crate::output;

/// The height of a chart's bars in pixels. Its width is that of the page, so that its text needs no scaling.
const HEIGHT: f64 = 110.0;

/// A bar is no wider than this part of the chart, in percent.
const WIDEST: f64 = 8.0;

/// Labels of years stay this far from those at the ends, in percent.
const APART: f64 = 18.0;

/// Charts and table.
pub(super) fn html(flow: &Flow, number: usize) -> Markup {
    let stored = |month: &Month| month.bytes as f64;
    html! {
        h3 { "Size by month" }
        div.charts {
            (chart(flow, &format!("stored-{number}"), "Stored bytes", &stored, &bytes))
            (chart(flow, &format!("each-{number}"), "Stored bytes per row", &per_row, &|value| format!("{value:.1} B")))
        }
        table.stack.months {
            caption.hidden { "Size of " (flow.dataset) " by month" }
            thead { tr {
                th scope="col" { "Month" } th scope="col" { "Days" } th scope="col" { "Rows" } th scope="col" { "Plain" }
                th scope="col" { "Stored" } th scope="col" { "Smaller" } th scope="col" { "Per row" }
            } }
            tbody { @for month in flow.months.iter().rev() { (row(month)) } }
        }
        p.quiet {
            "“Plain” is the size of the values alone, computed from the receipts: the lengths of all texts, and for every other "
            "column its width (a time or a large number 8 bytes, an ordinary number 4) times the rows, an empty value as well. "
            "As CSV, or in a database, the same rows take more. “Stored” is the newest generation of each day, once."
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a human-readable label of a number of bytes"
)]
fn bytes(value: f64) -> String {
    output::size(value as u64)
}

fn per_row(month: &Month) -> f64 {
    month.bytes as f64 / month.rows.max(1) as f64
}

fn row(month: &Month) -> Markup {
    let smaller = month.plain.map(|plain| plain as f64 / month.bytes.max(1) as f64);
    html! {
        tr data-month=(month.name) {
            th scope="row" { (month.name) }
            td.n.count data-label="Days" { (count(month.days)) }
            td.n.rows data-label="Rows" { (count(month.rows)) }
            td.n.plain data-label="Plain" { @match month.plain { Some(plain) => (size(plain)), None => "not known" } }
            td.n.bytes data-label="Stored" { (size(month.bytes)) }
            td.n.smaller data-label="Smaller" { @if let Some(smaller) = smaller { (format!("{smaller:.1} ×")) } }
            td.n.each data-label="Per row" { (format!("{:.1} B", per_row(month))) }
        }
    }
}

fn chart(flow: &Flow, id: &str, title: &str, value: &dyn Fn(&Month) -> f64, text: &dyn Fn(f64) -> String) -> Markup {
    let months = &flow.months;
    let most = months.iter().map(value).fold(0.0, f64::max);
    let step = 100.0 / months.len().max(1) as f64;
    let wide = (step * 0.75).min(WIDEST);
    let middle = |at: usize| (at as f64 + 0.5) * step;
    html! {
        figure {
            figcaption id=(id) { (title) }
            div.plot {
                div.scale aria-hidden="true" { span { (text(most)) } span { (text(most / 2.0)) } span { "0" } }
                svg width="100%" height=(HEIGHT + 20.0) role="img" aria-labelledby=(id) {
                    @for part in [0.0, 0.5, 1.0] {
                        @let y = format!("{:.1}", part * (HEIGHT - 1.0) + 0.5);
                        line.grid x1="0" x2="100%" y1=(y) y2=(y) {}
                    }
                    @for (at, month) in months.iter().enumerate() {
                        @let tall = if most > 0.0 { (value(month) / most * HEIGHT).max(1.0) } else { 0.0 };
                        rect.bar x={ (format!("{:.2}", middle(at) - wide / 2.0)) "%" } y=(format!("{:.1}", HEIGHT - tall))
                            width={ (format!("{wide:.2}")) "%" } height=(format!("{tall:.1}")) {
                            title { (month.name) ": " (text(value(month))) }
                        }
                    }
                    @for (x, anchor, label) in labels(months, &middle) {
                        text x={ (format!("{x:.2}")) "%" } y=(HEIGHT + 15.0) text-anchor=(anchor) { (label) }
                    }
                }
            }
        }
    }
}

/// So many months fit below a chart, on a phone as well.
const ALL: usize = 4;

/// Every month where there are few; else the first and the last, and each January that is far enough from them.
fn labels<'a>(months: &'a [Month], middle: &dyn Fn(usize) -> f64) -> Vec<(f64, &'static str, &'a str)> {
    match months {
        few if few.len() <= ALL => {
            few.iter().enumerate().map(|(at, month)| (middle(at), "middle", month.name.as_str())).collect()
        }
        [first, .., last] => {
            let mut labels = vec![(0.0, "start", first.name.as_str()), (100.0, "end", last.name.as_str())];
            let mut free = APART;
            for (at, month) in months.iter().enumerate().filter(|(_, month)| month.name.ends_with("-01")) {
                let x = middle(at);
                if x >= free && x <= 100.0 - APART {
                    labels.push((x, "middle", month.name.as_str()));
                    free = x + APART;
                }
            }
            labels
        }
        _ => Vec::new(),
    }
}
