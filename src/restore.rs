//! `restore`: saved content goes back to where it came from, or somewhere else.

use std::path::PathBuf;
use std::sync::Arc;

use cdrvault_engine::config::Pipeline;
use cdrvault_engine::recovery::restore::{self, Plan, Report};
use cdrvault_engine::recovery::{self, Wanted};
use cdrvault_format::error::{Error, Kind};
use cdrvault_format::partition::DayRange;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::Vault;
use cdrvault_plugin::target::{Target, TargetOptions};
use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde::Serialize;

use crate::days::{DayArgs, parse_time};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{bare, output, progress, registry, session};

/// Restore saved days, files and dumps.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE", conflicts_with = "vault")]
    pipeline: Option<String>,
    /// The sink to restore from; needed where the pipeline has several.
    #[arg(long, value_name = "SINK")]
    from_sink: Option<String>,
    /// A vault, without any pipeline file: a directory, s3://BUCKET/PREFIX, USER@HOST:PATH (rsync), USER@HOST::PATH (rdiff-backup).
    #[arg(long, value_name = "DIR|URL", conflicts_with = "from_sink")]
    vault: Option<String>,
    #[command(flatten)]
    days: DayArgs,
    /// As it was saved at that time, instead of now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Where what was live at that time was pruned, take the generation before it, or else the one after it.
    #[arg(long, requires = "at")]
    nearest: bool,
    /// The generation of this number, as `snapshots --all` tells it, instead of the newest.
    #[arg(long, value_name = "N", conflicts_with = "at", value_parser = clap::value_parser!(u32).range(1..))]
    generation: Option<u32>,
    /// Only this flow; may be given more than once. Otherwise every flow that the target can take.
    #[arg(long, value_name = "FLOW")]
    flow: Vec<String>,
    /// Where to: a database of the pipeline, mysql://USER@HOST/DATABASE, sqlite:FILE, csv:DIRECTORY, csv-asterisell:DIRECTORY, dir:DIRECTORY.
    #[arg(long, value_name = "TARGET")]
    into: String,
    /// Print what would be restored; change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// The file with the password of the target's account; by default that of the pipeline's database.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Columns that the backup does not know get their defaults.
    #[arg(long)]
    missing_columns: bool,
    /// Restore although the tables have triggers or foreign keys.
    #[arg(long)]
    allow_triggers: bool,
    /// Do not tell the application which days were restored.
    #[arg(long)]
    no_announce: bool,
    /// Tables of a dump get the server's default engine where theirs is TokuDB.
    #[arg(long)]
    replace_engine: bool,
    /// Also make the accounts that a dump holds.
    #[arg(long)]
    accounts: bool,
    /// Make tables that are not there, as the receipts describe them: columns, types and the key, and nothing else.
    #[arg(long)]
    create_tables: bool,
    /// Whose rights the views, routines, triggers and events of a dump work with: USER@HOST or CURRENT_USER, the account of the restore.
    #[arg(long, value_name = "ACCOUNT", value_parser = definer)]
    definer: Option<String>,
    /// What the import of the application's version reads, in its order, where it is not what release 6 reads; for csv-asterisell.
    #[arg(long, value_name = "TABLE=COLUMN,...", value_parser = columns)]
    columns: Vec<(String, Vec<String>)>,
    /// Where copies of what lies in a bucket or a mirror are put while they are read; in the state directory by default.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

fn columns(text: &str) -> Result<(String, Vec<String>), String> {
    let parts = text.split_once('=').filter(|(table, _)| !table.is_empty());
    let (table, names) = parts.ok_or("write TABLE=COLUMN,COLUMN,...")?;
    let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err("a column has no name".to_owned());
    }
    Ok((table.to_owned(), names))
}

const AFTER_HELP: &str = "\
Each day is replaced as a whole, in one transaction, after it was loaded beside the table, read again and compared. Nothing
is touched before everything that is asked for was found and its checksums hold. What is as saved already is left alone, so
that a restore which was interrupted goes on when it is run again.

Examples:
  cdrvault restore asterisell --from-sink vault --day 2026-01-15 --into billing
  cdrvault restore asterisell --from-sink offsite --at '2026-01-10 06:00' --flow ar_cdr --month 2026-01 --into billing -n
  cdrvault restore --vault /mnt/backup --into mysql://root@localhost/asterisell --password-file /root/.my-password
  cdrvault restore --vault s3://cdr-archive/asterisell --flow etc --into dir:/restored
  cdrvault restore asterisell --from-sink vault --month 2026-01 --into sqlite:january.sqlite";

/// What `--json` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    plan: Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let pipeline = match &args.vault {
        Some(vault) => bare::pipeline(vault)?,
        None => session::load(args.pipeline.as_deref(), globals)?,
    };
    // A vault does not say in which zone its pipeline lives.
    let zone = args.vault.is_none().then(|| pipeline.wall_clock());
    let wanted = Wanted {
        flows: args.flow.clone(),
        days: args.days.range()?.unwrap_or(DayRange::ALL),
        at: args.at.as_deref().map(|at| parse_time(at, zone.as_ref())).transpose()?,
        nearest: args.nearest,
    };
    let (shown, interrupted) = session::runtime()?.block_on(async {
        let cx = Context { scratch: args.scratch.clone(), ..session::context(&pipeline, progress::of(globals))? };
        let target = target(args, &pipeline)?;
        let (sink, _) = recovery::open(&cx, spec(args, &pipeline)?).await?;
        let done = work(&cx, args, globals, &sink, &target, &wanted).await;
        sink.close().await;
        Ok::<_, Failure>((done?, cx.check().is_err()))
    })?;
    if globals.json {
        output::json(&shown)?;
    } else {
        show(&shown, globals, zone.as_ref());
    }
    for missing in &shown.plan.missing {
        output::error(globals, missing, Some("`verify` tells more; another sink may have the receipt"));
    }
    let whole = shown.plan.missing.is_empty();
    let Some(report) = &shown.report else { return Ok(if whole { Exit::Done } else { Exit::Partial }) };
    for failure in &report.failed {
        output::error(globals, &format!("{}: {}", failure.of, failure.message), failure.hint.as_deref());
    }
    if !report.not_tried.is_empty() {
        let message = format!("{} more were not tried; run the same command again to go on", report.not_tried.len());
        output::error(globals, &message, None);
    }
    if !report.taken_back.is_empty() {
        let message = format!("{} were taken back; run the same command again", report.taken_back.len());
        output::error(globals, &message, None);
    }
    if interrupted {
        return Ok(Exit::Interrupted);
    }
    let failed = !report.failed.is_empty() || !report.not_tried.is_empty() || !report.taken_back.is_empty();
    Ok(match (failed, report.restored.is_empty() && report.same.is_empty()) {
        (false, _) => {
            if whole {
                Exit::Done
            } else {
                Exit::Partial
            }
        }
        (true, false) => Exit::Partial,
        (true, true) => Exit::Failed,
    })
}

async fn work(
    cx: &Context,
    args: &Args,
    globals: &Globals,
    sink: &Arc<dyn Vault>,
    target: &Arc<dyn Target>,
    wanted: &Wanted,
) -> Result<Shown, Failure> {
    let selection = recovery::find_generation(cx, sink, wanted, args.generation).await?;
    let plan = restore::plan(cx, sink, selection, target, !wanted.flows.is_empty()).await?;
    if !globals.json && !globals.quiet {
        for remark in plan.left_out.iter().chain(&plan.remarks) {
            output::warning(globals, remark);
        }
        if let (true, Some(at)) = (output::on_terminal(), wanted.at) {
            let at = at.to_zoned(cx.writer.timezone.clone()).strftime("%F %T%:z");
            output::note(&format!("as it was saved at {at}; {}", wanted.days));
        }
    }
    if args.dry_run {
        return Ok(Shown { plan, report: None });
    }
    let report = restore::execute(cx, sink, &registry().codecs, &plan, target).await?;
    Ok(Shown { plan, report: Some(report) })
}

fn spec<'p>(args: &Args, pipeline: &'p Pipeline) -> Result<&'p cdrvault_engine::config::SinkSpec, Failure> {
    let name = match (&args.from_sink, &args.vault, &pipeline.sinks[..]) {
        (Some(name), ..) => name,
        (None, Some(_), _) => "vault",
        (None, None, [one]) => &one.name,
        (None, None, sinks) => {
            let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
            let names = names.join(", ");
            return Err(Failure::Usage(format!(
                "which sink is to be restored from? Write --from-sink with one of: {names}"
            )));
        }
    };
    pipeline.sink(name).ok_or_else(|| {
        let known: Vec<&str> = pipeline.sinks.iter().map(|sink| sink.name.as_str()).collect();
        let error = Error::new(Kind::Config, format!("there is no sink `{name}`"));
        Failure::Error(error.hint(format!("the sinks are: {}", known.join(", "))))
    })
}

/// An account as SQL writes it.
fn definer(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("CURRENT_USER") {
        return Ok("CURRENT_USER".to_owned());
    }
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    match text.rsplit_once('@') {
        Some((user, host)) if !user.is_empty() && !host.is_empty() => Ok(format!("{}@{}", quoted(user), quoted(host))),
        _ => Err("write USER@HOST, or CURRENT_USER".to_owned()),
    }
}

/// The target that `--into` names.
fn target(args: &Args, pipeline: &Pipeline) -> Result<Arc<dyn Target>, Failure> {
    let password = match &args.password_file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
            Some(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
    };
    let options = TargetOptions {
        password,
        missing_columns: args.missing_columns,
        allow_triggers: args.allow_triggers,
        no_announce: args.no_announce,
        replace_engine: args.replace_engine,
        accounts: args.accounts,
        create_tables: args.create_tables,
        definer: args.definer.clone(),
        columns: args.columns.iter().cloned().collect(),
    };
    if !options.columns.is_empty() && !args.into.starts_with("csv-asterisell:") {
        return Err(Failure::Usage("--columns is for --into csv-asterisell:DIRECTORY".to_owned()));
    }
    if let Some(database) = pipeline.database(&args.into) {
        return Ok(database.build.target(&options)?);
    }
    let registry = registry();
    let scheme = args.into.split_once(':').map(|(scheme, _)| scheme);
    if let Some(plugin) = registry.targets.iter().find(|plugin| Some(plugin.scheme) == scheme) {
        return Ok((plugin.build)(&args.into, &options)?);
    }
    let mut forms: Vec<String> = pipeline.databases.iter().map(|database| format!("  {}", database.name)).collect();
    forms.extend(registry.targets.iter().map(|plugin| format!("  {}", plugin.about)));
    Err(Failure::Usage(format!("`{}` is not a target; write one of\n{}", args.into, forms.join("\n"))))
}

/// As `snapshots` shows it. Where no pipeline says which zone is meant, with its own.
fn shown_time(time: jiff::Timestamp, zone: Option<&TimeZone>) -> String {
    match zone {
        Some(zone) => time.to_zoned(zone.clone()).strftime("%F %T").to_string(),
        None => time.strftime("%F %TZ").to_string(),
    }
}

fn show(shown: &Shown, globals: &Globals, zone: Option<&TimeZone>) {
    let Some(report) = &shown.report else {
        let rows = shown.plan.units.iter().map(|unit| {
            vec![
                unit.unit.to_string(),
                format!("g{:04}", unit.generation),
                unit.received.map(|time| shown_time(time, zone)).unwrap_or_default(),
                output::count(unit.rows),
                output::size(unit.bytes),
            ]
        });
        output::text(&output::table(&["UNIT", "GENERATION", "SAVED", "ROWS", "SIZE"], rows.collect(), &[3, 4]));
        return;
    };
    if globals.quiet {
        return;
    }
    output::text(&format!(
        "{} restored from {} into {} ({} rows or files), {} were there already\n",
        output::plural(report.restored.len() as u64, "partition"),
        shown.plan.from,
        shown.plan.into,
        output::count(report.rows),
        report.same.len()
    ));
    for remark in &report.remarks {
        output::note(remark);
    }
}
