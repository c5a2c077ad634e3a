//! K, the connection that holds the lock, and what hangs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_format::tripwire::Tripwire;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::stage::{OnAnnounced, Opened, Session, Snapshot};
use futures::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::columns::{self, Reading};
use super::connect::{ANSWER, Target, hang_up, literal, query_integer, within};
use super::holder::{Holder, lost_lock};
use super::snapshot::MySqlSnapshot;
use super::wire::Connection;
use super::{queue, server, walk};
use crate::database::jobs::JobIds;
use crate::database::tables::{Found, Queued, Table, Tables};

/// How long a run waits for the lock of one that ended.
const LOCK_WAIT_SECONDS: u32 = 10;

/// How long the answer to a question may take: the sums of a day of millions of calls on a slow disk.
const QUESTION: Duration = Duration::from_mins(10);

/// How often K shows the server, and every firewall on the way, that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// The flows of one pipeline on one MariaDB or MySQL database.
pub(crate) struct MySqlSession {
    target: Target,
    snapshot_limit: Duration,
    locked: Arc<Mutex<Option<Locked>>>,
    /// For questions that need no lock: days, sums, columns.
    asking: Mutex<Option<Connection>>,
    heartbeat: Mutex<Option<JoinHandle<()>>>,
}

/// K and what it knows.
struct Locked {
    k: Holder,
    id: i64,
    lock: String,
    /// Of the flows that are registered.
    jobs: BTreeMap<String, JobIds>,
    /// Days in the queue that are not real dates.
    odd: BTreeSet<String>,
    /// A dry run holds no lock.
    dry_run: bool,
}

impl MySqlSession {
    /// The server, for those who read it in their own way.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn new(target: Target, snapshot_limit: Duration) -> Self {
        Self { target, snapshot_limit, locked: Arc::default(), asking: Mutex::default(), heartbeat: Mutex::default() }
    }

    /// Runs questions on the connection that is kept for them; it is not used again after an error.
    async fn ask<T>(&self, cx: &Context, question: impl AsyncFnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let mut kept = cx.unless_cancelled(async { Ok(self.asking.lock().await) }).await?;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.target.connect(cx).await?,
        };
        let answer = within(cx, QUESTION, "look at the tables", question(&mut connection)).await;
        if answer.is_ok() {
            *kept = Some(connection);
        }
        answer
    }

    /// Runs work on K, or fails if K is lost: a run that lost it must not delete anything any more. Work that was begun is
    /// not given up when we are asked to stop, but it does not begin to wait then.
    async fn on_k<T>(&self, cx: &Context, work: impl AsyncFnOnce(&mut Locked) -> Result<T>) -> Result<T> {
        let mut shared = match self.locked.try_lock() {
            Ok(shared) => shared,
            Err(_) => cx.unless_cancelled(async { Ok(self.locked.lock().await) }).await?,
        };
        let mut locked = shared.take().ok_or_else(lost_lock)?;
        let done = work(&mut locked).await;
        // After an error, is it still K? A new connection would hold no lock.
        if done.is_ok() || locked.k.ping().await.is_ok() {
            *shared = Some(locked);
        }
        done
    }

    /// Under READ COMMITTED, or the claim's delete would block the application by a gap lock.
    async fn lock(&self, cx: &Context, dry_run: bool) -> Result<Locked> {
        let mut k = Holder::new(self.target.connect(cx).await?);
        k.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
        let id = k.query_integer("SELECT CONNECTION_ID()").await?;
        let id = id.ok_or_else(|| Error::failed("the server does not tell the number of our connection"))?;
        let lock = lock_name(cx, &self.identity());
        if !dry_run {
            // The server lets go of a lock only when it notices that a run was killed, after the statement it is at.
            let sql = format!("SELECT GET_LOCK({}, {LOCK_WAIT_SECONDS})", literal(&lock));
            if k.query_integer(&sql).await? != Some(1) {
                return Err(Error::new(
                    Kind::Locked,
                    format!("another run of pipeline `{}` holds the lock on {}", cx.writer.pipeline, self.identity()),
                )
                .hint("wait for it to end; `SHOW PROCESSLIST` shows its connections"));
            }
        }
        Ok(Locked { k, id, lock, jobs: BTreeMap::new(), odd: BTreeSet::new(), dry_run })
    }

    async fn start_heartbeat(&self) {
        let locked = Arc::clone(&self.locked);
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                let mut locked = locked.lock().await;
                let Some(held) = locked.as_mut() else { return };
                if let Err(error) = held.k.ping().await {
                    tracing::warn!(%error, "the connection that holds the database lock is lost");
                    *locked = None;
                    return;
                }
            }
        });
        if let Some(earlier) = self.heartbeat.lock().await.replace(beating) {
            earlier.abort();
        }
    }
}

/// At most 64 characters, which is what servers take.
fn lock_name(cx: &Context, database: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(cx.writer.pipeline.as_bytes());
    hash.update([0]);
    hash.update(cx.writer.id.as_bytes());
    // A pipeline may read several databases of one server.
    hash.update([0]);
    hash.update(database.as_bytes());
    format!("cdrvault:{}", &hex::encode(hash.finalize())[..32])
}

#[async_trait]
impl Session for MySqlSession {
    fn identity(&self) -> String {
        self.target.identity.clone()
    }

    async fn open(&self, cx: &Context, flows: &[String], dry_run: bool) -> Result<Opened> {
        let mut locked = self.lock(cx, dry_run).await?;
        let mut opened = Opened::default();
        let server = locked.k.query_integer("SELECT UNIX_TIMESTAMP()").await?;
        opened.clock_offset = server.map(|server| server - jiff::Timestamp::now().as_second());
        if !flows.is_empty() {
            opened.without_events = queue::obstacle(&mut locked.k).await?;
        }
        opened.server = server::of(&mut locked.k).await?;
        if opened.without_events.is_none() {
            if !flows.is_empty() {
                opened.marks = Some(queue::marks(&mut locked.k, &cx.writer).await?.0);
            }
            for flow in flows {
                if let Some(jobs) = queue::find_jobs(&mut locked.k, &cx.writer, flow).await? {
                    locked.jobs.insert(flow.clone(), jobs);
                    opened.registered.insert(flow.clone());
                }
            }
        }
        *self.locked.lock().await = Some(locked);
        self.start_heartbeat().await;
        Ok(opened)
    }

    async fn register(&self, cx: &Context, flows: &[(String, Vec<Partition>)]) -> Result<()> {
        self.on_k(cx, async |locked| {
            queue::register(&mut locked.k, &cx.writer, flows).await.at("registering with the application")?;
            for (flow, _) in flows {
                if let Some(jobs) = queue::find_jobs(&mut locked.k, &cx.writer, flow).await? {
                    locked.jobs.insert(flow.clone(), jobs);
                }
            }
            Ok(())
        })
        .await
    }

    async fn claim(&self, cx: &Context, units: &[Unit], on_announced: OnAnnounced<'_>) -> Result<()> {
        self.on_k(cx, async |locked| queue::claim(&mut locked.k, &locked.jobs, units, &locked.odd, on_announced).await)
            .await
            .at("claiming the day")
    }

    async fn snapshot(&self, cx: &Context) -> Result<Arc<dyn Snapshot>> {
        let mut connection = self.target.connect(cx).await?;
        let fencing = async {
            let (lock, id) = {
                let locked = self.locked.lock().await;
                let locked = locked.as_ref().ok_or_else(lost_lock)?;
                ((!locked.dry_run).then(|| locked.lock.clone()), locked.id)
            };
            // Asked here and not on K: it also proves that this connection reached the same server.
            if let Some(lock) = lock {
                let sql = format!("SELECT IS_USED_LOCK({})", literal(&lock));
                if query_integer(&mut connection, &sql).await? != Some(id) {
                    return Err(Error::new(
                        Kind::Transient,
                        "this connection does not see our lock: it reached another server, or the lock is lost",
                    )
                    .hint("connect to the server itself, not to a proxy or a balancer of several servers"));
                }
            }
            Ok(())
        };
        match within(cx, 2 * ANSWER, "open a snapshot", fencing).await {
            Ok(()) => Ok(Arc::new(MySqlSnapshot::open(cx, &self.target, connection, self.snapshot_limit).await?)),
            Err(error) => {
                hang_up(connection).await;
                Err(error)
            }
        }
    }

    async fn fence(&self, cx: &Context) -> Result<()> {
        self.on_k(cx, async |locked| {
            let sql = format!("SELECT IS_USED_LOCK({})", literal(&locked.lock));
            if locked.k.query_integer(&sql).await? == Some(locked.id) { Ok(()) } else { Err(lost_lock()) }
        })
        .await
    }

    async fn settle(&self, cx: &Context, units: &[Unit]) -> Result<()> {
        self.on_k(cx, async |locked| queue::settle(&mut locked.k, &locked.jobs, units, &locked.odd).await)
            .await
            .at("settling")
    }

    async fn mark(&self, cx: &Context, mark: u64) -> Result<()> {
        self.on_k(cx, async |locked| queue::mark(&mut locked.k, &cx.writer, mark).await)
            .await
            .at("marking the database")
    }

    async fn job_names(&self, cx: &Context) -> Result<Vec<String>> {
        self.on_k(cx, async |k| queue::names(&mut k.k).await).await
    }

    async fn forget_jobs(&self, cx: &Context, names: &[String]) -> Result<()> {
        self.on_k(cx, async |k| queue::forget(&mut k.k, names).await).await
    }

    async fn close(&self) {
        if let Some(beating) = self.heartbeat.lock().await.take() {
            beating.abort();
        }
        if let Some(locked) = self.locked.lock().await.take() {
            locked.k.hang_up().await;
        }
        if let Some(connection) = self.asking.lock().await.take() {
            hang_up(connection).await;
        }
    }
}

#[async_trait]
impl Tables for MySqlSession {
    type Reading = Reading;

    async fn table(&self, cx: &Context, name: &str, date_column: &str) -> Result<Table<Reading>> {
        self.ask(cx, async |connection| columns::describe(connection, name, date_column).await).await
    }

    fn with_decimals_as_text(table: Table<Reading>, wanted: impl Fn(&str) -> bool) -> Table<Reading> {
        columns::with_decimals_as_text(table, wanted)
    }

    async fn days(&self, cx: &Context, table: &Table<Reading>, range: DayRange) -> Result<Found> {
        self.ask(cx, async |connection| walk::days(connection, table, range).await).await
    }

    async fn tripwire(&self, cx: &Context, table: &Table<Reading>, partition: Partition) -> Result<Tripwire> {
        self.ask(cx, async |connection| walk::tripwire(connection, table, partition).await).await
    }

    async fn queued(&self, cx: &Context, flow: &str) -> Result<Queued> {
        self.on_k(cx, async |locked| match locked.jobs.get(flow) {
            Some(jobs) => queue::queued(&mut locked.k, *jobs, &mut locked.odd).await,
            None => Ok(Queued::default()),
        })
        .await
    }

    async fn rows(
        &self,
        cx: &Context,
        from: &Arc<dyn Snapshot>,
        table: Arc<Table<Reading>>,
        partition: Partition,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let snapshot: &dyn std::any::Any = from.as_ref();
        match snapshot.downcast_ref::<MySqlSnapshot>() {
            Some(snapshot) => snapshot.rows(cx, table, partition).await,
            None => Err(Error::failed("the snapshot belongs to another kind of database")),
        }
    }
}
