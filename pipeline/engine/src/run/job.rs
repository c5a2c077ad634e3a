//! One run, from its locks to its report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::group::{Group, GroupResult, Member, Shop};
use super::mirroring::Mirroring;
use super::plan::Plan;
use super::planning::{self, Planned};
use super::spool::Spool;
use super::{catch_up, marks};
use crate::config::Pipeline;
use crate::history::{self, Line};
use crate::opened::Opened;
use crate::options::RunOptions;
use crate::prune::PrunePlan;
use crate::report::{Failure, Report, UnitReport, UnitResult};
use crate::state::{Applied, State};
use crate::survey::{Survey, survey};
use crate::verified::{self, Verified};
use crate::{opened, opening, prune, report};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::lock;
use cdrvault_plugin::progress::by_dataset;

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// What it was to do.
    pub plan: Plan,
    /// What became of it.
    pub report: Report,
    /// What the sinks hold now, where [`RunOptions::survey`] asked for it and every flow was in work.
    pub survey: Option<Survey>,
}

/// The main job, under the lock of [`opening::lock`]. An error means that nothing was begun; everything after that is in the
/// report.
pub async fn run(
    cx: &Context,
    pipeline: Arc<Pipeline>,
    options: &RunOptions,
    _lock: Option<lock::Guard>,
) -> Result<Ran> {
    let mut report = Report::begin();
    if options.dry_run {
        return work(cx, pipeline, options, report).await;
    }
    let directory = pipeline.state.clone();
    let done = work(cx, Arc::clone(&pipeline), options, report.clone()).await;
    if let Err(error) = &done
        && !matches!(error.kind(), Kind::Locked | Kind::Interrupted)
    {
        report.failures.push(Failure::of(&pipeline.name, error));
        report.end(false);
        remember_run(&directory, options, &mut report);
    }
    done
}

async fn work(cx: &Context, pipeline: Arc<Pipeline>, options: &RunOptions, mut report: Report) -> Result<Ran> {
    let directory = pipeline.state.clone();
    let loaded = State::load(&directory)?;
    let dry_run = options.dry_run;
    let (flows, state) = (&options.flows, loaded.as_ref());
    opening::check_owner(cx, state, &directory, options.adopt_vault)?;
    let opening = Opened::open(cx, Arc::clone(&pipeline), flows, state, dry_run, !dry_run, options.adopt_vault);
    let mut opened = opening.await?;
    let mut state = loaded.unwrap_or_default();
    report.warnings.extend(marks::recognise(&opened, &mut state)?);
    if !options.dry_run {
        state.pipeline = Some(cx.writer.pipeline.clone());
        for sink in &opened.sinks {
            if let (Some(identity), Ok(true)) = (&sink.identity, sink.sink.as_ref().map(|sink| sink.is_made())) {
                state.vaults.insert(sink.name.clone(), identity.vault.clone());
            }
        }
        let usable = opened.flows.iter().any(|flow| !opened.sinks_of(flow).is_empty());
        if usable {
            opened.register(cx, &mut state).await?;
            state.save(&directory)?;
        }
    }
    report_opening(&opened, &mut report);
    let planned = planning::plan(cx, &opened, &state, options).await;
    let Planned { plan, failures, warnings, sweeps } = match planned {
        Ok(planned) => planned,
        Err(error) => {
            opened.close().await;
            return Err(error);
        }
    };
    report.failures.extend(failures);
    report.warnings.extend(warnings);
    if options.dry_run {
        opened.close().await;
        report.end(false);
        return Ok(Ran { plan, report, survey: None });
    }

    explain(&opened, &plan);
    cx.progress.planned(&by_dataset(plan.tasks.iter().map(|task| &task.unit)));
    let mut spool = Spool::open(opened.spool_root(&directory), pipeline.min_free.as_u64())?;
    spool.eras = eras(&pipeline, &state);
    let planned_units: BTreeSet<Unit> = plan.tasks.iter().map(|task| task.unit.clone()).collect();
    spool.tidy(|unit| planned_units.contains(unit))?;
    owe(&opened, &plan, &mut state, &directory)?;
    // Before anything is claimed: what a run takes of an earlier or another database must not look like the last one's.
    if !plan.tasks.is_empty() || marks::is_due(&opened, &state) {
        mark(cx, &opened, &mut state, &directory).await;
    }

    let groups = groups(&opened, &plan);
    let shop = Arc::new(Shop { cx: cx.clone(), opened, spool, replay: options.replay });
    let work = |group: Group| {
        let shop = Arc::clone(&shop);
        // A task of its own: decoding and fingerprints need both cores.
        async move { tokio::spawn(async move { shop.work(&group).await }).await }
    };
    // Dumps and files come before calls: an older mark of what was imported means a call twice at worst, a newer one a
    // call that is lost.
    let (first, then): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.partition == Partition::Snapshot);
    let workers = pipeline.workers.max(1);
    let mut working =
        stream::iter(first).map(work).buffered(workers).chain(stream::iter(then).map(work).buffered(workers));
    let mut settled = BTreeSet::new();
    let mut mirroring = Mirroring::new(&shop);
    while let Some(done) = working.next().await {
        match done {
            Ok(GroupResult { units, warnings, settled: now, awaiting }) => {
                units.iter().for_each(told);
                report.units.extend(units);
                report.warnings.extend(warnings);
                settled.extend(now);
                mirroring.awaiting.extend(awaiting);
                // A vault that is still being filled is not mirrored halfway.
                if plan.copies.is_empty() {
                    settled.extend(mirroring.flush_if_due(&mut report).await);
                }
            }
            Err(died) => {
                let error = Error::failed("a day's work stopped unexpectedly; it stays owed").with_source(died);
                report.failures.push(Failure::of("run", &error));
            }
        }
    }
    drop(working);
    let interrupted = cx.cancel.is_cancelled();
    if interrupted {
        report.units.retain(|unit| !matches!(&unit.result, UnitResult::Failed { error } if error.interrupted));
    }
    let (caught_up, failures) = catch_up::run(&shop, &plan.copies).await;
    report.caught_up = caught_up;
    report.failures.extend(failures);
    if !interrupted {
        note_gone(&shop, &plan, &mut report).await;
        record(&shop, &mut report).await;
        settled.extend(mirroring.flush(&mut report).await);
    }
    // It may have come since.
    let interrupted = interrupted || report.was_interrupted();
    report.failures.retain(|failure| !failure.interrupted);
    remember(&mut state, &shop.opened, &report, &settled, sweeps, interrupted);
    if let Err(error) = state.save(&directory) {
        report.warnings.push(format!("{}; the next run sweeps in full", error.one_line()));
    }
    // After everything was read: what the database loses from here on, this mark goes with.
    if !plan.tasks.is_empty() && !interrupted {
        mark(cx, &shop.opened, &mut state, &directory).await;
    }
    if let Err(error) = verified::settle(cx, &shop.opened, &report, &directory).await {
        report.warnings.push(format!("what `verify` found stays noted: {}", error.one_line()));
    }
    report.end(interrupted);
    if report.outcome == report::Outcome::Done {
        prune(cx, &shop.opened, &mut state, &directory, &mut report).await;
    }
    // A run that is asked to stop does not wait for it, and what it finds out is not part of the work.
    let all = options.flows.is_empty() && shop.opened.flows.iter().all(|flow| flow.source.is_ok());
    let looking = options.survey && !interrupted && all;
    let survey = match Verified::load(&directory) {
        Ok(verified) if looking => survey(cx, &shop.opened, &verified).await.ok(),
        _ => None,
    };
    shop.opened.close().await;
    remember_run(&directory, options, &mut report);
    Ok(Ran { plan, report, survey })
}

/// Adds the run to the history. That it cannot be remembered does not make it fail.
fn remember_run(directory: &Path, options: &RunOptions, report: &mut Report) {
    let verb = if options.replay.is_some() { "replay" } else { "run" };
    let line = Line { verb: verb.to_owned(), flows: options.flows.clone(), report: report.clone(), verified: None };
    if let Err(error) = history::append(directory, &line) {
        report.warnings.push(error.one_line());
    }
}

/// What is fully delivered is pruned. That a version stays too long never makes a backup fail.
async fn prune(cx: &Context, opened: &Opened, state: &mut State, directory: &Path, report: &mut Report) {
    let pruning = async {
        let plan = prune::plan(cx, opened, state, Timestamp::now()).await?;
        let mut pruned = prune::execute(cx, opened, &plan, false, state).await?;
        pruned.waiting = told_once(opened, &plan, pruned.waiting, state);
        state.save(directory)?;
        Ok::<_, Error>(pruned)
    };
    match pruning.await {
        Ok(pruned) => {
            report.warnings.extend(pruned.waiting);
            report.warnings.extend(pruned.failures.into_iter().map(|failure| {
                let todo = failure.hint.map(|hint| format!(". To do: {hint}")).unwrap_or_default();
                format!("sink `{}` is not pruned: {}{todo}", failure.of, failure.message)
            }));
            report.pruned = pruned.removed;
        }
        Err(error) if error.kind() == Kind::Interrupted => report.outcome = report::Outcome::Interrupted,
        Err(error) => report.warnings.push(error.one_line()),
    }
}

/// That somebody has to say yes is told once for each `keep`; the report and `prune -n` go on telling it.
fn told_once(opened: &Opened, plan: &PrunePlan, waiting: Vec<String>, state: &mut State) -> Vec<String> {
    let keep = |sink: &str| opened.sinks.iter().find(|open| open.name == sink && open.sink.is_ok())?.keep;
    let asking = plan.sinks.iter().filter(|planned| planned.needs_yes.is_some());
    let asking: BTreeMap<String, Applied> =
        asking.filter_map(|planned| Some((planned.sink.clone(), keep(&planned.sink)?.into()))).collect();
    let new = waiting.into_iter().zip(plan.sinks.iter().filter(|planned| asking.contains_key(&planned.sink)));
    let new = new.filter(|(_, planned)| state.waiting.get(&planned.sink) != asking.get(&planned.sink));
    let new = new.map(|(message, _)| message).collect();
    state.waiting = asking;
    new
}

/// What is worked with, and what is to be done, for those who want to know how (`-vv`).
fn explain(opened: &Opened, plan: &Plan) {
    for open in opened.sessions.iter().filter(|open| open.session.is_ok()) {
        if let Some(database) = &open.database {
            tracing::debug!("database {database} is {}", open.identity);
        }
    }
    for open in &opened.sinks {
        if let (Ok(sink), Some(identity)) = (&open.sink, &open.identity) {
            tracing::debug!("sink {} is the vault {} in {}", open.name, identity.vault, sink.describe());
        }
    }
    for flow in opened.flows.iter().filter(|flow| flow.source.is_ok()) {
        let told = if flow.events { "is told of changes" } else { "finds changes by itself" };
        tracing::debug!("flow {} {told}", flow.name);
    }
    for task in &plan.tasks {
        tracing::debug!("{} is read: {}", task.unit, task.reasons.join(", "));
    }
    for unit in &plan.gone {
        tracing::debug!("{unit} has no rows any more");
    }
    for copy in &plan.copies {
        tracing::debug!(
            "{} g{:04} is copied to {} from {}",
            copy.unit,
            copy.generation,
            copy.to,
            copy.from.join(" or ")
        );
    }
}

/// What became of a unit, for those who want to know what was done (`-vv`).
fn told(unit: &UnitReport) {
    match &unit.result {
        UnitResult::Published { generation, rows, bytes, sinks, .. } => {
            let sinks = sinks.join(", ");
            tracing::debug!("{}: g{generation:04} is in {sinks} ({rows} rows, {bytes} bytes)", unit.unit);
        }
        UnitResult::Unchanged => tracing::debug!("{}: unchanged", unit.unit),
        UnitResult::Gone => tracing::debug!("{}: gone", unit.unit),
        UnitResult::Failed { error } => tracing::debug!("{}: failed: {}", unit.unit, error.message),
    }
}

/// What could not be opened fails once, however many flows it concerns.
fn report_opening(opened: &Opened, report: &mut Report) {
    let mut told: Vec<Arc<Error>> = Vec::new();
    for flow in &opened.flows {
        if let Err(error) = &flow.source
            && !told.iter().any(|other| Arc::ptr_eq(other, error))
        {
            report.failures.push(Failure::of(&flow.name, error));
            told.push(Arc::clone(error));
        }
    }
    for open in opened.sinks.iter().filter(|open| open.used) {
        if let Err(error) = &open.sink {
            report.failures.push(Failure::of(&open.name, error).counting(!open.optional));
        }
    }
    report.warnings.extend(opened.warnings.iter().cloned());
    for session in &opened.sessions {
        if let Ok((_, found)) = &session.session
            && let Some(offset) = found.clock_offset.filter(|offset| offset.abs() > opened::CLOCK_TOLERANCE)
        {
            report.warnings.push(format!("the clock of {} is {offset} s ahead of ours", session.identity));
        }
    }
}

fn groups(opened: &Opened, plan: &Plan) -> Vec<Group> {
    let mut groups = Vec::new();
    for (partition, tasks) in plan.by_partition() {
        let mut by_session: BTreeMap<usize, Vec<Member>> = BTreeMap::new();
        for task in tasks {
            let Some(flow) = opened.flows.iter().position(|flow| flow.name == task.unit.dataset) else { continue };
            by_session.entry(opened.flows[flow].session).or_default().push(Member {
                flow,
                reasons: task.reasons.clone(),
                swept: task.swept.clone(),
            });
        }
        groups.extend(by_session.into_values().map(|members| Group { partition, members }));
    }
    groups
}

/// The debt of flows that have no rows of their own in the database, written down before the work begins.
fn owe(opened: &Opened, plan: &Plan, state: &mut State, directory: &Path) -> Result<()> {
    let mut changed = false;
    for task in &plan.tasks {
        let without_rows = opened.flows.iter().any(|flow| flow.name == task.unit.dataset && !flow.events);
        if without_rows && task.unit.partition.day().is_some() {
            changed |= state.flow(&task.unit.dataset).owed.insert(task.unit.partition);
        }
    }
    if changed { state.save(directory) } else { Ok(()) }
}

/// A mark that cannot be set costs no more than that the next run may not notice what became of the database.
async fn mark(cx: &Context, opened: &Opened, state: &mut State, directory: &Path) {
    if let Err(error) = marks::renew(cx, opened, state, directory).await {
        tracing::info!("the database could not be marked for the next run to know it again: {}", error.one_line());
    }
}

fn eras(pipeline: &Pipeline, state: &State) -> BTreeMap<String, u64> {
    let era = |flow: &crate::config::FlowSpec| {
        let database = flow.source.database()?;
        Some((flow.name.clone(), state.databases.get(database.name())?.era))
    };
    pipeline.flows.iter().filter_map(era).collect()
}

/// Days that the database lost without a word: noted once, in every sink that holds them.
async fn note_gone(shop: &Shop, plan: &Plan, report: &mut Report) {
    let mut gone: BTreeMap<&str, BTreeSet<Partition>> = BTreeMap::new();
    for unit in &plan.gone {
        let Some(flow) = shop.opened.flows.iter().find(|flow| flow.name == unit.dataset) else { continue };
        let mut new = false;
        let mut sinks = shop.opened.sinks_of(flow);
        // A mirror has the notes of its vault, which are sent again when they changed.
        sinks.sort_by_key(|(_, open, _)| open.mirrors.is_some());
        for (_, open, sink) in sinks {
            let again = open.mirrors.is_some() && new;
            let noting = async {
                let mut notes = sink.notes(&shop.cx, unit).await?;
                if notes.gone.is_some() && !again {
                    return Ok(false);
                }
                notes.gone = Some(Timestamp::now());
                sink.put_notes(&shop.cx, unit, &notes).await.map(|()| true)
            };
            match noting.await {
                Ok(noted) => new |= noted,
                Err(error) => report.failures.push(Failure::of(&open.name, &error).counting(!open.optional)),
            }
        }
        if new {
            gone.entry(&unit.dataset).or_default().insert(unit.partition);
            report.units.push(UnitReport {
                unit: unit.clone(),
                reasons: vec!["the sweep found no rows".to_owned()],
                result: UnitResult::Gone,
                notices: Vec::new(),
            });
        }
    }
    // An application that purges a year would fill a mail with its days.
    for (flow, partitions) in gone {
        report.warnings.push(match (partitions.first(), partitions.last(), partitions.len()) {
            (Some(first), Some(last), days) if days > 1 => format!(
                "{days} partitions of {flow}, from {first} to {last}, are no longer in the database; what is saved of them stays"
            ),
            (first, ..) => {
                let first = first.map(ToString::to_string).unwrap_or_default();
                format!("{flow} {first} is no longer in the database; what is saved of it stays")
            }
        });
    }
}

/// The vaults remember which receipts they must have. What is published after this is added by the next run.
async fn record(shop: &Shop, report: &mut Report) {
    for flow in &shop.opened.flows {
        for (_, open, sink) in shop.opened.sinks_of(flow) {
            if let Err(error) = sink.record(&shop.cx, &flow.name).await {
                report.warnings.push(format!(
                    "sink `{}`: the index of its receipts is not up to date: {}",
                    open.name,
                    error.one_line()
                ));
            }
        }
    }
}

/// What the next run has to know.
fn remember(
    state: &mut State,
    opened: &Opened,
    report: &Report,
    settled: &BTreeSet<Unit>,
    sweeps: BTreeMap<String, planning::Swept>,
    interrupted: bool,
) {
    for open in opened.sinks.iter().filter(|open| open.used && open.keep.is_none()) {
        state.kept.insert(open.name.clone(), None);
    }
    let today = jiff::Zoned::now().date();
    for flow in &opened.flows {
        let own = state.flow(&flow.name);
        for unit in settled.iter().filter(|unit| unit.dataset == flow.name) {
            own.owed.remove(&unit.partition);
            if let Some(day) = unit.partition.day() {
                own.checked.insert(day, today);
            }
        }
        if flow.source.is_err() || interrupted {
            continue;
        }
        if let Some(swept) = sweeps.get(&flow.name) {
            let failed: BTreeSet<_> = report
                .units
                .iter()
                .filter(|unit| unit.unit.dataset == flow.name)
                .filter(|unit| matches!(unit.result, report::UnitResult::Failed { .. }))
                .filter_map(|unit| unit.unit.partition.day())
                .collect();
            own.swept = Some(swept.started);
            own.checked.extend(swept.days.iter().filter(|day| !failed.contains(day)).map(|day| (*day, today)));
            if own.full_until.is_some_and(|until| until < swept.started) {
                own.full_until = None;
            }
            // A day that failed before it was claimed is owed nowhere.
            let failed = |unit: &UnitReport| matches!(unit.result, UnitResult::Failed { .. });
            own.again &= report.units.iter().any(|unit| unit.unit.dataset == flow.name && failed(unit));
        } else if flow.registered_now {
            own.swept = None;
        }
    }
}
