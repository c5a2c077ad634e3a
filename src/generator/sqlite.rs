//! Days of calls in a SQLite database with Asterisell's tables.

use std::path::Path;

use jiff::civil::Date;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};

use super::calls::Rated;
use super::cdr::{Cdr, SourceCdr};
use super::row::{Row, Value};

const SCHEMA: &str = include_str!("asterisell.sqlite.sql");

/// Rows of one statement: more gain nothing, and SQLite takes no more than 32,766 values.
const ROWS: usize = 250;

/// Makes a database file with the tables; they must not be there yet.
pub async fn create(path: &Path) -> sqlx::Result<SqliteConnection> {
    let mut connection = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await?;
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(connection)
}

/// Loads calls, in one transaction and without events, as an import from elsewhere would.
pub async fn load(connection: &mut SqliteConnection, calls: impl IntoIterator<Item = Rated>) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    let mut cdrs = Rows::<Cdr>::new();
    let mut sources = Rows::<SourceCdr>::new();
    for rated in calls {
        if let Some(source) = rated.source {
            sources.push(&mut transaction, source).await?;
        }
        cdrs.push(&mut transaction, rated.cdr).await?;
    }
    sources.flush(&mut transaction).await?;
    cdrs.flush(&mut transaction).await?;
    transaction.commit().await
}

/// Inserts the rows of one table, in the caller's transaction.
pub async fn insert<R: Row>(connection: &mut SqliteConnection, rows: impl IntoIterator<Item = R>) -> sqlx::Result<()> {
    let mut waiting = Rows::new();
    for row in rows {
        waiting.push(connection, row).await?;
    }
    waiting.flush(connection).await
}

/// Replaces the rated calls of a day and announces it to every job, in one transaction, as the rating engine does.
pub async fn rerate_day(
    connection: &mut SqliteConnection,
    date: Date,
    cdrs: impl IntoIterator<Item = Cdr>,
) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "DELETE FROM ar_cdr WHERE calldate >= ?1 || ' 00:00:00' AND calldate < date(?1, '+1 day') || ' 00:00:00'",
    )
    .bind(date.to_string())
    .execute(&mut *transaction)
    .await?;
    insert(&mut transaction, cdrs).await?;
    announce(&mut transaction, date).await?;
    transaction.commit().await
}

/// Queues a day once for every registered job, as `add_daily_status_change_event` does.
pub async fn announce(connection: &mut SqliteConnection, date: Date) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT OR IGNORE INTO ar_daily_status_change (day, ar_daily_status_job_id) SELECT ?, id FROM ar_daily_status_job",
    )
    .bind(date.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Inserts rows of one table, many with each statement.
struct Rows<R> {
    waiting: Vec<R>,
}

impl<R: Row> Rows<R> {
    fn new() -> Self {
        Self { waiting: Vec::with_capacity(ROWS) }
    }

    async fn push(&mut self, connection: &mut SqliteConnection, row: R) -> sqlx::Result<()> {
        self.waiting.push(row);
        if self.waiting.len() == ROWS { self.flush(connection).await } else { Ok(()) }
    }

    async fn flush(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut arguments = SqliteArguments::default();
        for value in self.waiting.iter().flat_map(Row::values) {
            bind(&mut arguments, value).map_err(sqlx::Error::Encode)?;
        }
        let sql = insert_sql::<R>(self.waiting.len());
        self.waiting.clear();
        // Prepared once and kept, except for the short statement at the end.
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(connection).await?;
        Ok(())
    }
}

fn bind(arguments: &mut SqliteArguments, value: Value<'_>) -> Result<(), sqlx::error::BoxDynError> {
    match value {
        Value::Null => arguments.add(None::<i64>),
        Value::Integer(integer) => arguments.add(integer),
        Value::Text(text) => arguments.add(text.to_owned()),
        Value::Bytes(bytes) => arguments.add(bytes.to_vec()),
        Value::DateTime(clock) => arguments.add(clock.to_string()),
    }
}

fn insert_sql<R: Row>(rows: usize) -> String {
    let row = format!("({})", vec!["?"; R::COLUMNS.len()].join(","));
    let rows = vec![row; rows].join(",");
    format!("INSERT INTO {} ({}) VALUES {rows}", R::TABLE, R::COLUMNS.join(","))
}
