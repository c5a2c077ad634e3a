//! The flags of every verb.

use std::path::PathBuf;
use std::time::Duration;

use cdrvault_plugin::options::Age;
use clap::{ArgAction, Args, ValueEnum};

/// Flags of every verb. Each has an environment variable; the flag wins.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// The pipeline file; otherwise the verb's argument says which.
    #[arg(short, long, global = true, value_name = "FILE", env = "CDRVAULT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Write JSON to standard output.
    #[arg(long, global = true, env = "CDRVAULT_JSON")]
    pub(crate) json: bool,
    /// Say more: -v what was done, -vv how.
    #[arg(short, long, global = true, action = ArgAction::Count, env = "CDRVAULT_VERBOSE")]
    pub(crate) verbose: u8,
    /// Print only errors.
    #[arg(short, long, global = true, conflicts_with = "verbose", env = "CDRVAULT_QUIET")]
    pub(crate) quiet: bool,
    /// The form of log lines on standard error.
    #[arg(long, global = true, value_enum, default_value = "text", env = "CDRVAULT_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Whether to use colours; NO_COLOR is respected.
    #[arg(long, global = true, value_enum, default_value = "auto", env = "CDRVAULT_COLOR")]
    pub(crate) color: Color,
    /// No progress bar, even on a terminal.
    #[arg(long, global = true, env = "CDRVAULT_NO_PROGRESS")]
    pub(crate) no_progress: bool,
    /// How long to wait for another run to end, as `5m`.
    #[arg(long, global = true, value_name = "TIME", default_value = "0s", value_parser = parse_age, env = "CDRVAULT_WAIT_LOCK")]
    pub(crate) wait_lock: Duration,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human-readable.
    Text,
    /// One JSON object a line.
    Json,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A span of time, as `5m`.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    text.parse::<Age>().map(Age::to_duration).map_err(|error| error.to_string())
}
