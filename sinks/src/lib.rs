//! The sinks of cdrvault, one file or folder each: places that hold a vault.
//!
//! [`register`] is the only way in. What every sink must do is in [`cdrvault_plugin::sink::Vault`].
//!
//! | module | holds |
//! |---|---|
//! | `vault` | the vault itself over any store: identity, receipts, versions, and the order in which they are written |
//! | `local`, `s3` | stores: names and bytes |
//! | `mirror` | copies of a local vault over rsync and rdiff-backup |
//! | `clock` | how far the clock of a place is ahead of ours |

mod clock;
mod local;
mod mirror;
mod s3;
mod vault;

use cdrvault_plugin::registry::Registry;

/// Adds every sink of this crate.
pub fn register(registry: &mut Registry) {
    registry.sinks.extend([local::plugin(), mirror::rsync_plugin(), mirror::rdiff_plugin(), s3::plugin()]);
}
