//! What the facts come to, in a sentence, and what needs attention.

use cdrvault_engine::config::NotifyOn;
use cdrvault_engine::report::Outcome;
use cdrvault_format::partition::Partition;

use super::facts::Facts;
use super::finding::{Finding, Level, Verdict};
use super::flows::State;
use crate::output;

/// Without `--max-age`, somebody should look when the last good run is older: most pipelines run each night.
const STALE: i64 = 2 * 86_400;

/// So many days are named in one finding.
const MOST_DAYS: usize = 5;

struct Findings<'a> {
    called: &'a str,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, level: Level, text: impl Into<String>, todo: &str, verb: Option<&str>) {
        let command = verb.map(|verb| {
            let (verb, flags) =
                verb.split_once(' ').map_or((verb, String::new()), |(verb, more)| (verb, format!(" {more}")));
            format!("cdrvault {verb} {}{flags}", self.called)
        });
        self.found.push(Finding { level, text: text.into(), todo: todo.to_owned(), command });
    }
}

/// What the facts come to. `min_free` is the room that the pipeline leaves free.
pub(super) fn of(facts: &Facts, min_free: u64) -> Verdict {
    let mut findings = Findings { called: &facts.called, found: Vec::new() };
    sinks(facts, min_free, &mut findings);
    runs(facts, &mut findings);
    days(facts, &mut findings);
    pruning(facts, &mut findings);
    let nothing = facts.status.saves_nothing();
    if nothing {
        findings.add(Level::Bad, "Nothing is saved yet.", "Run it for the first time.", Some("run"));
    }
    let mut findings = findings.found;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let level = findings.first().map_or(Level::Good, |finding| finding.level);
    let text = match level {
        Level::Good | Level::Note => "Everything is saved everywhere.",
        Level::Attention => "Everything that must be saved is; something needs attention.",
        Level::Bad if nothing => "Nothing is saved yet.",
        Level::Bad => "Something is wrong.",
    };
    Verdict { level, text: text.to_owned(), findings }
}

fn sinks(facts: &Facts, min_free: u64, findings: &mut Findings<'_>) {
    let weight = |optional: bool| if optional { Level::Attention } else { Level::Bad };
    for sink in &facts.status.sinks {
        let name = &sink.name;
        if let Some(error) = &sink.error {
            findings.add(
                weight(sink.optional),
                format!("The sink {name} cannot be read: {error}. What it holds is not known."),
                "Bring it back, then see whether everything works again:",
                Some("validate --connect"),
            );
        }
        if let Some(free) = sink.free.filter(|free| *free < min_free) {
            findings.add(
                Level::Bad,
                format!(
                    "Only {} are free at the sink {name}; a run leaves {} free, and stops there.",
                    output::size(free),
                    output::size(min_free)
                ),
                "Make room there, or keep fewer old versions (`keep`).",
                None,
            );
        }
        damaged(facts, name, sink.damage, findings);
        match &sink.verified {
            None if sink.error.is_none() => findings.add(
                Level::Note,
                format!("The sink {name} was never read again to see whether it is whole."),
                "Once a month is a good habit:",
                Some("verify"),
            ),
            _ => {}
        }
    }
    let nowhere = facts.status.damage.iter().filter(|damage| damage.sink.is_empty()).count() as u64;
    damaged(facts, "", nowhere, findings);
    for dataset in facts.status.datasets.iter().filter(|dataset| dataset.behind > 0) {
        let since = dataset.behind_since.map(|at| output::ago(facts.made.duration_since(at).as_secs()));
        findings.add(
            weight(dataset.optional),
            format!(
                "{} of {} {} not yet in the sink {}{}.",
                output::plural(dataset.behind, "partition"),
                dataset.name,
                if dataset.behind == 1 { "is" } else { "are" },
                dataset.sink,
                since.map_or_else(String::new, |since| format!(", for {since}")),
            ),
            "The next run delivers what is missing, if the sink can be written to:",
            Some("run"),
        );
    }
}

/// What `verify` found in a sink and is not mended, by its name.
fn damaged(facts: &Facts, sink: &str, count: u64, findings: &mut Findings<'_>) {
    if count == 0 {
        return;
    }
    let of_sink: Vec<_> = facts.status.damage.iter().filter(|damage| damage.sink == sink).collect();
    let named: Vec<String> = of_sink.iter().map(|damage| damage.name()).collect();
    let when = of_sink.iter().map(|damage| damage.found).max();
    let when =
        when.map_or_else(String::new, |at| format!(" on {}", at.to_zoned(facts.clock.clone()).strftime("%F %H:%M")));
    let place = if sink.is_empty() { "in no sink".to_owned() } else { format!("in the sink {sink}") };
    let what = if named.is_empty() { damages(count) } else { list(&named) };
    findings.add(
        Level::Bad,
        format!("`verify` found{when} what is not mended {place}: {what}."),
        "Repair it from another sink, as far as that can be done, or save the day again from the database with `replay`:",
        Some("verify --repair"),
    );
}

fn runs(facts: &Facts, findings: &mut Findings<'_>) {
    if let Some(last) = facts.runs.iter().find(|run| run.verb != "verify").filter(|last| !last.is_done()) {
        let how = match last.outcome {
            Outcome::Interrupted => "was interrupted",
            Outcome::Partial => "was only partly done",
            Outcome::Done | Outcome::Damage | Outcome::Failed => "failed",
        };
        let first = last.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        findings.add(
            Level::Bad,
            format!("The last run ({}) {how}{first}.", last.verb),
            "Remove the cause; what is missing stays owed, and the next run tries it again:",
            Some("run -v"),
        );
    }
    let known: Vec<&String> = facts.status.sinks.iter().filter_map(|sink| sink.error.as_ref()).collect();
    let mut told = facts.status.saves_nothing();
    let overdue = facts.status.alarms.iter().filter(|alarm| alarm.event == NotifyOn::Overdue && !told);
    let overdue: Vec<&String> = overdue.map(|alarm| &alarm.text).filter(|text| !known.contains(text)).collect();
    for alarm in overdue {
        told = true;
        findings.add(
            Level::Bad,
            format!("{}.", capital(alarm)),
            "See why it does not run (cron, systemd):",
            Some("history"),
        );
    }
    for alarm in facts.status.alarms.iter().filter(|alarm| alarm.event == NotifyOn::Data) {
        findings.add(
            Level::Bad,
            format!("{}.", capital(&alarm.text)),
            "See whether calls are written, and imported, and which clock is wrong; what a run would save:",
            Some("run -n"),
        );
    }
    if let Some(at) = facts.status.last_success.filter(|_| !told) {
        let age = facts.made.duration_since(at).as_secs();
        if age > STALE {
            findings.add(
                Level::Attention,
                format!("No run has gone well for {}: what changed since then is not saved.", output::ago(age)),
                "See whether it still runs (cron, systemd):",
                Some("history"),
            );
        }
    }
    for error in &facts.unreachable {
        findings.add(
            Level::Attention,
            format!("A database does not answer: {error}. What is saved is not affected."),
            "See whether the next run can read it:",
            Some("validate --connect"),
        );
    }
}

fn days(facts: &Facts, findings: &mut Findings<'_>) {
    for flow in &facts.flows {
        let name = &flow.dataset;
        let named =
            |state: State| -> Vec<String> { flow.with(state).map(|saved| partition(saved.partition)).collect() };
        let unreadable = named(State::Unreadable);
        if !unreadable.is_empty() {
            findings.add(
                Level::Bad,
                format!("The receipt of {name} {} cannot be read in any sink.", list(&unreadable)),
                "See what is damaged, and what another sink can repair:",
                Some("verify --repair"),
            );
        }
        let incomplete = named(State::Incomplete);
        if !incomplete.is_empty() {
            findings.add(
                Level::Attention,
                format!("Not everything of {name} {} could be read when it was saved.", list(&incomplete)),
                "See what could not be read, and let cdrvault read it:",
                Some("history --last 1 --json"),
            );
        }
        let shrunk = named(State::Shrunk);
        if let Some(first) = shrunk.first() {
            let first =
                flow.with(State::Shrunk).next().map_or_else(|| first.clone(), |saved| saved.partition.to_string());
            findings.add(
                Level::Attention,
                format!(
                    "{name} {} lost rows or files; what was saved before is pinned, and is never pruned.",
                    list(&shrunk)
                ),
                "See whether that was meant. If it was, release the old version:",
                Some(&format!("prune --release {first}")),
            );
        }
        let gone = named(State::Gone);
        if !gone.is_empty() {
            findings.add(
                Level::Note,
                format!("The database has no rows of {name} {} any more; what is saved of it stays.", list(&gone)),
                "If they were not removed on purpose, they can be restored.",
                None,
            );
        }
        if !flow.missing.is_empty() {
            let days: Vec<String> = flow.missing.iter().map(ToString::to_string).collect();
            findings.add(
                Level::Note,
                format!("Nothing is saved of {name} {}, between days that are.", list(&days)),
                "A day without calls is as it should be. See what a run would save:",
                Some("run -n"),
            );
        }
    }
}

fn pruning(facts: &Facts, findings: &mut Findings<'_>) {
    let look = "See what would go, and why:";
    if let Some(error) = &facts.prune_error {
        findings.add(
            Level::Attention,
            format!("It is not known what would be pruned: {error}."),
            look,
            Some("prune -n"),
        );
    }
    for failure in &facts.prune.failures {
        let known = facts.status.sinks.iter().any(|sink| sink.name == failure.of && sink.error.is_some());
        if !known {
            let text = format!("It is not known what would be pruned in {}: {}.", failure.of, failure.message);
            findings.add(Level::Attention, text, look, Some("prune -n"));
        }
    }
    for sink in &facts.prune.sinks {
        if let Some(why) = &sink.needs_yes {
            let text = format!("The sink {} is not pruned until somebody confirms it: {why}.", sink.sink);
            findings.add(Level::Attention, text, look, Some("prune -n"));
        }
    }
}

/// A partition for readers who never heard of Hive.
pub(super) fn partition(partition: Partition) -> String {
    match partition {
        Partition::Day(day) => day.to_string(),
        Partition::Undated => "without a date".to_owned(),
        Partition::Snapshot => "snapshot".to_owned(),
    }
}

fn damages(number: u64) -> String {
    if number == 1 { "1 damage".to_owned() } else { format!("damage in {} places", output::count(number)) }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn list(days: &[String]) -> String {
    match days.get(MOST_DAYS..) {
        None | Some([]) => days.join(", "),
        Some(more) => format!("{} and {} more", days[..MOST_DAYS].join(", "), more.len()),
    }
}
