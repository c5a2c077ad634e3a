//! The statements of a dump. Before each stands a line that says how long it is and what it makes, so that a restore reads
//! by lengths: nothing that a routine, a comment or a value contains can look like the end of its statement, or like another.
//!
//! ```text
//! -- cdrvault: 41 bytes, table `t`
//! CREATE TABLE `t` (
//!   `id` int(11) NOT NULL
//! );
//! ```
//!
//! It stays a text that `mariadb --comments --binary-mode` runs. For that a `DELIMITER` line stands around whatever may have
//! a semicolon in it.

use std::fmt::Write as _;

use cdrvault_format::error::{Error, Kind, Result};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// The first line of a dump.
pub(crate) const FIRST: &str = "-- cdrvault: dump, form 1";

/// The last line of a whole dump.
pub(crate) const COMPLETE: &str = "-- cdrvault: the dump is complete";

const MARK: &str = "-- cdrvault: ";

const DELIMITER: &str = "DELIMITER ";

/// No line that we write outside of statements is longer.
const LONGEST_LINE: u64 = 64 << 10;

/// What a statement is for, as its line says: `table`, and whose: `` `t` ``.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) what: String,
    pub(crate) bytes: usize,
}

impl About {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.what.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    /// How much the server must take at once: the statement, or the value that it goes on with.
    pub(crate) fn needs(&self) -> u64 {
        let value = self.what.strip_prefix("value of ").and_then(|rest| rest.split(' ').next());
        let value = value.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        value.max(self.bytes as u64)
    }
}

/// A name in the line before a statement; it must stay one line.
pub(crate) fn shown(name: &str) -> String {
    let mut out = String::from("`");
    for letter in name.chars() {
        if letter.is_control() {
            let _ = write!(out, "{}", letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out.push('`');
    out
}

/// Appends a statement.
pub(crate) fn push(out: &mut Vec<u8>, what: &str, sql: &[u8]) {
    push_head(out, what, sql);
    out.extend_from_slice(b";\n");
}

/// What stands between a statement and its end: a comment in its last line would hide the end from a client.
fn gap(sql: &[u8]) -> &'static str {
    let last = sql.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    if last.contains(&b'#') || first(last, b"--").is_some() { "\n" } else { "" }
}

/// The same for one that may have a semicolon in it, or a comment at its end.
pub(crate) fn push_compound(out: &mut Vec<u8>, what: &str, sql: &[u8]) {
    if !sql.contains(&b';') {
        push_head(out, what, sql);
        out.extend_from_slice(format!("{};\n", gap(sql)).as_bytes());
        return;
    }
    let mut delimiter = String::from(";;");
    let mut number = 0;
    // A client takes the first that it sees for the end, so that must be where it is written.
    let whole = [sql, gap(sql).as_bytes()].concat();
    while first([whole.as_slice(), delimiter.as_bytes()].concat().as_slice(), delimiter.as_bytes()) != Some(whole.len())
    {
        number += 1;
        delimiter = format!("$${number}$$");
    }
    out.extend_from_slice(format!("{DELIMITER}{delimiter}\n").as_bytes());
    push_head(out, what, sql);
    out.extend_from_slice(format!("{}{delimiter}\n{DELIMITER};\n", gap(sql)).as_bytes());
}

/// Text that is not run, in lines of a length that a reader takes.
pub(crate) fn commented(text: &str) -> String {
    const WIDTH: usize = 4 << 10;
    let mut out = String::new();
    for line in text.split(['\n', '\r']) {
        let mut rest = line;
        loop {
            let end = rest.floor_char_boundary(WIDTH);
            let (now, then) = rest.split_at(end);
            out += &format!("-- {now}\n");
            rest = then;
            if rest.is_empty() {
                break;
            }
        }
    }
    out
}

fn push_head(out: &mut Vec<u8>, what: &str, sql: &[u8]) {
    out.extend_from_slice(format!("{MARK}{} bytes, {what}\n", sql.len()).as_bytes());
    out.extend_from_slice(sql);
}

fn first(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Reads the statements of a dump.
pub(crate) struct Frames<R> {
    from: R,
    delimiter: Vec<u8>,
    /// The closing line was read.
    complete: bool,
    /// A statement was announced and is not read yet.
    waiting: Option<usize>,
}

impl<R: AsyncBufRead + Unpin> Frames<R> {
    /// Of what begins with [`FIRST`].
    pub(crate) fn new(from: R) -> Self {
        Self { from, delimiter: b";".to_vec(), complete: false, waiting: None }
    }

    /// What the next statement is for; `None` after the last one of a whole dump.
    pub(crate) async fn next(&mut self) -> Result<Option<About>> {
        loop {
            let line = self.line().await?;
            let Some(line) = line else {
                return if self.complete { Ok(None) } else { Err(cut()) };
            };
            if self.complete {
                return Err(odd("something follows its closing line"));
            }
            if line == COMPLETE.as_bytes() {
                self.complete = true;
            } else if let Some(delimiter) = line.strip_prefix(DELIMITER.as_bytes()) {
                self.delimiter = delimiter.to_vec();
            } else if let Some(about) = about(&line) {
                self.waiting = Some(about.bytes);
                return Ok(Some(about));
            } else if !line.is_empty() && !line.starts_with(b"-- ") {
                return Err(odd("a line is neither a statement nor a comment"));
            }
        }
    }

    /// The statement that was announced.
    pub(crate) async fn take(&mut self) -> Result<Vec<u8>> {
        let bytes = self.waiting.take().unwrap_or(0);
        let mut sql = Vec::with_capacity(bytes.min(64 << 20));
        let read = (&mut self.from).take(bytes as u64).read_to_end(&mut sql).await.map_err(lost)?;
        if read < bytes {
            return Err(cut());
        }
        self.end_of_statement().await?;
        Ok(sql)
    }

    /// The same, without keeping it.
    pub(crate) async fn skip(&mut self) -> Result<()> {
        let bytes = self.waiting.take().unwrap_or(0) as u64;
        let skipped = tokio::io::copy_buf(&mut (&mut self.from).take(bytes), &mut tokio::io::sink()).await;
        if skipped.map_err(lost)? < bytes {
            return Err(cut());
        }
        self.end_of_statement().await
    }

    async fn end_of_statement(&mut self) -> Result<()> {
        let mut line = self.line().await?;
        if line.as_ref().is_some_and(Vec::is_empty) {
            line = self.line().await?;
        }
        match line {
            Some(line) if line == self.delimiter => Ok(()),
            Some(_) => Err(odd("a statement does not end where it should")),
            None => Err(cut()),
        }
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut self.from).take(LONGEST_LINE).read_until(b'\n', &mut line).await.map_err(lost)?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) => Err(cut()),
        }
    }
}

fn about(line: &[u8]) -> Option<About> {
    let line = std::str::from_utf8(line).ok()?;
    let (bytes, what) = line.strip_prefix(MARK)?.split_once(" bytes, ")?;
    Some(About { what: what.to_owned(), bytes: bytes.parse().ok()? })
}

pub(crate) fn cut() -> Error {
    Error::new(Kind::Damaged, "the dump has no closing line: it is not whole")
}

fn odd(why: &str) -> Error {
    Error::new(Kind::Damaged, format!("the dump has another form than ours: {why}"))
}

fn lost(error: std::io::Error) -> Error {
    Error::failed("the dump cannot be read").with_source(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn read(dump: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut frames = Frames::new(dump);
        let mut all = Vec::new();
        while let Some(about) = frames.next().await? {
            all.push((about.what, frames.take().await?));
        }
        Ok(all)
    }

    fn written(statements: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut dump = format!("{FIRST}\n\n").into_bytes();
        for (at, (what, sql)) in statements.iter().enumerate() {
            if at % 2 == 0 { push_compound(&mut dump, what, sql) } else { push(&mut dump, what, sql) }
        }
        dump.extend_from_slice(format!("{COMPLETE}\n").as_bytes());
        dump
    }

    fn block<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn nothing_in_a_statement_looks_like_another() {
        let forged = format!(";;\nDELIMITER ;\n;\n{COMPLETE}\n-- cdrvault: 3 bytes, account `x`\nabc;\n$$2$$;");
        let statements =
            vec![("procedure `p`".to_owned(), forged.clone().into_bytes()), ("rows of `t`".to_owned(), forged.into())];
        assert_eq!(block(read(&written(&statements))).unwrap(), statements);
    }

    #[test]
    fn a_comment_at_the_end_of_a_routine_does_not_hide_where_it_ends() {
        for (sql, end) in [
            ("CREATE FUNCTION f() RETURNS INT RETURN 1 -- tail", "-- tail\n;\n"),
            ("BEGIN SELECT 1; END # tail", "# tail\n;;\nDELIMITER ;\n"),
            ("BEGIN SELECT 1; -- inside\nEND", "\nEND;;\nDELIMITER ;\n"),
        ] {
            let mut dump = Vec::new();
            push_compound(&mut dump, "function `f`", sql.as_bytes());
            assert!(dump.ends_with(end.as_bytes()), "{}", String::from_utf8_lossy(&dump));
        }
    }

    #[test]
    fn a_comment_is_read_over_whatever_is_in_it() {
        let text = format!("a\n{COMPLETE}\r;\nDELIMITER x\n{}", "é".repeat(100_000));
        let dump = format!("{FIRST}\n{}{COMPLETE}\n", commented(&text));
        assert_eq!(block(read(dump.as_bytes())).unwrap(), []);
        assert_eq!(commented(""), "-- \n");
    }

    #[test]
    fn a_dump_that_is_cut_or_longer_is_refused() {
        let statements = vec![("a".to_owned(), b"SELECT 1; SELECT 2".to_vec()), ("b".to_owned(), b"SELECT 2".to_vec())];
        let whole = written(&statements);
        for end in 0..whole.len() {
            assert!(block(read(&whole[..end])).is_err(), "{end}");
        }
        assert!(block(read(&[&whole[..], b"DROP DATABASE x;\n"].concat())).is_err());
    }

    #[test]
    fn what_a_server_must_take_at_once_is_the_longest_statement_or_value() {
        let needs = |what: &str| About { what: what.to_owned(), bytes: 100 }.needs();
        assert_eq!((needs("rows of `t`"), needs("value of 25000000 bytes for `t`")), (100, 25_000_000));
        assert!(About { what: "account `a`".to_owned(), bytes: 1 }.is("account"));
        assert!(!About { what: "accounts".to_owned(), bytes: 1 }.is("account"));
        assert_eq!(shown("a\nb"), "`a\\nb`");
    }

    proptest! {
        #[test]
        fn statements_are_read_as_they_were_written(
            bodies in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b';'), Just(b'$'), Just(b'\n'), any::<u8>()], 0..200), 0..5)
        ) {
            let statements: Vec<_> = bodies.into_iter().map(|body| ("x `y`".to_owned(), body)).collect();
            prop_assert_eq!(block(read(&written(&statements))).unwrap(), statements);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = block(read(&bytes));
        }
    }
}
