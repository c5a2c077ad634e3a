//! `replay`: a range of days is exported again, changed or not.

use cdrvault_pipeline::engine::options::Replay;
use cdrvault_pipeline::engine::{RunOptions, range_text};
use cdrvault_pipeline::partition::DayRange;
use jiff::civil::Date;

use crate::cli::{Exit, Failure, Globals};
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
    /// The first day.
    #[arg(long, value_name = "DAY", requires = "to", conflicts_with_all = ["day", "month"])]
    from: Option<Date>,
    /// The day after the last one.
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<Date>,
    /// One day.
    #[arg(long, value_name = "DAY", conflicts_with = "month")]
    day: Option<Date>,
    /// One month, as 2026-01.
    #[arg(long, value_name = "MONTH")]
    month: Option<String>,
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
    let days = range(args).map_err(Failure::Usage)?;
    if !globals.json && !globals.quiet && output::on_terminal() {
        output::note(&format!("replaying {}", range_text(days)));
    }
    let options = RunOptions {
        flows: args.flow.clone(),
        dry_run: args.dry_run,
        replay: Some(Replay { days, force: args.force, allow_shrink: args.allow_shrink }),
        adopt_vault: false,
        wait_lock: globals.wait_lock,
    };
    run::execute(args.pipeline.as_deref(), &options, globals)
}

fn range(args: &Args) -> Result<DayRange, String> {
    let after = |day: Date| day.tomorrow().map_err(|_| format!("{day} is the last day there is"));
    match (args.from, args.to, args.day, &args.month) {
        (Some(from), Some(to), None, None) if from < to => Ok(DayRange { from: Some(from), to: Some(to) }),
        (Some(from), Some(to), None, None) => {
            Err(format!("--from {from} --to {to} holds no day: --to is the day after the last one"))
        }
        (None, None, Some(day), None) => Ok(DayRange { from: Some(day), to: Some(after(day)?) }),
        (None, None, None, Some(month)) => {
            let first: Date =
                format!("{month}-01").parse().map_err(|_| format!("`{month}` is no month, as 2026-01"))?;
            Ok(DayRange { from: Some(first), to: Some(after(first.last_of_month())?) })
        }
        _ => Err("say which days: --day D, --month M, or --from D --to D".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn of(line: &str) -> Result<String, String> {
        let parsed = Line::try_parse_from(["replay"].into_iter().chain(line.split_whitespace()));
        range(&parsed.map_err(|error| error.to_string())?.args).map(range_text)
    }

    #[test]
    fn days_are_half_open() {
        assert_eq!(of("p --day 2026-02-28").unwrap(), "2026-02-28 <= day < 2026-03-01");
        assert_eq!(of("p --month 2024-02").unwrap(), "2024-02-01 <= day < 2024-03-01");
        assert_eq!(of("p --from 2026-01-01 --to 2026-01-03").unwrap(), "2026-01-01 <= day < 2026-01-03");
        for wrong in [
            "p",
            "p --from 2026-01-01",
            "p --from 2026-01-02 --to 2026-01-02",
            "p --month 2026-13",
            "p --day 2026-02-30",
            "p --day 2026-01-01 --month 2026-01",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
