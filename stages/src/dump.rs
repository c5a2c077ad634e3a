//! `dump`: a database without its calls, as SQL, by the system's `mariadb-dump`.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cdrvault_pipeline::config::{Glob, Problem, Reference, Section, schema_of};
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::entry::Entry;
use cdrvault_pipeline::error::{At as _, Error, Kind, Result};
use cdrvault_pipeline::notice::Notices;
use cdrvault_pipeline::payload::{Body, Object, Payload, Shape};
use cdrvault_pipeline::plugin::{BuildSource, Plugin};
use cdrvault_pipeline::stage::{Ask, Candidate, Read, Session, Snapshot, Source};
use futures::{StreamExt as _, stream};
use globset::{GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::database::mysql::MySqlSession;
use crate::database::mysql::client::Running;
use crate::database::mysql::connect::{Target, hang_up, query, text};
use crate::database::mysql::rights::Rights;
use crate::database::mysql::{accounts, staging};
use crate::database::reading::read_ahead;
use crate::detached::Detached;

pub(crate) fn plugin() -> Plugin<dyn BuildSource> {
    Plugin {
        kind: "dump",
        about: "a database without its calls, as SQL: schema, data, triggers, routines, events, views",
        details: "By the system's `mariadb-dump` (or `mysqldump`), in one transaction. It counts only when the program ended \
                  well and wrote its closing line. A dump with the same content makes no new generation. Of tables whose \
                  data is left out, the dump has the schema, as `CREATE TABLE IF NOT EXISTS`, so that it makes a whole \
                  database where there is none, and leaves alone what is there. Accounts and roles that have rights on this very \
                  database are written at the end, where ours may read `mysql.db`; a restore runs them only when told to.\n\n\
                  Needs SELECT, SHOW VIEW, TRIGGER and EVENT on the database; for routines, SELECT on `mysql.proc`.",
        schema: schema_of::<Options>,
        parse,
    }
}

/// A database without its calls.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The database.
    database: Reference,
    /// Whose data is saved.
    #[serde(default)]
    tables: Set,
    /// Patterns of tables: only their data is saved.
    #[serde(default)]
    include: Vec<Glob>,
    /// Patterns of tables whose data is not saved; it wins over `include`.
    #[serde(default)]
    exclude: Vec<Glob>,
}

/// A named set of tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Set {
    /// Every table; the calls only where `include` names them, otherwise their schema.
    #[default]
    All,
    /// Asterisell: everything but calls, reports, and what the application makes again by itself.
    Configuration,
    /// Asterisell: the reports and their documents, and nothing else.
    Reports,
}

const CALLS: [&str; 2] = ["ar_cdr", "ar_source_cdr"];

/// What the application makes again by itself.
const REGENERATED: [&str; 13] = [
    "ar_current_problem",
    "ar_new_problem",
    "ar_bundle_state",
    "ar_organization_backup_of_changes",
    "ar_report_to_read",
    "ar_user_can_view_report",
    "ar_job_queue",
    "ar_lock",
    "ar_temp_source_cdr",
    "ar_temp_source_cdr_to_dest_cdr",
    "ar_temp_problem",
    "ar_daily_status_change",
    "ar_cached_organization_info",
];

const REPORTS: [&str; 5] =
    ["ar_report", "ar_report_also_for", "ar_report_scheduler", "ar_report_set", "ar_report_generation"];

/// Whose data is saved.
#[derive(Debug, Clone)]
struct Choice {
    set: Set,
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Choice {
    fn new(options: &Options) -> Result<Self, globset::Error> {
        let compile = |patterns: &[Glob]| {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns {
                set.add(globset::Glob::new(pattern.as_str())?);
            }
            set.build()
        };
        let include = if options.include.is_empty() { None } else { Some(compile(&options.include)?) };
        Ok(Self { set: options.tables, include, exclude: compile(&options.exclude)? })
    }

    fn has_data_of(&self, table: &str) -> bool {
        let of_set = match self.set {
            // They are saved day by day; a dump of all of them would be made anew by every run.
            Set::All => !CALLS.contains(&table) || self.include.is_some(),
            Set::Configuration => !CALLS.contains(&table) && !REGENERATED.contains(&table) && !REPORTS.contains(&table),
            Set::Reports => REPORTS.contains(&table),
        };
        of_set && self.include.as_ref().is_none_or(|include| include.is_match(table)) && !self.exclude.is_match(table)
    }
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn BuildSource>> {
    let options: Options = section.options()?;
    match Choice::new(&options) {
        Ok(choice) => Some(Box::new(BuildDump { database: options.database, choice })),
        Err(error) => {
            let problem = Problem::new(section.span(), format!("the patterns cannot be used: {error}"));
            section.problem(problem.help("write fewer or simpler patterns"));
            None
        }
    }
}

struct BuildDump {
    database: Reference,
    choice: Choice,
}

impl BuildSource for BuildDump {
    fn emits(&self) -> Shape {
        Shape::Objects
    }

    fn database(&self) -> Option<&Reference> {
        Some(&self.database)
    }

    fn announces(&self) -> bool {
        false
    }

    fn build(&self, flow: &str, session: Option<Arc<dyn Session>>) -> Result<(Arc<dyn Source>, Arc<dyn Session>)> {
        let session: Option<Arc<dyn std::any::Any + Send + Sync>> = session.map(|session| session as _);
        let Some(Ok(session)) = session.map(Arc::downcast::<MySqlSession>) else {
            return Err(Error::new(Kind::Config, format!("flow `{flow}`: only MariaDB and MySQL have dumps"))
                .hint("a SQLite file is saved by `files`, while nobody writes to it"));
        };
        let target = session.target().clone();
        let identity = format!("dump:{}#{flow}", target.identity);
        let dump = Dump { choice: self.choice.clone(), target, flow: flow.to_owned() };
        Ok((Arc::new(dump), Arc::new(Detached::new(identity, "a dump is made by every run, and compared"))))
    }
}

/// See the module.
#[derive(Clone)]
struct Dump {
    choice: Choice,
    target: Target,
    flow: String,
}

/// Which tables there are, by what is dumped of them.
#[derive(Debug, Default)]
struct Tables {
    data: Vec<String>,
    schema_only: Vec<String>,
}

impl Tables {
    fn all(&self) -> impl Iterator<Item = &String> {
        self.data.iter().chain(&self.schema_only)
    }
}

/// The line that stands before the accounts of the database.
pub(crate) const ACCOUNTS: &str = "-- cdrvault: accounts of this database";

impl Dump {
    async fn tables(&self, cx: &Context) -> Result<Tables> {
        let mut connection = self.target.connect(cx).await?;
        let sql = "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME";
        let rows = query(&mut connection, sql).await;
        hang_up(connection).await;
        let mut tables = Tables::default();
        for row in rows? {
            let name = text(&row, 0).unwrap_or_default();
            // What a restore that was killed left.
            if name.starts_with(staging::PREFIX) {
                continue;
            }
            let is_view = text(&row, 1).unwrap_or_default() != "BASE TABLE";
            if self.choice.has_data_of(&name) && (!is_view || self.choice.set != Set::Reports) {
                tables.data.push(name);
            } else if self.choice.set != Set::Reports && !is_view {
                tables.schema_only.push(name);
            }
        }
        if tables.data.is_empty() {
            return Err(Error::new(
                Kind::NotFound,
                format!("{} has no table that is to be dumped", self.target.identity),
            )
            .hint(
                "check the database's name in `url`, `tables`, `include` and `exclude`, and the rights of the account",
            ));
        }
        Ok(tables)
    }

    /// What the server hides from this account without an error, and is then not in the dump.
    fn unseen(&self, rights: &Rights, tables: &Tables) -> Vec<String> {
        let database = &self.target.server.database;
        let mut unseen = Vec::new();
        let mut lacks = |right: &str, on: &str, what: &str| {
            unseen.push(format!("{what} may be missing in the dump, and nothing tells: grant {right} on {on}"));
        };
        // Who names tables may grant no more than those.
        if self.choice.include.is_none() && !rights.on_database("SELECT", database) {
            lacks("SELECT", &format!("`{database}`.*"), "tables");
        }
        if !tables.all().all(|table| rights.on_table("TRIGGER", database, table)) {
            lacks("TRIGGER", &format!("`{database}`.*"), "triggers");
        }
        // Whoever sees a routine, and may not read it, gets an error.
        let sees = ["EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE", "SHOW CREATE ROUTINE", "SHOW_ROUTINE"];
        if self.choice.set != Set::Reports
            && !rights.on_table("SELECT", "mysql", "proc")
            && !sees.iter().any(|right| rights.on_database(right, database))
        {
            lacks("SELECT", "`mysql`.`proc`, or SHOW_ROUTINE on MySQL 8,", "routines");
        }
        unseen
    }

    /// Statements that make the accounts again which have rights on this very database; none where we may not read them.
    async fn accounts(&self, cx: &Context, notices: &Notices) -> Result<String> {
        let mut connection = self.target.connect(cx).await?;
        let found = accounts::statements(&mut connection, &self.target.server.database, notices).await;
        hang_up(connection).await;
        let statements = found?;
        Ok(if statements.is_empty() { statements } else { format!("\n{ACCOUNTS}\n{statements}") })
    }

    /// All of it, into a channel.
    async fn write(self, cx: Context, out: mpsc::Sender<Result<Bytes>>, notices: Notices) -> Result<()> {
        let tables = self.tables(&cx).await?;
        let mut options = vec![
            "--single-transaction",
            "--quick",
            "--skip-lock-tables",
            "--skip-dump-date",
            "--hex-blob",
            "--no-tablespaces",
            "--triggers",
            "--add-drop-trigger",
        ];
        if self.choice.set != Set::Reports {
            options.extend(["--routines", "--events"]);
        }
        // First: views of the other tables may be about these.
        if !tables.schema_only.is_empty() {
            let options = [
                "--no-data",
                "--skip-add-drop-table",
                "--single-transaction",
                "--skip-lock-tables",
                "--skip-dump-date",
                "--no-tablespaces",
                "--triggers",
                "--add-drop-trigger",
            ];
            let schema = self.target.server.dump(&options, &tables.schema_only)?;
            forward(&cx, schema, &out, only_schema).await.at("the tables without their data")?;
        }
        let data = self.target.server.dump(&options, &tables.data)?;
        forward(&cx, data, &out, with_dates).await.at("the tables with their data")?;
        let accounts = self.accounts(&cx, &notices).await.at("the accounts")?;
        let _ = out.send(Ok(format!("{accounts}{COMPLETE}\n").into())).await;
        Ok(())
    }
}

/// The last line of a whole dump.
pub(crate) const COMPLETE: &str = "-- cdrvault: the dump is complete";

/// Under the mode that `mariadb-dump` asks for, dates that are none become zeros.
const LOSES_DATES: &[u8] = b"/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */";
const KEEPS_DATES: &[u8] =
    b"/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES' */";

fn with_dates(line: &[u8]) -> Cow<'_, [u8]> {
    match line.strip_prefix(LOSES_DATES) {
        Some(after) => [KEEPS_DATES, after].concat().into(),
        None => line.into(),
    }
}

/// Makes a table where there is none. The next number of an empty table says nothing, and would make each dump another.
fn only_schema(line: &[u8]) -> Cow<'_, [u8]> {
    if let Some(name) = line.strip_prefix(b"CREATE TABLE `") {
        return [b"CREATE TABLE IF NOT EXISTS `", name].concat().into();
    }
    if line.starts_with(b") ENGINE=") {
        // It stands before all that may be quoted text.
        let text = String::from_utf8_lossy(line);
        if let Some((before, after)) = text.split_once(" AUTO_INCREMENT=")
            && !before.contains('\'')
        {
            let after = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
            return [before.as_bytes(), after.as_bytes()].concat().into();
        }
    }
    with_dates(line)
}

/// The last line of `mariadb-dump`.
const CLOSING: &[u8] = b"-- Dump completed";

/// Sends what a program writes on its way, line by line changed.
async fn forward(
    cx: &Context,
    mut program: Running,
    out: &mpsc::Sender<Result<Bytes>>,
    change: fn(&[u8]) -> Cow<'_, [u8]>,
) -> Result<()> {
    let mut tail = Vec::new();
    let mut unfinished = Vec::new();
    while let Some(piece) = program.read(cx).await? {
        tail.extend_from_slice(&piece);
        tail.drain(..tail.len().saturating_sub(64));
        unfinished.extend_from_slice(&piece);
        if out.send(Ok(whole_lines(&mut unfinished, change))).await.is_err() {
            return Ok(());
        }
    }
    if !unfinished.is_empty() {
        let _ = out.send(Ok(unfinished.into())).await;
    }
    program.finish(cx).await?;
    // A program may be killed and still end with status 0, behind a wrapper.
    let last = tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    if !last.starts_with(CLOSING) {
        return Err(Error::new(Kind::Transient, "the dump has no closing line: it is not whole"));
    }
    Ok(())
}

/// Takes the whole lines off a buffer.
fn whole_lines(buffer: &mut Vec<u8>, change: fn(&[u8]) -> Cow<'_, [u8]>) -> Bytes {
    let end = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = buffer.split_off(end);
    let lines = std::mem::replace(buffer, rest);
    let mut out = Vec::with_capacity(lines.len() + 64);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(&change(line));
    }
    out.into()
}

#[async_trait]
impl Source for Dump {
    fn emits(&self) -> Shape {
        Shape::Objects
    }

    fn describe(&self) -> String {
        format!("dump:{}", self.target.identity)
    }

    async fn check(&self, cx: &Context) -> Result<Vec<String>> {
        let tables = self.tables(cx).await?;
        let mut connection = self.target.connect(cx).await?;
        let rights = Rights::of(&mut connection).await;
        hang_up(connection).await;
        Ok(self.unseen(&rights?, &tables))
    }

    async fn discover(&self, _: &Context, _: &Ask) -> Result<Vec<Candidate>> {
        Ok(Detached::candidates())
    }

    async fn read(&self, cx: &Context, _: &Arc<dyn Snapshot>, read: &Read) -> Result<Payload> {
        let (dump, cx, notices) = (self.clone(), cx.clone(), read.notices.clone());
        let bytes = read_ahead(|out| dump.write(cx, out, notices));
        let object = Object { entry: Entry::object(format!("{}.sql", self.flow)), body: Body::Stream(bytes) };
        Ok(Payload::Objects(stream::iter([Ok(object)]).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_move_by_themselves_are_no_content() {
        let of = |line: &str| String::from_utf8(only_schema(line.as_bytes()).into_owned()).unwrap();
        assert_eq!(
            of(") ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=utf8mb4;\n"),
            ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;\n"
        );
        let comment = ") ENGINE=InnoDB COMMENT='x AUTO_INCREMENT=5';\n";
        assert_eq!(of(comment), comment);
        assert_eq!(of("CREATE TABLE `a` (\n"), "CREATE TABLE IF NOT EXISTS `a` (\n");
    }
}
