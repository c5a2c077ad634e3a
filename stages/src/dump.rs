//! `dump`: a database without its calls, as SQL.

use std::sync::Arc;

use async_trait::async_trait;
use cdrvault_format::entry::Entry;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::options::{Glob, Problem, Reference, Section, schema_of};
use cdrvault_plugin::payload::{Body, Object, Payload, Shape};
use cdrvault_plugin::registry::{BuildSource, Plugin};
use cdrvault_plugin::stage::{Ask, Candidate, Read, Session, Snapshot, Source};
use futures::{StreamExt as _, stream};
use globset::{GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::database::mysql::dumping::{self, Chosen};
use crate::database::mysql::rights::Rights;
use crate::database::mysql::{MySqlSession, Target};
use crate::database::reading::read_ahead;
use crate::detached::Detached;

pub(crate) fn plugin() -> Plugin<dyn BuildSource> {
    Plugin {
        kind: "dump",
        about: "a database without its calls, as SQL: schema, data, triggers, routines, events, views",
        details: "In one transaction. Every table's rows are counted once more by the server, and a difference ends it. A dump \
                  with the same content makes no new generation. Of tables whose data is left out, the dump has the schema, \
                  as `CREATE TABLE IF NOT EXISTS`, so that it makes a whole database where there is none, and leaves alone \
                  what is there. Of system-versioned tables the earlier rows are saved, too, with their times, on MariaDB \
                  10.11 and later. What cannot be saved (a view of a table that is gone, a routine whose text may not be \
                  read) is named, the rest is saved, and the run ends with 3. Accounts and roles that have rights on this \
                  very database are written at the end, where ours may read `mysql.db`; a restore runs them only when told \
                  to.\n\n\
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
    /// Patterns of tables whose data is not saved, and of views, sequences, routines and events that are left out; it wins
    /// over `include`.
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
    /// As they were written, by the option that has them.
    patterns: Vec<(&'static str, String)>,
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
        let written = |option, patterns: &[Glob]| {
            patterns.iter().map(move |pattern| (option, pattern.as_str().to_owned())).collect::<Vec<_>>()
        };
        let patterns = [written("include", &options.include), written("exclude", &options.exclude)].concat();
        Ok(Self { set: options.tables, include, exclude: compile(&options.exclude)?, patterns })
    }

    /// The patterns that match nothing, and should: what is to be saved, and a name that is written out. A pattern of what
    /// is not to be saved may be about what comes and goes.
    fn idle(&self, names: &[String]) -> Vec<String> {
        let is_name = |pattern: &str| !pattern.contains(['*', '?', '[', '{']);
        let matches = |pattern: &str| {
            globset::Glob::new(pattern).is_ok_and(|glob| {
                let glob = glob.compile_matcher();
                names.iter().any(|name| glob.is_match(name))
            })
        };
        let idle = self
            .patterns
            .iter()
            .filter(|(option, pattern)| (*option == "include" || is_name(pattern)) && !matches(pattern));
        idle.map(|(option, pattern)| format!("`{pattern}` of `{option}` matches nothing in the database")).collect()
    }
}

impl Chosen for Choice {
    fn has_data_of(&self, table: &str) -> bool {
        let of_set = match self.set {
            // They are saved day by day; a dump of all of them would be made anew by every run.
            Set::All => !CALLS.contains(&table) || self.include.is_some(),
            Set::Configuration => !CALLS.contains(&table) && !REGENERATED.contains(&table) && !REPORTS.contains(&table),
            Set::Reports => REPORTS.contains(&table),
        };
        of_set && self.include.as_ref().is_none_or(|include| include.is_match(table)) && !self.exclude.is_match(table)
    }

    fn is_only_data(&self) -> bool {
        self.set == Set::Reports
    }

    fn leaves_out(&self, name: &str) -> bool {
        self.exclude.is_match(name)
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
                .hint("a SQLite file is saved by `files`, while no program writes to it"));
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

impl Dump {
    /// What the server hides from this account without an error, and is then not in the dump.
    fn unseen(&self, rights: &Rights, tables: &[String]) -> Vec<String> {
        let database = &self.target.server.database;
        let mut unseen = Vec::new();
        let mut lacks = |right: &str, on: &str, what: &str| {
            unseen.push(format!("{what} may be missing in the dump, and nothing tells: grant {right} on {on}"));
        };
        // Who names tables may grant no more than those.
        if self.choice.include.is_none() && !rights.on_database("SELECT", database) {
            lacks("SELECT", &format!("`{database}`.*"), "tables");
        }
        if !tables.iter().all(|table| rights.on_table("TRIGGER", database, table)) {
            lacks("TRIGGER", &format!("`{database}`.*"), "triggers");
        }
        if self.choice.is_only_data() {
            return unseen;
        }
        if !rights.on_database("EVENT", database) {
            lacks("EVENT", &format!("`{database}`.*"), "events");
        }
        // An account that sees a routine, and may not read it, gets an error.
        let sees = ["EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE", "SHOW CREATE ROUTINE", "SHOW_ROUTINE"];
        if !rights.on_table("SELECT", "mysql", "proc") && !sees.iter().any(|right| rights.on_database(right, database))
        {
            lacks("SELECT", "`mysql`.`proc`, or SHOW_ROUTINE on MySQL 8,", "routines");
        }
        unseen
    }
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
        let looked = dumping::look(cx, &self.target, &self.choice).await?;
        Ok([self.unseen(&looked.rights, &looked.tables), self.choice.idle(&looked.names)].concat())
    }

    async fn discover(&self, _: &Context, _: &Ask) -> Result<Vec<Candidate>> {
        Ok(Detached::candidates())
    }

    async fn read(&self, cx: &Context, _: &Arc<dyn Snapshot>, read: &Read) -> Result<Payload> {
        let (dump, cx, notices) = (self.clone(), cx.clone(), read.notices.clone());
        let bytes = read_ahead(async move |out| dumping::write(&cx, &dump.target, &dump.choice, &notices, out).await);
        let object = Object { entry: Entry::object(format!("{}.sql", self.flow)), body: Body::Stream(bytes) };
        Ok(Payload::Objects(stream::iter([Ok(object)]).boxed()))
    }
}
