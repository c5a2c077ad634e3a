//! Dumps that earlier versions made by `mariadb-dump`, given to the system's client, line by line.

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::target::TargetOptions;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::client::Client;
use super::dumping::{COMPLETE, cut};
use super::wire::Server;
use crate::blocking::CHUNK;

/// The line that stands before the accounts of the database.
const ACCOUNTS: &str = "-- cdrvault: accounts of this database";

/// The last line of `mariadb-dump`, which stands before that.
const CLOSING: &[u8] = b"-- Dump completed";

/// Runs the statements of a dump.
pub(super) async fn restore(cx: &Context, server: &Server, options: &TargetOptions, mut dump: File) -> Result<()> {
    if options.definer.is_some() {
        return Err(Error::new(Kind::Refused, "this dump is of an earlier version, whose definers cannot be replaced")
            .hint("make the accounts that it names, or write it out with `--into dir:` and change it there"));
    }
    let mut client = Client(server).start()?;
    let mut lines = Lines { options, unfinished: Vec::new(), closed: false, accounts: false, complete: false };
    loop {
        let mut piece = Vec::with_capacity(CHUNK);
        let read = dump.read_buf(&mut piece).await;
        if read.map_err(|error| Error::failed("the dump cannot be read").with_source(error))? == 0 {
            break;
        }
        let whole = lines.take(&piece);
        if !client.write(cx, &whole).await? {
            break;
        }
    }
    client.finish(cx).await?;
    if lines.complete { Ok(()) } else { Err(cut()) }
}

/// How long its longest line is: rows are a line each statement. An error unless it is whole.
pub(super) async fn largest(cx: &Context, dump: &mut File) -> Result<u64> {
    let (mut longest, mut line, mut tail) = (0, 0, Vec::new());
    loop {
        cx.check()?;
        let mut piece = Vec::with_capacity(CHUNK);
        let read = dump.read_buf(&mut piece).await;
        if read.map_err(|error| Error::failed("the dump cannot be read").with_source(error))? == 0 {
            break;
        }
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            line += part.len() as u64;
            longest = longest.max(line);
            if part.ends_with(b"\n") {
                line = 0;
            }
        }
        tail.extend_from_slice(&piece);
        tail.drain(..tail.len().saturating_sub(COMPLETE.len() + 1));
    }
    if tail.trim_ascii_end() == COMPLETE.as_bytes() { Ok(longest) } else { Err(cut()) }
}

struct Lines<'a> {
    options: &'a TargetOptions,
    unfinished: Vec<u8>,
    /// The last line of `mariadb-dump` was the last that is not empty.
    closed: bool,
    /// What follows are accounts.
    accounts: bool,
    complete: bool,
}

impl Lines<'_> {
    /// The whole lines that are there by now, as they are to be run.
    fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        self.unfinished.extend_from_slice(piece);
        let end = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.unfinished.split_off(end);
        let whole = std::mem::replace(&mut self.unfinished, rest);
        let mut out = Vec::with_capacity(whole.len());
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            // A routine may have a line like it.
            self.accounts |= self.closed && line.starts_with(ACCOUNTS.as_bytes());
            self.complete |= line.starts_with(COMPLETE.as_bytes());
            self.closed = line.starts_with(CLOSING) || self.closed && line == b"\n";
            if self.accounts && !self.options.accounts {
                continue;
            }
            if self.options.replace_engine && line.starts_with(b") ENGINE=") {
                out.extend_from_slice(&without_engine(line));
            } else {
                out.extend_from_slice(line);
            }
        }
        out
    }
}

/// The end of a `CREATE TABLE` of TokuDB, with the options that only TokuDB knows taken out.
fn without_engine(line: &[u8]) -> Vec<u8> {
    match line.strip_suffix(b";\n") {
        Some(options) => {
            [super::dumping::without_engine([b"(", options].concat()).get(1..).unwrap_or_default(), b";\n"].concat()
        }
        None => line.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_routine_is_no_mark_of_the_accounts() {
        let options = TargetOptions::default();
        let mut lines =
            Lines { options: &options, unfinished: Vec::new(), closed: false, accounts: false, complete: false };
        let routine = format!("BEGIN\n{ACCOUNTS}\nSELECT 1;\nEND ;;\n");
        let closing = "-- Dump completed\n\n";
        let dump = format!("{routine}{closing}{ACCOUNTS}\nCREATE USER a;\n{COMPLETE}\n");
        assert_eq!(String::from_utf8(lines.take(dump.as_bytes())).unwrap(), format!("{routine}{closing}"));
        assert!(lines.complete);
    }

    #[test]
    fn tokudb_becomes_the_default_engine() {
        let of = |line: &str| String::from_utf8(without_engine(line.as_bytes())).unwrap();
        assert_eq!(
            of(") ENGINE=TokuDB AUTO_INCREMENT=5 ROW_FORMAT=TOKUDB_ZLIB COMMENT='it''s; x';\n"),
            ") AUTO_INCREMENT=5 COMMENT='it''s; x';\n"
        );
        assert_eq!(of(") ENGINE=InnoDB;\n"), ") ENGINE=InnoDB;\n");
    }
}
