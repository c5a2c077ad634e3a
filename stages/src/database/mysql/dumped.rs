//! A dump is given to the server, line by line.

use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::payload::{Body, ObjectStream, file_stream};
use cdrvault_pipeline::target::TargetOptions;
use futures::TryStreamExt as _;

use super::wire::Server;
use crate::dump::{ACCOUNTS, COMPLETE};

/// Runs the statements of a dump. Its content must have been compared with its receipt.
pub(super) async fn restore(
    cx: &Context,
    server: &Server,
    options: &TargetOptions,
    mut objects: ObjectStream,
) -> Result<()> {
    let object = objects.try_next().await?.ok_or_else(|| Error::new(Kind::Damaged, "there is no dump"))?;
    let mut bytes = match object.body {
        Body::Stream(bytes) => bytes,
        Body::File(path) => file_stream(&path)?,
        Body::None | Body::Unchanged | Body::Withdrawn => {
            return Err(Error::new(Kind::Damaged, "the dump has no body"));
        }
    };
    let mut client = server.client()?;
    let mut lines = Lines { options, unfinished: Vec::new(), accounts: false, complete: false };
    let mut reads = true;
    while let (true, Some(piece)) = (reads, cx.unless_cancelled(bytes.try_next()).await?) {
        let whole = lines.take(&piece);
        reads = client.write(cx, &whole).await?;
    }
    client.finish(cx).await?;
    if lines.complete {
        Ok(())
    } else {
        Err(Error::new(Kind::Damaged, "the dump has no closing line: it is not whole"))
    }
}

struct Lines<'a> {
    options: &'a TargetOptions,
    unfinished: Vec<u8>,
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
            self.accounts |= line.starts_with(ACCOUNTS.as_bytes());
            self.complete |= line.starts_with(COMPLETE.as_bytes());
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
    let text = String::from_utf8_lossy(line);
    let Some(options) = text.trim_end().strip_suffix(';') else { return line.to_vec() };
    if !options.to_ascii_lowercase().starts_with(") engine=tokudb") {
        return line.to_vec();
    }
    let of_tokudb = |option: &&str| {
        let option = option.to_ascii_lowercase();
        ["engine=tokudb", "row_format=tokudb", "`compression`="].iter().any(|own| option.starts_with(own))
    };
    let kept: Vec<&str> = words(options).into_iter().filter(|option| !of_tokudb(option)).collect();
    format!("{};\n", kept.join(" ")).into_bytes()
}

/// Parts at the spaces outside of quoted text. A doubled quote ends and begins again, which comes to the same.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'\'' => quoted = !quoted,
            b' ' if !quoted => {
                words.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    words.push(&text[from..]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokudb_becomes_the_default_engine() {
        let of = |line: &str| String::from_utf8(without_engine(line.as_bytes())).unwrap();
        assert_eq!(
            of(
                ") ENGINE=TokuDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4 ROW_FORMAT=TOKUDB_ZLIB `compression`='tokudb_zlib';\n"
            ),
            ") AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4;\n"
        );
        assert_eq!(of(") ENGINE=TokuDB COMMENT='engine=tokudb; x';\n"), ") COMMENT='engine=tokudb; x';\n");
        assert_eq!(
            of(") ENGINE=TokuDB COMMENT='it''s \\' x' `compression`='tokudb_zlib';\n"),
            ") COMMENT='it''s \\' x';\n"
        );
        assert_eq!(of(") ENGINE=InnoDB;\n"), ") ENGINE=InnoDB;\n");
    }
}
