//! Whole runs of the command against real servers, one module for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the durable write is for vaults, not for scratch files")]
#![allow(clippy::print_stderr, clippy::float_cmp, clippy::cast_possible_truncation, reason = "tests")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "names are the vault's own")]
#![allow(unreachable_pub, reason = "one binary")]

mod alerts;
mod beside;
mod conformance;
mod disaster;
mod dumps;
mod encodings;
mod errors;
mod examples;
mod export;
mod fidelity;
mod language;
mod least_privilege;
mod logins;
mod memory;
mod mirrors;
mod network;
mod packages;
mod protocol;
mod prune;
mod reading;
mod repair;
mod report;
mod restore;
mod restore_forms;
mod restore_full_disk;
mod restore_guards;
mod runs;
mod s3;
mod s3_accidents;
mod s3_parts;
mod s3_pruning;
mod s3_tls;
mod services;
mod services_start;
mod sinks;
mod sources;
mod stalls;
mod structure;
mod transcripts;
mod verify;
mod watching;
