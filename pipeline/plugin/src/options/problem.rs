//! What is wrong in a pipeline file, and how it is shown.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::mask::Masked;

/// One thing that is wrong in a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes of the file.
    pub span: Range<usize>,
    /// What is wrong, on one line, understandable without the file at hand.
    pub message: String,
    /// What the marked place is; may be empty.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Another place that explains this one, with its label.
    pub also: Option<(Range<usize>, String)>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), label: String::new(), help: None, also: None }
    }

    /// Says what the marked place is.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Marks another place that explains this one.
    #[must_use]
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }
}

/// Everything that is wrong in one file, in the order of the file. No secret is ever shown.
#[derive(Clone)]
pub struct Problems {
    path: PathBuf,
    text: Masked,
    severity: Severity,
    list: Vec<Problem>,
}

/// Whether a run may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It may not.
    Error,
    /// It may, but somebody should have a look.
    Warning,
}

impl Problems {
    /// `prose` are messages that hold nothing of the file's secrets.
    pub fn new(
        path: &Path,
        original: &str,
        text: Masked,
        severity: Severity,
        mut problems: Vec<Problem>,
        prose: &BTreeSet<String>,
    ) -> Self {
        for problem in &mut problems {
            let scrub = |said: &str| text.scrub(original, said, prose.contains(said));
            problem.message = scrub(&problem.message);
            problem.help = problem.help.take().map(|help| scrub(&help));
        }
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        problems.dedup();
        Self { path: path.to_owned(), text, severity, list: problems }
    }

    /// No problem of this file.
    pub fn none(path: &Path) -> Self {
        Self { path: path.to_owned(), text: Masked::new("", &[]), severity: Severity::Warning, list: Vec::new() }
    }

    /// The problems that an error of opening the file carries, if it is about the content of the file.
    pub fn of(error: &cdrvault_format::error::Error) -> Option<&Self> {
        std::error::Error::source(error).and_then(|source| source.downcast_ref())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a run may go on with them.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// Line and column of a problem, counted from 1, the column in characters.
    pub fn position(&self, problem: &Problem) -> (usize, usize) {
        self.text.position(problem.span.start)
    }

    /// Human-readable: each problem with its place, the line of the file, a caret and what to write instead.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let path = self.path.display().to_string();
        let shown: Vec<_> = self.list.iter().map(|problem| renderer.render(&[self.group(problem, &path)])).collect();
        shown.join("\n\n")
    }

    fn group<'a>(&'a self, problem: &'a Problem, path: &'a str) -> Group<'a> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mark = |kind: AnnotationKind, span: &Range<usize>, label: &'a str| {
            let annotation = kind.span(self.text.map(span));
            if label.is_empty() { annotation } else { annotation.label(label) }
        };
        let mut snippet = Snippet::source(self.text.as_str()).path(path).annotation(mark(
            AnnotationKind::Primary,
            &problem.span,
            &problem.label,
        ));
        if let Some((span, label)) = &problem.also {
            snippet = snippet.annotation(mark(AnnotationKind::Context, span, label));
        }
        let group = level.primary_title(problem.message.as_str()).element(snippet);
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One line for each: `file:line:column: message`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let (line, column) = self.position(problem);
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{line}:{column}: {}", self.path.display(), problem.message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for cdrvault_format::error::Error {
    /// The message counts the problems; [`Problems`] itself is the source, for callers that can show it in full.
    fn from(problems: Problems) -> Self {
        let message = match problems.len() {
            1 => format!("{} has 1 problem", problems.path.display()),
            count => format!("{} has {count} problems", problems.path.display()),
        };
        Self::new(cdrvault_format::error::Kind::Config, message).with_source(problems)
    }
}
