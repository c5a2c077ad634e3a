//! Receipts of the far end. The local vault has the same bytes; where it lacks some, they are fetched together.

use std::collections::BTreeMap;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::Unit;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::scratch::Scratch;
use cdrvault_plugin::sink::Place as _;

use super::moment::Moment;
use super::{MirroredVault, Transport};
use crate::vault;

impl<T: Transport> MirroredVault<T> {
    /// A receipt, from the local vault where it has it whole; they are the same bytes.
    pub(super) async fn receipt(&self, cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        let mut here = self.has_not(unit, generation);
        if let Some(mirrored) = &self.around.mirrored {
            match mirrored.manifest(cx, unit, generation).await {
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Damaged) => here = error,
                other => return other,
            }
        }
        let name = layout::manifest(unit, generation)?;
        let Some(moment) = self.moment_of(&name) else { return Err(here) };
        self.fetch_receipts(cx, &unit.dataset).await?;
        let known = || self.with(|state| state.receipts.get(&name).cloned());
        if known().is_none() {
            let text = self.fetch_small(cx, &name, moment).await?;
            self.with(|state| state.receipts.insert(name.clone(), text));
        }
        let text = known().unwrap_or_default();
        vault::parse_manifest(&format!("{}/{name}", self.describe()), &text, unit, generation)
    }

    pub(super) fn has_not(&self, unit: &Unit, generation: u32) -> Error {
        Error::new(Kind::NotFound, format!("{unit} has no generation {generation} in {}", self.describe()))
    }

    /// Fetches all receipts at once that the local vault lacks: it may have been lost, or there is none here.
    pub(super) async fn fetch_receipts(&self, cx: &Context, dataset: &str) -> Result<()> {
        let here = match &self.around.mirrored {
            Some(mirrored) => mirrored.history(cx, dataset).await?,
            None => BTreeMap::new(),
        };
        let mut names = Vec::new();
        for (partition, generations) in self.history_of(dataset)? {
            let here = here.get(&partition);
            for generation in generations {
                if here.is_none_or(|here| !here.contains(&generation)) {
                    names.push(layout::manifest(&Unit::new(dataset, partition), generation)?);
                }
            }
        }
        names.retain(|name| self.with(|state| !state.receipts.contains_key(name)));
        if names.is_empty() {
            return Ok(());
        }
        let mut by_moment: BTreeMap<Moment, Vec<String>> = BTreeMap::new();
        for name in names {
            if let Some(moment) = self.moment_of(&name) {
                by_moment.entry(moment).or_default().push(name);
            }
        }
        for (moment, names) in by_moment {
            let directory = Scratch::new(cx)?;
            self.transport.fetch(cx, &names, directory.path(), moment.session()).await?;
            for name in names {
                let path = directory.path().join(&name);
                let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
                self.with(|state| state.receipts.insert(name, text));
            }
        }
        Ok(())
    }

    /// Some small files as they are now, in one transfer.
    pub(super) async fn fetch_texts(&self, cx: &Context, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
        let directory = Scratch::new(cx)?;
        self.transport.fetch(cx, names, directory.path(), None).await?;
        let mut texts = BTreeMap::new();
        for name in names {
            let path = directory.path().join(name);
            let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
            texts.insert(name.clone(), text);
        }
        Ok(texts)
    }

    pub(super) async fn fetch_small(&self, cx: &Context, name: &str, moment: Moment) -> Result<Vec<u8>> {
        let directory = Scratch::new(cx)?;
        self.transport.fetch(cx, &[name.to_owned()], directory.path(), moment.session()).await?;
        let path = directory.path().join(name);
        std::fs::read(&path).map_err(|error| Error::io("read", &path, error))
    }
}
