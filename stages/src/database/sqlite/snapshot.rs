//! One consistent view of the file: a read transaction on a connection of its own.

use std::sync::Arc;

use arrow_array::RecordBatch;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::stage::Snapshot;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard};

use super::columns::Declared;
use super::connect::{execute, explain, integer, query, quoted};
use super::decode::BatchDecoder;
use super::walk::condition;
use crate::database::reading::{Batches, read_ahead};
use crate::database::tables::Table;

/// An open read transaction.
pub(super) struct SqliteSnapshot {
    view: Arc<Mutex<View>>,
    opened: Timestamp,
}

/// What lives for as long as anything is read.
struct View {
    connection: SqliteConnection,
    /// Keeps our own claims from waiting for us inside the database.
    _undisturbed: Option<OwnedRwLockReadGuard<()>>,
}

impl Snapshot for SqliteSnapshot {
    fn opened(&self) -> Timestamp {
        self.opened
    }
}

impl SqliteSnapshot {
    pub(super) async fn open(
        mut connection: SqliteConnection,
        undisturbed: Option<OwnedRwLockReadGuard<()>>,
    ) -> Result<Self> {
        execute(&mut connection, "BEGIN").await?;
        // The view is taken by the first read, not by BEGIN.
        query(&mut connection, "SELECT COUNT(*) FROM sqlite_master").await?;
        let view = View { connection, _undisturbed: undisturbed };
        Ok(Self { view: Arc::new(Mutex::new(view)), opened: Timestamp::now() })
    }

    pub(super) async fn rows(
        &self,
        cx: &Context,
        table: Arc<Table<Declared>>,
        partition: Partition,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut view = Arc::clone(&self.view).lock_owned().await;
        let condition = condition(&table, partition);
        let name = quoted(&table.name);
        let count = query(&mut view.connection, &format!("SELECT COUNT(*) FROM {name} WHERE {condition}")).await?;
        let expected = count.first().and_then(|row| integer(row, 0)).unwrap_or(0);
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(column.field.name())).collect();
        let order: Vec<String> = table.key.iter().map(|name| quoted(name)).collect();
        let select =
            format!("SELECT {} FROM {name} WHERE {condition} ORDER BY {}", columns.join(", "), order.join(", "));
        let cx = cx.clone();
        Ok(read_ahead(async move |batches| read(cx, view, table, select, expected, batches).await))
    }
}

async fn read(
    cx: Context,
    mut view: OwnedMutexGuard<View>,
    table: Arc<Table<Declared>>,
    select: String,
    expected: i64,
    batches: Batches,
) -> Result<()> {
    let doing = format!("read table {}", table.name);
    let mut decoder = BatchDecoder::new(table);
    let mut read: i64 = 0;
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut view.connection);
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
