//! K, the connection that holds the lock. All writes to the event tables go through it, so a run that loses it loses both
//! the lock and the ability to delete.

use cdrvault_format::error::{Error, Kind, Result};

use super::connect::{ANSWER, execute, hang_up, query, query_integer, silent};
use super::error::explain;
use super::wire::{Connection, Row};

/// How long the server may take to show that it is there.
const PING: std::time::Duration = std::time::Duration::from_secs(10);

/// See the module. A server that does not answer in time is given up: what it still does is not known, and a frozen one
/// must not hold up the end of the run.
pub(super) struct Holder {
    /// `None` once it was given up.
    connection: Option<Connection>,
}

impl Holder {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Some(connection) }
    }

    async fn say<T>(&mut self, statement: impl AsyncFnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let connection = self.connection.as_mut().ok_or_else(lost_lock)?;
        let said = tokio::time::timeout(ANSWER, statement(connection)).await;
        said.unwrap_or_else(|_| {
            self.connection = None;
            Err(silent("reach the event tables", ANSWER))
        })
    }

    /// See [`execute`].
    pub(super) async fn execute(&mut self, sql: &str) -> Result<u64> {
        self.say(async |connection| execute(connection, sql).await).await
    }

    /// See [`query`].
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.say(async |connection| query(connection, sql).await).await
    }

    /// See [`query_integer`].
    pub(super) async fn query_integer(&mut self, sql: &str) -> Result<Option<i64>> {
        self.say(async |connection| query_integer(connection, sql).await).await
    }

    /// An error unless it still holds its connection.
    pub(super) async fn ping(&mut self) -> Result<()> {
        let connection = self.connection.as_mut().ok_or_else(lost_lock)?;
        match tokio::time::timeout(PING, connection.ping()).await {
            Ok(answered) => answered.map_err(|error| explain("ping the server", error)),
            Err(_) => Err(silent("ping the server", PING)),
        }
    }

    pub(super) async fn hang_up(self) {
        if let Some(connection) = self.connection {
            hang_up(connection).await;
        }
    }
}

/// Not worth trying again in this run: another connection would hold no lock.
pub(super) fn lost_lock() -> Error {
    Error::new(Kind::Failed, "the connection that holds the database lock is lost")
        .hint("nothing was lost: what is not delivered stays owed, and the next run delivers it")
}
