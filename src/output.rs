//! What is written to the terminal, the mail of cron, and to scripts.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{LazyLock, OnceLock};

use cdrvault_format::error::{Error, Result};
use cdrvault_format::printable;
use cdrvault_plugin::options::{Problems, Severity};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::debug_fn;

use crate::globals::{Color, Globals, LogFormat};

/// The version of what `--json` writes; it grows when something is renamed or removed.
const SCHEMA_VERSION: u32 = 1;

/// Logs go to standard error: warnings by default, `-v` more, `-vv` all of ours.
pub(crate) fn start_logging(globals: &Globals) {
    let level = match (globals.quiet, globals.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        (_, 2) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::new(format!(
        "warn,sqlx=error,cdrvault={level},cdrvault_engine={level},cdrvault_plugin={level},cdrvault_stages={level},cdrvault_sinks={level}"
    ));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| AboveBars)
        .with_target(false)
        .with_ansi(colors(globals));
    match globals.log_format {
        LogFormat::Text => {
            // A line is one event, whatever is in it.
            let fields = debug_fn(|out, field, value| {
                let value = format!("{value:?}");
                match field.name() {
                    "message" => write!(out, "{}", printable::line(&value)),
                    name => write!(out, "{name}={}", printable::line(&value)),
                }
            });
            builder.fmt_fields(fields.delimited(" ")).without_time().init();
        }
        LogFormat::Json => {
            speak_json();
            builder.json().init();
        }
    }
}

/// Set once where machines read standard error: then every line there is JSON.
static JSON: OnceLock<()> = OnceLock::new();

/// From now on every line on standard error is JSON, that of a defect included.
pub(crate) fn speak_json() {
    if JSON.set(()).is_ok() {
        std::panic::set_hook(Box::new(|panic| say_json("ERROR", &panic.to_string(), None)));
    }
}

/// Whether machines read standard error.
pub(crate) fn speaks_json() -> bool {
    JSON.get().is_some()
}

/// A message as a line of JSON, in the form of the log's lines.
fn say_json(level: &str, message: &str, hint: Option<&str>) {
    #[derive(Serialize)]
    struct Said<'a> {
        timestamp: jiff::Timestamp,
        level: &'a str,
        fields: Fields<'a>,
    }
    #[derive(Serialize)]
    struct Fields<'a> {
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
    }
    let said = Said { timestamp: jiff::Timestamp::now(), level, fields: Fields { message: message.trim(), hint } };
    if let Ok(line) = serde_json::to_string(&said) {
        say(&(line + "\n"));
    }
}

/// The progress bars, which are hidden until [`crate::progress`] shows some.
pub(crate) static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));

/// Standard error, above the bars.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A message on standard error, above the bars. A reader that closed it does not want the rest.
fn say(text: &str) {
    let _ = AboveBars.write_all(text.as_bytes());
}

/// Whether standard error gets colours.
pub(crate) fn colors(globals: &Globals) -> bool {
    match globals.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()) && std::io::stderr().is_terminal(),
    }
}

/// Whether standard error is a terminal.
pub(crate) fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// An error, and what to do about it.
pub(crate) fn error(globals: &Globals, message: &str, hint: Option<&str>) {
    if speaks_json() {
        return say_json("ERROR", message, hint);
    }
    let (red, off) = if colors(globals) { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
    say(&format!("{red}error:{off} {}\n", printable::lines(message)));
    if let Some(hint) = hint {
        say(&format!("  {}\n", printable::lines(hint)));
    }
}

/// What somebody should know.
pub(crate) fn warning(globals: &Globals, message: &str) {
    if globals.quiet {
        return;
    }
    if speaks_json() {
        say_json("WARN", message, None);
    } else {
        let (yellow, off) = if colors(globals) { ("\u{1b}[1;33m", "\u{1b}[0m") } else { ("", "") };
        say(&format!("{yellow}warning:{off} {}\n", printable::lines(message)));
    }
}

/// A line on standard error, for those who look on.
pub(crate) fn note(message: &str) {
    if speaks_json() {
        return say_json("INFO", message, None);
    }
    say(&format!("{}\n", printable::lines(message)));
}

/// Everything that is wrong in a pipeline file.
pub(crate) fn problems(globals: &Globals, problems: &Problems) {
    if speaks_json() {
        for problem in problems {
            let level = if problems.severity() == Severity::Error { "ERROR" } else { "WARN" };
            let (line, column) = problems.position(problem);
            let place = format!("{}:{line}:{column}", problems.path().display());
            say_json(level, &format!("{place}: {}", problem.message), problem.help.as_deref());
        }
        return;
    }
    say(&problems.render(colors(globals)));
}

/// Why something did not reach standard output: the first reason. A reader that closed a pipe does not want the rest, which is
/// no reason.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Text on standard output, on a terminal perhaps.
pub(crate) fn text(text: &str) {
    write(&printable::lines(text));
}

/// What is lost of it, [`lost`] knows: no verb can forget to ask.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    note_loss(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// What the parser of arguments has to say: help and version on standard output, wrong usage on standard error.
pub(crate) fn parsed(message: &clap::Error) {
    let printed = message.print().and_then(|()| io::stdout().flush());
    if !message.use_stderr() {
        note_loss(printed);
    }
}

fn note_loss(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error);
    }
}

/// Why not all that was written to standard output has arrived.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// A value as JSON on standard output, with the version of its schema.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    write(&(serde_json::to_string_pretty(&Versioned::of(value)).map_err(no_json)? + "\n"));
    Ok(())
}

/// One event as a line of JSON on standard output.
pub(crate) fn event<T: Serialize>(name: &str, value: &T) -> Result<()> {
    #[derive(Serialize)]
    struct Event<'a, T> {
        event: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    write(&(json_line(&Event { event: name, value })? + "\n"));
    Ok(())
}

/// A value as JSON on one line, with the version of its schema.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(&Versioned::of(value)).map_err(no_json)
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Versioned<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    value: &'a T,
}

impl<'a, T> Versioned<'a, T> {
    fn of(value: &'a T) -> Self {
        Self { schema_version: SCHEMA_VERSION, value }
    }
}

fn no_json(error: serde_json::Error) -> Error {
    Error::failed("cannot write JSON").with_source(error)
}

/// A table without lines; the columns named by their index are numbers.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, numbers: &[usize]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable::line(cell)));
    }
    for number in numbers {
        if let Some(column) = table.column_mut(*number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Bytes, human-readable.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A word of a shell's command.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// How long ago, for a person to read.
pub(crate) fn ago(seconds: i64) -> String {
    match seconds {
        ..0 => "in the future".to_owned(),
        0..60 => format!("{seconds} s"),
        60..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `1 day`, `2 days`.
pub(crate) fn plural(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{} {what}s", count(number)) }
}
