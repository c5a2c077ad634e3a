//! The sizes of parts.

/// What is larger goes in parts of at least this size: that is all the memory that an upload needs, a few times.
pub(super) const PART: u64 = 8 << 20;

/// What is larger is copied in parts of at least this size. One request copies 5 GB at most, and may only last so long.
pub(super) const COPIED_AT_ONCE: u64 = 64 << 20;
