//! Three targets for bytes of all kinds, which run on stable Rust: [`packets`] (framing, parts, limits), [`rows`] (both forms, and
//! what is sent beside a statement) and [`login`] (greeting, plugins, TLS).
//!
//! Inputs are answers that a plain encoder wrote, exchanges that were captured from servers, and both with damages that keep
//! most of their structure. What is read must be what was written; of damaged bytes, what a plain decoder reads that has all of
//! them before it; and a cut is always an error. Memory stays within the limits, and no error tells a password.
//!
//! A run takes the same inputs each time. `CDRVAULT_FUZZ_SECONDS=600` takes new ones for so long, in each test:
//!
//! ```sh
//! CDRVAULT_FUZZ_SECONDS=600 cargo test --release -p cdrvault-mysql-wire --test fuzz packets::
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests"
)]

mod captured;
mod damage;
mod encoded;
mod login;
mod packets;
mod plain;
mod rows;
mod script;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner};

/// Tries a property with so many inputs, always the same ones; with new ones for as long as the environment says.
fn fuzz<S: Strategy>(count: u32, inputs: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let config = ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() };
    let seconds = std::env::var("CDRVAULT_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    let Some(seconds) = seconds else {
        let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        return tried(&mut TestRunner::new_with_rng(config, random), inputs, property);
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    while Instant::now() < end {
        tried(&mut TestRunner::new(config.clone()), inputs, &property);
        count += u64::from(config.cases);
    }
    println!("{count} inputs");
    assert!(peak() < 1 << 20, "{} KiB of memory", peak());
}

#[track_caller]
fn tried<S: Strategy>(runner: &mut TestRunner, inputs: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    if let Err(error) = runner.run(inputs, property) {
        panic!("{error}");
    }
}

/// The most memory that this process had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs a future that waits for nothing but a [`script::Script`], which is always ready.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits for something else"),
    }
}
