//! What of a tree could not be restored.

use cdrvault_format::error::Error;
use rustix::io::Errno;

/// What fails for one entry, or for all.
pub(super) enum Failed {
    /// The others can go on.
    Entry(Error),
    /// They would fare alike.
    All(Error),
}

impl Failed {
    pub(super) fn of(errno: Errno, error: Error) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                Self::All(error)
            }
            _ => Self::Entry(error),
        }
    }

    pub(super) fn of_io(error: std::io::Error, made: impl FnOnce(std::io::Error) -> Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        Self::of(errno, made(error))
    }
}

/// What was not restored as it was saved, for a person to read. A tree of a million must not fill the memory.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    first: Vec<Error>,
    more: u64,
}

/// So many are named.
const NAMED: usize = 100;

impl Lacking {
    pub(super) fn add(&mut self, error: Error) {
        if self.first.len() < NAMED {
            self.first.push(error);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn into_errors(mut self) -> Vec<Error> {
        if self.more > 0 {
            self.first.push(Error::failed(format!("{} more were not restored as they were saved", self.more)));
        }
        self.first
    }
}
