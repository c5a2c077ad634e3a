//! What a source has to say about single entries while the rest of a partition goes through.
//!
//! An error ends a payload; a notice does not. A source that reads many things of which one may be missing (files) says
//! so here, and the engine puts it into the run's result: any [`Level::Problem`] makes the unit partial.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be, and still worth a line: a socket is not saved.
    Note,
    /// Saved, but perhaps not as it should be: a file that kept changing while it was read.
    Warning,
    /// Not saved: something is missing from the generation that the pipeline file asks for.
    Problem,
}

/// One thing that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// Human-readable; one line.
    pub message: String,
}

/// Messages kept of each level. A tree of a million unreadable files must not fill the memory; all are counted.
const KEPT: usize = 100;

/// Gathers the notices of one read. Cheap to clone; clones share what they hold.
#[derive(Clone, Default)]
pub struct Notices(Arc<Mutex<Gathered>>);

#[derive(Default)]
struct Gathered {
    counts: [u64; 3],
    kept: Vec<Notice>,
}

impl Notices {
    /// Adds a [`Level::Note`].
    pub fn note(&self, message: impl Into<String>) {
        self.add(Level::Note, message.into());
    }

    /// Adds a [`Level::Warning`].
    pub fn warning(&self, message: impl Into<String>) {
        self.add(Level::Warning, message.into());
    }

    /// Adds a [`Level::Problem`].
    pub fn problem(&self, message: impl Into<String>) {
        self.add(Level::Problem, message.into());
    }

    /// How many of a level there are, including those whose message was not kept.
    pub fn count(&self, level: Level) -> u64 {
        self.with(|gathered| gathered.counts[level as usize])
    }

    /// The worst level there is.
    pub fn worst(&self) -> Option<Level> {
        [Level::Problem, Level::Warning, Level::Note].into_iter().find(|level| self.count(*level) > 0)
    }

    /// The worst first, in the order of their coming; the first hundred of each level, and how many more there are.
    pub fn list(&self) -> Vec<Notice> {
        let mut list = self.with(|gathered| {
            let mut list = gathered.kept.clone();
            for level in [Level::Note, Level::Warning, Level::Problem] {
                let more = gathered.counts[level as usize].saturating_sub(KEPT as u64);
                if more > 0 {
                    list.push(Notice { level, message: format!("and {more} more") });
                }
            }
            list
        });
        list.sort_by_key(|notice| std::cmp::Reverse(notice.level));
        list
    }

    fn add(&self, level: Level, message: String) {
        // The run tells of warnings and problems at its end, each once.
        match level {
            Level::Note => tracing::info!("{message}"),
            Level::Warning | Level::Problem => tracing::debug!("{message}"),
        }
        self.with(|gathered| {
            gathered.counts[level as usize] += 1;
            if gathered.kept.iter().filter(|notice| notice.level == level).count() < KEPT {
                gathered.kept.push(Notice { level, message });
            }
        });
    }

    // A thread that panicked with the lock held left at most one notice uncounted.
    fn with<T>(&self, work: impl FnOnce(&mut Gathered) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_of_each_level_are_kept() {
        let notices = Notices::default();
        assert_eq!(notices.worst(), None);
        for number in 0..1000 {
            notices.clone().note(format!("socket {number}"));
        }
        notices.problem("unreadable");
        assert_eq!((notices.count(Level::Note), notices.count(Level::Warning)), (1000, 0));
        assert_eq!(notices.worst(), Some(Level::Problem));
        let list = notices.list();
        assert_eq!(list.len(), KEPT + 2);
        assert_eq!(list[KEPT + 1].message, "and 900 more");
        assert_eq!((list[0].message.as_str(), list[1].message.as_str()), ("unreadable", "socket 0"));
    }
}
