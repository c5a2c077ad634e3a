//! Where vaults and other directories lie, and whether two of them are in each other's way.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

/// A place, by its name: a directory here, or a path in a store elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// What the path is in: nothing for the directories of this machine.
    store: String,
    parts: Vec<OsString>,
}

/// How one place lies to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// They are one.
    Same,
    /// The one lies somewhere inside the other.
    Inside,
    /// The other lies somewhere inside this one.
    Around,
}

impl Location {
    /// A directory of this machine. `/b`, `/b/`, `//b` and `/x/../b` are one.
    pub fn directory(path: &Path) -> Self {
        Self { store: String::new(), parts: parts(path) }
    }

    /// A path in a store elsewhere: a bucket of a server, or the files of a host.
    pub fn elsewhere(store: impl Into<String>, path: &str) -> Self {
        Self { store: store.into(), parts: parts(Path::new(path)) }
    }

    /// A path on a host that is reached by ssh, where `account` is `HOST` or `USER@HOST`.
    pub fn by_ssh(account: &str, port: Option<u16>, path: &str) -> Self {
        let host = account.rsplit_once('@').map_or(account, |(_, host)| host).to_ascii_lowercase();
        // With a port, it is more often a tunnel to another machine.
        if port.is_none() && path.starts_with('/') && matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]") {
            return Self::directory(Path::new(path));
        }
        let port = port.unwrap_or(22);
        // Another path would be relative to the account's home directory.
        let store = if path.starts_with('/') { format!("ssh {host}:{port}") } else { format!("ssh {account}:{port}") };
        Self::elsewhere(store, path)
    }

    /// Its path, where it is a directory of this machine.
    pub fn path(&self) -> Option<PathBuf> {
        let parts = self.parts.iter().map(OsString::as_os_str);
        self.store.is_empty().then(|| std::iter::once(OsStr::new("/")).chain(parts).collect())
    }

    /// How it lies to another; nothing if neither is in the other.
    pub fn overlap(&self, other: &Self) -> Option<Overlap> {
        if self.store != other.store {
            return None;
        }
        match (self.parts.starts_with(&other.parts), other.parts.starts_with(&self.parts)) {
            (true, true) => Some(Overlap::Same),
            (true, false) => Some(Overlap::Inside),
            (false, true) => Some(Overlap::Around),
            (false, false) => None,
        }
    }

    /// Where it really is, as far as this machine can tell: behind symbolic links and bind mounts. It looks at the file
    /// system; what is still to be made is where it would be made.
    #[must_use]
    pub fn resolved(&self) -> Self {
        let Some(path) = self.path() else { return self.clone() };
        let real = behind_links(&path, LINKS);
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        in_file_system(&real, &mounts).unwrap_or_else(|| Self::directory(&real))
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "is the same place as",
            Self::Inside => "lies inside",
            Self::Around => "lies around",
        })
    }
}

/// As many links as the system follows; see path_resolution(7).
const LINKS: u32 = 40;

/// The path without symbolic links, also where what they point at is still to be made.
fn behind_links(path: &Path, links: u32) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return path.to_owned() };
    match path.read_link() {
        Ok(target) if links > 0 => behind_links(&above.join(target), links - 1),
        _ => behind_links(above, links).join(name),
    }
}

fn parts(path: &Path) -> Vec<OsString> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::ParentDir if !parts.is_empty() => drop(parts.pop()),
            _ => {}
        }
    }
    parts
}

/// The file system that a path is in, and the path in it, from /proc/PID/mountinfo (proc_pid_mountinfo(5)): of two bind
/// mounts of one directory, both are the same.
fn in_file_system(real: &Path, mounts: &[u8]) -> Option<Location> {
    let mut found: Option<(PathBuf, String, PathBuf)> = None;
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let (Some(device), Some(root), Some(point)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let point = unescaped(point);
        // Of several at one point, the last one is on top.
        let deeper = found.as_ref().is_none_or(|(other, ..)| point.starts_with(other));
        if real.starts_with(&point) && deeper {
            found = Some((point, String::from_utf8_lossy(device).into_owned(), unescaped(root)));
        }
    }
    let (point, device, root) = found?;
    let inside = root.join(real.strip_prefix(point).ok()?);
    Some(Location { store: format!("device {device}"), parts: parts(&inside) })
}

/// `\040` is a space there.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str) -> Location {
        Location::directory(Path::new(path))
    }

    #[test]
    fn one_directory_has_many_names() {
        for other in ["/b/", "//b", "/./b/.", "/x/../b", "/../b"] {
            assert_eq!(directory("/b").overlap(&directory(other)), Some(Overlap::Same), "{other}");
        }
        assert_eq!(directory("/b/c").overlap(&directory("/b/")), Some(Overlap::Inside));
        assert_eq!(directory("/b").overlap(&directory("/b/c")), Some(Overlap::Around));
        for other in ["/bc", "/B", "/c/b"] {
            assert_eq!(directory("/b").overlap(&directory(other)), None, "{other}");
        }
    }

    #[test]
    fn a_path_elsewhere_is_another_one() {
        let place = |account: &str, port, path: &str| Location::by_ssh(account, port, path);
        let same = Some(Overlap::Same);
        assert_eq!(place("me@nas", None, "/b").overlap(&place("you@NAS", Some(22), "/b/")), same);
        assert_eq!(place("me@nas", None, "b").overlap(&place("me@nas", None, "./b")), same);
        assert_eq!(place("me@localhost", None, "/b").overlap(&directory("/b")), same);
        for (one, other) in [
            (place("me@nas", None, "b"), place("you@nas", None, "b")),
            (place("me@nas", None, "/b"), place("me@nas", Some(2222), "/b")),
            (place("me@nas", None, "/b"), place("me@other", None, "/b")),
            (place("me@localhost", Some(2222), "/b"), directory("/b")),
            (place("me@localhost", None, "b"), directory("/b")),
        ] {
            assert_eq!(one.overlap(&other), None, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_place_behind_a_link_is_found_before_it_is_made() {
        let home = tempfile::tempdir().unwrap();
        let real = home.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, home.path().join("link")).unwrap();
        let place = |name: &str| Location::directory(&home.path().join(name)).resolved();
        assert_eq!(place("link").overlap(&place("real")), Some(Overlap::Same));
        assert_eq!(place("link/new/vault").overlap(&place("real")), Some(Overlap::Inside));
        assert_eq!(place("link/new").overlap(&place("real/other")), None);
        std::os::unix::fs::symlink("real/still/to/be/made", home.path().join("early")).unwrap();
        assert_eq!(place("early").overlap(&place("real")), Some(Overlap::Inside));
        std::os::unix::fs::symlink("round", home.path().join("round")).unwrap();
        assert_eq!(place("round").overlap(&place("real")), None);
    }

    #[test]
    fn bind_mounts_are_the_directories_that_they_show() {
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                       30 22 8:1 /b/sub /mnt/my\\040disk rw - ext4 /dev/sda1 rw\n\
                       31 22 8:17 / /usb rw - ext4 /dev/sdb1 rw\n";
        let place = |path: &str| in_file_system(Path::new(path), mounts).unwrap();
        assert_eq!(place("/mnt/my disk/x").overlap(&place("/b/sub/x")), Some(Overlap::Same));
        assert_eq!(place("/mnt/my disk").overlap(&place("/b")), Some(Overlap::Inside));
        assert_eq!(place("/usb/b").overlap(&place("/b")), None);
        assert_eq!(place("/mnt/other").overlap(&place("/b")), None);
    }
}
