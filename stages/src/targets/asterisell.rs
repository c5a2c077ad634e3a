//! Days as the files that Asterisell itself backs up and imports.
//!
//! Its jobs `BackupCDRS` and `BackupSourceCDRS` (<https://github.com/massimo-zaniboni/asterisell-v5>,
//! `apps/asterisell/lib/jobs/data_backup`) read every file two directories below `cdrs` and `source-cdrs`, by a `LOAD DATA`
//! in UTF-8 with `\r\n` at the end of lines. It goes by position: the columns are those of the job's own version, without `id`.

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::facts::FactGatherer;
use cdrvault_format::manifest::{ColumnInfo, Holding, Manifest};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::Payload;
use cdrvault_plugin::target::{Restored, Target};
use futures::TryStreamExt as _;

use super::csv::{push, push_raw, put};
use super::load_data::{Written, base, is_odd};
use super::names::table_of;
use super::unfinished::Unfinished;
use crate::cells::{Cell, Rows};

/// What release 6 reads, in its order.
const TABLES: [(&str, &str, &[&str]); 2] = [
    (
        "ar_cdr",
        "cdrs",
        &[
            "calldate",
            "is_service_cdr",
            "to_calldate",
            "count_of_calls",
            "destination_type",
            "is_redirect",
            "duration",
            "billsec",
            "ar_organization_unit_id",
            "cached_parent_id_hierarchy",
            "billable_ar_organization_unit_id",
            "bundle_ar_organization_unit_id",
            "income",
            "cost_saving",
            "ar_vendor_id",
            "ar_communication_channel_type_id",
            "cost",
            "expected_cost",
            "ar_telephone_prefix_id",
            "cached_external_telephone_number",
            "external_telephone_number_with_applied_portability",
            "cached_masked_external_telephone_number",
            "error_destination_type",
            "ar_problem_duplication_key",
            "debug_cost_rate",
            "debug_income_rate",
        ],
    ),
    ("ar_source_cdr", "source-cdrs", &["ar_cdr_provider_id", "ar_physical_format_id", "calldate", "content"]),
];

/// See the module.
pub(super) struct Asterisell {
    root: PathBuf,
    /// The columns of another version, by table.
    columns: BTreeMap<String, Vec<String>>,
}

impl Asterisell {
    pub(super) fn new(root: PathBuf, columns: &BTreeMap<String, Vec<String>>) -> Result<Self> {
        if let Some(table) = columns.keys().find(|name| !TABLES.iter().any(|(table, ..)| table == name)) {
            return Err(Error::new(Kind::Config, format!("the application imports no files of `{table}`"))
                .hint("--columns is for ar_cdr and ar_source_cdr"));
        }
        Ok(Self { root, columns: columns.clone() })
    }

    /// The name of its files, and the columns in their order.
    fn form(&self, manifest: &Manifest) -> Result<(&'static str, Vec<ColumnInfo>)> {
        let table = table_of(manifest)?;
        let Some((_, name, own)) = TABLES.iter().find(|(own, ..)| *own == table) else {
            return Err(Error::new(Kind::Refused, format!("the application imports no files of `{table}`"))
                .hint("name flows of ar_cdr and ar_source_cdr by --flow; `csv:DIRECTORY` takes every table"));
        };
        let wanted: Vec<&str> = match self.columns.get(table) {
            Some(named) => named.iter().map(String::as_str).collect(),
            None => own.to_vec(),
        };
        let saved = |name: &str| manifest.columns.iter().find(|column| column.name == name);
        let missing: Vec<&str> = wanted.iter().copied().filter(|name| saved(name).is_none()).collect();
        if !missing.is_empty() {
            let more: Vec<&str> = manifest
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .filter(|name| !wanted.contains(name))
                .collect();
            let message = format!(
                "{} was saved without `{}`, which the import would read; it was saved with `{}` besides",
                manifest.unit,
                missing.join("`, `"),
                more.join("`, `")
            );
            let hint =
                format!("--columns {table}=COLUMN,... names what your version of the application reads, in its order");
            return Err(Error::new(Kind::Refused, message).hint(hint));
        }
        let columns: Vec<ColumnInfo> = wanted.iter().filter_map(|name| saved(name)).cloned().collect();
        let strange = columns.iter().find(|column| {
            let base = base(&column.sql_type);
            match Written::of(column) {
                Written::Plain => false,
                Written::Number => true,
                Written::Hex => !base.ends_with("binary") && !base.ends_with("blob"),
            }
        });
        if let Some(strange) = strange {
            let message = format!("`{}` is {}, which the import cannot read", strange.name, strange.sql_type);
            return Err(Error::new(Kind::Refused, message).hint("restore into a database, or into `csv:DIRECTORY`"));
        }
        Ok((name, columns))
    }

    fn path_of(&self, name: &str, manifest: &Manifest) -> Result<PathBuf> {
        match manifest.unit.partition {
            Partition::Day(day) => Ok(self
                .root
                .join(name)
                .join(format!("y_{:04}", day.year()))
                .join(format!("m_{:02}", day.month()))
                .join(format!("{name}-{day}.csv"))),
            _ => Err(Error::new(
                Kind::Refused,
                format!("{} has no day, and no file in the application's form", manifest.unit),
            )
            .hint("leave it out by a range, --from --to, and restore it into a database or `csv:DIRECTORY`")),
        }
    }
}

#[async_trait]
impl Target for Asterisell {
    fn describe(&self) -> String {
        format!("csv-asterisell:{}", self.root.display())
    }

    fn takes(&self, holding: Holding) -> bool {
        holding == Holding::Rows
    }

    async fn check(&self, _cx: &Context, wanted: &[Manifest]) -> Result<Vec<String>> {
        let mut left_out = BTreeMap::<String, Vec<String>>::new();
        for manifest in wanted {
            let (name, columns) = self.form(manifest)?;
            self.path_of(name, manifest)?;
            let path = self.root.join(name);
            // The application would read every file there, so that nothing else may lie beside ours.
            if path.symlink_metadata().is_ok() && !Unfinished::of(&self.root).is_there()? {
                return Err(Error::new(Kind::Refused, format!("{} is there already", path.display()))
                    .hint("name an empty directory, or a new one"));
            }
            let others =
                manifest.columns.iter().filter(|saved| !columns.iter().any(|column| column.name == saved.name));
            let others: Vec<String> = others.map(|column| format!("`{}`", column.name)).collect();
            let table = table_of(manifest)?.to_owned();
            if left_out.get(&table).is_none_or(|known| known.len() < others.len()) {
                left_out.insert(table, others);
            }
        }
        let told = left_out.iter().filter(|(_, others)| !others.is_empty()).map(|(table, others)| {
            format!("the import of `{table}` does not read {}: they are left out", others.join(", "))
        });
        Ok(told.collect())
    }

    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored> {
        let Payload::Rows(mut rows) = payload else {
            return Err(Error::new(Kind::Refused, "the asterisell target takes rows, not files"));
        };
        let (name, columns) = self.form(manifest)?;
        let path = self.path_of(name, manifest)?;
        let mut above = path.clone();
        above.pop();
        durable::create_dirs(&self.root, &How::private())?;
        Unfinished::of(&self.root).begin()?;
        durable::create_dirs(&above, &How::private())?;
        // Of a restore that was killed; the application would read them.
        durable::remove_temporaries(&above)?;
        let mut file = tempfile::tempfile_in(&above).map_err(|error| Error::io("write in", &above, error))?;
        let mut facts = FactGatherer::new(&rows.schema, &rows.about.renumbered);
        while let Some(batch) = cx.unless_cancelled(rows.batches.try_next()).await? {
            tokio::task::block_in_place(|| {
                facts.add(&batch)?;
                file.write_all(&lines(&batch, &columns)?).map_err(|error| Error::io("write", &path, error))
            })?;
            cx.progress.read(&manifest.unit, batch.num_rows() as u64, 0);
        }
        if !manifest.tells_of(&facts.finish()) {
            return Err(Error::new(Kind::Damaged, format!("{} has other rows than its receipt tells", manifest.unit)));
        }
        tokio::task::block_in_place(|| {
            put(&path, || {
                file.rewind().and_then(|()| file.try_clone()).map_err(|error| Error::io("write", &path, error))
            })
        })
    }

    async fn finish(&self, _cx: &Context, restored: &[Manifest], complete: bool) -> Result<Vec<String>> {
        if complete {
            Unfinished::of(&self.root).end()?;
        }
        let hint = "the import adds to what is in its tables and gives new ids: empty the days first, and rate them again after it";
        Ok((!restored.is_empty()).then(|| hint.to_owned()).into_iter().collect())
    }
}

fn lines(batch: &RecordBatch, columns: &[ColumnInfo]) -> Result<Vec<u8>> {
    let rows = Rows::of(batch, columns.iter().map(|column| column.name.as_str()))?;
    let mut out = Vec::new();
    for row in 0..batch.num_rows() {
        let raw = rows.raw(row)?;
        for (index, (column, cells)) in columns.iter().zip(rows.columns()).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let lost = || {
                let message =
                    format!("a value of `{}` is not valid UTF-8, and the import would change it", column.name);
                Error::new(Kind::Refused, message).hint("restore the day into a database, or into `csv:DIRECTORY`")
            };
            match (raw.get(column.name.as_str()), cells.get(row)) {
                (Some(_), _) if is_odd(column) => return Err(lost()),
                (Some(bytes), _) => push_raw(&mut out, bytes, base(&column.sql_type))?,
                (None, Cell::Bytes(bytes))
                    if Written::of(column) == Written::Hex && std::str::from_utf8(bytes).is_err() =>
                {
                    return Err(lost());
                }
                (None, cell) => push(&mut out, cell, base(&column.sql_type)),
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}
