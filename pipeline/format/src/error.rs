//! The one error type of the pipeline: a kind for the program, a message for a person, and the next action.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::printable;

/// The result of everything that can fail in the pipeline.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the program may do about an error. Only what [`Kind::passes`] is ever retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It may work a moment later: a lost connection, a lock wait, a busy server.
    Transient,
    /// Somebody else is working on it, and we waited already: it may work later.
    Busy,
    /// The pipeline file, or what it points at, is wrong: no retry helps.
    Config,
    /// We will not do it, because it could lose or mix data.
    Refused,
    /// What was asked for is not there.
    NotFound,
    /// The other side knows us and says no.
    Denied,
    /// No room is left.
    NoSpace,
    /// Bytes are not what their checksum or their format says.
    Damaged,
    /// Somebody else changed what we were about to replace.
    Conflict,
    /// Another run is in progress.
    Locked,
    /// The user, or the system, asked us to stop.
    Interrupted,
    /// Anything else.
    Failed,
}

impl Kind {
    /// Whether trying again may help.
    pub fn passes(self) -> bool {
        matches!(self, Self::Transient | Self::Busy)
    }
}

/// An error: what went wrong, why, and what to do about it. Each is a text of one line, whatever others wrote that is in
/// it: see [`printable::line`].
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error with a message that says what and where.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Box::new(Inner { kind, message: one_line(message.into()), hint: None, source: None }) }
    }

    /// [`Kind::Failed`] with a message.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The same once more, without its source: for an error that several units share.
    #[must_use]
    pub fn copied(&self) -> Self {
        let mut copy = Self::new(self.kind(), self.one_line());
        if let Some(hint) = self.hint_text() {
            copy = copy.hint(hint.to_owned());
        }
        copy
    }

    /// [`Kind::Interrupted`], the same everywhere.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// An I/O error at a path; its kind follows from the operating system's answer.
    pub fn io(doing: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, hint) = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => {
                (Kind::NoSpace, Some("free some space there; the next run goes on where this one stopped"))
            }
            Io::PermissionDenied => {
                (Kind::Denied, Some("run as a user who may do it, or change the owner or the mode of the path"))
            }
            Io::ReadOnlyFilesystem => (Kind::Denied, Some("mount the file system read-write")),
            Io::NotFound => (Kind::NotFound, None),
            _ => (Kind::Failed, None),
        };
        let mut made = Self::new(kind, format!("cannot {doing} {}", path.display())).with_source(error);
        made.inner.hint = hint.map(Cow::Borrowed);
        made
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Adds what to do next, as an order to the reader.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.inner.hint = Some(one_line(hint.into()));
        self
    }

    /// Puts where it happened before the message.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.inner.message = one_line(format!("{place}: {}", self.inner.message).into());
        self
    }

    /// What the program may do about it.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The message alone, without causes.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// What to do next, where there is something.
    pub fn hint_text(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The message and its causes on one line; a cause that the message already tells is left out.
    pub fn one_line(&self) -> String {
        let mut line = self.inner.message.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string().trim().replace('\n', "; ");
            let text = printable::line(&text);
            if !line.contains(text.as_ref()) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}

fn one_line(text: Cow<'static, str>) -> Cow<'static, str> {
    match printable::line(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => Cow::Owned(escaped),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.inner.kind, self.one_line())?;
        match &self.inner.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// Puts a place before the message of an error.
pub trait At<T> {
    /// See [`Error::at`].
    fn at(self, place: impl fmt::Display) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, place: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.at(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_the_line_of_its_error() {
        let error = Error::new(Kind::Failed, "the server says: \u{1b}[31mno\nerror: all is lost")
            .with_source(std::io::Error::other("\u{1b}]0;title\u{7}"))
            .hint("ask\rit")
            .at("table `a\nb`");
        let expected = "table `a\\nb`: the server says: \\u{1b}[31mno\\nerror: all is lost";
        assert_eq!(error.message(), expected);
        assert_eq!(error.one_line(), format!("{expected}: \\u{{1b}}]0;title\\u{{7}}"));
        assert_eq!(error.hint_text(), Some("ask\\rit"));
    }
}
