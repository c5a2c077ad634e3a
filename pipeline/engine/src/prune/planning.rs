//! Superseded versions go when no rule keeps them any more. First a plan, with the reason for each version; then its
//! execution. The live generation, a pinned one and the last verified copy are never touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Keep;
use crate::opened::{CLOCK_TOLERANCE, Opened};
use crate::report::Failure;
use crate::state::{Applied, State};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::Notes;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::Vault;

/// More than half of so many versions at once is asked about.
const MANY: usize = 50;

/// What pruning would do, by sink.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PrunePlan {
    /// The sinks that have a `keep`; in what is shown to people, also those that have none.
    pub sinks: Vec<SinkPlan>,
    /// Sinks that could not be asked.
    pub failures: Vec<Failure>,
}

/// What pruning would do in one sink.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SinkPlan {
    /// Its name.
    pub sink: String,
    /// Every superseded version, in order.
    pub versions: Vec<Version>,
    /// The place keeps history itself, and drops what was replaced before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_before: Option<Timestamp>,
    /// Why somebody has to say yes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_yes: Option<String>,
}

/// One superseded version in one sink.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Version {
    /// Of what.
    #[serde(flatten)]
    pub unit: Unit,
    /// Which one.
    pub generation: u32,
    /// When its successor was received there.
    pub superseded: Option<Timestamp>,
    /// Whether it goes.
    pub remove: bool,
    /// Why.
    pub reason: String,
}

impl SinkPlan {
    /// The versions that go.
    pub fn removals(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter().filter(|version| version.remove)
    }
}

/// An error when a clock is wrong: then every age is.
pub(crate) fn check_clocks(opened: &Opened) -> Result<()> {
    let of_sessions = opened.sessions.iter().filter_map(|open| {
        let (_, found) = open.session.as_ref().ok()?;
        Some((open.identity.clone(), found.clock_offset?))
    });
    let of_sinks = opened.sinks.iter().filter_map(|open| {
        let sink = open.sink.as_ref().ok()?;
        Some((sink.describe(), sink.clock_offset()?))
    });
    match of_sessions.chain(of_sinks).find(|(_, offset)| offset.abs() > CLOCK_TOLERANCE) {
        None => Ok(()),
        Some((place, offset)) => Err(wrong_clock(&format!("the clock of {place} is {offset} s ahead of ours"))),
    }
}

fn wrong_clock(why: &str) -> Error {
    Error::new(Kind::Refused, format!("nothing is pruned: {why}"))
        .hint("set the clocks; with a wrong one, versions that should stay would seem old")
}

/// Makes the plan. It changes nothing.
pub async fn plan(cx: &Context, opened: &Opened, state: &State, now: Timestamp) -> Result<PrunePlan> {
    check_clocks(opened)?;
    let mut plan = PrunePlan::default();
    for open in opened.sinks.iter().filter(|open| open.used) {
        let Some(keep) = open.keep else { continue };
        let sink = match &open.sink {
            Ok(sink) => sink,
            Err(error) => {
                plan.failures.push(Failure::of(&open.name, error).counting(!open.optional));
                continue;
            }
        };
        match plan_sink(cx, opened, sink, &open.name, keep, state, now).await {
            Ok((sink, damaged)) => {
                plan.sinks.push(sink);
                plan.failures.extend(damaged.iter().map(|e| Failure::of(&open.name, e).counting(!open.optional)));
            }
            Err(error) if matches!(error.kind(), Kind::Interrupted | Kind::Refused) => return Err(error),
            Err(error) => plan.failures.push(Failure::of(&open.name, &error).counting(!open.optional)),
        }
    }
    Ok(plan)
}

/// The superseded versions in the sinks that have no `keep`, all of which stay: for users, who would take them for lost
/// otherwise.
pub async fn kept_whole(cx: &Context, opened: &Opened) -> Result<PrunePlan> {
    let mut plan = PrunePlan::default();
    for open in opened.sinks.iter().filter(|open| open.used && open.keep.is_none()) {
        let kept = match &open.sink {
            Ok(sink) if sink.capabilities().native_history => continue,
            Ok(sink) => versions_of(cx, opened, sink, &open.name).await,
            Err(error) => Err(error.copied()),
        };
        match kept {
            Ok(versions) => {
                let sink = open.name.clone();
                plan.sinks.push(SinkPlan { sink, versions, history_before: None, needs_yes: None });
            }
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => plan.failures.push(Failure::of(&open.name, &error).counting(!open.optional)),
        }
    }
    Ok(plan)
}

async fn versions_of(cx: &Context, opened: &Opened, sink: &Arc<dyn Vault>, name: &str) -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    for flow in &opened.flows {
        if !opened.spec(flow).sinks.iter().any(|index| opened.sinks[*index].name == name) {
            continue;
        }
        for (partition, generations) in sink.history(cx, &flow.name).await? {
            for pair in generations.windows(2) {
                cx.check()?;
                let unit = Unit::new(&flow.name, partition);
                let successor = sink.manifest(cx, &unit, pair[1]).await.ok();
                versions.push(Version {
                    unit,
                    generation: pair[0],
                    superseded: successor.and_then(|successor| successor.received),
                    remove: false,
                    reason: "the sink has no `keep`".to_owned(),
                });
            }
        }
    }
    Ok(versions)
}

async fn plan_sink(
    cx: &Context,
    opened: &Opened,
    sink: &Arc<dyn Vault>,
    name: &str,
    keep: Keep,
    state: &State,
    now: Timestamp,
) -> Result<(SinkPlan, Vec<Error>)> {
    let mut damaged = Vec::new();
    let mut planned = SinkPlan { sink: name.to_owned(), versions: Vec::new(), history_before: None, needs_yes: None };
    let applied = Applied::from(keep);
    if sink.capabilities().native_history {
        if let Some(limit) = applied.superseded {
            let limit = now.checked_sub(std::time::Duration::from_secs(limit)).unwrap_or(Timestamp::MIN);
            planned.history_before = oldest_needed(cx, opened, sink, name).await?.into_iter().chain([limit]).min();
        }
    } else {
        let lacking = Lacking::of(cx, opened, name).await?;
        for flow in &opened.flows {
            if !opened.spec(flow).sinks.iter().any(|index| opened.sinks[*index].name == name) {
                continue;
            }
            for (partition, generations) in sink.history(cx, &flow.name).await? {
                cx.check()?;
                let unit = Unit::new(&flow.name, partition);
                let mut versions = judge(cx, sink, &unit, &generations, applied, now, &mut damaged).await?;
                lacking.hold_back(&mut versions);
                planned.versions.extend(versions);
            }
        }
    }
    let removed = planned.removals().count();
    if removed * 2 > planned.versions.len() && planned.versions.len() >= MANY {
        planned.needs_yes = Some(format!("it would remove {removed} of {} versions", planned.versions.len()));
    } else if removed > 0 || planned.history_before.is_some() {
        planned.needs_yes = match state.kept.get(name) {
            Some(Some(before)) if applied.shorter_than(*before) => Some("its `keep` got shorter".to_owned()),
            Some(None) => Some("it had no `keep` until now, and kept everything".to_owned()),
            _ => None,
        };
    }
    Ok((planned, damaged))
}

/// When the oldest version was live that is pinned, or was the last to be verified, in a place with a history of its own.
async fn oldest_needed(cx: &Context, opened: &Opened, sink: &Arc<dyn Vault>, name: &str) -> Result<Option<Timestamp>> {
    let mut oldest: Option<Timestamp> = None;
    for flow in &opened.flows {
        if !opened.spec(flow).sinks.iter().any(|index| opened.sinks[*index].name == name) {
            continue;
        }
        for (partition, generations) in sink.history(cx, &flow.name).await? {
            let unit = Unit::new(&flow.name, partition);
            let notes = sink.notes(cx, &unit).await?;
            // It is pinned before its successor is published.
            let mut times: Vec<Timestamp> = notes.pins.iter().map(|pin| pin.since).collect();
            let verified = notes.verified.map(|verified| verified.generation);
            if let Some(verified) = verified.filter(|verified| generations.last() != Some(verified)) {
                match sink.manifest(cx, &unit, verified).await {
                    Ok(manifest) => times.extend(manifest.received),
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            // A state of the same second may have been made just after that.
            let before = times.into_iter().filter_map(|at| at.checked_sub(std::time::Duration::from_secs(1)).ok());
            oldest = before.chain(oldest).min();
        }
    }
    Ok(oldest)
}

/// What the mirrors of a sink have: versions that they still need travel from it, and stay until they have.
struct Lacking(Vec<BTreeMap<Unit, u32>>);

impl Lacking {
    async fn of(cx: &Context, opened: &Opened, name: &str) -> Result<Self> {
        let mut mirrors = Vec::new();
        for open in &opened.sinks {
            if !open.used || open.mirrors.is_none_or(|index| opened.sinks[index].name != name) {
                continue;
            }
            let sink = open.sink.as_ref().map_err(|_| {
                Error::failed(format!("its mirror `{}` cannot be asked which versions it still needs", open.name))
            })?;
            if sink.capabilities().native_history {
                continue;
            }
            let mut highest = BTreeMap::new();
            for flow in &opened.flows {
                if opened.spec(flow).sinks.iter().any(|index| opened.sinks[*index].name == open.name) {
                    for (partition, generations) in sink.history(cx, &flow.name).await? {
                        highest.insert(Unit::new(&flow.name, partition), generations.last().copied().unwrap_or(0));
                    }
                    // A dataset of which it has nothing yet needs everything.
                    highest.entry(Unit::new(&flow.name, Partition::Snapshot)).or_insert(0);
                }
            }
            mirrors.push(highest);
        }
        Ok(Self(mirrors))
    }

    fn hold_back(&self, versions: &mut [Version]) {
        for version in versions.iter_mut().filter(|version| version.remove) {
            let listed = |mirror: &&BTreeMap<Unit, u32>| {
                mirror.contains_key(&Unit::new(&version.unit.dataset, Partition::Snapshot))
            };
            let lacks =
                |mirror: &BTreeMap<Unit, u32>| mirror.get(&version.unit).is_none_or(|has| *has <= version.generation);
            if self.0.iter().filter(listed).any(lacks) {
                version.remove = false;
                version.reason.push_str(", and a mirror still needs it");
            }
        }
    }
}

/// The superseded versions of one unit. `generations` is in order; the last is live. What a damaged receipt would tell the
/// time of stays, and the others are judged all the same.
async fn judge(
    cx: &Context,
    sink: &Arc<dyn Vault>,
    unit: &Unit,
    generations: &[u32],
    keep: Applied,
    now: Timestamp,
    damaged: &mut Vec<Error>,
) -> Result<Vec<Version>> {
    if generations.len() < 2 {
        return Ok(Vec::new());
    }
    let notes = sink.notes(cx, unit).await?;
    let mut versions = Vec::new();
    for (index, pair) in generations.windows(2).enumerate() {
        let superseded = match sink.manifest(cx, unit, pair[1]).await {
            Ok(successor) => successor.received,
            Err(error) if error.kind() == Kind::Damaged => {
                damaged.push(error);
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(received) = superseded.filter(|at| at.duration_since(now).as_secs() > CLOCK_TOLERANCE) {
            let received = received.to_zoned(cx.writer.timezone.clone()).strftime("%F %T %Z");
            return Err(wrong_clock(&format!("{unit} was received at {received}, which is in the future")));
        }
        let newer = generations.len() - 2 - index;
        let (remove, reason) = verdict(pair[0], newer, superseded, &notes, keep, now);
        versions.push(Version { unit: unit.clone(), generation: pair[0], superseded, remove, reason });
    }
    Ok(versions)
}

/// Whether a version goes, and why. `newer` superseded versions of the unit are newer than this one.
fn verdict(
    generation: u32,
    newer: usize,
    superseded: Option<Timestamp>,
    notes: &Notes,
    keep: Applied,
    now: Timestamp,
) -> (bool, String) {
    if let Some(pin) = notes.pins.iter().find(|pin| pin.generation == generation) {
        return (false, format!("pinned: {}", pin.reason));
    }
    if notes.verified.as_ref().is_some_and(|verified| verified.generation == generation) {
        return (false, "it is the last copy that was verified".to_owned());
    }
    if let Some(last) = keep.last
        && newer < last as usize
    {
        return (false, format!("one of the last {last}"));
    }
    let Some(superseded) = superseded else {
        return (false, "it is not known when it was replaced".to_owned());
    };
    let age = now.duration_since(superseded).as_secs();
    let days = |seconds: i64| format!("{:.1} days", seconds as f64 / 86_400.0);
    match keep.superseded {
        Some(limit) if age < i64::try_from(limit).unwrap_or(i64::MAX) => (false, format!("replaced {} ago", days(age))),
        _ => (true, format!("replaced {} ago", days(age))),
    }
}

/// Releases the pins of a partition in every sink; how many there were.
pub async fn release(cx: &Context, opened: &Opened, partition: Partition) -> Result<u64> {
    let mut released = 0;
    for flow in &opened.flows {
        let unit = Unit::new(&flow.name, partition);
        let (mirrors, vaults): (Vec<_>, Vec<_>) =
            opened.sinks_of(flow).into_iter().partition(|(_, open, _)| open.mirrors.is_some());
        let mut changed = Vec::new();
        for (index, _, sink) in vaults {
            let notes = sink.notes(cx, &unit).await?;
            if !notes.pins.is_empty() {
                released += notes.pins.len() as u64;
                sink.put_notes(cx, &unit, &Notes { pins: Vec::new(), ..notes }).await?;
                changed.push(index);
            }
        }
        // A mirror has the notes of its vault, which travel with the next transfer.
        for (_, open, sink) in mirrors {
            if open.mirrors.is_some_and(|vault| changed.contains(&vault)) {
                let notes = sink.notes(cx, &unit).await?;
                sink.put_notes(cx, &unit, &notes).await?;
            }
        }
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdrvault_format::manifest::{Pin, Verified};

    const DAY: i64 = 86_400;

    fn at(days_ago: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 - days_ago * DAY).unwrap()
    }

    fn goes(generation: u32, newer: usize, days_ago: i64, notes: &Notes, keep: Applied) -> bool {
        verdict(generation, newer, Some(at(days_ago)), notes, keep, at(0)).0
    }

    #[test]
    fn age_counts_from_the_successor_and_either_rule_keeps() {
        let none = Notes::default();
        let month = Applied { superseded: Some(30 * 86_400), last: None };
        assert!(!goes(1, 0, 29, &none, month));
        assert!(goes(1, 0, 30, &none, month));
        let three = Applied { superseded: None, last: Some(3) };
        assert!(!goes(1, 2, 4000, &none, three));
        assert!(goes(1, 3, 0, &none, three));
        let both = Applied { superseded: Some(30 * 86_400), last: Some(1) };
        assert!(!goes(1, 0, 100, &none, both));
        assert!(!goes(1, 5, 1, &none, both));
        assert!(goes(1, 1, 31, &none, both));
    }

    #[test]
    fn pins_and_the_last_verified_copy_stay() {
        let now = Applied { superseded: Some(0), last: None };
        let pinned = Notes {
            pins: vec![Pin { generation: 2, reason: "shrunk".to_owned(), since: at(1) }],
            verified: Some(Verified { generation: 3, at: at(1) }),
            ..Notes::default()
        };
        assert!(goes(1, 0, 1, &pinned, now));
        assert!(!goes(2, 0, 1, &pinned, now));
        assert!(!goes(3, 0, 1, &pinned, now));
        assert!(!verdict(1, 0, None, &Notes::default(), now, at(0)).0, "an unknown age is not an age");
    }

    #[test]
    fn a_rule_that_keeps_less_is_shorter() {
        let rule = |superseded, last| Applied { superseded, last };
        assert!(rule(Some(7), None).shorter_than(rule(Some(30), None)));
        assert!(rule(None, Some(3)).shorter_than(rule(Some(30), Some(3))));
        assert!(!rule(Some(30), Some(3)).shorter_than(rule(Some(30), None)));
        assert!(!rule(Some(31), None).shorter_than(rule(Some(30), None)));
    }
}
