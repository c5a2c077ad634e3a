//! `history`: the last runs.

use cdrvault_engine::history::{self, Line};
use cdrvault_engine::report::Outcome;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, session, summary};

/// Show the last runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cdrvault history asterisell --last 5")]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// How many runs.
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Shown {
        runs: Vec<Line>,
    }
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    let runs = history::read(&pipeline.state, args.last)?;
    if globals.json {
        output::json(&Shown { runs })?;
        return Ok(Exit::Done);
    }
    if runs.is_empty() {
        output::text("no runs yet\n");
        return Ok(Exit::Done);
    }
    let rows = runs.iter().map(|line| {
        let report = &line.report;
        let outcome = match report.outcome {
            Outcome::Done => "done",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
            Outcome::Interrupted => "interrupted",
            Outcome::Damage => "damage",
        };
        let found = line.verified.iter().flat_map(|verified| verified.findings.iter().cloned());
        let failed = report.all_failures().into_iter().map(|failure| failure.message.clone());
        let first = found.chain(failed).next().unwrap_or_default();
        let began = report.started.to_zoned(pipeline.wall_clock()).strftime("%F %T").to_string();
        vec![began, line.verb.clone(), outcome.to_owned(), summary::did(line), first]
    });
    output::text(&output::table(&["BEGAN", "VERB", "ENDED", "WHAT", "FIRST ERROR"], rows.collect(), &[]));
    Ok(Exit::Done)
}
