//! An empty data directory, made once for each version of the server and then copied, because making one takes seconds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::places;

/// Other accounts than root at the socket are of no use here.
const ACCOUNTS: &str =
    "DELETE FROM mysql.global_priv WHERE NOT (User IN ('root', 'mariadb.sys') AND Host = 'localhost');\n";

/// Copies the template to a directory that does not exist yet.
pub(crate) fn copy_to(datadir: &Path) {
    let template = ready();
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(datadir).status();
    assert!(copied.is_ok_and(|status| status.success()), "cannot copy {} to {}", template.display(), datadir.display());
}

/// The account that runs the server, where it is root and the server wants to be told.
pub(crate) fn user_option() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}

/// The template, made by the first of all test processes that wants it.
fn ready() -> PathBuf {
    let server = places::program("mariadbd", "mariadb-server");
    let said = Command::new(server).arg("--version").output().expect("mariadbd runs").stdout;
    // "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64"
    let said = String::from_utf8_lossy(&said);
    let version = said.split_whitespace().nth(2).unwrap_or_else(|| panic!("mariadbd --version says {said:?}"));
    let template = places::cache().join(format!("mariadb-{version}"));

    let lock = File::create(places::cache().join("template.lock")).expect("the target directory is writable");
    lock.lock().expect("the target directory's file system has locks");
    if !template.is_dir() {
        make(&template);
    }
    template
}

fn make(template: &Path) {
    let install = places::program("mariadb-install-db", "mariadb-server");
    let unfinished = places::cache().join("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    let accounts = places::cache().join("accounts.sql");
    fs::write(&accounts, ACCOUNTS).expect("the target directory is writable");
    let made = Command::new(install)
        .arg("--no-defaults")
        .args(user_option())
        .arg(format!("--datadir={}", unfinished.display()))
        .arg(format!("--extra-file={}", accounts.display()))
        .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
        // The default of 96 MiB would be most of what each test copies.
        .arg("--innodb-log-file-size=16M")
        .output()
        .expect("mariadb-install-db runs");
    assert!(
        made.status.success(),
        "mariadb-install-db failed:\n{}{}",
        String::from_utf8_lossy(&made.stdout),
        String::from_utf8_lossy(&made.stderr)
    );
    fs::rename(&unfinished, template).expect("the target directory is writable");
}
