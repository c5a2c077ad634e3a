//! SQLite, the embedded default: nothing to install, the same protocol.

mod columns;
mod connect;
mod decode;
mod queue;
mod restore;
mod session;
mod snapshot;
mod walk;

pub(crate) use restore::SqliteTarget;
pub(crate) use session::SqliteSession;
