//! The server's own client, for dumps of earlier versions: arguments as a list, never a shell, the password in the
//! environment, which nobody else can read.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::program::Program;
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::connect::within;
use super::dumping::without_values;
use super::wire::{Place, Server, Tls};

/// So much of the end of what a program complains of is kept. What is before are rows that it was given.
const COMPLAINTS: usize = 1 << 10;

/// How long a program may be busy with one statement. It may have indexes to build, or wait for a lock on a table.
const STATEMENT: Duration = Duration::from_hours(1);

/// How long a program may take to say its version.
const VERSION: Duration = Duration::from_secs(10);

/// How long the complaints of a program are waited for that has ended.
const LINGER: Duration = Duration::from_secs(2);

/// The client, for one server.
pub(super) struct Client<'s>(pub(super) &'s Server);

impl Client<'_> {
    /// Where and as whom a program connects.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = match &self.0.place {
            Place::Socket(socket) => vec![format!("--socket={}", socket.display())],
            // A name like `localhost` would make it look for a socket.
            Place::Tcp { host, port } => {
                vec![format!("--host={host}"), format!("--port={port}"), "--protocol=tcp".to_owned()]
            }
        };
        arguments.push(format!("--user={}", self.0.user));
        arguments
    }

    /// The clients of MariaDB and MySQL have other words for the same.
    fn tls_arguments(&self, is_of_mariadb: bool) -> Vec<String> {
        let words = match (self.0.tls, is_of_mariadb) {
            (Tls::Preferred, _) => None,
            (Tls::Disabled, true) => Some("--skip-ssl"),
            (Tls::Required | Tls::VerifyCa, true) => Some("--ssl"),
            (Tls::VerifyIdentity, true) => Some("--ssl-verify-server-cert"),
            (Tls::Disabled, false) => Some("--ssl-mode=DISABLED"),
            (Tls::Required, false) => Some("--ssl-mode=REQUIRED"),
            (Tls::VerifyCa, false) => Some("--ssl-mode=VERIFY_CA"),
            (Tls::VerifyIdentity, false) => Some("--ssl-mode=VERIFY_IDENTITY"),
        };
        let authority = self.0.tls_ca.iter().map(|path| format!("--ssl-ca={}", path.display()));
        words.map(str::to_owned).into_iter().chain(authority).collect()
    }

    /// The first of these programs that is installed, and the plugins that it may log in with, if not all.
    fn command(&self, names: [&'static str; 2], package: &str) -> Result<(Command, &'static str, Option<TempDir>)> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |name: &&str| std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
        let Some(name) = names.into_iter().find(is_there) else {
            return Err(Error::new(Kind::Config, format!("neither `{}` nor `{}` is installed", names[0], names[1]))
                .hint(format!("install {package} on this machine")));
        };
        let mut command = Command::new(name);
        let is_of_mariadb = name.starts_with("mariadb") || is_of_mariadb(name);
        command.arg("--no-defaults").args(self.arguments()).args(self.tls_arguments(is_of_mariadb));
        command.arg("--default-character-set=utf8mb4");
        let plugins = if is_of_mariadb && !self.is_proved_to_clients() { Some(plugins()?) } else { None };
        command.args(plugins.iter().map(|directory| format!("--plugin-dir={}", directory.path().display())));
        command.env("LC_ALL", "C").env_remove("MYSQL_PWD").kill_on_drop(true).process_group(0);
        if let Some(password) = &self.0.password {
            command.env("MYSQL_PWD", password.expose_secret());
        }
        Ok((command, name, plugins))
    }

    /// Whether MariaDB's programs talk to the right server: only this option makes them insist on TLS, too.
    fn is_proved_to_clients(&self) -> bool {
        matches!(self.0.place, Place::Socket(_)) || self.0.tls == Tls::VerifyIdentity
    }

    /// `mariadb`, which runs the statements that it is given and stops at the first that fails. It is told to take them
    /// as they are: none of its own commands, which could start programs.
    pub(super) fn start(&self) -> Result<Running> {
        let (mut command, name, plugins) = self.command(["mariadb", "mysql"], "mariadb-client")?;
        command
            .args(["--batch", "--binary-mode", "--comments", "--max-allowed-packet=1G", "--", &self.0.database])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        Running::start(&mut command, name, plugins)
    }
}

/// MariaDB's programs give any server that asks the password, in clear text or encrypted by the server's key, by plugins
/// that they load. So that they cannot, they get a directory with the one that keeps it to itself and is not built in.
fn plugins() -> Result<TempDir> {
    let failed =
        |error| Error::failed("cannot make a directory for the plugins of the database client").with_source(error);
    let made = tempfile::Builder::new().prefix("cdrvault-plugins-").tempdir().map_err(failed)?;
    let given =
        ["MARIADB_PLUGIN_DIR", "LIBMYSQL_PLUGIN_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    // Debian has one directory for each architecture.
    let of_architectures = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/mysql/lib"].map(PathBuf::from);
    let usual = roots.into_iter().chain(of_architectures).flat_map(|root| {
        ["libmariadb3/plugin", "mariadb/plugin", "mysql/plugin", "plugin"].map(|below| root.join(below))
    });
    let plugin = given.chain(usual).map(|directory| directory.join(SAFE_PLUGIN)).find(|plugin| plugin.is_file());
    if let Some(plugin) = plugin {
        std::os::unix::fs::symlink(plugin, made.path().join(SAFE_PLUGIN)).map_err(failed)?;
    }
    Ok(made)
}

const SAFE_PLUGIN: &str = "client_ed25519.so";

/// `mysql` is a link to `mariadb` on many systems.
fn is_of_mariadb(name: &str) -> bool {
    let asking = Program::new(name).arg("--version").with_complaints().at_most(COMPLAINTS).limit(VERSION);
    asking.run_blocking().is_ok_and(|said| String::from_utf8_lossy(&said.output).contains("MariaDB"))
}

/// What it complains of, without the statement that it repeats before.
fn complaint(end: &str) -> String {
    let from = end.rfind("\nERROR ").map_or(0, |at| at + 1);
    let said = end.get(from..).unwrap_or(end).trim();
    if said.starts_with("ERROR 1062") { without_values(said) } else { said.replace('\n', "; ") }
}

/// A running program.
pub(crate) struct Running {
    child: Child,
    name: &'static str,
    complaints: tokio::task::JoinHandle<()>,
    /// The last of what it complained of.
    said: Arc<Mutex<Vec<u8>>>,
    /// It loads them when it connects; they go with this.
    plugins: Option<TempDir>,
}

impl Running {
    fn start(command: &mut Command, name: &'static str, plugins: Option<TempDir>) -> Result<Self> {
        command.stderr(Stdio::piped());
        let started = command.spawn();
        let mut child =
            started.map_err(|error| Error::new(Kind::Config, format!("cannot run `{name}`")).with_source(error))?;
        let mut stderr = child.stderr.take();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let complaints = tokio::spawn(async move {
            let mut buffer = vec![0; 1024];
            while let Some(from) = &mut stderr {
                let Ok(count @ 1..) = from.read(&mut buffer).await else { break };
                let mut end = heard.lock().unwrap_or_else(PoisonError::into_inner);
                end.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let more = end.len().saturating_sub(COMPLAINTS);
                end.drain(..more);
            }
        });
        Ok(Self { child, name, complaints, said, plugins })
    }

    /// Gives it something to read. `false` when it does not read any more: its exit status says why.
    pub(crate) async fn write(&mut self, cx: &Context, bytes: &[u8]) -> Result<bool> {
        let Some(input) = self.child.stdin.as_mut() else { return Ok(false) };
        let writing = async { Ok(input.write_all(bytes).await.is_ok()) };
        within(cx, STATEMENT, &format!("write to `{}`", self.name), writing).await
    }

    fn lost(&self, error: std::io::Error) -> Error {
        Error::failed(format!("`{}` was lost", self.name)).with_source(error)
    }

    /// Waits for its end, which must be a good one.
    pub(crate) async fn finish(mut self, cx: &Context) -> Result<()> {
        drop(self.child.stdin.take());
        let group = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let ending = async { Ok(self.child.wait().await) };
        let ended = within(cx, STATEMENT, &format!("see the end of `{}`", self.name), ending).await?;
        let status = ended.map_err(|error| self.lost(error))?;
        // A child that it left behind may hold its standard error open for as long as it likes.
        if tokio::time::timeout(LINGER, &mut self.complaints).await.is_err() {
            self.complaints.abort();
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
        let complaints = complaint(&String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)));
        drop(self.plugins);
        if status.success() {
            return Ok(());
        }
        let how = status.code().map_or_else(|| "was killed".to_owned(), |code| format!("ended with status {code}"));
        let gone = ["gone away", "Lost connection", "Can't connect"].iter().any(|text| complaints.contains(text));
        let denied = ["denied", "insufficient privileges"].iter().any(|text| complaints.contains(text));
        let kind = if denied {
            Kind::Denied
        } else if gone {
            Kind::Transient
        } else {
            Kind::Failed
        };
        let error = Error::new(kind, format!("`{}` {how}: {complaints}", self.name));
        Err(if denied { error.hint("the manual lists the privileges that dumps and restores need") } else { error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let writer = cdrvault_plugin::context::Writer {
            pipeline: "test".into(),
            id: "00000000".into(),
            timezone: jiff::tz::TimeZone::UTC,
            state: PathBuf::new(),
        };
        Context {
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: std::sync::Arc::new(cdrvault_plugin::progress::Quiet),
            writer: std::sync::Arc::new(writer),
            scratch: None,
        }
    }

    /// A server without TLS that says this to each client that wants to log in; gives what it gets for an answer.
    fn impostor(asking: &'static [u8]) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = std::thread::spawn(move || {
            let mut client = listener.accept().unwrap().0;
            let mut packet = |number: u8, body: &[u8]| {
                let mut header = [0; 4];
                client.write_all(&[&[u8::try_from(body.len()).unwrap(), 0, 0, number], body].concat()).unwrap();
                if client.read_exact(&mut header).is_err() {
                    return Vec::new();
                }
                let mut said = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
                client.read_exact(&mut said).unwrap();
                said
            };
            packet(
                0,
                b"\x0a5.5.5-10.11.0-MariaDB\0\x07\0\0\0abcdefgh\0\x0a\xa2\x2d\x02\0\x28\0\x15\0\0\0\0\0\0\0\0\0\0\
                  ijklmnopqrst\0mysql_native_password\0",
            );
            packet(2, asking)
        });
        (port, heard)
    }

    #[tokio::test]
    async fn a_client_gives_nobody_the_password_who_has_not_proved_to_be_the_server() {
        let asking: [&[u8]; 3] = [
            b"\xfemysql_clear_password\0",
            b"\xfedialog\0\x02Password: ",
            b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0",
        ];
        for asking in asking {
            for tls in [Tls::Disabled, Tls::Preferred, Tls::Required, Tls::VerifyCa] {
                let (port, heard) = impostor(asking);
                let server = Server {
                    place: Place::Tcp { host: "127.0.0.1".to_owned(), port },
                    user: "cdrvault".to_owned(),
                    password: Some("hunter2".to_owned().into()),
                    database: "asterisell".to_owned(),
                    tls,
                    tls_ca: None,
                };
                let client = Client(&server).start().unwrap();
                let directory = client.plugins.as_ref().unwrap().path().to_owned();
                assert!(client.finish(&context()).await.is_err());
                let heard = heard.join().unwrap();
                assert!(heard.is_empty(), "{tls:?}: {}", String::from_utf8_lossy(&heard));
                assert!(!directory.exists());
            }
        }
    }

    #[tokio::test]
    async fn a_child_that_a_client_leaves_behind_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo 'ERROR 2002: no server' >&2; exit 3"]).process_group(0);
        let running = Running::start(command.stdin(Stdio::piped()), "sh", None).unwrap();
        let error = running.finish(&context()).await.unwrap_err();
        assert_eq!(error.to_string(), "`sh` ended with status 3: ERROR 2002: no server");
    }

    #[test]
    fn the_end_of_a_complaint_is_kept_and_no_row() {
        let rows = "--------------\nINSERT INTO t VALUES ('39 02 1234')\n--------------\n";
        assert_eq!(
            complaint(&format!(
                "{rows}\nERROR 1153 (08S01) at line 3: Got a packet bigger than 'max_allowed_packet' bytes\n"
            )),
            "ERROR 1153 (08S01) at line 3: Got a packet bigger than 'max_allowed_packet' bytes"
        );
        let twice =
            complaint(&format!("{rows}\nERROR 1062 (23000) at line 3: Duplicate entry '39 02 1234' for key 'x'\n"));
        assert_eq!(twice, "ERROR 1062 (23000) at line 3: Duplicate entry '...' for key '...'");
    }

    #[test]
    fn each_client_gets_its_own_words_for_tls() {
        let server = |tls| Server {
            place: Place::Socket("/run/mysqld/mysqld.sock".into()),
            user: "cdrvault".to_owned(),
            password: None,
            database: "asterisell".to_owned(),
            tls,
            tls_ca: Some("/ca.pem".into()),
        };
        assert_eq!(Client(&server(Tls::Disabled)).tls_arguments(true), ["--skip-ssl", "--ssl-ca=/ca.pem"]);
        assert_eq!(Client(&server(Tls::Disabled)).tls_arguments(false), ["--ssl-mode=DISABLED", "--ssl-ca=/ca.pem"]);
        assert_eq!(Client(&server(Tls::VerifyIdentity)).tls_arguments(false)[0], "--ssl-mode=VERIFY_IDENTITY");
    }
}
