//! Every byte is read again, decoded, and compared with what the receipts say; and the sinks with each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::findings::{Checked, Finding, Job, Problem, Report};
use super::look::{Brief, Held, Looking};
use super::repair::Mending;
use super::{find, source};
use crate::config::Pipeline;
use crate::report::Failure;
use cdrvault_format::error::{Kind, Result};
use cdrvault_format::index::Generations;
use cdrvault_format::partition::Unit;
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::lock;

/// Looks at the sinks of a pipeline. Nothing is locked or written, unless something is to be repaired. What goes wrong
/// besides takes nothing away from what was found.
pub async fn verify(cx: &Context, pipeline: &Arc<Pipeline>, codecs: &Codecs, job: &Job) -> Result<Report> {
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
        let mut looking = Looking::new(cx, codecs, job, spec, sink, datasets);
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
        let mut mending = Mending::new(cx, pipeline, codecs, &all);
        if let Err(error) = mending.mend(&mut report.findings).await {
            tell(&mut report, "the repair", error)?;
        }
    }
    for held in &all {
        held.sink.close().await;
    }
    Ok(report)
}

/// A run may be in progress: what was published since, or has reached the sink by now, or will at the end of that run, is not
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
