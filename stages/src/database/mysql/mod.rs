//! MariaDB and MySQL.

pub(crate) mod accounts;
pub mod bench;
mod client;
pub(crate) mod columns;
pub(crate) mod connect;
mod creation;
mod decode;
mod dumped;
pub(crate) mod dumping;
mod error;
mod holder;
pub(crate) mod literal;
mod older;
mod queue;
mod restorable;
mod restore;
pub(crate) mod rights;
mod server;
mod session;
mod snapshot;
pub(crate) mod staging;
mod walk;

use cdrvault_mysql_wire as wire;

pub(crate) use connect::Target;
pub(crate) use restore::MySqlTarget;
pub(crate) use session::MySqlSession;
pub(crate) use wire::{LONGEST_ROW, Place, Server, Tls};
