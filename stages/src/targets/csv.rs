//! Tables as CSV files, in the form that the application's own import and `LOAD DATA` read.
//!
//! <https://mariadb.com/kb/en/load-data-infile/>: fields end with a comma, text is enclosed in double quotes, a backslash
//! escapes, NULL is `\\N`. Bytes stand there as they were stored, so that they are to be loaded as `binary`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::durable::{self, How};
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::manifest::{ColumnInfo, Holding, Manifest};
use cdrvault_pipeline::partition::Partition;
use cdrvault_pipeline::payload::Payload;
use cdrvault_pipeline::target::{Restored, Target};
use futures::TryStreamExt as _;

use super::table_of;
use crate::cells::{Cell, Rows, decimal, push_date, push_datetime, push_time, stored_date, uuid};

/// See the module.
pub(super) struct Csv {
    root: PathBuf,
}

impl Csv {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where the application's own backup puts a day.
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
            let path = self.root.join(table_of(manifest)?);
            if path.symlink_metadata().is_ok() {
                return Err(Error::new(Kind::Refused, format!("{} is there already", path.display()))
                    .hint("name an empty directory, or a new one"));
            }
        }
        Ok(Vec::new())
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        let Payload::Rows(mut rows) = payload else {
            return Err(Error::new(Kind::Refused, "files are no tables"));
        };
        let path = self.path_of(manifest)?;
        let mut above = path.clone();
        above.pop();
        durable::create_dirs(&above, &How::private())?;
        let mut lines = tempfile::tempfile_in(&above).map_err(|error| Error::io("write in", &above, error))?;
        let mut text = Vec::new();
        while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
            text.clear();
            push_rows(&mut text, &batch, &manifest.columns)?;
            tokio::task::block_in_place(|| lines.write_all(&text)).map_err(|error| Error::io("write", &path, error))?;
            cx.progress.read(&manifest.unit, batch.num_rows() as u64, 0);
        }
        tokio::task::block_in_place(|| {
            use std::io::Seek as _;
            lines.rewind().map_err(|error| Error::io("write", &path, error))?;
            durable::create(&path, &How::private(), |file| std::io::copy(&mut lines, file).map(drop))
        })?;
        Ok(Restored::Written)
    }

    /// How the files are loaded, for those who do it by hand.
    async fn finish(&self, _cx: &Context, restored: &[Manifest], _complete: bool) -> Result<Vec<String>> {
        let mut statements: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for manifest in restored {
            let list: Vec<String> =
                manifest.columns.iter().map(|c| format!("`{}`", c.name.replace('`', "``"))).collect();
            let table = table_of(manifest)?;
            let script = self.root.join(table).join("LOAD.sql");
            let path = self.path_of(manifest)?.display().to_string().replace('\\', "\\\\").replace('\'', "''");
            statements.entry(script).or_default().insert(format!(
                "LOAD DATA LOCAL INFILE '{path}' INTO TABLE `{}` CHARACTER SET binary FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' \
                 ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({});\n",
                table.replace('`', "``"),
                list.join(", ")
            ));
        }
        let mode = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00';\n";
        for (script, lines) in &statements {
            durable::replace(script, &How::private(), |file| {
                file.write_all(mode.as_bytes())?;
                lines.iter().try_for_each(|line| file.write_all(line.as_bytes()))
            })?;
        }
        Ok(statements.keys().map(|script| format!("{} loads these files", script.display())).collect())
    }
}

fn push_rows(out: &mut Vec<u8>, batch: &RecordBatch, columns: &[ColumnInfo]) -> Result<()> {
    let rows = Rows::of(batch, columns.iter().map(|column| column.name.as_str()))?;
    for row in 0..batch.num_rows() {
        let raw = rows.raw(row)?;
        for (index, (column, cells)) in columns.iter().zip(rows.columns()).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let base = column.sql_type.split(['(', ' ']).next().unwrap_or_default();
            match raw.get(column.name.as_str()) {
                Some(bytes) => push_raw(out, bytes, base)?,
                None => push(out, cells.get(row), base),
            }
        }
        out.push(b'\n');
    }
    Ok(())
}

fn push(out: &mut Vec<u8>, cell: Cell<'_>, base: &str) {
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

fn push_raw(out: &mut Vec<u8>, bytes: &[u8], base: &str) -> Result<()> {
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
        assert_eq!(of(Cell::Text("a\"b\\c\nd\0")), "\"a\\\"b\\\\c\\nd\\0\"");
        assert_eq!(of(Cell::Int(-5)), "-5");
        assert_eq!(of(Cell::Text("")), "\"\"");
    }
}
