//! What mirrors were told of travels to them at the end of a run, and every quarter of an hour of a long one. Only then
//! is it delivered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::group::Shop;
use crate::report::{Failure, Report, UnitResult};
use cdrvault_format::failpoint;
use cdrvault_format::partition::Unit;

/// So long the far end may stay behind.
const AT_LEAST_EVERY: Duration = Duration::from_mins(15);

/// The units that are delivered but for a flush of mirrors.
pub(super) struct Mirroring<'a> {
    shop: &'a Shop,
    /// With the mirrors that have to be flushed first.
    pub(super) awaiting: Vec<(Unit, Vec<String>)>,
    flushed: Instant,
    failed: BTreeSet<String>,
}

impl<'a> Mirroring<'a> {
    pub(super) fn new(shop: &'a Shop) -> Self {
        Self { shop, awaiting: Vec::new(), flushed: Instant::now(), failed: BTreeSet::new() }
    }

    /// Flushes when it is time, and settles what that delivered.
    pub(super) async fn flush_if_due(&mut self, report: &mut Report) -> Vec<Unit> {
        if self.flushed.elapsed() < AT_LEAST_EVERY && failpoint::hit("flush-is-not-due").is_ok() {
            return Vec::new();
        }
        for (open, sink) in self.shop.opened.mirrors() {
            // What failed before would fail again, and take as long: once more at the end is enough.
            if self.failed.contains(&open.name) {
                continue;
            }
            if let Err(error) = sink.flush(&self.shop.cx).await {
                let again = "it is tried again at the end of the run";
                report.warnings.push(format!("sink `{}`: {}; {again}", open.name, error.one_line()));
                self.failed.insert(open.name.clone());
            }
        }
        self.flushed = Instant::now();
        let late = |awaits: &[String]| awaits.iter().any(|name| self.failed.contains(name));
        let (late, delivered): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.awaiting).into_iter().partition(|(_, awaits)| late(awaits));
        self.awaiting = late;
        let delivered = delivered.into_iter().map(|(unit, _)| unit).collect();
        let mut settled = Vec::new();
        self.shop.settle_or_warn(delivered, &mut settled, &mut report.warnings).await;
        settled
    }

    /// Flushes every mirror that was told of something, at the end, and settles what that delivered.
    pub(super) async fn flush(&mut self, report: &mut Report) -> Vec<Unit> {
        let cx = &self.shop.cx;
        let awaiting = std::mem::take(&mut self.awaiting);
        self.failed.clear();
        for (open, sink) in self.shop.opened.mirrors() {
            if let Err(error) = sink.flush(cx).await {
                report.failures.push(Failure::of(&open.name, &error).counting(!open.optional));
                self.failed.insert(open.name.clone());
            }
        }
        for unit in &mut report.units {
            if let UnitResult::Published { sinks, missing, .. } = &mut unit.result
                && awaiting.iter().any(|(awaiting, _)| *awaiting == unit.unit)
            {
                for failed in sinks.extract_if(.., |sink| self.failed.contains(sink)) {
                    missing.extend(report.failures.iter().find(|failure| failure.of == failed).cloned());
                }
            }
        }
        let required = |name: &String| self.shop.opened.sinks.iter().any(|open| open.name == *name && !open.optional);
        let lacks = |awaits: &[String]| awaits.iter().any(|name| self.failed.contains(name) && required(name));
        let delivered = awaiting.into_iter().filter(|(_, awaits)| !lacks(awaits)).map(|(unit, _)| unit).collect();
        let mut settled = Vec::new();
        self.shop.settle_or_warn(delivered, &mut settled, &mut report.warnings).await;
        settled
    }
}
