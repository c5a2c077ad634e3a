//! `replay`: a range of days is exported again, changed or not.

use cdrvault_pipeline::engine::options::Replay;
use cdrvault_pipeline::engine::{RunOptions, range_text};

use crate::cli::{Exit, Failure, Globals};
use crate::days::DayArgs;
use crate::{output, run};

/// Export a range of days again, changed or not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault replay asterisell --day 2026-01-15\n  cdrvault replay asterisell --from 2026-01-01 --to 2026-02-01   # January: --to is not included\n  cdrvault replay asterisell --month 2026-01"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    #[command(flatten)]
    days: DayArgs,
    /// Only this flow; may be given more than once.
    #[arg(long, value_name = "FLOW")]
    flow: Vec<String>,
    /// Print what would be done; change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Publish also what has the same bytes as what is saved.
    #[arg(long)]
    force: bool,
    /// Publish also days that have lost at least half of their rows.
    #[arg(long)]
    allow_shrink: bool,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let days = args
        .days
        .range()?
        .ok_or_else(|| Failure::Usage("say which days: --day D, --month M, or --from D --to D".to_owned()))?;
    if !globals.json && !globals.quiet && output::on_terminal() {
        output::note(&format!("replaying {}", range_text(days)));
    }
    let options = RunOptions {
        flows: args.flow.clone(),
        dry_run: args.dry_run,
        replay: Some(Replay { days, force: args.force, allow_shrink: args.allow_shrink }),
        adopt_vault: false,
        survey: false,
        wait_lock: globals.wait_lock,
    };
    run::execute(args.pipeline.as_deref(), options, globals)
}
