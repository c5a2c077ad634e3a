//! Tables as CSV files, and the script that loads them.
//!
//! <https://mariadb.com/kb/en/load-data-infile/>: fields end with a comma, text is enclosed in double quotes, a backslash
//! escapes, NULL is `\\N`. Text is UTF-8, and bytes are hexadecimal digits. A row that has a value which cannot stand so in
//! a file is among the first of its file, as near to it as can be; the script leaves those out and inserts them instead.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::facts::FactGatherer;
use cdrvault_format::manifest::{Holding, Manifest};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::Payload;
use cdrvault_plugin::target::{Restored, Target};
use futures::TryStreamExt as _;
use tokio::sync::Mutex;

use super::load_data::{self, Written, base};
use super::names::table_of;
use super::unfinished::Unfinished;
use crate::blocking::CHUNK;
use crate::cells::{Cell, Rows, decimal, push_date, push_datetime, push_time, stored_date, uuid};

/// See the module.
pub(super) struct Csv {
    root: PathBuf,
    /// What loads the files that are there, by table.
    scripts: Mutex<BTreeMap<String, File>>,
}

impl Csv {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, scripts: Mutex::default() }
    }

    fn unfinished(&self, table: &str) -> Unfinished {
        Unfinished::of(&self.root.join(table))
    }

    /// Folders and names are those of the application's own backup.
    fn path_of(&self, manifest: &Manifest) -> Result<PathBuf> {
        let table = table_of(manifest)?;
        let directory = self.root.join(table);
        Ok(match manifest.unit.partition {
            Partition::Day(day) => directory
                .join(format!("y_{:04}", day.year()))
                .join(format!("m_{:02}", day.month()))
                .join(format!("{table}-{day}.csv")),
            other => {
                directory.join(format!("{table}-{}.csv", if other == Partition::Undated { "undated" } else { "all" }))
            }
        })
    }
}

#[async_trait]
impl Target for Csv {
    fn describe(&self) -> String {
        format!("csv:{}", self.root.display())
    }

    fn takes(&self, holding: Holding) -> bool {
        holding == Holding::Rows
    }

    async fn check(&self, _cx: &Context, wanted: &[Manifest]) -> Result<Vec<String>> {
        for manifest in wanted {
            let table = table_of(manifest)?;
            let path = self.root.join(table);
            if path.symlink_metadata().is_ok() && !self.unfinished(table).is_there()? {
                return Err(Error::new(Kind::Refused, format!("{} is there already", path.display()))
                    .hint("name an empty directory, or a new one"));
            }
        }
        Ok(Vec::new())
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        let Payload::Rows(mut rows) = payload else {
            return Err(Error::new(Kind::Refused, "the csv target takes rows, not files"));
        };
        let (path, table) = (self.path_of(manifest)?, table_of(manifest)?);
        let mut above = path.clone();
        above.pop();
        durable::create_dirs(&above, &How::private())?;
        self.unfinished(table).begin()?;
        let temporary = || tempfile::tempfile_in(&above).map_err(|error| Error::io("write in", &above, error));
        let failed = |error| Error::io("write", &path, error);
        let (mut first, mut others, mut inserts, mut odd) = (temporary()?, temporary()?, temporary()?, 0);
        let mut facts = FactGatherer::new(&rows.schema, &rows.about.renumbered);
        while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
            tokio::task::block_in_place(|| {
                facts.add(&batch)?;
                let lines = lines(&batch, manifest)?;
                odd += lines.odd;
                first.write_all(&lines.first).map_err(failed)?;
                others.write_all(&lines.others).map_err(failed)?;
                inserts.write_all(lines.inserts.as_bytes()).map_err(failed)
            })?;
            cx.progress.read(&manifest.unit, batch.num_rows() as u64, 0);
        }
        if !manifest.tells_of(&facts.finish()) {
            return Err(Error::new(Kind::Damaged, format!("{} has other rows than its receipt tells", manifest.unit)));
        }
        let restored = tokio::task::block_in_place(|| {
            put(&path, || {
                first.rewind().and_then(|()| others.rewind()).map_err(failed)?;
                let again = |file: &File| file.try_clone().map_err(failed);
                Ok(again(&first)?.chain(again(&others)?))
            })
        })?;
        let mut scripts = self.scripts.lock().await;
        let script = match scripts.entry(table.to_owned()) {
            std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::btree_map::Entry::Vacant(none) => none.insert(temporary()?),
        };
        let load = load_data::load(&path.display().to_string(), table, &manifest.columns, odd);
        tokio::task::block_in_place(|| {
            script.write_all(load.as_bytes())?;
            inserts.rewind()?;
            std::io::copy(&mut inserts, script)
        })
        .map_err(failed)?;
        Ok(restored)
    }

    /// How the files are loaded, for those who do it by hand.
    async fn finish(&self, _cx: &Context, _restored: &[Manifest], complete: bool) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        for (table, mut statements) in std::mem::take(&mut *self.scripts.lock().await) {
            let script = self.root.join(&table).join("LOAD.sql");
            durable::replace(&script, &How::private(), |file| {
                statements.rewind()?;
                file.write_all(load_data::SESSION.as_bytes())?;
                std::io::copy(&mut statements, file).map(drop)
            })?;
            if complete {
                self.unfinished(&table).end()?;
            }
            remarks.push(format!("{} loads these files", script.display()));
        }
        Ok(remarks)
    }
}

/// Makes a file of what can be read more than once, where there is none; one that is there must have the same bytes.
pub(super) fn put<R: Read>(path: &Path, mut wanted: impl FnMut() -> Result<R>) -> Result<Restored> {
    if path.symlink_metadata().is_ok() {
        if is_same(path, &mut wanted()?)? {
            return Ok(Restored::Same);
        }
        return Err(Error::new(Kind::Refused, format!("{} is there already, with other content", path.display()))
            .hint("name an empty directory, or a new one"));
    }
    let mut bytes = wanted()?;
    durable::create(path, &How::private(), |file| std::io::copy(&mut bytes, file).map(drop))?;
    Ok(Restored::Written)
}

/// Whether a file has these bytes.
fn is_same(path: &Path, wanted: &mut impl Read) -> Result<bool> {
    let failed = |error| Error::io("read", path, error);
    if !path.symlink_metadata().map_err(failed)?.is_file() {
        return Ok(false);
    }
    let mut there = std::io::BufReader::new(File::open(path).map_err(failed)?);
    let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let count = wanted.read(&mut ours).map_err(failed)?;
        let Some((ours, theirs)) = ours.get(..count).zip(theirs.get_mut(..count)) else { return Ok(false) };
        if count == 0 {
            return Ok(there.read(&mut [0]).map_err(failed)? == 0);
        }
        match there.read_exact(theirs) {
            Ok(()) if ours == theirs => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The rows of a batch.
#[derive(Default)]
struct Lines {
    /// Those that `LOAD DATA` would not read as they are meant.
    first: Vec<u8>,
    odd: u64,
    others: Vec<u8>,
    /// What is run for the first ones.
    inserts: String,
}

fn lines(batch: &RecordBatch, manifest: &Manifest) -> Result<Lines> {
    let columns = &manifest.columns;
    let rows = Rows::of(batch, columns.iter().map(|column| column.name.as_str()))?;
    // What SQLite held in a column of another type is its literal.
    let own = manifest.origin.source.starts_with("mysql:");
    let mut lines = Lines::default();
    for row in 0..batch.num_rows() {
        let raw = rows.raw(row)?;
        let odd =
            own && columns.iter().any(|column| load_data::is_odd(column) && raw.contains_key(column.name.as_str()));
        if odd {
            lines.odd += 1;
            lines.inserts += &load_data::insert(table_of(manifest)?, columns, &rows, row)?;
        }
        let out = if odd { &mut lines.first } else { &mut lines.others };
        for (index, (column, cells)) in columns.iter().zip(rows.columns()).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match (raw.get(column.name.as_str()), cells.get(row)) {
                (Some(bytes), _) => push_raw(out, bytes, base(&column.sql_type))?,
                (None, Cell::Bytes(bytes)) if Written::of(column) == Written::Hex => {
                    enclosed(out, hex::encode(bytes).as_bytes());
                }
                (None, cell) => push(out, cell, base(&column.sql_type)),
            }
        }
        out.push(b'\n');
    }
    Ok(lines)
}

pub(super) fn push(out: &mut Vec<u8>, cell: Cell<'_>, base: &str) {
    let mut text = String::new();
    match cell {
        Cell::Null => return out.extend_from_slice(b"\\N"),
        Cell::Int(micros) if base == "time" => push_time(&mut text, micros),
        Cell::Int(value) => return out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Cell::UInt(value) => return out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Cell::Float(value) => return out.extend_from_slice(format!("{:e}", f64::from(value)).as_bytes()),
        Cell::Double(value) => return out.extend_from_slice(format!("{value:e}").as_bytes()),
        Cell::Decimal128(digits, scale) => text = decimal(&digits.to_string(), scale),
        Cell::Decimal256(digits, scale) => text = decimal(&digits.to_string(), scale),
        Cell::Date(days) => push_date(&mut text, days),
        Cell::DateTime(micros) => push_datetime(&mut text, micros),
        Cell::Text(value) => return enclosed(out, value.as_bytes()),
        Cell::Bytes(bytes) if base == "uuid" => text = uuid(bytes),
        Cell::Bytes(bytes) => return enclosed(out, bytes),
    }
    enclosed(out, text.as_bytes());
}

pub(super) fn push_raw(out: &mut Vec<u8>, bytes: &[u8], base: &str) -> Result<()> {
    let unknown = || Error::new(Kind::Refused, "a saved value has a form that cannot stand in a CSV file");
    match base {
        "date" | "datetime" | "timestamp" => {
            enclosed(out, stored_date(bytes, base != "date").ok_or_else(unknown)?.as_bytes());
        }
        "set" => {
            let mask = bytes.try_into().map(u64::from_le_bytes).map_err(|_| unknown())?;
            out.extend_from_slice(mask.to_string().as_bytes());
        }
        _ => enclosed(out, bytes),
    }
    Ok(())
}

fn enclosed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0 => out.extend_from_slice(b"\\0"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.push(*other),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_form_of_load_data() {
        let of = |cell| {
            let mut out = Vec::new();
            push(&mut out, cell, "varchar");
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(Cell::Null), "\\N");
        assert_eq!(of(Cell::Text("a\"b\\c\r\nd\0")), "\"a\\\"b\\\\c\\r\\nd\\0\"");
        assert_eq!(of(Cell::Int(-5)), "-5");
        assert_eq!(of(Cell::Text("")), "\"\"");
    }
}
