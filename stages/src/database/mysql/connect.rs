//! Connections whose session settings never change what we read.

use std::time::Duration;

use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::{Error, Kind, Result};
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, Row as _};

use super::client::Login;
use super::error::explain;

/// Where to connect, and how long to try.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) options: MySqlConnectOptions,
    pub(crate) identity: String,
    pub(crate) timeout: Duration,
    /// For the server's own programs.
    pub(crate) login: Login,
}

/// How long a statement may take that a server at work answers at once, lock waits included.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// What every connection needs, so that a server's or an account's defaults cannot change a value on its way:
/// invalid dates may be written in conditions, TIMESTAMP is UTC, results keep the charset they are stored in (NULL),
/// nothing is cut by `sql_select_limit`, and a slow disk of ours does not make the server hang up.
const SETTINGS: &str = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
     sql_select_limit = DEFAULT, net_write_timeout = 600, net_read_timeout = 600, wait_timeout = 86400, \
     lock_wait_timeout = 10, innodb_lock_wait_timeout = 2, sql_big_selects = 1, character_set_results = NULL";

/// What only some servers know; elsewhere it is not needed.
const SETTINGS_OF_SOME: [&str; 3] = [
    "SET SESSION sql_select_limit = 18446744073709551615",
    "SET SESSION max_statement_time = 0",
    "SET SESSION rocksdb_lock_wait_timeout = 2",
];

impl Target {
    /// A new connection, ready to use.
    pub(crate) async fn connect(&self, cx: &Context) -> Result<MySqlConnection> {
        let doing = format!("connect to {}", self.identity);
        // A large future: boxed, so that those of all who connect stay small.
        let connecting = Box::pin(async {
            let mut connection = self.options.connect().await.map_err(|error| explain(&doing, error))?;
            execute(&mut connection, SETTINGS).await?;
            for setting in SETTINGS_OF_SOME {
                let _ = execute(&mut connection, setting).await;
            }
            Ok(connection)
        });
        let connected = cx.unless_cancelled(async { Ok(tokio::time::timeout(self.timeout, connecting).await) }).await?;
        connected.unwrap_or_else(|_| {
            Err(silent(&doing, self.timeout).hint("check the host and port in `url`, and the firewalls on the way"))
        })
    }
}

/// The answer to a question, unless it takes longer than `limit` or we are asked to stop. The server may still be at it
/// then, so the connection is not to be used again.
pub(super) async fn within<T>(
    cx: &Context,
    limit: Duration,
    doing: &str,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    let answered = cx.unless_cancelled(async { Ok(tokio::time::timeout(limit, answer).await) }).await?;
    answered.unwrap_or_else(|_| Err(silent(doing, limit)))
}

/// What a server says that does not say anything.
pub(super) fn silent(doing: &str, limit: Duration) -> Error {
    Error::new(Kind::Transient, format!("cannot {doing}: no answer within {} s", limit.as_secs()))
        .hint("see whether the server is at work, and what holds it up: its `SHOW PROCESSLIST` tells")
}

/// Runs a statement that gives no rows, by the text protocol; tells how many rows it touched.
pub(crate) async fn execute(connection: &mut MySqlConnection, sql: &str) -> Result<u64> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(|error| explain(&format!("run `{}`", shorten(sql)), error))
}

/// Runs a query by the text protocol and gives all of its rows. It costs one round trip: preparing a statement for one
/// use costs two, and the packet that closes it makes the next one wait for a delayed acknowledgement (40 ms).
pub(crate) async fn query(connection: &mut MySqlConnection, sql: &str) -> Result<Vec<MySqlRow>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
    rows.map_err(|error| explain(&format!("run `{}`", shorten(sql)), error))
}

/// The bytes of a value as the server sent them; `None` for NULL. Zero dates have bytes, whatever the driver thinks.
pub(crate) fn bytes(row: &MySqlRow, column: usize) -> Result<Option<&[u8]>> {
    use sqlx::ValueRef as _;
    let value = row.try_get_raw(column).map_err(|error| Error::failed("cannot read a column").with_source(error))?;
    match <&[u8] as sqlx::Decode<sqlx::MySql>>::decode(value) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) if row.try_get_raw(column).is_ok_and(|value| value.is_null()) => Ok(None),
        Err(cause) => Err(Error::failed("cannot read a column").with_source(cause)),
    }
}

/// The text of a value; bytes that are no UTF-8 are replaced, so only for what people named.
pub(crate) fn text(row: &MySqlRow, column: usize) -> Result<Option<String>> {
    Ok(bytes(row, column)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// The integer that a query gave; `None` for NULL and for what is no integer.
pub(crate) fn integer(row: &MySqlRow, column: usize) -> Result<Option<i64>> {
    Ok(text(row, column)?.and_then(|digits| digits.parse().ok()))
}

/// The first value of the first row as an integer.
pub(crate) async fn query_integer(connection: &mut MySqlConnection, sql: &str) -> Result<Option<i64>> {
    match query(connection, sql).await?.first() {
        Some(row) => integer(row, 0),
        None => Ok(None),
    }
}

/// A polite end, so that the server does not log an aborted connection.
pub(crate) async fn hang_up(connection: MySqlConnection) {
    let _ = tokio::time::timeout(Duration::from_secs(2), connection.close()).await;
}

/// An identifier, quoted.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text value, quoted; our sql_mode has backslash escapes on.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn shorten(sql: &str) -> String {
    let mut short: String = sql.chars().take(120).collect();
    if short.len() < sql.len() {
        short.push_str("...");
    }
    short
}
