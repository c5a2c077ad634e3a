//! A source that reads one table by day, whichever database holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::{DayRange, Partition};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Payload, RowStream, RowsAbout, Shape};
use cdrvault_plugin::stage::{Ask, Candidate, Evidence, Read, Session, Snapshot, Source};
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::database::mysql::MySqlSession;
use crate::database::sqlite::SqliteSession;
use crate::database::tables::{Table, Tables, is_saved_as_text};

/// What is to be read.
#[derive(Debug, Clone)]
pub(crate) struct TableSpec {
    pub(crate) flow: String,
    pub(crate) table: &'static str,
    pub(crate) date_column: &'static str,
    /// The columns without which it is not the table we know.
    pub(crate) known: &'static [&'static str],
    /// The columns that the application renumbers without a change of content.
    pub(crate) renumbered: &'static [&'static str],
    /// Days before are not saved.
    pub(crate) since: Option<Date>,
    /// How decimals are stored that most readers have no type for.
    pub(crate) wide_decimals: WideDecimals,
    /// For readers of the stored objects.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// How decimals of more than 38 digits are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WideDecimals {
    /// As decimals of 256 bits.
    #[default]
    Decimal,
    /// As text, with all their digits.
    Text,
}

/// See the module.
struct TableSource<S: Tables> {
    spec: TableSpec,
    session: Arc<S>,
    table: OnceCell<Arc<Table<S::Reading>>>,
}

/// Makes the source for the kind of database that the session is of.
pub(crate) fn build(spec: TableSpec, session: Arc<dyn Session>) -> Result<Arc<dyn Source>> {
    let session: Arc<dyn std::any::Any + Send + Sync> = session;
    let session = match session.downcast::<MySqlSession>() {
        Ok(session) => return Ok(Arc::new(TableSource { spec, session, table: OnceCell::new() })),
        Err(session) => session,
    };
    match session.downcast::<SqliteSession>() {
        Ok(session) => Ok(Arc::new(TableSource { spec, session, table: OnceCell::new() })),
        Err(_) => Err(Error::failed(format!("flow `{}`: its database holds no tables", spec.flow))),
    }
}

impl<S: Tables> TableSource<S> {
    async fn table(&self, cx: &Context) -> Result<&Arc<Table<S::Reading>>> {
        self.table.get_or_try_init(|| self.describe_table(cx)).await
    }

    async fn describe_table(&self, cx: &Context) -> Result<Arc<Table<S::Reading>>> {
        let mut table = self.session.table(cx, self.spec.table, self.spec.date_column).await?;
        if self.spec.wide_decimals == WideDecimals::Text {
            table = S::with_decimals_as_text(table, |_| true);
        }
        let has: BTreeSet<&str> = table.columns.iter().map(|column| column.field.name().as_str()).collect();
        let missing: Vec<&str> = self.spec.known.iter().copied().filter(|name| !has.contains(name)).collect();
        if missing.is_empty() {
            return Ok(Arc::new(table));
        }
        Err(Error::new(
            Kind::Config,
            format!(
                "table `{}` of {} has no column `{}`",
                self.spec.table,
                self.session.identity(),
                missing.join("`, `")
            ),
        )
        .hint(
            "check that `url` names the database of the billing application, that its upgrade is complete, and that \
             SELECT is granted on the whole table",
        ))
    }

    /// The range of days that are saved at all, within another one.
    fn since(&self, range: DayRange) -> DayRange {
        DayRange { from: range.from.max(self.spec.since), to: range.to }
    }

    fn is_saved(&self, partition: Partition) -> bool {
        partition.day().is_none_or(|day| self.spec.since.is_none_or(|since| since <= day))
    }
}

#[async_trait]
impl<S: Tables> Source for TableSource<S> {
    fn emits(&self) -> Shape {
        Shape::Rows
    }

    fn describe(&self) -> String {
        format!("{}#{}", self.session.identity(), self.spec.table)
    }

    async fn check(&self, cx: &Context) -> Result<Vec<String>> {
        self.table(cx).await.map(|table| table.remarks.clone())
    }

    async fn discover(&self, cx: &Context, ask: &Ask) -> Result<Vec<Candidate>> {
        let table = self.table(cx).await?;
        let mut found: BTreeMap<Partition, Vec<Evidence>> = BTreeMap::new();
        if ask.events {
            let queued = self.session.queued(cx, &self.spec.flow).await?;
            for (partitions, evidence) in [(queued.announced, Evidence::Event), (queued.owed, Evidence::Debt)] {
                for partition in partitions {
                    found.entry(partition).or_default().push(evidence.clone());
                }
            }
        }
        let mut has_undated = None;
        if let Some(range) = ask.listing {
            let days = self.session.days(cx, table, self.since(range)).await?;
            let undated = (days.undated && range == DayRange::ALL).then_some(Partition::Undated);
            if range == DayRange::ALL {
                has_undated = Some(days.undated);
            }
            for partition in days.days.into_iter().map(Partition::Day).chain(undated) {
                found.entry(partition).or_default().push(Evidence::Exists);
            }
        }
        if let Some(wanted) = &ask.tripwire {
            let mut days: BTreeSet<Partition> = wanted.single.iter().copied().map(Partition::Day).collect();
            for range in &wanted.ranges {
                let there = self.session.days(cx, table, self.since(*range)).await?;
                days.extend(there.days.into_iter().map(Partition::Day));
                if *range == DayRange::ALL {
                    has_undated = Some(there.undated);
                }
            }
            if wanted.undated {
                let has = match has_undated {
                    Some(has) => has,
                    None => self.session.days(cx, table, self.since(DayRange::ALL)).await?.undated,
                };
                days.extend(has.then_some(Partition::Undated));
            }
            let default_weights: Vec<(String, i128)> = table
                .columns
                .iter()
                .filter_map(|column| Some((column.field.name().clone(), column.default_weight?)))
                .collect();
            for partition in days {
                cx.check()?;
                let mut now = self.session.tripwire(cx, table, partition).await?;
                now.sums.retain(|column, _| !self.spec.renumbered.contains(&column.as_str()));
                let default_weights = default_weights.clone();
                found.entry(partition).or_default().push(Evidence::Tripwire { now, default_weights });
            }
        }
        Ok(found
            .into_iter()
            .filter(|(partition, _)| self.is_saved(*partition))
            .map(|(partition, evidence)| Candidate { partition, evidence })
            .collect())
    }

    async fn read(&self, cx: &Context, from: &Arc<dyn Snapshot>, what: &Read) -> Result<Payload> {
        let table = if what.compared_with.is_empty() {
            Arc::clone(self.table(cx).await?)
        } else {
            let table = self.session.table(cx, self.spec.table, self.spec.date_column).await?;
            Arc::new(S::with_decimals_as_text(table, |name| is_saved_as_text(&what.compared_with, name)))
        };
        let about = RowsAbout {
            key: table.key.clone(),
            table: Some(table.info()),
            renumbered: self.spec.renumbered.iter().map(|name| (*name).to_owned()).collect(),
            columns: table.column_infos(),
            metadata: self.spec.metadata.clone(),
        };
        let schema = Arc::clone(&table.schema);
        let batches = self.session.rows(cx, from, table, what.partition).await?;
        Ok(Payload::Rows(RowStream { schema, about, batches }))
    }
}
