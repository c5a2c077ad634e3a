//! A simulator of Asterisell's rating engine.
//!
//! The real one rates a range of days in one transaction: it deletes the calls, loads them again, announces the days that
//! changed, and commits. So does this one, with the generator's calls; what it did can be repeated from the seed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cdrvault::generator::{Day, Generator, Row, Settings, mysql, sqlite};
use jiff::civil::Date;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, SqliteConnection};

use super::mariadb::Engine;
use super::rating_day::RatingDay;

/// The database that is rated in.
pub(crate) enum Billing {
    /// With the engine of the calls, which decides on the isolation.
    MariaDb(MySqlConnection, Engine),
    /// The embedded one.
    Sqlite(SqliteConnection),
}

/// Something that the engine, or its admin, does. Days are numbers in the engine's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Rates days again, without any new rate: only the ids change.
    Renumber(Range<usize>),
    /// Rates days again, with new rates for so many per cent of the calls.
    Rerate(Range<usize>, u8),
    /// The same from a day on; the delete has an open end.
    RerateFrom(usize, u8),
    /// Rates a day again whose calls are all gone.
    Empty(usize),
    /// Calls of a day arrive late.
    Late(usize),
    /// An admin changes a day in SQL. Nothing is announced.
    ByHand(usize),
}

/// What an engine did.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    /// The operations that were committed.
    pub(crate) done: Vec<Operation>,
    /// Those that failed and were rolled back, and why: a lock that somebody held too long (1205) is a fault of ours.
    pub(crate) failed: Vec<(Operation, String)>,
}

/// The engine.
pub(crate) struct RatingEngine {
    settings: Settings,
    generator: Generator,
    days: Vec<RatingDay>,
    rng: ChaCha8Rng,
    round: u32,
    by_hand: bool,
    report: Report,
}

/// An engine at work on a thread of its own.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<RatingEngine>,
}

impl RatingEngine {
    /// An engine for consecutive days from `settings.start` on.
    pub(crate) fn new(settings: Settings, days: usize) -> Self {
        let dates = settings.start.series(jiff::Span::new().days(1)).take(days);
        Self {
            settings,
            generator: Generator::new(settings),
            days: dates.map(RatingDay::new).collect(),
            rng: ChaCha8Rng::seed_from_u64(settings.seed),
            round: 0,
            by_hand: false,
            report: Report::default(),
        }
    }

    /// With changes by hand among the random operations.
    pub(crate) fn with_changes_by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// The days.
    pub(crate) fn dates(&self) -> Vec<Date> {
        self.days.iter().map(|day| day.date).collect()
    }

    /// What was done so far.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// Loads all days for the first time, and announces them.
    pub(crate) async fn load(&self, billing: &mut Billing) -> sqlx::Result<()> {
        billing.begin().await?;
        for day in &self.days {
            let Day { cdrs, source_cdrs } = self.generator.day(day.date);
            billing.insert(source_cdrs).await?;
            billing.insert(cdrs).await?;
            billing.announce(day.date).await?;
        }
        billing.execute("COMMIT").await
    }

    /// What comes next, at random.
    pub(crate) fn draw(&mut self) -> Operation {
        let first = self.rng.random_range(0..self.days.len());
        let some = first..(first + self.rng.random_range(1..=3)).min(self.days.len());
        let percent = self.rng.random_range(1..=60);
        match self.rng.random_range(0..100) {
            0..30 => Operation::Renumber(some),
            30..65 => Operation::Rerate(some, percent),
            65..75 => Operation::RerateFrom(first, percent),
            75..83 => Operation::Empty(first),
            83..92 if self.by_hand => Operation::ByHand(first),
            _ => Operation::Late(first),
        }
    }

    /// Does it, wholly or not at all.
    pub(crate) async fn apply(&mut self, billing: &mut Billing, operation: Operation) -> sqlx::Result<()> {
        self.round += 1;
        let days = self.days.clone();
        let done = self.transact(billing, &operation).await;
        match &done {
            Ok(()) => self.report.done.push(operation),
            Err(error) => {
                self.days = days;
                self.report.failed.push((operation, error.to_string()));
                billing.execute("ROLLBACK").await?;
            }
        }
        done
    }

    async fn transact(&mut self, billing: &mut Billing, operation: &Operation) -> sqlx::Result<()> {
        billing.begin().await?;
        match operation {
            Operation::Renumber(days) => self.rate(billing, days.clone(), None, false).await?,
            Operation::Rerate(days, percent) => self.rate(billing, days.clone(), Some(*percent), false).await?,
            Operation::RerateFrom(first, percent) => {
                self.rate(billing, *first..self.days.len(), Some(*percent), true).await?;
            }
            Operation::Empty(day) => {
                let date = self.days[*day].date;
                billing.delete(date, Some(next(date))).await?;
                billing.announce(date).await?;
            }
            Operation::Late(day) => {
                self.days[*day].late += 1;
                let state = self.days[*day];
                let sources = state.late_calls(self.settings, state.late).source_cdrs;
                billing.insert(sources).await?;
                self.rate(billing, *day..*day + 1, None, false).await?;
            }
            Operation::ByHand(day) => {
                let date = self.days[*day].date;
                let range = format!("calldate >= '{date}' AND calldate < '{}'", next(date));
                billing
                    .execute(&format!("UPDATE ar_cdr SET income = income + 1 WHERE {range} AND billsec > 60"))
                    .await?;
                billing
                    .execute(&format!("UPDATE ar_source_cdr SET is_hacked = 1 WHERE {range} AND id % 50 = 0"))
                    .await?;
            }
        }
        billing.execute("COMMIT").await
    }

    /// Deletes a range of days, loads it again and announces it.
    async fn rate(
        &mut self,
        billing: &mut Billing,
        days: Range<usize>,
        percent: Option<u8>,
        open_end: bool,
    ) -> sqlx::Result<()> {
        let Some(last) = self.days.get(days.end - 1).map(|day| day.date) else { return Ok(()) };
        billing.delete(self.days[days.start].date, (!open_end).then(|| next(last))).await?;
        for day in &mut self.days[days.clone()] {
            day.ids = self.round;
            if let Some(percent) = percent {
                day.rates = (self.round, percent);
            }
            billing.insert(day.cdrs(&self.generator, self.settings)).await?;
        }
        for day in &self.days[days] {
            billing.announce(day.date).await?;
        }
        Ok(())
    }

    /// Works at random, on a thread of its own, until it is stopped or has done so many operations.
    pub(crate) fn spawn(mut self, mut billing: Billing, pause: Duration, limit: usize) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = async move {
            let until = self.report.done.len() + self.report.failed.len() + limit;
            while !stopped.load(Ordering::Relaxed) && self.report.done.len() + self.report.failed.len() < until {
                let operation = self.draw();
                // A failure is in the report.
                let _ = self.apply(&mut billing, operation).await;
                tokio::time::sleep(pause).await;
            }
            billing.close().await;
            self
        };
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(work)
        });
        Running { stop, thread }
    }
}

impl Running {
    /// Whether it did all that it was asked for.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets it finish what it is at, and gives it back.
    pub(crate) fn stop(self) -> RatingEngine {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the simulator does not panic")
    }

    /// Waits until it did all that it was asked for, and gives it back.
    pub(crate) fn finish(self) -> RatingEngine {
        self.thread.join().expect("the simulator does not panic")
    }
}

impl Billing {
    async fn begin(&mut self) -> sqlx::Result<()> {
        match self {
            Self::MariaDb(connection, engine) => {
                // MyRocks knows no READ UNCOMMITTED.
                let level = if *engine == Engine::InnoDb { "READ UNCOMMITTED" } else { "READ COMMITTED" };
                let sql = format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}; SET autocommit = 0");
                connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            }
            Self::Sqlite(connection) => {
                connection.execute("BEGIN IMMEDIATE").await?;
            }
        }
        Ok(())
    }

    async fn insert<R: Row>(&mut self, rows: Vec<R>) -> sqlx::Result<()> {
        match self {
            Self::MariaDb(connection, _) => mysql::insert(connection, rows).await,
            Self::Sqlite(connection) => sqlite::insert(connection, rows).await,
        }
    }

    /// Deletes the rated calls of a range, or from a day on.
    async fn delete(&mut self, from: Date, to: Option<Date>) -> sqlx::Result<()> {
        let end = to.map(|to| format!(" AND calldate < '{to} 00:00:00'")).unwrap_or_default();
        self.execute(&format!("DELETE FROM ar_cdr WHERE calldate >= '{from} 00:00:00'{end}")).await
    }

    /// Tells every job that a day changed.
    async fn announce(&mut self, date: Date) -> sqlx::Result<()> {
        match self {
            Self::MariaDb(..) => self.execute(&format!("CALL add_daily_status_change_event('{date}')")).await,
            Self::Sqlite(connection) => sqlite::announce(connection, date).await,
        }
    }

    async fn execute(&mut self, sql: &str) -> sqlx::Result<()> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self {
            Self::MariaDb(connection, _) => connection.execute(sql).await.map(drop),
            Self::Sqlite(connection) => connection.execute(sql).await.map(drop),
        }
    }

    async fn close(self) {
        let _ = match self {
            Self::MariaDb(connection, _) => connection.close().await,
            Self::Sqlite(connection) => connection.close().await,
        };
    }
}

fn next(date: Date) -> Date {
    date.tomorrow().expect("no test reaches the year 9999")
}
