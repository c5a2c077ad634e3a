//! A private OpenSSH server.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::daemon::{self, Daemon};
use super::{leftovers, places};

/// In the environment of each session, with the pid of the test: sessions outlive their server when the test is killed.
const SESSION: &str = "CDRVAULT_TEST_SESSION";

/// A running server, which dies with this value and takes its sessions along.
///
/// It listens on a free port of 127.0.0.1, and of ::1 where there is one, lets in who runs the tests, by one key, and has keys of its own.
#[derive(Debug)]
pub(crate) struct Sshd {
    daemon: Daemon,
    port: u16,
    user: String,
    directory: TempDir,
}

impl Sshd {
    /// Starts it, and waits until it listens.
    pub(crate) fn start() -> Self {
        leftovers::sweep();
        sweep_sessions();
        let directory = tempfile::Builder::new().prefix("cdrvault-sshd-").tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("remote")).expect("a writable directory");
        for key in ["host_key", "identity", "other_identity"] {
            make_key(&directory.path().join(key));
        }
        if rustix::process::geteuid().is_root() {
            // Where sshd locks itself in before it knows its client. Debian makes it when it starts its own sshd.
            fs::create_dir_all("/run/sshd").expect("root may write to /run");
        }
        let user = daemon::output(Command::new("id").arg("-un")).trim_end().to_owned();
        authorize(directory.path(), None);
        let (daemon, port) = Daemon::on_free_port(|port| serve(directory.path(), port));
        let server = Self { daemon, port, user, directory };
        let host_key = fs::read_to_string(server.path("host_key.pub")).expect("ssh-keygen made it");
        fs::write(server.known_hosts(), format!("[127.0.0.1]:{port} {host_key}[::1]:{port} {host_key}"))
            .expect("a writable directory");
        server
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Who runs the tests.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The private key that is let in.
    pub(crate) fn identity_file(&self) -> PathBuf {
        self.path("identity")
    }

    /// A private key that is not.
    pub(crate) fn other_identity(&self) -> PathBuf {
        self.path("other_identity")
    }

    /// The server's key as it was at its start.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// An empty directory, for what tests keep on the server's side.
    pub(crate) fn directory(&self) -> PathBuf {
        self.path("remote")
    }

    /// What makes `ssh` depend on nothing but this server; the destination is `127.0.0.1`.
    pub(crate) fn ssh_options(&self) -> Vec<String> {
        let mut options = vec!["-F".to_owned(), "none".to_owned()];
        for option in [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "GlobalKnownHostsFile=none".to_owned(),
            format!("UserKnownHostsFile={}", self.known_hosts().display()),
            format!("IdentityFile={}", self.identity_file().display()),
            format!("Port={}", self.port),
            format!("User={}", self.user),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        options
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Stops it; its sessions end.
    pub(crate) fn stop(&mut self) {
        self.daemon.stop();
    }

    /// Ends it and all its sessions at once.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, on the same port and with the same keys.
    pub(crate) fn restart(&mut self) {
        self.daemon.stop();
        self.daemon = Daemon::again(|| serve(self.directory.path(), self.port));
    }

    /// Restarts it with another key of its own, which `known_hosts` does not have.
    pub(crate) fn change_host_key(&mut self) {
        for name in ["host_key", "host_key.pub"] {
            fs::remove_file(self.path(name)).expect("a writable directory");
        }
        make_key(&self.path("host_key"));
        self.restart();
    }

    /// Runs this command for each client with the key, whatever it asks for.
    pub(crate) fn force_command(&self, command: Option<&str>) {
        authorize(self.directory.path(), command);
    }

    /// Lets in whom this line of `authorized_keys` says, and nobody else.
    pub(crate) fn authorize_line(&self, line: &str) {
        fs::write(self.path("authorized_keys"), line).expect("a writable directory");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn serve(directory: &Path, port: u16) -> Result<Daemon, String> {
    let config = directory.join("config");
    let path = |name: &str| directory.join(name).display().to_string();
    let text = format!(
        "\
Port {port}
ListenAddress 127.0.0.1
ListenAddress ::1
HostKey {}
PidFile {}
AuthorizedKeysFile {}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
SetEnv \"PATH={}:/usr/sbin:/sbin\" {SESSION}={} HOME={}
Subsystem sftp internal-sftp
",
        path("host_key"),
        path("pid"),
        path("authorized_keys"),
        std::env::var("PATH").unwrap_or_default(),
        std::process::id(),
        // What the account's own shell does at its start is not ours.
        directory.display(),
    );
    fs::write(&config, text).expect("a writable directory");
    // sshd wants its whole path.
    let sshd = places::program("sshd", "openssh-server");
    // From 9.8 on it keeps those off who failed often, and here all come from one address.
    let lenient = ["-o", "PerSourcePenalties=no"];
    let tried = Command::new(&sshd).arg("-t").args(lenient).arg("-f").arg(&config).output().expect("sshd runs");
    let mut command = Command::new(sshd);
    command.arg("-D").arg("-e").args(lenient.iter().filter(|_| tried.status.success())).arg("-f").arg(&config);
    Daemon::start(command.process_group(0), directory, &format!("Server listening on 127.0.0.1 port {port}."))
}

/// Replaces the list of keys that are let in; a session sees the old one or the new one.
fn authorize(directory: &Path, command: Option<&str>) {
    let key = fs::read_to_string(directory.join("identity.pub")).expect("ssh-keygen made it");
    let restriction =
        command.map(|command| format!("command=\"{}\",restrict ", command.replace('"', "\\\""))).unwrap_or_default();
    let new = directory.join("authorized_keys.new");
    fs::write(&new, restriction + &key).expect("a writable directory");
    fs::rename(new, directory.join("authorized_keys")).expect("a writable directory");
}

/// Ends the sessions of tests that are gone; `./test` does so at its end.
fn sweep_sessions() {
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Other people's processes are not for us to read.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let environment = String::from_utf8_lossy(&environment);
        let of = environment.split('\0').find_map(|variable| variable.strip_prefix(SESSION)?.strip_prefix('='));
        if of.is_none_or(|test| Path::new("/proc").join(test).exists()) {
            continue;
        }
        // sshd's own part of the session may be frozen, if the test died while it ended the server.
        let above = std::iter::successors(daemon::parent(pid), |pid| daemon::parent(*pid));
        let above: Vec<u32> = above.take_while(|pid| serves_session(*pid)).collect();
        for pid in above.into_iter().chain([pid]) {
            daemon::signal(pid, Signal::KILL);
        }
    }
}

/// Whether a process is sshd's, for one session: they have titles like `sshd: user@notty`.
fn serves_session(process: u32) -> bool {
    let title = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let title = String::from_utf8_lossy(&title);
    title.starts_with("sshd") && title.contains(": ") && !title.contains("[listener]")
}

fn make_key(file: &Path) {
    let program = places::program("ssh-keygen", "openssh-client");
    daemon::output(Command::new(program).args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(file));
}
