//! What a run that ended uncleanly left behind is looked for only after such an end, which a mark tells.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cdrvault_pipeline::error::{Error, Result};
use cdrvault_pipeline::{durable, layout};

use super::place::{Place, names_in};

/// A version without a receipt is collected after this time: its run may have been about to write one.
const COLLECT_AFTER: Duration = Duration::from_hours(24);

/// Removes leftovers if the last run ended uncleanly, and marks the vault for this one. We hold the lock, so every
/// temporary file is a leftover.
pub(super) fn after_unclean_end(place: &Place) -> Result<()> {
    let mark = place.at(layout::DIRTY)?;
    if mark.exists() {
        remove_temporaries(&place.root)?;
        collect_versions(place)?;
        return Ok(());
    }
    durable::replace(&mark, &place.how, |file| file.write_all(b""))
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
            for name in names_in(&directory)? {
                let generation = name.split_once('-').and_then(|(g, _)| g.strip_prefix('g')?.parse::<u32>().ok());
                let of_live = generation.is_some() && generation == newest;
                let path = directory.join(&name);
                if of_live && is_older(&path, COLLECT_AFTER) {
                    durable::remove(&path)?;
                }
            }
        }
    }
    Ok(())
}

/// By the time the name was made, which for a hard link is the inode's change time.
fn is_older(path: &Path, than: Duration) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::symlink_metadata(path) else { return false };
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(found.ctime()).unwrap_or(0));
    SystemTime::now().duration_since(changed).is_ok_and(|age| age > than)
}
