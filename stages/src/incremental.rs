//! `incremental`: only what changed is exported.

use std::time::Duration;

use cdrvault_format::error::Result;
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::Partition;
use cdrvault_format::tripwire::Tripwire;
use cdrvault_plugin::options::{Age, Problem, Section, schema_of};
use cdrvault_plugin::payload::{Payload, Shape};
use cdrvault_plugin::registry::Plugin;
use cdrvault_plugin::stage::{Candidate, Detection, Evidence, Sweep, Transform, Verdict, Work};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) fn plugin() -> Plugin<dyn Transform> {
    Plugin {
        kind: "incremental",
        about: "exports only the partitions that changed",
        details: "`events` listens to the application, which announces each changed day; they are hints and miss some changes. \
                  `tripwire` sweeps: it compares counts and sums of the days in the database with those of what is saved. \
                  Without this transform every run reads everything, and publishes what differs.",
        schema: schema_of::<Options>,
        parse,
    }
}

/// Which partitions are exported.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Options {
    /// How changes are found.
    detect: Vec<Detector>,
    /// A sweep compares the days of this last stretch of time each time, and the thirtieth of all other days that was
    /// not looked at for longest.
    window: Age,
    /// A sweep is due when the last one is older than this. Where events cannot be used, every run sweeps.
    sweep_every: Age,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Detector {
    /// The application's announcements of changed days.
    Events,
    /// Counts and sums, compared.
    Tripwire,
}

impl Default for Options {
    fn default() -> Self {
        Self { detect: vec![Detector::Events, Detector::Tripwire], window: Age::days(40), sweep_every: Age::days(1) }
    }
}

struct Incremental {
    detection: Detection,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn Transform>> {
    let options: Options = section.options()?;
    if options.detect.is_empty() {
        let problem = Problem::new(section.value("detect"), "with no way to find changes nothing is ever exported")
            .help("write [\"events\", \"tripwire\"]");
        section.problem(problem);
        return None;
    }
    let every: Duration = options.sweep_every.to_duration();
    let window_days = options.window.to_days();
    let has = |detector| options.detect.contains(&detector);
    Some(Box::new(Incremental {
        detection: Detection {
            events: has(Detector::Events),
            tripwire: has(Detector::Tripwire).then_some(Sweep { window_days, every }),
        },
    }))
}

impl Transform for Incremental {
    fn kind(&self) -> &'static str {
        "incremental"
    }

    fn accepts(&self, input: Shape) -> Option<Shape> {
        Some(input)
    }

    fn detection(&self) -> Option<Detection> {
        Some(self.detection)
    }

    fn selects(&self, candidate: &Candidate, live: Option<&Manifest>) -> Option<Verdict> {
        Some(decide(candidate, live))
    }

    fn apply(&self, _work: &Work, input: Payload) -> Result<Payload> {
        Ok(input)
    }
}

fn decide(candidate: &Candidate, live: Option<&Manifest>) -> Verdict {
    let mut verdict = Verdict::Skip;
    for evidence in &candidate.evidence {
        match evidence {
            // An announcement is a promise to look, whatever the sums say.
            Evidence::Event => return Verdict::Export("announced as changed".to_owned()),
            Evidence::Debt => return Verdict::Export("owed from an earlier run".to_owned()),
            Evidence::Exists if live.is_none() => verdict = Verdict::Export("not saved yet".to_owned()),
            // Files and dumps tell only when they are looked at.
            Evidence::Exists if candidate.partition == Partition::Snapshot => {
                verdict = Verdict::Export("to be compared".to_owned());
            }
            Evidence::Exists => {}
            Evidence::Tripwire { now, default_weights } => verdict = compare(now, default_weights, live),
        }
    }
    verdict
}

fn compare(now: &Tripwire, default_weights: &[(String, i128)], live: Option<&Manifest>) -> Verdict {
    let Some(live) = live else {
        return if now.rows == 0 { Verdict::Skip } else { Verdict::Export("not saved yet".to_owned()) };
    };
    if now.rows == 0 && live.rows > 0 {
        return Verdict::Gone;
    }
    let Some(saved) = &live.tripwire else {
        return Verdict::Export("saved without sums to compare".to_owned());
    };
    let weight = |column: &str| default_weights.iter().find(|(name, _)| name == column).map(|(_, weight)| *weight);
    match Tripwire::difference(saved, now, weight) {
        Some(difference) => Verdict::Export(format!("the sweep found {difference}")),
        None => Verdict::Skip,
    }
}
