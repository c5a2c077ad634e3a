//! The one durable write of the repository: whole or not at all, and on the disk when it returns.
//!
//! A file is written under a temporary name beside its target, synced, and only then renamed or linked into place;
//! then the directory is synced. A failed fsync of a file discards the file: the kernel may have dropped its pages.
//! That a directory cannot be synced at all (some network file systems) is told once and accepted.
#![expect(clippy::disallowed_methods, reason = "this is the one place that they are allowed in")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Kind, Result};

/// How a file is to look when it becomes visible.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Permission bits of files, 0600 by default. Directories get the `x` that goes with each `r`.
    pub mode: Option<u32>,
    /// Group, by number.
    pub group: Option<u32>,
    /// Modification time.
    pub modified: Option<SystemTime>,
}

impl How {
    /// For nobody but us.
    pub const fn private() -> Self {
        Self { mode: Some(0o600), group: None, modified: None }
    }

    fn file_mode(self) -> u32 {
        self.mode.unwrap_or(0o600)
    }

    fn directory_mode(self) -> u32 {
        let mode = self.file_mode();
        mode | ((mode & 0o444) >> 2)
    }
}

/// What the names of temporary files have in common.
const MARK: &str = ".cdrvault-tmp-";

/// Whether a name is that of a temporary file of ours, which only an interrupted run leaves.
pub fn is_temporary(name: &str) -> bool {
    name.contains(MARK)
}

/// Writes a file, in the place of one that may be there.
pub fn replace(path: &Path, how: &How, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let temporary = Temporary::write(path, how, write)?;
    temporary.rename()
}

/// Writes a file where there is none; `Conflict` where there is one.
pub fn create(path: &Path, how: &How, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let temporary = Temporary::write(path, how, write)?;
    temporary.link()
}

/// Makes a file that is synced already live under another name, in the place of one that may be there: by hard link
/// where `link` allows it and the file systems do, else by copy.
pub fn adopt(from: &Path, to: &Path, how: &How, link: bool) -> Result<()> {
    adopt_checked(from, to, how, link, |_| Ok(()))
}

/// The same, if what would become live passes a check.
pub fn adopt_checked(
    from: &Path,
    to: &Path,
    how: &How,
    link: bool,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let temporary = bring(from, to, how, link)?;
    check(&temporary.path)?;
    temporary.rename()
}

/// The same, where there is none; `Conflict` where there is one.
pub fn adopt_new(from: &Path, to: &Path, how: &How, link: bool) -> Result<()> {
    bring(from, to, how, link)?.link()
}

/// Gives a finished directory, or a file that is written, its name. Nothing may stand there.
#[expect(clippy::disallowed_methods, reason = "this is where it is done durably")]
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let failed = |error: io::Error| Error::io("write", to, error);
    File::open(from).and_then(|file| file.sync_all()).map_err(failed)?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems have no such rename.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if fs::symlink_metadata(to).is_err() => {
            fs::rename(from, to).map_err(failed)?;
        }
        other => other.map_err(|error| failed(error.into()))?,
    }
    sync_dir(parent(to)?)
}

/// Keeps the content of a file under a second name, which no later change of the first touches. What stands there
/// already with the same length is taken for the same.
pub fn keep(from: &Path, to: &Path, link: bool) -> Result<()> {
    if link {
        match fs::hard_link(from, to) {
            Ok(()) => return sync_dir(parent(to)?),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if !cannot_link(&error) => return Err(Error::io("keep a version as", to, error)),
            Err(_) => {}
        }
    }
    let failed = |error| Error::io("read", from, error);
    let old = fs::symlink_metadata(from).map_err(failed)?;
    if let Ok(there) = fs::symlink_metadata(to)
        && there.len() == old.len()
        && there.is_file()
    {
        return Ok(());
    }
    let how = How { mode: Some(old.mode() & 0o7777), group: None, modified: old.modified().ok() };
    let source = File::options().read(true).custom_flags(NOFOLLOW | NONBLOCK).open(from);
    let mut source = source.map_err(failed)?;
    check_regular(from, &source)?;
    replace(to, &how, |file| io::copy(&mut source, file).map(drop))
}

/// Opens a file of ours to add to it and to read it, and makes it where there is none. It gets the mode that is wanted,
/// also where an earlier version or another umask gave it another one. Links are not followed, and nothing but a
/// regular file is written to.
pub fn append(path: &Path, how: &How) -> Result<File> {
    let failed = |error| Error::io("write", path, error);
    let opened = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(how.file_mode())
        .custom_flags(NOFOLLOW | NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if matches!(error.raw_os_error(), Some(LOOP | NXIO)) => return Err(irregular(path)),
        other => other.map_err(failed)?,
    };
    check_regular(path, &file)?;
    if file.metadata().map_err(failed)?.mode() & 0o777 != how.file_mode() {
        file.set_permissions(fs::Permissions::from_mode(how.file_mode()))
            .map_err(|error| Error::io("set the mode of", path, error))?;
    }
    Ok(file)
}

/// Opens a file to read it; `None` where there is none. What is not a regular file is refused at once: a pipe or a device that
/// somebody put there would be waited for, for ever.
pub fn open(path: &Path) -> Result<Option<File>> {
    match File::options().read(true).custom_flags(NOFOLLOW | NONBLOCK).open(path) {
        Ok(file) => check_regular(path, &file).map(|()| Some(file)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        // A link, or a socket.
        Err(error) if matches!(error.raw_os_error(), Some(LOOP | NXIO)) => Err(irregular(path)),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// The content of a file that [`open`] opens.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|error| Error::io("read", path, error))?;
    Ok(Some(text))
}

/// An error unless what was opened is a regular file.
pub fn check_regular(path: &Path, file: &File) -> Result<()> {
    let found = file.metadata().map_err(|error| Error::io("look at", path, error))?;
    if found.is_file() { Ok(()) } else { Err(irregular(path)) }
}

pub(crate) fn irregular(path: &Path) -> Error {
    Error::new(Kind::Refused, format!("{} is not a regular file, and is left alone", path.display()))
        .hint("see who put it there, and move it away")
}

/// Removes a file; that there is none is as good. The directory is not synced.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Removes the temporary files in a directory, not in those below it. Only for the holder of the lock: then every one
/// of them is a leftover of a run that was interrupted.
pub fn remove_temporaries(directory: &Path) -> Result<()> {
    let failed = |error| Error::io("list", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(is_temporary) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory with everything in it; that there is none is as good. Links are removed, not followed.
pub fn remove_tree(path: &Path) -> Result<()> {
    match remove_levels(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// However deep it is, with few files open and short paths: what is in a directory below is moved up before that goes.
fn remove_levels(path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, RenameFlags, openat, renameat_with, unlinkat};
    use rustix::io::Errno;
    if fs::symlink_metadata(path)?.is_symlink() {
        return fs::remove_file(path);
    }
    let top = openat(CWD, path, DIRECTORY, Mode::empty())?;
    let mut number = 0_u64;
    loop {
        let (files, directories) = names_of(&top)?;
        for name in files {
            unlinkat(&top, &name, AtFlags::empty())?;
        }
        if directories.is_empty() {
            return fs::remove_dir(path);
        }
        for name in directories {
            let below = openat(&top, &name, DIRECTORY, Mode::empty())?;
            let (files, directories) = names_of(&below)?;
            for name in files {
                unlinkat(&below, &name, AtFlags::empty())?;
            }
            for inner in directories {
                // One that is empty needs no right to be moved.
                match unlinkat(&below, &inner, AtFlags::REMOVEDIR) {
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                    other => {
                        other?;
                        continue;
                    }
                }
                loop {
                    number += 1;
                    let free = format!("{MARK}{number}");
                    match renameat_with(&below, &inner, &top, &free, RenameFlags::NOREPLACE) {
                        Err(Errno::EXIST) => {}
                        // Some file systems have no such rename. Over a directory with something in it there is none at all.
                        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::renameat(&below, &inner, &top, &free) {
                            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                            other => break other?,
                        },
                        other => break other?,
                    }
                }
            }
            unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// How a directory is opened that is to be looked into.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The names in a directory: of what is not a directory itself, and of directories.
fn names_of(directory: &OwnedFd) -> io::Result<(Vec<CString>, Vec<CString>)> {
    use rustix::fs::{AtFlags, Dir, FileType, statat};
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            kind => kind,
        };
        if kind == FileType::Directory { directories.push(name.to_owned()) } else { files.push(name.to_owned()) }
    }
    Ok((files, directories))
}

/// Makes a directory and those above it that are missing, each of them durably.
pub fn create_dirs(path: &Path, how: &How) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(Error::new(Kind::Refused, format!("{} is not a directory", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at", path, error)),
    }
    let above = parent(path)?;
    create_dirs(above, how)?;
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(Error::io("make the directory", path, error)),
    }
    let failed = |error| Error::io("set the mode of", path, error);
    fs::set_permissions(path, fs::Permissions::from_mode(how.directory_mode())).map_err(failed)?;
    if let Some(group) = how.group {
        std::os::unix::fs::chown(path, None, Some(group))
            .map_err(|error| Error::io("set the group of", path, error))?;
    }
    sync_dir(above)
}

/// Syncs a directory, so that the names in it survive a power cut.
pub fn sync_dir(path: &Path) -> Result<()> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    match synced {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(22 | 95)) => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the file system of {} cannot sync directories: a power cut may undo the last renames",
                    path.display()
                );
            }
            Ok(())
        }
        Err(error) => Err(Error::io("sync the directory", path, error)),
    }
}

/// Whether hard links work in this directory. Leaves nothing behind.
pub fn can_link(directory: &Path) -> Result<bool> {
    let target = directory.join("probe");
    let temporary = Temporary::write(&target, &How::private(), |_| Ok(()))?;
    let second = temporary_name(&target)?;
    let linked = fs::hard_link(&temporary.path, &second);
    let _ = fs::remove_file(&second);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if cannot_link(&error) => Ok(false),
        Err(error) => Err(Error::io("link a file in", directory, error)),
    }
}

/// O_NOFOLLOW.
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// O_NONBLOCK, which regular files do not heed.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// ELOOP and ENXIO.
const LOOP: i32 = rustix::io::Errno::LOOP.raw_os_error();
const NXIO: i32 = rustix::io::Errno::NXIO.raw_os_error();

/// A file that is complete but not visible yet; removed unless it becomes so.
struct Temporary<'a> {
    path: PathBuf,
    target: &'a Path,
    done: bool,
}

impl<'a> Temporary<'a> {
    fn write(target: &'a Path, how: &How, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<Self> {
        let path = temporary_name(target)?;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(NOFOLLOW)
            .open(&path)
            .map_err(|error| Error::io("write", target, error))?;
        let temporary = Self { path, target, done: false };
        write(&mut file).map_err(|error| Error::io("write", target, error))?;
        temporary.dress(&file, how)?;
        file.sync_all().map_err(|error| Error::io("sync", target, error))?;
        Ok(temporary)
    }

    fn dress(&self, file: &File, how: &How) -> Result<()> {
        if let Some(group) = how.group {
            std::os::unix::fs::fchown(file, None, Some(group))
                .map_err(|error| Error::io("set the group of", self.target, error))?;
        }
        file.set_permissions(fs::Permissions::from_mode(how.file_mode()))
            .map_err(|error| Error::io("set the mode of", self.target, error))?;
        if let Some(modified) = how.modified {
            file.set_modified(modified).map_err(|error| Error::io("set the time of", self.target, error))?;
        }
        Ok(())
    }

    fn rename(mut self) -> Result<()> {
        // A link is replaced, and what it leads to stays; a device or a pipe would be lost.
        if fs::symlink_metadata(self.target).is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
            return Err(irregular(self.target));
        }
        fs::rename(&self.path, self.target).map_err(|error| Error::io("write", self.target, error))?;
        self.done = true;
        sync_dir(parent(self.target)?)
    }

    fn link(mut self) -> Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let exists = || Error::new(Kind::Conflict, format!("{} is there already", self.target.display()));
        match renameat_with(CWD, &self.path, CWD, self.target, RenameFlags::NOREPLACE) {
            Ok(()) => self.done = true,
            Err(rustix::io::Errno::EXIST) => return Err(exists()),
            // File systems that do not know it may know links, and some know neither.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                match fs::hard_link(&self.path, self.target) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists()),
                    Err(error) if cannot_link(&error) => {
                        if fs::symlink_metadata(self.target).is_ok() {
                            return Err(exists());
                        }
                        fs::rename(&self.path, self.target).map_err(|error| Error::io("write", self.target, error))?;
                        self.done = true;
                    }
                    Err(error) => return Err(Error::io("write", self.target, error)),
                }
            }
            Err(error) => return Err(Error::io("write", self.target, error.into())),
        }
        sync_dir(parent(self.target)?)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A temporary file with the content of another one: the same inode where that is possible.
fn bring<'a>(from: &Path, to: &'a Path, how: &How, link: bool) -> Result<Temporary<'a>> {
    // A file with a second name is somebody else's already, with a mode of its own.
    let only = fs::symlink_metadata(from).is_ok_and(|found| found.nlink() == 1);
    if link && only {
        let path = temporary_name(to)?;
        match fs::hard_link(from, &path) {
            Ok(()) => {
                let temporary = Temporary { path, target: to, done: false };
                let failed = |error| Error::io("open", from, error);
                let file = File::options().read(true).custom_flags(NOFOLLOW).open(&temporary.path).map_err(failed)?;
                temporary.dress(&file, how)?;
                file.sync_all().map_err(|error| Error::io("sync", to, error))?;
                return Ok(temporary);
            }
            Err(error) if cannot_link(&error) => {}
            Err(error) => return Err(Error::io("write", to, error)),
        }
    }
    let failed = |error| Error::io("read", from, error);
    let source = File::options().read(true).custom_flags(NOFOLLOW | NONBLOCK).open(from);
    let mut source = source.map_err(failed)?;
    check_regular(from, &source)?;
    Temporary::write(to, how, |file| {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match source.read(&mut buffer)? {
                0 => return Ok(()),
                count => io::Write::write_all(file, &buffer[..count])?,
            }
        }
    })
}

/// Other file systems, and those without links (FAT, some CIFS), or with too many.
fn cannot_link(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::XDEV, Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn temporary_name(target: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = target
        .file_name()
        .ok_or_else(|| Error::failed(format!("{} names no file", target.display())))?
        .to_string_lossy();
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let unique = format!("{:x}-{:x}-{:x}", std::process::id(), nanos, COUNT.fetch_add(1, Ordering::Relaxed));
    // A name may have 255 bytes; the target's own may have almost as many.
    let short: String = name.chars().take(60).collect();
    Ok(parent(target)?.join(format!(".{short}{MARK}{unique}")))
}

fn parent(path: &Path) -> Result<&Path> {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(above) => Ok(above),
        None => Err(Error::failed(format!("{} has no directory above it", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        replace(&path, &How { mode: Some(0o640), ..How::default() }, |file| file.write_all(b"one")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let failed = replace(&path, &How::default(), |file| {
            file.write_all(b"half of tw")?;
            Err(io::Error::from_raw_os_error(28))
        });
        assert_eq!(failed.unwrap_err().kind(), Kind::NoSpace);
        assert_eq!((fs::read(&path).unwrap().as_slice(), names(home.path())), (&b"one"[..], vec!["a".to_owned()]));
    }

    #[test]
    fn a_file_is_created_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        create(&path, &How::default(), |file| file.write_all(b"one")).unwrap();
        let again = create(&path, &How::default(), |file| file.write_all(b"two"));
        assert_eq!(again.unwrap_err().kind(), Kind::Conflict);
        assert_eq!((fs::read(&path).unwrap().as_slice(), names(home.path())), (&b"one"[..], vec!["a".to_owned()]));
    }

    #[test]
    fn what_is_kept_and_what_is_adopted_live_apart() {
        for link in [true, false] {
            let home = tempfile::tempdir().unwrap();
            let at = |name: &str| home.path().join(name);
            fs::write(at("live"), b"old").unwrap();
            fs::write(at("sealed"), b"new").unwrap();
            keep(&at("live"), &at("kept"), link).unwrap();
            keep(&at("live"), &at("kept"), link).unwrap();
            adopt(&at("sealed"), &at("live"), &How::default(), link).unwrap();
            assert_eq!(fs::read(at("kept")).unwrap(), b"old");
            assert_eq!(fs::read(at("live")).unwrap(), b"new");
            assert_eq!(
                adopt_new(&at("sealed"), &at("live"), &How::default(), link).unwrap_err().kind(),
                Kind::Conflict
            );
            assert_eq!(names(home.path()), ["kept", "live", "sealed"]);
        }
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (target, link) = (home.path().join("target"), home.path().join("link"));
        fs::write(&target, b"precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, &How::default(), |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn a_tree_of_any_depth_is_removed_and_what_its_links_lead_to_stays() {
        use rustix::fs::{CWD, mkdirat, openat};
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let home = tempfile::tempdir().unwrap();
        let (tree, other) = (home.path().join("tree"), home.path().join("other"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("precious"), b"kept").unwrap();
        fs::create_dir_all(tree.join("a/b")).unwrap();
        // A name that the removal would use itself.
        fs::create_dir_all(tree.join(format!("{MARK}1/full"))).unwrap();
        fs::write(tree.join(format!("{MARK}2")), b"").unwrap();
        std::os::unix::fs::symlink(&other, tree.join("a/link")).unwrap();
        let mut at = openat(CWD, &tree, DIRECTORY, Mode::empty()).unwrap();
        // More levels than a process may have files open, and longer than any path may be.
        for _ in 0..3_000 {
            mkdirat(&at, "x", Mode::from_raw_mode(0o700)).unwrap();
            at = openat(&at, "x", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..limit }).unwrap();
        let removed = remove_tree(&tree);
        setrlimit(Resource::Nofile, limit).unwrap();
        removed.unwrap();
        assert_eq!(names(home.path()), ["other"]);
        std::os::unix::fs::symlink(&other, &tree).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read(other.join("precious")).unwrap(), b"kept");
        assert!(remove_tree(&other.join("precious")).is_err(), "it is a file");
    }
}
