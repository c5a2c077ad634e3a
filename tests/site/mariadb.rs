//! A private MariaDB.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::target;

/// The password of the account `cdrvault`, which has the least privileges that the manual names.
pub const PASSWORD: &str = "s3cret-canary";

/// Which engine holds the CDR and queue tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    InnoDb,
    RocksDb,
}

/// A running server with Asterisell's tables in the database `asterisell`.
pub struct MariaDb {
    child: Child,
    home: tempfile::TempDir,
    pub port: u16,
}

impl MariaDb {
    pub fn start(engine: Engine) -> Self {
        Self::start_with(engine, &[])
    }

    /// With more options for the server.
    pub fn start_with(engine: Engine, more: &[&str]) -> Self {
        let home = tempfile::Builder::new().prefix("cdrvault-mariadb").tempdir().unwrap();
        let data = home.path().join("data");
        let copied = Command::new("cp").arg("-a").arg("--reflink=auto").arg(template()).arg(&data).status().unwrap();
        assert!(copied.success());
        let port = free_port();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"])
            .args(["--performance-schema=off", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", home.path().join("sock").display()))
            .arg(format!("--port={port}"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if engine == Engine::RocksDb {
            // MyRocks has no READ UNCOMMITTED.
            command.args(["--plugin-load-add=ha_rocksdb", "--transaction-isolation=READ-COMMITTED"]);
        } else {
            // What the rating engine works under.
            command.arg("--transaction-isolation=READ-UNCOMMITTED");
        }
        let child = command.spawn().expect("mariadbd is missing: apt-get install mariadb-server, or run ./test");
        let server = Self { child, home, port };
        server.wait_until_ready();
        server.sql("", "CREATE DATABASE asterisell");
        server.sql("asterisell", &schema(engine));
        server.sql(
            "asterisell",
            &format!(
                "CREATE USER cdrvault@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
                 GRANT SELECT ON asterisell.* TO cdrvault@'127.0.0.1';
                 GRANT INSERT ON asterisell.ar_daily_status_job TO cdrvault@'127.0.0.1';
                 GRANT INSERT, DELETE ON asterisell.ar_daily_status_change TO cdrvault@'127.0.0.1';"
            ),
        );
        server
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            let ready = self.client("").args(["-e", "SELECT 1"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            if ready.expect("mariadb is missing: apt-get install mariadb-client, or run ./test").success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("mariadbd did not start:\n{}", std::fs::read_to_string(self.home.path().join("log")).unwrap());
    }

    fn client(&self, database: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args([
                "--no-defaults",
                "-uroot",
                "--default-character-set=utf8mb4",
                "--batch",
                "--skip-column-names",
                "--raw",
            ])
            .arg(format!("--socket={}", self.socket().display()));
        if !database.is_empty() {
            command.arg(database);
        }
        command
    }

    /// Runs statements as root; the output, a line a row with tabs between the values.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{}\nin: {:.300}", error.rsplit("\nERROR").next().unwrap_or_default(), sql))
    }

    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut child =
            self.client(database).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }

    /// Runs statements in the application's database.
    pub fn app(&self, sql: &str) -> String {
        self.sql("asterisell", sql)
    }

    pub fn socket(&self) -> PathBuf {
        self.home.path().join("sock")
    }

    pub fn url(&self) -> String {
        format!("mysql://cdrvault@127.0.0.1:{}/asterisell", self.port)
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Asks a process to end, and ends it if it does not.
pub fn stop(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let deadline = Instant::now() + Duration::from_secs(15);
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A fresh data directory, made once for each version of the server and copied for each test.
fn template() -> PathBuf {
    let version = Command::new("mariadbd").arg("--version").output();
    let version = version.expect("mariadbd is missing: apt-get install mariadb-server, or run ./test").stdout;
    let version: String =
        String::from_utf8_lossy(&version).chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let services = target().join("services");
    std::fs::create_dir_all(&services).unwrap();
    let lock = std::fs::File::create(services.join("template.lock")).unwrap();
    lock.lock().unwrap();
    let template = services.join(format!("mariadb-{version}"));
    if !template.exists() {
        let making = services.join("mariadb-making");
        let _ = std::fs::remove_dir_all(&making);
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", making.display()))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::rename(&making, &template).unwrap();
    }
    template
}

/// The fixture; with RocksDB the CDR and queue tables are on it, and the tables with unique names stay on InnoDB.
fn schema(engine: Engine) -> String {
    let schema = include_str!("../fixtures/schema.sql");
    if engine == Engine::InnoDb {
        return schema.to_owned();
    }
    let mut on_rocks = false;
    let mut out = String::new();
    for line in schema.lines() {
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            on_rocks =
                ["ar_cdr ", "ar_source_cdr ", "ar_daily_status_change "].iter().any(|name| rest.starts_with(name));
        }
        if on_rocks && line.starts_with(") DEFAULT") {
            out.push_str(&line.replacen(") DEFAULT", ") ENGINE=RocksDB DEFAULT", 1));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}
