//! The run history: one JSON line a run. It may be deleted without harm.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::report::{Outcome, Report};
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Result};

const FILE: &str = "history.jsonl";

/// So many runs are looked at to find the last one that went well.
pub const MANY: usize = 1000;

/// When the file is longer than this, the older half is dropped.
const MAX_BYTES: u64 = 4 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// What was asked for: `run`, `replay` or `verify`.
    pub verb: String,
    /// The flows that it was restricted to; none where it was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<String>,
    /// What happened.
    #[serde(flatten)]
    pub report: Report,
    /// What a verification found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verification>,
}

/// What a verification found, as the history has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verification {
    /// The sinks that were looked at.
    pub sinks: Vec<String>,
    /// Generations that were read, and are good.
    pub good: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Findings that count and were not repaired.
    pub damage: u64,
    /// Findings that were repaired.
    pub repaired: u64,
    /// The first of them, for a person to read.
    pub findings: Vec<String>,
}

impl Line {
    /// It saved something, or was to; a verification only looks.
    pub fn is_run(&self) -> bool {
        self.verified.is_none()
    }

    /// A run, not a replay, that went well for this flow as for all others that it was asked for.
    fn is_success_of(&self, flow: &str) -> bool {
        self.verb == "run"
            && self.report.outcome == Outcome::Done
            && (self.flows.is_empty() || self.flows.iter().any(|one| one == flow))
    }
}

/// Since when every flow is saved: the oldest of the last good runs of each. `None` if one of them had none.
pub fn last_success<'a>(runs: &[Line], mut flows: impl Iterator<Item = &'a str>) -> Option<Timestamp> {
    let last = |flow: &str| runs.iter().rev().find(|line| line.is_success_of(flow)).map(|line| line.report.finished);
    flows.try_fold(Timestamp::MAX, |oldest, flow| last(flow).map(|at| at.min(oldest)))
}

/// Adds a line. A line cut short by a crash is skipped by [`read`].
pub fn append(directory: &Path, line: &Line) -> Result<()> {
    let path = directory.join(FILE);
    let failed = |error| Error::io("write", &path, error);
    if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() > MAX_BYTES) {
        let text = std::fs::read(&path).map_err(failed)?;
        let half = text.len() / 2;
        let from = text[half..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| half + at + 1);
        durable::replace(&path, &How::default(), |file| file.write_all(&text[from..]))?;
    }
    let mut text =
        serde_json::to_vec(line).map_err(|error| Error::failed("cannot write a run as JSON").with_source(error))?;
    text.push(b'\n');
    let mut file = durable::append(&path, &How::private())?;
    // After a line that was cut short, this one begins on a line of its own.
    if !ends_with_newline(&file) {
        text.insert(0, b'\n');
    }
    file.write_all(&text).map_err(failed)
}

fn ends_with_newline(file: &std::fs::File) -> bool {
    use std::os::unix::fs::FileExt as _;
    let Ok(length) = file.metadata().map(|found| found.len()) else { return true };
    let mut last = [b'\n'];
    length == 0 || file.read_exact_at(&mut last, length - 1).is_err() || last == [b'\n']
}

/// The last runs, the newest last.
pub fn read(directory: &Path, most: usize) -> Result<Vec<Line>> {
    let path = directory.join(FILE);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    let mut lines = std::collections::VecDeque::new();
    // Bytes: a line that was cut short may end within a character.
    for text in BufReader::new(file).split(b'\n') {
        let text = text.map_err(|error| Error::io("read", &path, error))?;
        if let Ok(line) = serde_json::from_slice(&text) {
            lines.push_back(line);
            if lines.len() > most {
                lines.pop_front();
            }
        }
    }
    Ok(lines.into())
}
