//! A private Garage: a real S3 server, of one node.

#![allow(clippy::unused_self, reason = "what is true of every such server is asked like the rest")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::daemon::{self, Daemon};
use super::{boto3, leftovers};

/// The region that it says it is.
const REGION: &str = "garage";

/// The bucket that is there from the start.
const BUCKET: &str = "vault";

/// A running server, which dies with this value.
#[derive(Debug)]
pub(crate) struct Garage {
    daemon: Daemon,
    port: u16,
    access_key: String,
    secret_key: String,
    directory: TempDir,
}

impl Garage {
    /// Starts it, and makes a bucket and a key that may do everything with it.
    pub(crate) fn start() -> Self {
        leftovers::sweep();
        let directory = tempfile::Builder::new().prefix("cdrvault-garage-").tempdir().expect("a temporary directory");
        let (daemon, port) = Daemon::on_free_port(|port| {
            configure(directory.path(), port);
            serve(directory.path())
        });
        let mut server = Self { daemon, port, access_key: String::new(), secret_key: String::new(), directory };
        let node = server.command(&["node", "id", "-q"]);
        let node = node.trim_end().split('@').next().unwrap_or_default();
        server.command(&["layout", "assign", "-z", "dc1", "-c", "1G", node]);
        server.command(&["layout", "apply", "--version", "1"]);
        (server.access_key, server.secret_key) = server.make_key();
        server.new_bucket(BUCKET);
        server
    }

    /// What a pipeline file says.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn region(&self) -> &'static str {
        REGION
    }

    pub(crate) fn bucket(&self) -> &'static str {
        BUCKET
    }

    pub(crate) fn access_key(&self) -> &str {
        &self.access_key
    }

    pub(crate) fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Another bucket of the first key.
    pub(crate) fn new_bucket(&self, name: &str) {
        self.command(&["bucket", "create", name]);
        self.command(&["bucket", "allow", "--read", "--write", "--owner", name, "--key", &self.access_key]);
    }

    /// Another key, and what it may do with the first bucket: its name and its secret.
    pub(crate) fn new_key(&self, read: bool, write: bool) -> (String, String) {
        let (key, secret) = self.make_key();
        let rights: Vec<&str> = [(read, "--read"), (write, "--write")].iter().filter(|r| r.0).map(|r| r.1).collect();
        if !rights.is_empty() {
            self.command(&[&["bucket", "allow", BUCKET, "--key", &key], rights.as_slice()].concat());
        }
        (key, secret)
    }

    /// Stops it.
    pub(crate) fn stop(&mut self) {
        self.daemon.stop();
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, on the same port and with the same data.
    pub(crate) fn restart(&mut self) {
        self.daemon.stop();
        self.daemon = Daemon::again(|| serve(self.directory.path()));
    }

    /// Runs Python with boto3's client `s3`, which has the first key; see [`boto3::run`].
    pub(crate) fn boto3(&self, script: &str) -> Result<String, String> {
        boto3::run(&self.endpoint(), REGION, (&self.access_key, &self.secret_key), script)
    }

    /// See [`boto3::download`].
    pub(crate) fn download(&self, into: &Path) -> PathBuf {
        boto3::download(|script| self.boto3(script), self.bucket(), into)
    }

    /// Runs Garage's own command.
    pub(crate) fn command(&self, args: &[&str]) -> String {
        daemon::output(garage(self.directory.path()).args(args))
    }

    fn make_key(&self) -> (String, String) {
        let said = self.command(&["key", "create", "test"]);
        let value =
            |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned());
        value("Key ID:").zip(value("Secret key:")).unwrap_or_else(|| panic!("garage made no key:\n{said}"))
    }
}

fn configure(directory: &Path, port: u16) {
    let path = |name: &str| directory.join(name).display().to_string();
    let rpc = daemon::free_port();
    let text = format!(
        r#"
metadata_dir = "{}"
data_dir = "{}"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{}"

[s3_api]
s3_region = "{REGION}"
api_bind_addr = "127.0.0.1:{port}"
"#,
        path("metadata"),
        path("data"),
        daemon::random_hex(32),
    );
    fs::write(directory.join("config.toml"), text).expect("a writable directory");
}

fn serve(directory: &Path) -> Result<Daemon, String> {
    Daemon::start(garage(directory).arg("server"), directory, "S3 API server listening on")
}

fn garage(directory: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("-c").arg(directory.join("config.toml"));
    for (name, _) in std::env::vars_os() {
        // Its options can come from the environment as well, and what it logs.
        if name.as_encoded_bytes().starts_with(b"GARAGE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

fn program() -> PathBuf {
    let given = std::env::var_os("CDRVAULT_TEST_GARAGE").map(PathBuf::from);
    let program = given.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty()).map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        cache.unwrap_or_else(home).join("cdrvault-tests/garage-2.5.0/bin/garage")
    });
    assert!(program.is_file(), "{} is missing: run ./test, which builds it", program.display());
    program
}
