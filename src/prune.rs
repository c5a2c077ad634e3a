//! `prune`: removes the superseded versions that no rule keeps.

use cdrvault_engine::opened::Opened;
use cdrvault_engine::opening;
use cdrvault_engine::prune::{self, PrunePlan, Pruned};
use cdrvault_format::error::Result;
use cdrvault_format::partition::Partition;
use cdrvault_plugin::progress::Quiet;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, session};

/// Remove the superseded versions that `keep` no longer keeps.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault prune asterisell -n                   # every version, and why it stays or goes\n  cdrvault prune asterisell\n  cdrvault prune asterisell --release 2026-01-15 # a day that shrank may lose its old version now"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// Only this flow; may be given more than once.
    #[arg(long, value_name = "FLOW")]
    flow: Vec<String>,
    /// Print what would be removed, and why; change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// First release what was pinned of this day, or of `snapshot` (files and dumps); may be given more than once.
    #[arg(long, value_name = "DAY", conflicts_with = "dry_run")]
    release: Vec<Partition>,
    /// Also remove what should be checked first: most of the versions, or by a `keep` that got shorter.
    #[arg(long)]
    yes: bool,
}

/// What `--json` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    plan: PrunePlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    released: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<Pruned>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    let runtime = session::runtime()?;
    let has_rule = pipeline.sinks.iter().any(|sink| sink.keep.is_some());
    let shown = runtime.block_on(async {
        let cx = session::context(&pipeline, std::sync::Arc::new(Quiet))?;
        let (_guard, mut state, opened) =
            opening::open_to_prune(&cx, pipeline.clone(), &args.flow, globals.wait_lock, args.dry_run).await?;
        let done = work(&cx, args, &opened, &mut state).await;
        opened.close().await;
        let shown = done?;
        if !args.dry_run {
            state.save(&pipeline.state)?;
        }
        Ok::<_, Failure>(shown)
    })?;
    if globals.json {
        output::json(&shown)?;
    } else {
        show(&shown, args, globals);
        if !has_rule {
            output::note("no sink has a `keep`: every version stays");
        }
    }
    let failures = shown.pruned.as_ref().map_or(&shown.plan.failures, |pruned| &pruned.failures);
    for failure in failures {
        output::error(globals, &format!("{}: {}", failure.of, failure.message), failure.hint.as_deref());
    }
    let waiting = shown.pruned.as_ref().is_some_and(|pruned| !pruned.waiting.is_empty());
    Ok(if failures.iter().any(|failure| failure.counts) || waiting { Exit::Partial } else { Exit::Done })
}

async fn work(
    cx: &cdrvault_plugin::context::Context,
    args: &Args,
    opened: &Opened,
    state: &mut cdrvault_engine::state::State,
) -> Result<Shown> {
    let mut released = None;
    for partition in &args.release {
        *released.get_or_insert(0) += prune::release(cx, opened, *partition).await?;
    }
    let mut plan = prune::plan(cx, opened, state, Timestamp::now()).await?;
    if args.dry_run {
        let kept = prune::kept_whole(cx, opened).await?;
        plan.sinks.extend(kept.sinks);
        plan.failures.extend(kept.failures);
    }
    let pruned = if args.dry_run { None } else { Some(prune::execute(cx, opened, &plan, args.yes, state).await?) };
    Ok(Shown { plan, released, pruned })
}

fn show(shown: &Shown, args: &Args, globals: &Globals) {
    if args.dry_run {
        let mut rows = Vec::new();
        for sink in &shown.plan.sinks {
            for version in &sink.versions {
                rows.push(vec![
                    sink.sink.clone(),
                    version.unit.to_string(),
                    format!("g{:04}", version.generation),
                    if version.remove { "remove" } else { "keep" }.to_owned(),
                    version.reason.clone(),
                ]);
            }
            if let Some(before) = sink.history_before {
                let age = output::ago(Timestamp::now().duration_since(before).as_secs());
                rows.push(vec![
                    sink.sink.clone(),
                    "its own history".to_owned(),
                    String::new(),
                    "remove".to_owned(),
                    format!("what was replaced more than {age} ago"),
                ]);
            }
        }
        if rows.is_empty() {
            output::text("there is no superseded version\n");
        } else {
            output::text(&output::table(&["SINK", "UNIT", "GENERATION", "FATE", "REASON"], rows, &[]));
        }
        for (sink, why) in shown.plan.sinks.iter().filter_map(|sink| Some((&sink.sink, sink.needs_yes.as_ref()?))) {
            output::warning(globals, &format!("sink `{sink}` needs --yes: {why}"));
        }
    }
    if let Some(released) = shown.released {
        output::note(&format!("{released} pins released"));
    }
    if let Some(pruned) = &shown.pruned {
        for (sink, count) in &pruned.removed {
            output::note(&format!("{sink}: {count} superseded versions removed"));
        }
        for waiting in &pruned.waiting {
            output::warning(globals, waiting);
        }
    }
}
