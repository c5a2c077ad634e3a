//! What a source needs of a database, whichever it is: its tables' columns, days, sums and rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{ColumnInfo, TableInfo};
use cdrvault_format::partition::{DayRange, Partition};
use cdrvault_format::raw::{RAW_COLUMN, raw_field};
use cdrvault_format::tripwire::Tripwire;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::stage::{Session, Snapshot};
use futures::stream::BoxStream;
use jiff::civil::Date;

/// A session that can read tables by day.
#[async_trait]
pub(crate) trait Tables: Session {
    /// What this database knows of a column beyond [`Column`]: how it is selected and decoded.
    type Reading: Send + Sync + 'static;

    /// The columns of a table, in the database's order, from its catalogue; generated columns are left out.
    async fn table(&self, cx: &Context, name: &str, date_column: &str) -> Result<Table<Self::Reading>>;

    /// The same table, of which those decimals of more than 38 digits are read as text that are wanted so.
    fn with_decimals_as_text(table: Table<Self::Reading>, wanted: impl Fn(&str) -> bool) -> Table<Self::Reading> {
        let _ = wanted;
        table
    }

    /// The days in the range that have rows, found by repeated `MIN(date) WHERE date >= next`.
    async fn days(&self, cx: &Context, table: &Table<Self::Reading>, range: DayRange) -> Result<Found>;

    /// The sums of one partition.
    async fn tripwire(&self, cx: &Context, table: &Table<Self::Reading>, partition: Partition) -> Result<Tripwire>;

    /// What stands in the flow's queue.
    async fn queued(&self, cx: &Context, flow: &str) -> Result<Queued>;

    /// The rows of one partition, sorted by the table's key, as many as the database says there are in the snapshot.
    async fn rows(
        &self,
        cx: &Context,
        from: &Arc<dyn Snapshot>,
        table: Arc<Table<Self::Reading>>,
        partition: Partition,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>>;
}

/// A table, as its database describes it today.
#[derive(Debug)]
pub(crate) struct Table<R> {
    pub(crate) name: String,
    /// The column whose day makes the partition.
    pub(crate) date_column: String,
    /// Whether that column may be NULL.
    pub(crate) date_nullable: bool,
    pub(crate) columns: Vec<Column<R>>,
    /// The columns of the primary key, or the date column alone.
    pub(crate) key: Vec<String>,
    /// The columns and `__raw`.
    pub(crate) schema: SchemaRef,
    /// What people should know of it on every run.
    pub(crate) remarks: Vec<String>,
}

/// An error where a column has the name of the one that we add.
pub(crate) fn check_names<R>(table: &str, columns: &[Column<R>]) -> Result<()> {
    if columns.iter().any(|column| column.field.name() == RAW_COLUMN) {
        let message =
            format!("table `{table}` has a column `{RAW_COLUMN}`: files keep what fits no column under this name");
        return Err(Error::new(Kind::Config, message)
            .hint("rename the column, or save the table by a flow with `source.dump`, which takes it as it is"));
    }
    Ok(())
}

/// Whether the digits of a decimal are saved as text.
pub(crate) fn is_saved_as_text(columns: &[ColumnInfo], name: &str) -> bool {
    columns
        .iter()
        .any(|saved| saved.name == name && saved.arrow_type == "Utf8" && saved.sql_type.starts_with("decimal("))
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(crate) struct Column<R> {
    pub(crate) field: Field,
    /// The database's full type.
    pub(crate) sql_type: String,
    /// What a row with the default adds to the column's tripwire sum, where that is known.
    pub(crate) default_weight: Option<i128>,
    pub(crate) reading: R,
}

impl<R> Table<R> {
    pub(crate) fn new(
        name: &str,
        date_column: &str,
        date_nullable: bool,
        columns: Vec<Column<R>>,
        mut key: Vec<String>,
    ) -> Self {
        if key.is_empty() {
            key.push(date_column.to_owned());
        }
        let table = Self {
            name: name.to_owned(),
            date_column: date_column.to_owned(),
            date_nullable,
            columns,
            key,
            schema: Arc::new(Schema::empty()),
            remarks: Vec::new(),
        };
        table.with_own_schema()
    }

    /// With the schema that its columns have by now.
    pub(crate) fn with_own_schema(mut self) -> Self {
        let fields = self.columns.iter().map(|column| column.field.clone()).chain([raw_field()]);
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self
    }

    pub(crate) fn info(&self) -> TableInfo {
        TableInfo { name: self.name.clone(), date_column: self.date_column.clone(), key: self.key.clone() }
    }

    pub(crate) fn column_infos(&self) -> Vec<ColumnInfo> {
        self.columns
            .iter()
            .map(|column| ColumnInfo {
                name: column.field.name().clone(),
                sql_type: column.sql_type.clone(),
                arrow_type: column.field.data_type().to_string(),
            })
            .collect()
    }
}

/// The days that a table has.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) days: Vec<Date>,
    /// Whether there are rows whose date is NULL or no real date.
    pub(crate) undated: bool,
}

/// What stands in a flow's queue.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    pub(crate) announced: BTreeSet<Partition>,
    pub(crate) owed: BTreeSet<Partition>,
}

/// A batch is handed on at this many rows ...
pub(crate) const BATCH_ROWS: usize = 8192;
/// ... or at this many bytes, whichever comes first.
pub(crate) const BATCH_BYTES: usize = 4 << 20;
