//! Where things are.

use std::path::{Path, PathBuf};

/// What outlives a test: the servers' templates, and the list of running servers.
pub(crate) fn cache() -> PathBuf {
    let directory = target().join("services");
    std::fs::create_dir_all(&directory).expect("the target directory is writable");
    directory
}

/// The workspace's target directory.
pub(crate) fn target() -> PathBuf {
    // Cargo makes it as target/tmp, and tells it to integration tests only.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent").to_owned()
}

/// A file of `tests/`.
pub(crate) fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A program, wherever Debian puts it; servers are in `sbin`, which is rarely in the `PATH` of ordinary users.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found =
        std::env::split_paths(&path).chain(usual).map(|directory| directory.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("this test needs `{name}`: run `apt-get install {package}`, or ./test, which does"))
}

/// The library under which a program has another clock.
pub(crate) fn libfaketime() -> PathBuf {
    std::fs::read_dir("/usr/lib")
        .expect("a directory of libraries")
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
        .find(|path| path.exists())
        .expect("this test needs libfaketime: run ./test, which installs it")
}
