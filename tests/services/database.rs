//! A database with Asterisell's tables on a private server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, MySqlConnection};

use super::mariadb::{Engine, MariaDb};
use super::places;

/// The account that pipelines use.
pub(crate) const USER: &str = "cdrvault";
/// Its password; it has what breaks careless quoting.
const PASSWORD: &str = "p'a\"ss $w%rd #1";

/// What RocksDB accepts, and what the engine of the calls matters for.
const CALL_TABLES: [&str; 3] = ["ar_cdr", "ar_source_cdr", "ar_daily_status_change"];

/// A database on a private server.
#[derive(Debug)]
pub(crate) struct Database<'s> {
    server: &'s MariaDb,
    name: String,
}

impl<'s> Database<'s> {
    pub(super) async fn create(server: &'s MariaDb, name: &str) -> Self {
        let mut root = server.root().await;
        run(&mut root, &format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin; USE `{name}`"))
            .await;
        run(&mut root, &schema(server.engine())).await;
        grant(&mut root, name).await;
        let database = Self { server, name: name.to_owned() };
        let file = database.password_file();
        fs::write(&file, format!("{PASSWORD}\n")).expect("the server's directory is writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our own file");
        database
    }

    /// The server that it is on.
    pub(crate) fn server(&self) -> &'s MariaDb {
        self.server
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// For the `url` of a pipeline: over TCP, without the password.
    pub(crate) fn url(&self) -> String {
        format!("mysql://{USER}@127.0.0.1:{}/{}", self.server.port(), self.name)
    }

    /// For the `password` of a pipeline; nobody else may read it.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.server.directory().join("cdrvault.password")
    }

    /// The password itself.
    #[expect(clippy::unused_self, reason = "each server may come to have its own")]
    pub(crate) fn password(&self) -> &'static str {
        PASSWORD
    }

    /// A connection that may do everything, with this database chosen.
    pub(crate) async fn root(&self) -> MySqlConnection {
        self.server.root_options().database(&self.name).connect().await.expect("root is accepted at the socket")
    }

    /// Takes the right away to write to the tables of changed days.
    pub(crate) async fn revoke_events(&self) {
        let mut root = self.root().await;
        for table in ["ar_daily_status_job", "ar_daily_status_change"] {
            run(&mut root, &format!("REVOKE INSERT, DELETE ON {table} FROM {USER}@'127.0.0.1'")).await;
        }
    }
}

/// The account, with the least that pipelines need: reading, and the rows of our own jobs.
async fn grant(root: &mut MySqlConnection, name: &str) {
    let password = PASSWORD.replace('\'', "''");
    run(root, &format!("CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{password}'")).await;
    run(root, &format!("GRANT SELECT ON `{name}`.* TO {USER}@'127.0.0.1'")).await;
    for table in ["ar_daily_status_job", "ar_daily_status_change"] {
        run(root, &format!("GRANT INSERT, DELETE ON `{name}`.{table} TO {USER}@'127.0.0.1'")).await;
    }
}

/// The fixture, for an engine.
fn schema(engine: Engine) -> String {
    let file = places::test_file("fixtures/schema.sql");
    let schema = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if engine == Engine::InnoDb {
        return schema;
    }
    let mut tables = schema.split("CREATE TABLE ");
    let mut changed = tables.next().unwrap_or_default().to_owned();
    for table in tables {
        changed.push_str("CREATE TABLE ");
        if CALL_TABLES.iter().any(|name| table.starts_with(&format!("{name} ("))) {
            changed.push_str(&table.replacen(") DEFAULT CHARACTER SET", ") ENGINE=RocksDB DEFAULT CHARACTER SET", 1));
        } else {
            changed.push_str(table);
        }
    }
    changed
}

async fn run(connection: &mut MySqlConnection, sql: &str) {
    if let Err(error) = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await {
        panic!("{error}\nin: {sql}");
    }
}
