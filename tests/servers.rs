//! The servers that other tests rely on, tried by themselves: MariaDB with both engines, the rating engine, the readers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod services;

use std::path::Path;
use std::time::Duration;

use cdrvault::generator::{Settings, sqlite};
use services::{Billing, Database, Engine, MariaDb, Operation, RatingEngine, Server, USER, python};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlConnection, Row as _};

fn settings() -> Settings {
    Settings { calls_per_day: 400, ..Settings::default() }
}

async fn number(connection: &mut MySqlConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap()
}

/// As a pipeline connects.
async fn connect(database: &Database<'_>) -> MySqlConnection {
    let url: MySqlConnectOptions = database.url().parse().unwrap();
    let password = std::fs::read_to_string(database.password_file()).unwrap();
    url.password(password.trim_end()).connect().await.unwrap()
}

#[tokio::test]
async fn innodb_is_rated_while_we_look_on() {
    rated_while_we_look_on(Engine::InnoDb).await;
}

#[tokio::test]
async fn rocksdb_is_rated_while_we_look_on() {
    rated_while_we_look_on(Engine::RocksDb).await;
}

async fn rated_while_we_look_on(engine: Engine) {
    let server = MariaDb::start(engine);
    let database = server.fresh_database("asterisell").await;
    let mut root = database.root().await;
    sqlx::query("INSERT INTO ar_daily_status_job (name) VALUES ('ours'), ('theirs')").execute(&mut root).await.unwrap();

    let rating = RatingEngine::new(settings(), 3);
    let mut billing = Billing::MariaDb(database.root().await, engine);
    rating.load(&mut billing).await.unwrap();
    assert_eq!(number(&mut root, "SELECT COUNT(*) FROM ar_daily_status_change").await, 6);
    let sources = number(&mut root, "SELECT COUNT(*) FROM ar_source_cdr").await;
    assert!((700..2_000).contains(&sources), "{sources} source calls");
    assert!(number(&mut root, "SELECT COUNT(*) FROM ar_cdr").await > sources);
    let dangling = "SELECT COUNT(*) FROM ar_cdr c LEFT JOIN ar_source_cdr s ON s.calldate = c.calldate AND s.id = c.from_source_cdr_id
        WHERE c.is_service_cdr = 0 AND s.id IS NULL";
    assert_eq!(number(&mut root, dangling).await, 0);
    let stored = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.tables WHERE table_schema = 'asterisell' AND engine = 'ROCKSDB'";
    assert_eq!(number(&mut root, stored).await, if engine == Engine::RocksDb { 3 } else { 0 });

    let running = rating.spawn(billing, Duration::from_millis(5), 60);
    let mut ours = connect(&database).await;
    while !running.is_done() {
        // As the queue is claimed: it must never make the engine fail.
        sqlx::raw_sql(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION;
            DELETE FROM ar_daily_status_change WHERE ar_daily_status_job_id = 1; COMMIT",
        )
        .execute(&mut ours)
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut rating = running.finish();
    assert!(rating.report().failed.is_empty(), "{:?}", rating.report().failed);
    assert_eq!(rating.report().done.len(), 60);

    // Rating everything again makes the database what the generator says, whatever happened before.
    let mut billing = Billing::MariaDb(database.root().await, engine);
    rating.apply(&mut billing, Operation::RerateFrom(0, 50)).await.unwrap();
    compare_with_parquet(&database, &rating);
}

fn compare_with_parquet(database: &Database<'_>, rating: &RatingEngine) {
    let server = database.server();
    let file = server.directory().join("day.parquet");
    let (socket, day) = (server.socket(), rating.dates()[1].to_string());
    for table in ["ar_cdr", "ar_source_cdr"] {
        let arguments = |day: &str, more: &[&str]| -> Vec<String> {
            let fixed =
                ["--database", database.name(), "--table", table, "--socket", socket.to_str().unwrap(), "--day", day];
            fixed.iter().chain(more).map(ToString::to_string).chain([file.display().to_string()]).collect()
        };
        python::check("write_day.py", arguments(&day, &[]));
        let said = python::check("compare_day.py", arguments(&day, &[]));
        assert!(said.contains(": equal"), "{said}");
        python::check("compare_day.py", arguments(&day, &["--without", "id"]));
        for more in [&[][..], &["--without", "id"]] {
            let other = python::run("compare_day.py", arguments(&rating.dates()[2].to_string(), more));
            assert_eq!(other.status.code(), Some(1), "{}", String::from_utf8_lossy(&other.stderr));
            assert!(!other.stdout.is_empty());
        }
    }
}

#[tokio::test]
async fn the_account_of_pipelines_may_read_and_keep_its_own_jobs() {
    let server = MariaDb::start(Engine::InnoDb);
    let database = server.fresh_database("asterisell").await;
    let mut ours = connect(&database).await;
    let user: String = sqlx::query_scalar("SELECT CURRENT_USER()").fetch_one(&mut ours).await.unwrap();
    assert_eq!(user, format!("{USER}@127.0.0.1"));
    sqlx::query("INSERT INTO ar_daily_status_job (name) VALUES ('ours')").execute(&mut ours).await.unwrap();
    for forbidden in ["DELETE FROM ar_cdr", "DROP TABLE ar_cdr", "UPDATE ar_daily_status_job SET name = 'x'"] {
        assert!(sqlx::query(forbidden).execute(&mut ours).await.is_err(), "{forbidden}");
    }
    database.revoke_events().await;
    assert!(sqlx::query("DELETE FROM ar_daily_status_job").execute(&mut ours).await.is_err());

    let other = server.fresh_database("another").await;
    assert!(sqlx::query("SELECT 1 FROM another.ar_cdr").fetch_all(&mut connect(&other).await).await.is_ok());
    // Nobody is root over the network.
    let root = MySqlConnectOptions::new().host("127.0.0.1").port(server.port()).username("root").connect().await;
    assert!(root.is_err());
}

#[tokio::test]
async fn a_server_can_be_elsewhere_and_ends_with_its_value() {
    let server = Server::new(Engine::InnoDb).option("--sql-mode=ANSI_QUOTES").host_zone("America/New_York").start();
    let mut root = server.root().await;
    let row = sqlx::query("SELECT @@GLOBAL.sql_mode, @@system_time_zone").fetch_one(&mut root).await.unwrap();
    assert_eq!(row.get::<String, _>(0), "ANSI_QUOTES");
    assert!(["EST", "EDT"].contains(&row.get(1)));
    let (directory, port) = (server.directory().to_owned(), server.port());
    drop(server);
    assert!(!directory.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn sqlite_is_rated_and_read_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("billing.sqlite");
    let mut connection = sqlite::create(&file).await.unwrap();
    sqlx::query("INSERT INTO ar_daily_status_job (name) VALUES ('ours')").execute(&mut connection).await.unwrap();
    let mut rating = RatingEngine::new(settings(), 3).with_changes_by_hand();
    let mut billing = Billing::Sqlite(connection);
    rating.load(&mut billing).await.unwrap();
    for _ in 0..40 {
        let operation = rating.draw();
        rating.apply(&mut billing, operation).await.unwrap();
    }
    rating.apply(&mut billing, Operation::Renumber(0..3)).await.unwrap();

    let day = rating.dates()[0].to_string();
    let vault = directory.path().join("vault");
    for table in ["ar_cdr", "ar_source_cdr"] {
        let partition = vault.join(table).join(format!("day={day}"));
        std::fs::create_dir_all(&partition).unwrap();
        let parquet = partition.join(format!("{table}-{day}.parquet"));
        let arguments = ["--sqlite", text(&file), "--table", table, "--day", &day, text(&parquet)];
        python::check("write_day.py", arguments);
        python::check("compare_day.py", arguments);
    }
    let report = python::check("duckdb_vault.py", [text(&vault)]);
    let counted = format!("{day}\": ");
    assert_eq!(report.matches(&counted).count(), 2, "{report}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
