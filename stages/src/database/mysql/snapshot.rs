//! One consistent view of the database, on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::partition::Partition;
use cdrvault_pipeline::stage::Snapshot;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, MySqlConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use super::columns::Reading;
use super::connect::{execute, hang_up, query_integer, quoted};
use super::decode::BatchDecoder;
use super::error::explain;
use super::walk::condition;
use crate::database::tables::{BATCHES_AHEAD, Table};

/// An open transaction. One partition is read at a time, since they share its connection.
pub(super) struct MySqlSnapshot {
    connection: Arc<Mutex<Option<MySqlConnection>>>,
    opened: Timestamp,
    /// A snapshot blocks ALTER TABLE, so it must end.
    deadline: Instant,
}

impl Snapshot for MySqlSnapshot {
    fn opened(&self) -> Timestamp {
        self.opened
    }
}

impl MySqlSnapshot {
    pub(super) async fn open(mut connection: MySqlConnection, limit: Duration) -> Result<Self> {
        execute(&mut connection, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        execute(&mut connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(connection))),
            opened: Timestamp::now(),
            deadline: Instant::now() + limit,
        })
    }

    /// Streams a partition's rows. Waits for the partition that is being read from the same snapshot.
    pub(super) async fn rows(
        &self,
        cx: &Context,
        table: Arc<Table<Reading>>,
        partition: Partition,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        let open = connection.as_mut().ok_or_else(lost)?;
        let condition = condition(open, &table, partition).await?;
        let count = format!("SELECT COUNT(*) FROM {} WHERE {condition}", quoted(&table.name));
        let expected = query_integer(open, &count).await?.unwrap_or(0);
        let order: Vec<String> = table.key.iter().map(|name| quoted(name)).collect();
        let select = format!(
            "SELECT {} FROM {} WHERE {condition} ORDER BY {}",
            BatchDecoder::select_list(&table),
            quoted(&table.name),
            order.join(", ")
        );
        let (batches, receiver) = mpsc::channel(BATCHES_AHEAD);
        let reader = Reader { cx: cx.clone(), connection, table, select, expected, deadline: self.deadline };
        tokio::spawn(async move {
            if let Err(error) = reader.run(&batches).await {
                let _ = batches.send(Err(error)).await;
            }
        });
        Ok(futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|batch| (batch, receiver))
        })
        .boxed())
    }
}

impl Drop for MySqlSnapshot {
    fn drop(&mut self) {
        if let (Ok(runtime), Ok(mut connection)) =
            (tokio::runtime::Handle::try_current(), Arc::clone(&self.connection).try_lock_owned())
            && let Some(connection) = connection.take()
        {
            runtime.spawn(hang_up(connection));
        }
    }
}

/// Reads one partition into a channel.
struct Reader {
    cx: Context,
    connection: OwnedMutexGuard<Option<MySqlConnection>>,
    table: Arc<Table<Reading>>,
    select: String,
    expected: i64,
    deadline: Instant,
}

impl Reader {
    async fn run(mut self, batches: &mpsc::Sender<Result<RecordBatch>>) -> Result<()> {
        // Taken out, so that a read that was given up halfway is not gone on with.
        let mut connection = self.connection.take().ok_or_else(lost)?;
        let doing = format!("read table {}", self.table.name);
        let mut read: i64 = 0;
        {
            let mut found = batches_of(&mut connection, &self.table, self.select);
            while let Some(batch) = found.try_next().await? {
                self.cx.check()?;
                if Instant::now() > self.deadline {
                    return Err(Error::new(Kind::Failed, format!("cannot {doing}: the snapshot is open too long"))
                        .hint("raise `snapshot-limit` of the database, or find out what slows the reading down"));
                }
                read += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
                if batches.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        if read != self.expected {
            return Err(Error::new(
                Kind::Damaged,
                format!(
                    "cannot {doing}: it sent {read} rows, but COUNT(*) says {} in the same snapshot",
                    self.expected
                ),
            ));
        }
        *self.connection = Some(connection);
        Ok(())
    }
}

/// The batches of a select of [`BatchDecoder::select_list`].
pub(super) fn batches_of<'c>(
    connection: &'c mut MySqlConnection,
    table: &Arc<Table<Reading>>,
    select: String,
) -> BoxStream<'c, Result<RecordBatch>> {
    let doing = format!("read table {}", table.name);
    let rows = sqlx::query(AssertSqlSafe(select)).fetch(connection);
    let state = (rows, Some(BatchDecoder::new(Arc::clone(table))), doing);
    let batches = futures::stream::try_unfold(state, |(mut rows, mut decoder, doing)| async move {
        while let Some(decoding) = &mut decoder {
            match rows.try_next().await.map_err(|error| explain(&doing, error))? {
                Some(row) => {
                    if let Some(batch) = decoding.push(&row)? {
                        return Ok(Some((batch, (rows, decoder, doing))));
                    }
                }
                None => return Ok(decoding.finish()?.map(|batch| (batch, (rows, None, doing)))),
            }
        }
        Ok(None)
    });
    batches.boxed()
}

fn lost() -> Error {
    Error::new(Kind::Transient, "the snapshot's connection is gone")
}
