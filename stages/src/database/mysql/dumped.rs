//! A dump is given to the server, statement by statement.

use std::io::SeekFrom;
use std::path::PathBuf;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::failpoint;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Body, ByteStream, ObjectStream};
use cdrvault_plugin::target::TargetOptions;
use futures::TryStreamExt as _;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufReader};

use super::connect::{Target, execute, hang_up, query, query_integer, text, within};
use super::dumping::{
    About, COLLATION_OF_DATABASE, COMMENT_OF_DATABASE, FIRST, Frames, STATEMENT, with_collation, with_comment,
    with_definer, without_engine, without_values,
};
use super::error::explain;
use super::older;
use super::wire::Connection;

/// What the packet of a statement has besides the statement.
const AROUND: u64 = 1024;

/// Runs the statements of a dump; tells what a person should know. Its content must have been compared with its receipt.
pub(super) async fn restore(
    cx: &Context,
    target: &Target,
    options: &TargetOptions,
    mut objects: ObjectStream,
) -> Result<Vec<String>> {
    let object = objects.try_next().await?.ok_or_else(|| Error::new(Kind::Damaged, "there is no dump"))?;
    let mut dump = match object.body {
        Body::Stream(bytes) => spool(cx, bytes).await?,
        Body::File(path) => open(path).await?,
        Body::None | Body::Unchanged | Body::Withdrawn => {
            return Err(Error::new(Kind::Damaged, "the dump has no body"));
        }
    };
    let mut first = [0; FIRST.len()];
    let read = dump.read_exact(&mut first).await;
    rewind(&mut dump).await?;
    if read.is_err() || first != *FIRST.as_bytes() {
        let mut connection = target.connect(cx).await?;
        let needs = older::largest(cx, &mut dump).await?;
        let fitting = fits(cx, &mut connection, (needs, "its longest line")).await;
        hang_up(connection).await;
        fitting?;
        rewind(&mut dump).await?;
        older::restore(cx, &target.server, options, dump).await?;
        return Ok(Vec::new());
    }
    let mut connection = target.connect(cx).await?;
    let done = run(cx, &mut connection, options, dump).await;
    hang_up(connection).await;
    done
}

/// It is read twice, so it must lie somewhere; nobody else can open it there.
async fn spool(cx: &Context, mut bytes: ByteStream) -> Result<File> {
    let failed =
        |error| Error::io("write a dump in", &std::env::temp_dir(), error).hint("name another place by TMPDIR");
    let mut file = File::from_std(tempfile::tempfile().map_err(failed)?);
    while let Some(piece) = cx.unless_cancelled(bytes.try_next()).await? {
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    rewind(&mut file).await?;
    Ok(file)
}

async fn open(path: PathBuf) -> Result<File> {
    File::open(&path).await.map_err(|error| Error::io("open", &path, error))
}

async fn rewind(file: &mut File) -> Result<()> {
    let sought = file.seek(SeekFrom::Start(0)).await;
    sought.map(drop).map_err(|error| Error::failed("the dump cannot be read").with_source(error))
}

async fn run(
    cx: &Context,
    connection: &mut Connection,
    options: &TargetOptions,
    mut dump: File,
) -> Result<Vec<String>> {
    // Others that wait for a table wait until we give up.
    within(cx, STATEMENT, "begin", execute(connection, "SET SESSION lock_wait_timeout = 86400")).await?;
    // Nothing is dropped before it is known that what comes instead is whole, and that the server takes it.
    let (needs, whose) = largest(cx, &mut dump, options).await?;
    fits(cx, connection, (needs, &whose)).await?;
    rewind(&mut dump).await?;
    failpoint::hit("before-dump")?;
    let mut remarks = Vec::new();
    let mut frames = Frames::new(BufReader::new(dump));
    while let Some(about) = frames.next().await? {
        if about.is("account") && !options.accounts {
            frames.skip().await?;
            continue;
        }
        let mut sql = frames.take().await?;
        if about.is("database") && within(cx, STATEMENT, "begin", has(connection, &sql)).await? {
            continue;
        }
        if options.replace_engine && about.is("table") {
            sql = without_engine(sql);
        }
        if let Some(definer) = &options.definer {
            sql = with_definer(sql, definer);
        }
        let doing = format!("restore {}", about.what);
        let running =
            async { connection.execute(&sql).await.map_err(|failure| told(&about, explain(&doing, failure))) };
        match within(cx, STATEMENT, &doing, running).await {
            // All that is made says what it has; only what is made later takes these.
            Err(error) if about.is("database") && error.kind() == Kind::Denied => {
                let remark = "the database keeps its own default character set, collation and comment: the account may not ALTER it";
                if !remarks.iter().any(|said| said == remark) {
                    remarks.push(remark.to_owned());
                }
            }
            done => drop(done?),
        }
        // The server makes no event whose time has passed, and calls that a note.
        if about.is("event") {
            for row in within(cx, STATEMENT, &doing, query(connection, "SHOW WARNINGS")).await? {
                if text(&row, 1).as_deref() == Some("1588") {
                    remarks.push(format!("{}: {}", about.what, text(&row, 2).unwrap_or_default()));
                }
            }
        }
    }
    Ok(remarks)
}

/// Whether the database has the default or the comment that a statement gives it: that would wait for everyone who has
/// locked a table.
async fn has(connection: &mut Connection, statement: &[u8]) -> Result<bool> {
    let statement = statement.trim_ascii_end();
    let statement = statement.strip_suffix(b";").unwrap_or(statement);
    let collation = query(connection, COLLATION_OF_DATABASE).await?;
    // MySQL has no comments, and MariaDB since 10.5.
    let comment = query(connection, COMMENT_OF_DATABASE).await.unwrap_or_default();
    let collation = collation.first().and_then(|row| text(row, 0)).map(|collation| with_collation(&collation));
    let comment = comment.first().and_then(|row| text(row, 0)).map(|comment| with_comment(&comment));
    Ok(collation.into_iter().chain(comment).any(|there| there.as_bytes() == statement))
}

/// An error where the server would not take what a dump has.
async fn fits(cx: &Context, connection: &mut Connection, (needs, whose): (u64, &str)) -> Result<()> {
    let takes =
        within(cx, STATEMENT, "begin", query_integer(connection, "SELECT @@SESSION.max_allowed_packet")).await?;
    let takes = takes.and_then(|takes| u64::try_from(takes).ok()).unwrap_or(u64::MAX);
    if needs + AROUND <= takes {
        return Ok(());
    }
    let message = format!("the server takes {takes} bytes at once, and {whose} needs {needs}; nothing was changed");
    let wanted = (needs + AROUND).next_multiple_of(1 << 20);
    Err(Error::new(Kind::Refused, message).hint(format!("`SET GLOBAL max_allowed_packet = {wanted}`, and again")))
}

/// Reads all of a dump; tells what the server must take at once, and for what.
async fn largest(cx: &Context, dump: &mut File, options: &TargetOptions) -> Result<(u64, String)> {
    let mut frames = Frames::new(BufReader::new(dump));
    let mut largest = (0, "nothing".to_owned());
    while let Some(about) = frames.next().await? {
        cx.check()?;
        if about.needs() > largest.0 && (options.accounts || !about.is("account")) {
            largest = (about.needs(), about.what);
        }
        frames.skip().await?;
    }
    Ok(largest)
}

/// An error of the server without what was in rows.
fn told(about: &About, error: Error) -> Error {
    let of_rows = about.is("rows of") || about.is("value");
    let message = if of_rows { without_values(error.message()) } else { error.message().to_owned() };
    let lost_definer = ["1449)", "1227)"].iter().any(|number| message.ends_with(number));
    let said = Error::new(error.kind(), message);
    if lost_definer && !of_rows {
        return said.hint("its definer is missing here, or not ours to name: `--definer CURRENT_USER` makes the account of the restore its definer");
    }
    match error.hint_text() {
        Some(hint) => said.hint(hint.to_owned()),
        None => said,
    }
}
