//! Walks a tree, in the order of the raw bytes of its paths.
//!
//! Each name is looked at relative to the open directory that holds it, and a directory is opened without following
//! links: somebody who swaps a directory for a link while we walk cannot lead us out of the tree. Neither depth nor length
//! of a path is bounded, so the walk keeps its own stack and has no more than [`OPEN`] directories open.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cdrvault_format::entry::RawPath;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::notice::Notices;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::selection::Selection;
use super::stat::Stat;

/// Directories held open at a time. Those above are opened again through `..` when the walk comes back to them.
const OPEN: usize = 64;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the root of a tree. It may be a link: that is how an administrator moves a directory.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, DIRECTORY, Mode::empty()).map_err(|errno| {
        let error = Error::io("open the directory", path, errno.into());
        match errno {
            Errno::NOTDIR => Error::new(Kind::Config, format!("{} is not a directory", path.display()))
                .hint("set `path` to the directory that holds it, and `include` to its name"),
            Errno::NOENT => error.hint("correct `path`, or mount what should be there"),
            _ => error,
        }
    })
}

/// A walk, and where it is.
pub(crate) struct Walk<'a> {
    selection: &'a Selection,
    notices: &'a Notices,
    root: &'a Path,
    /// Where to stay, if so asked.
    device: Option<(u32, u32)>,
    /// Directories that are not saved, by device and inode.
    left_out: BTreeSet<((u32, u32), u64)>,
    levels: Vec<Level>,
    /// Directories of `levels` below this one are open.
    closed_below: usize,
}

/// A directory that the walk is in.
struct Level {
    /// With a `/` at its end, except the root, which is empty.
    path: Vec<u8>,
    /// `None` where too many others are open.
    directory: Option<OwnedFd>,
    device: (u32, u32),
    inode: u64,
    /// The directory or one above it was included.
    included: bool,
    /// What is left to be visited: each name, and a directory's name once more with a `/` at its end, which stands for
    /// what is in it. So `a`, `a.txt`, `a/b` come in the order of their bytes.
    left: BTreeSet<Vec<u8>>,
}

/// Something to be saved.
pub(crate) struct Found {
    pub(crate) path: RawPath,
    pub(crate) stat: Stat,
    name_at: usize,
}

impl Found {
    /// Its name in [`Walk::directory`].
    pub(crate) fn name(&self) -> &[u8] {
        &self.path.0[self.name_at..]
    }
}

impl<'a> Walk<'a> {
    /// A walk through an open directory, called `path` in messages.
    pub(crate) fn new(
        root: OwnedFd,
        path: &'a Path,
        selection: &'a Selection,
        one_file_system: bool,
        notices: &'a Notices,
    ) -> Result<Self> {
        let cannot = |errno: Errno| Error::io("list the directory", path, errno.into());
        let stat = Stat::of_open(&root).map_err(cannot)?;
        let level = Level {
            path: Vec::new(),
            left: names(&root).map_err(cannot)?,
            directory: Some(root),
            device: stat.device,
            inode: stat.inode,
            included: selection.includes_everything(),
        };
        let device = one_file_system.then_some(stat.device);
        Ok(Self {
            selection,
            notices,
            root: path,
            device,
            left_out: BTreeSet::new(),
            levels: vec![level],
            closed_below: 0,
        })
    }

    /// Leaves these directories out wherever they come into sight; those that are not there cannot.
    pub(super) fn leave_out(&mut self, directories: &[PathBuf]) {
        let opened = directories.iter().filter_map(|path| openat(CWD, path, DIRECTORY, Mode::empty()).ok());
        let stats = opened.filter_map(|directory| Stat::of_open(&directory).ok());
        self.left_out = stats.map(|stat| (stat.device, stat.inode)).collect();
    }

    /// The next thing to be saved, which is a name in [`Walk::directory`] until the next call.
    pub(crate) fn next(&mut self) -> Result<Option<Found>> {
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.left.pop_first() else {
                self.leave()?;
                continue;
            };
            let found = if let Some(name) = name.strip_suffix(b"/") {
                self.enter(name)?;
                None
            } else {
                self.visit(&name)?
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The directory of what was found last.
    pub(crate) fn directory(&self) -> Result<BorrowedFd<'_>> {
        let open = self.levels.last().and_then(|level| level.directory.as_ref());
        open.map(AsFd::as_fd).ok_or_else(|| Error::failed("a walk has no open directory"))
    }

    /// A path as messages call it.
    pub(crate) fn place(&self, path: &[u8]) -> String {
        let root = RawPath(self.root.as_os_str().as_encoded_bytes().to_vec());
        format!("{}/{}", root.display().trim_end_matches('/'), RawPath(path.to_vec()).display())
    }

    /// Says that something could not be saved; an error where the fault is ours, so that all others would fare alike.
    pub(crate) fn cannot(&self, doing: &str, path: &[u8], errno: Errno) -> Result<()> {
        let place = self.place(path);
        match errno {
            Errno::NOENT => self.notices.note(format!("{place} vanished while the tree was read")),
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                return Err(Error::io(doing, Path::new(&place), errno.into()));
            }
            _ => self.notices.problem(format!("cannot {doing} {place}: {errno}; it is not saved")),
        }
        Ok(())
    }

    fn visit(&mut self, name: &[u8]) -> Result<Option<Found>> {
        let Some(level) = self.levels.last() else { return Ok(None) };
        let (name_at, included) = (level.path.len(), level.included);
        let path = [&level.path, name].concat();
        if self.selection.excludes(&path, false) {
            return Ok(None);
        }
        let stat = match Stat::of_name(self.directory()?, name) {
            Ok(stat) => stat,
            Err(errno) => {
                // A name that is not asked for may be as unreadable as it likes.
                if included || self.selection.includes(&path, true) || self.selection.leads_on(&path) {
                    self.cannot("look at", &path, errno)?;
                }
                return Ok(None);
            }
        };
        let directory = stat.file_type == FileType::Directory;
        let included = included || self.selection.includes(&path, directory);
        let wanted = included || (directory && self.selection.leads_on(&path));
        if !wanted || (directory && self.selection.excludes(&path, true)) {
            return Ok(None);
        }
        if directory && self.left_out.contains(&(stat.device, stat.inode)) {
            self.notices.note(format!("{} is written by this pipeline itself, and is not saved", self.place(&path)));
            return Ok(None);
        }
        if directory
            && self.device.is_none_or(|device| device == stat.device)
            && let Some(level) = self.levels.last_mut()
        {
            level.left.insert([name, b"/"].concat());
        }
        Ok(Some(Found { path: RawPath(path), stat, name_at }))
    }

    fn enter(&mut self, name: &[u8]) -> Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let path = [&level.path, name, b"/"].concat();
        let bare = &path[..path.len() - 1];
        let included = level.included || self.selection.includes(bare, true);
        let entered = openat(self.directory()?, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .and_then(|directory| Ok((Stat::of_open(&directory)?, names(&directory)?, directory)));
        let (stat, left, directory) = match entered {
            Ok(entered) => entered,
            // No directory any more: what replaced it is saved the next time.
            Err(Errno::NOTDIR | Errno::LOOP) => return self.cannot("list", bare, Errno::NOENT),
            Err(errno) => return self.cannot("list the directory", bare, errno),
        };
        // Something may have been mounted there since it was looked at.
        if self.device.is_some_and(|device| device != stat.device) {
            return Ok(());
        }
        self.levels.push(Level {
            path,
            directory: Some(directory),
            device: stat.device,
            inode: stat.inode,
            included,
            left,
        });
        if self.levels.len() - self.closed_below > OPEN {
            if let Some(level) = self.levels.get_mut(self.closed_below) {
                level.directory = None;
            }
            self.closed_below += 1;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(Level { directory: below, path, .. }) = self.levels.pop() else { return Ok(()) };
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        if level.directory.is_some() {
            return Ok(());
        }
        let moved = || Error::new(Kind::Transient, "a directory was moved while the tree was read");
        let below = below.ok_or_else(moved)?;
        let (stat, above) = openat(&below, "..", DIRECTORY, Mode::empty())
            .and_then(|above| Ok((Stat::of_open(&above)?, above)))
            .map_err(|errno| moved().with_source(errno))?;
        if (stat.device, stat.inode) != (level.device, level.inode) {
            return Err(moved().hint(format!("it was {}; the next run reads the tree anew", self.place(&path))));
        }
        level.directory = Some(above);
        self.closed_below = self.levels.len() - 1;
        Ok(())
    }
}

fn names(directory: &OwnedFd) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.insert(name.to_vec());
        }
    }
    Ok(names)
}
