//! Days go back into their tables: staged, read again, compared, and then put in place in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::{At as _, Error, Kind, Result};
use cdrvault_pipeline::facts::{FactGatherer, Facts};
use cdrvault_pipeline::manifest::{Holding, Manifest};
use cdrvault_pipeline::payload::{Payload, RowStream};
use cdrvault_pipeline::raw::RAW_COLUMN;
use cdrvault_pipeline::target::{self, Restored, TargetOptions};
use futures::TryStreamExt as _;
use sqlx::MySqlConnection;
use tokio::sync::Mutex;

use super::columns::{self, Reading};
use super::connect::{Target, execute, hang_up, integer, literal, query, query_integer, quoted, text};
use super::decode::BatchDecoder;
use super::dumped;
use super::literal;
use super::queue;
use super::snapshot::batches_of;
use super::walk::condition;
use crate::cells::{Cell, Rows};
use crate::database::jobs::{JOBS, QUEUE};
use crate::database::tables::Table;

/// Strict, so that nothing is cut or bent; dates as they were; ids 0 stay 0.
const STRICT: &str = "SET SESSION sql_mode = \
     'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = 50";
/// The same without strictness, for the error value of an ENUM. The only warning that is then accepted is its own.
const LOOSE: &str = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'";
/// "Data truncated for column".
const TRUNCATED: i64 = 1265;

/// A statement is sent at this length, or at a quarter of what the server takes.
const STATEMENT_BYTES: usize = 1 << 20;

/// A database of MariaDB or MySQL that is restored into.
pub(crate) struct MySqlTarget {
    target: Target,
    options: TargetOptions,
    connection: Mutex<Option<MySqlConnection>>,
}

impl MySqlTarget {
    pub(crate) fn new(target: Target, options: TargetOptions) -> Self {
        Self { target, options, connection: Mutex::default() }
    }

    /// The one connection.
    async fn take(&self, cx: &Context) -> Result<MySqlConnection> {
        match self.connection.lock().await.take() {
            Some(connection) => Ok(connection),
            None => self.connect(cx).await,
        }
    }

    /// After an error another one is made: what this one had staged, and its transaction, go with it.
    async fn give_back<T>(&self, connection: MySqlConnection, done: Result<T>) -> Result<T> {
        if done.is_ok() {
            *self.connection.lock().await = Some(connection);
        } else {
            hang_up(connection).await;
        }
        done
    }

    async fn connect(&self, cx: &Context) -> Result<MySqlConnection> {
        let mut connection = self.target.connect(cx).await?;
        execute(&mut connection, STRICT).await?;
        if self.options.allow_triggers {
            execute(&mut connection, "SET SESSION foreign_key_checks = 0").await?;
        }
        let lock = format!(
            "SELECT GET_LOCK(CONCAT('cdrvault restore ', LEFT(SHA1({}), 32)), 10)",
            literal(&self.target.identity)
        );
        if query_integer(&mut connection, &lock).await? != Some(1) {
            return Err(Error::new(Kind::Locked, format!("another restore into {} is at work", self.target.identity)));
        }
        Ok(connection)
    }

    /// The table that a unit goes into, with the columns of the backup alone.
    async fn table(&self, connection: &mut MySqlConnection, manifest: &Manifest) -> Result<Arc<Table<Reading>>> {
        let info = manifest.table.as_ref().ok_or_else(|| {
            Error::new(Kind::Refused, format!("the receipt of {} does not name its table", manifest.unit))
        })?;
        let there = columns::describe(connection, &info.name, &info.date_column).await?;
        let kinds: BTreeMap<&str, String> =
            there.columns.iter().map(|c| (c.field.name().as_str(), c.field.data_type().to_string())).collect();
        let mut problems = Vec::new();
        for saved in &manifest.columns {
            match kinds.get(saved.name.as_str()) {
                None => problems.push(format!("`{}` ({}) is missing in the table", saved.name, saved.sql_type)),
                Some(kind) if *kind == saved.arrow_type || (is_integer(kind) && is_integer(&saved.arrow_type)) => {}
                Some(kind) => {
                    problems.push(format!("`{}` was saved as {} and is {kind} now", saved.name, saved.arrow_type));
                }
            }
        }
        let saved: BTreeSet<&str> = manifest.columns.iter().map(|column| column.name.as_str()).collect();
        let unknown: Vec<&str> = kinds.keys().copied().filter(|name| !saved.contains(name)).collect();
        if !self.options.missing_columns {
            problems.extend(unknown.iter().map(|name| format!("`{name}` is not in the backup")));
        }
        if !problems.is_empty() {
            let hint = if problems.iter().all(|problem| problem.ends_with("not in the backup")) {
                "--missing-columns fills them with their defaults"
            } else {
                "restore into a table with the columns of the backup, and change it afterwards"
            };
            let message =
                format!("table `{}` has other columns than {}: {}", info.name, manifest.unit, problems.join("; "));
            return Err(Error::new(Kind::Refused, message).hint(hint));
        }
        let Table { name, date_column, date_nullable, columns, key, .. } = there;
        let columns = columns.into_iter().filter(|column| saved.contains(column.field.name().as_str())).collect();
        Ok(Arc::new(Table::new(&name, &date_column, date_nullable, columns, key)))
    }

    async fn check_tables(&self, connection: &mut MySqlConnection, wanted: &[Manifest]) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        let mut seen: Vec<&Manifest> = Vec::new();
        let makes_tables = wanted.iter().any(|manifest| manifest.holds() == Holding::Document);
        if makes_tables {
            self.target.login.check_client()?;
        }
        for manifest in wanted.iter().filter(|manifest| manifest.holds() == Holding::Rows) {
            if seen.iter().any(|other| other.table == manifest.table && other.columns == manifest.columns) {
                continue;
            }
            let table = match self.table(connection, manifest).await {
                // A dump makes it.
                Err(error) if error.kind() == Kind::NotFound && makes_tables => continue,
                other => other?,
            };
            if !seen.iter().any(|other| other.table == manifest.table) {
                remarks.extend(self.check_table(connection, &table).await?);
            }
            seen.push(manifest);
        }
        Ok(remarks)
    }

    /// What is not allowed to happen unseen when rows go and come.
    async fn check_table(&self, connection: &mut MySqlConnection, table: &Table<Reading>) -> Result<Vec<String>> {
        let name = literal(&table.name);
        let mut found = Vec::new();
        let triggers = format!(
            "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = DATABASE() \
             AND EVENT_OBJECT_TABLE = {name}"
        );
        for row in query(connection, &triggers).await? {
            found.push(format!("trigger `{}`", text(&row, 0)?.unwrap_or_default()));
        }
        let keys = format!(
            "SELECT CONSTRAINT_NAME, TABLE_NAME, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS \
             WHERE CONSTRAINT_SCHEMA = DATABASE() AND (TABLE_NAME = {name} OR REFERENCED_TABLE_NAME = {name})"
        );
        for row in query(connection, &keys).await? {
            let at = |column| text(&row, column).map(Option::unwrap_or_default);
            found.push(format!("foreign key `{}` from `{}` to `{}`", at(0)?, at(1)?, at(2)?));
        }
        if !found.is_empty() && !self.options.allow_triggers {
            return Err(Error::new(Kind::Refused, format!("table `{}` has {}", table.name, found.join(", "))).hint(
                "--allow-triggers restores all the same: triggers fire for each row, foreign keys are not checked",
            ));
        }
        // The server checks the rights for these two, and does nothing.
        let table_name = quoted(&table.name);
        execute(connection, &format!("EXPLAIN DELETE FROM {table_name} WHERE FALSE")).await?;
        execute(connection, &format!("EXPLAIN INSERT INTO {table_name} SELECT * FROM {table_name} WHERE FALSE"))
            .await?;
        let staging = self.stage(connection, table).await?;
        staging.drop(connection).await?;
        Ok(found.into_iter().map(|what| format!("table `{}` has {what}", table.name)).collect())
    }

    /// An empty table of the same form. A strict server might refuse a form that it once took.
    async fn stage(&self, connection: &mut MySqlConnection, table: &Table<Reading>) -> Result<Staging> {
        execute(connection, LOOSE).await?;
        let staging = Staging::make(connection, &table.name).await;
        execute(connection, STRICT).await?;
        staging
    }

    async fn restore_rows(
        &self,
        cx: &Context,
        connection: &mut MySqlConnection,
        manifest: &Manifest,
        mut rows: RowStream,
    ) -> Result<Restored> {
        let table = self.table(connection, manifest).await?;
        let day = condition(connection, &table, manifest.unit.partition).await?;
        let there = facts(connection, &table, &day, &rows.about.renumbered).await?;
        if same(&there, manifest) {
            return Ok(Restored::Same);
        }
        let staging = self.stage(connection, &table).await?;
        let staged = Arc::new(staging.of(&table));
        let mut loading = Loading::new(connection, &staged, is_of_mysql(manifest)).await?;
        while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
            let count = batch.num_rows() as u64;
            loading.add(connection, &batch).await?;
            cx.progress.read(&manifest.unit, count, 0);
        }
        let loose = loading.finish(connection).await?;
        let found = facts(connection, &staged, "TRUE", &rows.about.renumbered).await?;
        if !same(&found, manifest) {
            return Err(Error::new(
                Kind::Damaged,
                format!("table `{}` gives other values back than were saved; nothing was changed", table.name),
            )
            .hint("compare the column types of the table with those that `snapshots --json` tells"));
        }
        self.put_in_place(connection, manifest, &table, &staging, &day, loose).await?;
        staging.drop(connection).await?;
        Ok(Restored::Written)
    }

    /// The day becomes what was staged, and the application is told, in one transaction.
    async fn put_in_place(
        &self,
        connection: &mut MySqlConnection,
        manifest: &Manifest,
        table: &Table<Reading>,
        staging: &Staging,
        day: &str,
        loose: bool,
    ) -> Result<()> {
        let names: Vec<String> = table.columns.iter().map(|column| quoted(column.field.name())).collect();
        let (names, to) = (names.join(", "), quoted(&table.name));
        if loose {
            execute(connection, LOOSE).await?;
        }
        execute(connection, "START TRANSACTION").await?;
        execute(connection, &format!("DELETE FROM {to} WHERE {day}")).await?;
        let insert = format!("INSERT INTO {to} ({names}) SELECT {names} FROM {}", quoted(&staging.name));
        let put = execute(connection, &insert).await?;
        no_warnings(connection, loose).await?;
        if put != manifest.rows {
            return Err(Error::failed(format!("{put} of {} rows were put into `{}`", manifest.rows, table.name)));
        }
        if self.announces(connection).await? {
            let day = queue::day_of(manifest.unit.partition);
            let announce =
                format!("INSERT IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) SELECT '{day}', id FROM {JOBS}");
            execute(connection, &announce).await?;
        }
        execute(connection, "COMMIT").await?;
        if loose {
            execute(connection, STRICT).await?;
        }
        Ok(())
    }

    /// Whether the application has a queue of changed days here.
    async fn announces(&self, connection: &mut MySqlConnection) -> Result<bool> {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
             AND TABLE_NAME IN ({}, {})",
            literal(JOBS),
            literal(QUEUE)
        );
        Ok(query_integer(connection, &sql).await? == Some(2))
    }
}

fn is_of_mysql(manifest: &Manifest) -> bool {
    manifest.origin.source.starts_with("mysql:")
}

fn is_integer(arrow_type: &str) -> bool {
    arrow_type.starts_with("Int") || arrow_type.starts_with("UInt")
}

/// Whether rows are those of the receipt, ids and all.
fn same(found: &Facts, manifest: &Manifest) -> bool {
    found.rows == manifest.rows
        && found.fingerprint.algorithm == manifest.fingerprint.algorithm
        && found.fingerprint.full == manifest.fingerprint.full
}

/// What stands under a condition.
async fn facts(
    connection: &mut MySqlConnection,
    table: &Arc<Table<Reading>>,
    condition: &str,
    renumbered: &[String],
) -> Result<Facts> {
    let select = format!("SELECT {} FROM {} WHERE {condition}", BatchDecoder::select_list(table), quoted(&table.name));
    let mut gatherer = FactGatherer::new(&table.schema, renumbered);
    let mut batches = batches_of(connection, table, select);
    while let Some(batch) = batches.try_next().await? {
        tokio::task::block_in_place(|| gatherer.add(&batch))?;
    }
    Ok(gatherer.finish())
}

/// An error unless the last statement had no warning, or only that of an ENUM's error value.
async fn no_warnings(connection: &mut MySqlConnection, loose: bool) -> Result<()> {
    if query_integer(connection, "SELECT @@warning_count").await? == Some(0) {
        return Ok(());
    }
    for row in query(connection, "SHOW WARNINGS").await? {
        if loose && integer(&row, 1)? == Some(TRUNCATED) {
            continue;
        }
        let what = text(&row, 2)?.unwrap_or_default();
        return Err(Error::new(Kind::Refused, format!("the server warns: {what}")));
    }
    Ok(())
}

/// A table that rows are loaded into before they count.
struct Staging {
    name: String,
    temporary: bool,
}

impl Staging {
    /// A temporary table, where the engine has such.
    async fn make(connection: &mut MySqlConnection, table: &str) -> Result<Self> {
        let name = format!("cdrvault_restore_{table}");
        let (like, quoted_name) = (quoted(table), quoted(&name));
        execute(connection, &format!("DROP TEMPORARY TABLE IF EXISTS {quoted_name}")).await?;
        let temporary = execute(connection, &format!("CREATE TEMPORARY TABLE {quoted_name} LIKE {like}")).await;
        match temporary {
            Ok(_) => Ok(Self { name, temporary: true }),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Transient) => {
                Err(error).at("staging needs the right to CREATE TEMPORARY TABLES")
            }
            Err(_) => {
                execute(connection, &format!("DROP TABLE IF EXISTS {quoted_name}")).await?;
                execute(connection, &format!("CREATE TABLE {quoted_name} LIKE {like}")).await?;
                Ok(Self { name, temporary: false })
            }
        }
    }

    fn of(&self, table: &Table<Reading>) -> Table<Reading> {
        let Table { date_column, date_nullable, columns, key, .. } = table;
        Table::new(&self.name, date_column, *date_nullable, columns.clone(), key.clone())
    }

    async fn drop(&self, connection: &mut MySqlConnection) -> Result<()> {
        let temporary = if self.temporary { "TEMPORARY " } else { "" };
        execute(connection, &format!("DROP {temporary}TABLE {}", quoted(&self.name))).await.map(drop)
    }
}

/// Rows on their way into a table.
struct Loading<'a> {
    table: &'a Table<Reading>,
    head: String,
    statement: String,
    /// The rows that a strict server refuses.
    odd: String,
    any_odd: bool,
    limit: usize,
    /// Whether `__raw` holds bytes of this kind of server.
    own: bool,
}

impl<'a> Loading<'a> {
    async fn new(connection: &mut MySqlConnection, table: &'a Table<Reading>, own: bool) -> Result<Self> {
        let packet = query_integer(connection, "SELECT @@max_allowed_packet").await?;
        let quarter = packet.and_then(|bytes| usize::try_from(bytes / 4).ok()).unwrap_or(STATEMENT_BYTES);
        let names: Vec<String> = table.columns.iter().map(|column| quoted(column.field.name())).collect();
        let head = format!("INSERT INTO {} ({}) VALUES ", quoted(&table.name), names.join(", "));
        let (statement, odd) = (String::new(), String::new());
        Ok(Self { table, head, statement, odd, any_odd: false, limit: quarter.min(STATEMENT_BYTES), own })
    }

    async fn add(&mut self, connection: &mut MySqlConnection, batch: &RecordBatch) -> Result<()> {
        let mut row = 0;
        while row < batch.num_rows() {
            row = self.push_rows(batch, row)?;
            if self.statement.len() >= self.limit {
                self.send(connection).await?;
            }
            if self.odd.len() >= self.limit {
                self.send_odd(connection).await?;
            }
        }
        Ok(())
    }

    /// Adds rows until a statement is full; tells which row is next.
    fn push_rows(&mut self, batch: &RecordBatch, first: usize) -> Result<usize> {
        let names = self.table.columns.iter().map(|column| column.field.name().as_str());
        let rows = Rows::of(batch, names)?;
        let mut values = String::new();
        for row in first..batch.num_rows() {
            let raw = rows.raw(row)?;
            if !raw.is_empty() && !self.own {
                let names: Vec<&str> = raw.keys().copied().collect();
                let message = format!("SQLite held values in `{}` that no such column can hold", names.join("`, `"));
                return Err(
                    Error::new(Kind::Refused, message).hint("restore the day into a SQLite file, and correct it there")
                );
            }
            let mut strict = true;
            values.clear();
            for (column, cells) in self.table.columns.iter().zip(rows.columns()) {
                values.push(if values.is_empty() { '(' } else { ',' });
                let decoding = &column.reading.decoding;
                match cells.get(row) {
                    Cell::Null if !raw.is_empty() => match raw.get(column.field.name().as_str()) {
                        Some(bytes) => {
                            strict &= literal::push_raw(&mut values, bytes, decoding)
                                .at(format!("column `{}`, kept in `{RAW_COLUMN}`", column.field.name()))?;
                        }
                        None => values.push_str("NULL"),
                    },
                    cell => literal::push(&mut values, cell, decoding),
                }
            }
            values.push(')');
            let into = if strict { &mut self.statement } else { &mut self.odd };
            into.push_str(if into.is_empty() { &self.head } else { "," });
            into.push_str(&values);
            if into.len() >= self.limit {
                return Ok(row + 1);
            }
        }
        Ok(batch.num_rows())
    }

    async fn send(&mut self, connection: &mut MySqlConnection) -> Result<()> {
        if !self.statement.is_empty() {
            execute(connection, &self.statement).await?;
            no_warnings(connection, false).await?;
            self.statement.clear();
        }
        Ok(())
    }

    async fn send_odd(&mut self, connection: &mut MySqlConnection) -> Result<()> {
        if !self.odd.is_empty() {
            self.any_odd = true;
            execute(connection, LOOSE).await?;
            execute(connection, &self.odd).await?;
            no_warnings(connection, true).await?;
            execute(connection, STRICT).await?;
            self.odd.clear();
        }
        Ok(())
    }

    /// Sends the rest; tells whether there are values that only a lenient server takes.
    async fn finish(&mut self, connection: &mut MySqlConnection) -> Result<bool> {
        self.send(connection).await?;
        self.send_odd(connection).await?;
        Ok(self.any_odd)
    }
}

#[async_trait]
impl target::Target for MySqlTarget {
    fn describe(&self) -> String {
        self.target.identity.clone()
    }

    fn takes(&self, holding: Holding) -> bool {
        holding != Holding::Tree
    }

    async fn check(&self, cx: &Context, wanted: &[Manifest]) -> Result<Vec<String>> {
        let mut connection = self.take(cx).await?;
        let checked = self.check_tables(&mut connection, wanted).await;
        self.give_back(connection, checked).await
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        match payload {
            Payload::Rows(rows) => {
                let mut connection = self.take(cx).await?;
                let done = cx.unless_cancelled(self.restore_rows(cx, &mut connection, manifest, rows)).await;
                self.give_back(connection, done).await
            }
            Payload::Objects(objects) => {
                dumped::restore(cx, &self.target.login, &self.options, objects).await?;
                Ok(Restored::Written)
            }
        }
    }

    async fn finish(&self, cx: &Context, restored: &[Manifest], _complete: bool) -> Result<Vec<String>> {
        let days = restored.iter().filter(|manifest| manifest.unit.partition.day().is_some()).count();
        let mut connection = self.take(cx).await?;
        let announced = days > 0 && self.announces(&mut connection).await?;
        hang_up(connection).await;
        Ok(announced
            .then(|| {
                "every day that was written is announced to the application's jobs; totals that it keeps (reports, \
                 cached costs, ar_cached_organization_info) are theirs to compute again: let them run, or rate the days again"
                    .to_owned()
            })
            .into_iter()
            .collect())
    }
}
