//! A private moto: an imitation of Amazon's S3, with what Garage lacks (versions, and locks on objects).

#![allow(clippy::unused_self, reason = "what is true of every such server is asked like the rest")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::{boto3, leftovers, places};

/// The bucket that is there from the start.
const BUCKET: &str = "vault";

/// A running server, which dies with this value. It forgets everything when it ends.
///
/// It accepts every key: it is not a test of credentials.
#[derive(Debug)]
pub(crate) struct Moto {
    _daemon: Daemon,
    port: u16,
    _directory: TempDir,
}

impl Moto {
    /// Starts it, and makes a bucket.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with a clock that is `ahead` of ours, as `+10d`.
    pub(crate) fn start_with_clock(ahead: &str) -> Self {
        let library = places::libfaketime();
        Self::start_with(&[("LD_PRELOAD", library.to_str().expect("a path of Debian's")), ("FAKETIME", ahead)])
    }

    fn start_with(environment: &[(&str, &str)]) -> Self {
        leftovers::sweep();
        let directory = tempfile::Builder::new().prefix("cdrvault-moto-").tempdir().expect("a temporary directory");
        let (daemon, port) = Daemon::on_free_port(|port| serve(directory.path(), port, environment));
        let server = Self { _daemon: daemon, port, _directory: directory };
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
        "us-east-1"
    }

    pub(crate) fn bucket(&self) -> &'static str {
        BUCKET
    }

    pub(crate) fn access_key(&self) -> &'static str {
        "test"
    }

    pub(crate) fn secret_key(&self) -> &'static str {
        "s3cret-canary"
    }

    /// Another bucket.
    pub(crate) fn new_bucket(&self, name: &str) {
        self.put(&format!("/{name}"), "", "");
    }

    /// Another bucket, which keeps what is overwritten or deleted; with `object_lock`, objects in it can be locked.
    pub(crate) fn versioned_bucket(&self, name: &str, object_lock: bool) {
        let header = if object_lock { "x-amz-bucket-object-lock-enabled: true\r\n" } else { "" };
        self.put(&format!("/{name}"), header, "");
        let body = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        self.put(&format!("/{name}?versioning"), "", body);
    }

    /// Runs Python with boto3's client `s3`; see [`boto3::run`].
    pub(crate) fn boto3(&self, script: &str) -> Result<String, String> {
        boto3::run(&self.endpoint(), self.region(), (self.access_key(), self.secret_key()), script)
    }

    /// See [`boto3::download`].
    pub(crate) fn download(&self, into: &Path) -> PathBuf {
        boto3::download(|script| self.boto3(script), self.bucket(), into)
    }

    /// A request without signature, which moto accepts.
    fn put(&self, path: &str, header: &str, body: &str) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("moto listens");
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a socket can wait");
        let host = format!("127.0.0.1:{}", self.port);
        let length = body.len();
        let request =
            format!("PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n");
        write!(stream, "{request}{header}\r\n{body}").expect("moto reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("moto answers");
        assert!(reply.starts_with("HTTP/1.1 200"), "moto does not do PUT {path}:\n{reply}");
    }
}

fn serve(directory: &Path, port: u16, environment: &[(&str, &str)]) -> Result<Daemon, String> {
    let mut command = Command::new(super::python::python());
    // What `moto_server` does. The directory is there to be seen in the list of processes.
    command.args(["-c", "import sys; from moto.server import main; main(sys.argv[2:])"]).arg(directory);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    // Large objects go to temporary files.
    command.env("TMPDIR", directory).env("PYTHONUNBUFFERED", "1");
    for (name, _) in std::env::vars_os() {
        if [b"MOTO_".as_slice(), b"AWS_"].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().copied());
    Daemon::start(&mut command, directory, &format!("Running on http://127.0.0.1:{port}"))
}
