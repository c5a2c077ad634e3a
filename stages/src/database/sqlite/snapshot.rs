//! One consistent view of the file: a read transaction on a connection of its own.

use std::sync::Arc;

use arrow_array::RecordBatch;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::partition::Partition;
use cdrvault_pipeline::stage::Snapshot;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use super::columns::Declared;
use super::connect::{execute, explain, integer, query, quoted};
use super::decode::BatchDecoder;
use super::walk::condition;
use crate::database::tables::{BATCHES_AHEAD, Table};

/// An open read transaction.
pub(super) struct SqliteSnapshot {
    connection: Arc<Mutex<SqliteConnection>>,
    opened: Timestamp,
}

impl Snapshot for SqliteSnapshot {
    fn opened(&self) -> Timestamp {
        self.opened
    }
}

impl SqliteSnapshot {
    pub(super) async fn open(mut connection: SqliteConnection) -> Result<Self> {
        execute(&mut connection, "BEGIN").await?;
        // The view is taken by the first read, not by BEGIN.
        query(&mut connection, "SELECT COUNT(*) FROM sqlite_master").await?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), opened: Timestamp::now() })
    }

    pub(super) async fn rows(
        &self,
        cx: &Context,
        table: Arc<Table<Declared>>,
        partition: Partition,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        let condition = condition(&table, partition);
        let name = quoted(&table.name);
        let count = query(&mut connection, &format!("SELECT COUNT(*) FROM {name} WHERE {condition}")).await?;
        let expected = count.first().and_then(|row| integer(row, 0)).unwrap_or(0);
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(column.field.name())).collect();
        let order: Vec<String> = table.key.iter().map(|name| quoted(name)).collect();
        let select =
            format!("SELECT {} FROM {name} WHERE {condition} ORDER BY {}", columns.join(", "), order.join(", "));
        let (batches, receiver) = mpsc::channel(BATCHES_AHEAD);
        let cx = cx.clone();
        tokio::spawn(async move {
            if let Err(error) = read(cx, connection, table, select, expected, &batches).await {
                let _ = batches.send(Err(error)).await;
            }
        });
        Ok(futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|batch| (batch, receiver))
        })
        .boxed())
    }
}

async fn read(
    cx: Context,
    mut connection: OwnedMutexGuard<SqliteConnection>,
    table: Arc<Table<Declared>>,
    select: String,
    expected: i64,
    batches: &mpsc::Sender<Result<RecordBatch>>,
) -> Result<()> {
    let doing = format!("read table {}", table.name);
    let mut decoder = BatchDecoder::new(table);
    let mut read: i64 = 0;
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(|error| explain(&doing, error))? {
        read += 1;
        let batch = decoder.push(&row)?;
        drop(row);
        if let Some(batch) = batch {
            cx.check()?;
            if batches.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
    }
    if let Some(batch) = decoder.finish()? {
        let _ = batches.send(Ok(batch)).await;
    }
    if read == expected {
        Ok(())
    } else {
        Err(Error::new(
            Kind::Damaged,
            format!("cannot {doing}: it gave {read} rows, but COUNT(*) says {expected} in the same snapshot"),
        ))
    }
}
