//! MariaDB and MySQL.

pub(crate) mod client;
mod columns;
pub(crate) mod connect;
mod decode;
mod dumped;
mod error;
mod holder;
mod literal;
mod queue;
mod restore;
mod session;
mod snapshot;
mod walk;

pub(crate) use client::Login;
pub(crate) use connect::Target;
pub(crate) use restore::MySqlTarget;
pub(crate) use session::MySqlSession;
