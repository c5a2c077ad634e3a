//! When a mirror held what.

use cdrvault_format::error::Result;
use cdrvault_format::layout;
use cdrvault_format::partition::Unit;

use super::transport::Listing;

/// Where the objects of a generation are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// Among what is there now.
    Now,
    /// In the state that this session left.
    After(i64),
}

impl Moment {
    /// As [`Transport::fetch`] takes it.
    pub(super) fn session(self) -> Option<i64> {
        match self {
            Self::Now => None,
            Self::After(session) => Some(session),
        }
    }
}

/// The highest generation of a unit in a listing.
pub(super) fn newest_in(files: &Listing, unit: &Unit) -> Result<Option<u32>> {
    let directory = format!("{}/", layout::manifest_directory(unit)?);
    Ok(below(files, &directory).filter_map(layout::parse_manifest_name).max())
}

/// What the names in a listing that begin like this go on with.
pub(super) fn below<'a>(files: &'a Listing, start: &'a str) -> impl Iterator<Item = &'a str> {
    files.range(start.to_owned()..).map_while(move |(name, _)| name.strip_prefix(start))
}
