//! `demo`: a complete example on SQLite and a local directory, with nothing to install.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdrvault_engine::config::{self, Pipeline};
use cdrvault_engine::opening;
use cdrvault_engine::options::{Replay, RunOptions};
use cdrvault_engine::report::{Outcome, Report};
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::DayRange;
use cdrvault_plugin::progress::Quiet;
use jiff::Span;
use jiff::civil::Date;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::generator::{Generator, MONEY_SCALE, Settings, csv, sqlite};
use crate::globals::Globals;
use crate::summary::summary;
use crate::{output, registry, session};

/// Make a complete example and run it: SQLite, a local vault, nothing to install.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cdrvault demo --dir /tmp/try --days 30 --calls-per-day 5000")]
pub(crate) struct Args {
    /// Where to put it; the directory must be new or empty.
    #[arg(long, default_value = "cdrvault-demo")]
    dir: PathBuf,
    /// How many days of calls.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u16).range(3..=3660))]
    days: u16,
    /// Calls of an ordinary working day.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    calls_per_day: u64,
    /// Another seed gives other customers and other calls.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The first day of the example.
const FIRST: Date = Date::constant(2026, 1, 1);

/// What `--json` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    directory: PathBuf,
    rows: u64,
    csv_bytes: u64,
    parquet_bytes: u64,
    first_run: Report,
    after_rerating: Report,
    replay: Report,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    prepare(&args.dir)?;
    let directory = std::path::absolute(&args.dir).map_err(|error| Error::io("find", &args.dir, error))?;
    write_pipeline(&directory)?;
    let pipeline = Arc::new(config::open(&directory.join("pipeline.toml"), &registry())?);
    let runtime = session::runtime()?;
    let shown = runtime.block_on(play(args, directory, pipeline, globals))?;
    if globals.json {
        output::json(&shown)?;
    }
    Ok(Exit::Done)
}

async fn play(args: &Args, directory: PathBuf, pipeline: Arc<Pipeline>, globals: &Globals) -> Result<Shown> {
    let say = |text: String| {
        if !globals.json && !globals.quiet {
            output::text(&(text + "\n"));
        }
    };
    let generator = Generator::new(Settings {
        seed: args.seed,
        calls_per_day: args.calls_per_day,
        start: FIRST,
        ..Settings::default()
    });
    let database = directory.join("billing.sqlite");
    let failed = |error| Error::failed(format!("cannot fill {}", database.display())).with_source(error);
    let mut connection = sqlite::create(&database).await.map_err(failed)?;
    let mut as_csv = csv::Size::default();
    for number in 0..args.days {
        let date = after(FIRST, i64::from(number))?;
        let counted = generator.calls(date).inspect(|rated| {
            if let Some(source) = &rated.source {
                as_csv.add(source);
            }
            as_csv.add(&rated.cdr);
        });
        sqlite::load(&mut connection, counted).await.map_err(failed)?;
    }
    say(format!("1. A billing database with {} days of calls: {}", args.days, database.display()));

    let cx = session::context(&pipeline, Arc::new(Quiet))?;
    let first_run = saved(&cx, &pipeline, &RunOptions::default()).await?;
    say(format!("2. The first run saved every day: {}", summary(&first_run)));

    let rated = after(FIRST, i64::from(args.days / 2))?;
    let again = generator.rerate(&generator.day(rated), 1);
    sqlite::rerate_day(&mut connection, rated, again.cdrs).await.map_err(failed)?;
    let after_rerating = saved(&cx, &pipeline, &RunOptions::default()).await?;
    let names: Vec<String> = after_rerating.units.iter().map(|unit| unit.unit.to_string()).collect();
    say(format!(
        "3. {rated} was rated again; the next run looked at {} and: {}",
        names.join(" and "),
        summary(&after_rerating)
    ));

    let days = DayRange { from: Some(FIRST), to: Some(after(FIRST, 2)?) };
    let options = RunOptions {
        replay: Some(Replay { days: Some(days), force: false, allow_shrink: false }),
        ..RunOptions::default()
    };
    let replay = saved(&cx, &pipeline, &options).await?;
    say(format!("4. A replay of {}: {}", days, summary(&replay)));

    let (_, rows, parquet_bytes) = first_run.published();
    let shown = Shown { rows, csv_bytes: as_csv.bytes(), parquet_bytes, first_run, after_rerating, replay, directory };
    say(closing(&shown, rated));
    Ok(shown)
}

/// A run that must go well: it is our own example.
async fn saved(
    cx: &cdrvault_plugin::context::Context,
    pipeline: &Arc<Pipeline>,
    options: &RunOptions,
) -> Result<Report> {
    let report =
        cdrvault_engine::run::run(cx, Arc::clone(pipeline), options, opening::lock(cx, pipeline, options).await?)
            .await?
            .report;
    if report.outcome == Outcome::Done {
        return Ok(report);
    }
    let first = report.all_failures().first().map(|failure| failure.message.clone());
    Err(Error::failed(first.unwrap_or_else(|| "the run was interrupted".to_owned())))
}

fn closing(shown: &Shown, rated: Date) -> String {
    let directory = shown.directory.display();
    let smaller = shown.csv_bytes as f64 / (shown.parquet_bytes.max(1)) as f64;
    format!(
        "
{} rows are {} as CSV and {} in the vault: {smaller:.1} times smaller, with checksums and the old version of {rated}.

  {directory}/billing.sqlite   the database
  {directory}/pipeline.toml    the pipeline, to read and to change
  {directory}/vault            the vault; any Parquet reader opens its files

Try next:
  cdrvault status {directory}/pipeline.toml
  cdrvault snapshots {directory}/pipeline.toml --day {rated} --all
  cdrvault run {directory}/pipeline.toml -n
  cdrvault verify {directory}/pipeline.toml -v
  cdrvault restore {directory}/pipeline.toml --from-sink vault --day {rated} --into sqlite:{directory}/restored.sqlite
  duckdb -c \"SELECT day, count(*), sum(income) / 10000 FROM '{directory}/vault/ar_cdr/*/*.parquet' GROUP BY day ORDER BY day\"",
        output::count(shown.rows),
        output::size(shown.csv_bytes),
        output::size(shown.parquet_bytes),
    )
}

/// A directory that holds something is somebody's.
fn prepare(directory: &Path) -> Result<()> {
    if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::new(Kind::Refused, format!("{} is not empty", directory.display()))
            .hint("remove it, or name another one by --dir"));
    }
    durable::create_dirs(directory, &How { mode: Some(0o644), ..How::default() })
}

fn write_pipeline(directory: &Path) -> Result<()> {
    let text = format!(
        r#"# The example of `cdrvault demo`. Paths are relative to this file.
name     = "demo"
timezone = "Europe/Rome"        # the wall clock of the billing host
state    = "state"              # lock and run history; may be deleted

[database.billing]
url = "sqlite:billing.sqlite"

[sink.vault.local]
path = "vault"

[flow.ar_cdr]                   # the rated calls, one Parquet file a day
source.ar-cdr = {{ database = "billing", money-scale = {MONEY_SCALE} }}
transforms    = ["incremental", {{ parquet = {{ compression = "zstd(3)" }} }}]
sinks         = ["vault"]

[flow.ar_source_cdr]            # the calls as received
source.ar-source-cdr = {{ database = "billing" }}
transforms           = ["incremental", "parquet"]
sinks                = ["vault"]
"#
    );
    durable::create(&directory.join("pipeline.toml"), &How { mode: Some(0o644), ..How::default() }, |file| {
        file.write_all(text.as_bytes())
    })
}

fn after(day: Date, days: i64) -> Result<Date> {
    day.checked_add(Span::new().days(days)).map_err(|error| Error::failed("there are no such days").with_source(error))
}
