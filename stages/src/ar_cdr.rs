//! The two CDR tables of Asterisell: `ar_cdr`, the rated calls, and `ar_source_cdr`, the calls as received.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdrvault_format::error::{Error, Result};
use cdrvault_plugin::options::{Day, Reference, Section, schema_of};
use cdrvault_plugin::payload::Shape;
use cdrvault_plugin::registry::{BuildSource, Plugin};
use cdrvault_plugin::stage::{Session, Source};
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::table::{self, TableSpec, WideDecimals};

/// `ar-cdr` and `ar-source-cdr`.
pub(crate) fn plugins() -> [Plugin<dyn BuildSource>; 2] {
    [
        Plugin {
            kind: "ar-cdr",
            about: "Asterisell's rated calls, table ar_cdr, by day",
            details: "Rating again gives every call of the range a new `id`; that alone is not a change. Money is stored as the \
                      database has it, an integer; `money-scale` tells readers where the point is.",
            schema: schema_of::<CdrOptions>,
            parse: parse_cdr,
        },
        Plugin {
            kind: "ar-source-cdr",
            about: "Asterisell's calls as received, table ar_source_cdr, by day",
            details: "The native text of each call is kept byte for byte, also where it is not valid UTF-8.",
            schema: schema_of::<SourceCdrOptions>,
            parse: parse_source_cdr,
        },
    ]
}

/// The rated calls.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct CdrOptions {
    /// The database of the application.
    database: Reference,
    /// The first day to save, as `"2015-01-01"`; every day by default.
    #[serde(default)]
    since: Option<Day>,
    /// The number of decimal places of money in this instance (Asterisell keeps it in its settings, not in the
    /// database; usually 4 or 6). It is written into the files for those who read them, and never applied.
    #[serde(default)]
    #[schemars(range(max = 18))]
    money_scale: Option<u8>,
    /// How decimals of more than 38 digits are stored, which the tables have only where somebody added such columns: `"decimal"`,
    /// or as `"text"` with all their digits, for readers that round such numbers (DuckDB). A day that is saved keeps its form
    /// until it is saved again.
    #[serde(default)]
    wide_decimals: WideDecimals,
}

/// The calls as received.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SourceCdrOptions {
    /// The database of the application.
    database: Reference,
    /// The first day to save, as `"2015-01-01"`; every day by default.
    #[serde(default)]
    since: Option<Day>,
    /// How decimals of more than 38 digits are stored, which the tables have only where somebody added such columns: `"decimal"`,
    /// or as `"text"` with all their digits, for readers that round such numbers (DuckDB). A day that is saved keeps its form
    /// until it is saved again.
    #[serde(default)]
    wide_decimals: WideDecimals,
}

const DATE_COLUMN: &str = "calldate";

const CDR_COLUMNS: &[&str] = &[
    "calldate",
    "id",
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
    "imported_info",
    "exported_internal_telephone_number",
    "exported_billable_customer_ar_party_id",
    "from_source_cdr_id",
];

/// Money: BIGINT, the value times ten to the power of the instance's scale.
const MONEY_COLUMNS: &str = "income,cost_saving,cost,expected_cost";

const SOURCE_CDR_COLUMNS: &[&str] =
    &["calldate", "id", "ar_cdr_provider_id", "ar_physical_format_id", "content", "is_hacked"];

/// One of the two tables.
struct CdrSource {
    database: Reference,
    table: &'static str,
    known: &'static [&'static str],
    renumbered: &'static [&'static str],
    since: Option<Date>,
    money_scale: Option<u8>,
    wide_decimals: WideDecimals,
}

fn parse_cdr(section: &mut Section<'_>) -> Option<Box<dyn BuildSource>> {
    let options: CdrOptions = section.options()?;
    Some(Box::new(CdrSource {
        database: options.database,
        table: "ar_cdr",
        known: CDR_COLUMNS,
        renumbered: &["id"],
        since: options.since.map(|day| day.0),
        money_scale: options.money_scale,
        wide_decimals: options.wide_decimals,
    }))
}

fn parse_source_cdr(section: &mut Section<'_>) -> Option<Box<dyn BuildSource>> {
    let options: SourceCdrOptions = section.options()?;
    Some(Box::new(CdrSource {
        database: options.database,
        table: "ar_source_cdr",
        known: SOURCE_CDR_COLUMNS,
        renumbered: &[],
        since: options.since.map(|day| day.0),
        money_scale: None,
        wide_decimals: options.wide_decimals,
    }))
}

impl BuildSource for CdrSource {
    fn emits(&self) -> Shape {
        Shape::Rows
    }

    fn database(&self) -> Option<&Reference> {
        Some(&self.database)
    }

    fn since(&self) -> Option<Date> {
        self.since
    }

    fn build(&self, flow: &str, session: Option<Arc<dyn Session>>) -> Result<(Arc<dyn Source>, Arc<dyn Session>)> {
        let session = session.ok_or_else(|| Error::failed(format!("flow `{flow}` has no database")))?;
        let mut metadata = BTreeMap::new();
        if let Some(scale) = self.money_scale {
            metadata.insert("cdrvault.money-scale".to_owned(), scale.to_string());
            metadata.insert("cdrvault.money-columns".to_owned(), MONEY_COLUMNS.to_owned());
        }
        let spec = TableSpec {
            flow: flow.to_owned(),
            table: self.table,
            date_column: DATE_COLUMN,
            known: self.known,
            renumbered: self.renumbered,
            since: self.since,
            wide_decimals: self.wide_decimals,
            metadata,
        };
        Ok((table::build(spec, Arc::clone(&session))?, session))
    }
}
