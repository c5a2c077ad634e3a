//! Every byte is read again, decoded, and compared with what the receipts say; and the sinks with each other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::look::{Brief, Held, Looking};
use super::repair::Mending;
use super::{find, source};
use crate::config::Pipeline;
use crate::report::Failure;
use cdrvault_format::error::{Kind, Result};
use cdrvault_format::index::Generations;
use cdrvault_format::partition::{DayRange, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::lock;
use cdrvault_plugin::registry::Decoder;

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct Job {
    /// These flows; all where it is empty.
    pub flows: Vec<String>,
    /// These sinks; all where it is empty.
    pub sinks: Vec<String>,
    /// These days, and what has no day if it is all days.
    pub days: DayRange,
    /// So many percent of the generations are read, others the next day; listings are always looked at whole.
    pub percent: f64,
    /// Compare with the database, too.
    pub against_source: bool,
    /// Put back what another sink holds.
    pub repair: bool,
    /// There is no pipeline that names the datasets: whatever looks like one is one.
    pub bare: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Where.
    pub sink: String,
    /// Of which unit, if it is of one.
    #[serde(flatten)]
    pub unit: Option<Unit>,
    /// Of which of its generations.
    pub generation: Option<u32>,
    /// What.
    pub problem: Problem,
    /// For people.
    pub detail: String,
    /// It was put back and read again.
    pub repaired: bool,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// An object is not what its receipt says.
    Damaged,
    /// An object that a receipt names is not there.
    Missing,
    /// A receipt cannot be understood.
    DamagedReceipt,
    /// A receipt that was there is not there any more, or what is live has none.
    MissingReceipt,
    /// What is noted of a day, of the receipts or of the vault cannot be understood.
    DamagedNotes,
    /// A file that no receipt names stands where others read.
    Extra,
    /// A body, or a kept object, that nothing names. `prune` removes what an interrupted run left.
    Orphaned,
    /// One generation has another content here than in another sink.
    Differs,
    /// Another sink has a newer generation.
    Behind,
    /// The database has other rows.
    SourceDiffers,
}

impl Problem {
    /// Whether it makes the verification fail.
    pub fn counts(self) -> bool {
        self != Self::Orphaned
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::DamagedReceipt => "damaged receipt",
            Self::MissingReceipt => "missing receipt",
            Self::DamagedNotes => "damaged notes",
            Self::Extra => "extra file",
            Self::Orphaned => "orphaned",
            Self::Differs => "differs",
            Self::Behind => "behind",
            Self::SourceDiffers => "differs from the database",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// What was read.
    pub sinks: Vec<Checked>,
    /// What could not be looked at.
    pub failures: Vec<Failure>,
    /// Days that were compared with the database.
    pub compared: u64,
    /// Days that the database has announced a change of, which the next run will save.
    pub pending: u64,
}

impl Report {
    /// Findings that count and were not repaired.
    pub fn damage(&self) -> u64 {
        self.findings.iter().filter(|finding| finding.problem.counts() && !finding.repaired).count() as u64
    }
}

/// What was read of a sink.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checked {
    /// Its name.
    pub sink: String,
    /// Generations that have a receipt.
    pub generations: u64,
    /// Those that were read, and are good.
    pub good: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The highest generation of each unit among those that were read and are good.
    #[serde(skip)]
    pub newest_good: BTreeMap<Unit, u32>,
    /// All that was asked for could be looked at.
    #[serde(skip)]
    pub whole: bool,
}

/// Looks at the sinks of a pipeline. Nothing is locked or written, unless something is to be repaired. What goes wrong
/// besides takes nothing away from what was found.
pub async fn verify(cx: &Context, pipeline: &Arc<Pipeline>, decoders: &[Decoder], job: &Job) -> Result<Report> {
    let began = Timestamp::now();
    let mut report = Report::default();
    let mut all = Vec::new();
    for (index, spec) in pipeline.sinks.iter().enumerate() {
        let listing = pipeline.flows.iter().filter(|flow| flow.sinks.contains(&index)).map(|flow| &flow.name);
        let flows: Vec<&String> = listing.filter(|name| job.flows.is_empty() || job.flows.contains(name)).collect();
        if flows.is_empty() || !(job.sinks.is_empty() || job.sinks.contains(&spec.name)) {
            continue;
        }
        let sink = match find::open(cx, spec).await {
            Ok((sink, _)) => sink,
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => {
                report.failures.push(Failure::of(&spec.name, &error).counting(!spec.optional));
                continue;
            }
        };
        let datasets = if job.bare { Vec::new() } else { flows };
        let mut looking = Looking::new(cx, decoders, job, spec, sink, datasets);
        let looked = looking.look().await;
        let (held, checked, findings, mut failures) = looking.into_parts();
        match looked {
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => failures.push(Failure::of(&spec.name, &error).counting(!spec.optional)),
            Ok(()) => {}
        }
        report.findings.extend(findings);
        report.sinks.push(Checked { whole: failures.is_empty(), ..checked });
        report.failures.extend(failures);
        all.push(held);
    }
    let between: Vec<Finding> = between(&all)
        .into_iter()
        .filter(|behind| {
            let lost = |finding: &Finding| {
                finding.problem == Problem::MissingReceipt
                    && (&finding.sink, &finding.unit, finding.generation)
                        == (&behind.sink, &behind.unit, behind.generation)
            };
            behind.problem != Problem::Behind || !report.findings.iter().any(lost)
        })
        .collect();
    let between = still_so(cx, pipeline, &all, between, began).await?;
    report.findings.extend(between);
    if job.against_source
        && let Err(error) = source::compare(cx, pipeline, job, &all, &mut report).await
    {
        tell(&mut report, "the comparison with the database", error)?;
    }
    if job.repair {
        let mut mending = Mending::new(cx, pipeline, decoders, &all);
        if let Err(error) = mending.mend(&mut report.findings).await {
            tell(&mut report, "the repair", error)?;
        }
    }
    for held in &all {
        held.sink.close().await;
    }
    Ok(report)
}

/// A run may be at work: what was published since, or has reached the sink by now, or will at the end of that run, is not
/// behind.
async fn still_so(
    cx: &Context,
    pipeline: &Pipeline,
    all: &[Held],
    findings: Vec<Finding>,
    began: Timestamp,
) -> Result<Vec<Finding>> {
    let mut histories: BTreeMap<(String, String), Generations> = BTreeMap::new();
    let mut still = Vec::new();
    for finding in findings {
        let (Problem::Behind, Some(unit), Some(highest)) = (finding.problem, &finding.unit, finding.generation) else {
            still.push(finding);
            continue;
        };
        let is_here = |held: &&Held| held.generations.get(unit).is_some_and(|all| all.contains_key(&highest));
        let mut is_new = false;
        if let Some(holds) = all.iter().find(is_here) {
            let receipt = holds.sink.manifest(cx, unit, highest).await;
            is_new = receipt.is_ok_and(|receipt| receipt.received.is_some_and(|received| received >= began));
        }
        let of_mirror = |held: &&Held| held.name == finding.sink && held.sink.capabilities().mirror;
        let will_come = all.iter().any(|held| of_mirror(&held)) && lock::is_held(&pipeline.state.join("lock"));
        if is_new || will_come {
            continue;
        }
        let place = (finding.sink.clone(), unit.dataset.clone());
        if let (false, Some(spec)) = (histories.contains_key(&place), pipeline.sink(&finding.sink)) {
            let again = async {
                let (sink, _) = find::open(cx, spec).await?;
                let history = sink.history(cx, &unit.dataset).await;
                sink.close().await;
                history
            };
            match again.await {
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                history => drop(histories.insert(place.clone(), history.unwrap_or_default())),
            }
        }
        let here = histories.get(&place).and_then(|history| history.get(&unit.partition)?.last());
        if here.is_none_or(|here| *here < highest) {
            still.push(finding);
        }
    }
    Ok(still)
}

fn tell(report: &mut Report, of: &str, error: cdrvault_format::error::Error) -> Result<()> {
    if error.kind() == Kind::Interrupted {
        return Err(error);
    }
    report.failures.push(Failure::of(of, &error));
    Ok(())
}

/// All sinks must hold the same content under the same number, and the same newest one.
fn between(all: &[Held]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut first: BTreeMap<(&Unit, u32), (&Held, &Brief)> = BTreeMap::new();
    let mut newest: BTreeMap<&Unit, u32> = BTreeMap::new();
    for held in all {
        for (unit, generations) in &held.generations {
            for (generation, brief) in generations {
                let highest = newest.entry(unit).or_default();
                *highest = (*highest).max(*generation);
                let (other, reference) = first.entry((unit, *generation)).or_insert((held, brief));
                if reference.content != brief.content {
                    findings.push(Finding {
                        sink: held.name.clone(),
                        unit: Some(unit.clone()),
                        generation: Some(*generation),
                        problem: Problem::Differs,
                        detail: format!("it has another content than in `{}`", other.name),
                        repaired: false,
                    });
                }
            }
        }
    }
    for held in all.iter().filter(|held| held.listed) {
        for (unit, highest) in newest.iter().filter(|(unit, _)| held.datasets.contains(&unit.dataset)) {
            // What its receipts say is not known; that was told.
            if held.unknown.contains(*unit) {
                continue;
            }
            let here = held.generations.get(*unit).and_then(|all| all.last_key_value()).map_or(0, |(g, _)| *g);
            if here < *highest {
                findings.push(Finding {
                    sink: held.name.clone(),
                    unit: Some((*unit).clone()),
                    generation: Some(*highest),
                    problem: Problem::Behind,
                    detail: if here == 0 { "it has none".to_owned() } else { format!("it has generation {here}") },
                    repaired: false,
                });
            }
        }
    }
    findings
}
