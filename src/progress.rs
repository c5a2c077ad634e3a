//! The progress bar of a run, on a terminal.

use std::sync::Arc;
use std::time::Duration;

use cdrvault_pipeline::partition::Unit;
use cdrvault_pipeline::progress::{Progress, Quiet};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Globals;
use crate::output;

/// A bar where somebody looks on, nothing elsewhere.
pub(crate) fn of(globals: &Globals) -> Arc<dyn Progress> {
    if globals.quiet || globals.no_progress || globals.json || !output::on_terminal() {
        return Arc::new(Quiet);
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    Arc::new(Bar { bar, rows: std::sync::atomic::AtomicU64::new(0) })
}

struct Bar {
    bar: ProgressBar,
    rows: std::sync::atomic::AtomicU64,
}

impl Progress for Bar {
    fn planned(&self, units: usize) {
        self.bar.set_length(units as u64);
    }

    fn began(&self, unit: &Unit) {
        let rows = self.rows.load(std::sync::atomic::Ordering::Relaxed);
        self.bar.set_message(format!("{} rows, {unit}", output::count(rows)));
    }

    fn read(&self, rows: u64, _bytes: u64) {
        self.rows.fetch_add(rows, std::sync::atomic::Ordering::Relaxed);
    }

    fn ended(&self, _unit: &Unit, _failed: bool) {
        self.bar.inc(1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
