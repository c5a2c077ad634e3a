//! Saved rows become a new SQLite file.
//!
//! Columns are declared so that the file can be read as a source again. What SQLite has no type for is text:
//! decimals, times and UUIDs. Each day is read again and compared before it counts, and the file gets its name when
//! everything is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use cdrvault_format::durable;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::fingerprint::Digest;
use cdrvault_format::manifest::{Holding, Manifest};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Payload, RowStream};
use cdrvault_plugin::target::{Restored, Target};
use futures::TryStreamExt as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use super::connect::{execute, explain, integer, query, quoted};
use super::decode::Stored;
use crate::cells::{Cell, Rows, decimal, push_date, push_datetime, push_time, stored_date, uuid};

/// A statement is sent at this length.
const STATEMENT_BYTES: usize = 1 << 18;

/// See the module.
pub(crate) struct SqliteTarget {
    path: PathBuf,
    /// The file under its temporary name.
    connection: Mutex<Option<SqliteConnection>>,
    /// What makes its tables. The file itself is made when the first rows come.
    tables: Mutex<Vec<String>>,
}

impl SqliteTarget {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, connection: Mutex::default(), tables: Mutex::default() }
    }

    fn unfinished(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".cdrvault-tmp");
        name.into()
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        let path = self.unfinished();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .statement_cache_capacity(0)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Memory)
            .row_buffer_size(512);
        options.connect().await.map_err(|error| explain(&format!("make {}", path.display()), error))
    }

    /// The new file, with its tables.
    async fn make(&self) -> Result<SqliteConnection> {
        // What an interrupted restore left.
        durable::remove(&self.unfinished())?;
        let mut connection = self.connect().await?;
        // It is not a database until it has its name.
        execute(&mut connection, "PRAGMA synchronous = OFF").await?;
        for table in self.tables.lock().await.iter() {
            execute(&mut connection, table).await?;
        }
        Ok(connection)
    }

    async fn restore_rows(
        &self,
        cx: &Context,
        connection: &mut SqliteConnection,
        manifest: &Manifest,
        mut rows: RowStream,
    ) -> Result<()> {
        let info = manifest.table.as_ref().ok_or_else(|| {
            Error::new(Kind::Refused, format!("the receipt of {} does not name its table", manifest.unit))
        })?;
        let table = quoted(&info.name);
        execute(connection, "BEGIN IMMEDIATE").await?;
        let before = query(connection, &format!("SELECT MAX(rowid) FROM {table}")).await?;
        let before = before.first().and_then(|row| integer(row, 0)).unwrap_or(0);
        let names: Vec<&str> = manifest.columns.iter().map(|column| column.name.as_str()).collect();
        let kinds: Vec<Kept> = manifest.columns.iter().map(|column| Kept::of(&column.sql_type)).collect();
        let list = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let own = manifest.origin.source.starts_with("sqlite:");
        let mut loading = Loading { head: format!("INSERT INTO {table} ({list}) VALUES "), ..Loading::default() };
        while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
            loading.add(connection, &batch, &names, &kinds, own).await?;
            cx.progress.read(&manifest.unit, batch.num_rows() as u64, 0);
        }
        loading.send(connection).await?;
        let select = format!("SELECT {list} FROM {table} WHERE rowid > {before}");
        let found = digest(connection, select, names.len()).await?;
        if found != loading.digest || found.count != manifest.rows {
            return Err(Error::new(
                Kind::Damaged,
                format!("{} gives other values back than were saved", self.path.display()),
            ));
        }
        execute(connection, "COMMIT").await.map(drop)
    }
}

/// What is stored under a condition: count and hashes of rows.
async fn digest(connection: &mut SqliteConnection, select: String, columns: usize) -> Result<Digest> {
    let mut digest = Digest::default();
    let mut row_bytes = Vec::new();
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(|error| explain("read the new file", error))? {
        row_bytes.clear();
        for index in 0..columns {
            let value = row.try_get_raw(index).map_err(|error| explain("read the new file", error))?;
            Stored::of(value)?.map_or(Value::Null, Value::from).hash_into(&mut row_bytes);
        }
        digest.add(xxh3_128(&row_bytes));
    }
    Ok(digest)
}

/// What a column of the database was, as far as SQLite has no such type.
#[derive(Clone, Copy)]
enum Kept {
    Date,
    DateTime,
    Time,
    Uuid,
    Set,
    Other,
}

impl Kept {
    fn of(sql_type: &str) -> Self {
        let base = sql_type.split(['(', ' ']).next().unwrap_or_default();
        match base {
            "date" => Self::Date,
            "datetime" | "timestamp" => Self::DateTime,
            "time" => Self::Time,
            "uuid" => Self::Uuid,
            "set" => Self::Set,
            _ => Self::Other,
        }
    }
}

/// The declaration that means the same to SQLite, and to [`super::columns`].
fn declared(arrow_type: &str, sql_type: &str) -> &'static str {
    match (arrow_type, Kept::of(sql_type)) {
        (_, Kept::Time | Kept::Uuid) => "TEXT",
        (_, Kept::Date) => "DATE",
        (_, Kept::DateTime) => "DATETIME",
        ("Int8", _) => "TINYINT",
        ("Int16" | "UInt8", _) => "SMALLINT",
        ("Int32" | "UInt16", _) => "INT",
        ("Int64" | "UInt32" | "UInt64", _) => "BIGINT",
        ("Float32" | "Float64", _) => "DOUBLE",
        ("Binary", _) => "BLOB",
        _ => "TEXT",
    }
}

/// A value as SQLite will hold it.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(std::borrow::Cow<'a, [u8]>),
    Blob(std::borrow::Cow<'a, [u8]>),
}

impl<'a> From<Stored<'a>> for Value<'a> {
    fn from(stored: Stored<'a>) -> Self {
        match stored {
            Stored::Integer(value) => Self::Integer(value),
            Stored::Real(value) => Self::Real(value),
            Stored::Text(bytes) => Self::Text(bytes.into()),
            Stored::Blob(bytes) => Self::Blob(bytes.into()),
        }
    }
}

impl<'a> Value<'a> {
    fn text(text: String) -> Self {
        Self::Text(text.into_bytes().into())
    }

    fn of(cell: Cell<'a>, kept: Kept) -> Self {
        let pushed = |push: &dyn Fn(&mut String)| {
            let mut text = String::new();
            push(&mut text);
            Self::text(text)
        };
        match (cell, kept) {
            (Cell::Null, _) => Self::Null,
            (Cell::Int(micros), Kept::Time) => pushed(&|out| push_time(out, micros)),
            (Cell::Int(value), _) => Self::Integer(value),
            // What is too large would become a rounded number: it stays its digits.
            (Cell::UInt(value), _) => match i64::try_from(value) {
                Ok(value) => Self::Integer(value),
                Err(_) => Self::Blob(value.to_string().into_bytes().into()),
            },
            (Cell::Float(value), _) => Self::Real(value.into()),
            (Cell::Double(value), _) => Self::Real(value),
            (Cell::Decimal128(digits, scale), _) => Self::text(decimal(&digits.to_string(), scale)),
            (Cell::Decimal256(digits, scale), _) => Self::text(decimal(&digits.to_string(), scale)),
            (Cell::Date(days), _) => pushed(&|out| push_date(out, days)),
            (Cell::DateTime(micros), _) => pushed(&|out| push_datetime(out, micros)),
            (Cell::Text(text), _) => Self::Text(text.as_bytes().into()),
            (Cell::Bytes(bytes), Kept::Uuid) => Self::text(uuid(bytes)),
            (Cell::Bytes(bytes), _) => Self::Blob(bytes.into()),
        }
    }

    /// What a typed column of MariaDB could not hold.
    fn of_raw(bytes: &'a [u8], kept: Kept) -> Result<Self> {
        let unknown = || Error::new(Kind::Refused, "a saved value has a form that no server of this kind has written");
        Ok(match kept {
            Kept::Date => Self::text(stored_date(bytes, false).ok_or_else(unknown)?),
            Kept::DateTime => Self::text(stored_date(bytes, true).ok_or_else(unknown)?),
            Kept::Set => Self::text(bytes.try_into().map(u64::from_le_bytes).map_err(|_| unknown())?.to_string()),
            Kept::Time | Kept::Uuid | Kept::Other => Self::Text(bytes.into()),
        })
    }

    fn hash_into(&self, out: &mut Vec<u8>) {
        let (tag, number, bytes): (u8, u64, &[u8]) = match self {
            Self::Null => (0, 0, &[]),
            Self::Integer(value) => (1, value.cast_unsigned(), &[]),
            // SQLite knows no negative zero.
            Self::Real(value) => (2, (value + 0.0).to_bits(), &[]),
            Self::Text(bytes) => (3, bytes.len() as u64, bytes),
            Self::Blob(bytes) => (4, bytes.len() as u64, bytes),
        };
        out.push(tag);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(bytes);
    }

    fn literal(&self) -> Vec<u8> {
        match self {
            Self::Null => b"NULL".to_vec(),
            Self::Integer(value) => Stored::Integer(*value).literal(),
            Self::Real(value) => Stored::Real(*value).literal(),
            Self::Text(bytes) => Stored::Text(bytes).literal(),
            Self::Blob(bytes) => Stored::Blob(bytes).literal(),
        }
    }
}

/// Rows on their way into a table.
#[derive(Default)]
struct Loading {
    head: String,
    statement: String,
    digest: Digest,
}

impl Loading {
    async fn add(
        &mut self,
        connection: &mut SqliteConnection,
        batch: &RecordBatch,
        names: &[&str],
        kinds: &[Kept],
        own: bool,
    ) -> Result<()> {
        let rows = Rows::of(batch, names.iter().copied())?;
        for row in 0..batch.num_rows() {
            self.push(&rows, row, names, kinds, own)?;
            if self.statement.len() >= STATEMENT_BYTES {
                self.send(connection).await?;
            }
        }
        Ok(())
    }

    fn push(&mut self, rows: &Rows<'_>, row: usize, names: &[&str], kinds: &[Kept], own: bool) -> Result<()> {
        let raw = rows.raw(row)?;
        let mut bytes = Vec::new();
        self.statement.push_str(if self.statement.is_empty() { &self.head } else { "," });
        for (index, ((cells, name), kept)) in rows.columns().iter().zip(names).zip(kinds).enumerate() {
            self.statement.push(if index == 0 { '(' } else { ',' });
            match raw.get(name) {
                // A literal that SQLite itself had given.
                Some(literal) if own => {
                    self.statement.push_str(&String::from_utf8_lossy(literal));
                    value_of_literal(literal)?.hash_into(&mut bytes);
                }
                Some(kept_bytes) => self.push_value(&Value::of_raw(kept_bytes, *kept)?, &mut bytes),
                None => self.push_value(&Value::of(cells.get(row), *kept), &mut bytes),
            }
        }
        self.statement.push(')');
        self.digest.add(xxh3_128(&bytes));
        Ok(())
    }

    fn push_value(&mut self, value: &Value<'_>, bytes: &mut Vec<u8>) {
        self.statement.push_str(&String::from_utf8_lossy(&value.literal()));
        value.hash_into(bytes);
    }

    async fn send(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        if !self.statement.is_empty() {
            execute(connection, &self.statement).await?;
            self.statement.clear();
        }
        Ok(())
    }
}

/// The value of a literal that [`Stored::literal`] made.
fn value_of_literal(literal: &[u8]) -> Result<Value<'_>> {
    let damaged = || Error::new(Kind::Damaged, "a saved value is not a literal of SQLite");
    let text = std::str::from_utf8(literal).map_err(|_| damaged())?;
    let bytes_of = |digits: &str| hex::decode(digits).map_err(|_| damaged());
    Ok(if let Some(digits) = text.strip_prefix("CAST(X'").and_then(|rest| rest.strip_suffix("' AS TEXT)")) {
        Value::Text(bytes_of(digits)?.into())
    } else if let Some(digits) = text.strip_prefix("X'").and_then(|rest| rest.strip_suffix('\'')) {
        Value::Blob(bytes_of(digits)?.into())
    } else if let Some(inner) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        if inner.replace("''", "").contains('\'') {
            return Err(damaged());
        }
        Value::text(inner.replace("''", "'"))
    } else if let Ok(value) = text.parse() {
        Value::Integer(value)
    } else {
        Value::Real(text.parse().map_err(|_| damaged())?)
    })
}

/// The columns of all generations of a table: those of the newest, then those that only older ones have.
fn columns_of<'a>(manifests: &[&'a Manifest]) -> Vec<(&'a str, &'static str)> {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    let mut newest_first = manifests.to_vec();
    newest_first.sort_by_key(|manifest| std::cmp::Reverse(manifest.sealed));
    for column in newest_first.iter().flat_map(|manifest| &manifest.columns) {
        if !columns.iter().any(|(name, _)| *name == column.name) {
            columns.push((&column.name, declared(&column.arrow_type, &column.sql_type)));
        }
    }
    columns
}

fn create_table(name: &str, manifests: &[&Manifest]) -> String {
    let columns = columns_of(manifests);
    let mut parts: Vec<String> = columns.iter().map(|(name, kind)| format!("{} {kind}", quoted(name))).collect();
    // The date alone stands for "no key".
    if let Some(info) = manifests.first().and_then(|manifest| manifest.table.as_ref())
        && (info.key.len() > 1 || info.key.first().is_some_and(|key| *key != info.date_column))
    {
        parts
            .push(format!("PRIMARY KEY ({})", info.key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")));
    }
    format!("CREATE TABLE {} ({})", quoted(name), parts.join(", "))
}

#[async_trait]
impl Target for SqliteTarget {
    fn describe(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    fn takes(&self, holding: Holding) -> bool {
        holding == Holding::Rows
    }

    async fn check(&self, _cx: &Context, wanted: &[Manifest]) -> Result<Vec<String>> {
        if self.path.symlink_metadata().is_ok() {
            return Err(Error::new(Kind::Refused, format!("{} is there already", self.path.display()))
                .hint("name a file that is not there yet"));
        }
        let above = self.path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !above.is_dir() {
            return Err(Error::new(Kind::NotFound, format!("there is no directory {}", above.display())));
        }
        let mut tables: BTreeMap<&str, Vec<&Manifest>> = BTreeMap::new();
        for manifest in wanted {
            let info = manifest.table.as_ref().ok_or_else(|| {
                Error::new(Kind::Refused, format!("the receipt of {} does not name its table", manifest.unit))
            })?;
            tables.entry(&info.name).or_default().push(manifest);
        }
        *self.tables.lock().await = tables.iter().map(|(name, manifests)| create_table(name, manifests)).collect();
        Ok(Vec::new())
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        let Payload::Rows(rows) = payload else {
            return Err(Error::new(Kind::Refused, "files cannot be restored into a database"));
        };
        let mut kept = self.connection.lock().await;
        if kept.is_none() {
            *kept = Some(self.make().await?);
        }
        let connection = kept.as_mut().ok_or_else(|| Error::failed("the new file is not open"))?;
        let done = self.restore_rows(cx, connection, manifest, rows).await;
        if done.is_err() {
            let _ = execute(connection, "ROLLBACK").await;
        }
        done.map(|()| Restored::Written)
    }

    fn keeps_parts(&self) -> bool {
        false
    }

    async fn finish(&self, _cx: &Context, _restored: &[Manifest], complete: bool) -> Result<Vec<String>> {
        let unfinished = self.unfinished();
        if let Some(connection) = self.connection.lock().await.take() {
            let closed = connection.close().await;
            if complete {
                closed.map_err(|error| explain("close the new file", error))?;
            }
        }
        if !complete {
            durable::remove(&unfinished)?;
            return Ok(vec![format!("{} was not made: it would not have been complete", self.path.display())]);
        }
        durable::rename(&unfinished, &self.path)?;
        Ok(Vec::new())
    }
}
