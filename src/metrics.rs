//! The file for Prometheus: how the last run went, and what every sink holds.

use std::path::Path;

use cdrvault_engine::config::Pipeline;
use cdrvault_engine::history::{self, Line};
use cdrvault_engine::report::{Outcome, Report, UnitResult};
use cdrvault_engine::survey::Survey;
use cdrvault_format::error::{Error, Result};
use cdrvault_format::{durable, outfile};
use jiff::Timestamp;
use prometheus::{Encoder as _, GaugeVec, Opts, Registry, TextEncoder};

/// Writes the file, at once and whole: the collector may read it at any moment.
pub(crate) fn write(path: &Path, pipeline: &Pipeline, runs: &[Line], survey: Option<&Survey>) -> Result<()> {
    let text = render(pipeline, runs, survey, Timestamp::now())?;
    // What is not a regular file was nobody's.
    let before = durable::read(path).ok().flatten().unwrap_or_default();
    let before = String::from_utf8_lossy(&before);
    // The collector is another user.
    outfile::write(path, Some(0o644), &text).map_err(|error| error.at("the metrics"))?;
    match owner(&before).filter(|owner| *owner != pipeline.name) {
        None => Ok(()),
        Some(owner) => Err(Error::failed(format!("{} was the text file of pipeline `{owner}`", path.display()))
            .at("the metrics")
            .hint("give each pipeline a `textfile` of its own, or one of the two stays unseen")),
    }
}

/// The pipeline that wrote a text file.
fn owner(text: &str) -> Option<&str> {
    let series = text.lines().find_map(|line| line.strip_prefix("cdrvault_build_info{pipeline=\""))?;
    series.split('"').next()
}

/// `runs` with the newest last.
fn render(pipeline: &Pipeline, runs: &[Line], survey: Option<&Survey>, now: Timestamp) -> Result<Vec<u8>> {
    let metrics = Metrics { registry: Registry::new() };
    let name = pipeline.name.as_str();
    // Several files in one directory are one scrape: a series that two of them have would fail all of it.
    let version = metrics.add("build_info", "The version that wrote this.", &["pipeline", "version"])?;
    version.set(&[name, env!("CARGO_PKG_VERSION")], 1.0);
    if let Some(at) = history::last_success(runs, pipeline.flows.iter().map(|flow| flow.name.as_str())) {
        metrics.add("last_success_timestamp_seconds", LAST_SUCCESS, &["pipeline"])?.set(&[name], seconds(at));
    }
    if let Some(last) = runs.iter().rev().find(|line| line.is_run()) {
        metrics.last_run(name, pipeline, &last.report)?;
    }
    if let Some(survey) = survey {
        metrics.holdings(name, survey, now)?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&metrics.registry.gather(), &mut text).map_err(unfit)?;
    Ok(text)
}

const LAST_SUCCESS: &str = "Since when every flow is saved: the oldest of the last good runs of each.";

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn unfit(error: prometheus::Error) -> Error {
    Error::failed("cannot make the metrics").with_source(error)
}

struct Metrics {
    registry: Registry,
}

/// One metric, whose name is `cdrvault_` and this.
struct Family(GaugeVec);

impl Family {
    fn set(&self, labels: &[&str], value: f64) {
        self.0.with_label_values(labels).set(value);
    }
}

impl Metrics {
    fn add(&self, name: &str, help: &str, labels: &[&str]) -> Result<Family> {
        let family = GaugeVec::new(Opts::new(format!("cdrvault_{name}"), help), labels).map_err(unfit)?;
        self.registry.register(Box::new(family.clone())).map_err(unfit)?;
        Ok(Family(family))
    }

    fn last_run(&self, name: &str, pipeline: &Pipeline, report: &Report) -> Result<()> {
        let of_run = ["pipeline"];
        let at = self.add("last_attempt_timestamp_seconds", "When the last run ended.", &of_run)?;
        at.set(&[name], seconds(report.finished));
        let success = self.add("last_run_success", "Whether the last run did all that there was to do.", &of_run)?;
        success.set(&[name], if report.outcome == Outcome::Done { 1.0 } else { 0.0 });
        let outcome =
            self.add("last_run_outcome", "How the last run ended: 1 for one of them.", &["pipeline", "outcome"])?;
        for (known, text) in [
            (Outcome::Done, "done"),
            (Outcome::Partial, "partial"),
            (Outcome::Failed, "failed"),
            (Outcome::Interrupted, "interrupted"),
        ] {
            outcome.set(&[name, text], if report.outcome == known { 1.0 } else { 0.0 });
        }
        let duration = self.add("last_run_duration_seconds", "How long the last run took.", &of_run)?;
        duration.set(&[name], report.finished.duration_since(report.started).as_secs_f64());
        let warnings =
            self.add("last_run_warnings", "What the last run warned of, optional sinks included.", &of_run)?;
        let optional = report.all_failures().iter().filter(|failure| !failure.counts).count();
        warnings.set(&[name], (report.warnings.len() + optional) as f64);

        let of_flow = ["pipeline", "flow"];
        let partitions = self.add(
            "last_run_partitions",
            "Partitions that the last run worked on, by what became of them.",
            &["pipeline", "flow", "result"],
        )?;
        let rows = self.add("last_run_rows", "Rows, or entries of a tree, that the last run published.", &of_flow)?;
        let bytes = self.add("last_run_bytes", "Stored bytes that the last run published.", &of_flow)?;
        for flow in &pipeline.flows {
            let flow = flow.name.as_str();
            let (mut published, mut unchanged, mut gone, mut failed) = (0, 0, 0, 0);
            let (mut all_rows, mut all_bytes) = (0, 0);
            for unit in report.units.iter().filter(|unit| unit.unit.dataset == flow) {
                match &unit.result {
                    UnitResult::Published { rows, bytes, .. } => {
                        published += 1;
                        all_rows += rows;
                        all_bytes += bytes;
                    }
                    UnitResult::Unchanged => unchanged += 1,
                    UnitResult::Gone => gone += 1,
                    UnitResult::Failed { .. } => failed += 1,
                }
            }
            for (result, count) in
                [("published", published), ("unchanged", unchanged), ("gone", gone), ("failed", failed)]
            {
                partitions.set(&[name, flow, result], f64::from(count));
            }
            rows.set(&[name, flow], all_rows as f64);
            bytes.set(&[name, flow], all_bytes as f64);
        }
        Ok(())
    }

    fn holdings(&self, name: &str, survey: &Survey, now: Timestamp) -> Result<()> {
        let held = ["pipeline", "flow", "sink"];
        let partitions = self.add("partitions", "Partitions that a sink holds.", &held)?;
        let versions = self.add("versions", "Superseded generations that a sink keeps.", &held)?;
        let behind = self.add(
            "behind_partitions",
            "Partitions of which another sink has a newer generation, or whose object is missing.",
            &held,
        )?;
        let age = self.add(
            "oldest_undelivered_age_seconds",
            "For how long the oldest of the partitions that a sink lacks has been in another one; 0 if it lacks none.",
            &held,
        )?;
        for dataset in survey.datasets.iter().filter(|dataset| dataset.error.is_none()) {
            let labels = [name, dataset.name.as_str(), dataset.sink.as_str()];
            partitions.set(&labels, dataset.partitions as f64);
            versions.set(&labels, dataset.versions as f64);
            behind.set(&labels, dataset.behind as f64);
            let since = dataset.behind_since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
            age.set(&labels, since.max(0.0));
        }
        let of_flow = ["pipeline", "flow"];
        let newest = self.add(
            "newest_data_timestamp_seconds",
            "When the newest day that is saved, and has rows, ended or will end.",
            &of_flow,
        )?;
        let few = self.add(
            "few_calls_days",
            "How many of the last two days have fewer rows than `min-calls` of what their weekday usually has.",
            &of_flow,
        )?;
        for data in &survey.data {
            let labels = [name, data.name.as_str()];
            if let Some(ended) = data.newest_ended {
                newest.set(&labels, seconds(ended));
            }
            if let Some(days) = data.few_days {
                few.set(&labels, days as f64);
            }
        }
        let of_sink = ["pipeline", "sink"];
        let up = self.add("sink_up", "Whether a sink can be read.", &of_sink)?;
        let verified = self.add("last_verify_timestamp_seconds", "When a sink was last read again.", &of_sink)?;
        let damage = self.add("verify_damage", "What verifications of a sink found and is not mended.", &of_sink)?;
        let nowhere = survey.damage.iter().filter(|damage| damage.sink.is_empty()).count();
        if nowhere > 0 {
            damage.set(&[name, ""], nowhere as f64);
        }
        let free = self.add("free_bytes", "Bytes that are free where a sink is.", &of_sink)?;
        for sink in &survey.sinks {
            let labels = [name, sink.name.as_str()];
            up.set(&labels, if sink.error.is_none() { 1.0 } else { 0.0 });
            if let Some(last) = &sink.verified {
                verified.set(&labels, seconds(last.at));
            }
            if sink.verified.is_some() || sink.damage > 0 {
                damage.set(&labels, sink.damage as f64);
            }
            if let Some(bytes) = sink.free {
                free.set(&labels, bytes as f64);
            }
        }
        Ok(())
    }
}
