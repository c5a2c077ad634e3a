//! MariaDB and MySQL.

mod columns;
mod connect;
mod decode;
mod error;
mod literal;
mod queue;
mod restore;
mod session;
mod snapshot;
mod walk;

pub(crate) use connect::Target;
pub(crate) use restore::MySqlTarget;
pub(crate) use session::MySqlSession;
