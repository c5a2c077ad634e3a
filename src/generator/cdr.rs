//! The rows of the two tables, with the columns in the order of the schema.

use jiff::civil::DateTime;

/// A rated call: a row of `ar_cdr`.
///
/// Money is the value times 10 to the power of [`MONEY_SCALE`](super::MONEY_SCALE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cdr {
    /// When the call began, on the wall clock of the host.
    pub calldate: DateTime,
    /// A random number, new with each rating.
    pub id: i32,
    /// 1 where this is the monthly charge of a service.
    pub is_service_cdr: i8,
    /// The end of what the row covers, where it covers a period.
    pub to_calldate: Option<DateTime>,
    /// How many calls the row stands for.
    pub count_of_calls: i32,
    /// 1 incoming, 2 outgoing, 3 internal, 5 error, 6 system.
    pub destination_type: i16,
    /// 1 where the call was forwarded.
    pub is_redirect: i8,
    /// Seconds, ringing included.
    pub duration: i32,
    /// Seconds of talk; 0 where nobody answered.
    pub billsec: i32,
    /// The extension.
    pub ar_organization_unit_id: Option<i32>,
    /// The extension and all above it, as `/1/2/5/`.
    pub cached_parent_id_hierarchy: Option<Vec<u8>>,
    /// Who pays.
    pub billable_ar_organization_unit_id: Option<i32>,
    /// Whose bundle of free minutes was used.
    pub bundle_ar_organization_unit_id: Option<i32>,
    /// What the customer pays.
    pub income: Option<i64>,
    /// What the customer saved by a bundle.
    pub cost_saving: Option<i64>,
    /// The carrier.
    pub ar_vendor_id: Option<i32>,
    /// The kind of trunk.
    pub ar_communication_channel_type_id: Option<i32>,
    /// What the carrier takes.
    pub cost: Option<i64>,
    /// What the carrier said that it takes.
    pub expected_cost: Option<i64>,
    /// The tariff zone.
    pub ar_telephone_prefix_id: Option<i32>,
    /// The number at the other end.
    pub cached_external_telephone_number: Option<String>,
    /// The same after number portability.
    pub external_telephone_number_with_applied_portability: Option<String>,
    /// The same as customers see it, ending in `XXX`.
    pub cached_masked_external_telephone_number: Option<String>,
    /// What kind of call an error would have been.
    pub error_destination_type: i16,
    /// The problem that an error was reported under.
    pub ar_problem_duplication_key: Option<String>,
    /// How the cost came about.
    pub debug_cost_rate: Option<String>,
    /// How the income came about.
    pub debug_income_rate: Option<String>,
    /// What the importer kept, separated by TABs.
    pub imported_info: Option<String>,
    /// The extension's number.
    pub exported_internal_telephone_number: String,
    /// The party of who pays.
    pub exported_billable_customer_ar_party_id: Option<i32>,
    /// The call as received.
    pub from_source_cdr_id: Option<i32>,
}

/// A call as received from the VoIP server: a row of `ar_source_cdr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCdr {
    /// When the call began, on the wall clock of the host.
    pub calldate: DateTime,
    /// Stays the same for the life of the call.
    pub id: i32,
    /// The VoIP server.
    pub ar_cdr_provider_id: i32,
    /// The native format of `content`.
    pub ar_physical_format_id: i32,
    /// The call in that format.
    pub content: Option<String>,
    /// 1 where an admin found that somebody else made this call.
    pub is_hacked: i8,
}
