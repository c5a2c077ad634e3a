//! The flows of one pipeline on one SQLite file. There is no server to hold a lock: the lock files of the state
//! directory and of the vaults, which die with the process, are the fence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_format::tripwire::Tripwire;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::stage::{OnAnnounced, Opened, Session, Snapshot};
use futures::stream::BoxStream;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{Mutex, RwLock};

use super::columns::{self, Declared};
use super::connect::{File, connect, execute, query, text};
use super::snapshot::SqliteSnapshot;
use super::{queue, walk};
use crate::database::jobs::JobIds;
use crate::database::tables::{Found, Queued, Table, Tables};

/// See the module.
pub(crate) struct SqliteSession {
    file: File,
    open: Mutex<Option<Open>>,
    /// Whether a reader holds up a writer, as everywhere but with a write-ahead log
    /// (<https://sqlite.org/lockingv3.html>). Then our own snapshots and our writing take turns.
    takes_turns: AtomicBool,
    turns: Arc<RwLock<()>>,
}

struct Open {
    connection: SqliteConnection,
    jobs: BTreeMap<String, JobIds>,
    odd: BTreeSet<String>,
}

impl SqliteSession {
    pub(crate) fn new(path: std::path::PathBuf) -> Self {
        Self { file: File { path }, open: Mutex::default(), takes_turns: AtomicBool::new(true), turns: Arc::default() }
    }

    async fn on_open<T>(&self, work: impl AsyncFnOnce(&mut Open) -> Result<T>) -> Result<T> {
        let mut open = self.open.lock().await;
        match open.as_mut() {
            Some(open) => work(open).await,
            None => Err(Error::failed("the database is not open")),
        }
    }

    /// Writes to the queue of flows that have rows of their own; without them there is nothing to write, and a file that
    /// can only be read must do.
    async fn on_queue(
        &self,
        cx: &Context,
        units: &[Unit],
        work: impl AsyncFnOnce(&mut Open) -> Result<()>,
    ) -> Result<()> {
        if self.on_open(async |open| Ok(units.iter().all(|unit| !open.jobs.contains_key(&unit.dataset)))).await? {
            return Ok(());
        }
        self.in_turn(cx, work).await
    }

    async fn in_turn(&self, cx: &Context, work: impl AsyncFnOnce(&mut Open) -> Result<()>) -> Result<()> {
        let mut turn = None;
        if self.takes_turns.load(Ordering::Relaxed) {
            turn = Some(cx.unless_cancelled(async { Ok(self.turns.write().await) }).await?);
        }
        let done = self.on_open(work).await;
        drop(turn);
        done
    }
}

#[async_trait]
impl Session for SqliteSession {
    fn identity(&self) -> String {
        self.file.identity()
    }

    async fn open(&self, cx: &Context, flows: &[String], dry_run: bool) -> Result<Opened> {
        let path = &self.file.path;
        let (mut connection, may_write) = match connect(path, dry_run).await {
            Ok(mut connection) => {
                // A file that we may not write is opened read-only by the library, without a word.
                let may_write = dry_run
                    || match execute(&mut connection, "BEGIN IMMEDIATE; ROLLBACK").await {
                        Ok(_) => true,
                        Err(error) if error.kind() == Kind::Busy => true,
                        Err(_) => false,
                    };
                (connection, may_write)
            }
            Err(error) if error.kind() == Kind::Denied => (connect(path, true).await?, false),
            Err(error) => return Err(error),
        };
        let mode = query(&mut connection, "PRAGMA journal_mode").await?;
        let mode = mode.first().and_then(|row| text(row, 0));
        self.takes_turns.store(mode.as_deref() != Some("wal"), Ordering::Relaxed);
        let mut opened = Opened::default();
        let mut jobs = BTreeMap::new();
        if !flows.is_empty() {
            opened.without_events = queue::obstacle(&mut connection, may_write).await?;
        }
        if opened.without_events.is_none() {
            if !flows.is_empty() {
                opened.marks = Some(queue::marks(&mut connection, &cx.writer).await?);
            }
            for flow in flows {
                if let Some(ids) = queue::find_jobs(&mut connection, &cx.writer, flow).await? {
                    jobs.insert(flow.clone(), ids);
                    opened.registered.insert(flow.clone());
                }
            }
        }
        *self.open.lock().await = Some(Open { connection, jobs, odd: BTreeSet::new() });
        Ok(opened)
    }

    async fn register(&self, cx: &Context, flows: &[(String, Vec<Partition>)]) -> Result<()> {
        self.on_open(async |open| {
            queue::register(&mut open.connection, &cx.writer, flows).await.at("registering with the application")?;
            for (flow, _) in flows {
                if let Some(ids) = queue::find_jobs(&mut open.connection, &cx.writer, flow).await? {
                    open.jobs.insert(flow.clone(), ids);
                }
            }
            Ok(())
        })
        .await
    }

    async fn claim(&self, cx: &Context, units: &[Unit], on_announced: OnAnnounced<'_>) -> Result<()> {
        let claiming = async |open: &mut Open| {
            queue::claim(&mut open.connection, &open.jobs, units, &open.odd, on_announced).await
        };
        self.on_queue(cx, units, claiming).await.at("claiming the day")
    }

    async fn snapshot(&self, cx: &Context) -> Result<Arc<dyn Snapshot>> {
        let mut turn = None;
        if self.takes_turns.load(Ordering::Relaxed) {
            turn = Some(cx.unless_cancelled(async { Ok(Arc::clone(&self.turns).read_owned().await) }).await?);
        }
        Ok(Arc::new(SqliteSnapshot::open(connect(&self.file.path, true).await?, turn).await?))
    }

    async fn fence(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn settle(&self, cx: &Context, units: &[Unit]) -> Result<()> {
        let settling = async |open: &mut Open| queue::settle(&mut open.connection, &open.jobs, units, &open.odd).await;
        self.on_queue(cx, units, settling).await.at("settling")
    }

    async fn mark(&self, cx: &Context, mark: u64) -> Result<()> {
        let marking = async |open: &mut Open| queue::mark(&mut open.connection, &cx.writer, mark).await;
        self.in_turn(cx, marking).await.at("marking the database")
    }

    async fn job_names(&self, _cx: &Context) -> Result<Vec<String>> {
        self.on_open(async |open| queue::names(&mut open.connection).await).await
    }

    async fn forget_jobs(&self, _cx: &Context, names: &[String]) -> Result<()> {
        self.on_open(async |open| queue::forget(&mut open.connection, names).await).await
    }

    async fn close(&self) {
        if let Some(open) = self.open.lock().await.take() {
            let _ = open.connection.close().await;
        }
    }
}

#[async_trait]
impl Tables for SqliteSession {
    type Reading = Declared;

    async fn table(&self, _cx: &Context, name: &str, date_column: &str) -> Result<Table<Declared>> {
        self.on_open(async |open| columns::describe(&mut open.connection, name, date_column).await).await
    }

    async fn days(&self, _cx: &Context, table: &Table<Declared>, range: DayRange) -> Result<Found> {
        self.on_open(async |open| walk::days(&mut open.connection, table, range).await).await
    }

    async fn tripwire(&self, _cx: &Context, table: &Table<Declared>, partition: Partition) -> Result<Tripwire> {
        self.on_open(async |open| walk::tripwire(&mut open.connection, table, partition).await).await
    }

    async fn queued(&self, _cx: &Context, flow: &str) -> Result<Queued> {
        self.on_open(async |open| match open.jobs.get(flow) {
            Some(jobs) => queue::queued(&mut open.connection, *jobs, &mut open.odd).await,
            None => Ok(Queued::default()),
        })
        .await
    }

    async fn rows(
        &self,
        cx: &Context,
        from: &Arc<dyn Snapshot>,
        table: Arc<Table<Declared>>,
        partition: Partition,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let snapshot: &dyn std::any::Any = from.as_ref();
        match snapshot.downcast_ref::<SqliteSnapshot>() {
            Some(snapshot) => snapshot.rows(cx, table, partition).await,
            None => Err(Error::failed("the snapshot belongs to another kind of database")),
        }
    }
}
