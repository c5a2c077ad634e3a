//! Readers that are not ours: pyarrow and DuckDB.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::places;

/// The interpreter of the environment that `./test` makes.
pub(crate) fn interpreter() -> PathBuf {
    let chosen = std::env::var_os("CDRVAULT_TEST_PYTHON").map(PathBuf::from);
    let python = chosen.unwrap_or_else(|| places::target().join("venv/bin/python"));
    assert!(
        python.is_file(),
        "this test needs {} with the packages of tests/readers/requirements.txt: run ./test, which makes it, or set CDRVAULT_TEST_PYTHON",
        python.display()
    );
    python
}

/// Runs `tests/readers/<script>`.
pub(crate) fn run<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> Output {
    let script = places::test_file("readers").join(script);
    Command::new(interpreter()).arg("-B").arg(script).args(arguments).output().expect("Python runs")
}

/// Runs `tests/readers/<script>`, which must succeed; gives what it printed.
pub(crate) fn check<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let output = run(script, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{out}{err}", output.status);
    out.into_owned()
}
