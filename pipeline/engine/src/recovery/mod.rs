//! The way back: what a sink holds is found, fetched, checked, and restored or verified.
//!
//! | file | holds |
//! |---|---|
//! | `find` | which generations are meant |
//! | `fetch` | their objects, as local files whose checksums hold |
//! | `content` | objects back into rows or files, and whether those are what the manifest says |
//! | `restore` | content goes to a target |
//! | `verify` | everything is read again, and compared with what it should be |
//! | `findings` | what a verification is asked for, and what it finds |
//! | `look` | one sink, on its own: receipts, listing, every byte |
//! | `lost` | receipts that are missing |
//! | `rebuild` | a receipt made anew from its object |
//! | `source` | what is saved is compared with the database |
//! | `repair` | what one sink lost comes back from another |
//! | `record` | what was found good is remembered |

mod content;
mod fetch;
mod find;
pub mod findings;
mod look;
mod lost;
mod rebuild;
mod record;
mod repair;
pub mod restore;
mod source;
pub mod verify;

pub use content::{compare, undo};
pub use fetch::Fetched;
pub use find::{Selection, Wanted, find, find_generation, open};
pub use lost::{Lost, lost};
pub use record::record;
