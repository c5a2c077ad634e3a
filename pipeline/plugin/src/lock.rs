//! Lock files, by the operating system's locks: they end with the process, however it ends.

use std::fs::{File, TryLockError};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use cdrvault_format::durable;
use cdrvault_format::error::{Error, Kind, Result};

/// A lock that is held until it is dropped. The file stays: removing it would race with the next process that opens it.
#[derive(Debug)]
pub struct Guard {
    _file: File,
}

/// Who holds a lock: the content of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
    /// Tells this run of a process from every other: in containers, all of them may have the same number.
    #[serde(default)]
    pub process: String,
}

/// What no other process has. Random, because `RandomState` is.
fn this_process() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| format!("{:016x}", std::hash::RandomState::new().build_hasher().finish()))
}

/// How often a lock that is waited for is tried.
const AGAIN: Duration = Duration::from_millis(200);

/// Takes the lock, or [`Kind::Locked`] after waiting for its holder; ends at once when we are asked to stop.
pub async fn wait_for(cx: &Context, path: &Path, wait: Duration) -> Result<Guard> {
    let deadline = Instant::now() + wait;
    loop {
        match acquire(path) {
            Err(error) if error.kind() == Kind::Locked && Instant::now() < deadline => {
                cx.unless_cancelled(async {
                    tokio::time::sleep(AGAIN).await;
                    Ok(())
                })
                .await?;
            }
            other => return other,
        }
    }
}

/// Takes the lock, or [`Kind::Locked`]; if we hold it ourselves, waiting would not help, and it is [`Kind::Refused`].
pub fn acquire(path: &Path) -> Result<Guard> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(|error| Error::io("open the lock file", path, error))?;
    durable::check_regular(path, &file)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(locked(path, &mut file)),
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", path, error)),
    }
    let failed = |error| Error::io("write the lock file", path, error);
    let holder = Holder { pid: std::process::id(), since: Timestamp::now(), process: this_process().to_owned() };
    let text = serde_json::to_vec(&holder).map_err(|error| Error::failed("cannot write JSON").with_source(error))?;
    // Only for the message of others: it need not survive anything.
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text)).map_err(failed)?;
    Ok(Guard { _file: file })
}

/// Whether somebody on this machine holds the lock. Looking does not take it, not even for a moment.
pub fn is_held(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::symlink_metadata(path) else { return false };
    let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return true };
    // `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`, see proc(5).
    let inode = format!(":{}", found.ino());
    locks.lines().any(|line| {
        line.contains("FLOCK")
            && line.split_whitespace().any(|word| word.ends_with(&inode) && word.matches(':').count() == 2)
    })
}

/// Since when another run is in progress, if that is what the error says.
pub fn held_since(error: &Error) -> Option<Timestamp> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(held) = error.downcast_ref::<Held>() {
            return Some(held.0.since);
        }
        cause = error.source();
    }
    None
}

/// Carries the holder in an error's causes.
#[derive(Debug, thiserror::Error)]
#[error("process {} since {}", .0.pid, .0.since.to_zoned(TimeZone::system()).strftime("%F %T %Z"))]
struct Held(Holder);

fn locked(path: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let holder = file.rewind().and_then(|()| file.read_to_string(&mut text)).ok();
    let holder: Option<Holder> = holder.and_then(|_| serde_json::from_str(&text).ok());
    if holder.as_ref().is_some_and(|holder| holder.process == this_process()) {
        let message = format!("this very run holds {} already: two places of the pipeline are one", path.display());
        return Error::new(Kind::Refused, message)
            .hint("give each sink a place of its own, and see which of them is a link or a mount of another");
    }
    let made = Error::new(Kind::Locked, format!("another run holds {}", path.display()))
        .hint("wait for it to end, or use --wait-lock");
    match holder {
        Some(holder) => made.with_source(Held(holder)),
        None => made,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first_and_the_lock_ends_with_its_guard() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let first = acquire(&path).unwrap();
        // As another process would have written it, also one that knew less.
        for process in [r#","process":"0123""#, ""] {
            let text = format!(r#"{{"pid":42,"since":"2026-01-01T00:00:00Z"{process}}}"#);
            std::fs::write(&path, text).unwrap();
            let error = acquire(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Locked);
            assert!(error.one_line().contains("process 42"), "{}", error.one_line());
            assert!(held_since(&error).is_some());
        }
        assert!(is_held(&path));
        drop(first);
        assert!(!is_held(&path));
        acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_that_we_hold_ourselves_is_no_other_run() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let _first = acquire(&path).unwrap();
        std::fs::hard_link(&path, home.path().join("link")).unwrap();
        let error = acquire(&home.path().join("link")).unwrap_err();
        assert_eq!((error.kind(), held_since(&error)), (Kind::Refused, None));
        assert!(error.message().contains("this very run"), "{}", error.message());
    }
}
