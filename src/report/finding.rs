//! The verdict and its findings, as values.

use serde::Serialize;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// As it should be, and still worth a line.
    Note,
    /// Nothing is lost; somebody should look.
    Attention,
    /// Something is not where it should be, or nobody can tell.
    Bad,
}

/// The verdict.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Verdict {
    /// That of the worst finding.
    pub(super) level: Level,
    /// One sentence.
    pub(super) text: String,
    /// The worst first.
    pub(super) findings: Vec<Finding>,
}

/// One thing that needs attention.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What is so.
    pub(super) text: String,
    /// What to do.
    pub(super) todo: String,
    /// The command that does it.
    pub(super) command: Option<String>,
}

impl Default for Verdict {
    fn default() -> Self {
        Self { level: Level::Good, text: String::new(), findings: Vec::new() }
    }
}
