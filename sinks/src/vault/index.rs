//! The indexes of receipts, and how they are kept up to date.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::index::{Generations, Index};
use cdrvault_format::layout;
use cdrvault_format::partition::{Partition, Unit};

use super::store::Seen;
use super::{Store, StoredVault, reading};

/// Another run may write the same index at the same time, if two hosts think that the vault is theirs.
const TRIES: u32 = 5;

impl<S: Store> StoredVault<S> {
    /// As it is stored now; `Damaged` where it cannot be understood.
    pub(super) async fn read_index(&self, dataset: &str) -> Result<Option<Index>> {
        let name = layout::index(dataset)?;
        let index = match self.store.small(&name).await? {
            None => None,
            Some(text) => {
                let damaged = |why| Error::new(Kind::Damaged, format!("the index {}: {why}", self.store.show(&name)));
                Some(Index::of_text(&text, dataset).map_err(damaged)?)
            }
        };
        self.remember(dataset, index.clone());
        Ok(index)
    }

    /// The highest generation that must have a receipt. It is read once: only we change it.
    pub(super) async fn newest_recorded(&self, unit: &Unit) -> Result<Option<u32>> {
        Ok(self.known_index(&unit.dataset).await?.and_then(|index| index.newest(unit.partition)))
    }

    pub(super) async fn known_index(&self, dataset: &str) -> Result<Option<Index>> {
        if let Some(known) = self.indexes.lock().unwrap_or_else(PoisonError::into_inner).get(dataset) {
            return Ok(known.clone());
        }
        match self.read_index(dataset).await {
            Err(error) if error.kind() == Kind::Damaged => {
                self.remember(dataset, None);
                Ok(None)
            }
            other => other,
        }
    }

    fn remember(&self, dataset: &str, index: Option<Index>) {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).insert(dataset.to_owned(), index);
    }

    /// See [`cdrvault_plugin::sink::Vault::record`].
    pub(super) async fn add_to_index(&self, dataset: &str) -> Result<()> {
        let standing = reading::history(&*self.store, dataset).await?;
        self.change_index(dataset, |index| match index {
            None if standing.is_empty() => None,
            None => Some(Index::new(dataset, Generations::new()).with(&standing)),
            Some(index) => Some(index.with(&standing)),
        })
        .await
    }

    /// See [`cdrvault_plugin::sink::Vault::unrecord`].
    pub(super) async fn take_from_index(&self, gone: &[(Unit, u32)]) -> Result<()> {
        let mut by_dataset: BTreeMap<&str, Vec<(Partition, u32)>> = BTreeMap::new();
        for (unit, generation) in gone {
            by_dataset.entry(&unit.dataset).or_default().push((unit.partition, *generation));
        }
        for (dataset, gone) in by_dataset {
            let take = |index: Option<Index>| index.map(|index| index.without(gone.iter().copied()));
            let known = self.known_index(dataset).await?;
            if known != take(known.clone()) {
                self.change_index(dataset, take).await?;
            }
        }
        Ok(())
    }

    async fn change_index(&self, dataset: &str, change: impl Fn(Option<Index>) -> Option<Index>) -> Result<()> {
        let name = layout::index(dataset)?;
        let mut tries = 0;
        loop {
            tries += 1;
            // What is written over is what is read afterwards, or older: then the write is refused where the place can tell.
            let seen: Option<Seen> = self.store.look(&name).await?;
            let (old, damaged) = match self.read_index(dataset).await {
                Ok(old) => (old, false),
                Err(error) if error.kind() == Kind::Damaged => {
                    tracing::warn!("{}; it is rebuilt from the receipts that are there", error.one_line());
                    (None, true)
                }
                Err(error) => return Err(error),
            };
            let Some(new) = change(old.clone()) else { return Ok(()) };
            if old.as_ref() == Some(&new) && !damaged {
                return Ok(());
            }
            self.still_ours().await?;
            let text = new.to_text();
            let text = text.map_err(|error| Error::failed("cannot write an index as JSON").with_source(error))?;
            match self.store.swap(&name, text, seen.as_ref()).await {
                Err(error) if error.kind() == Kind::Conflict && tries < TRIES => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.remember(dataset, Some(new));
                    return Ok(());
                }
            }
        }
    }
}
