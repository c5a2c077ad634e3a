//! Whose vault the far end is, before anything is changed there.

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Expected, Identity, Place as _};

use super::index::index_names;
use super::moment::Moment;
use super::{Listing, MirroredVault, Transport};
use crate::vault;

impl<T: Transport> MirroredVault<T> {
    /// The identity of the vault over there, or its copy where it is damaged; whether it is whole.
    pub(super) async fn identity(&self, cx: &Context, listing: &Listing) -> Result<(Identity, bool)> {
        let mut damaged = None;
        // They are small, too, and come in the same transfer.
        let mut with_it = index_names(listing);
        for name in [layout::IDENTITY, layout::IDENTITY_COPY].into_iter().filter(|name| listing.contains_key(*name)) {
            let mut names = vec![name.to_owned()];
            names.append(&mut with_it);
            let texts = self.fetch_texts(cx, &names).await?;
            if damaged.is_none() {
                self.remember_indexes(listing, &texts)?;
            }
            let text = texts.get(name).map(Vec::as_slice).unwrap_or_default();
            match vault::parse_identity(&format!("{}/{name}", self.describe()), text) {
                Ok(identity) => return Ok((identity, damaged.is_none())),
                Err(error) if error.kind() == Kind::Damaged => damaged = damaged.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(damaged.unwrap_or_else(|| vault::no_vault(&self.describe())))
    }

    /// Undoing a transfer that was cut off changes the far end: only where that is ours. Where that cannot be read any
    /// more, it is if we have written there before.
    pub(super) async fn check_may_heal(&self, cx: &Context, expect: &Expected) -> Result<()> {
        let (_, root) = self.mirrored()?;
        let ours = expect.adopt || self.transport.was_same(cx, root, layout::IDENTITY).await?.unwrap_or(expect.known);
        if ours {
            return Ok(());
        }
        Err(Error::new(
            Kind::Refused,
            format!(
                "a transfer into {} was cut off, and nothing says that it is a copy of this vault",
                self.describe()
            ),
        )
        .hint("correct the place; if it is the right one, run once with --adopt-vault: the transfer is undone there"))
    }

    /// A lock does not travel. A far end that holds this very run's is not a copy, but the vault itself under another name.
    pub(super) async fn check_not_itself(&self, cx: &Context, listing: Option<&Listing>) -> Result<()> {
        if !listing.is_some_and(|listing| listing.contains_key(layout::LOCK)) {
            return Ok(());
        }
        let (_, root) = self.mirrored()?;
        let path = root.join(layout::LOCK);
        let ours = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        if self.fetch_small(cx, layout::LOCK, Moment::Now).await? != ours {
            return Ok(());
        }
        let message = format!("{} is the vault itself, in {}, and no copy of it", self.describe(), root.display());
        Err(Error::new(Kind::Refused, message).hint("mirror it to another place, or remove this sink"))
    }

    /// Whether the far end is a copy of what is mirrored, as it is now.
    pub(super) async fn check_identity(
        &self,
        cx: &Context,
        expect: &Expected,
        listing: Option<&Listing>,
    ) -> Result<bool> {
        let place = self.describe();
        let Some(listing) = listing.filter(|listing| !listing.is_empty()) else {
            if expect.known && !expect.adopt {
                return Err(Error::new(
                    Kind::Refused,
                    format!("there is no vault in {place}, although this pipeline wrote one there"),
                )
                .hint("see what happened to it; if it is lost, run once with --adopt-vault: it is filled again"));
            }
            return Ok(false);
        };
        if !listing.contains_key(layout::IDENTITY) {
            let ours = |name: &String| name.starts_with(&format!("{}/", layout::PRIVATE));
            return match listing.keys().find(|name| !ours(name)) {
                Some(name) if !expect.adopt => Err(Error::new(
                    Kind::Refused,
                    format!("{place} is not a vault and not empty: there is `{}`", name.escape_debug()),
                )
                .hint("name an empty place, or a new one; --adopt-vault makes a vault beside what is there")),
                _ => Ok(false),
            };
        }
        let (found, whole) = self.identity(cx, listing).await?;
        // One of an older version has no copy.
        let whole = whole && listing.contains_key(layout::IDENTITY_COPY);
        match &expect.mirrored {
            Some(mirrored) if found.vault != mirrored.vault && !expect.adopt => Err(Error::new(
                Kind::Refused,
                format!(
                    "{place} is a copy of another vault: {} of pipeline `{}`, made {}",
                    found.vault, found.pipeline, found.created
                ),
            )
            .hint("give each vault a mirror of its own; if this one is to be taken over, run once with --adopt-vault")),
            Some(mirrored) => Ok(whole && found == *mirrored),
            None => Ok(true),
        }
    }
}
