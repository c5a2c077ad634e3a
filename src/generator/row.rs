//! Rows as lists of values, so that each writer is written once for both tables.

use std::fmt;

use jiff::civil::DateTime;

use super::cdr::{Cdr, SourceCdr};

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'r> {
    /// NULL.
    Null,
    /// Any of the integer types.
    Integer(i64),
    /// A VARCHAR.
    Text(&'r str),
    /// A VARBINARY.
    Bytes(&'r [u8]),
    /// A DATETIME.
    DateTime(Clock),
}

/// A DATETIME as databases write it: `2026-01-15 09:12:44`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock(pub DateTime);

/// A row of a table.
pub trait Row {
    /// The table.
    const TABLE: &'static str;
    /// Its columns, in the order of the schema.
    const COLUMNS: &'static [&'static str];

    /// The values, in the order of [`COLUMNS`](Self::COLUMNS).
    fn values(&self) -> impl Iterator<Item = Value<'_>>;
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0;
        write!(f, "{:04}-{:02}-{:02} ", at.year(), at.month(), at.day())?;
        write!(f, "{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
    }
}

impl<T: Into<i64>> From<T> for Value<'_> {
    fn from(integer: T) -> Self {
        Self::Integer(integer.into())
    }
}

fn integer<'r>(value: Option<impl Into<i64>>) -> Value<'r> {
    value.map_or(Value::Null, Value::from)
}

fn text(value: Option<&String>) -> Value<'_> {
    value.map_or(Value::Null, |text| Value::Text(text))
}

fn clock<'r>(value: DateTime) -> Value<'r> {
    Value::DateTime(Clock(value))
}

impl Row for Cdr {
    const TABLE: &'static str = "ar_cdr";
    const COLUMNS: &'static [&'static str] = &[
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

    fn values(&self) -> impl Iterator<Item = Value<'_>> {
        [
            clock(self.calldate),
            self.id.into(),
            self.is_service_cdr.into(),
            self.to_calldate.map_or(Value::Null, clock),
            self.count_of_calls.into(),
            self.destination_type.into(),
            self.is_redirect.into(),
            self.duration.into(),
            self.billsec.into(),
            integer(self.ar_organization_unit_id),
            self.cached_parent_id_hierarchy.as_deref().map_or(Value::Null, Value::Bytes),
            integer(self.billable_ar_organization_unit_id),
            integer(self.bundle_ar_organization_unit_id),
            integer(self.income),
            integer(self.cost_saving),
            integer(self.ar_vendor_id),
            integer(self.ar_communication_channel_type_id),
            integer(self.cost),
            integer(self.expected_cost),
            integer(self.ar_telephone_prefix_id),
            text(self.cached_external_telephone_number.as_ref()),
            text(self.external_telephone_number_with_applied_portability.as_ref()),
            text(self.cached_masked_external_telephone_number.as_ref()),
            self.error_destination_type.into(),
            text(self.ar_problem_duplication_key.as_ref()),
            text(self.debug_cost_rate.as_ref()),
            text(self.debug_income_rate.as_ref()),
            text(self.imported_info.as_ref()),
            Value::Text(&self.exported_internal_telephone_number),
            integer(self.exported_billable_customer_ar_party_id),
            integer(self.from_source_cdr_id),
        ]
        .into_iter()
    }
}

impl Row for SourceCdr {
    const TABLE: &'static str = "ar_source_cdr";
    const COLUMNS: &'static [&'static str] =
        &["calldate", "id", "ar_cdr_provider_id", "ar_physical_format_id", "content", "is_hacked"];

    fn values(&self) -> impl Iterator<Item = Value<'_>> {
        [
            clock(self.calldate),
            self.id.into(),
            self.ar_cdr_provider_id.into(),
            self.ar_physical_format_id.into(),
            text(self.content.as_ref()),
            self.is_hacked.into(),
        ]
        .into_iter()
    }
}
