//! `validate`: whether a pipeline file is right, and what it says.

use std::path::Path;
use std::sync::Arc;

use cdrvault_engine::config::{self, FlowSpec, Pipeline};
use cdrvault_plugin::options::Problems;
use serde::Serialize;

use crate::connect::{self, Check};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{locate, output, registry};

/// Check a pipeline file; without --connect nothing that it points at is touched.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault validate asterisell\n  cdrvault validate ./asterisell.toml --json   # problems with their places, for editors\n  cdrvault validate asterisell --connect       # and try databases, grants, clocks, sinks, free space"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// Also connect to the databases and look into the sinks. Changes nothing; a bucket, and a mirror by rsync,
    /// get a probe.
    #[arg(long)]
    connect: bool,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let path = match (&args.pipeline, &globals.config) {
        (Some(_), Some(_)) => {
            return Err(Failure::Usage("name the pipeline once: as an argument or by --config".to_owned()));
        }
        (Some(name), None) => locate::locate(name)?,
        (None, Some(path)) => path.clone(),
        (None, None) => {
            return Err(Failure::Usage("name the pipeline: its file, or its name in pipelines.d".to_owned()));
        }
    };
    let pipeline = match config::open(&path, &registry()) {
        Ok(pipeline) => pipeline,
        Err(error) => return Err(refused(error, globals, &path)?),
    };
    if !pipeline.warnings.is_empty() && !globals.quiet {
        output::problems(globals, &pipeline.warnings);
    }
    if !args.connect {
        show(&pipeline, &[], globals)?;
        return Ok(Exit::Done);
    }
    let pipeline = Arc::new(pipeline);
    let checks = connect::check(Arc::clone(&pipeline))?;
    show(&pipeline, &checks, globals)?;
    Ok(if connect::all_good(&checks) { Exit::Done } else { Exit::Failed })
}

/// What the file says, in short.
fn show(pipeline: &Pipeline, checks: &[Check], globals: &Globals) -> Result<(), Failure> {
    if globals.json {
        #[derive(Serialize)]
        struct Checked<'a> {
            #[serde(flatten)]
            report: Report,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            checks: &'a [Check],
        }
        output::json(&Checked { report: Report::sound(pipeline), checks })?;
        return Ok(());
    }
    if !globals.quiet {
        output::text(&summary(pipeline));
    }
    if !checks.is_empty() {
        connect::show(checks, globals);
    }
    Ok(())
}

/// Why a file was refused; with `--json` on standard output as well.
fn refused(error: cdrvault_format::error::Error, globals: &Globals, path: &Path) -> Result<Failure, Failure> {
    let Some(problems) = Problems::of(&error) else { return Ok(Failure::Error(error)) };
    if globals.json {
        output::json(&Report { path: path.display().to_string(), problems: places(problems), ..Report::default() })?;
    }
    Ok(Failure::Pipeline(problems.clone()))
}

fn summary(pipeline: &Pipeline) -> String {
    let zone = pipeline.timezone.as_ref().and_then(|zone| zone.iana_name()).unwrap_or("that of this system");
    let facts = [
        ("pipeline", pipeline.name.clone()),
        ("file", pipeline.path.display().to_string()),
        ("time zone", zone.to_owned()),
        ("state", pipeline.state.display().to_string()),
    ];
    let facts: Vec<_> = facts.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    let databases = pipeline.databases.iter().map(|database| vec![database.name.clone(), database.build.identity()]);
    let sinks = pipeline.sinks.iter().map(|sink| {
        let optional = if sink.optional { "optional" } else { "required" };
        vec![sink.name.clone(), sink.kind.to_owned(), optional.to_owned(), sink.build.describe()]
    });
    let flows = pipeline
        .flows
        .iter()
        .map(|flow| vec![flow.name.clone(), chain(flow).join(" > "), sinks_of(pipeline, flow).join(", ")]);
    let mut text = facts.concat();
    for (header, rows) in [
        (&["DATABASE", "WHERE"][..], databases.collect::<Vec<_>>()),
        (&["SINK", "KIND", "", "WHERE"][..], sinks.collect()),
        (&["FLOW", "CHAIN", "SINKS"][..], flows.collect()),
    ] {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&output::table(header, rows, &[]));
        }
    }
    text
}

fn chain(flow: &FlowSpec) -> Vec<&'static str> {
    std::iter::once(flow.source_kind).chain(flow.transforms.iter().map(|transform| transform.kind())).collect()
}

fn sinks_of(pipeline: &Pipeline, flow: &FlowSpec) -> Vec<String> {
    flow.sinks.iter().filter_map(|index| pipeline.sinks.get(*index)).map(|sink| sink.name.clone()).collect()
}

/// What `--json` shows.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    /// Whether a run would take the file.
    sound: bool,
    path: String,
    pipeline: Option<String>,
    flows: Vec<Flow>,
    problems: Vec<Place>,
    warnings: Vec<Place>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Flow {
    name: String,
    chain: Vec<&'static str>,
    sinks: Vec<String>,
}

/// A problem and where it is; line and column count from 1, the column in characters.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Place {
    line: usize,
    column: usize,
    message: String,
    help: Option<String>,
}

impl Report {
    fn sound(pipeline: &Pipeline) -> Self {
        let flow =
            |flow: &FlowSpec| Flow { name: flow.name.clone(), chain: chain(flow), sinks: sinks_of(pipeline, flow) };
        Self {
            sound: true,
            path: pipeline.path.display().to_string(),
            pipeline: Some(pipeline.name.clone()),
            flows: pipeline.flows.iter().map(flow).collect(),
            problems: Vec::new(),
            warnings: places(&pipeline.warnings),
        }
    }
}

fn places(problems: &Problems) -> Vec<Place> {
    let place = |problem: &cdrvault_plugin::options::Problem| {
        let (line, column) = problems.position(problem);
        Place { line, column, message: problem.message.clone(), help: problem.help.clone() }
    };
    problems.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_file_is_summed_up() {
        let text = r#"
            name = "asterisell"
            timezone = "Europe/Rome"
            database.billing.url = "sqlite:billing.sqlite"
            sink.vault.local.path = "vault"
            sink.nas.local = { path = "/nas", optional = true }
            [flow.ar_cdr]
            source.ar-cdr.database = "billing"
            transforms = ["incremental", "parquet"]
            sinks = ["vault", "nas"]
            [flow.etc]
            source.files.path = "/etc"
            sinks = ["vault"]
        "#;
        let pipeline = config::load(Path::new("/srv/asterisell.toml"), text, &registry()).unwrap();
        let summary = summary(&pipeline);
        let lines: Vec<_> = summary.lines().map(str::trim).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        pipeline   asterisell
        file       /srv/asterisell.toml
        time zone  Europe/Rome
        state      /var/lib/cdrvault/asterisell

        DATABASE  WHERE
        billing   sqlite:///srv/billing.sqlite

        SINK   KIND             WHERE
        vault  local  required  /srv/vault
        nas    local  optional  /nas

        FLOW    CHAIN                           SINKS
        ar_cdr  ar-cdr > incremental > parquet  vault, nas
        etc     files                           vault
        ");
        assert!(Report::sound(&pipeline).problems.is_empty());
    }
}
