//! Whose vault it is. Writing into a foreign one, or into the empty mount point of a disk that is not mounted, loses data.

use std::io::Write as _;
use std::path::Path;

use cdrvault_pipeline::context::Writer;
use cdrvault_pipeline::durable;
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::layout;
use cdrvault_pipeline::manifest::FORMAT;
use cdrvault_pipeline::sink::{Expected, Identity};
use jiff::Timestamp;

use super::Place;

/// What [`check`] found, and what [`make`] has to write.
pub(super) struct Checked {
    pub(super) identity: Identity,
    write: bool,
}

/// Looks at the vault; an error if we may not write there. Changes nothing.
pub(super) fn check(place: &Place, writer: &Writer, expect: &Expected) -> Result<Checked> {
    let path = place.at(layout::IDENTITY)?;
    let ours = |vault: String, created: Timestamp| Identity {
        format: FORMAT,
        vault,
        pipeline: writer.pipeline.clone(),
        writer: writer.id.clone(),
        databases: expect.databases.clone(),
        created,
    };
    let found = match std::fs::read(&path) {
        Ok(text) => parse(&path, &text)?,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            may_make(place, expect)?;
            return Ok(Checked { identity: ours(new_id()?, Timestamp::now()), write: true });
        }
        Err(error) => return Err(Error::io("read the vault's identity", &path, error)),
    };
    let expected = ours(found.vault.clone(), found.created);
    if expect.probe_write {
        rustix::fs::access(&place.root, rustix::fs::Access::WRITE_OK)
            .map_err(|error| Error::io("write into the vault", &place.root, error.into()))?;
    }
    let foreign = difference(&found, &expected);
    match foreign {
        None => Ok(Checked { identity: found, write: false }),
        Some(_) if expect.adopt => Ok(Checked { identity: expected, write: true }),
        Some(difference) => Err(Error::new(
            Kind::Refused,
            format!("the vault in {} is not this pipeline's: {difference}", place.root.display()),
        )
        .hint("give each pipeline, host and copy of a host a vault of its own; if this one is to be taken over, run once with --adopt-vault")),
    }
}

/// Writes the identity, and the directory of the vault where it is missing.
pub(super) fn make(place: &Place, checked: &Checked) -> Result<()> {
    if !checked.write {
        return Ok(());
    }
    durable::create_dirs(&place.root, &place.how)?;
    let path = place.make(layout::IDENTITY)?;
    let text = serde_json::to_vec_pretty(&checked.identity)
        .map_err(|error| Error::failed("cannot write the vault's identity as JSON").with_source(error))?;
    durable::replace(&path, &place.how, |file| file.write_all(&text))
}

fn parse(path: &Path, text: &[u8]) -> Result<Identity> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        format: u32,
    }
    let damaged = |error: serde_json::Error| {
        Error::new(Kind::Damaged, format!("{} is not a vault's identity", path.display()))
            .with_source(error)
            .hint("restore the file from a copy of the vault, or run once with --adopt-vault after removing it")
    };
    // A newer format may have other fields, so its number is looked at first.
    let Versioned { format } = serde_json::from_slice(text).map_err(damaged)?;
    if format > FORMAT {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the vault of {} has format {format}, and this cdrvault knows formats up to {FORMAT}",
                path.display()
            ),
        )
        .hint("use a newer cdrvault for this vault"));
    }
    serde_json::from_slice(text).map_err(damaged)
}

/// Whether a vault may be made in a place that has none.
fn may_make(place: &Place, expect: &Expected) -> Result<()> {
    let root = &place.root;
    if expect.known && !expect.adopt {
        return Err(Error::new(
            Kind::Refused,
            format!("there is no vault in {}, although this pipeline wrote one there", root.display()),
        )
        .hint("is the disk mounted? If the vault is lost, run once with --adopt-vault: a new one is made and filled"));
    }
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let above = root.parent().unwrap_or(Path::new("/"));
            if above.as_os_str().is_empty() || above.is_dir() {
                return Ok(());
            }
            return Err(Error::new(
                Kind::Refused,
                format!("cannot make the vault {}: there is no directory {}", root.display(), above.display()),
            )
            .hint("is the disk mounted? If so, make the directory first"));
        }
        Err(error) => return Err(Error::io("open the vault", root, error)),
    };
    let strange = entries.filter_map(Result::ok).map(|entry| entry.file_name()).find(|name| {
        // A new file system has this one; and a first run may have been cut short.
        name != "lost+found" && name != layout::PRIVATE
    });
    match strange {
        Some(name) if !expect.adopt => Err(Error::new(
            Kind::Refused,
            format!(
                "{} is no vault and not empty: there is `{}`",
                root.display(),
                name.to_string_lossy().escape_debug()
            ),
        )
        .hint("name an empty directory, or a new one; --adopt-vault makes a vault beside what is there")),
        _ => Ok(()),
    }
}

fn difference(found: &Identity, expected: &Identity) -> Option<String> {
    if found.pipeline != expected.pipeline {
        return Some(format!("pipeline `{}` writes it, and this one is `{}`", found.pipeline, expected.pipeline));
    }
    if found.writer != expected.writer {
        return Some(format!(
            "writer {} writes it, and this host with this state directory is {}",
            found.writer, expected.writer
        ));
    }
    if found.databases != expected.databases {
        return Some(format!(
            "it is a backup of {}, and this pipeline reads {}",
            list(&found.databases),
            list(&expected.databases)
        ));
    }
    None
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no database".to_owned() } else { names.join(", ") }
}

/// 32 hex digits that no other vault has.
fn new_id() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    let random = Path::new("/dev/urandom");
    let mut file = std::fs::File::open(random).map_err(|error| Error::io("open", random, error))?;
    file.read_exact(&mut bytes).map_err(|error| Error::io("read", random, error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
