//! `verify`: every byte is read again and compared with what it should be.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use cdrvault_engine::config::{NotifyOn, Pipeline};
use cdrvault_engine::history::{self, Line, Verification};
use cdrvault_engine::recovery;
use cdrvault_engine::recovery::findings::{Finding, Job, Report};
use cdrvault_engine::recovery::verify;
use cdrvault_engine::report::Failure as Failed;
use cdrvault_engine::report::Outcome;
use cdrvault_engine::verified;
use cdrvault_format::error::{Error, Kind};
use cdrvault_format::partition::DayRange;
use cdrvault_plugin::context::Context;
use serde::Serialize;

use crate::days::DayArgs;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{bare, notify, output, progress, registry, run, session};

/// Read everything again, and compare it with what it should be.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE", conflicts_with = "vault")]
    pipeline: Option<String>,
    /// A vault, without any pipeline file: a directory, s3://BUCKET/PREFIX, USER@HOST:PATH (rsync), USER@HOST::PATH (rdiff-backup).
    #[arg(long, value_name = "DIR|URL", conflicts_with_all = ["sink", "flow", "against_source", "repair"])]
    vault: Option<String>,
    /// Only this sink; may be given more than once.
    #[arg(long, value_name = "SINK")]
    sink: Vec<String>,
    /// Only this flow; may be given more than once.
    #[arg(long, value_name = "FLOW")]
    flow: Vec<String>,
    #[command(flatten)]
    days: DayArgs,
    /// Read so much of it, another part each day; listings are always compared whole.
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = parse_percent)]
    sample: f64,
    /// Compare every day with the database, too.
    #[arg(long)]
    against_source: bool,
    /// Put back what another sink holds whole.
    #[arg(long)]
    repair: bool,
    /// Where copies of what lies in a bucket or a mirror are put while they are read; in the state directory by default.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Exit status: 0 all is well, or was repaired; 4 something is damaged, missing, or not as it should be; 3 something could not
be looked at.

Examples:
  cdrvault verify asterisell
  cdrvault verify asterisell --sample 5% --against-source   # each night
  cdrvault verify asterisell --repair --json
  cdrvault verify --vault /mnt/backup";

fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    number
        .ok()
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .ok_or_else(|| "write a percentage, as 5%".to_owned())
}

/// What `--json` shows.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    damage: u64,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let pipeline = match &args.vault {
        Some(vault) => bare::pipeline(vault)?,
        None => session::load(args.pipeline.as_deref(), globals)?,
    };
    if let Some(unknown) = args.flow.iter().find(|name| pipeline.flow(name).is_none()) {
        return Err(Failure::Usage(format!("there is no flow `{unknown}`")));
    }
    if let Some(unknown) = args.sink.iter().find(|name| pipeline.sink(name).is_none()) {
        return Err(Failure::Usage(format!("there is no sink `{unknown}`")));
    }
    let job = Job {
        flows: args.flow.clone(),
        sinks: if args.vault.is_some() { vec!["vault".to_owned()] } else { args.sink.clone() },
        days: args.days.range()?.unwrap_or(DayRange::ALL),
        percent: args.sample,
        against_source: args.against_source,
        repair: args.repair,
        bare: args.vault.is_some(),
    };
    let report = session::runtime()?.block_on(async {
        let cx = Context { scratch: args.scratch.clone(), ..session::context(&pipeline, progress::of(globals))? };
        let began = cdrvault_engine::report::Report::begin();
        let mut report = verify::verify(&cx, &pipeline, &registry().codecs, &job).await?;
        if report.sinks.iter().all(|sink| sink.generations == 0)
            && report.findings.is_empty()
            && report.failures.is_empty()
        {
            let nothing = Error::new(Kind::NotFound, "nothing is saved yet, and nothing was verified")
                .hint("`cdrvault run` saves; is this the place that the pipeline names?");
            report.failures.push(Failed::of("verify", &nothing));
        }
        if args.vault.is_none() {
            tell(&cx, &pipeline, &job, began, &report, globals).await;
        }
        Ok::<_, Failure>(report)
    })?;
    if globals.json {
        output::json(&Shown { damage: report.damage(), report: &report })?;
    } else {
        show(&report, globals);
    }
    for failure in &report.failures {
        let message = format!("{}: {}", failure.of, failure.message);
        if failure.counts {
            output::error(globals, &message, failure.hint.as_deref());
        } else {
            output::warning(globals, &message);
        }
    }
    if args.vault.is_some() && report.damage() > 0 {
        output::warning(
            globals,
            "without a pipeline file this is not remembered: no `status`, no monitoring and no report tells of it",
        );
    }
    Ok(if report.damage() > 0 {
        Exit::Damage
    } else if report.failures.iter().any(|failure| failure.counts) {
        Exit::Partial
    } else {
        Exit::Done
    })
}

/// What was found is remembered and told to those who want to hear of it. Nothing that goes wrong here changes how the
/// verification ends.
async fn tell(
    cx: &Context,
    pipeline: &Arc<Pipeline>,
    job: &Job,
    began: cdrvault_engine::report::Report,
    report: &Report,
    globals: &Globals,
) {
    #[derive(Serialize)]
    struct Details<'a> {
        damage: u64,
        verified: &'a Report,
    }
    let damage = report.damage();
    if let Err(error) = verified::record(cx, pipeline, job, report).await {
        let message = format!("what was found is not remembered: {}", error.one_line());
        if damage > 0 {
            output::error(globals, &message, error.hint_text());
        } else if pipeline.state.is_dir() {
            output::warning(globals, &message);
        }
    }
    if let Err(error) = recovery::record(cx, pipeline, report, globals.wait_lock).await {
        let message = format!("that this was verified is not noted in the vaults: {}", error.one_line());
        if error.kind() == Kind::Locked {
            // The next verification notes it; cron need not write a mail about it.
            tracing::info!("{message}");
        } else {
            output::warning(globals, &message);
        }
    }
    let line = line(job, began, report);
    if pipeline.state.is_dir()
        && let Err(error) = history::append(&pipeline.state, &line)
    {
        output::warning(globals, &error.one_line());
    }
    if let Some(path) = &pipeline.metrics
        && let Err(error) = run::measure(cx, pipeline, path, None).await
    {
        output::warning(globals, &error.one_line());
    }
    if damage > 0 {
        let first = report.findings.iter().find(|finding| finding.problem.counts() && !finding.repaired);
        let first = first.map(words).unwrap_or_default();
        let text = match damage {
            1 => format!("`verify` found damage: {first}"),
            more => format!("`verify` found damage: {first}, and {} more", more - 1),
        };
        notify::tell(pipeline, NotifyOn::Damage, &text, &Details { damage, verified: report }, globals).await;
    }
}

/// So many findings of a verification are kept in the history.
const MOST_KEPT: usize = 20;

/// The verification as the history has it.
fn line(job: &Job, began: cdrvault_engine::report::Report, report: &Report) -> Line {
    let mut of_history = cdrvault_engine::report::Report { failures: report.failures.clone(), ..began };
    of_history.end(false);
    if report.damage() > 0 {
        of_history.outcome = Outcome::Damage;
    } else if of_history.outcome == Outcome::Failed && report.sinks.iter().any(|sink| sink.good > 0) {
        of_history.outcome = Outcome::Partial;
    }
    let findings = report.findings.iter().filter(|finding| finding.problem.counts());
    let verified = Verification {
        sinks: report.sinks.iter().map(|sink| sink.sink.clone()).collect(),
        good: report.sinks.iter().map(|sink| sink.good).sum(),
        bytes: report.sinks.iter().map(|sink| sink.bytes).sum(),
        damage: report.damage(),
        repaired: report.findings.iter().filter(|finding| finding.repaired).count() as u64,
        findings: findings.take(MOST_KEPT).map(words).collect(),
    };
    Line { verb: "verify".to_owned(), flows: job.flows.clone(), report: of_history, verified: Some(verified) }
}

/// A finding on one line.
fn words(finding: &Finding) -> String {
    let unit = finding.unit.as_ref().map(|unit| format!("{unit} ")).unwrap_or_default();
    let generation = finding.generation.map(|generation| format!("g{generation:04} ")).unwrap_or_default();
    let sink = if finding.sink.is_empty() { String::new() } else { format!("{}: ", finding.sink) };
    let fate = if finding.repaired { " (repaired)" } else { "" };
    format!("{sink}{unit}{generation}{}: {}{fate}", finding.problem, finding.detail)
}

/// One line for each finding, and one for each sink.
fn show(report: &Report, globals: &Globals) {
    for finding in &report.findings {
        let line = words(finding);
        if finding.problem.counts() && !finding.repaired {
            output::error(globals, &line, None);
        } else {
            output::warning(globals, &line);
        }
    }
    if globals.quiet || !(output::on_terminal() || globals.verbose > 0) {
        return;
    }
    let bad: BTreeSet<&str> = report.findings.iter().map(|finding| finding.sink.as_str()).collect();
    for sink in &report.sinks {
        output::note(&format!(
            "{}: {} of {} generations read and good ({}){}",
            sink.sink,
            output::count(sink.good),
            output::count(sink.generations),
            output::size(sink.bytes),
            if bad.contains(sink.sink.as_str()) { ", with findings" } else { "" }
        ));
    }
    if report.compared > 0 {
        output::note(&format!(
            "{} days compared with the database; {} have changes that the next run will save",
            output::count(report.compared),
            output::count(report.pending)
        ));
    }
}
