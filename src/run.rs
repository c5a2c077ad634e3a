//! `run`: the main job.

use std::path::Path;
use std::sync::Arc;

use cdrvault_engine::config::{NotifyOn, Pipeline, Watch};
use cdrvault_engine::history;
use cdrvault_engine::opening;
use cdrvault_engine::options::RunOptions;
use cdrvault_engine::report::{Outcome, Report, UnitResult};
use cdrvault_engine::run::{Plan, Ran};
use cdrvault_engine::verified::Verified;
use cdrvault_format::error::{Error, Kind};
use cdrvault_format::partition::Unit;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::notice::Level;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::summary::summary;
use crate::{metrics, notify, output, progress, session, status};

/// Save what changed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault run asterisell          # from cron\n  cdrvault run ./pipeline.toml -n  # what would be done, and why"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// Only this flow; may be given more than once.
    #[arg(long, value_name = "FLOW")]
    flow: Vec<String>,
    /// Print what would be done, and why; change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Take over a vault that another writer wrote, or make one where one is missing.
    #[arg(long)]
    adopt_vault: bool,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let options = RunOptions {
        flows: args.flow.clone(),
        dry_run: args.dry_run,
        replay: None,
        adopt_vault: args.adopt_vault,
        survey: false,
        wait_lock: globals.wait_lock,
    };
    execute(args.pipeline.as_deref(), options, globals)
}

/// What `run` and `replay` share.
pub(crate) fn execute(name: Option<&str>, options: RunOptions, globals: &Globals) -> Result<Exit, Failure> {
    let pipeline = session::load(name, globals)?;
    let options = RunOptions { survey: pipeline.metrics.is_some(), ..options };
    let runtime = session::runtime()?;
    let done = runtime.block_on(async {
        let cx = session::context(&pipeline, progress::of_run(globals))?;
        if options.dry_run {
            return cdrvault_engine::run::run(&cx, Arc::clone(&pipeline), &options, None).await;
        }
        watched(&cx, &pipeline, &options, globals).await
    });
    // A blocking thread that nobody waits for must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match done {
        Ok(Ran { plan, report, .. }) if options.dry_run => {
            show_plan(&plan, &report, globals)?;
            Ok(exit(&report))
        }
        Ok(Ran { plan, report, .. }) => {
            let left = options.replay.is_some().then(|| not_replayed(&plan, &report));
            show(&report, left.as_deref(), globals)?;
            Ok(exit(&report))
        }
        Err(error) if error.kind() == Kind::Locked && !output::on_terminal() && is_young(&error) => {
            Err(Failure::LockedQuietly)
        }
        Err(error) => Err(error.into()),
    }
}

/// A run that those hear of who want to: `[notify]` and `[metrics]`.
async fn watched(
    cx: &Context,
    pipeline: &Arc<Pipeline>,
    options: &RunOptions,
    globals: &Globals,
) -> Result<Ran, Error> {
    #[derive(Serialize)]
    struct Nothing {}
    #[derive(Serialize)]
    struct Alarms<'a> {
        alarms: &'a [String],
    }
    #[derive(Serialize)]
    struct Details<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        report: Option<&'a Report>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    let done = match opening::lock(cx, pipeline, options).await {
        Ok(lock) => {
            // The run does not wait until its beginning has been announced.
            let telling = notify::tell(pipeline, NotifyOn::Start, "a run begins", &Nothing {}, globals);
            tokio::join!(telling, cdrvault_engine::run::run(cx, Arc::clone(pipeline), options, lock)).1
        }
        Err(error) => Err(error),
    };
    let (event, text, details) = match &done {
        // That run tells how it went.
        Err(error) if error.kind() == Kind::Locked => return done,
        Err(error) => {
            let text = error.one_line();
            (NotifyOn::Failure, text.clone(), Details { report: None, error: Some(text) })
        }
        Ok(ran) => {
            let event = match ran.report.outcome {
                Outcome::Done => NotifyOn::Success,
                Outcome::Partial => NotifyOn::Partial,
                Outcome::Failed | Outcome::Interrupted | Outcome::Damage => NotifyOn::Failure,
            };
            (event, summary(&ran.report), Details { report: Some(&ran.report), error: None })
        }
    };
    if let Some(path) = &pipeline.metrics
        && let Err(error) = measure(cx, pipeline, path, done.as_ref().ok()).await
    {
        output::warning(globals, &error.one_line());
    }
    // Pings have no more than two states: while damage stands, a run that goes well must not end the alarm.
    let data = if done.is_ok() { watch(cx, pipeline, globals).await } else { Vec::new() };
    let standing: Vec<String> = standing(pipeline, globals).into_iter().chain(data.iter().cloned()).collect();
    let (pinged, text) = match standing.first() {
        Some(_) if event == NotifyOn::Success => (NotifyOn::Damage, format!("{text}; {}", standing.join("; "))),
        _ => (event, text),
    };
    notify::tell_and_ping(pipeline, event, Some(pinged), &text, &details, globals).await;
    if let Some(first) = data.first() {
        notify::tell_and_ping(pipeline, NotifyOn::Data, None, first, &Alarms { alarms: &data }, globals).await;
    }
    done
}

/// What `[watch]` finds in the data, as the run left it.
async fn watch(cx: &Context, pipeline: &Arc<Pipeline>, globals: &Globals) -> Vec<String> {
    if pipeline.notify.is_none() || pipeline.watch.is_empty() {
        return Vec::new();
    }
    match status::look(cx, pipeline, &pipeline.watch).await {
        Ok((_, alarms)) => alarms,
        Err(error) => {
            output::warning(globals, &format!("what `[watch]` asks for is not known: {}", error.one_line()));
            Vec::new()
        }
    }
}

/// What `verify` found and is not mended.
fn standing(pipeline: &Pipeline, globals: &Globals) -> Option<String> {
    let verified = Verified::load(&pipeline.state)
        .inspect_err(|error| output::warning(globals, &error.one_line()))
        .unwrap_or_default();
    let sinks = pipeline.sinks.iter().map(|sink| sink.name.as_str());
    let texts: Vec<String> =
        sinks.filter_map(|sink| status::damaged(sink, verified.damage(sink), &verified.open)).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Writes the metrics, after a run that failed as well.
pub(crate) async fn measure(
    cx: &Context,
    pipeline: &Arc<Pipeline>,
    path: &Path,
    ran: Option<&Ran>,
) -> Result<(), Error> {
    let runs = history::read(&pipeline.state, history::MANY)?;
    let looked = match ran.and_then(|ran| ran.survey.as_ref()) {
        Some(_) => None,
        // The run could not look; the sinks may still be there.
        None => status::look(cx, pipeline, &Watch::default()).await.ok().map(|(survey, _)| survey),
    };
    let survey = ran.and_then(|ran| ran.survey.as_ref()).or(looked.as_ref());
    metrics::write(path, pipeline, &runs, survey)
}

/// Whether another run of this host is in progress, and for less than a day: one that takes longer has hung, and cron's mail
/// should say so. So it should of a lock in the database alone, which a copy of this host holds, or a dead connection.
fn is_young(error: &Error) -> bool {
    cdrvault_plugin::lock::held_since(error)
        .is_some_and(|since| jiff::Timestamp::now().duration_since(since) < jiff::SignedDuration::from_hours(24))
}

fn exit(report: &Report) -> Exit {
    match report.outcome {
        Outcome::Done => Exit::Done,
        Outcome::Partial => Exit::Partial,
        Outcome::Failed => Exit::Failed,
        Outcome::Interrupted => Exit::Interrupted,
        Outcome::Damage => Exit::Damage,
    }
}

fn show_plan(plan: &Plan, report: &Report, globals: &Globals) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Shown<'a> {
        plan: &'a Plan,
        failures: Vec<&'a cdrvault_engine::report::Failure>,
        warnings: &'a [String],
    }
    if globals.json {
        output::json(&Shown { plan, failures: report.all_failures(), warnings: &report.warnings })?;
        return Ok(());
    }
    complain(report, None, globals);
    let mut rows = Vec::new();
    for task in &plan.tasks {
        rows.push(vec![
            task.unit.dataset.clone(),
            task.unit.partition.to_string(),
            "export".to_owned(),
            task.rows.map(output::count).unwrap_or_default(),
            task.bytes.map(output::size).unwrap_or_default(),
            task.reasons.join(", "),
        ]);
    }
    for unit in &plan.gone {
        let reason = "the database has no rows any more; what is saved stays".to_owned();
        rows.push(vec![
            unit.dataset.clone(),
            unit.partition.to_string(),
            "note".to_owned(),
            String::new(),
            String::new(),
            reason,
        ]);
    }
    for copy in &plan.copies {
        rows.push(vec![
            copy.unit.dataset.clone(),
            copy.unit.partition.to_string(),
            "copy".to_owned(),
            String::new(),
            String::new(),
            format!("{} lacks generation {}, {} has it", copy.to, copy.generation, copy.from.join(" or ")),
        ]);
    }
    if rows.is_empty() {
        output::text("nothing to do\n");
    } else {
        output::text(&output::table(&["FLOW", "PARTITION", "DO", "ROWS", "SAVED", "WHY"], rows, &[3, 4]));
    }
    Ok(())
}

fn show(report: &Report, not_replayed: Option<&[&Unit]>, globals: &Globals) -> Result<(), Failure> {
    if globals.json {
        output::event("report", report)?;
        return Ok(());
    }
    complain(report, not_replayed, globals);
    let wanted = globals.verbose > 0 || (output::on_terminal() && !globals.quiet);
    if wanted && report.outcome == Outcome::Done {
        output::note(&summary(report));
    }
    Ok(())
}

/// More errors than these help nobody.
const MOST_MESSAGES: usize = 20;

/// What went wrong, what was delivered, what happens next.
fn complain(report: &Report, not_replayed: Option<&[&Unit]>, globals: &Globals) {
    for warning in &report.warnings {
        output::warning(globals, warning);
    }
    for unit in &report.units {
        let told = unit.notices.iter().filter(|notice| notice.level != Level::Note);
        let more = told.clone().count().saturating_sub(MOST_MESSAGES);
        for notice in told.take(MOST_MESSAGES) {
            let message = format!("{}: {}", unit.unit, notice.message);
            match notice.level {
                Level::Problem => output::error(globals, &message, None),
                Level::Note | Level::Warning => output::warning(globals, &message),
            }
        }
        if more > 0 {
            output::note(&format!("{}: and {more} more; `cdrvault history --json` has them", unit.unit));
        }
    }
    // What the last line says need not stand right above it, too.
    let in_last_line = report.outcome != Outcome::Interrupted && hints(report).len() == 1;
    // A sink that is away, and a table that is gone, fail for each day in the same words.
    let failures = report.grouped_failures();
    let more = failures.len().saturating_sub(MOST_MESSAGES);
    for failure in failures.iter().take(MOST_MESSAGES) {
        let message = if failure.message.starts_with(&failure.of) {
            failure.message.clone()
        } else {
            format!("{}: {}", failure.of, failure.message)
        };
        if failure.counts {
            output::error(globals, &message, failure.hint.as_deref().filter(|_| !in_last_line));
        } else {
            output::warning(globals, &format!("{message} (optional; it catches up later)"));
        }
    }
    if more > 0 {
        output::note(&format!("and {more} more; `cdrvault history --json` has all of them"));
    }
    if let Some(line) = last_line(report, not_replayed) {
        output::note(&line);
    }
}

/// What the failures that count say is to be done, each once.
fn hints(report: &Report) -> Vec<&str> {
    let mut hints: Vec<&str> = Vec::new();
    for failure in report.all_failures().into_iter().filter(|failure| failure.counts) {
        hints.extend(failure.hint.as_deref().filter(|hint| !hints.contains(hint)));
    }
    hints
}

/// The end of a run that did not go well: what failed, what was delivered, what happens next, and what to do.
fn last_line(report: &Report, not_replayed: Option<&[&Unit]>) -> Option<String> {
    let (how, next) = match report.outcome {
        Outcome::Done | Outcome::Damage => return None,
        Outcome::Partial => ("partly done", "What is missing stays owed: the next run tries it again"),
        Outcome::Failed => ("failed", "What is missing stays owed: the next run tries it again"),
        Outcome::Interrupted => ("interrupted", "The next run goes on where this one stopped"),
    };
    let interrupted = report.outcome == Outcome::Interrupted;
    let next = not_replayed.filter(|_| interrupted).map_or_else(|| next.to_owned(), go_on);
    let failed = report.units.iter().filter(|unit| matches!(unit.result, UnitResult::Failed { .. }));
    let failed: Vec<String> = failed.map(|unit| unit.unit.to_string()).collect();
    let failed = match failed.as_slice() {
        [] => String::new(),
        few @ ([_] | [_, _] | [_, _, _]) => format!(" (not saved: {})", few.join(", ")),
        [first, second, rest @ ..] => format!(" (not saved: {first}, {second} and {} more)", rest.len()),
    };
    let todo = match hints(report).as_slice() {
        [hint] if report.outcome != Outcome::Interrupted => format!(". To do: {hint}"),
        [_, _, ..] if report.outcome != Outcome::Interrupted => ". To do: what each message above says".to_owned(),
        _ => String::new(),
    };
    Some(format!("{how}: {}{failed}. {next}{todo}.", summary(report)))
}

/// What of a replay was not exported again.
fn not_replayed<'a>(plan: &'a Plan, report: &Report) -> Vec<&'a Unit> {
    let is_done = |unit: &&Unit| {
        let of_unit = report.units.iter().find(|done| done.unit == **unit);
        of_unit.is_some_and(|done| match &done.result {
            UnitResult::Published { missing, .. } => !missing.iter().any(|failure| failure.counts),
            UnitResult::Unchanged | UnitResult::Gone => true,
            UnitResult::Failed { .. } => false,
        })
    };
    let mut left: Vec<&Unit> = plan.tasks.iter().map(|task| &task.unit).filter(|unit| !is_done(unit)).collect();
    left.sort_by_key(|unit| (unit.partition, &unit.dataset));
    left
}

/// How a replay goes on. A run takes only what changed, and what a sink lacks: that something was to be exported once more
/// is known to nobody but who asked for it.
fn go_on(left: &[&Unit]) -> String {
    match left {
        [] => "Every day was exported again; the next run does the rest".to_owned(),
        [only] => format!("{only} was not exported again, and a run may not do it: replay it once more"),
        [first, .., last] => format!(
            "{} were not exported again, from {first} to {last}, and a run may not do it: replay them once more; what has \
             the same bytes is not published twice, unless you say --force",
            output::plural(left.len() as u64, "partition")
        ),
    }
}
