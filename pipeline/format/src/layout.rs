//! Every name in a vault. What does not parse back is not ours, and is left alone.

use crate::error::{Error, Kind, Result};
use crate::partition::{Partition, Unit};

/// What is cdrvault's own in a vault.
pub const PRIVATE: &str = ".cdrvault";
/// The identity of a vault.
pub const IDENTITY: &str = ".cdrvault/vault.json";
/// A second copy of it, for when the first is damaged.
pub const IDENTITY_COPY: &str = ".cdrvault/vault-copy.json";
/// The lock file of a path-based vault.
pub const LOCK: &str = ".cdrvault/lock";
/// There while a run writes, so that an unclean end is known.
pub const DIRTY: &str = ".cdrvault/dirty";

/// The receipts of all datasets.
pub const MANIFESTS: &str = ".cdrvault/manifests";
/// The indexes of all datasets.
pub const INDEXES: &str = ".cdrvault/index";
/// The content-addressed bodies.
pub const OBJECTS: &str = ".cdrvault/objects";

/// What people and other programs see of a dataset.
pub fn live_directory(dataset: &str) -> Result<String> {
    checked(dataset).map(str::to_owned)
}

/// Where people and other programs find the live object: `ar_cdr/day=2026-01-15/ar_cdr-2026-01-15.parquet`.
/// `file_name` is the one that the chain of transforms gave.
pub fn live_path(unit: &Unit, file_name: &str) -> Result<String> {
    checked(&unit.dataset)?;
    checked(file_name)?;
    Ok(match unit.partition {
        Partition::Snapshot => format!("{}/{file_name}", unit.dataset),
        partition => format!("{}/day={partition}/{file_name}", unit.dataset),
    })
}

/// What the path of the live object of a day's rows begins with, whatever encodes it: each encoding adds to the name.
pub fn rows_path(unit: &Unit) -> Result<Option<String>> {
    let path = live_path(unit, &format!("{}-{}.parquet", unit.dataset, unit.partition))?;
    Ok(unit.partition.day().map(|_| path))
}

/// Whether a path is `rows`, or that with the names of further encodings.
pub fn is_rows_path(path: &str, rows: &str) -> bool {
    path.strip_prefix(rows).is_some_and(|more| more.is_empty() || more.starts_with('.'))
}

/// The receipts of a dataset.
pub fn manifests_of(dataset: &str) -> Result<String> {
    Ok(format!(".cdrvault/manifests/{}", checked(dataset)?))
}

/// The index of a dataset's receipts.
pub fn index(dataset: &str) -> Result<String> {
    Ok(format!("{INDEXES}/{}.json", checked(dataset)?))
}

/// The receipts of a unit.
pub fn manifest_directory(unit: &Unit) -> Result<String> {
    Ok(format!("{}/{}", manifests_of(&unit.dataset)?, unit.partition))
}

/// The receipt of a generation.
pub fn manifest(unit: &Unit, generation: u32) -> Result<String> {
    Ok(format!("{}/{}", manifest_directory(unit)?, manifest_name(generation)))
}

/// The name of a receipt: `g0007.json`.
pub fn manifest_name(generation: u32) -> String {
    format!("g{generation:04}.json")
}

/// The inverse of [`manifest_name`].
pub fn parse_manifest_name(name: &str) -> Option<u32> {
    let generation = name.strip_prefix('g')?.strip_suffix(".json")?.parse().ok()?;
    (manifest_name(generation) == name && generation > 0).then_some(generation)
}

/// The superseded objects of a unit.
pub fn version_directory(unit: &Unit) -> Result<String> {
    Ok(format!(".cdrvault/versions/{}/{}", checked(&unit.dataset)?, unit.partition))
}

/// Everything superseded of a dataset.
pub fn versions_of(dataset: &str) -> Result<String> {
    Ok(format!(".cdrvault/versions/{}", checked(dataset)?))
}

/// What is noted of the units of a dataset.
pub fn notes_of(dataset: &str) -> Result<String> {
    Ok(format!(".cdrvault/verified/{}", checked(dataset)?))
}

/// A superseded object: never named `.parquet`, so that a glob over all of them counts every call once.
pub fn version(unit: &Unit, generation: u32, sha256: &str) -> Result<String> {
    Ok(format!("{}/g{generation:04}-{}.kept", version_directory(unit)?, short(sha256)?))
}

/// An object that was found under a live name and that no receipt names.
pub fn unattributed(unit: &Unit, sha256: &str) -> Result<String> {
    Ok(format!("{}/unattributed-{}.kept", version_directory(unit)?, short(sha256)?))
}

/// A content-addressed body.
pub fn object(sha256: &str) -> Result<String> {
    short(sha256)?;
    Ok(format!(".cdrvault/objects/{}/{sha256}", &sha256[..2]))
}

/// What is noted of a unit.
pub fn notes(unit: &Unit) -> Result<String> {
    Ok(format!(".cdrvault/verified/{}/{}.json", checked(&unit.dataset)?, unit.partition))
}

/// The spool of a writer.
pub fn spool(writer: &str) -> Result<String> {
    Ok(format!(".cdrvault/spool/{}", checked(writer)?))
}

/// The first twelve digits of a SHA-256 in hex, if it is one.
fn short(sha256: &str) -> Result<&str> {
    if sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(&sha256[..12]);
    }
    Err(Error::new(Kind::Damaged, format!("`{}` is not a SHA-256", sha256.escape_debug())))
}

/// A name that is one part of a path and nothing else.
fn checked(name: &str) -> Result<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(Error::new(Kind::Refused, format!("`{}` is not a name for a part of a vault", name.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(partition: &str) -> Unit {
        Unit::new("ar_cdr", partition.parse().unwrap())
    }

    #[test]
    fn names_are_those_of_the_format() {
        let day = unit("2026-01-15");
        let sha = "ab".repeat(32);
        assert_eq!(
            live_path(&day, "ar_cdr-2026-01-15.parquet").unwrap(),
            "ar_cdr/day=2026-01-15/ar_cdr-2026-01-15.parquet"
        );
        assert_eq!(live_path(&unit("snapshot"), "x.sql.zst").unwrap(), "ar_cdr/x.sql.zst");
        assert_eq!(manifest(&day, 7).unwrap(), ".cdrvault/manifests/ar_cdr/2026-01-15/g0007.json");
        assert_eq!(version(&day, 6, &sha).unwrap(), ".cdrvault/versions/ar_cdr/2026-01-15/g0006-abababababab.kept");
        assert_eq!(object(&sha).unwrap(), format!(".cdrvault/objects/ab/{sha}"));
    }

    #[test]
    fn nothing_leads_out_of_a_vault() {
        for name in ["", ".", "..", "a/b", "/a", "a\0", ".cdrvault", "a b", "é"] {
            assert!(live_path(&Unit::new(name, Partition::Snapshot), "x").is_err(), "{name:?}");
            assert!(live_path(&unit("snapshot"), name).is_err(), "{name:?}");
        }
        for sha in ["", "../../../../etc/passwd", &"AB".repeat(32), &"a".repeat(63)] {
            assert!(object(sha).is_err(), "{sha:?}");
        }
    }

    #[test]
    fn only_names_of_receipts_parse() {
        assert_eq!(parse_manifest_name("g0007.json"), Some(7));
        assert_eq!(parse_manifest_name("g12345.json"), Some(12345));
        for name in ["g7.json", "g0000.json", "g0007.json.tmp", "x0007.json", "g00007.json", "g-001.json"] {
            assert_eq!(parse_manifest_name(name), None, "{name}");
        }
    }
}
