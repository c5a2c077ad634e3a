//! How far a run is: bars on a terminal, a line a minute in a log, events for programs.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdrvault_format::partition::Unit;
use cdrvault_plugin::progress::{Progress, Quiet};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::globals::Globals;
use crate::output::{self, BARS};

/// How often a log gets a line.
const LINE: Duration = Duration::from_mins(1);

/// How often a program that reads events gets one.
const EVENT: Duration = Duration::from_secs(1);

/// Bars on a terminal, lines where `-v` wants them, nothing elsewhere.
pub(crate) fn of(globals: &Globals) -> Arc<dyn Progress> {
    if globals.quiet || globals.json {
        Arc::new(Quiet)
    } else if output::on_terminal() && !globals.no_progress && !output::speaks_json() {
        Arc::new(Bars::default())
    } else if globals.verbose > 0 {
        Arc::new(Lines::new(LINE, |tally| tracing::info!("{}", tally.line())))
    } else {
        Arc::new(Quiet)
    }
}

/// The same, and with `--json` events on standard output.
pub(crate) fn of_run(globals: &Globals) -> Arc<dyn Progress> {
    if globals.json { Arc::new(Events::new()) } else { of(globals) }
}

/// What was planned and done, of one dataset or of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Count {
    planned: u64,
    done: u64,
    failed: u64,
    rows: u64,
    bytes: u64,
    #[serde(skip)]
    in_work: u64,
    #[serde(skip)]
    began: Option<Instant>,
}

impl Count {
    fn seconds(&self) -> f64 {
        self.began.map_or(0.0, |began| began.elapsed().as_secs_f64())
    }

    /// `1,234,567 rows, 512.3 MiB, 210,000 rows/s, 2 min left`
    fn text(&self) -> String {
        let seconds = self.seconds();
        let mut parts = Vec::new();
        if self.rows > 0 {
            parts.push(format!("{} rows", output::count(self.rows)));
        }
        parts.push(output::size(self.bytes));
        // The first moments tell nothing of the rest.
        if seconds >= 1.0 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a human-readable rate")]
            let per_second = |count: u64| (count as f64 / seconds) as u64;
            parts.push(if self.rows > 0 {
                format!("{} rows/s", output::count(per_second(self.rows)))
            } else {
                format!("{}/s", output::size(per_second(self.bytes)))
            });
            if let Some(left) = self.left(seconds) {
                parts.push(format!("{} left", output::ago(left)));
            }
        }
        parts.join(", ")
    }

    /// The seconds that the rest takes, if it is like what is done.
    fn left(&self, seconds: f64) -> Option<i64> {
        if self.done == 0 || self.done >= self.planned {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a human-readable estimate")]
        Some((seconds / self.done as f64 * (self.planned - self.done) as f64) as i64)
    }
}

/// The counts of a whole run.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tally(BTreeMap<String, Count>);

impl Tally {
    fn planned(&mut self, units: &BTreeMap<String, u64>) {
        for (dataset, units) in units {
            self.of(dataset).planned += units;
        }
    }

    fn began(&mut self, unit: &Unit) {
        let count = self.of(&unit.dataset);
        count.in_work += 1;
        count.began.get_or_insert_with(Instant::now);
    }

    fn read(&mut self, unit: &Unit, rows: u64, bytes: u64) {
        let count = self.of(&unit.dataset);
        count.rows += rows;
        count.bytes += bytes;
    }

    fn ended(&mut self, unit: &Unit, failed: bool) {
        let count = self.of(&unit.dataset);
        count.in_work = count.in_work.saturating_sub(1);
        count.done += 1;
        count.failed += u64::from(failed);
    }

    fn of(&mut self, dataset: &str) -> &mut Count {
        self.0.entry(dataset.to_owned()).or_default()
    }

    fn all(&self) -> Count {
        self.0.values().fold(Count::default(), |all, one| Count {
            planned: all.planned + one.planned,
            done: all.done + one.done,
            failed: all.failed + one.failed,
            rows: all.rows + one.rows,
            bytes: all.bytes + one.bytes,
            in_work: all.in_work + one.in_work,
            began: all.began.into_iter().chain(one.began).min(),
        })
    }

    /// `12 of 365 partitions, 1,234,567 rows, ...; in work: ar_cdr`
    fn line(&self) -> String {
        let all = self.all();
        let failed = if all.failed > 0 { format!(" ({} failed)", all.failed) } else { String::new() };
        let at: Vec<&str> = self.0.iter().filter(|(_, one)| one.in_work > 0).map(|(name, _)| name.as_str()).collect();
        let at = if at.is_empty() { String::new() } else { format!("; in work: {}", at.join(", ")) };
        format!("{} of {} partitions{failed}, {}{at}", all.done, all.planned, all.text())
    }
}

// A thread that panicked with the lock held left at most one count wrong.
fn with<T, R>(mutex: &Mutex<T>, work: impl FnOnce(&mut T) -> R) -> R {
    work(&mut mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A bar for the run, and one for each flow while it is in work.
#[derive(Default)]
struct Bars(Mutex<Drawn>);

#[derive(Default)]
struct Drawn {
    tally: Tally,
    run: Option<ProgressBar>,
    flows: BTreeMap<String, ProgressBar>,
}

impl Drawn {
    fn update(&mut self) {
        let all = self.tally.all();
        let run = self.run.get_or_insert_with(|| {
            BARS.set_draw_target(ProgressDrawTarget::stderr());
            let bar = BARS.add(ProgressBar::new(0).with_style(style("{elapsed_precise}", "cyan")));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        run.set_length(all.planned);
        run.set_position(all.done);
        run.set_message(all.text());
    }

    fn update_flow(&mut self, dataset: &str) {
        let Some(count) = self.tally.0.get(dataset) else { return };
        if count.in_work == 0 && count.done >= count.planned {
            if let Some(bar) = self.flows.remove(dataset) {
                bar.finish_and_clear();
                BARS.remove(&bar);
            }
            return;
        }
        let bar = self.flows.entry(dataset.to_owned()).or_insert_with(|| {
            BARS.add(ProgressBar::new(0).with_style(style("{prefix:8}", "blue")).with_prefix(dataset.to_owned()))
        });
        bar.set_length(count.planned);
        bar.set_position(count.done);
        bar.set_message(count.text());
    }
}

fn style(head: &str, color: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(&format!("{head} {{bar:24.{color}}} {{pos}}/{{len}}  {{wide_msg}}"));
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Bars {
    fn planned(&self, units: &BTreeMap<String, u64>) {
        with(&self.0, |drawn| {
            drawn.tally.planned(units);
            drawn.update();
        });
    }

    fn began(&self, unit: &Unit) {
        with(&self.0, |drawn| {
            drawn.tally.began(unit);
            drawn.update_flow(&unit.dataset);
            drawn.update();
        });
    }

    fn read(&self, unit: &Unit, rows: u64, bytes: u64) {
        with(&self.0, |drawn| {
            drawn.tally.read(unit, rows, bytes);
            drawn.update_flow(&unit.dataset);
            drawn.update();
        });
    }

    fn ended(&self, unit: &Unit, failed: bool) {
        with(&self.0, |drawn| {
            drawn.tally.ended(unit, failed);
            drawn.update_flow(&unit.dataset);
            drawn.update();
        });
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        with(&self.0, |drawn| {
            for bar in drawn.flows.values().chain(&drawn.run) {
                bar.finish_and_clear();
            }
        });
        // What is said afterwards is said below, and nothing is drawn any more.
        let _ = BARS.clear();
        BARS.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// Tells now and then how far it is, as long as something is in work.
struct Lines {
    tally: Arc<Mutex<Tally>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    fn new(every: Duration, tell: impl Fn(&Tally) + Send + 'static) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, stopped) = mpsc::channel();
        let seen = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            let mut told = Tally::default();
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let now = with(&seen, |tally| tally.clone());
                if now != told {
                    tell(&now);
                    told = now;
                }
            }
        });
        Self { tally, stop: Some(stop), thread: Some(thread) }
    }
}

impl Progress for Lines {
    fn planned(&self, units: &BTreeMap<String, u64>) {
        with(&self.tally, |tally| tally.planned(units));
    }

    fn began(&self, unit: &Unit) {
        with(&self.tally, |tally| tally.began(unit));
    }

    fn read(&self, unit: &Unit, rows: u64, bytes: u64) {
        with(&self.tally, |tally| tally.read(unit, rows, bytes));
    }

    fn ended(&self, unit: &Unit, failed: bool) {
        with(&self.tally, |tally| tally.ended(unit, failed));
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Each step as a line of JSON on standard output, and each second how far it is.
struct Events(Lines);

impl Events {
    fn new() -> Self {
        Self(Lines::new(EVENT, |tally| emit("progress", &tally.all())))
    }
}

/// That standard output is closed does not stop a backup.
fn emit<T: Serialize>(name: &str, value: &T) {
    if let Err(error) = output::event(name, value) {
        tracing::debug!("{}", error.one_line());
    }
}

impl Progress for Events {
    fn planned(&self, units: &BTreeMap<String, u64>) {
        #[derive(Serialize)]
        struct Planned<'a> {
            units: &'a BTreeMap<String, u64>,
        }
        self.0.planned(units);
        emit("planned", &Planned { units });
    }

    fn began(&self, unit: &Unit) {
        self.0.began(unit);
        emit("began", unit);
    }

    fn read(&self, unit: &Unit, rows: u64, bytes: u64) {
        self.0.read(unit, rows, bytes);
    }

    fn ended(&self, unit: &Unit, failed: bool) {
        #[derive(Serialize)]
        struct Ended<'a> {
            #[serde(flatten)]
            unit: &'a Unit,
            failed: bool,
        }
        self.0.ended(unit, failed);
        emit("ended", &Ended { unit, failed });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use cdrvault_format::partition::Partition;

    use super::*;

    fn half_done() -> Tally {
        let unit = Unit::new("ar_cdr", Partition::Snapshot);
        let mut tally = Tally::default();
        tally.planned(&BTreeMap::from([("ar_cdr".to_owned(), 3), ("etc".to_owned(), 1)]));
        tally.began(&unit);
        tally.read(&unit, 1_200_000, 3 << 20);
        tally.ended(&unit, true);
        tally.began(&unit);
        tally
    }

    #[test]
    fn a_line_tells_how_far_everything_is() {
        let mut tally = half_done();
        assert_eq!(tally.line(), "1 of 4 partitions (1 failed), 1,200,000 rows, 3.0 MiB; in work: ar_cdr");
        tally.of("ar_cdr").began = Instant::now().checked_sub(Duration::from_mins(10));
        let line = tally.line();
        assert!(line.contains(" rows/s, 30 min left; in work: ar_cdr"), "{line}");
    }

    #[test]
    fn lines_are_told_while_something_changes_and_end_with_the_run() {
        let (tell, told) = mpsc::channel();
        let lines = Lines::new(Duration::from_millis(1), move |tally| drop(tell.send(tally.line())));
        let unit = Unit::new("etc", Partition::Snapshot);
        lines.planned(&BTreeMap::from([("etc".to_owned(), 1)]));
        lines.began(&unit);
        let wait = Duration::from_mins(1);
        while !told.recv_timeout(wait).unwrap().contains("in work: etc") {}
        lines.ended(&unit, false);
        while !told.recv_timeout(wait).unwrap().contains("1 of 1 partitions") {}
        drop(lines);
        assert_eq!(told.recv(), Err(mpsc::RecvError));
    }
}
