//! The way back: what a sink holds is found, fetched, checked, and restored or verified.
//!
//! | file | holds |
//! |---|---|
//! | `find` | which generations are meant |
//! | `fetch` | their objects, as local files whose checksums hold |
//! | `content` | objects back into rows or files, and whether those are what the manifest says |
//! | `restore` | content goes to a target |

mod content;
mod fetch;
mod find;
pub mod restore;

pub use content::{compare, undo};
pub use fetch::Fetched;
pub use find::{Selection, Wanted, find, open};
