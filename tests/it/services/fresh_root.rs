//! A Debian that has nothing installed, in a directory: what a package meets on a new host.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::home::{Said, said};
use super::places;

/// See the module. It is removed with this value.
pub struct FreshRoot {
    home: tempfile::TempDir,
}

impl FreshRoot {
    /// The release of Debian that this machine runs, so that a program that was built here finds its glibc. For root alone.
    pub fn make() -> Self {
        let home = tempfile::Builder::new().prefix("cdrvault-root").tempdir().unwrap();
        let copied = Command::new("cp").args(["-a", "--reflink=auto", "-T"]).arg(template()).arg(home.path()).output();
        let copied = said(copied.unwrap());
        assert_eq!(copied.status, 0, "{}", copied.err);
        Self { home }
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.home.path().join(inside.trim_start_matches('/'))
    }

    /// Runs a line of shell as a user in there.
    pub fn run(&self, user: &str, line: &str) -> Said {
        let mut command = Command::new(places::program("chroot", "coreutils"));
        command.arg(self.home.path()).args(["runuser", "-u", user, "--", "sh", "-ec", line]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        said(command.output().unwrap())
    }

    /// The same for what must go well; its output.
    pub fn ok(&self, user: &str, line: &str) -> String {
        let done = self.run(user, line);
        assert_eq!(done.status, 0, "{user}: {line}\n{}{}", done.out, done.err);
        done.out + &done.err
    }
}

/// Made by debootstrap from the network once, then copied.
fn template() -> PathBuf {
    let system = std::fs::read_to_string("/etc/os-release").unwrap();
    let release = system.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).expect("a release of Debian");
    let template = places::cache().join(format!("root-{release}"));
    let lock = std::fs::File::create(places::cache().join("root.lock")).unwrap();
    lock.lock().unwrap();
    if !template.is_dir() {
        let unfinished = places::cache().join("root-unfinished");
        remove(&unfinished);
        let made = Command::new(places::program("debootstrap", "debootstrap"))
            // What our package depends on.
            .args(["--variant=minbase", "--include=adduser", release])
            .arg(&unfinished)
            .output()
            .unwrap();
        let made = said(made);
        assert_eq!(made.status, 0, "debootstrap:\n{}{}", made.out, made.err);
        remove(&unfinished.join("var/cache/apt/archives"));
        std::fs::rename(&unfinished, &template).unwrap();
    }
    template
}

fn remove(path: &Path) {
    if path.exists() {
        std::fs::remove_dir_all(path).unwrap();
    }
}
