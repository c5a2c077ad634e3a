//! Extended attributes of what the walk finds; access control lists are among them (acl(5), xattr(7)).
//!
//! They are asked for through `/proc/self/fd`: that needs neither a path, which may be too long for the system, nor the
//! right to read the file, and never waits for anything.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use cdrvault_format::entry::{Attribute, RawPath};
use rustix::fs::{Mode, OFlags, getxattr, getxattr_query, listxattr, listxattr_query, llistxattr_query, openat, stat};
use rustix::io::Errno;

use super::stat::Stat;

/// The list of who may do what.
pub(crate) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// The list that new files in a directory get.
pub(crate) const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

/// How often a value is asked for again that grows while we look.
const AGAIN: u32 = 3;

/// What a file has.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Sorted by name.
    pub(crate) kept: Vec<Attribute>,
    /// Names of access rules of other kinds (NFSv4), which would mean nothing to another file system.
    pub(crate) left_out: Vec<RawPath>,
}

/// Whether `/proc` is there.
pub(crate) fn can_be_read(directory: BorrowedFd<'_>) -> bool {
    stat(path_of(directory)).is_ok()
}

/// Of a name in a directory, provided that it still is what was looked at; `None` where it is not. A name that was
/// swapped meanwhile must not lend its capabilities to another file's bytes.
pub(crate) fn of_name(directory: BorrowedFd<'_>, name: &[u8], seen: &Stat) -> Result<Option<Attributes>, Errno> {
    let path = [path_of(directory).as_bytes(), b"/", name].concat();
    match llistxattr_query(path.as_slice()) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Some(Attributes::default())),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    let found = Stat::of_open(&file)?;
    if (found.device, found.inode, found.file_type) != (seen.device, seen.inode, seen.file_type) {
        return Ok(None);
    }
    of_open(&file).map(Some)
}

/// Of what is open, be it only as a place (`O_PATH`).
pub(crate) fn of_open(file: impl AsFd) -> Result<Attributes, Errno> {
    let path = path_of(file.as_fd());
    let names = match read(|| listxattr_query(&path), |buffer| listxattr(&path, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(Attributes::default()),
        names => names?,
    };
    let mut attributes = Attributes::default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if is_kept(name) {
            match read(|| getxattr_query(&path, name), |buffer| getxattr(&path, name, buffer)) {
                Ok(value) => attributes.kept.push(Attribute { name: RawPath(name.to_vec()), value }),
                // Taken away since it was listed.
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        } else if name.starts_with(b"system.") {
            attributes.left_out.push(RawPath(name.to_vec()));
        }
    }
    attributes.kept.sort();
    Ok(attributes)
}

/// The labels of security modules (SELinux, IMA) are the system's, which computes them again, and not the file's.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || [ACCESS_LIST, DEFAULT_LIST, b"security.capability"].contains(&name)
}

fn path_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// What has a length that must be known before it is read.
fn read(
    length: impl Fn() -> Result<usize, Errno>,
    fill: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    for _ in 0..=AGAIN {
        let mut buffer = vec![0; length()?];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match fill(&mut buffer) {
            Err(Errno::RANGE) => {}
            filled => {
                buffer.truncate(filled?);
                return Ok(buffer);
            }
        }
    }
    Err(Errno::RANGE)
}
