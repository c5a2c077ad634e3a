//! `[metrics]` and `[notify]`: who hears of a run besides those who read its output.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use cdrvault_plugin::options::draft::Draft;
use cdrvault_plugin::options::section::{Body, Section};
use cdrvault_plugin::options::{Age, Command, FilePath, Problem, Secret};

/// The options of `[metrics]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct MetricsOptions {
    /// The file that every run writes for the textfile collector of Prometheus's node exporter; its name ends in `.prom`.
    textfile: FilePath,
}

/// The options of `[notify]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NotifyOptions {
    /// A URL that is asked for at the start (with `/start` appended), after success, and after anything else (with
    /// `/fail` appended), as healthchecks.io and its like want it.
    ping: Option<Secret>,
    /// A URL that gets a POST with JSON.
    webhook: Option<Secret>,
    /// A program that gets the same JSON on its standard input, as `["/usr/local/bin/page-the-admin"]`.
    command: Option<Command>,
    /// What the webhook and the command hear of.
    #[serde(default = "alarming")]
    #[schemars(length(min = 1))]
    on: Vec<NotifyOn>,
    /// How long each of them may take.
    #[serde(default = "ten_seconds")]
    timeout: Age,
}

fn alarming() -> Vec<NotifyOn> {
    vec![NotifyOn::Partial, NotifyOn::Failure, NotifyOn::Overdue, NotifyOn::Damage, NotifyOn::Data]
}

fn ten_seconds() -> Age {
    Age::seconds(10)
}

/// What happened that somebody may want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyOn {
    /// A run began.
    Start,
    /// A run did all that there was to do.
    Success,
    /// A run did a part of it.
    Partial,
    /// A run did nothing of it, or was interrupted.
    Failure,
    /// `status --max-age` found that no run has gone well for too long, or a sink that cannot be read.
    Overdue,
    /// `verify` found damage, or a difference; and each `status` with a limit while it is not mended.
    Damage,
    /// What is saved is older than `[watch]` allows, lies in the future, or is much less than usual.
    Data,
}

/// `[notify]`
#[derive(Debug)]
pub struct Notify {
    /// A URL to be asked for.
    pub ping: Option<Secret>,
    /// A URL that gets JSON.
    pub webhook: Option<Secret>,
    /// A program that gets JSON.
    pub command: Option<Command>,
    /// What webhook and command hear of.
    pub on: Vec<NotifyOn>,
    /// How long each may take.
    pub timeout: Duration,
}

/// The text file of `[metrics]`.
pub(super) fn metrics<'a>(draft: &'a Draft<'a>, section: &mut Section<'a>) -> Option<PathBuf> {
    let mut section = table(draft, "metrics", section)?;
    let options: MetricsOptions = section.options()?;
    let path = options.textfile.into_inner();
    // The collector reads no others, and says nothing of them.
    if path.extension().is_none_or(|ending| ending != "prom") {
        let problem =
            Problem::new(section.value("textfile"), "node exporter reads only files whose names end in `.prom`");
        draft.report(problem.help("write a name such as \"/var/lib/prometheus/node-exporter/cdrvault.prom\""));
    }
    Some(path)
}

/// `[notify]`, where there is one.
pub(super) fn notify<'a>(draft: &'a Draft<'a>, section: &mut Section<'a>) -> Option<Notify> {
    let mut section = table(draft, "notify", section)?;
    let NotifyOptions { ping, webhook, command, on, timeout } = section.options()?;
    if ping.is_none() && webhook.is_none() && command.is_none() {
        let problem = Problem::new(section.span(), "`[notify]` names no recipient");
        draft.report(problem.help("add `ping`, `webhook` or `command`, or remove the table"));
    }
    if on.is_empty() {
        let problem = Problem::new(section.value("on"), "the webhook and the command are never used");
        draft.report(
            problem.help(
                "write some of \"start\", \"success\", \"partial\", \"failure\", \"overdue\", \"damage\", \"data\"",
            ),
        );
    }
    Some(Notify { ping, webhook, command, on, timeout: timeout.to_duration() })
}

/// The section of a table at the root of the file.
pub(super) fn table<'a>(draft: &'a Draft<'a>, word: &'static str, root: &mut Section<'a>) -> Option<Section<'a>> {
    let field = root.take_raw(word)?;
    Some(Section::new(draft, word, word, format!("[{word}]"), field.key_span, Body::of(field.value)))
}
