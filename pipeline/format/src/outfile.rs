//! Files that people name for our output.
//!
//! A regular file is replaced by rename, whole, in the directory where it is: a link that leads to it stays. Where
//! nothing is, also behind a link, a file is made. Into a pipe, a device or what a process has open (`/dev/stdout`) it
//! is written, as a shell would: a rename would take its name away from everybody else.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::durable::{self, How};
use crate::error::{Error, Kind, Result};

/// As many links lead from one to the next before Linux gives up, path_resolution(7).
const MOST_LINKS: usize = 40;

/// Writes a file that somebody named. It gets this mode; without one, a file that is there keeps its own with its owner,
/// and a new one is for nobody but us.
pub fn write(path: &Path, mode: Option<u32>, content: &[u8]) -> Result<()> {
    match find(path)? {
        Place::Nothing(path) => {
            durable::replace(&path, &How { mode, ..How::default() }, |file| file.write_all(content))
        }
        Place::File(path, found) => {
            let how = How { mode: mode.or(Some(found.mode() & 0o777)), ..How::default() };
            durable::replace(&path, &how, |file| {
                if mode.is_none() && rustix::process::geteuid().is_root() {
                    std::os::unix::fs::fchown(&*file, Some(found.uid()), Some(found.gid()))?;
                }
                file.write_all(content)
            })
        }
        Place::Stream => {
            let failed = |error| Error::io("write to", path, error);
            // What a process has open may be a file that others add to.
            let mut stream = File::options().append(true).open(path).map_err(failed)?;
            stream.write_all(content).map_err(failed)
        }
    }
}

/// What is to be written to.
enum Place {
    /// A file is made here.
    Nothing(PathBuf),
    /// A regular file.
    File(PathBuf, fs::Metadata),
    /// Something that cannot be replaced.
    Stream,
}

fn find(path: &Path) -> Result<Place> {
    let failed = |error| Error::io("write", path, error);
    let refused = |what: &str, hint: &'static str| {
        Err(Error::new(Kind::Refused, format!("{} is {what}, and is left alone", path.display())).hint(hint))
    };
    // Asked first, and by following: the kernel refuses links that others set as a trap.
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    if let Some(kind) = found.as_ref().map(fs::Metadata::file_type) {
        if kind.is_dir() {
            return refused("a directory", "name a file");
        }
        if kind.is_block_device() || kind.is_socket() {
            return refused(
                if kind.is_socket() { "a socket" } else { "a disk" },
                "name a file, or a pipe to a program that passes it on",
            );
        }
        if !kind.is_file() {
            return Ok(Place::Stream);
        }
    }
    let mut place = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&place) {
            Ok(seen) if seen.is_symlink() => {
                if is_of_a_process(&place) {
                    return Ok(Place::Stream);
                }
                let target = fs::read_link(&place).map_err(failed)?;
                place = place.parent().unwrap_or(Path::new("")).join(target);
            }
            Ok(seen) if seen.is_file() => return Ok(Place::File(place, seen)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Nothing(place)),
            Ok(_) => return Ok(Place::Stream),
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(rustix::io::Errno::LOOP.into()))
}

/// Whether a link is one of those in `/proc/PID/fd`, which lead to what is open and not to a name.
fn is_of_a_process(link: &Path) -> bool {
    let directory = link.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::statfs(directory).is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_new_one_is_private() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("page");
        write(&path, None, b"1").unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, None, b"2").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"2".to_vec(), 0o640));
        write(&path, Some(0o644), b"3").unwrap();
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn links_stay_and_what_they_lead_to_is_written() {
        let home = tempfile::tempdir().unwrap();
        let (page, link, far) = (home.path().join("there/page"), home.path().join("link"), home.path().join("far"));
        fs::create_dir(home.path().join("there")).unwrap();
        symlink("there/page", &link).unwrap();
        symlink("link", &far).unwrap();
        for content in [b"1", b"2"] {
            write(&far, None, content).unwrap();
            assert!(link.is_symlink() && far.is_symlink());
            assert_eq!(fs::read(&page).unwrap(), content);
        }
        symlink("round", home.path().join("round")).unwrap();
        write(&home.path().join("round"), None, b"").unwrap_err();
        let refused = write(&home.path().join("there"), None, b"").unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 4, "nothing else was made");
    }

    #[test]
    fn pipes_and_devices_are_written_to_and_stay() {
        let home = tempfile::tempdir().unwrap();
        let pipe = home.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let reading = pipe.clone();
        let reader = std::thread::spawn(move || fs::read_to_string(reading).unwrap());
        write(&pipe, None, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        let socket = home.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(write(&socket, None, b"").unwrap_err().kind(), Kind::Refused);
        assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    }

    #[test]
    fn what_a_process_has_open_is_added_to() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let mut open = File::options().read(true).write(true).open(&path).unwrap();
        for name in [format!("/dev/fd/{}", open.as_raw_fd()), format!("/proc/self/fd/{}", open.as_raw_fd())] {
            write(Path::new(&name), None, b"more\n").unwrap();
        }
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before\nmore\nmore\n", "it is the same file");
    }
}
