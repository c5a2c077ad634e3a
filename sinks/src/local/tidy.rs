//! What a run that ended uncleanly left behind is looked for only after such an end, which a mark tells.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cdrvault_format::error::{Error, Result};
use cdrvault_format::manifest::{Content, Manifest};
use cdrvault_format::{durable, layout};

use super::place::{Place, names_in, read_small};
use crate::clock;

/// A version without a receipt is collected after this time: its run may have been about to write one.
const COLLECT_AFTER: Duration = Duration::from_hours(24);

/// Removes leftovers if the last run ended uncleanly, and marks the vault for this one. We hold the lock, so every
/// temporary file is a leftover. The mark tells how far the place's clock is ahead of ours: a share has another one.
pub(super) fn after_unclean_end(place: &Place) -> Result<Option<i64>> {
    let mark = place.at(layout::DIRTY)?;
    if mark.exists() {
        remove_temporaries(&place.root)?;
        collect_versions(place)?;
    }
    let before = SystemTime::now();
    durable::replace(&mark, &place.how, |file| file.write_all(b""))?;
    let written = std::fs::symlink_metadata(&mark).and_then(|found| found.modified());
    Ok(written.ok().and_then(|written| clock::offset(before, SystemTime::now(), written)))
}

/// This run ended well.
pub(super) fn clean_end(place: &Place) -> Result<()> {
    durable::remove(&place.at(layout::DIRTY)?)
}

fn remove_temporaries(directory: &Path) -> Result<()> {
    durable::remove_temporaries(directory)?;
    let failed = |error| Error::io("list", directory, error);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            remove_temporaries(&entry.path())?;
        }
    }
    Ok(())
}

/// A version that was kept by a run which never made its successor live is a second copy of the live object.
fn collect_versions(place: &Place) -> Result<()> {
    let versions = place.root.join(layout::PRIVATE).join("versions");
    for dataset in names_in(&versions)? {
        for partition in names_in(&versions.join(&dataset))? {
            let directory = versions.join(&dataset).join(&partition);
            let receipts = place.root.join(layout::PRIVATE).join("manifests").join(&dataset).join(&partition);
            let newest = names_in(&receipts)?.iter().filter_map(|name| layout::parse_manifest_name(name)).max();
            let Some(newest) = newest else { continue };
            for name in names_in(&directory)? {
                let generation = name.split_once('-').and_then(|(g, _)| g.strip_prefix('g')?.parse::<u32>().ok());
                let path = directory.join(&name);
                // Its successor may be live, and have no receipt yet: then this is the only copy.
                if generation == Some(newest)
                    && is_older(&path, COLLECT_AFTER)
                    && is_live(place, &receipts.join(layout::manifest_name(newest)))?
                {
                    durable::remove(&path)?;
                }
            }
        }
    }
    Ok(())
}

/// Whether what a receipt names is what is live.
fn is_live(place: &Place, receipt: &Path) -> Result<bool> {
    let Some(text) = read_small(receipt)? else { return Ok(false) };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return Ok(false) };
    match &manifest.content {
        Content::Object(object) => Ok(place.look(&object.path)?.is_some_and(|seen| seen.sha256 == object.sha256)),
        Content::Tree { .. } => Ok(false),
    }
}

/// By the time the name was made, which for a hard link is the inode's change time.
fn is_older(path: &Path, than: Duration) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::symlink_metadata(path) else { return false };
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(found.ctime()).unwrap_or(0));
    SystemTime::now().duration_since(changed).is_ok_and(|age| age > than)
}
