//! What a run, or a verification, did, in one line.

use cdrvault_engine::history::Line;
use cdrvault_engine::report::{Report, UnitResult};

use crate::output::{self, plural};

/// What a line of the history did, in words.
pub(crate) fn did(line: &Line) -> String {
    let Some(verified) = &line.verified else { return summary(&line.report) };
    let mut parts =
        vec![format!("{} read and good ({})", plural(verified.good, "generation"), output::size(verified.bytes))];
    if verified.repaired > 0 {
        parts.push(format!("{} repaired", verified.repaired));
    }
    if verified.damage > 0 {
        parts.push(plural(verified.damage, "finding"));
    }
    let seconds = line.report.finished.duration_since(line.report.started).as_secs_f64();
    format!("{} in {seconds:.1} s", parts.join(", "))
}

/// What a run did.
pub(crate) fn summary(report: &Report) -> String {
    let (units, rows, bytes) = report.published();
    let unchanged = report.units.iter().filter(|unit| matches!(unit.result, UnitResult::Unchanged)).count();
    let failed = report.units.iter().filter(|unit| matches!(unit.result, UnitResult::Failed { .. })).count();
    let mut parts = Vec::new();
    if units > 0 {
        parts.push(format!(
            "{} published ({} rows, {})",
            plural(units, "partition"),
            output::count(rows),
            output::size(bytes)
        ));
    }
    if unchanged > 0 {
        parts.push(format!("{unchanged} unchanged"));
    }
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    for (sink, copies) in &report.caught_up {
        parts.push(format!("{sink} caught up by {}", plural(*copies, "partition")));
    }
    for (sink, versions) in &report.pruned {
        parts.push(format!("{} pruned in {sink}", plural(*versions, "version")));
    }
    if parts.is_empty() {
        parts.push(if report.all_failures().is_empty() { "nothing to do" } else { "nothing was done" }.to_owned());
    }
    let seconds = report.finished.duration_since(report.started).as_secs_f64();
    format!("{} in {seconds:.1} s", parts.join(", "))
}
