//! `status`: what is where, how old it is, and whether somebody should worry.

use std::sync::Arc;
use std::time::Duration;

use cdrvault_engine::config::{NotifyOn, Percent, Pipeline, Watch};
use cdrvault_engine::history::{self, Line};
use cdrvault_engine::opened::Opened;
use cdrvault_engine::report::Outcome;
use cdrvault_engine::state::State;
use cdrvault_engine::survey::{Dataset, Place, Survey, survey};
use cdrvault_engine::verified::{Damage, Verified};
use cdrvault_engine::watch::watch;
use cdrvault_format::partition::Partition;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::progress::Quiet;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{notify, output, session};

/// Show what is saved where, and how old it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault status asterisell\n  cdrvault status asterisell --max-age 26h   # exit status 1 when no run went well for longer\n  cdrvault status asterisell --max-age 26h --nagios\n  cdrvault status asterisell --max-data-age 2d --min-calls 10%   # exit status 1 when the calls stopped coming"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// Fail when the last successful run is older.
    #[arg(long, value_name = "TIME", value_parser = crate::globals::parse_age)]
    max_age: Option<Duration>,
    /// Fail when the newest day of a flow that is saved, and has rows, ended longer ago.
    #[arg(long, value_name = "TIME", value_parser = crate::globals::parse_age)]
    max_data_age: Option<Duration>,
    /// Fail when one of the last two days has fewer rows than this share of what its weekday usually has, as `10%`.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    min_calls: Option<Percent>,
    /// Fail when a day after tomorrow is saved: a clock is wrong where the calls are written.
    #[arg(long)]
    no_future_days: bool,
    /// One line as the plugins of Nagios and Icinga write it; exit status 0 OK, 1 WARNING (a sink lags), 2 CRITICAL, 3 UNKNOWN.
    #[arg(long, conflicts_with = "json")]
    nagios: bool,
}

fn parse_percent(text: &str) -> Result<Percent, String> {
    text.parse::<Percent>().map_err(|error| error.to_string())
}

/// What is told when a run is overdue.
#[derive(Serialize)]
struct Alarms<'a> {
    alarms: &'a [Alarm],
}

/// Why something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// What those hear who want to.
    pub(crate) event: NotifyOn,
    /// One line.
    pub(crate) text: String,
}

impl Serialize for Alarm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// What `--json` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Status {
    pub(crate) pipeline: String,
    /// Since when every flow is saved, by the history; without one, when a sink last received anything.
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) last_run: Option<LastRun>,
    pub(crate) datasets: Vec<Dataset>,
    pub(crate) sinks: Vec<Place>,
    /// What verifications found and is not mended.
    pub(crate) damage: Vec<Damage>,
    /// Why this is not as it should be; empty when all is well.
    pub(crate) alarms: Vec<Alarm>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LastRun {
    pub(crate) began: Timestamp,
    pub(crate) outcome: Outcome,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let looked = find(args, globals);
    if args.nagios {
        return Ok(nagios(&looked));
    }
    let status = looked?;
    if globals.json {
        output::json(&status)?;
    } else {
        show(&status);
        for alarm in &status.alarms {
            let mending = (alarm.event == NotifyOn::Damage).then_some(MENDING);
            output::error(globals, &alarm.text, mending);
        }
    }
    Ok(if status.alarms.is_empty() { Exit::Done } else { Exit::Failed })
}

fn find(args: &Args, globals: &Globals) -> Result<Status, Failure> {
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    let runs = history::read(&pipeline.state, history::MANY)?;
    session::runtime()?.block_on(async {
        let cx = session::context(&pipeline, Arc::new(Quiet))?;
        let asked =
            Watch { max_data_age: args.max_data_age, min_calls: args.min_calls, no_future_days: args.no_future_days };
        let (survey, data) = look(&cx, &pipeline, &asked.or(pipeline.watch)).await?;
        let status = Status::of(&pipeline, &runs, survey, data, args.max_age);
        // Somebody who only looks does not call the others.
        let watching = args.max_age.is_some() || !asked.is_empty();
        if let (Some(first), true) = (status.worst(), watching) {
            notify::tell(&pipeline, first.event, &first.text, &Alarms { alarms: &status.alarms }, globals).await;
        }
        Ok(status)
    })
}

impl Status {
    /// `runs` with the newest last.
    /// `data` is what is odd about the data itself.
    pub(crate) fn of(
        pipeline: &Pipeline,
        runs: &[Line],
        survey: Survey,
        data: Vec<String>,
        max_age: Option<Duration>,
    ) -> Self {
        let Survey { datasets, sinks, damage, .. } = survey;
        let flows = pipeline.flows.iter().map(|flow| flow.name.as_str());
        let good = match runs {
            // The history may be deleted without harm: then it is the vaults that tell.
            [] => datasets.iter().filter_map(|dataset| dataset.received).max(),
            runs => history::last_success(runs, flows),
        };
        let last_run = runs
            .iter()
            .rev()
            .find(|line| line.is_run())
            .map(|line| LastRun { began: line.report.started, outcome: line.report.outcome });
        let mut status = Self {
            pipeline: pipeline.name.clone(),
            last_success: good,
            last_run,
            datasets,
            sinks,
            damage,
            alarms: Vec::new(),
        };
        status.alarms = alarms(&status, max_age);
        status.alarms.extend(data.into_iter().map(|text| Alarm { event: NotifyOn::Data, text }));
        status
    }

    /// Every sink can be read, and holds nothing: nobody ever ran it, or everything is lost.
    pub(crate) fn saves_nothing(&self) -> bool {
        self.datasets.iter().all(|dataset| dataset.partitions == 0 && dataset.error.is_none())
    }

    /// What is told where one thing is told: that nothing is saved any more, before all else.
    fn worst(&self) -> Option<&Alarm> {
        self.alarms.iter().find(|alarm| alarm.event == NotifyOn::Overdue).or(self.alarms.first())
    }
}

/// What every sink of a pipeline holds, and what is odd about the data.
pub(crate) async fn look(
    cx: &Context,
    pipeline: &Arc<Pipeline>,
    asked: &Watch,
) -> cdrvault_format::error::Result<(Survey, Vec<String>)> {
    let state = State::load(&pipeline.state)?;
    let verified = Verified::load(&pipeline.state)?;
    let opened = Opened::vaults(cx, Arc::clone(pipeline), &[], state.as_ref()).await?;
    let looking = async {
        let found = survey(cx, &opened, &verified).await?;
        Ok((found, watch(cx, &opened, asked, Timestamp::now()).await?))
    };
    let found = looking.await;
    opened.close().await;
    found
}

/// One line as monitoring plugins write it, and their exit statuses.
fn nagios(looked: &Result<Status, Failure>) -> Exit {
    let now = Timestamp::now();
    let (word, text, exit) = match looked {
        Err(failure) => ("UNKNOWN", failure.text(), Exit::Plugin(3)),
        Ok(status) => {
            let lagging: Vec<String> = status.datasets.iter().filter(|one| one.behind > 0).map(lag).collect();
            let last = match status.last_success {
                Some(at) => format!("last good run {} ago", output::ago(now.duration_since(at).as_secs())),
                None => "no good run yet".to_owned(),
            };
            match (status.alarms.as_slice(), lagging.as_slice()) {
                ([], []) => ("OK", format!("{}: {last}", status.pipeline), Exit::Done),
                ([], lagging) => ("WARNING", format!("{}: {}", status.pipeline, lagging.join(", ")), Exit::Plugin(1)),
                (alarms, _) => {
                    let texts: Vec<&str> = alarms.iter().map(|alarm| alarm.text.as_str()).collect();
                    ("CRITICAL", format!("{}: {}", status.pipeline, texts.join("; ")), Exit::Plugin(2))
                }
            }
        }
    };
    let mut line = format!("CDRVAULT {word} - {}", text.replace(['|', '\n'], " "));
    if let Ok(status) = looked {
        let age = status.last_success.map_or_else(|| "U".to_owned(), |at| now.duration_since(at).as_secs().to_string());
        let behind: u64 = status.datasets.iter().map(|dataset| dataset.behind).sum();
        let partitions: u64 = status.datasets.iter().map(|dataset| dataset.partitions).sum();
        let damage: u64 = status.sinks.iter().map(|sink| sink.damage).sum();
        line.push_str(&format!(
            " | age={age}s;;;0 behind={behind};;;0 partitions={partitions};;;0 damage={damage};;;0"
        ));
    }
    output::text(&(line + "\n"));
    exit
}

fn lag(dataset: &Dataset) -> String {
    format!("{} is {} behind in {}", dataset.name, dataset.behind, dataset.sink)
}

/// What to do about damage.
const MENDING: &str = "`cdrvault verify --repair` mends it from another sink, `cdrvault replay` saves a day again from the \
                       database; the alarm ends when `cdrvault verify` finds it whole";

/// So many findings of one sink are named.
const MOST_NAMED: usize = 3;

/// A sink that cannot be read, damage that is not mended and an empty backup are alarms always, age only where a limit was
/// given.
fn alarms(status: &Status, max_age: Option<Duration>) -> Vec<Alarm> {
    let mut alarms: Vec<Alarm> = Vec::new();
    let mut add = |event: NotifyOn, text: String| {
        let alarm = Alarm { event, text };
        if !alarms.contains(&alarm) {
            alarms.push(alarm);
        }
    };
    for dataset in status.datasets.iter().filter(|dataset| !dataset.optional) {
        if let Some(error) = &dataset.error {
            add(NotifyOn::Overdue, error.clone());
        }
    }
    if status.saves_nothing() {
        add(NotifyOn::Overdue, "nothing is saved yet".to_owned());
    }
    if let Some(limit) = max_age {
        match status.last_success {
            None if status.saves_nothing() => {}
            None => add(NotifyOn::Overdue, "no run has gone well yet".to_owned()),
            Some(at) => {
                let age = Timestamp::now().duration_since(at);
                if age.unsigned_abs() > limit && !age.is_negative() {
                    let ago = output::ago(age.as_secs());
                    add(NotifyOn::Overdue, format!("the last run that went well ended {ago} ago"));
                }
            }
        }
    }
    for sink in &status.sinks {
        if let Some(text) = damaged(&sink.name, sink.damage, &status.damage) {
            add(NotifyOn::Damage, text);
        }
    }
    let nowhere = status.damage.iter().filter(|damage| damage.sink.is_empty()).count() as u64;
    if let Some(text) = damaged("", nowhere, &status.damage) {
        add(NotifyOn::Damage, text);
    }
    alarms
}

/// What `verify` found in a sink and is not mended, if it found something.
pub(crate) fn damaged(sink: &str, count: u64, damage: &[Damage]) -> Option<String> {
    if count == 0 {
        return None;
    }
    let named: Vec<String> =
        damage.iter().filter(|damage| damage.sink == sink).take(MOST_NAMED).map(Damage::name).collect();
    let place = if sink.is_empty() { "in no sink".to_owned() } else { format!("in the sink {sink}") };
    let more = count.saturating_sub(named.len() as u64);
    let what = match (named.as_slice(), more) {
        ([], count) => output::plural(count, "finding"),
        (named, 0) => named.join(", "),
        (named, more) => format!("{} and {more} more", named.join(", ")),
    };
    Some(format!("`verify` found what is not mended {place}: {what}"))
}

fn show(status: &Status) {
    let now = Timestamp::now();
    let since = |at: Timestamp| output::ago(now.duration_since(at).as_secs());
    let mut head = format!("pipeline {}\n", status.pipeline);
    match status.last_success {
        Some(at) => head.push_str(&format!("last good run: {} ago\n", since(at))),
        None => head.push_str("last good run: none\n"),
    }
    if let Some(last) = status.last_run.as_ref().filter(|last| last.outcome != Outcome::Done) {
        let how = match last.outcome {
            Outcome::Partial => "was partly done",
            Outcome::Interrupted => "was interrupted",
            Outcome::Done | Outcome::Damage | Outcome::Failed => "failed",
        };
        head.push_str(&format!("last run: {} ago, {how} (`cdrvault history` tells more)\n", since(last.began)));
    }
    let rows = status.datasets.iter().map(|dataset| {
        let partition = |one: Option<Partition>| one.map(|p| p.to_string()).unwrap_or_default();
        vec![
            dataset.name.clone(),
            dataset.sink.clone(),
            output::count(dataset.partitions),
            partition(dataset.oldest),
            partition(dataset.newest),
            dataset.received.map(|at| format!("{} ago", since(at))).unwrap_or_default(),
            match &dataset.verified {
                None => "never".to_owned(),
                Some(verified) => format!("{} ago", since(verified.at)),
            },
            state(dataset, now),
        ]
    });
    let header = ["FLOW", "SINK", "PARTITIONS", "FROM", "TO", "RECEIVED", "VERIFIED", "STATE"];
    output::text(&(head + "\n" + &output::table(&header, rows.collect(), &[2])));
}

/// What is to be said of a dataset in one sink.
fn state(dataset: &Dataset, now: Timestamp) -> String {
    if dataset.error.is_some() {
        return "cannot be read".to_owned();
    }
    let mut parts = Vec::new();
    if dataset.damage > 0 {
        parts.push(format!("{} damaged", dataset.damage));
    }
    match (dataset.behind, dataset.behind_since) {
        (0, _) => {}
        (behind, Some(at)) => {
            parts.push(format!("{behind} behind, for {}", output::ago(now.duration_since(at).as_secs())));
        }
        (behind, None) => parts.push(format!("{behind} behind")),
    }
    match parts.as_slice() {
        [] if dataset.partitions == 0 => "nothing saved".to_owned(),
        [] => "up to date".to_owned(),
        parts => parts.join(", "),
    }
}
