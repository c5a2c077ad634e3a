//! Connections whose session settings never change what we read.

use std::time::Duration;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::context::Context;

use super::error::explain;
use super::wire::{Connection, Row, Server};

/// Where to connect, and how long to try.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) server: Server,
    pub(crate) identity: String,
    pub(crate) timeout: Duration,
    /// The longest row that is read.
    pub(crate) longest_row: usize,
}

/// How long a statement may take that a responsive server answers at once, lock waits included.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// What every connection needs, so that a server's or an account's defaults cannot change a value on its way: what we say
/// is utf8mb4, even to a server that does not heed what its clients propose, invalid dates may be written in conditions, TIMESTAMP is UTC, results keep the charset they are stored in (NULL),
/// nothing is cut by `sql_select_limit`, and a slow disk of ours does not make the server hang up.
const SETTINGS: &str = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
     sql_select_limit = 18446744073709551615, net_write_timeout = 600, net_read_timeout = 600, wait_timeout = 86400, \
     character_set_client = utf8mb4, collation_connection = utf8mb4_general_ci, lock_wait_timeout = 10, innodb_lock_wait_timeout = 2, sql_big_selects = 1, character_set_results = NULL";

/// What only some servers know; elsewhere it is not needed.
const SETTINGS_OF_SOME: [&str; 3] = [
    // The rows in force now, whatever moment the server shows by default.
    "SET SESSION system_versioning_asof = DEFAULT",
    "SET SESSION max_statement_time = 0",
    "SET SESSION rocksdb_lock_wait_timeout = 2",
];

impl Target {
    /// A new connection, ready to use.
    pub(crate) async fn connect(&self, cx: &Context) -> Result<Connection> {
        let doing = format!("connect to {}", self.identity);
        // A large future: boxed, so that those of all who connect stay small.
        let connecting = Box::pin(async {
            let mut connection = Connection::open(&self.server).await.map_err(|error| explain(&doing, error))?;
            connection.take_rows_up_to(self.longest_row);
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
        .hint("see whether the server responds, and what holds it up: its `SHOW PROCESSLIST` tells")
}

/// Runs a statement that gives no rows, by the text protocol; tells how many rows it touched.
pub(crate) async fn execute(connection: &mut Connection, sql: &str) -> Result<u64> {
    let touched = connection.execute(sql).await;
    touched.map_err(|error| explain(&format!("run `{}`", shorten(sql)), error))
}

/// Runs a query by the text protocol and gives all of its rows. It costs one round trip: preparing a statement for one
/// use costs two, and the packet that closes it makes the next one wait for a delayed acknowledgement (40 ms).
pub(crate) async fn query(connection: &mut Connection, sql: &str) -> Result<Vec<Row>> {
    let rows = connection.query(sql).await;
    rows.map_err(|error| explain(&format!("run `{}`", shorten(sql)), error))
}

/// The text of a value; bytes that are not valid UTF-8 are replaced, so only for what people named.
pub(crate) fn text(row: &Row, column: usize) -> Option<String> {
    row.get(column).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The integer that a query gave; `None` for NULL and for what is not an integer.
pub(crate) fn integer(row: &Row, column: usize) -> Option<i64> {
    text(row, column).and_then(|digits| digits.parse().ok())
}

/// The first value of the first row as an integer.
pub(crate) async fn query_integer(connection: &mut Connection, sql: &str) -> Result<Option<i64>> {
    Ok(query(connection, sql).await?.first().and_then(|row| integer(row, 0)))
}

/// A polite end, so that the server does not log an aborted connection.
pub(crate) async fn hang_up(connection: Connection) {
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
