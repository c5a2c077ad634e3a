//! `dump`: a database without its calls, as SQL, by the system's `mariadb-dump`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cdrvault_pipeline::config::{Glob, Problem, Reference, Section, schema_of};
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::entry::Entry;
use cdrvault_pipeline::error::{At as _, Error, Kind, Result};
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
use crate::database::mysql::connect::{Target, hang_up, literal, query, text};
use crate::detached::Detached;

pub(crate) fn plugin() -> Plugin<dyn BuildSource> {
    Plugin {
        kind: "dump",
        about: "a database without its calls, as SQL: schema, data, triggers, routines, events, views",
        details: "By the system's `mariadb-dump` (or `mysqldump`), in one transaction. It counts only when the program ended \
                  well and wrote its closing line. A dump with the same content makes no new generation. Of tables whose \
                  data is left out, the dump has the schema, as `CREATE TABLE IF NOT EXISTS`, so that it makes a whole \
                  database where there is none, and leaves alone what is there. Accounts that have rights on this very \
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
    /// Every table.
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
            Set::All => true,
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
            let name = text(&row, 0)?.unwrap_or_default();
            let is_view = text(&row, 1)?.unwrap_or_default() != "BASE TABLE";
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

    /// Statements that make the accounts again which have rights on this very database; none where we may not read them.
    async fn accounts(&self, cx: &Context) -> Result<String> {
        let mut connection = self.target.connect(cx).await?;
        let database = self.target.login.database();
        let accounts = async {
            // A `_` of the name is escaped there.
            let escaped = literal(&database.replace('_', "\\_"));
            let sql = format!(
                "SELECT DISTINCT User, Host FROM mysql.db WHERE Db IN ({}, {escaped}) AND User <> '' ORDER BY User, Host",
                literal(database)
            );
            let mut statements = String::new();
            for row in query(&mut connection, &sql).await? {
                let part = |column| text(&row, column).map(Option::unwrap_or_default);
                let account = format!("{}@{}", literal(&part(0)?), literal(&part(1)?));
                for sql in [format!("SHOW CREATE USER {account}"), format!("SHOW GRANTS FOR {account}")] {
                    for line in query(&mut connection, &sql).await? {
                        let line = text(&line, 0)?.unwrap_or_default();
                        let about_us = line.starts_with("CREATE USER")
                            || line.contains(&format!(" ON `{}`", database.replace('_', "\\_")))
                            || line.contains(&format!(" ON `{database}`"));
                        if about_us {
                            let line = line.replacen("CREATE USER ", "CREATE USER IF NOT EXISTS ", 1);
                            statements += &format!("{line};\n");
                        }
                    }
                }
            }
            Ok::<_, Error>(statements)
        };
        let found = accounts.await;
        hang_up(connection).await;
        match found {
            Ok(statements) if statements.is_empty() => Ok(String::new()),
            Ok(statements) => Ok(format!("\n{ACCOUNTS}\n{statements}")),
            Err(error) if error.kind() == Kind::Denied => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// All of it, into a channel.
    async fn write(self, cx: Context, out: mpsc::Sender<Result<Bytes>>) -> Result<()> {
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
            let schema = self.target.login.dump(&options, &tables.schema_only)?;
            let create = ("CREATE TABLE `", "CREATE TABLE IF NOT EXISTS `");
            forward(&cx, schema, &out, &[create, KEEP_DATES]).await.at("the tables without their data")?;
        }
        let data = self.target.login.dump(&options, &tables.data)?;
        forward(&cx, data, &out, &[KEEP_DATES]).await.at("the tables with their data")?;
        let accounts = self.accounts(&cx).await.at("the accounts")?;
        let _ = out.send(Ok(format!("{accounts}{COMPLETE}\n").into())).await;
        Ok(())
    }
}

/// The last line of a whole dump.
pub(crate) const COMPLETE: &str = "-- cdrvault: the dump is complete";

/// Under the mode that `mariadb-dump` asks for, dates that are none become zeros.
const KEEP_DATES: (&str, &str) = (
    "/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */",
    "/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES' */",
);

/// The last line of `mariadb-dump`.
const CLOSING: &[u8] = b"-- Dump completed";

/// Sends what a program writes on its way. Lines that begin so are made to begin otherwise.
async fn forward(
    cx: &Context,
    mut program: Running,
    out: &mpsc::Sender<Result<Bytes>>,
    replace: &[(&str, &str)],
) -> Result<()> {
    let mut tail = Vec::new();
    let mut unfinished = Vec::new();
    while let Some(piece) = cx.unless_cancelled(program.read()).await? {
        tail.extend_from_slice(&piece);
        tail.drain(..tail.len().saturating_sub(64));
        unfinished.extend_from_slice(&piece);
        if out.send(Ok(whole_lines(&mut unfinished, replace))).await.is_err() {
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
fn whole_lines(buffer: &mut Vec<u8>, replace: &[(&str, &str)]) -> Bytes {
    let end = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = buffer.split_off(end);
    let lines = std::mem::replace(buffer, rest);
    let mut out = Vec::with_capacity(lines.len() + 64);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let found = replace.iter().find_map(|(from, to)| Some((to, line.strip_prefix(from.as_bytes())?)));
        let (to, after) = found.unwrap_or((&"", line));
        out.extend_from_slice(to.as_bytes());
        out.extend_from_slice(after);
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

    async fn check(&self, cx: &Context) -> Result<()> {
        self.tables(cx).await.map(drop)
    }

    async fn discover(&self, _: &Context, _: &Ask) -> Result<Vec<Candidate>> {
        Ok(Detached::candidates())
    }

    async fn read(&self, cx: &Context, _: &Arc<dyn Snapshot>, _: &Read) -> Result<Payload> {
        let (out, receiver) = mpsc::channel(4);
        let (dump, cx, failed) = (self.clone(), cx.clone(), out.clone());
        tokio::spawn(async move {
            if let Err(error) = dump.write(cx, out).await {
                let _ = failed.send(Err(error)).await;
            }
        });
        let bytes =
            stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) });
        let object = Object { entry: Entry::object(format!("{}.sql", self.flow)), body: Body::Stream(bytes.boxed()) };
        Ok(Payload::Objects(stream::iter([Ok(object)]).boxed()))
    }
}
