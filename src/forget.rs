//! `forget`: takes the rows of a removed flow or a retired host out of the application's list of jobs.

use std::collections::BTreeSet;

use cdrvault_engine::config::Pipeline;
use cdrvault_engine::opening;
use cdrvault_engine::options::RunOptions;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::progress::Quiet;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, session};

/// Unregister a removed flow or a retired host.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// The removed flow; without it, every flow of the writer.
    #[arg(value_name = "FLOW", required_unless_present = "writer")]
    flow: Option<String>,
    /// The retired writer, as `forget -n` and the receipts name it; without it, this host.
    #[arg(long, value_name = "HEX")]
    writer: Option<String>,
    /// Print what would be removed; change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const AFTER_HELP: &str = "\
The application announces changed days to every row in its list of jobs, for ever. What is saved is not touched: a vault keeps
the days of a removed flow.

Examples:
  cdrvault forget asterisell old_flow                 # after its table was taken out of the pipeline file
  cdrvault forget asterisell --writer 1a2b3c4d -n     # a host that was replaced";

/// What `--json` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    /// The rows that went, or would go.
    rows: Vec<String>,
    removed: bool,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    let shown = session::runtime()?.block_on(async {
        let cx = session::context(&pipeline, std::sync::Arc::new(Quiet))?;
        let own = args.writer.as_deref().is_none_or(|writer| writer == cx.writer.id);
        let alive = pipeline.flows.iter().find(|flow| args.flow.as_ref().is_none_or(|name| *name == flow.name));
        if let (true, Some(flow)) = (own, alive) {
            let message = format!("the flow `{}` is in the pipeline file, and this host runs it", flow.name);
            let error = Error::new(Kind::Refused, message);
            return Err(error.hint("remove its table from the file first, or name another writer by --writer"));
        }
        let options = RunOptions { dry_run: args.dry_run, wait_lock: globals.wait_lock, ..RunOptions::default() };
        let _lock = opening::lock(&cx, &pipeline, &options).await?;
        let rows = forget(&cx, &pipeline, args).await?;
        Ok(Shown { rows, removed: !args.dry_run })
    })?;
    if globals.json {
        output::json(&shown)?;
    } else if shown.rows.is_empty() {
        output::text("there are no such rows\n");
    } else {
        output::text(&(shown.rows.join("\n") + "\n"));
        if shown.removed && !globals.quiet {
            output::note(&format!("{} rows removed", shown.rows.len()));
        }
    }
    Ok(Exit::Done)
}

async fn forget(cx: &Context, pipeline: &Pipeline, args: &Args) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for database in &pipeline.databases {
        if !seen.insert(database.build.identity()) {
            continue;
        }
        let session = database.build.build()?;
        session.open(cx, &[], args.dry_run).await?;
        let work = async {
            let names: Vec<String> =
                session.job_names(cx).await?.into_iter().filter(|name| meant(name, cx, args)).collect();
            if !args.dry_run && !names.is_empty() {
                let needs = "the account needs DELETE on both tables of the application's list: see `docs/running.md`";
                session.forget_jobs(cx, &names).await.map_err(|error| error.hint(needs))?;
            }
            Ok::<_, Error>(names)
        };
        let done = work.await;
        session.close().await;
        rows.extend(done?);
    }
    Ok(rows)
}

/// `cdrvault/PIPELINE/WRITER/FLOW/inbox`, and the same with `debt`; where all of a writer's go, its `.../WRITER/mark` as well.
fn meant(name: &str, cx: &Context, args: &Args) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let (pipeline, writer, flow) = match parts[..] {
        ["cdrvault", pipeline, writer, flow, "inbox" | "debt"] => (pipeline, writer, Some(flow)),
        ["cdrvault", pipeline, writer, "mark"] => (pipeline, writer, None),
        _ => return false,
    };
    let wanted = args.writer.as_deref().unwrap_or(&cx.writer.id);
    pipeline == cx.writer.pipeline && writer == wanted && args.flow.as_deref().is_none_or(|name| flow == Some(name))
}
