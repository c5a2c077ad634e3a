//! Servers whose test was killed before it could stop them.
//!
//! Each running server has a file `target/services/running/<pid>` with the pid of its test and the directory that the server
//! lives in. The next test to start a server stops those whose test is gone; `./test` does so at its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::places;

fn list() -> PathBuf {
    let list = places::cache().join("running");
    fs::create_dir_all(&list).expect("the target directory is writable");
    list
}

/// Writes down a server that was started.
pub(crate) fn note(server: u32, directory: &Path) {
    let text = format!("{} {}\n", std::process::id(), directory.display());
    fs::write(list().join(server.to_string()), text).expect("the target directory is writable");
}

/// Strikes out a server that was stopped.
pub(crate) fn forget(server: u32) {
    let _ = fs::remove_file(list().join(server.to_string()));
}

/// Stops the servers whose tests are gone.
pub(crate) fn sweep() {
    for entry in fs::read_dir(list()).expect("the list is readable").flatten() {
        let Some(server) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let Some((test, directory)) = text.trim_end().split_once(' ') else { continue };
        if Path::new("/proc").join(test).exists() {
            continue;
        }
        if serves(server, directory) {
            stop(server, || !serves(server, directory));
        }
        let _ = fs::remove_dir_all(directory);
        let _ = fs::remove_file(entry.path());
    }
}

/// Whether a process is that server, and not a later one that got its number.
fn serves(server: u32, directory: &str) -> bool {
    let command = fs::read(format!("/proc/{server}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).contains(directory)
}

/// Asks a process to end, and ends it when it does not.
pub(crate) fn stop(process: u32, mut ended: impl FnMut() -> bool) {
    let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return };
    for (signal, patience) in [(Signal::TERM, Duration::from_secs(20)), (Signal::KILL, Duration::from_secs(5))] {
        let asked = Instant::now();
        if kill_process(pid, signal).is_err() {
            return;
        }
        while asked.elapsed() < patience {
            if ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
