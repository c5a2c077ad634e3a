//! The sinks of cdrvault, one file or folder each: places that hold a vault.
//!
//! [`register`] is the only way in. What every sink must do is in [`cdrvault_pipeline::sink::Sink`].

mod local;

use cdrvault_pipeline::plugin::Registry;

/// Adds every sink of this crate.
pub fn register(registry: &mut Registry) {
    registry.sinks.push(local::plugin());
}
