//! Real servers for tests: private ones, started and stopped by the test that needs them.
//!
//! A server that is not installed fails the test, with the name of its Debian package; nothing is ever skipped.
//!
//! ```ignore
//! mod services;
//! use services::{Engine, MariaDb};
//!
//! let server = MariaDb::start(Engine::InnoDb);
//! let billing = server.fresh_database("asterisell").await;
//! let mut root = billing.root().await;
//! // url = "{billing.url()}", password = { file = "{billing.password_file()}" }
//! ```

#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the durable write is for vaults, not for scratch files")]

mod database;
mod leftovers;
mod mariadb;
mod places;
pub(crate) mod python;
mod rating;
mod rating_day;
mod template;

pub(crate) use database::{Database, USER};
pub(crate) use mariadb::{Engine, MariaDb, Server};
pub(crate) use rating::{Billing, Operation, RatingEngine, Report, Running};
