//! Owner, extended attributes, mode and times of what is written, in this order: a change of the owner takes capabilities
//! and set-user-id away, and all of them change the times.

use std::os::fd::AsRawFd as _;

use cdrvault_format::entry::{Attribute, Entry, EntryKind};
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr, futimens,
    lsetxattr, openat, utimensat,
};
use rustix::io::Errno;

use super::below::Below;
use super::lacking::{Failed, Lacking};
use crate::files::xattrs::ACCESS_LIST;

/// See the module. Without its owner nothing becomes readable or executable for anybody else.
pub(super) fn finish(below: &mut Below, entry: &Entry, lacking: &mut Lacking) -> Result<(), Failed> {
    let path = entry.path.0.as_slice();
    let mut refused = Vec::new();
    let done = below.parent(path, false).map_err(|errno| ("find", errno)).and_then(|(directory, name)| {
        if matches!(entry.kind, EntryKind::Symlink { .. }) {
            finish_link(directory, name, entry, &mut refused)
        } else {
            finish_open(directory, name, entry, &mut refused)
        }
    });
    for (name, errno) in refused {
        let error = below.error(&format!("set the attribute `{}` of", name.display()), path, errno);
        lacking.add(match errno {
            Errno::OPNOTSUPP => {
                error.hint("restore into a file system that has extended attributes and access control lists")
            }
            _ => error,
        });
    }
    done.map_err(|(doing, errno)| Failed::of(errno, below.error(doing, path, errno)))
}

type Refused<'e> = Vec<(&'e cdrvault_format::entry::RawPath, Errno)>;

fn finish_open<'e>(
    directory: BorrowedFd<'_>,
    name: &[u8],
    entry: &'e Entry,
    refused: &mut Refused<'e>,
) -> Result<(), (&'static str, Errno)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).map_err(|errno| ("open", errno))?;
    if let Some((owner, group)) = owner(entry) {
        fchown(&file, Some(owner), Some(group)).map_err(|errno| ("set the owner of", errno))?;
    }
    let mut mode = entry.mode & 0o7777;
    for Attribute { name, value } in settable(entry) {
        if let Err(errno) = fsetxattr(&file, name.0.as_slice(), value, XattrFlags::empty()) {
            if name.0 == ACCESS_LIST {
                mode = without_list(mode, value);
            }
            refused.push((name, errno));
        }
    }
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(|errno| ("set the mode of", errno))?;
    futimens(&file, &times(entry)).map_err(|errno| ("set the time of", errno))
}

/// A link cannot be opened, and has no mode of its own.
fn finish_link<'e>(
    directory: BorrowedFd<'_>,
    name: &[u8],
    entry: &'e Entry,
    refused: &mut Refused<'e>,
) -> Result<(), (&'static str, Errno)> {
    if let Some((owner, group)) = owner(entry) {
        chownat(directory, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| ("set the owner of", errno))?;
    }
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
    for Attribute { name, value } in settable(entry) {
        if let Err(errno) = lsetxattr(path.as_slice(), name.0.as_slice(), value, XattrFlags::empty()) {
            refused.push((name, errno));
        }
    }
    utimensat(directory, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| ("set the time of", errno))
}

/// Only root may give files away.
fn owner(entry: &Entry) -> Option<(Uid, Gid)> {
    rustix::process::geteuid().is_root().then(|| (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
}

/// Those that we may set at all; the target's check has told of the others.
pub(super) fn settable(entry: &Entry) -> impl Iterator<Item = &Attribute> {
    let root = rustix::process::geteuid().is_root();
    let of_root = |name: &[u8]| name.starts_with(b"trusted.") || name.starts_with(b"security.");
    entry.xattrs.iter().filter(move |attribute| root || !of_root(&attribute.name.0))
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanoseconds) = entry.mtime;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// The mode of a file that does not get its list. With a list, the middle bits are the most that anybody named there may
/// do; without it they would be what the group may do, to whom the list may give less. The form is that of the kernel:
/// a version of four bytes, then entries of tag and rights (two bytes each) and id (four).
fn without_list(mode: u32, list: &[u8]) -> u32 {
    const OWNING_GROUP: u16 = 0x04;
    let number = |bytes: &[u8]| bytes.try_into().map(u16::from_le_bytes).unwrap_or_default();
    let entries = list.get(4..).unwrap_or_default().chunks_exact(8);
    let of_group =
        entries.map(|entry| (number(&entry[..2]), number(&entry[2..4]))).find(|(tag, _)| *tag == OWNING_GROUP);
    let rights = of_group.map_or(0, |(_, rights)| u32::from(rights) & 0o7);
    mode & !0o070 | (mode & (rights << 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_its_list_a_file_gives_the_group_no_more_than_the_list_does() {
        let entry = |tag: u16, rights: u16| [tag.to_le_bytes(), rights.to_le_bytes(), [0xff; 2], [0xff; 2]].concat();
        let list = |group| [vec![2, 0, 0, 0], entry(1, 6), entry(2, 7), entry(4, group), entry(0x10, 7)].concat();
        assert_eq!(without_list(0o2770, &list(0)), 0o2700);
        assert_eq!(without_list(0o2770, &list(4)), 0o2740);
        // What the mask takes away stays away.
        assert_eq!(without_list(0o640, &list(7)), 0o640);
        assert_eq!(without_list(0o777, b"odd"), 0o707);
    }
}
