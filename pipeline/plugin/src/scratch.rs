//! Private directories for copies that are read once: objects of a bucket or a mirror, on their way into a restore or a
//! comparison. They go when they are dropped; those of a process that was killed go when the next one begins.
//!
//! They lie in the state directory, or where [`Context::scratch`] says; without either, in the system's temporary
//! directory. Each holds a lock on itself as long as somebody uses it.

use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::context::Context;
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Result};

/// What the names of these directories begin with.
const MARK: &str = "cdrvault-scratch-";

/// A directory that only we may enter.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one.
    pub fn new(cx: &Context) -> Result<Self> {
        if let Some(named) = &cx.scratch {
            durable::create_dirs(named, &How::private())?;
            return Self::make_in(named).map_err(|error| error.hint("name another place by --scratch"));
        }
        let in_state = in_state(cx);
        // Somebody else's state can still be read from.
        let made = has_state(cx).then(|| durable::create_dirs(&in_state, &How::private()));
        if matches!(made, Some(Ok(())))
            && let Ok(scratch) = Self::make_in(&in_state)
        {
            return Ok(scratch);
        }
        Self::make_in(&std::env::temp_dir())
            .map_err(|error| error.hint("name a place with enough room by --scratch, or by TMPDIR"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn make_in(place: &Path) -> Result<Self> {
        let failed = |error| Error::io("make a directory in", place, error);
        remove_leftovers(place);
        loop {
            let directory = tempfile::Builder::new()
                .prefix(MARK)
                .permissions(std::fs::Permissions::from_mode(0o700))
                .tempdir_in(place)
                .map_err(failed)?;
            let lock = File::open(directory.path()).map_err(failed)?;
            // Another process may take it for a leftover until it is locked, and remove it.
            if lock.try_lock().is_ok() && is_at(directory.path(), &lock.metadata().map_err(failed)?) {
                return Ok(Self { directory, _lock: lock });
            }
        }
    }
}

/// Removes what killed processes left where this one would put its own. What cannot be removed now stays.
pub fn tidy(cx: &Context) {
    match &cx.scratch {
        Some(named) => remove_leftovers(named),
        None if has_state(cx) => remove_leftovers(&in_state(cx)),
        None => remove_leftovers(&std::env::temp_dir()),
    }
}

/// Whether there is a state directory: reading makes none.
fn has_state(cx: &Context) -> bool {
    cx.writer.state.is_dir()
}

fn in_state(cx: &Context) -> PathBuf {
    cx.writer.state.join("scratch")
}

fn remove_leftovers(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(MARK) {
            continue;
        }
        // Others may make such names in a shared place, and links to anything.
        let opened = File::options()
            .read(true)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY).bits().cast_signed())
            .open(entry.path());
        let Ok(directory) = opened else { continue };
        let Ok(found) = directory.metadata() else { continue };
        let ours = found.uid() == rustix::process::geteuid().as_raw();
        if ours
            && directory.try_lock().is_ok()
            && is_at(&entry.path(), &found)
            && let Err(error) = durable::remove_tree(&entry.path())
        {
            tracing::debug!("{}", error.one_line());
        }
    }
}

fn is_at(path: &Path, found: &Metadata) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino()))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::context::Writer;
    use crate::progress::Quiet;

    fn context(state: PathBuf, scratch: Option<PathBuf>) -> Context {
        let timezone = jiff::tz::TimeZone::UTC;
        let writer = Writer { pipeline: "x".to_owned(), id: "0badcafe".to_owned(), timezone, state };
        Context { cancel: CancellationToken::new(), progress: Arc::new(Quiet), writer: Arc::new(writer), scratch }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_private_and_lies_where_it_was_asked_for_or_in_the_state() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let scratch = Scratch::new(&context(state.clone(), None)).unwrap();
        assert!(scratch.path().starts_with(state.join("scratch")));
        assert_eq!((mode(scratch.path()), mode(&state.join("scratch"))), (0o700, 0o700));
        let named = Scratch::new(&context(state, Some(home.path().join("other")))).unwrap();
        assert!(named.path().starts_with(home.path().join("other")));
        let none = home.path().join("none");
        let elsewhere = Scratch::new(&context(none.clone(), None)).unwrap();
        assert_eq!((mode(elsewhere.path()), none.exists()), (0o700, false), "no state is made to read something");
    }

    #[test]
    fn what_is_in_use_stays_and_what_was_left_goes() {
        let home = tempfile::tempdir().unwrap();
        let cx = context(home.path().join("none"), Some(home.path().to_owned()));
        let used = Scratch::new(&cx).unwrap();
        let left = home.path().join(format!("{MARK}left"));
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("body-00000001"), "x").unwrap();
        let others = home.path().join("others");
        std::fs::create_dir(&others).unwrap();
        std::os::unix::fs::symlink(&others, home.path().join(format!("{MARK}link"))).unwrap();
        tidy(&cx);
        assert!(used.path().is_dir() && !left.exists() && others.is_dir());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }
}
