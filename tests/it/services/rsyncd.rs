//! A private rsync daemon, with one module that needs a password and one that needs none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::{leftovers, places};

/// The password of the user `cdr`.
pub(crate) const PASSWORD: &str = "rsyncd-canary";

/// A running daemon on 127.0.0.1. Its modules `locked` and `open` are one and the same directory.
#[derive(Debug)]
pub(crate) struct Rsyncd {
    _daemon: Daemon,
    port: u16,
    directory: TempDir,
}

impl Rsyncd {
    pub(crate) fn start() -> Self {
        leftovers::sweep();
        let directory = tempfile::Builder::new().prefix("cdrvault-rsyncd-").tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("module")).expect("a writable directory");
        fs::write(path("secrets"), format!("cdr:{PASSWORD}\n")).expect("a writable directory");
        fs::set_permissions(path("secrets"), fs::Permissions::from_mode(0o600)).expect("our own file");
        let module =
            |name: &str, more: &str| format!("[{name}]\npath = {}\nread only = no\n{more}", path("module").display());
        let users = format!("auth users = cdr\nsecrets file = {}\n", path("secrets").display());
        // It keeps who runs it.
        let who = format!("use chroot = no\nuid = {0}\ngid = {1}\n", uid(), gid());
        let who = if rustix::process::geteuid().is_root() { who } else { "use chroot = no\n".to_owned() };
        fs::write(path("config"), format!("{who}{}{}", module("locked", &users), module("open", "")))
            .expect("a writable directory");
        let (daemon, port) = Daemon::on_free_port(|port| {
            let mut command = Command::new(places::program("rsync", "rsync"));
            command.args(["--daemon", "--no-detach", "--address=127.0.0.1", "--log-file=/dev/stderr"]);
            command.arg(format!("--port={port}")).arg(format!("--config={}", path("config").display()));
            Daemon::start(&mut command, directory.path(), "starting, listening on port")
        });
        Self { _daemon: daemon, port, directory }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the modules are.
    pub(crate) fn module(&self) -> PathBuf {
        self.directory.path().join("module")
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn gid() -> u32 {
    rustix::process::getegid().as_raw()
}
