//! What a vault is: the words that every other crate of cdrvault speaks, and how they lie on a disk.
//!
//! What is saved is a generation of a [`partition`], described by a [`manifest`] and recognised by its [`fingerprint`].
//! A dataset's [`index`] tells which receipts there are. Nothing here knows a stage, a sink or a pipeline file.
//!
//! | module | holds |
//! |---|---|
//! | [`partition`], [`manifest`], [`entry`], [`index`] | units, their receipts, the files of a tree, the list of receipts |
//! | [`layout`] | the names of all that in a vault |
//! | [`fingerprint`], [`facts`], [`tripwire`], [`raw`] | what rows are recognised by, and bytes that are not text |
//! | [`hash`], [`checksum`] | of files, and of the JSON that describes them |
//! | [`durable`], [`outfile`], [`failpoint`] | files that are whole or not there, and tests that end a program between two steps |
//! | [`error`], [`printable`] | errors of kind, message and hint; text of others, made safe for a terminal |

pub mod checksum;
pub mod durable;
pub mod entry;
pub mod error;
pub mod facts;
pub mod failpoint;
pub mod fingerprint;
pub mod hash;
pub mod index;
pub mod layout;
pub mod manifest;
pub mod outfile;
pub mod partition;
pub mod printable;
pub mod raw;
pub mod tripwire;
