//! Readers that are not ours: pyarrow and DuckDB in a Python environment that `./test` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::mariadb::MariaDb;
use super::places;

pub(super) fn python() -> PathBuf {
    let python = std::env::var_os("CDRVAULT_TEST_PYTHON")
        .map_or_else(|| places::target().join("venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is missing: run ./test, which makes it", python.display());
    python
}

/// Runs a script of `tests/readers`; its output. A script that fails fails the test.
pub fn reader(script: &str, args: &[&str]) -> String {
    try_reader(script, args).unwrap_or_else(|error| panic!("{script}: {error}"))
}

pub fn try_reader(script: &str, args: &[&str]) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers").join(script);
    let done = Command::new(python()).arg(script).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
}

/// Runs the text of a script.
pub fn run(script: &str, args: &[&str]) {
    let done = Command::new(python()).arg("-c").arg(script).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Compares every value of the vault with the database, read by pyarrow and by a driver that is not ours.
/// With `without_id` the renumbered column is left out.
pub fn compare(server: &MariaDb, vault: &Path, without_id: bool) -> Result<String, String> {
    let socket = server.socket();
    let mut args = vec![socket.to_str().unwrap(), vault.to_str().unwrap()];
    if without_id {
        args.push("--without-id");
    }
    try_reader("compare_vault.py", &args)
}
