//! The indexes of receipts at the far end. One that removes nothing by itself has those of the vault; one with a `keep` of
//! its own has its own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::index::{Generations, Index};
use cdrvault_format::layout;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::scratch::Scratch;
use cdrvault_plugin::sink::{Place as _, Vault as _};

use super::moment::below;
use super::{Indexes, Listing, MirroredVault, Transport};

impl<T: Transport> MirroredVault<T> {
    /// Keeps the indexes that came with other small files.
    pub(super) fn remember_indexes(&self, listing: &Listing, texts: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        let mut indexes = Indexes::new();
        for dataset in indexed_in(listing) {
            if let Some(text) = texts.get(&layout::index(&dataset)?) {
                let index = Index::of_text(text, &dataset);
                indexes.insert(dataset, index);
            }
        }
        self.with(|state| state.indexes = indexes);
        Ok(())
    }

    /// `Damaged` where it cannot be understood.
    pub(super) fn known_index(&self, dataset: &str) -> Result<Option<Index>> {
        let name = layout::index(dataset)?;
        let damaged = |why| Error::new(Kind::Damaged, format!("the index {}/{name}: {why}", self.describe()));
        self.with(|state| state.indexes.get(dataset).cloned()).transpose().map_err(damaged)
    }

    /// What the far end has now: a run may have sent something between its listing and its indexes.
    pub(super) async fn look_again(&self, cx: &Context) -> Result<()> {
        let names = self.listed(index_names);
        let texts = self.fetch_texts(cx, &names).await?;
        // After the index: what is removed on purpose goes from the index first.
        let listing = self.transport.list(cx).await?.listing.unwrap_or_default();
        self.remember_indexes(&listing, &texts)?;
        self.with(|state| {
            state.listing = Some(listing);
            state.sessions = None;
        });
        Ok(())
    }

    /// Adds to the indexes of these datasets what has a receipt there. One transfer, if there is anything to add.
    pub(super) async fn add_to_indexes(&self, cx: &Context, datasets: &BTreeSet<&str>) -> Result<()> {
        if self.capabilities().native_history {
            return self.mend_indexes(cx, datasets).await;
        }
        let mut changed = BTreeMap::new();
        for dataset in datasets {
            let standing = self.history_of(dataset)?;
            let old = match self.known_index(dataset) {
                Err(error) if error.kind() == Kind::Damaged => {
                    tracing::warn!("{}; it is rebuilt from the receipts that are there", error.one_line());
                    None
                }
                other => other?,
            };
            let new = match &old {
                None if standing.is_empty() => continue,
                None => Index::new(dataset, Generations::new()).with(&standing),
                Some(old) => old.clone().with(&standing),
            };
            if old.as_ref() != Some(&new) {
                changed.insert((*dataset).to_owned(), new);
            }
        }
        self.send_indexes(cx, changed).await
    }

    /// Takes out of the indexes what is to be removed there.
    pub(super) async fn take_from_indexes(&self, cx: &Context, gone: &[(Unit, u32)]) -> Result<()> {
        if self.capabilities().native_history {
            return Ok(());
        }
        let mut by_dataset: BTreeMap<&str, Vec<(Partition, u32)>> = BTreeMap::new();
        for (unit, generation) in gone {
            by_dataset.entry(&unit.dataset).or_default().push((unit.partition, *generation));
        }
        let mut changed = BTreeMap::new();
        for (dataset, gone) in by_dataset {
            let Some(Ok(old)) = self.with(|state| state.indexes.get(dataset).cloned()) else { continue };
            let new = old.clone().without(gone.into_iter());
            if new != old {
                changed.insert(dataset.to_owned(), new);
            }
        }
        self.send_indexes(cx, changed).await
    }

    /// They lie nowhere here but on their way.
    async fn send_indexes(&self, cx: &Context, indexes: BTreeMap<String, Index>) -> Result<()> {
        if indexes.is_empty() {
            return Ok(());
        }
        let (_, root) = self.mirrored()?;
        let scratch = Scratch::new(cx)?;
        let how = How { mode: mode_of(&root.join(layout::IDENTITY)), ..How::private() };
        durable::create_dirs(&scratch.path().join(layout::INDEXES), &how)?;
        let mut names = Vec::new();
        for (dataset, index) in &indexes {
            let name = layout::index(dataset)?;
            let text = index.to_text();
            let text = text.map_err(|error| Error::failed("cannot write an index as JSON").with_source(error))?;
            durable::create(&scratch.path().join(&name), &how, |file| std::io::Write::write_all(file, &text))?;
            names.push(name);
        }
        self.transport.send_small(cx, scratch.path(), &names).await?;
        self.with(|state| {
            let listing = state.listing.get_or_insert_default();
            listing.extend(names.into_iter().map(|name| (name, None)));
            state.indexes.extend(indexes.into_iter().map(|(dataset, index)| (dataset, Ok(index))));
        });
        Ok(())
    }

    /// Those of the vault travel with each session; but nothing of a file that is damaged there looks new.
    async fn mend_indexes(&self, cx: &Context, datasets: &BTreeSet<&str>) -> Result<()> {
        let damaged =
            self.with(|state| datasets.iter().any(|dataset| matches!(state.indexes.get(*dataset), Some(Err(_)))));
        if !damaged {
            return Ok(());
        }
        self.check_source(cx).await?;
        let (_, root) = self.mirrored()?;
        let parcel = self.parcel(cx, &BTreeSet::new()).await?;
        self.transport.mend(cx, root, &parcel).await?;
        self.look_again(cx).await
    }
}

/// The datasets that have an index.
pub(super) fn indexed_in(files: &Listing) -> Vec<String> {
    let start = format!("{}/", layout::INDEXES);
    let of = |name: &str| name.strip_suffix(".json").map(str::to_owned);
    below(files, &start).filter_map(of).filter(|name| layout::index(name).is_ok()).collect()
}

/// The names of the indexes that are there.
pub(super) fn index_names(files: &Listing) -> Vec<String> {
    indexed_in(files).iter().filter_map(|dataset| layout::index(dataset).ok()).collect()
}

fn mode_of(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}
