//! MariaDB and MySQL.

mod columns;
mod connect;
mod decode;
mod error;
mod queue;
mod session;
mod snapshot;
mod walk;

pub(crate) use connect::Target;
pub(crate) use session::MySqlSession;
