//! Generations that no source made, for tests of sinks alone.

use std::collections::BTreeMap;
use std::path::Path;

use cdrvault_format::entry::Entry;
use cdrvault_format::manifest::{Content, FORMAT, Manifest, Origin, StoredObject};
use cdrvault_format::partition::Unit;
use cdrvault_format::{fingerprint, layout};
use cdrvault_plugin::sink::Sealed;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::Random;

/// Where the object of a unit is live.
pub fn live_path(unit: &Unit) -> String {
    layout::live_path(unit, &format!("{}-{}.parquet", unit.dataset, unit.partition)).unwrap()
}

/// No two seeds give the same.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(random.below(u64::MAX).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A generation with this content, whose body lies in a file of the directory.
pub fn sealed(directory: &Path, unit: &Unit, generation: u32, content: &[u8]) -> Sealed {
    let sha256 = hex::encode(Sha256::digest(content));
    let body = directory.join(format!("body-{sha256}"));
    std::fs::write(&body, content).unwrap();
    let mut entry = Entry::object("body");
    entry.sha256 = Some(sha256.clone());
    let manifest = Manifest {
        format: FORMAT,
        unit: unit.clone(),
        generation,
        rows: generation.into(),
        content: Content::Object(StoredObject {
            path: live_path(unit),
            bytes: content.len() as u64,
            sha256: sha256.clone(),
            data_sha256: None,
            encodings: Vec::new(),
        }),
        fingerprint: fingerprint::of_entries(&[entry]),
        tripwire: None,
        columns: Vec::new(),
        table: None,
        origin: Origin {
            pipeline: "test".to_owned(),
            writer: "0badcafe".to_owned(),
            source: "test".to_owned(),
            snapshot: Timestamp::now(),
            reasons: Vec::new(),
            version: "0".to_owned(),
        },
        open: false,
        incomplete: false,
        sealed: Timestamp::now(),
        received: None,
        replaced: None,
    };
    Sealed { manifest, bodies: BTreeMap::from([(sha256, body)]) }
}
