//! Days go back into their tables: staged, read again, compared, and then put in place in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::facts::{FactGatherer, Facts};
use cdrvault_format::failpoint;
use cdrvault_format::manifest::{Holding, Manifest};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Payload, RowStream};
use cdrvault_plugin::target::{self, Restored, TargetOptions};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::columns::{self, Reading};
use super::connect::{ANSWER, Target, execute, hang_up, literal, query_integer, quoted, within};
use super::decode::BatchDecoder;
use super::restorable::{announce, announces, check_staging, check_table, orphans};
use super::snapshot::BatchesOf;
use super::staging::{LOOSE, Loading, STRICT, Staging, no_warnings};
use super::walk::condition;
use super::wire::Connection;
use super::{creation, dumped};
use crate::database::jobs::QUEUE;
use crate::database::tables::{Table, is_saved_as_text};

/// How long a step may take: to load a batch of rows, to send one. A server may wait for room on its disk, or for a lock
/// on the table, and say nothing.
const STEP: Duration = Duration::from_mins(10);

/// How long replacing a day may take, and a millisecond more for each of its rows.
const REPLACING: Duration = Duration::from_hours(1);

/// A database of MariaDB or MySQL that is restored into.
pub(crate) struct MySqlTarget {
    target: Target,
    options: TargetOptions,
    /// The connections that nobody works on.
    idle: Mutex<Vec<Connection>>,
    /// The one that keeps other restores away.
    lock: Mutex<Option<Connection>>,
    seen: Mutex<Seen>,
    /// Empty days are filled several at a time, but a day is replaced alone: the rows that it deletes lock the
    /// gaps beside them, and others can see its staging table where the engine has no temporary ones.
    replacing: RwLock<()>,
}

/// The longest row that any server sends.
const LONGEST_RESTORED: usize = 1 << 30;

/// What keeps two cores of a server busy while we decode, compare, and begin the next day.
const DAYS_AT_ONCE: usize = 3;

/// What was found out, and what is there, beside the rows.
#[derive(Default)]
struct Seen {
    /// The tables that were checked since a dump could last have changed them.
    checked: BTreeSet<String>,
    /// What people are told at the end.
    remarks: Vec<String>,
    /// A staging table that others can see.
    staged: Option<Staging>,
}

impl MySqlTarget {
    pub(crate) fn new(target: Target, options: TargetOptions) -> Self {
        Self {
            target,
            options,
            idle: Mutex::default(),
            lock: Mutex::default(),
            seen: Mutex::default(),
            replacing: RwLock::default(),
        }
    }

    /// Asks each time whether the lock is still ours: a server that was restarted has forgotten it, and one that hears
    /// nothing on a connection for long closes it.
    async fn take(&self, cx: &Context) -> Result<Connection> {
        self.keep_others_away(cx).await?;
        let idle = self.idle.lock().await.pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.connect(cx).await,
        }
    }

    /// After an error another one is made: what this one had staged, and its transaction, go with it.
    async fn give_back<T>(&self, connection: Connection, done: Result<T>) -> Result<T> {
        if done.is_ok() {
            self.idle.lock().await.push(connection);
        } else {
            hang_up(connection).await;
        }
        done
    }

    async fn connect(&self, cx: &Context) -> Result<Connection> {
        let mut connection = self.target.connect(cx).await?;
        // What was saved is read again, however long its rows are.
        connection.take_rows_up_to(LONGEST_RESTORED);
        execute(&mut connection, STRICT).await?;
        if self.options.allow_triggers {
            execute(&mut connection, "SET SESSION foreign_key_checks = 0").await?;
        }
        Ok(connection)
    }

    /// The account of the daily work reads calls and writes none: where it is refused, another one is to be named.
    fn name_account(&self, error: Error) -> Error {
        if error.kind() != Kind::Denied || error.hint_text().is_some_and(|hint| hint.contains("--no-announce")) {
            return error;
        }
        let into = self.target.identity.replacen("://", "://USER@", 1);
        error.hint(format!(
            "the account that `run` uses cannot restore; name one that may: `--into {into} --password-file FILE`. Its rights:              SELECT, INSERT, DELETE and CREATE TEMPORARY TABLES, see docs/recipes/least-privilege.md"
        ))
    }

    async fn keep_others_away(&self, cx: &Context) -> Result<()> {
        // Hashed here: MySQL has no functions for that any more.
        let hash = hex::encode(Sha256::digest(&self.target.identity));
        let name = literal(&format!("cdrvault restore {}", &hash[..32]));
        let mut held = self.lock.lock().await;
        if let Some(connection) = &mut *held {
            let ours = format!("SELECT IS_USED_LOCK({name}) = CONNECTION_ID()");
            if let Ok(Some(1)) =
                within(cx, ANSWER, "see whether the lock is ours", query_integer(connection, &ours)).await
            {
                return Ok(());
            }
        }
        *held = None;
        let mut connection = self.target.connect(cx).await?;
        let lock = format!("SELECT GET_LOCK({name}, 10)");
        if within(cx, ANSWER, "lock the database", query_integer(&mut connection, &lock)).await? != Some(1) {
            return Err(Error::new(
                Kind::Locked,
                format!("another restore into {} is in progress", self.target.identity),
            ));
        }
        *held = Some(connection);
        Ok(())
    }

    /// The table that a unit goes into, with the columns of the backup alone.
    async fn table(&self, connection: &mut Connection, manifest: &Manifest) -> Result<Arc<Table<Reading>>> {
        let info = manifest.table.as_ref().ok_or_else(|| {
            Error::new(Kind::Refused, format!("the receipt of {} does not name its table", manifest.unit))
        })?;
        let there = columns::describe(connection, &info.name, &info.date_column).await?;
        // Which form they were saved in, the receipt tells.
        let there = columns::with_decimals_as_text(there, |name| is_saved_as_text(&manifest.columns, name));
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

    async fn check_tables(&self, connection: &mut Connection, wanted: &[Manifest]) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        let mut seen: Vec<&Manifest> = Vec::new();
        let makes_tables = wanted.iter().any(|manifest| manifest.holds() == Holding::Document);
        for manifest in wanted.iter().filter(|manifest| manifest.holds() == Holding::Rows) {
            if seen.iter().any(|other| other.table == manifest.table && other.columns == manifest.columns) {
                continue;
            }
            let table = match self.table(connection, manifest).await {
                // A dump makes it.
                Err(error) if error.kind() == Kind::NotFound && makes_tables => continue,
                Err(error) if error.kind() == Kind::NotFound && self.options.create_tables => {
                    creation::statement(manifest)?;
                    let name = manifest.table.as_ref().map(|table| table.name.as_str()).unwrap_or_default();
                    let remark = format!(
                        "table `{name}` is not there, and is made: its columns and its key, no defaults and no other index"
                    );
                    if !remarks.contains(&remark) {
                        remarks.push(remark);
                    }
                    continue;
                }
                Err(error) if error.kind() == Kind::NotFound => {
                    return Err(error.hint(
                        "restore a dump that has the table first, or let --create-tables make it from the receipt",
                    ));
                }
                other => other?,
            };
            if !seen.iter().any(|other| other.table == manifest.table) {
                remarks.extend(check_table(connection, &table, &self.options).await?);
                remarks.extend(check_staging(connection, &table.name).await?);
            }
            seen.push(manifest);
        }
        if self.options.no_announce && !seen.is_empty() {
            remarks.push("the application will not be told which days were restored".to_owned());
        } else if !seen.is_empty() {
            announces(connection, &self.options).await?;
        }
        Ok(remarks)
    }

    /// Dumps may have made the table since the plan was made, with other triggers.
    async fn check_again(&self, connection: &mut Connection, table: &Table<Reading>) -> Result<()> {
        let mut seen = self.seen.lock().await;
        if !seen.checked.contains(&table.name) {
            let remarks = check_table(connection, table, &self.options).await?;
            seen.remarks.extend(remarks);
            seen.checked.insert(table.name.clone());
        }
        Ok(())
    }

    async fn restore_rows(
        &self,
        cx: &Context,
        connection: &mut Connection,
        manifest: &Manifest,
        rows: RowStream,
    ) -> Result<Restored> {
        let looking = async {
            let table = match self.table(connection, manifest).await {
                Err(error) if error.kind() == Kind::NotFound && self.options.create_tables => {
                    creation::make_table(connection, manifest).await?;
                    self.table(connection, manifest).await?
                }
                table => table?,
            };
            let day = condition(connection, &table, manifest.unit.partition).await?;
            Ok((table, day))
        };
        let (table, day) = within(cx, STEP, "look at the table", looking).await?;
        let there = facts(cx, connection, &table, &day, &rows.about.renumbered).await?;
        if same(&there, manifest) {
            return Ok(Restored::Same);
        }
        within(cx, STEP, "check the table", self.check_again(connection, &table)).await?;
        failpoint::hit("before-load")?;
        let day = Day { manifest, table: &table, condition: &day, renumbered: &rows.about.renumbered.clone() };
        if there.rows == 0 {
            let _with_others = self.replacing.read().await;
            self.fill(cx, connection, day, rows).await?;
            return Ok(Restored::Written);
        }
        let _alone = self.replacing.write().await;
        let staging = within(cx, STEP, "make the table beside it", Staging::make(connection, &table.name)).await?;
        let visible = (!staging.temporary).then(|| Staging { name: staging.name.clone(), temporary: false });
        self.seen.lock().await.staged = visible;
        let staged = Arc::new(staging.of(&table));
        let loose = load(cx, connection, &staged, manifest, rows).await?;
        let found = facts(cx, connection, &staged, "TRUE", day.renumbered).await?;
        if !same(&found, manifest) {
            return Err(Error::new(
                Kind::Damaged,
                format!("table `{}` gives other values back than were saved; nothing was changed", table.name),
            )
            .hint(COLUMN_TYPES));
        }
        let limit = REPLACING + Duration::from_millis(manifest.rows);
        // A large future, boxed.
        let putting = Box::pin(self.put_in_place(cx, connection, day, &staging, loose));
        within(cx, limit, "put the day in place", putting).await?;
        within(cx, STEP, "drop the table beside it", staging.drop(connection)).await?;
        self.seen.lock().await.staged = None;
        Ok(Restored::Written)
    }

    /// Where there is nothing to be replaced, rows need no table to wait in: the transaction that loads them ends
    /// well only when they have been read again and compared.
    async fn fill(&self, cx: &Context, connection: &mut Connection, day: Day<'_>, rows: RowStream) -> Result<()> {
        within(cx, STEP, "begin a transaction", execute(connection, "START TRANSACTION")).await?;
        let loose = load(cx, connection, day.table, day.manifest, rows).await?;
        let limit = REPLACING + Duration::from_millis(day.manifest.rows);
        within(cx, limit, "put the day in place", self.conclude(cx, connection, day, loose)).await
    }

    /// The day becomes what was staged, and the application is told, in one transaction.
    async fn put_in_place(
        &self,
        cx: &Context,
        connection: &mut Connection,
        day: Day<'_>,
        staging: &Staging,
        loose: bool,
    ) -> Result<()> {
        let Day { manifest, table, condition, .. } = day;
        let names: Vec<String> = table.columns.iter().map(|column| quoted(column.field.name())).collect();
        let (names, to) = (names.join(", "), quoted(&table.name));
        if loose {
            execute(connection, LOOSE).await?;
        }
        execute(connection, "START TRANSACTION").await?;
        execute(connection, &format!("DELETE FROM {to} WHERE {condition}")).await?;
        let insert = format!("INSERT INTO {to} ({names}) SELECT {names} FROM {}", quoted(&staging.name));
        let put = execute(connection, &insert).await?;
        no_warnings(connection, loose).await?;
        if put != manifest.rows {
            return Err(Error::failed(format!("{put} of {} rows were put into `{}`", manifest.rows, table.name)));
        }
        self.conclude(cx, connection, day, loose).await
    }

    /// Ends the transaction, if the day is now what was saved.
    async fn conclude(
        &self,
        cx: &Context,
        connection: &mut Connection,
        Day { manifest, table, renumbered, .. }: Day<'_>,
        loose: bool,
    ) -> Result<()> {
        // Triggers change rows, and others may have added some.
        // Where rows without a date lie depends on which there are.
        let now = condition(connection, table, manifest.unit.partition).await?;
        let stands = facts(cx, connection, table, &now, renumbered).await?;
        if !same(&stands, manifest) {
            let message = format!(
                "after the rows were put into `{}`, the day is not what was saved; it was taken back",
                table.name
            );
            return Err(Error::new(Kind::Refused, message).hint(format!(
                "a trigger of the table changes rows, or somebody writes to the day: drop the one or stop the other; or {COLUMN_TYPES}"
            )));
        }
        if announces(connection, &self.options).await? {
            announce(connection, manifest.unit.partition).await?;
        }
        execute(connection, "COMMIT").await?;
        if loose {
            execute(connection, STRICT).await?;
        }
        Ok(())
    }
}

/// Loads rows into a table; tells whether there are values that only a lenient server takes.
async fn load(
    cx: &Context,
    connection: &mut Connection,
    table: &Table<Reading>,
    manifest: &Manifest,
    mut rows: RowStream,
) -> Result<bool> {
    let mut loading = within(cx, STEP, "load rows", Loading::new(connection, table, is_of_mysql(manifest))).await?;
    while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
        let count = batch.num_rows() as u64;
        within(cx, STEP, "load rows", loading.add(connection, &batch)).await?;
        cx.progress.read(&manifest.unit, count, 0);
    }
    within(cx, STEP, "load rows", loading.finish(connection)).await
}

/// What to do when a table holds other values than it was given.
const COLUMN_TYPES: &str = "compare the column types of the table with those that `snapshots --json` tells";

/// What is replaced.
#[derive(Clone, Copy)]
struct Day<'a> {
    manifest: &'a Manifest,
    table: &'a Arc<Table<Reading>>,
    condition: &'a str,
    renumbered: &'a [String],
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
    cx: &Context,
    connection: &mut Connection,
    table: &Arc<Table<Reading>>,
    condition: &str,
    renumbered: &[String],
) -> Result<Facts> {
    let select = format!("SELECT {} FROM {} WHERE {condition}", BatchDecoder::select_list(table), quoted(&table.name));
    let mut gatherer = FactGatherer::new(&table.schema, renumbered);
    let doing = "read the rows that are there";
    let mut batches = within(cx, STEP, doing, BatchesOf::select(connection, table, &select)).await?;
    while let Some(batch) = within(cx, STEP, doing, batches.next()).await? {
        tokio::task::block_in_place(|| gatherer.add(&batch))?;
    }
    Ok(gatherer.finish())
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
        let checking = self.check_tables(&mut connection, wanted);
        let checked = within(cx, STEP, "look at the tables", checking).await;
        self.give_back(connection, checked).await.map_err(|error| self.name_account(error))
    }

    fn at_once(&self) -> usize {
        // Triggers may write to the same rows for every day, and two such transactions wait for each other.
        if self.options.allow_triggers { 1 } else { DAYS_AT_ONCE }
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        match payload {
            Payload::Rows(rows) => {
                let mut connection = self.take(cx).await?;
                let restoring = Box::pin(self.restore_rows(cx, &mut connection, manifest, rows));
                let done = cx.unless_cancelled(restoring).await;
                self.give_back(connection, done).await
            }
            Payload::Objects(objects) => {
                let done = dumped::restore(cx, &self.target, &self.options, objects).await;
                let mut seen = self.seen.lock().await;
                seen.checked.clear();
                seen.remarks.extend(done?);
                Ok(Restored::Written)
            }
        }
    }

    async fn finish(&self, cx: &Context, restored: &[Manifest], _complete: bool) -> Result<Vec<String>> {
        let mut seen = std::mem::take(&mut *self.seen.lock().await);
        if let Some(staged) = seen.staged {
            // Also when we were asked to stop: nobody else would know what it is.
            let cx = Context { cancel: CancellationToken::new(), ..cx.clone() };
            let mut connection = self.take(&cx).await?;
            let dropped = within(&cx, STEP, "drop the table beside it", staged.drop(&mut connection)).await;
            self.give_back(connection, dropped).await?;
        }
        let remarks = &mut seen.remarks;
        if restored.is_empty() || cx.check().is_err() {
            return Ok(seen.remarks);
        }
        let mut connection = self.take(cx).await?;
        let found = async {
            if restored.iter().any(|manifest| manifest.holds() == Holding::Document) {
                let orphans = orphans(&mut connection).await?;
                if orphans > 0 {
                    remarks.push(format!(
                        "{orphans} rows of `{QUEUE}` are for jobs that the dump does not have, or has under another number: \
                         delete them, and `replay` the days since the dump was saved"
                    ));
                }
            }
            let any_rows = restored.iter().any(|manifest| manifest.holds() == Holding::Rows);
            if any_rows && self.options.no_announce {
                remarks.push(
                    "the application was not told which days were written: rate them again, or `replay` them"
                        .to_owned(),
                );
            } else if any_rows && announces(&mut connection, &self.options).await? {
                remarks.push(
                    "every day that was written is announced to the application's jobs; totals that it keeps (reports, \
                     cached costs, ar_cached_organization_info) are theirs to compute again: let them run, or rate the days again"
                        .to_owned(),
                );
            }
            Ok(())
        };
        let found = within(cx, STEP, "end the restore", found).await;
        let lock = self.lock.lock().await.take();
        for connection in [connection].into_iter().chain(self.idle.lock().await.drain(..)).chain(lock) {
            hang_up(connection).await;
        }
        found.map(|()| seen.remarks)
    }
}
