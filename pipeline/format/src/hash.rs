//! Hashes of files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::durable;
use crate::error::{Error, Result};

/// What a file's bytes are.
pub struct Hashes {
    /// SHA-256 of the first bytes, as many as were asked for.
    pub data: String,
    /// SHA-256 of all of them.
    pub whole: String,
    /// XXH3 of all of them.
    pub checksum: u128,
}

/// A regular file, or one that this process holds open.
fn open(path: &Path) -> Result<File> {
    if path.starts_with("/proc/self/fd") {
        return File::open(path).map_err(|error| Error::io("read", path, error));
    }
    durable::open(path)?.ok_or_else(|| Error::io("read", path, std::io::ErrorKind::NotFound.into()))
}

/// Hashes a file, and its first `data_end` bytes.
pub fn hash_file(path: &Path, data_end: u64) -> Result<Hashes> {
    let failed = |error| Error::io("read", path, error);
    let mut file = open(path)?;
    let (mut hash, mut checksum) = (Sha256::new(), Xxh3::new());
    let mut data = None;
    let mut buffer = vec![0; 1 << 18];
    let mut position = 0_u64;
    loop {
        let room = usize::try_from(data_end.saturating_sub(position)).unwrap_or(usize::MAX);
        if room == 0 && data.is_none() {
            data = Some(hash.clone());
        }
        let wanted = if room == 0 { buffer.len() } else { buffer.len().min(room) };
        let count = file.read(&mut buffer[..wanted]).map_err(failed)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        checksum.update(&buffer[..count]);
        position += count as u64;
    }
    let whole = hex::encode(hash.finalize());
    let data = data.map_or_else(|| whole.clone(), |data| hex::encode(data.finalize()));
    Ok(Hashes { data, whole, checksum: checksum.digest128() })
}
