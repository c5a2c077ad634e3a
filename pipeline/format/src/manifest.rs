//! What one generation is: the receipt that a sink keeps for each content it made live.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::checksum;
use crate::entry::{Entry, EntryKind, RawPath};
use crate::facts::Facts;
use crate::fingerprint::Fingerprint;
use crate::layout;
use crate::partition::Unit;
use crate::tripwire::Tripwire;

/// The format of receipts and vaults that this code writes. It reads every older one, and refuses a newer one.
///
/// | format | what is new |
/// |---|---|
/// | 1 | |
/// | 2 | each object names its `encodings`; before, those of a live object showed in its name alone |
pub const FORMAT: u32 = 2;

/// The format of notes, of indexes and of what a Parquet file says of itself, which stayed what they were.
pub const NOTES_FORMAT: u32 = 1;

/// One generation of one unit. A manifest in a sink means: this was live there, from `received` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Dataset and partition.
    #[serde(flatten)]
    pub unit: Unit,
    /// The Nth published content; the same bytes in every sink.
    pub generation: u32,
    /// Rows of a table's partition, entries of a tree.
    pub rows: u64,
    /// What is stored, and where.
    pub content: Content,
    /// Order-independent hash of the content.
    pub fingerprint: Fingerprint,
    /// What a database can recompute cheaply; absent for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tripwire: Option<Tripwire>,
    /// The columns, in the order of the database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnInfo>,
    /// The table that the rows are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableInfo>,
    /// Where the content came from.
    pub origin: Origin,
    /// The day was read before it ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// Something that should be in it could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// When the object was sealed in the spool.
    pub sealed: Timestamp,
    /// When this sink had made it live and checked it; set by the sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Timestamp>,
    /// The generation it replaced in this sink; set by the sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<u32>,
}

impl Manifest {
    /// The number of bytes stored for this generation.
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::Object(object) => object.bytes,
            Content::Tree { entries } => entries.iter().filter_map(|e| e.stored.as_ref()).map(|s| s.bytes).sum(),
        }
    }

    /// The receipt as it is stored: JSON whose last member is the SHA-256 of what it would be without that member.
    pub fn to_receipt(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self).map(checksum::seal)
    }

    /// The inverse: an error unless every bit is as it was written, and every name in it stays where it belongs.
    pub fn of_receipt(text: &[u8]) -> Result<Self, String> {
        checksum::check(text)?;
        let manifest: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let manifest = manifest.of_today();
        manifest.check()?;
        Ok(manifest)
    }

    /// In the form of [`FORMAT`]: what an older one left unsaid is added. Writing it again, into another sink, writes
    /// it so.
    #[must_use]
    pub fn of_today(mut self) -> Self {
        let rows = self.tripwire.is_some();
        if let (1, Content::Object(object)) = (self.format, &mut self.content) {
            object.encodings = encodings_by_name(&object.path, rows);
        }
        self.format = self.format.max(FORMAT);
        self
    }

    /// Whether every name in it stays where it belongs: somebody could have written it to make a reader leave the vault,
    /// or a restore its target.
    fn check(&self) -> Result<(), String> {
        match &self.content {
            Content::Object(object) => {
                let name = object.path.rsplit('/').next().unwrap_or_default();
                let path = layout::live_path(&self.unit, name).map_err(|error| error.one_line())?;
                if path != object.path {
                    return Err(format!("`{}` is not a place of {}", object.path.escape_debug(), self.unit));
                }
                if self.tripwire.is_some() && object.encodings.is_empty() {
                    return Err("it does not say how its rows are encoded".to_owned());
                }
                layout::object(&object.sha256).map_err(|error| error.one_line()).map(drop)
            }
            Content::Tree { entries } => check_entries(entries),
        }
    }

    /// Whether nothing is kept of `older`, which was read before its day had ended, once this one is live.
    pub fn supersedes(&self, older: &Self) -> bool {
        older.was_open() && self.rows >= older.rows
    }

    /// Whether its day had not ended when it was read. A day that is further from the time of its snapshot than any two
    /// clocks can be was called open by a wrong one.
    pub fn was_open(&self) -> bool {
        let snapshot = self.origin.snapshot.to_zoned(TimeZone::UTC).date();
        let near = |day: Date| day.since(snapshot).is_ok_and(|span| span.get_days().abs() <= 1);
        self.open && self.unit.partition.day().is_some_and(near)
    }

    /// What its content is, whatever encodes it.
    pub fn holds(&self) -> Holding {
        match &self.content {
            Content::Tree { .. } => Holding::Tree,
            Content::Object(_) if self.tripwire.is_some() => Holding::Rows,
            Content::Object(_) => Holding::Document,
        }
    }

    /// Whether rows are those that it tells of. What an unknown algorithm would give cannot be known; then the checksum
    /// of the stored bytes has to do.
    pub fn tells_of(&self, found: &Facts) -> bool {
        let known = self.fingerprint.algorithm == found.fingerprint.algorithm;
        self.rows == found.rows && (!known || self.fingerprint == found.fingerprint)
    }

    /// Whether two generations hold the same content, whatever their encoding.
    pub fn same_content(&self, other: &Self) -> bool {
        self.rows == other.rows
            && self.fingerprint.algorithm == other.fingerprint.algorithm
            && self.fingerprint.content == other.fingerprint.content
            && self.columns == other.columns
    }

    /// Whether two generations hold the same bytes, apart from what a generation's own name puts into them.
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.columns == other.columns
            && match (&self.content, &other.content) {
                (Content::Object(a), Content::Object(b)) => match (&a.data_sha256, &b.data_sha256) {
                    (Some(data), Some(other)) => data == other && a.encodings == b.encodings,
                    _ => a.sha256 == b.sha256,
                },
                (Content::Tree { entries: a }, Content::Tree { entries: b }) => {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_as(b))
                }
                _ => false,
            }
    }

    /// The columns that were added, lost or changed since `older`, as human-readable text.
    pub fn schema_change(&self, older: &Self) -> Option<String> {
        let by_name = |m: &Self| -> BTreeMap<String, String> {
            m.columns.iter().map(|c| (c.name.clone(), c.sql_type.clone())).collect()
        };
        let (new, old) = (by_name(self), by_name(older));
        let mut changes = Vec::new();
        for (name, kind) in &new {
            match old.get(name) {
                None => changes.push(format!("`{name}` is new")),
                Some(was) if was != kind => changes.push(format!("`{name}` was {was} and is {kind}")),
                Some(_) => {}
            }
        }
        changes.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("`{name}` is gone")));
        (!changes.is_empty()).then(|| changes.join(", "))
    }
}

/// Relative paths without `.` and `..`, each once, below directories alone, and bodies whose names are hashes.
fn check_entries(entries: &[Entry]) -> Result<(), String> {
    let mut sorted: Vec<(&[u8], &EntryKind)> = Vec::new();
    for entry in entries {
        let path = entry.path.0.as_slice();
        let wrong = |why: &str| Err(format!("the path `{}` {why}", entry.path.display()));
        if path.contains(&0) || path.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
            return wrong("leads out of the snapshot, or is not a path");
        }
        sorted.push((path, &entry.kind));
        if let Some(stored) = &entry.stored {
            layout::object(&stored.sha256).map_err(|error| error.one_line())?;
        }
        if (entry.kind == EntryKind::File) != entry.stored.is_some() {
            return wrong("has a body that it cannot have, or none");
        }
    }
    // With `/` before every other byte, what lies below a path follows it at once: each path is compared with one other,
    // however deep it is.
    let order = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    sorted.sort_by(|(a, _), (b, _)| a.iter().map(order).cmp(b.iter().map(order)));
    for ((path, kind), (next, _)) in sorted.iter().zip(sorted.iter().skip(1)) {
        let shown = || RawPath(path.to_vec()).display();
        match next.strip_prefix(*path) {
            Some([]) => return Err(format!("the path `{}` occurs twice", shown())),
            Some([b'/', ..]) if **kind != EntryKind::Directory => {
                return Err(format!("`{}` is not a directory, and has entries", shown()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the content of a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holding {
    /// One byte stream, such as a dump.
    Document,
    /// Rows of a table.
    Rows,
    /// Files and directories.
    Tree,
}

impl std::fmt::Display for Holding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Document => "a dump",
            Self::Rows => "rows of a table",
            Self::Tree => "files",
        })
    }
}

/// What a generation stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// One object at a stable live path.
    Object(StoredObject),
    /// A tree of files, whose bodies are content-addressed. The manifest is the commit.
    Tree {
        /// Sorted by path.
        entries: Vec<Entry>,
    },
}

/// One object of the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoredObject {
    /// The live path, relative to the root of the vault.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of all of its bytes, in hex.
    pub sha256: String,
    /// SHA-256, in hex, of what its first encoding gave, before the part that names the generation (the Parquet footer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// As those of [`crate::entry::StoredBody`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encodings: Vec<String>,
}

/// The encodings of a live object that nothing but its name tells of: a receipt of format 1 does not name them, and what has
/// lost its receipt has no other.
pub fn encodings_by_name(path: &str, rows: bool) -> Vec<String> {
    let mut rest = path;
    let mut encodings = Vec::new();
    while let Some(inner) = rest.strip_suffix(".zst") {
        encodings.insert(0, "zstd".to_owned());
        rest = inner;
    }
    if rows && rest.ends_with(".parquet") {
        encodings.insert(0, "parquet".to_owned());
    }
    encodings
}

/// A table, as far as a restore has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TableInfo {
    /// Its name in the database.
    pub name: String,
    /// The column whose day makes the partition.
    pub date_column: String,
    /// The columns of the primary key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
}

/// A column, as the database and as Parquet see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// The database's full type, such as `int(10) unsigned`.
    pub sql_type: String,
    /// The Arrow type it is stored as.
    pub arrow_type: String,
}

/// Where a generation came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Origin {
    /// The pipeline's name.
    pub pipeline: String,
    /// Eight hex digits that tell hosts and clones apart.
    pub writer: String,
    /// The source's kind and what it read, such as `mysql://127.0.0.1/asterisell#ar_cdr`.
    pub source: String,
    /// When the consistent snapshot was opened.
    pub snapshot: Timestamp,
    /// Why it was exported, such as `event`.
    pub reasons: Vec<String>,
    /// cdrvault's version.
    pub version: String,
}

/// What is known of a unit in one sink besides its generations: kept apart, because it changes and manifests never do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Notes {
    /// Generations that no retention rule may remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// Since when the database has no rows of this day, without having announced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
    /// The generation that was last read again in full and found good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

impl Notes {
    /// As they are stored.
    pub fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Stored<'a> {
            format: u32,
            #[serde(flatten)]
            notes: &'a Notes,
        }
        serde_json::to_vec(&Stored { format: NOTES_FORMAT, notes: self }).map(checksum::seal)
    }

    /// The inverse. Older versions wrote no checksum.
    pub fn of_text(text: &[u8]) -> Result<Self, String> {
        checksum::check_if_sealed(text)?;
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    /// Instead of those that cannot be understood: nobody knows what was pinned, so everything is.
    pub fn unreadable(generations: &[u32], now: Timestamp) -> Self {
        let pin = |generation: &u32| Pin {
            generation: *generation,
            reason: "what was noted of it is damaged, and may have been a pin".to_owned(),
            since: now,
        };
        Self { pins: generations.iter().map(pin).collect(), ..Self::default() }
    }
}

/// A generation that was found good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// Which one.
    pub generation: u32,
    /// When.
    pub at: Timestamp,
}

/// A generation that is kept until somebody releases it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pin {
    /// Which one.
    pub generation: u32,
    /// Why, for a person to read.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::StoredBody;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        let stored = StoredBody { sha256: "ab".repeat(32), bytes: 1, encodings: Vec::new() };
        let stored = Some(stored).filter(|_| kind == EntryKind::File);
        Entry { kind, stored, ..Entry::object(path) }
    }

    #[test]
    fn entries_stand_once_and_below_directories() {
        use EntryKind::{Directory, File};
        let told = |entries: &[(&str, EntryKind)]| {
            check_entries(&entries.iter().map(|(path, kind)| entry(path, kind.clone())).collect::<Vec<_>>())
        };
        // `-` and `.` come before `/`.
        told(&[("a", Directory), ("a-b", File), ("a.b", File), ("a/c", File), ("ab", File)]).unwrap();
        let odd = told(&[("a", File), ("a-b", File), ("a.b", File), ("a/c/d", File)]).unwrap_err();
        assert_eq!(odd, "`a` is not a directory, and has entries");
        let twice = told(&[("b", File), ("a-b", File), ("a", File), ("b", Directory)]).unwrap_err();
        assert_eq!(twice, "the path `b` occurs twice");
        assert!(told(&[("a/../b", File)]).is_err());
        assert!(told(&[("a\0b", File)]).is_err());
    }

    /// Comparing each path with all that are above it took minutes here.
    #[test]
    fn a_tree_of_many_levels_is_checked_in_no_time() {
        let path = "d/".repeat(2_000);
        let mut entries: Vec<Entry> =
            (1..=2_000).map(|level| entry(&path[..level * 2 - 1], EntryKind::Directory)).collect();
        check_entries(&entries).unwrap();
        entries[0] = entry("d", EntryKind::File);
        assert!(check_entries(&entries).is_err());
    }
}
