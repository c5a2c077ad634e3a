//! Connections to a database file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cdrvault_format::error::{Error, Kind, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

/// How long another writer may hold us up, as on a server.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the file; it must exist.
pub(super) async fn connect(path: &Path, read_only: bool) -> Result<SqliteConnection> {
    if !path.is_file() {
        return Err(Error::new(Kind::NotFound, format!("there is no database file {}", path.display()))
            .hint("check the path in `url`"));
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(read_only)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(0)
        .row_buffer_size(512);
    options.connect().await.map_err(|error| explain(&format!("open {}", path.display()), error))
}

/// Runs a statement that gives no rows; tells how many it touched.
pub(super) async fn execute(connection: &mut SqliteConnection, sql: &str) -> Result<u64> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(|error| explain("write to the database", error))
}

/// Runs a query and gives all of its rows.
pub(super) async fn query(connection: &mut SqliteConnection, sql: &str) -> Result<Vec<SqliteRow>> {
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await;
    rows.map_err(|error| explain("read the database", error))
}

/// A column of a row as text; NULL for anything else.
pub(super) fn text(row: &SqliteRow, column: usize) -> Option<String> {
    row.try_get_unchecked::<Option<String>, _>(column).ok().flatten()
}

/// A column of a row as an integer; NULL for anything else.
pub(super) fn integer(row: &SqliteRow, column: usize) -> Option<i64> {
    row.try_get::<Option<i64>, _>(column).ok().flatten()
}

/// What an error means for us; codes are those of <https://sqlite.org/rescode.html>.
pub(super) fn explain(doing: &str, error: sqlx::Error) -> Error {
    let message = format!("cannot {doing}");
    let sqlx::Error::Database(database) = &error else {
        return Error::failed(message).with_source(error);
    };
    let primary = database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    let text = format!("{message}: {}", database.message());
    match primary {
        Some(5 | 6) => Error::new(Kind::Busy, text).hint("another program is using the database"),
        Some(3 | 8 | 14 | 23) => {
            Error::new(Kind::Denied, text).hint("check the owner and the mode of the file and its directory")
        }
        Some(11 | 26) => Error::new(Kind::Damaged, text).hint("the file is not a database, or it is damaged"),
        Some(13) => Error::new(Kind::NoSpace, text).hint("free some space there"),
        _ => Error::failed(text),
    }
}

/// An identifier, quoted.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text value, quoted.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Where the file is, and how it is told apart.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
}

impl File {
    pub(super) fn identity(&self) -> String {
        format!("sqlite://{}", self.path.display())
    }
}
