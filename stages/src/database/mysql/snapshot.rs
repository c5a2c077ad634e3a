//! One consistent view of the database, on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::stage::Snapshot;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::columns::Reading;
use super::connect::{ANSWER, Target, execute, hang_up, integer, query, query_integer, quoted, text, within};
use super::decode::BatchDecoder;
use super::error::explain;
use super::walk::condition;
use super::wire::{Connection, Selected};
use crate::database::reading::{Batches, read_ahead};
use crate::database::tables::Table;

/// How long the server may keep us waiting for the next batch, which it may have to sort first.
const STALL: Duration = Duration::from_mins(10);

/// An open transaction. One partition is read at a time, since they share its connection.
pub(super) struct MySqlSnapshot {
    connection: Arc<Mutex<Option<Connection>>>,
    /// For a connection to the same server.
    target: Target,
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
    pub(super) async fn open(
        cx: &Context,
        target: &Target,
        mut connection: Connection,
        limit: Duration,
    ) -> Result<Self> {
        let opening = async {
            execute(&mut connection, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            execute(&mut connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
        };
        within(cx, ANSWER, "open a snapshot", opening).await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(connection))),
            target: target.clone(),
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
        let mut shared = cx.unless_cancelled(async { Ok(Arc::clone(&self.connection).lock_owned().await) }).await?;
        // Taken out, so that a read that was given up halfway is not gone on with.
        let mut connection = shared.take().ok_or_else(lost)?;
        let doing = format!("read table {}", table.name);
        let preparing = condition(&mut connection, &table, partition);
        let condition = in_time(cx, self.deadline, &doing, preparing).await?;
        let order: Vec<String> = table.key.iter().map(|name| quoted(name)).collect();
        let select = format!(
            "SELECT {} FROM {} WHERE {condition} ORDER BY {}",
            BatchDecoder::select_list(&table),
            quoted(&table.name),
            order.join(", ")
        );
        let (target, deadline) = (self.target.clone(), self.deadline);
        let reader = Reader { cx: cx.clone(), target, connection, shared, table, condition, select, doing, deadline };
        Ok(read_ahead(|batches| reader.run(batches)))
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
    target: Target,
    connection: Connection,
    /// Where the connection goes when all was read.
    shared: OwnedMutexGuard<Option<Connection>>,
    table: Arc<Table<Reading>>,
    condition: String,
    select: String,
    doing: String,
    deadline: Instant,
}

/// So many rows that are too long are named.
const NAMED: usize = 3;

impl Reader {
    async fn run(mut self, batches: Batches) -> Result<()> {
        let mut read: i64 = 0;
        {
            let selecting = BatchesOf::select(&mut self.connection, &self.table, &self.select);
            let mut found = in_time(&self.cx, self.deadline, &self.doing, selecting).await?;
            loop {
                let next = in_time(&self.cx, self.deadline, &self.doing, found.next()).await;
                let Some(batch) = (match next {
                    Err(error) if error.kind() == Kind::Refused => {
                        return Err(self.long_rows().await.unwrap_or(error));
                    }
                    next => next?,
                }) else {
                    break;
                };
                read += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
                if batches.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        // A count by the server would scan the partition once more. The sweep compares one some day, with the sums.
        let counting = query_integer(&mut self.connection, "SELECT FOUND_ROWS()");
        let sent = in_time(&self.cx, self.deadline, &self.doing, counting).await?.unwrap_or(0);
        if read != sent {
            return Err(Error::new(
                Kind::Damaged,
                format!("cannot {}: {read} rows came, and the server says that it sent {sent}", self.doing),
            ));
        }
        *self.shared = Some(self.connection);
        Ok(())
    }

    /// Which rows are longer than we read. Another connection asks for them: on ours, the row still comes in.
    async fn long_rows(&self) -> Option<Error> {
        let limit = self.target.longest_row;
        let keys = self.table.key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let length = BatchDecoder::length(&self.table);
        let sql = format!(
            "SELECT {length}, {keys} FROM {} WHERE ({}) AND {length} > {} LIMIT {}",
            quoted(&self.table.name),
            self.condition,
            // What each value, and the row, has beside its bytes.
            limit.saturating_sub(self.table.columns.len() * 20 + 64),
            NAMED + 1
        );
        let asking = async {
            let mut connection = self.target.connect(&self.cx).await?;
            let rows = query(&mut connection, &sql).await?;
            hang_up(connection).await;
            Ok(rows)
        };
        let rows = within(&self.cx, STALL, &self.doing, asking).await.ok()?;
        let longest = rows.iter().filter_map(|row| integer(row, 0)).max()?;
        let named = rows.iter().take(NAMED).map(|row| {
            let names = self.table.key.iter().enumerate();
            let parts = names.map(|(at, name)| format!("{name} = {}", text(row, at + 1).unwrap_or("NULL".to_owned())));
            parts.collect::<Vec<_>>().join(", ")
        });
        let named = named.collect::<Vec<_>>().join("; ");
        let more = if rows.len() > NAMED { "; and more" } else { "" };
        let error = Error::new(
            Kind::Refused,
            format!("table `{}` has rows longer than `max-row`, {limit} bytes: {named}{more}", self.table.name),
        );
        let mebibytes = (u64::try_from(longest).unwrap_or(0) >> 20) + 1;
        Some(error.hint(format!(
            "set `max-row = \"{mebibytes}MiB\"` of the database or higher, where there is ten times as much memory"
        )))
    }
}

/// What the server sends next, before the snapshot's end and unless it says nothing for long.
async fn in_time<T>(cx: &Context, deadline: Instant, doing: &str, next: impl Future<Output = Result<T>>) -> Result<T> {
    let too_long = || {
        Error::new(Kind::Failed, format!("cannot {doing}: the snapshot is open too long"))
            .hint("raise `snapshot-limit` of the database, or find out what slows the reading down")
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(too_long());
    }
    match within(cx, STALL.min(left), doing, next).await {
        Err(error) if error.kind() == Kind::Transient && Instant::now() >= deadline => Err(too_long()),
        next => next,
    }
}

/// The batches of a select of [`BatchDecoder::select_list`].
pub(super) struct BatchesOf<'c> {
    rows: Selected<'c>,
    /// `None` once all rows came.
    decoder: Option<BatchDecoder>,
    doing: String,
}

impl<'c> BatchesOf<'c> {
    pub(super) async fn select(connection: &'c mut Connection, table: &Arc<Table<Reading>>, sql: &str) -> Result<Self> {
        let doing = format!("read table {}", table.name);
        let rows = connection.select(sql).await.map_err(|error| explain(&doing, error))?;
        Ok(Self { rows, decoder: Some(BatchDecoder::new(Arc::clone(table))), doing })
    }

    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        while let Some(row) = self.rows.next().await.map_err(|error| explain(&self.doing, error))? {
            if let Some(batch) = decoder.push(&row)? {
                return Ok(Some(batch));
            }
        }
        let last = decoder.finish();
        self.decoder = None;
        last
    }
}

fn lost() -> Error {
    Error::new(Kind::Transient, "the snapshot's connection is gone")
}
