//! The page. maud checks the markup when we compile, and escapes every value that is put into it: paths, errors and
//! names come from elsewhere. A string that was pasted together would need that care at each place.

use std::path::Path;

use cdrvault_engine::prune::{SinkPlan, Version};
use cdrvault_engine::report::Outcome;
use cdrvault_engine::survey::Dataset;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::facts::{Facts, Run};
use super::figures::{count, moment, size};
use super::finding::{Finding, Level};
use super::flows::Flow;
use super::verdict::partition;
use super::{calendar, charts};
use crate::output;

const STYLE: &str = include_str!("style.css");

/// Nothing may be loaded from anywhere, whatever is in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// So many versions are listed of each sink.
const MOST_VERSIONS: usize = 200;

/// The page.
pub(super) fn html(facts: &Facts) -> String {
    let title = format!("{}: what is saved", facts.status.pipeline);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "cdrvault " (facts.version) };
                // Without one a browser asks the server for it.
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Backup of " span.name { (facts.status.pipeline) } }
                    p.made { "Made " (moment(facts, facts.made)) " (" (facts.timezone) ") by cdrvault " (facts.version)
                        ". It tells of that moment; after " span #fresh-until { (moment(facts, facts.fresh_until)) }
                        " it is out of date, and whatever makes it has stopped." }
                }
                main {
                    (verdict(facts))
                    (overview(facts))
                    (contents(facts))
                    (places(facts))
                    @for (number, flow) in facts.flows.iter().enumerate() { (of_flow(facts, flow, number)) }
                    (pruning(facts))
                    (runs(facts))
                }
                footer {
                    p {
                        "Sizes count 1024 bytes as 1 KiB. Times are those of " (facts.timezone) ". The same facts as JSON: "
                        code { "cdrvault report " (facts.called) " --json" }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn word(level: Level) -> (&'static str, &'static str, &'static str) {
    match level {
        Level::Good => ("good", "✓", "Good"),
        Level::Note => ("note", "i", "Note"),
        Level::Attention => ("attention", "!", "Look"),
        Level::Bad => ("bad", "✗", "Wrong"),
    }
}

fn verdict(facts: &Facts) -> Markup {
    let verdict = &facts.verdict;
    let (class, sign, _) = word(if verdict.level == Level::Note { Level::Good } else { verdict.level });
    html! {
        section.verdict.(class) aria-labelledby="verdict" {
            h2 #verdict { span.sign aria-hidden="true" { (sign) } " " (verdict.text) }
            p {
                @match facts.status.last_success {
                    Some(at) => { "The last run that went well ended " (ago(facts, at)) "." }
                    None => "No run has gone well yet.",
                }
            }
            @if !verdict.findings.is_empty() {
                ul.findings { @for finding in &verdict.findings { (found(finding)) } }
            }
        }
    }
}

fn found(finding: &Finding) -> Markup {
    let (class, _, text) = word(finding.level);
    html! {
        li {
            span.tag.(class) { (text) } " " (finding.text)
            div.todo { (finding.todo) @if let Some(command) = &finding.command { " " code { (command) } } }
        }
    }
}

fn overview(facts: &Facts) -> Markup {
    let partitions: u64 = facts.flows.iter().map(|flow| flow.partitions).sum();
    let behind: u64 = facts.status.datasets.iter().map(|dataset| dataset.behind).sum();
    let readable = facts.status.sinks.iter().filter(|sink| sink.error.is_none()).count() as u64;
    html! {
        dl.overview {
            div { dt { "Last good run" } dd #last-success { (maybe_ago(facts, facts.status.last_success, "none")) } }
            div {
                dt { "Last run" }
                dd #last-run {
                    @match &facts.status.last_run {
                        Some(last) => { (ago(facts, last.began)) ", " (outcome(last.outcome)) }
                        None => "none",
                    }
                }
            }
            div { dt { "Days and snapshots saved" } dd #partitions { (count(partitions)) } }
            div { dt { "Not delivered yet" } dd #behind { (count(behind)) } }
            div {
                dt { "Sinks that can be read" }
                dd #readable { (count(readable)) " of " (count(facts.status.sinks.len() as u64)) }
            }
            div {
                dt { "Alarms" }
                dd #alarms {
                    @if facts.status.alarms.is_empty() { "none" }
                    @else { ul { @for alarm in &facts.status.alarms { li { (alarm.text) } } } }
                }
            }
        }
    }
}

fn contents(facts: &Facts) -> Markup {
    html! {
        nav aria-label="On this page" {
            a href="#sinks" { "Sinks" }
            @for (number, flow) in facts.flows.iter().enumerate() {
                " " a href={ "#flow-" (number) } { (flow.dataset) }
            }
            " " a href="#versions" { "Old versions" }
            " " a href="#runs" { "Runs" }
        }
    }
}

fn places(facts: &Facts) -> Markup {
    html! {
        section aria-labelledby="sinks" {
            h2 #sinks { "Where it is saved" }
            table.stack.sinks {
                thead { tr {
                    th scope="col" { "Sink" } th scope="col" { "Where" } th scope="col" { "Free" }
                    th scope="col" { "Last read again" } th scope="col" { "State" }
                } }
                tbody {
                    @for sink in &facts.status.sinks {
                        @let about = facts.places.iter().find(|about| about.name == sink.name);
                        tr data-sink=(sink.name) {
                            th scope="row" { (sink.name) @if sink.optional { " " span.quiet { "(optional)" } } }
                            td data-label="Where" {
                                @if let Some(about) = about { code { (about.place) } " " span.quiet { "(" (about.kind) ")" } }
                            }
                            td.n data-label="Free" {
                                @match sink.free { Some(free) => (size(free)), None => span.quiet { "not known" } }
                            }
                            td data-label="Last read again" {
                                @match &sink.verified {
                                    None => "never",
                                    Some(verified) => {
                                        (ago(facts, verified.at))
                                        @if verified.percent < 100.0 { ", " (verified.percent) " % of it" }
                                        @if sink.damage == 0 { ", all good" }
                                    }
                                }
                                @if sink.damage > 0 { ", " strong { (count(sink.damage)) " damaged" } }
                            }
                            td data-label="State" {
                                @match &sink.error {
                                    None => span.tag.good { "can be read" },
                                    Some(error) => { span.tag.bad { "cannot be read" } " " span.error { (error) } }
                                }
                            }
                        }
                    }
                }
            }
            h3 #lag { "What each of them holds" }
            table.stack.datasets {
                thead { tr {
                    th scope="col" { "Flow" } th scope="col" { "Sink" } th scope="col" { "Partitions" } th scope="col" { "Old versions" }
                    th scope="col" { "From" } th scope="col" { "To" } th scope="col" { "Received" } th scope="col" { "Behind by" }
                } }
                tbody { @for dataset in &facts.status.datasets { (holding(facts, dataset)) } }
            }
        }
    }
}

fn holding(facts: &Facts, dataset: &Dataset) -> Markup {
    html! {
        tr data-flow=(dataset.name) data-sink=(dataset.sink) {
            th scope="row" { (dataset.name) }
            td data-label="Sink" { (dataset.sink) @if dataset.optional { " " span.quiet { "(optional)" } } }
            @if dataset.error.is_some() {
                td.wide data-label="State" colspan="6" { span.tag.bad { "not known" } " the sink cannot be read" }
            } @else {
                td.n.partitions data-label="Partitions" { (count(dataset.partitions)) }
                td.n.versions data-label="Old versions" { (count(dataset.versions)) }
                td.day data-label="From" { @if let Some(oldest) = dataset.oldest { (partition(oldest)) } }
                td.day data-label="To" { @if let Some(newest) = dataset.newest { (partition(newest)) } }
                td.received data-label="Received" { (maybe_ago(facts, dataset.received, "nothing")) }
                td.behind data-label="Behind by" {
                    @if dataset.behind == 0 { span.tag.good { data value="0" { "nothing" } } }
                    @else {
                        span.tag.(if dataset.optional { "attention" } else { "bad" }) { (count(dataset.behind)) }
                        @if let Some(since) = dataset.behind_since { " since " (moment(facts, since)) }
                    }
                }
            }
        }
    }
}

fn of_flow(facts: &Facts, flow: &Flow, number: usize) -> Markup {
    let (rows, bytes) = flow.units.iter().fold((0, 0), |sum, saved| (sum.0 + saved.rows, sum.1 + saved.bytes));
    let id = format!("flow-{number}");
    let of_days = flow.days().next().is_some();
    html! {
        section.flow data-flow=(flow.dataset) aria-labelledby=(id) {
            h2 id=(id) { (flow.dataset) }
            p.sum {
                @if flow.partitions == 0 { "Nothing is saved of it: " }
                @else { (output::plural(flow.partitions, if of_days { "partition" } else { "snapshot" })) " " }
                "from " code { (flow.source) } ", in " (flow.sinks.join(", ")) ". "
                @if flow.partitions > 0 {
                    @if flow.earlier > 0 { "Shown here: " } @else { "Altogether: " }
                    span.rows { (count(rows)) } @if of_days { " rows, " } @else { " rows or files, " }
                    span.bytes { (size(bytes)) } " stored, without old versions."
                }
            }
            @if of_days {
                (calendar::html(facts, flow))
                (charts::html(flow, number))
            }
            @if flow.others().next().is_some() { (calendar::others(facts, flow)) }
        }
    }
}

fn pruning(facts: &Facts) -> Markup {
    html! {
        section aria-labelledby="versions" {
            h2 #versions { "Old versions" }
            p {
                "When a day is saved again, what it was before stays as an old version until no rule keeps it. This is what "
                code { "cdrvault prune " (facts.called) } " would do now."
            }
            @if let Some(error) = &facts.prune_error { p { span.tag.attention { "Look" } " " (error) } }
            @for failure in &facts.prune.failures {
                p { span.tag.attention { "Look" } " " (failure.of) ": " (failure.message) }
            }
            @for about in &facts.places {
                @let plan = facts.prune.sinks.iter().find(|plan| plan.sink == about.name);
                div.prune data-sink=(about.name) {
                    h3 { (about.name) }
                    @match plan {
                        Some(plan) => { (planned(facts, plan, &about.keep)) }
                        None => p {
                            "Keeps " (about.keep) "."
                            @if about.keep == super::facts::EVERYTHING { " Nothing is ever removed there." }
                        }
                    }
                }
            }
        }
    }
}

fn planned(facts: &Facts, plan: &SinkPlan, keep: &str) -> Markup {
    let (going, staying): (Vec<&Version>, Vec<&Version>) = plan.versions.iter().partition(|version| version.remove);
    html! {
        p {
            "Keeps " (keep) ". "
            @if let Some(before) = plan.history_before {
                "It keeps history by itself, and drops what was replaced before " (moment(facts, before)) "."
            } @else {
                span.going { (count(going.len() as u64)) } " would go, " span.staying { (count(staying.len() as u64)) } " would stay."
            }
        }
        @if let Some(why) = &plan.needs_yes { p { span.tag.attention { "Look" } " It waits for " code { "--yes" } ": " (why) "." } }
        @if !plan.versions.is_empty() {
            details open[plan.versions.len() <= 12] {
                summary { (output::plural(plan.versions.len() as u64, "old version")) }
                table.stack {
                    thead { tr {
                        th scope="col" { "Partition" } th scope="col" { "Generation" } th scope="col" { "Replaced" }
                        th scope="col" { "Fate" } th scope="col" { "Why" }
                    } }
                    tbody {
                        @for version in going.iter().chain(&staying).take(MOST_VERSIONS) {
                            tr data-unit={ (version.unit.dataset) " " (version.unit.partition) } {
                                th scope="row" { (version.unit.dataset) " " (partition(version.unit.partition)) }
                                td data-label="Generation" { data value=(version.generation) { "g" (format!("{:04}", version.generation)) } }
                                td data-label="Replaced" { (maybe_moment(facts, version.superseded)) }
                                td data-label="Fate" { @if version.remove { span.tag.note { "remove" } } @else { span.tag.good { "keep" } } }
                                td data-label="Why" { (version.reason) }
                            }
                        }
                    }
                }
                @if plan.versions.len() > MOST_VERSIONS {
                    p {
                        "and " (count((plan.versions.len() - MOST_VERSIONS) as u64)) " more: "
                        code { "cdrvault prune " (facts.called) " -n" }
                    }
                }
            }
        }
    }
}

fn runs(facts: &Facts) -> Markup {
    html! {
        section aria-labelledby="runs" {
            h2 #runs { "Recent runs" }
            @if facts.runs.is_empty() { p { "None is known of." } }
            @else {
                table.stack.runs {
                    thead { tr {
                        th scope="col" { "Began" } th scope="col" { "What" } th scope="col" { "Ended" } th scope="col" { "Took" }
                        th scope="col" { "Did" }
                    } }
                    tbody { @for run in &facts.runs { (of_run(facts, run)) } }
                }
            }
        }
    }
}

fn of_run(facts: &Facts, run: &Run) -> Markup {
    // The page says how long a run took in a column of its own.
    let did = run.summary.rsplit_once(" in ").map_or(run.summary.as_str(), |(did, _)| did);
    html! {
        tr data-began=(run.began) {
            th scope="row" { (moment(facts, run.began)) }
            td data-label="What" { (run.verb) @if !run.flows.is_empty() { " of " (run.flows.join(", ")) } }
            td.outcome data-label="Ended" { (outcome(run.outcome)) }
            td.n data-label="Took" { data value=(format!("{:.3}", run.seconds)) { (duration(run.seconds)) } }
            td data-label="Did" {
                (did)
                @if !run.errors.is_empty() {
                    ul.errors {
                        @for error in &run.errors { li { (error) } }
                        @if run.more_errors > 0 { li { "and " (count(run.more_errors as u64)) " more" } }
                    }
                }
                @if !run.warnings.is_empty() {
                    ul.warnings { @for warning in &run.warnings { li { (warning) } } }
                }
            }
        }
    }
}

fn outcome(outcome: Outcome) -> Markup {
    let (class, text) = match outcome {
        Outcome::Done => ("good", "done"),
        Outcome::Partial => ("bad", "partial"),
        Outcome::Failed => ("bad", "failed"),
        Outcome::Interrupted => ("attention", "interrupted"),
        Outcome::Damage => ("bad", "damage"),
    };
    html! { span.tag.(class) { (text) } }
}

fn maybe_moment(facts: &Facts, at: Option<Timestamp>) -> Markup {
    at.map_or_else(|| html! { "not known" }, |at| moment(facts, at))
}

/// When, and how long that was before the page: who reads it later could make nothing of that alone.
fn ago(facts: &Facts, at: Timestamp) -> Markup {
    let age = facts.made.duration_since(at).as_secs();
    html! { (moment(facts, at)) @if age >= 0 { " " span.quiet { "(" (output::ago(age)) " before)" } } }
}

fn maybe_ago(facts: &Facts, at: Option<Timestamp>, none: &str) -> Markup {
    at.map_or_else(|| html! { (none) }, |at| ago(facts, at))
}

fn duration(seconds: f64) -> String {
    if seconds < 90.0 { format!("{seconds:.1} s") } else { format!("{:.0} min", seconds / 60.0) }
}

/// A path as a word of a shell's command.
pub(super) fn shell_word(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    crate::output::shell_word(&path.to_string_lossy())
}
