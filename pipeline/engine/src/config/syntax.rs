//! Texts that are not TOML.

use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use cdrvault_plugin::options::Problem;
use cdrvault_plugin::options::mask::Masked;
use cdrvault_plugin::options::secret::FORMS;

/// What the TOML parser made of a text.
pub(super) struct Parsed<'a> {
    pub(super) root: Spanned<DeTable<'a>>,
    pub(super) problems: Vec<Problem>,
    /// The tables that are there for a second time.
    pub(super) twice: Vec<Range<usize>>,
    /// The shape of the file is known; only values, or keys that are there twice, are wrong.
    pub(super) sound: bool,
}

/// Parses a text, recovering from what is wrong. What messages repeat of it comes from `shown`.
pub(super) fn parse<'a>(text: &'a str, shown: &Masked) -> Parsed<'a> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut problems = Vec::new();
    let mut sound = true;
    let open: Vec<_> = errors.iter().filter_map(|error| open_value(text, root.get_ref(), error)).collect();
    for (span, mark) in &open {
        sound = false;
        let close = match *mark {
            "[" => "]",
            "{" => "}",
            quotes => quotes,
        };
        let problem = Problem::new(span.start..span.start + mark.len(), format!("nothing closes this `{mark}`"));
        problems.push(problem.help(format!("add `{close}` where it ends")));
    }
    // What was written twice, up to the next header, is wrong for that reason alone.
    let mut twice: Vec<Range<usize>> = Vec::new();
    let mut last_broken = None;
    for error in errors {
        let span = error.span().unwrap_or_default();
        // Whatever follows an open bracket is taken for a part of it.
        if open.iter().any(|(value, _)| value.start <= span.start && span.end <= value.end) {
            continue;
        }
        if twice.iter().any(|table| table.contains(&span.start)) {
            continue;
        }
        let (problem, local) = explain(text, shown, error.message(), span.clone());
        let start = line_start(text, span.start);
        if error.message() == "duplicate key" && text[start..].trim_start().starts_with('[') {
            let end = text[span.start..].find("\n[").map_or(text.len(), |next| span.start + next);
            twice.push(start..end);
        }
        // A line that is not TOML at all is wrong in more than one way.
        if !local && last_broken.replace(start) == Some(start) {
            continue;
        }
        sound &= local;
        problems.push(problem);
    }
    Parsed { root, problems, twice, sound }
}

/// The value that an error says is not closed, with the mark that opens it.
fn open_value<'a>(text: &'a str, root: &DeTable<'_>, error: &toml::de::Error) -> Option<(Range<usize>, &'a str)> {
    let message = error.message();
    if !(message.starts_with("unclosed ") || message.starts_with("invalid multi-line ")) {
        return None;
    }
    let end = error.span()?.start;
    let mut values = Vec::new();
    values_of(root, &mut values);
    let open = values.into_iter().filter(|span| span.end == end).filter_map(|span| {
        let marks = ["\"\"\"", "'''", "[", "{"];
        marks
            .into_iter()
            .find_map(|mark| Some((span.clone(), text[span.start..].get(..mark.len()).filter(|open| *open == mark)?)))
    });
    open.min_by_key(|(span, _)| span.start)
}

/// The places of all values, at any depth.
fn values_of(table: &DeTable<'_>, found: &mut Vec<Range<usize>>) {
    fn value(spanned: &Spanned<DeValue<'_>>, found: &mut Vec<Range<usize>>) {
        found.push(spanned.span());
        match spanned.get_ref() {
            DeValue::Array(array) => array.iter().for_each(|element| value(element, found)),
            DeValue::Table(table) => values_of(table, found),
            _ => {}
        }
    }
    table.values().for_each(|element| value(element, found));
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The parser's words in ours. The second is whether the error leaves the shape of the file known.
fn explain(text: &str, shown: &Masked, message: &str, span: Range<usize>) -> (Problem, bool) {
    let said = shown.get(&span);
    let (cause, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    match cause {
        "unexpected leading zero" => (leading_zero(text, shown, span), true),
        "duplicate key" => (duplicate(text, said, span), true),
        "string values must be quoted" if said.is_empty() => {
            (Problem::new(span, "the value is missing").help("write it after the `=`, or remove the key"), true)
        }
        "string values must be quoted" => (unquoted(said, span), true),
        "invalid boolean" => (
            Problem::new(span, format!("`{said}` is not a boolean")).help("write `true` or `false`, in small letters"),
            true,
        ),
        "invalid float" => {
            let help = match said.to_ascii_lowercase().as_str() {
                "no" | "n" => "write `false` for no, or put a text into quotes",
                _ => "write digits with a decimal point, or put a text into quotes",
            };
            (Problem::new(span, format!("`{said}` is not a number")).help(help), true)
        }
        "invalid basic string" | "invalid literal string" => {
            let quote = if cause.contains("basic") { '"' } else { '\'' };
            let help =
                format!("close the string with {quote}; a text of several lines stands between {quote}{quote}{quote}");
            (Problem::new(span, "the string does not end").label("here, at the latest").help(help), true)
        }
        "missing escaped value" | "invalid escape sequence" => {
            let help = "write `\\\\` for a backslash, or put the text into single quotes";
            (Problem::new(span, "a backslash begins an escape that does not exist").help(help), true)
        }
        "key with no value" | "invalid unquoted key" => {
            let line = &text[line_start(text, span.start)..];
            let line = &line[..line.find('\n').unwrap_or(line.len())];
            let help = match line.split_once(':') {
                Some((key, _)) if !key.contains(['=', '"']) => "write `key = value`: TOML has `=` where YAML has `:`",
                _ => "write `key = value`; a key has letters, digits, `-` and `_`",
            };
            (Problem::new(span, "this is not a key with a value").help(help), false)
        }
        "unclosed table" => (Problem::new(span, "nothing closes this `[`").help("add `]` after the name"), false),
        "missing comma between array elements" | "missing comma between key-value pairs" => (
            Problem::new(span, "a comma is missing")
                .label("before this")
                .help("separate what stands in brackets by commas"),
            false,
        ),
        "invalid date" | "invalid datetime" | "invalid time" => {
            let problem = Problem::new(span, format!("`{said}` is not a date")).help(match expected {
                "" => "write it as in \"2026-01-31\"".to_owned(),
                expected => format!("expected {expected}"),
            });
            (problem, true)
        }
        _ if expected.is_empty() || expected == "nothing" => (Problem::new(span, cause.to_owned()), false),
        _ => (Problem::new(span, cause.to_owned()).help(format!("expected {expected}")), false),
    }
}

fn leading_zero(text: &str, shown: &Masked, span: Range<usize>) -> Problem {
    let rest = &text[span.start..];
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let span = span.start..span.start + end;
    let digits = shown.get(&span);
    if is_masked(digits) {
        return Problem::new(span, "a secret that is not in quotes").help(FORMS);
    }
    Problem::new(span, format!("the number `{digits}` begins with a zero"))
        .label("would lose its zero")
        .help(format!("write it in quotes: \"{digits}\""))
}

fn is_masked(said: &str) -> bool {
    said.starts_with('*')
}

fn unquoted(said: &str, span: Range<usize>) -> Problem {
    if is_masked(said) {
        return Problem::new(span, "a secret that is not in quotes").help(FORMS);
    }
    let said = said.trim_end();
    let span = span.start..span.start + said.len();
    let (cause, help) = match said {
        "True" | "TRUE" | "yes" | "Yes" | "on" | "On" => {
            (format!("`{said}` is not a boolean"), "write `true`".to_owned())
        }
        "False" | "FALSE" | "No" | "off" | "Off" => (format!("`{said}` is not a boolean"), "write `false`".to_owned()),
        _ if said.contains(['"', '\'', '\u{201c}', '\u{201d}', '\u{201e}']) => {
            ("a text without its quotes".to_owned(), "write it in straight quotes: \"...\"".to_owned())
        }
        _ => (format!("the text `{said}` is not in quotes"), format!("write it in quotes: \"{said}\"")),
    };
    Problem::new(span, cause).help(help)
}

fn duplicate(text: &str, said: &str, span: Range<usize>) -> Problem {
    let start = line_start(text, span.start);
    let end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let line = text[start..end].trim();
    let (problem, first) = if line.starts_with('[') {
        let problem = Problem::new(span.clone(), format!("the table {} is there twice", header(line)));
        (
            problem.help("merge the two tables into one"),
            text[..start].lines().rfind(|other| header(other) == header(line)),
        )
    } else {
        let section = text[..start].rfind("\n[").map_or(0, |header| header + 1);
        let same = |other: &&str| other.split_once('=').is_some_and(|(key, _)| key.trim() == said);
        let problem = Problem::new(span.clone(), format!("the key `{said}` is there twice"));
        (problem.help("keep one of them"), text[section..start].lines().rfind(same))
    };
    // The first line is a part of the text: their distance in memory is that in the file.
    let place = first.map(|first| {
        let at = first.as_ptr().addr() - text.as_ptr().addr();
        let indent = first.len() - first.trim_start().len();
        at + indent..at + indent + if first.trim_start().starts_with('[') { header(first).len() } else { said.len() }
    });
    match place {
        Some(place) => problem.label("again").also(place, "first here"),
        None => problem.label("again"),
    }
}

/// `[a.b]` of `[a.b] # comment`
fn header(line: &str) -> &str {
    let line = line.trim();
    line.find(']').filter(|_| line.starts_with('[')).map_or("", |end| &line[..=end])
}
