//! How a verb ends, and the exit status that says so.

use cdrvault_format::error::Error;
use cdrvault_plugin::options::Problems;

/// How a verb ended.
pub(crate) enum Exit {
    /// 0
    Done,
    /// 1
    Failed,
    /// 3
    Partial,
    /// 4
    Damage,
    /// 130
    Interrupted,
    /// What monitoring plugins end with.
    Plugin(u8),
}

/// Why a verb could not do its work.
pub(crate) enum Failure {
    /// 1, or what its kind says.
    Error(Error),
    /// 78: the pipeline file is wrong.
    Pipeline(Problems),
    /// 2: the arguments do not fit together.
    Usage(String),
    /// 11, without a message: another run is in progress, and the output is not a terminal.
    LockedQuietly,
}

impl Failure {
    /// What it is, on one line.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Error(error) => error.one_line(),
            Self::Pipeline(problems) => problems.to_string().lines().next().unwrap_or_default().to_owned(),
            Self::Usage(message) => message.clone(),
            Self::LockedQuietly => "another run is in progress".to_owned(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match Problems::of(&error) {
            Some(problems) => Self::Pipeline(problems.clone()),
            None => Self::Error(error),
        }
    }
}
