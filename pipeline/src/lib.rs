//! The contracts and the engine of cdrvault. It knows no database and no store.
//!
//! A pipeline file ([`config`]) names databases, sinks and flows. A flow is a chain of stages ([`stage`], [`sink`],
//! found through [`plugin`]) that makes one dataset. What moves is a [`payload`]; what is saved is a generation of a
//! [`partition`], described by a [`manifest`] and recognised by its [`fingerprint`].

pub mod checksum;
pub mod config;
pub mod context;
pub mod durable;
pub mod engine;
pub mod entry;
pub mod error;
pub mod facts;
pub mod failpoint;
pub mod fingerprint;
pub mod index;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod notice;
pub mod outfile;
pub mod partition;
pub mod payload;
pub mod place;
pub mod plugin;
pub mod printable;
pub mod program;
pub mod progress;
pub mod raw;
pub mod recovery;
pub mod scratch;
pub mod sink;
pub mod stage;
pub mod target;
pub mod tripwire;
