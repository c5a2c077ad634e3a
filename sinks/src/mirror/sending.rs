//! What travels to the far end, and when nothing may.

use std::collections::{BTreeMap, BTreeSet};

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_format::manifest::Content;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Held, Place as _, Vault as _};

use super::{MirroredVault, Parcel, Transport, datasets_in};

impl<T: Transport> MirroredVault<T> {
    /// The datasets that belong there: those of the flows that list this sink and, where a session makes the far end like
    /// the vault, those that it has from flows that once did.
    pub(super) fn selected(&self) -> BTreeSet<String> {
        let mut datasets = BTreeSet::from_iter(self.around.datasets.iter().cloned());
        if self.capabilities().native_history {
            datasets.extend(self.listed(datasets_in));
        }
        datasets
    }

    /// An error when the local vault lacks what the far end holds: it was lost, or damaged, and must not be mirrored.
    pub(super) async fn check_source(&self, cx: &Context) -> Result<()> {
        let (mirrored, _) = self.mirrored()?;
        for dataset in &self.selected() {
            let here = mirrored.index(cx, dataset).await?;
            let hint = if self.around.datasets.contains(dataset) {
                "the next run fills the local vault from there; if it cannot, see what it says of that vault"
            } else {
                "no flow sends that dataset there any more, and a session would drop it: bring it back into the local \
                 vault, or begin a new place"
            };
            for (partition, there) in self.history_of(dataset)? {
                let whole = |held: &Held| held.object_there && Some(held.generation) >= there.last().copied();
                if !here.get(&partition).is_some_and(whole) {
                    return Err(Error::new(
                        Kind::Refused,
                        format!(
                            "nothing is sent to {}: it holds {dataset} {partition}, and {} does not",
                            self.describe(),
                            mirrored.describe()
                        ),
                    )
                    .hint(hint));
                }
            }
        }
        Ok(())
    }

    /// Where the name of what is live changed, with its encodings, the old name goes.
    fn leave_old_name(&self, old: &str, newest: Option<&str>) {
        if newest.is_none_or(|newest| newest == old) {
            return;
        }
        self.with(|state| {
            if state.listing.as_mut().is_some_and(|listing| listing.remove(old).is_some()) {
                state.removals.push(old.to_owned());
            }
        });
    }

    /// What has to travel so that the far end has what is noted.
    pub(super) async fn parcel(&self, cx: &Context, queue: &BTreeSet<Unit>) -> Result<Parcel> {
        let (mirrored, root) = self.mirrored()?;
        let keeps_history = self.capabilities().native_history;
        let mut parcel = Parcel { datasets: Vec::from_iter(self.selected()), ..Parcel::default() };
        if self.with(|state| state.identity_differs) {
            let copy = Some(layout::IDENTITY_COPY).filter(|name| root.join(name).is_file());
            parcel.identity.extend([Some(layout::IDENTITY), copy].into_iter().flatten().map(str::to_owned));
        }
        let mut histories = BTreeMap::new();
        for dataset in &parcel.datasets {
            histories.insert(dataset.clone(), (mirrored.history(cx, dataset).await?, self.history_of(dataset)?));
        }
        for unit in queue {
            let Some((here, there)) = histories.get(&unit.dataset) else { continue };
            let here = here.get(&unit.partition).cloned().unwrap_or_default();
            let highest = there.get(&unit.partition).and_then(|there| there.last()).copied().unwrap_or(0);
            let newest = match here.last() {
                Some(generation) => match mirrored.manifest(cx, unit, *generation).await?.content {
                    Content::Object(object) => Some(object.path),
                    Content::Tree { .. } => None,
                },
                None => None,
            };
            // What it had is not sent again: it may have been pruned there.
            for generation in here.iter().copied().filter(|generation| *generation >= highest) {
                let manifest = mirrored.manifest(cx, unit, generation).await?;
                parcel.receipts.push(layout::manifest(unit, generation)?);
                match &manifest.content {
                    Content::Object(object) if Some(&generation) == here.last() => {
                        parcel.objects.push(object.path.clone());
                    }
                    Content::Object(object) if !keeps_history => {
                        self.leave_old_name(&object.path, newest.as_deref());
                        let version = layout::version(unit, generation, &object.sha256)?;
                        // That of a day that had not ended was not kept.
                        if root.join(&version).exists() {
                            parcel.objects.push(version);
                        }
                    }
                    Content::Object(_) => {}
                    Content::Tree { entries } => {
                        for stored in entries.iter().filter_map(|entry| entry.stored.as_ref()) {
                            let name = layout::object(&stored.sha256)?;
                            let bytes = Some(stored.bytes);
                            if !self.listed(|files| {
                                files.get(&name).is_some_and(|length| length.is_none() || *length == bytes)
                            }) {
                                parcel.objects.push(name);
                            }
                        }
                    }
                }
            }
            let notes = layout::notes(unit)?;
            if root.join(&notes).exists() {
                parcel.receipts.push(notes);
            }
        }
        // What else removes receipts there has an index of its own.
        for dataset in parcel.datasets.iter().filter(|_| keeps_history) {
            let index = layout::index(dataset)?;
            if root.join(&index).is_file() {
                parcel.receipts.push(index);
            }
        }
        parcel.objects.sort();
        parcel.objects.dedup();
        for (dataset, (history, _)) in histories.iter().filter(|_| keeps_history) {
            for generation in history.get(&Partition::Snapshot).into_iter().flatten() {
                let manifest = self.receipt(cx, &Unit::new(dataset, Partition::Snapshot), *generation).await?;
                if let Content::Tree { entries } = &manifest.content {
                    let stored = entries.iter().filter_map(|entry| entry.stored.as_ref());
                    parcel.bodies.extend(stored.map(|stored| stored.sha256.clone()));
                }
            }
        }
        Ok(parcel)
    }
}
