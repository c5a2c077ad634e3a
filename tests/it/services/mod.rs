//! Real servers for the tests, and sites: directories with a pipeline file, a vault and a state.
//!
//! A server is private to its test: a data directory of its own in a temporary directory, a free loopback port, and it
//! is stopped by its pid when the test ends. A server that is not installed fails the test, with the name of its Debian
//! package; nothing is skipped.

pub mod boto3;
pub mod chromium;
mod daemon;
pub mod described;
pub mod fresh_root;
pub mod garage;
pub mod gate;
pub mod home;
mod leftovers;
pub mod mariadb;
pub mod moto;
pub mod places;
pub mod proxy;
pub mod python;
pub mod rating;
pub mod recipe;
pub mod remote;
pub mod rsyncd;
pub mod sealed;
pub mod sshd;
mod template;
pub mod tls;

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

/// Waits until something comes true; after a minute it never does.
#[track_caller]
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("never: {what}");
}

/// Waits for a file, such as one by which a failpoint says that it is reached.
#[track_caller]
pub fn wait_for(path: &std::path::Path) {
    eventually(&format!("{} appears", path.display()), || path.exists());
}

/// Every file below a directory, in order; none where there is none.
pub fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
