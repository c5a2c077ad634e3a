//! How a plan is made: candidates from the sources, verdicts from the transforms, gaps between the sinks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use super::plan::{Copy, Plan};
use super::sweep;
use crate::opened::{OpenFlow, Opened};
use crate::options::{Replay, RunOptions};
use crate::report::Failure;
use crate::state::State;
use cdrvault_format::error::{At as _, Kind, Result};
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_format::tripwire::Tripwire;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Held, Vault};
use cdrvault_plugin::stage::{Ask, Candidate, Evidence, Transform, Verdict};

/// A plan, and what making it has found out.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// Flows and sinks that could not be asked.
    pub(super) failures: Vec<Failure>,
    pub(super) warnings: Vec<String>,
    /// The sweeps that were made, by flow.
    pub(super) sweeps: BTreeMap<String, Swept>,
}

/// A sweep of one flow.
pub(super) struct Swept {
    pub(super) started: Timestamp,
    pub(super) days: BTreeSet<Date>,
}

/// Makes the plan of a run. It changes nothing.
pub(super) async fn plan(cx: &Context, opened: &Opened, state: &State, options: &RunOptions) -> Result<Planned> {
    let mut planned = Planned::default();
    for flow in &opened.flows {
        cx.check()?;
        match plan_flow(cx, opened, flow, state, options, &mut planned).await.at(format!("flow `{}`", flow.name)) {
            Ok(()) => {}
            Err(error) if error.kind() == cdrvault_format::error::Kind::Interrupted => return Err(error),
            Err(error) => planned.failures.push(Failure::of(&flow.name, &error)),
        }
    }
    if let Some(replay) = &options.replay
        && planned.plan.tasks.is_empty()
        && planned.failures.is_empty()
    {
        planned.warnings.push(match replay.days {
            Some(days) => format!("the database has no day in {days}"),
            None => "the database has no rows without a date".to_owned(),
        });
    }
    Ok(planned)
}

async fn plan_flow(
    cx: &Context,
    opened: &Opened,
    flow: &OpenFlow,
    state: &State,
    options: &RunOptions,
    planned: &mut Planned,
) -> Result<()> {
    let Ok(source) = &flow.source else { return Ok(()) };
    let holdings = Holdings::of(cx, opened, flow, planned).await;
    // Where nothing is known of what is saved, every day would seem to be missing.
    if holdings.sinks.is_empty() {
        return Ok(());
    }
    let mut ask = Ask::default();
    let own = state.flows.get(&flow.name);
    let is_table = opened.spec(flow).source.database().is_some();
    let mut swept = None;
    if let Some(Replay { days, .. }) = &options.replay {
        // Rows without a date are listed with everything alone.
        ask.listing = Some(days.unwrap_or(DayRange::ALL));
    } else if let (Some(detection), true) = (flow.detection, is_table) {
        ask.events = flow.events;
        let may_register =
            matches!(&opened.sessions[flow.session].session, Ok((_, found)) if found.without_events.is_none());
        let would_register = options.dry_run && detection.events && !flow.events && may_register;
        let first = flow.registered_now || would_register;
        let started = Timestamp::now();
        let fresh = crate::state::FlowState::default();
        let own = own.unwrap_or(&fresh);
        // Events alone miss what was open when they began, or what happened while nobody knew of it.
        let needed = sweep::is_full(own, started).then_some(sweep::NEEDED);
        if let (Some(sweep), false) = (detection.tripwire.or(needed), first) {
            let saved = holdings.days();
            let today = cx.writer.today();
            ask.tripwire = sweep::due(sweep, !flow.events, own, &saved, started, today);
            swept = ask.tripwire.is_some().then(|| Swept { started, days: BTreeSet::new() });
        }
        // Walking over the days costs little, and finds those that neither an event nor a vault knows of.
        ask.listing = (swept.is_some() || first).then_some(DayRange::ALL);
    } else {
        ask.listing = Some(DayRange::ALL);
    }
    let mut candidates = source.discover(cx, &ask).await?;
    if let Some(replay) = &options.replay {
        candidates.retain(|candidate| replay.means(candidate.partition));
        for candidate in candidates {
            // Only to tell how much it is: a damaged receipt is what a replay mends.
            let live = holdings.newest(cx, candidate.partition).await.unwrap_or_default();
            planned.plan.want(
                Unit::new(&flow.name, candidate.partition),
                "replay".to_owned(),
                live.as_ref().map(|live| live.rows),
                live.as_ref().map(|live| live.bytes()),
            );
        }
        return Ok(());
    }
    if !flow.events && is_table {
        for partition in own.map(|own| own.owed.clone()).unwrap_or_default() {
            candidates.push(Candidate { partition, evidence: vec![Evidence::Debt] });
        }
    }
    if let Some(swept) = &mut swept {
        add_vanished(&mut candidates, &holdings, opened.spec(flow).source.since());
        swept.days = candidates.iter().filter(|c| has_sums(c)).filter_map(|c| c.partition.day()).collect();
    }
    let again = swept.is_some() && own.is_some_and(|own| own.again);
    for candidate in &candidates {
        judge(cx, opened, flow, &holdings, candidate, &mut planned.plan).await?;
        // Equal sums prove nothing here. What has no rows any more is kept, as after any other loss.
        if again && has_rows(candidate) {
            let unit = Unit::new(&flow.name, candidate.partition);
            planned.plan.want(unit, "its database is not as the last run left it".to_owned(), None, None);
        }
    }
    if let Some(swept) = swept {
        planned.sweeps.insert(flow.name.clone(), swept);
    }
    holdings.fill_gaps(cx, flow, &mut planned.plan).await
}

/// Asks the transforms whether a candidate has to be read, by what the sink that is furthest has of it. What the others
/// lack is copied from there.
async fn judge(
    cx: &Context,
    opened: &Opened,
    flow: &OpenFlow,
    holdings: &Holdings<'_>,
    candidate: &Candidate,
    plan: &mut Plan,
) -> Result<()> {
    let unit = Unit::new(&flow.name, candidate.partition);
    let transforms = &opened.spec(flow).transforms;
    let live = match holdings.newest(cx, candidate.partition).await {
        Ok(live) => live,
        Err(error) if error.kind() == Kind::Interrupted => return Err(error),
        // One damaged receipt must not stop the other days.
        Err(error) => {
            plan.want(unit, format!("what is saved cannot be known: {}", error.one_line()), None, None);
            return Ok(());
        }
    };
    match verdict(transforms, candidate, live.as_deref()) {
        Verdict::Export(reason) => {
            let swept = candidate.evidence.iter().find_map(|evidence| match evidence {
                Evidence::Tripwire { now, .. } => Some(now),
                _ => None,
            });
            let rows = swept.map(|now| now.rows).or(live.as_ref().map(|live| live.rows));
            plan.want(unit.clone(), reason, rows, live.as_ref().map(|live| live.bytes()));
            if let Some(now) = swept {
                plan.note_swept(&unit, now);
            }
        }
        Verdict::Gone => plan.gone.push(unit),
        Verdict::Skip => {}
    }
    Ok(())
}

fn verdict(transforms: &[Arc<dyn Transform>], candidate: &Candidate, live: Option<&Manifest>) -> Verdict {
    let first = transforms.iter().find_map(|transform| transform.selects(candidate, live));
    first.unwrap_or_else(|| Verdict::Export("every run exports everything: the flow has no `incremental`".to_owned()))
}

fn has_sums(candidate: &Candidate) -> bool {
    candidate.evidence.iter().any(|evidence| matches!(evidence, Evidence::Tripwire { .. }))
}

fn has_rows(candidate: &Candidate) -> bool {
    candidate.evidence.iter().any(|evidence| matches!(evidence, Evidence::Tripwire { now, .. } if now.rows > 0))
}

/// What is saved and not found in the database has no rows there.
fn add_vanished(candidates: &mut Vec<Candidate>, holdings: &Holdings<'_>, since: Option<Date>) {
    let found: BTreeSet<Partition> = candidates.iter().map(|candidate| candidate.partition).collect();
    for partition in holdings.partitions() {
        let is_saved = partition.day().is_none_or(|day| since.is_none_or(|since| since <= day));
        if !found.contains(&partition) && is_saved {
            let evidence = Evidence::Tripwire { now: Tripwire::default(), default_weights: Vec::new() };
            candidates.push(Candidate { partition, evidence: vec![evidence] });
        }
    }
}

/// What the sinks of a flow hold, from names alone.
struct Holdings<'a> {
    dataset: String,
    sinks: Vec<Holding<'a>>,
}

struct Holding<'a> {
    name: &'a str,
    /// The sink that it mirrors, from which alone it can be filled.
    mirrors: Option<&'a str>,
    sink: &'a Arc<dyn Vault>,
    held: BTreeMap<Partition, Held>,
}

impl<'a> Holdings<'a> {
    async fn of(cx: &Context, opened: &'a Opened, flow: &OpenFlow, planned: &mut Planned) -> Holdings<'a> {
        let mut sinks = Vec::new();
        for (_, open, sink) in opened.sinks_of(flow) {
            match sink.index(cx, &flow.name).await {
                Ok(held) => {
                    let mirrors = open.mirrors.map(|index| opened.sinks[index].name.as_str());
                    sinks.push(Holding { name: &open.name, mirrors, sink, held });
                }
                Err(error) => planned.failures.push(Failure::of(&open.name, &error).counting(!open.optional)),
            }
        }
        Holdings { dataset: flow.name.clone(), sinks }
    }

    fn partitions(&self) -> BTreeSet<Partition> {
        self.sinks.iter().flat_map(|holding| holding.held.keys().copied()).collect()
    }

    fn days(&self) -> Vec<Date> {
        self.partitions().into_iter().filter_map(Partition::day).collect()
    }

    /// The newest receipt that any sink has of a partition.
    async fn newest(&self, cx: &Context, partition: Partition) -> Result<Option<Arc<Manifest>>> {
        let held = |holding: &Holding<'_>| holding.held.get(&partition).map_or(0, |held| held.generation);
        let Some(newest) = self.sinks.iter().map(held).max().filter(|newest| *newest > 0) else { return Ok(None) };
        let unit = Unit::new(&self.dataset, partition);
        let mut failed = None;
        for holding in self.sinks.iter().filter(|holding| held(holding) == newest) {
            match holding.sink.manifest(cx, &unit, newest).await {
                Ok(manifest) => return Ok(Some(Arc::new(manifest))),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// What one sink has and another lacks is copied; what none has any more is exported.
    async fn fill_gaps(&self, cx: &Context, flow: &OpenFlow, plan: &mut Plan) -> Result<()> {
        for partition in self.partitions() {
            let unit = Unit::new(&flow.name, partition);
            if plan.exports(&unit) {
                continue;
            }
            let of = |holding: &Holding<'_>| holding.held.get(&partition).copied();
            let newest = self.sinks.iter().filter_map(of).map(|held| held.generation).max().unwrap_or(0);
            let has =
                |holding: &&Holding<'_>| of(holding).is_some_and(|held| held.generation == newest && held.object_there);
            let from: Vec<String> = self.sinks.iter().filter(has).map(|holding| holding.name.to_owned()).collect();
            if from.is_empty() {
                let live = self.newest(cx, partition).await.unwrap_or_default();
                let (rows, bytes) = (live.as_ref().map(|live| live.rows), live.as_ref().map(|live| live.bytes()));
                plan.want(unit, "the stored object is missing".to_owned(), rows, bytes);
                continue;
            }
            let mut lacking: Vec<&Holding<'_>> = self.sinks.iter().filter(|holding| !has(holding)).collect();
            lacking.sort_by_key(|to| to.mirrors.is_some());
            for to in lacking {
                plan.copies.push(Copy {
                    unit: unit.clone(),
                    generation: newest,
                    from: to.mirrors.map_or_else(|| from.clone(), |mirrored| vec![mirrored.to_owned()]),
                    to: to.name.to_owned(),
                    first: of(to).is_none(),
                });
            }
        }
        Ok(())
    }
}
