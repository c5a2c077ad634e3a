//! A table of a dump.

/// A table, of whatever kind.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) has_data: bool,
    /// Somebody wrote that its data is not to be saved.
    pub(super) is_left_out: bool,
    pub(super) is_versioned: bool,
    pub(super) is_transactional: bool,
}
