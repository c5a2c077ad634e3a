//! The kinds of stages and sinks that this command knows.

use cdrvault_plugin::registry::Registry;

/// All of them.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    cdrvault_stages::register(&mut registry);
    cdrvault_sinks::register(&mut registry);
    registry
}
