//! `replay`: a range of days is exported again, changed or not.

use cdrvault_engine::options::{Replay, RunOptions};

use crate::days::DayArgs;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, run};

/// Export a range of days again, changed or not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault replay asterisell --day 2026-01-15\n  cdrvault replay asterisell --from 2026-01-01 --to 2026-02-01   # January: --to is not included\n  cdrvault replay asterisell --month 2026-01\n  cdrvault replay asterisell --undated"
)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    #[command(flatten)]
    days: DayArgs,
    /// The rows without a date, which `snapshots` lists as __HIVE_DEFAULT_PARTITION__.
    #[arg(long, conflicts_with_all = ["from", "to", "day", "month"])]
    undated: bool,
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
    let days = args.days.range()?;
    if days.is_none() && !args.undated {
        let message = "say which days: --day D, --month M, or --from D --to D; or --undated";
        return Err(Failure::Usage(message.to_owned()));
    }
    if !globals.json && !globals.quiet && output::on_terminal() {
        let what = days.map_or_else(|| "the rows without a date".to_owned(), |days| days.to_string());
        output::note(&format!("replaying {what}"));
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
