//! Days of calls in MariaDB or MySQL: as SQL text, which any driver and the command line client can load.

use std::fmt::Write as _;
use std::marker::PhantomData;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::calls::Rated;
use super::cdr::{Cdr, SourceCdr};
use super::row::{Row, Value};

/// The longest statement; well below the smallest `max_allowed_packet` in use, which is 1 MiB.
const STATEMENT_BYTES: usize = 768 * 1024;

/// Loads calls without a transaction of its own and without events: both are up to the caller.
pub async fn load(connection: &mut MySqlConnection, calls: impl IntoIterator<Item = Rated>) -> sqlx::Result<()> {
    let mut cdrs = Inserts::<Cdr>::default();
    let mut sources = Inserts::<SourceCdr>::default();
    for rated in calls {
        if let Some(sql) = rated.source.and_then(|source| sources.push(&source)) {
            execute(connection, sql).await?;
        }
        if let Some(sql) = cdrs.push(&rated.cdr) {
            execute(connection, sql).await?;
        }
    }
    for sql in [sources.finish(), cdrs.finish()].into_iter().flatten() {
        execute(connection, sql).await?;
    }
    Ok(())
}

/// Inserts the rows of one table.
pub async fn insert<R: Row>(connection: &mut MySqlConnection, rows: impl IntoIterator<Item = R>) -> sqlx::Result<()> {
    let mut inserts = Inserts::<R>::default();
    for row in rows {
        if let Some(sql) = inserts.push(&row) {
            execute(connection, sql).await?;
        }
    }
    if let Some(sql) = inserts.finish() {
        execute(connection, sql).await?;
    }
    Ok(())
}

async fn execute(connection: &mut MySqlConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Gathers rows into INSERT statements of many rows each.
#[derive(Debug)]
pub struct Inserts<R> {
    sql: String,
    rows: PhantomData<fn(R)>,
}

impl<R> Default for Inserts<R> {
    fn default() -> Self {
        Self { sql: String::new(), rows: PhantomData }
    }
}

impl<R: Row> Inserts<R> {
    /// Adds a row; gives a statement when it is long enough.
    pub fn push(&mut self, row: &R) -> Option<String> {
        if self.sql.is_empty() {
            self.sql = format!("INSERT INTO {} ({}) VALUES\n(", R::TABLE, R::COLUMNS.join(","));
        } else {
            self.sql.push_str(",\n(");
        }
        for (index, value) in row.values().enumerate() {
            if index > 0 {
                self.sql.push(',');
            }
            append(&mut self.sql, value);
        }
        self.sql.push(')');
        if self.sql.len() >= STATEMENT_BYTES { self.finish() } else { None }
    }

    /// The statement with the rows that are left.
    pub fn finish(&mut self) -> Option<String> {
        (!self.sql.is_empty()).then(|| std::mem::take(&mut self.sql))
    }
}

fn append(sql: &mut String, value: Value<'_>) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Null => write!(sql, "NULL"),
        Value::Integer(integer) => write!(sql, "{integer}"),
        Value::DateTime(clock) => write!(sql, "'{clock}'"),
        Value::Bytes(bytes) => return hex(sql, bytes),
        // Backslashes mean something else under NO_BACKSLASH_ESCAPES; in hexadecimal, text means the same everywhere.
        Value::Text(text) if text.bytes().any(|byte| byte == b'\\' || byte == 0) => {
            sql.push_str("_utf8mb4 ");
            return hex(sql, text.as_bytes());
        }
        Value::Text(text) if text.contains('\'') => write!(sql, "'{}'", text.replace('\'', "''")),
        Value::Text(text) => write!(sql, "'{text}'"),
    };
}

fn hex(sql: &mut String, bytes: &[u8]) {
    sql.push_str("X'");
    for byte in bytes {
        let _ = write!(sql, "{byte:02X}");
    }
    sql.push('\'');
}
