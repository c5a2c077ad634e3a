//! Whose vault it is. Writing into a foreign one, or into the empty mount point of a disk that is not mounted, loses data.

use std::path::Path;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::FORMAT;
use cdrvault_format::{checksum, layout};
use cdrvault_plugin::context::Writer;
use cdrvault_plugin::sink::{Expected, Identity};
use jiff::Timestamp;

use super::Store;

/// What [`check`] found, and what [`make`] has to write.
pub(super) struct Checked {
    pub(super) identity: Identity,
    write: Write,
}

enum Write {
    Nothing,
    /// It stays what it is: one of its copies is damaged or missing, has no checksum yet, or is of an older format.
    Again,
    /// There is none yet.
    New,
    /// In the place of another one.
    Adopted,
}

/// Looks at the vault; an error if we may not write there. Changes nothing.
pub(super) async fn check(store: &impl Store, writer: &Writer, expect: &Expected) -> Result<Checked> {
    let ours = |vault: String, created: Timestamp| Identity {
        format: FORMAT,
        vault,
        pipeline: writer.pipeline.clone(),
        writer: writer.id.clone(),
        databases: expect.databases.clone(),
        created,
    };
    let found = match read(store, expect.reading).await {
        // Nobody knows whose it is.
        Err(error) if error.kind() == Kind::Damaged && expect.adopt => {
            return Ok(Checked { identity: ours(new_id()?, Timestamp::now()), write: Write::Adopted });
        }
        other => other?,
    };
    let Some(Found { identity: found, whole }) = found else {
        if expect.reading {
            return Err(no_vault(&store.describe()));
        }
        may_make(store, expect).await?;
        if expect.probe_write {
            store.check_writable().await?;
        }
        return Ok(Checked { identity: ours(new_id()?, Timestamp::now()), write: Write::New });
    };
    if expect.reading {
        return Ok(Checked { identity: found, write: Write::Nothing });
    }
    let expected = ours(found.vault.clone(), found.created);
    let checked = match difference(&found, &expected) {
        None => {
            // The receipts that are written from now on are of this format: an older program is told here, before it reads
            // what it does not understand.
            let write = if whole && found.format == FORMAT { Write::Nothing } else { Write::Again };
            Checked { identity: Identity { format: FORMAT, ..found }, write }
        }
        Some(_) if expect.adopt => Checked { identity: expected, write: Write::Adopted },
        Some(difference) => return Err(Error::new(
            Kind::Refused,
            format!("the vault in {} is not this pipeline's: {difference}", store.describe()),
        )
        .hint("give each pipeline, host and copy of a host a vault of its own; if this one is to be taken over, run once with --adopt-vault")),
    };
    // What is somebody else's is not even probed.
    if expect.probe_write {
        store.check_writable().await?;
    }
    Ok(checked)
}

/// There is nothing to read.
pub(crate) fn no_vault(place: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no vault in {place}"))
        .hint("is the disk mounted, and is this the place that the pipeline names?")
}

/// Writes the identity, and makes the place of the vault where it is missing.
pub(super) async fn make(store: &impl Store, checked: &Checked) -> Result<()> {
    let text = || text_of(&checked.identity);
    match checked.write {
        Write::Nothing => return Ok(()),
        Write::Adopted => store.replace(layout::IDENTITY, text()?).await?,
        Write::Again => {
            // Somebody may have taken it over since it was looked at.
            let now = read(store, true).await?;
            let same = |now: Found| Identity { format: FORMAT, ..now.identity } == checked.identity;
            if !now.is_some_and(same) {
                return Err(Error::new(
                    Kind::Refused,
                    format!("the vault in {} was taken over just now", store.describe()),
                )
                .hint("see which host did it, and give each a vault of its own"));
            }
            store.replace(layout::IDENTITY, text()?).await?;
        }
        Write::New => {
            let raced = || {
                Error::new(
                    Kind::Refused,
                    format!("another run is making a vault in {} at this very moment", store.describe()),
                )
                .hint("see which, and give each pipeline a vault of its own")
            };
            // A place without a lock may have got a vault since it was looked at, and not every place can tell.
            if store.small(layout::IDENTITY).await?.is_some() {
                return Err(raced());
            }
            let made = store.create(layout::IDENTITY, text()?).await;
            made.map_err(|error| if error.kind() == Kind::Conflict { raced() } else { error })?;
        }
    }
    store.replace(layout::IDENTITY_COPY, text()?).await
}

/// What a vault says of itself.
struct Found {
    identity: Identity,
    /// It and its copy are as they are written today.
    whole: bool,
}

/// The identity, or its copy where it is damaged.
async fn read(store: &impl Store, only: bool) -> Result<Option<Found>> {
    let shown = store.show(layout::IDENTITY);
    let Some(text) = store.small(layout::IDENTITY).await? else { return Ok(None) };
    match parse(&shown, &text) {
        Ok(identity) => {
            let whole = only || store.small(layout::IDENTITY_COPY).await? == Some(text_of(&identity)?);
            Ok(Some(Found { identity, whole: whole && checksum::is_sealed(&text) }))
        }
        Err(error) if error.kind() == Kind::Damaged => {
            let copy = store.small(layout::IDENTITY_COPY).await?;
            let copy = copy.and_then(|text| parse(&store.show(layout::IDENTITY_COPY), &text).ok());
            let Some(identity) = copy else { return Err(error) };
            tracing::warn!("{}; its copy is used", error.one_line());
            Ok(Some(Found { identity, whole: false }))
        }
        Err(error) => Err(error),
    }
}

/// Whose vault it is now.
pub(super) async fn now(store: &impl Store) -> Result<Option<Identity>> {
    Ok(read(store, true).await?.map(|found| found.identity))
}

fn text_of(identity: &Identity) -> Result<Vec<u8>> {
    let text = serde_json::to_vec_pretty(identity).map(checksum::seal);
    text.map_err(|error| Error::failed("cannot write the vault's identity as JSON").with_source(error))
}

/// The identity that a `vault.json` tells, if we know its format.
pub(crate) fn parse(shown: &str, text: &[u8]) -> Result<Identity> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        format: u32,
    }
    let unreadable = || {
        Error::new(Kind::Damaged, format!("{shown} is not a vault's identity"))
            .hint("restore the file from a copy of the vault, or run once with --adopt-vault")
    };
    let damaged = |error: serde_json::Error| unreadable().with_source(error);
    checksum::check_if_sealed(text).map_err(|why| unreadable().with_source(why))?;
    // A newer format may have other fields, so its number is looked at first.
    let Versioned { format } = serde_json::from_slice(text).map_err(damaged)?;
    if format > FORMAT {
        return Err(Error::new(
            Kind::Refused,
            format!("the vault of {shown} has format {format}, and this cdrvault knows formats up to {FORMAT}"),
        )
        .hint("use a newer cdrvault for this vault"));
    }
    serde_json::from_slice(text).map_err(damaged)
}

/// Whether a vault may be made in a place that has none.
async fn may_make(store: &impl Store, expect: &Expected) -> Result<()> {
    let place = store.describe();
    if expect.known && !expect.adopt {
        return Err(Error::new(
            Kind::Refused,
            format!("there is no vault in {place}, although this pipeline wrote one there"),
        )
        .hint("is the disk mounted? If the vault is lost, run once with --adopt-vault: a new one is made and filled"));
    }
    store.check_place().await?;
    // A new file system has the first; and a run may have been cut short after the second.
    let ours = |name: &String| name == "lost+found" || name == layout::PRIVATE;
    match store.names("").await?.into_iter().find(|name| !ours(name)) {
        Some(name) if !expect.adopt => Err(Error::new(
            Kind::Refused,
            format!("{place} is not a vault and not empty: there is `{}`", name.escape_debug()),
        )
        .hint("name an empty place, or a new one; --adopt-vault makes a vault beside what is there")),
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
    Ok(hex::encode(bytes))
}
