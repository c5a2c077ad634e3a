//! What a run reads: odd dates, wide sums, what nobody announced, and databases that freeze or are busy.

use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use crate::services::home::{Site, said};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::python;
use crate::services::rating::{Rating, transaction};
use crate::services::wait_for;
use cdrvault::generator::sqlite;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection};

const UNDATED: &str = "__HIVE_DEFAULT_PARTITION__";

/// The database of a site, which is a file.
struct File {
    runtime: tokio::runtime::Runtime,
    connection: SqliteConnection,
}

impl File {
    fn make(site: &Site) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let connection = runtime.block_on(sqlite::create(&site.path("billing.sqlite"))).unwrap();
        Self { runtime, connection }
    }

    /// Another program that looks at it.
    fn reader(site: &Site) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(site.path("billing.sqlite"));
        let connection = runtime.block_on(options.connect()).unwrap();
        Self { runtime, connection }
    }

    fn sql(&mut self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        self.runtime.block_on(sql.execute(&mut self.connection)).unwrap();
    }

    /// A call of each flow, at these moments.
    fn calls(&mut self, moments: &[&str]) {
        for (id, moment) in moments.iter().enumerate() {
            self.sql(&format!(
                "INSERT INTO ar_source_cdr VALUES ({moment}, {id}, 1, 1, 'a call', 0);
                 INSERT INTO ar_cdr (calldate, id, is_service_cdr, income, exported_internal_telephone_number)
                  VALUES ({moment}, {id}, 0, 5, '')"
            ));
        }
    }
}

/// What is saved of a dataset: partition and rows.
fn saved(site: &Site, dataset: &str) -> Vec<(String, u64)> {
    let said = site.ok("snapshots", &["--json"]);
    let listed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let all = listed["snapshots"].as_array().unwrap().iter().filter(|one| one["dataset"] == dataset);
    let mut found: Vec<_> =
        all.map(|one| (one["partition"].as_str().unwrap().to_owned(), one["rows"].as_u64().unwrap())).collect();
    found.sort();
    found
}

/// As if the last registration were long ago: a sweep is no longer a full one.
fn forget_the_registration(site: &Site) {
    let path = site.path("state/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (_, flow) in state["flows"].as_object_mut().unwrap() {
        flow["full-until"] = "2020-01-01T00:00:00Z".into();
    }
    std::fs::write(&path, state.to_string()).unwrap();
}

fn is_said_to_be_sorted(path: &Path) -> bool {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    reader.metadata().row_group(0).sorting_columns().is_some()
}

#[test]
fn no_date_in_sqlite_hides_another_day() {
    for odd in ["'2024-02-31 10:00:00'", "'2024-13-01 00:00:00'", "CAST(X'323032342d30312dff' AS TEXT)", "'2024'"] {
        let site = Site::new("sqlite:billing.sqlite");
        let days = ["'2024-02-29 23:00:00'", "'2024-12-31 01:00:00'", "'2025-06-01 00:00:00'"];
        File::make(&site).calls(&[days[0], days[1], days[2], odd]);
        site.ok("run", &[]);
        let expected =
            ["2024-02-29", "2024-12-31", "2025-06-01", UNDATED].map(|partition| (partition.to_owned(), 1)).to_vec();
        for dataset in ["ar_cdr", "ar_source_cdr"] {
            assert_eq!(saved(&site, dataset), expected, "{dataset} with {odd}");
        }
        for path in site.live() {
            let undated = path.to_string_lossy().contains("undated");
            assert_eq!(is_said_to_be_sorted(&path), !undated, "{}", path.display());
        }
    }
}

#[test]
fn a_sweep_of_sqlite_finds_changes_in_rows_without_a_date_and_beyond_64_bits() {
    let site = Site::new("sqlite:billing.sqlite");
    site.edit(
        "[\"incremental\", \"parquet\"]",
        "[{ incremental = { sweep-every = \"1s\", window = \"1d\" } }, \"parquet\"]",
    );
    let mut file = File::make(&site);
    file.calls(&["'2024-02-28 10:00:00'", "'2024-02-28 11:00:00'", "'2024-02-31 10:00:00'"]);
    file.sql(
        "UPDATE ar_cdr SET income = 9223372036854775807, cost = -9223372036854775807 WHERE calldate < '2024-02-29'",
    );
    site.ok("run", &[]);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(site.published(), Vec::<String>::new());
        forget_the_registration(&site);
    }
    file.sql("UPDATE ar_source_cdr SET content = 'another call' WHERE calldate > '2024-02-3'");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(site.published(), [format!("ar_source_cdr {UNDATED}")]);
    file.sql("UPDATE ar_cdr SET income = income - 1 WHERE id = 1");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(site.published(), ["ar_cdr 2024-02-28"]);
}

/// Without a write-ahead log a reader of SQLite holds up a writer. Our own snapshots are such readers.
#[test]
fn a_snapshot_of_sqlite_does_not_fail_the_claim_of_another_day() {
    let site = Site::new("sqlite:billing.sqlite");
    File::make(&site).calls(&["'2026-01-01 10:00:00'", "'2026-01-02 10:00:00'", "'2026-01-03 10:00:00'"]);
    let go = site.path("go");
    let run = site.start(&format!("after-snapshot=pause:{}", go.display()));
    wait_for(&site.path("go.reached"));
    // Longer than SQLite lets a writer wait.
    std::thread::sleep(Duration::from_secs(4));
    std::fs::write(&go, "").unwrap();
    assert!(end_of(run).success());
    assert_eq!(saved(&site, "ar_cdr").len(), 3);
}

#[test]
fn a_reader_of_sqlite_that_stays_makes_days_wait_and_breaks_nothing() {
    let site = Site::new("sqlite:billing.sqlite");
    let mut file = File::make(&site);
    file.calls(&["'2026-01-01 10:00:00'", "'2026-01-02 10:00:00'"]);
    site.ok("run", &[]);
    file.sql(
        "UPDATE ar_cdr SET income = 6;
         INSERT INTO ar_daily_status_change SELECT day, id FROM ar_daily_status_job, (SELECT '2026-01-01' AS day UNION SELECT '2026-01-02')
          WHERE name LIKE '%/inbox'",
    );
    let mut reader = File::reader(&site);
    reader.sql("BEGIN; SELECT COUNT(*) FROM ar_cdr");
    let waits = site.run("run", &[]);
    assert_eq!(waits.status, 1, "{}", waits.err);
    assert!(waits.err.contains("the application is processing this day"), "{}", waits.err);
    assert!(!waits.err.contains("within a transaction"), "{}", waits.err);
    reader.sql("COMMIT");
    assert_eq!(site.published(), ["ar_cdr 2026-01-01", "ar_cdr 2026-01-02"]);
}

#[test]
fn an_older_copy_of_a_sqlite_file_is_noticed() {
    let site = Site::new("sqlite:billing.sqlite");
    let mut file = File::make(&site);
    file.calls(&["'2026-01-01 10:00:00'", "'2026-01-02 10:00:00'"]);
    site.ok("run", &[]);
    let announce = "INSERT OR IGNORE INTO ar_daily_status_change SELECT '2026-01-01', id FROM ar_daily_status_job";
    file.sql("UPDATE ar_cdr SET cached_external_telephone_number = '0123' WHERE calldate < '2026-01-02'");
    file.sql(announce);
    site.ok("run", &[]);
    let earlier = site.path("earlier.sqlite");
    std::fs::copy(site.path("billing.sqlite"), &earlier).unwrap();
    file.sql("UPDATE ar_cdr SET cached_external_telephone_number = '9999' WHERE calldate < '2026-01-02'");
    file.sql(announce);
    site.ok("run", &[]);
    drop(file);
    std::fs::copy(&earlier, site.path("billing.sqlite")).unwrap();
    let said = site.ok("run", &["--json"]);
    let report = said.report();
    assert_eq!(report["warnings"].to_string().matches("is not as the last run left it").count(), 1, "{report}");
    let units = report["units"].as_array().unwrap();
    let published: Vec<_> = units.iter().filter(|unit| unit["result"] == "published").collect();
    assert!(published.len() == 1 && published[0]["partition"] == "2026-01-01", "{units:?}");
    assert!(!site.ok("run", &[]).err.contains("is not as the last run left it"));
}

/// A server whose process is stopped: its connections stand, and nothing answers.
struct Frozen(String);

impl Frozen {
    fn new(server: &MariaDb) -> Self {
        let pid = std::fs::read_to_string(server.socket().with_file_name("pid")).unwrap().trim().to_owned();
        signal("-STOP", &pid);
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(which: &str, pid: &str) {
    assert!(Command::new("kill").args([which, pid]).status().unwrap().success());
}

#[test]
fn a_server_that_freezes_hangs_no_run() {
    // Each from the beginning: what one run has sealed, the next one delivers without the server.
    for (step, stop) in [("after-snapshot", true), ("after-claim", false)] {
        let server = MariaDb::start(Engine::InnoDb);
        Rating::new(81, 2, 30).fill(&server);
        let site = Site::on(&server);
        site.edit("[database.billing]", "[database.billing]\nconnect-timeout = \"2s\"");
        let go = site.path("go");
        let mut command = site.command("run", &[]);
        command.env("CDRVAULT_FAILPOINT", format!("{step}=pause:{}", go.display()));
        let run = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_for(&site.path("go.reached"));
        let frozen = Frozen::new(&server);
        std::fs::write(&go, "").unwrap();
        if stop {
            signal("-TERM", &run.id().to_string());
        }
        let said = said(waited_for(run).wait_with_output().unwrap());
        drop(frozen);
        assert_eq!(said.status, if stop { 130 } else { 1 }, "{}", said.err);
        assert!(!said.err.contains("processing this day"), "{}", said.err);
        site.ok("run", &[]);
        python::compare(&server, &site.vault(), false).unwrap();
    }
}

#[test]
fn a_server_that_may_only_be_read_is_compared_by_sums() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(82, 2, 30).fill(&server);
    server.sql("", "SET GLOBAL read_only = 1");
    let site = Site::on(&server);
    site.edit("[\"incremental\", \"parquet\"]", "[{ incremental = { window = \"9y\" } }, \"parquet\"]");
    let said = site.ok("run", &[]);
    assert!(said.err.contains("is not told of changed days") && said.err.contains("read"), "{}", said.err);
    server.app("UPDATE ar_cdr SET income = income + 1 WHERE calldate < '2026-01-02' LIMIT 1");
    assert_eq!(site.published(), ["ar_cdr 2026-01-01"]);
    python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn events_alone_are_not_trusted_right_after_the_registration() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(83, 2, 30).fill(&server);
    let site = Site::on(&server);
    site.edit("[\"incremental\", \"parquet\"]", "[{ incremental = { detect = [\"events\"] } }, \"parquet\"]");
    site.ok("run", &[]);
    // What a transaction that was open at the registration would do.
    server.app("UPDATE ar_cdr SET income = income + 1 WHERE calldate < '2026-01-02' LIMIT 1");
    assert_eq!(site.published(), ["ar_cdr 2026-01-01"]);
    site.ok("run", &[]);
    forget_the_registration(&site);
    server.app("UPDATE ar_cdr SET income = income + 1 WHERE calldate < '2026-01-02' LIMIT 1");
    assert_eq!(site.published(), Vec::<String>::new(), "later there are only events");
}

#[test]
fn what_was_sealed_is_not_used_when_the_sweep_finds_another_change() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(84, 1, 30).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    server.app(&transaction("UPDATE ar_cdr SET income = income + 1;", &["2026-01-01"]));
    assert_ne!(site.with_failpoint("run", "after-seal=abort").status, 0);
    server.app("UPDATE ar_cdr SET income = income + 1");
    site.ok("run", &[]);
    python::compare(&server, &site.vault(), false).unwrap();
}

/// The run, once it has ended; one that does not end is killed, and fails the test.
fn waited_for(mut run: Child) -> Child {
    for _ in 0..2000 {
        if run.try_wait().unwrap().is_some() {
            return run;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = run.kill();
    panic!("the run does not end");
}

fn end_of(run: Child) -> ExitStatus {
    waited_for(run).wait().unwrap()
}

#[test]
fn a_server_that_shows_another_moment_or_cuts_results_hides_no_call() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(83, 2, 30).fill(&server);
    server.app("ALTER TABLE ar_source_cdr ADD SYSTEM VERSIONING");
    server.sql("", "SET GLOBAL system_versioning_asof = '2020-01-01', GLOBAL sql_select_limit = 3");
    let site = Site::on(&server);
    site.ok("run", &[]);
    server.sql("", "SET GLOBAL system_versioning_asof = DEFAULT, GLOBAL sql_select_limit = DEFAULT");
    for dataset in ["ar_cdr", "ar_source_cdr"] {
        let rows: u64 = saved(&site, dataset).iter().map(|(_, rows)| rows).sum();
        assert_eq!(server.sql("asterisell", &format!("SELECT COUNT(*) FROM {dataset}")).trim(), rows.to_string());
    }
}
