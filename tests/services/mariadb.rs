//! A private MariaDB.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions as _, MySqlConnection};
use tempfile::TempDir;

use super::database::Database;
use super::{leftovers, places, template};

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
    zone: Option<String>,
}

/// A running server, which dies with this value.
///
/// It lives in a temporary directory that nobody else may enter, listens on a socket there and on a free port of 127.0.0.1.
/// `root` is accepted at the socket only, without password.
#[derive(Debug)]
pub(crate) struct MariaDb {
    process: Child,
    directory: TempDir,
    engine: Engine,
    port: u16,
}

impl Server {
    /// With the defaults.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, options: Vec::new(), zone: None }
    }

    /// With an option of `mariadbd`, as `--sql-mode=ANSI_QUOTES` or `--default-time-zone=+05:30`.
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// On a host in this time zone, as `Europe/Rome`: what MariaDB calls `SYSTEM`.
    pub(crate) fn host_zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn start(self) -> MariaDb {
        leftovers::sweep();
        let directory = tempfile::Builder::new().prefix("cdrvault-mariadb-").tempdir().expect("a temporary directory");
        template::copy_to(&directory.path().join("data"));
        // Somebody else may take the port between our asking for a free one and the server's binding it.
        for _ in 0..5 {
            let port = free_port();
            let mut process = self.spawn(directory.path(), port);
            leftovers::note(process.id(), directory.path());
            if wait(&mut process, directory.path()) {
                return MariaDb { process, directory, engine: self.engine, port };
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
        }
        command.args(&self.options);
        if let Some(zone) = &self.zone {
            command.env("TZ", zone);
        }
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

    /// Where the calls are kept.
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A directory for the test's own files, gone with the server.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the server wrote into its log.
    pub(crate) fn log(&self) -> String {
        log(self.directory.path())
    }

    /// A connection that may do everything.
    pub(crate) async fn root(&self) -> MySqlConnection {
        self.root_options().connect().await.expect("root is accepted at the socket")
    }

    pub(super) fn root_options(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new().socket(self.socket()).username("root").charset("utf8mb4")
    }

    /// Another database on this server, with Asterisell's tables, empty; tests that share a server take one each.
    pub(crate) async fn fresh_database(&self, name: &str) -> Database<'_> {
        Database::create(self, name).await
    }

    /// Ends the server as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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
