//! A private MariaDB.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{leftovers, places, template};

/// The password of the account `cdrvault`, which has the least privileges that the manual names.
pub(crate) const PASSWORD: &str = "s3cret-canary";

/// How long a start may take; machines that run many tests are slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where the tables of calls and of changed days are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// MariaDB's default.
    InnoDb,
    /// MyRocks: calls and the queue; what has unique names stays in InnoDB, because RocksDB refuses those.
    RocksDb,
}

/// How a server is to be started.
#[derive(Debug)]
pub(crate) struct Server {
    engine: Engine,
    options: Vec<String>,
    home: Option<PathBuf>,
}

/// A running server, which dies with this value.
///
/// It lives in a temporary directory that nobody else may enter, listens on a socket there and on a free port of 127.0.0.1.
/// `root` is accepted at the socket only, without password.
#[derive(Debug)]
pub(crate) struct MariaDb {
    process: Child,
    directory: TempDir,
    port: u16,
    started: Server,
}

impl Server {
    /// With the defaults.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, options: Vec::new(), home: None }
    }

    /// With an option of `mariadbd`, as `--sql-mode=ANSI_QUOTES` or `--default-time-zone=+05:30`.
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// With everything that it writes below a directory, as on a small file system.
    pub(crate) fn within(mut self, home: &Path) -> Self {
        self.home = Some(home.to_owned());
        self
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn start(self) -> MariaDb {
        leftovers::sweep();
        let home = self.home.clone().unwrap_or_else(std::env::temp_dir);
        let directory =
            tempfile::Builder::new().prefix("cdrvault-mariadb-").tempdir_in(home).expect("a temporary directory");
        template::copy_to(&directory.path().join("data"));
        // Somebody else may take the port between our asking for a free one and the server's binding it.
        for _ in 0..5 {
            let port = free_port();
            let mut process = self.spawn(directory.path(), port);
            leftovers::note(process.id(), directory.path());
            if wait(&mut process, directory.path()) {
                let server = MariaDb { process, directory, port, started: self };
                server.make_application(server.started.engine);
                return server;
            }
            leftovers::forget(process.id());
            let log = log(directory.path());
            assert!(log.contains("Address already in use"), "mariadbd does not start:\n{log}");
        }
        panic!("no free port on 127.0.0.1");
    }

    fn spawn(&self, directory: &Path, port: u16) -> Child {
        let path = |name: &str| directory.join(name).display().to_string();
        let mut command = Command::new(places::program("mariadbd", "mariadb-server"));
        command
            .arg("--no-defaults")
            .args(template::user_option())
            .arg(format!("--datadir={}", path("data")))
            .arg(format!("--socket={}", path("socket")))
            .arg(format!("--pid-file={}", path("pid")))
            .arg(format!("--log-error={}", path("log")))
            .arg(format!("--tmpdir={}", directory.display()))
            .args([format!("--port={port}"), "--bind-address=127.0.0.1".to_owned(), "--skip-name-resolve".to_owned()])
            // What a commit means stays as it is: a commit outlives the server, though not a power failure.
            .args(["--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M"])
            .args(["--performance-schema=OFF", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=4M"])
            .args(["--max-connections=60", "--innodb-buffer-pool-dump-at-shutdown=OFF", "--innodb-fast-shutdown=1"]);
        if self.engine == Engine::RocksDb {
            command.args(["--plugin-load-add=ha_rocksdb", "--rocksdb-block-cache-size=32M"]);
            command.args(["--rocksdb-flush-log-at-trx-commit=2", "--rocksdb-db-write-buffer-size=32M"]);
            // MyRocks has no READ UNCOMMITTED.
            command.arg("--transaction-isolation=READ-COMMITTED");
        } else {
            // What the rating engine works under.
            command.arg("--transaction-isolation=READ-UNCOMMITTED");
        }
        command.args(&self.options);
        let log = File::options().create(true).append(true).open(directory.join("log")).expect("a writable directory");
        let also = log.try_clone().expect("another handle");
        command.stdin(Stdio::null()).stdout(log).stderr(also).spawn().expect("mariadbd runs")
    }
}

impl MariaDb {
    /// Starts a server with the defaults.
    pub(crate) fn start(engine: Engine) -> Self {
        Server::new(engine).start()
    }

    /// Starts a server again that ended by itself, with what it had.
    pub(crate) fn start_again(&mut self) {
        let _ = self.process.wait();
        leftovers::forget(self.process.id());
        self.process = self.started.spawn(self.directory.path(), self.port);
        leftovers::note(self.process.id(), self.directory.path());
        assert!(
            wait(&mut self.process, self.directory.path()),
            "mariadbd does not start again:\n{}",
            log(self.directory.path())
        );
    }

    /// Ends it: in order, or as a power cut would.
    pub(crate) fn end(&mut self, in_order: bool) {
        if in_order {
            leftovers::stop(self.process.id(), || matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)));
        } else {
            self.process.kill().expect("it runs");
        }
        self.process.wait().expect("it ends");
    }

    /// Where its data lie.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The application's database with its tables, empty, and our account.
    fn make_application(&self, engine: Engine) {
        self.sql("", "CREATE DATABASE asterisell");
        self.app(&schema(engine));
        self.app(&format!(
            "CREATE USER cdrvault@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
             GRANT SELECT ON asterisell.* TO cdrvault@'127.0.0.1';
             GRANT INSERT ON asterisell.ar_daily_status_job TO cdrvault@'127.0.0.1';
             GRANT INSERT, DELETE ON asterisell.ar_daily_status_change TO cdrvault@'127.0.0.1';"
        ));
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The socket, at which root is accepted.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// What a pipeline file says.
    pub(crate) fn url(&self) -> String {
        format!("mysql://cdrvault@127.0.0.1:{}/asterisell", self.port)
    }

    /// Runs statements in the application's database.
    pub(crate) fn app(&self, sql: &str) -> String {
        self.sql("asterisell", sql)
    }

    /// Runs statements as root; the output, a line a row with tabs between the values.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{}\nin: {sql:.300}", error.rsplit("\nERROR").next().unwrap_or_default()))
    }

    /// The same, with what the server says against it.
    pub(crate) fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut child = Command::new(places::program("mariadb", "mariadb-client"))
            .args([
                "--no-defaults",
                "-uroot",
                "--default-character-set=utf8mb4",
                "--batch",
                "--skip-column-names",
                "--raw",
                "--comments",
            ])
            .arg(format!("--socket={}", self.socket().display()))
            .args((!database.is_empty()).then_some(database))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mariadb runs");
        let mut input = child.stdin.take().expect("a pipe");
        // A client that ends early says why itself.
        let _ = input.write_all(sql.as_bytes());
        drop(input);
        let done = child.wait_with_output().expect("mariadb ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let server = self.process.id();
        if matches!(self.process.try_wait(), Ok(None)) {
            leftovers::stop(server, || matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)));
        }
        leftovers::forget(server);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("127.0.0.1 is there");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Waits for the server's greeting; false when the server ended instead.
fn wait(process: &mut Child, directory: &Path) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if matches!(process.try_wait(), Ok(Some(_)) | Err(_)) {
            return false;
        }
        if let Ok(mut stream) = UnixStream::connect(directory.join("socket")) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            if stream.read_exact(&mut [0; 5]).is_ok() {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    leftovers::stop(process.id(), || matches!(process.try_wait(), Ok(Some(_)) | Err(_)));
    panic!("mariadbd is not ready after {PATIENCE:?}:\n{}", log(directory));
}

fn log(directory: &Path) -> String {
    let log = fs::read(directory.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// The fixture; with RocksDB the CDR and queue tables are on it, and the tables with unique names stay on InnoDB.
fn schema(engine: Engine) -> String {
    let schema = include_str!("../../fixtures/schema.sql");
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
