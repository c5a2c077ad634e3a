//! Real servers for the tests, and a site: a directory with a pipeline file, a vault and a state.
//!
//! A server is private to its test: a data directory of its own in a temporary directory, a free loopback port, and it
//! is stopped by its pid when the test ends. A server that is not installed fails the test; nothing is skipped.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

pub mod home;
pub mod mariadb;
pub mod python;
pub mod rating;

use std::path::PathBuf;

/// `target/`, wherever cargo put it.
pub fn target() -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_cdrvault"));
    binary.ancestors().nth(2).expect("target/debug/cdrvault").to_owned()
}

/// A small generator of pseudo-random numbers, so that a failure can be repeated by its seed.
pub struct Random(pub u64);

impl Random {
    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
