//! A dump: everything that a database has besides its calls, as SQL, in one transaction of ours.
//!
//! The programs that servers come with leave out what they do not know, convert text on its way, and take what the server's
//! settings cut for the whole. So the statements are written here: what `information_schema` names is asked for by
//! `SHOW CREATE`, rows as the bytes that they are, and each table's rows are counted by the server once more.

mod definitions;
mod frames;
mod objects;
mod table;
mod text;
mod values;

use std::time::Duration;

use bytes::Bytes;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::failpoint;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::notice::Notices;
use tokio::sync::mpsc;

use self::frames::shown;
pub(crate) use self::frames::{About, COMPLETE, FIRST, Frames, cut};
use self::table::Table;
pub(crate) use self::text::{with_definer, without_engine, without_values};
use self::values::{Columns, Inserts, Period};
use super::connect::{ANSWER, execute, hang_up, literal, query, query_integer, quoted, text as text_of, within};
use super::error::explain;
use super::rights::Rights;
use super::wire::{Connection, Row};
use super::{Target, accounts};
use crate::blocking::CHUNK;

/// How long the server may be busy with one statement: a table of many rows is counted, or somebody has locked one.
pub(crate) const STATEMENT: Duration = Duration::from_hours(1);

/// What a dump is of.
pub(crate) trait Chosen: Send + Sync {
    /// Whether the rows of a table are saved.
    fn has_data_of(&self, table: &str) -> bool;
    /// Whether only what has data is saved: no other table's schema, no views, routines and events.
    fn is_only_data(&self) -> bool;
    /// Whether somebody wrote that this is not to be saved.
    fn leaves_out(&self, name: &str) -> bool;
}

/// What is written in every dump before anything else, and again where an object was made under other settings. Rows
/// are taken as they are: a server in strict mode refuses values that it holds.
const OURS: Settings<'static> = Settings {
    sql_mode: "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION",
    character_set_client: "utf8mb4",
    collation_connection: "utf8mb4_general_ci",
    time_zone: "+00:00",
};

/// What only MariaDB knows, and only since some version. A table's definition and its rows mean what they meant.
const OF_MARIADB: &str = "/*M!100201 SET SESSION check_constraint_checks = 0 */;\n\
     /*M!100201 SET SESSION innodb_strict_mode = 0 */;\n\
     /*M!101001 SET SESSION explicit_defaults_for_timestamp = 1 */;\n";

/// What an object was made under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings<'a> {
    sql_mode: &'a str,
    character_set_client: &'a str,
    collation_connection: &'a str,
    time_zone: &'a str,
}

impl Settings<'_> {
    fn sql(&self) -> String {
        format!(
            "SET SESSION sql_mode = {}, character_set_client = {}, collation_connection = {}, time_zone = {}",
            literal(self.sql_mode),
            literal(self.character_set_client),
            literal(self.collation_connection),
            literal(self.time_zone)
        )
    }
}

/// A dump under way.
pub(crate) struct Dumping<'a> {
    cx: &'a Context,
    connection: Connection,
    database: &'a str,
    chosen: &'a dyn Chosen,
    notices: &'a Notices,
    out: mpsc::Sender<Result<Bytes>>,
    pending: Vec<u8>,
    /// The settings that were written last.
    set: String,
    /// The database's default collation, and the one that was written last.
    collation: (String, String),
    /// Rows that are no longer in force can be given back to a server of this version.
    gives_history_back: bool,
}

/// Writes all of it.
pub(crate) async fn write(
    cx: &Context,
    target: &Target,
    chosen: &dyn Chosen,
    notices: &Notices,
    out: mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let mut connection = target.connect(cx).await?;
    within(cx, STATEMENT, "begin the dump", begin(&mut connection)).await?;
    let history = "SELECT COUNT(*) FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'SYSTEM_VERSIONING_INSERT_HISTORY'";
    // MySQL has neither the table nor such rows.
    let gives_history_back = query_integer(&mut connection, history).await.is_ok_and(|found| found == Some(1));
    let (pending, set) = (Vec::with_capacity(2 * CHUNK), String::new());
    let mut dumping = Dumping {
        cx,
        connection,
        database: &target.server.database,
        chosen,
        notices,
        out,
        pending,
        set,
        collation: Default::default(),
        gives_history_back,
    };
    dumping.write(target).await?;
    hang_up(dumping.connection).await;
    Ok(())
}

/// What is known of a dump before it is made.
pub(crate) struct Looked {
    /// The tables that would be in it.
    pub(crate) tables: Vec<String>,
    /// What the account may do.
    pub(crate) rights: Rights,
    /// Everything that the database names, also what would not be in it.
    pub(crate) names: Vec<String>,
}

/// Of what kinds of object patterns may be: all that has a name of its own.
const NAMES: &str = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
     UNION SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() \
     UNION SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() \
     UNION SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()";

/// Looks at the database without reading a row.
pub(crate) async fn look(cx: &Context, target: &Target, chosen: &dyn Chosen) -> Result<Looked> {
    let (out, _listener) = mpsc::channel(1);
    let (connection, notices) = (target.connect(cx).await?, Notices::default());
    let mut dumping = Dumping {
        cx,
        connection,
        database: &target.server.database,
        chosen,
        notices: &notices,
        out,
        pending: Vec::new(),
        set: String::new(),
        collation: Default::default(),
        gives_history_back: true,
    };
    let looking = async {
        let found = dumping.find().await?;
        found.has_any(&target.identity)?;
        let rights = Rights::of(&mut dumping.connection).await?;
        let names = query(&mut dumping.connection, NAMES).await?;
        let names = names.iter().filter_map(|row| text_of(row, 0)).collect();
        Ok(Looked { tables: found.tables.into_iter().map(|table| table.name).collect(), rights, names })
    };
    let looked = within(cx, ANSWER, "look at the tables", looking).await;
    hang_up(dumping.connection).await;
    looked
}

/// Settings that could change or cut what comes are made, and read back; then one view of all tables is opened.
async fn begin(connection: &mut Connection) -> Result<()> {
    // Of all that a server's or an account's defaults may have changed: who waits for a table waits for us to give up.
    execute(connection, "SET SESSION lock_wait_timeout = 86400, sql_quote_show_create = 1").await?;
    let expected = [
        ("sql_select_limit", "18446744073709551615"),
        ("sql_mode", "NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES"),
        ("time_zone", "+00:00"),
        ("character_set_client", "utf8mb4"),
        ("character_set_results", ""),
        ("sql_quote_show_create", "1"),
    ];
    for (name, wanted) in expected {
        let found = query(connection, &format!("SELECT @@SESSION.{name}")).await?;
        let found = found.first().and_then(|row| text_of(row, 0)).unwrap_or_default();
        let sorted = |modes: &str| {
            let mut modes: Vec<String> = modes.split(',').map(str::to_owned).collect();
            modes.sort();
            modes
        };
        if sorted(&found) != sorted(wanted) {
            return Err(Error::failed(format!(
                "the server keeps `{name}` at `{found}`, which would change what is saved"
            ))
            .hint("let the account change its session's settings"));
        }
    }
    execute(connection, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    execute(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    failpoint::hit("dump-begun")
}

/// The default collation of the database.
pub(super) const COLLATION_OF_DATABASE: &str =
    "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()";

/// Its comment.
pub(super) const COMMENT_OF_DATABASE: &str =
    "SELECT SCHEMA_COMMENT FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()";

/// The statement that gives the database a default collation.
pub(super) fn with_collation(collation: &str) -> String {
    format!("ALTER DATABASE COLLATE = {}", literal(collation))
}

/// The statement that gives it a comment.
pub(super) fn with_comment(comment: &str) -> String {
    format!("/*M!100500 ALTER DATABASE COMMENT = {} */", literal(comment))
}

impl Dumping<'_> {
    async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        within(self.cx, STATEMENT, "make the dump", query(&mut self.connection, sql)).await
    }

    async fn execute(&mut self, sql: &str) -> Result<()> {
        within(self.cx, STATEMENT, "make the dump", execute(&mut self.connection, sql)).await.map(drop)
    }

    /// Sees to it that what follows is run under these settings.
    fn under(&mut self, settings: &Settings<'_>) {
        let sql = settings.sql();
        if self.set != sql {
            self.push("setting", &sql);
            self.set = sql;
        }
    }

    /// Adds a statement.
    fn push(&mut self, what: &str, sql: impl AsRef<[u8]>) {
        frames::push(&mut self.pending, what, sql.as_ref());
    }

    /// Sends what is written so far, once it is worth it.
    async fn send(&mut self, at_least: usize) -> Result<()> {
        if self.pending.len() < at_least.max(1) {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.pending, Vec::with_capacity(2 * CHUNK));
        self.out.send(Ok(piece.into())).await.map_err(|_| Error::interrupted())
    }

    async fn write(&mut self, target: &Target) -> Result<()> {
        let found = self.find().await?;
        found.has_any(&target.identity)?;
        self.write_head();
        if !self.chosen.is_only_data() {
            self.defaults().await?;
        }
        for name in &found.sequences {
            let done = self.sequence(name).await;
            self.saved(done, "sequence", name)?;
        }
        let mut saved = Vec::new();
        // First those without data: what others refer to, and what a server may have already.
        for has_data in [false, true] {
            for table in found.tables.iter().filter(|table| table.has_data == has_data) {
                if self.table(table).await.at(format!("table {}", shown(&table.name)))? {
                    saved.push(table.name.clone());
                }
            }
        }
        if !self.chosen.is_only_data() {
            self.routines().await?;
        }
        self.views(&found.views).await?;
        self.triggers(&saved).await?;
        if !self.chosen.is_only_data() {
            self.events().await?;
        }
        self.under(&OURS);
        self.under_collation(Some(&self.collation.0.clone()));
        self.accounts(&target.server.database).await?;
        self.pending.extend_from_slice(format!("\n{COMPLETE}\n").as_bytes());
        self.send(0).await
    }

    fn write_head(&mut self) {
        let how = "-- Each statement stands behind its length in bytes. `cdrvault restore` reads by it; so does, without it, a client that\n\
                   -- changes nothing: mariadb --comments --binary-mode --default-character-set=utf8mb4 DATABASE < FILE";
        self.pending.extend_from_slice(format!("{FIRST}\n{how}\n\n").as_bytes());
        self.push("setting", "SET NAMES utf8mb4");
        self.under(&OURS);
        self.push("setting", "SET SESSION foreign_key_checks = 0, autocommit = 1");
        for sql in OF_MARIADB.split_terminator(";\n") {
            self.push("setting", sql);
        }
    }

    /// What new tables and routines of the database have where nothing else is said.
    async fn defaults(&mut self) -> Result<()> {
        let rows = self.query(COLLATION_OF_DATABASE).await?;
        let collation = rows.first().and_then(|row| text_of(row, 0)).ok_or_else(unreadable)?;
        self.collation.0.clone_from(&collation);
        self.under_collation(Some(&collation));
        // MySQL has none, and MariaDB since 10.5.
        let comments = self.query(COMMENT_OF_DATABASE).await.unwrap_or_default();
        if let Some(comment) = comments.first().and_then(|row| text_of(row, 0)).filter(|text| !text.is_empty()) {
            self.push("database", with_comment(&comment));
        }
        Ok(())
    }

    /// Sees to it that what follows is made while the database has this default, which a routine's own values keep.
    fn under_collation(&mut self, collation: Option<&str>) {
        let Some(collation) = collation.filter(|one| !self.collation.0.is_empty() && *one != self.collation.1) else {
            return;
        };
        self.push("database", with_collation(collation));
        self.collation.1 = collation.to_owned();
    }

    /// What could not be saved is told, and the rest goes on; what may pass is tried again as a whole.
    fn saved(&self, done: Result<()>, kind: &str, name: &str) -> Result<()> {
        match done {
            Err(error) if error.kind().passes() || error.kind() == Kind::Interrupted => Err(error),
            Err(error) => {
                let hint = error.hint_text().map_or_else(String::new, |hint| format!("{hint}; "));
                self.notices.problem(format!(
                    "{kind} {} is not in the dump: {}; {hint}`exclude` leaves it out without a word",
                    shown(name),
                    error.message()
                ));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The statement that makes an object, in its own bytes; an error where the account may not read it.
    async fn shown_create(&mut self, kind: &str, name: &str, column: usize) -> Result<Option<(Row, Vec<u8>)>> {
        let rows = self.query(&format!("SHOW CREATE {kind} {}", quoted(name))).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        Ok(row.get(column).map(<[u8]>::to_vec).map(|sql| (row, sql)))
    }

    async fn sequence(&mut self, name: &str) -> Result<()> {
        let sql = self.shown_create("SEQUENCE", name, 1).await?.map(|(_, sql)| sql).ok_or_else(unreadable)?;
        let asked = "next_not_cached_value, minimum_value, maximum_value, increment, cycle_count";
        let rows = self.query(&format!("SELECT {asked} FROM {}", quoted(name))).await?;
        let row = rows.first().ok_or_else(|| Error::failed("it has no row"))?;
        let at = |column| text_of(row, column).and_then(|digits| digits.parse::<i128>().ok()).unwrap_or_default();
        let (next, least, most, round) = (at(0), at(1), at(2), at(4));
        // One that has run out takes no next value, only a last one.
        let step = if at(3) == 0 { 1 } else { at(3) };
        let (value, used) = if (least..=most).contains(&next) { (next, 0) } else { (next - step, 1) };
        let what = format!("sequence {}", shown(name));
        self.push(&what, format!("DROP SEQUENCE IF EXISTS {}", quoted(name)));
        self.push(&what, sql);
        self.push(&what, format!("DO SETVAL({}, {value}, {used}, {round})", quoted(name)));
        Ok(())
    }

    /// `false` for a table that cannot be saved, of which the dump has nothing then.
    async fn table(&mut self, table: &Table) -> Result<bool> {
        let name = &table.name;
        // What is read of a table holds off those who would change its form, until we have what we want of it.
        self.execute("SAVEPOINT before_table").await?;
        let sql = match self.open(table).await {
            Ok(sql) => sql,
            Err(error) if table.is_left_out => {
                self.notices.note(format!("table {} is not in the dump: {}", shown(name), error.one_line()));
                self.execute("ROLLBACK TO SAVEPOINT before_table").await?;
                return Ok(false);
            }
            Err(error) => {
                self.saved(Err(error), "table", name)?;
                self.execute("ROLLBACK TO SAVEPOINT before_table").await?;
                return Ok(false);
            }
        };
        let what = format!("table {}", shown(name));
        let sql = text::unqualified(&sql, self.database, false);
        if table.has_data {
            self.push(&what, format!("DROP TABLE IF EXISTS {}", quoted(name)));
            self.push(&what, sql);
            self.rows(table).await?;
        } else {
            self.push(&what, text::only_schema(&sql));
        }
        self.execute("ROLLBACK TO SAVEPOINT before_table").await?;
        self.send(CHUNK).await?;
        Ok(true)
    }

    /// The statement that makes a table, which can be read.
    async fn open(&mut self, table: &Table) -> Result<Vec<u8>> {
        let (_, sql) = self.shown_create("TABLE", &table.name, 1).await?.ok_or_else(unreadable)?;
        if table.has_data {
            self.query(&format!("SELECT 1 FROM {} LIMIT 0", quoted(&table.name))).await.map_err(|error| {
                // It was there when we looked first.
                if error.kind() == Kind::NotFound { Error::new(Kind::Transient, error.one_line()) } else { error }
            })?;
        }
        self.with_own_texts(&table.name, sql).await
    }

    async fn rows(&mut self, table: &Table) -> Result<()> {
        let name = &table.name;
        let columns = self
            .query(&format!(
                "SELECT {} FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} \
                 ORDER BY ORDINAL_POSITION",
                Columns::ASKED,
                literal(name)
            ))
            .await?;
        let mut columns = Columns::new(&columns, self.gives_history_back);
        let mut from = quoted(name);
        let with_history =
            table.is_versioned && self.gives_history_back && columns.period != Some(Period::Transactions);
        if with_history {
            if columns.period.is_none() {
                columns.push_hidden_period();
            }
            from += " FOR SYSTEM_TIME ALL";
            self.push("setting", "SET SESSION system_versioning_insert_history = 1");
        } else if table.is_versioned {
            let why = if self.gives_history_back {
                "it numbers them by transactions, which another server does not know"
            } else {
                "this server does not take them back, MariaDB 10.11 does"
            };
            let what = format!("of table {} the rows in force are saved, not the earlier ones: {why}", shown(name));
            self.notices.warning(what);
        }
        let order = self.order(table).await?;
        let select = format!("SELECT {} FROM {from}{order}", columns.select_list());
        let doing = format!("read table {}", shown(name));
        let mut inserts = Inserts::new(name, &columns);
        let mut read = 0_i64;
        {
            let connection = &mut self.connection;
            let selecting = async { connection.select(&select).await.map_err(|error| explain(&doing, error)) };
            let mut rows = within(self.cx, STATEMENT, &doing, selecting).await?;
            loop {
                let next = async { rows.next().await.map_err(|error| explain(&doing, error)) };
                let Some(row) = within(self.cx, STATEMENT, &doing, next).await? else { break };
                inserts.add(&mut self.pending, &row);
                read += 1;
                if self.pending.len() >= CHUNK {
                    let piece = std::mem::replace(&mut self.pending, Vec::with_capacity(2 * CHUNK));
                    self.out.send(Ok(piece.into())).await.map_err(|_| Error::interrupted())?;
                }
            }
        }
        inserts.finish(&mut self.pending);
        if with_history {
            self.push("setting", "SET SESSION system_versioning_insert_history = 0");
        }
        // A table without transactions has more rows by now, where somebody writes to it.
        let count = if table.is_transactional {
            format!("SELECT COUNT(*) FROM {from}")
        } else {
            "SELECT FOUND_ROWS()".to_owned()
        };
        let counting = query_integer(&mut self.connection, &count);
        let there = within(self.cx, STATEMENT, &doing, counting).await?.unwrap_or(-1);
        if read != there {
            return Err(Error::new(Kind::Damaged, format!("{read} rows came, and the server counts {there}"))
                .hint("look for settings of the server, or of a proxy before it, that cut results"));
        }
        Ok(())
    }

    /// The same rows are the same dump. By the key InnoDB reads them anyway; others would have to sort.
    async fn order(&mut self, table: &Table) -> Result<String> {
        if !table.is_transactional {
            return Ok(String::new());
        }
        let sql = format!(
            "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} \
             AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
            literal(&table.name)
        );
        let names: Vec<String> =
            self.query(&sql).await?.iter().filter_map(|row| text_of(row, 0)).map(|name| quoted(&name)).collect();
        Ok(if names.is_empty() { String::new() } else { format!(" ORDER BY {}", names.join(", ")) })
    }

    async fn accounts(&mut self, database: &str) -> Result<()> {
        let finding = accounts::statements(&mut self.connection, database, self.notices);
        let statements = within(self.cx, STATEMENT, "read the accounts", finding).await.at("the accounts")?;
        for statement in statements {
            self.push("account", statement);
        }
        Ok(())
    }
}

fn unreadable() -> Error {
    Error::new(Kind::Denied, "the account may not read its text")
}
