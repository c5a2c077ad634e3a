//! Generations that are not live any more. A mirror has them under a name of their own; where the far end keeps history
//! itself, they are in the states that its sessions left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_format::manifest::{Content, Manifest};
use cdrvault_format::partition::Unit;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::ObjectStream;
use cdrvault_plugin::scratch::Scratch;
use cdrvault_plugin::sink::{Place as _, Vault};
use jiff::Timestamp;

use super::moment::{Moment, newest_in};
use super::{Listing, MirroredVault, Transport};
use crate::local;

impl<T: Transport> MirroredVault<T> {
    /// The sessions of the far end, in order.
    pub(super) async fn sessions(&self, cx: &Context) -> Result<Arc<Vec<i64>>> {
        if let Some(known) = self.with(|state| state.sessions.clone()) {
            return Ok(known);
        }
        let sessions = Arc::new(self.transport.sessions(cx).await?);
        self.with(|state| state.sessions = Some(Arc::clone(&sessions)));
        Ok(sessions)
    }

    /// What was there after a session.
    async fn listing_after(&self, cx: &Context, session: i64) -> Result<Arc<Listing>> {
        if let Some(known) = self.with(|state| state.past.get(&session).cloned()) {
            return Ok(known);
        }
        let listing = Arc::new(self.transport.list_at(cx, session).await?);
        self.with(|state| state.past.insert(session, Arc::clone(&listing)));
        Ok(listing)
    }

    /// Where a generation is, or `None` where the history has it no more, or never had it: it was replaced before a
    /// session came. Only what a session left can tell: receipts may have gone from the local vault since.
    pub(super) async fn moment(&self, cx: &Context, manifest: &Manifest) -> Result<Option<Moment>> {
        if !self.capabilities().native_history || self.is_here(manifest)? {
            return Ok(Some(Moment::Now));
        }
        let (unit, generation) = (&manifest.unit, manifest.generation);
        // Sessions and receipts are told apart by the second.
        let received = manifest.received.unwrap_or(manifest.sealed).as_second();
        let sessions = self.sessions(cx).await?;
        for session in sessions.iter().copied().filter(|session| *session >= received) {
            let listing = self.listing_after(cx, session).await?;
            match newest_in(&listing, unit)? {
                // It began before the generation came.
                Some(newest) if newest < generation => {}
                None => {}
                Some(newest) if newest == generation => return Ok(Some(Moment::After(session))),
                Some(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Whether its objects are among what is there now.
    fn is_here(&self, manifest: &Manifest) -> Result<bool> {
        let newest = self.listed(|files| newest_in(files, &manifest.unit))?;
        if newest == Some(manifest.generation) {
            return Ok(true);
        }
        // Bodies stay as long as any generation names them.
        Ok(matches!(manifest.content, Content::Tree { .. }) && self.has_objects(manifest)?)
    }

    /// The names under which the objects of a generation may be at that moment.
    async fn names_of(&self, cx: &Context, manifest: &Manifest, moment: Moment) -> Result<Vec<String>> {
        let mut names = Vec::new();
        match &manifest.content {
            Content::Object(object) => {
                let kept = layout::version(&manifest.unit, manifest.generation, &object.sha256)?;
                let both = [object.path.clone(), kept].into_iter();
                match moment {
                    Moment::Now => names.extend(both.filter(|name| self.listed(|files| files.contains_key(name)))),
                    Moment::After(session) => {
                        let listing = self.listing_after(cx, session).await?;
                        names.extend(both.filter(|name| listing.contains_key(name)));
                    }
                }
            }
            Content::Tree { entries } => {
                for stored in entries.iter().filter_map(|entry| entry.stored.as_ref()) {
                    names.push(layout::object(&stored.sha256)?);
                }
                names.sort();
                names.dedup();
            }
        }
        Ok(names)
    }

    /// The objects of a generation, from wherever they are.
    pub(super) async fn fetch_objects(&self, cx: &Context, manifest: &Manifest) -> Result<(Scratch, ObjectStream)> {
        let Some(moment) = self.moment(cx, manifest).await? else { return Err(self.has_no_more(manifest)) };
        let names = self.names_of(cx, manifest, moment).await?;
        let directory = Scratch::new(cx)?;
        self.transport.fetch(cx, &names, directory.path(), moment.session()).await?;
        let objects = local::vault_in(directory.path()).read(cx, manifest).await?;
        Ok((directory, objects))
    }

    fn has_no_more(&self, manifest: &Manifest) -> Error {
        let (unit, generation) = (&manifest.unit, manifest.generation);
        Error::new(
            Kind::NotFound,
            format!("{unit} generation {generation} is not in the history of {}", self.describe()),
        )
        .hint("its `keep` dropped it, or it was replaced before it was sent; another sink may have it")
    }

    /// One transfer for each state that the generations are in.
    pub(super) async fn fetch_ahead(&self, cx: &Context, manifests: &[Manifest]) -> Result<()> {
        let mut wanted: BTreeMap<Moment, BTreeSet<String>> = BTreeMap::new();
        for manifest in manifests {
            if let Some(moment) = self.moment(cx, manifest).await? {
                wanted.entry(moment).or_default().extend(self.names_of(cx, manifest, moment).await?);
            }
        }
        if let Some(now) = wanted.get_mut(&Moment::Now) {
            now.retain(|name| self.listed(|files| files.contains_key(name)));
        }
        self.with(|state| state.ahead.clear());
        for (moment, names) in wanted.into_iter().filter(|(_, names)| !names.is_empty()) {
            let directory = Scratch::new(cx)?;
            self.transport.fetch(cx, &Vec::from_iter(names), directory.path(), moment.session()).await?;
            self.with(|state| state.ahead.push(Arc::new(directory)));
        }
        Ok(())
    }

    /// Receipts that went since are known again: those of the states before and after that time.
    pub(super) async fn remember(&self, cx: &Context, at: Timestamp) -> Result<()> {
        let sessions = self.sessions(cx).await?;
        let next = sessions.partition_point(|session| *session <= at.as_second());
        let around = [next.checked_sub(1), Some(next)].into_iter().flatten();
        for session in around.filter_map(|index| sessions.get(index).copied()) {
            let listing = self.listing_after(cx, session).await?;
            self.with(|state| state.remembered.insert(session, listing));
        }
        Ok(())
    }

    /// Everything of the history goes that is of no use at this time or a later one.
    pub(super) async fn forget(&self, cx: &Context, before: Timestamp) -> Result<()> {
        let sessions = self.sessions(cx).await?;
        // A state is what was true from its session to the next one.
        let needed = sessions.iter().copied().rfind(|session| *session <= before.as_second());
        match needed {
            Some(needed) if sessions.first().is_some_and(|oldest| *oldest < needed) => {
                self.with(|state| state.sessions = None);
                self.transport.forget_before(cx, needed).await
            }
            _ => Ok(()),
        }
    }

    /// An error when a file of the local vault that is to be mirrored was changed by other hands since the last session:
    /// a session takes whatever lies there, also of units that nobody told us of.
    pub(super) async fn check_untouched(&self, cx: &Context, queue: &BTreeSet<Unit>) -> Result<()> {
        let Some(last) = self.sessions(cx).await?.last().copied() else { return Ok(()) };
        let (mirrored, root) = self.mirrored()?;
        for dataset in self.selected() {
            for (partition, generations) in mirrored.history(cx, &dataset).await? {
                let unit = Unit::new(&dataset, partition);
                // What was noted in this run was also checked in this run.
                if queue.contains(&unit) {
                    continue;
                }
                let live = root.join(layout::live_path(&unit, "x")?);
                let mut touched = files_in(live.parent().unwrap_or(root)).any(|file| is_newer(&file, last));
                for generation in &generations {
                    let receipt = root.join(layout::manifest(&unit, *generation)?);
                    if is_newer(&receipt, last) {
                        mirrored.manifest(cx, &unit, *generation).await.map_err(|error| self.refused(&unit, error))?;
                        touched = true;
                    }
                }
                if touched && mirrored.live(cx, &unit).await?.intact().is_none() {
                    let error = Error::new(Kind::Damaged, "it is not what its receipt says");
                    return Err(self.refused(&unit, error));
                }
            }
        }
        Ok(())
    }

    fn refused(&self, unit: &Unit, why: Error) -> Error {
        let place = self.describe();
        let message = format!("nothing is sent to {place}: {unit} was changed in the local vault: {}", why.one_line());
        Error::new(Kind::Refused, message).hint("`verify --repair` brings it back from another sink")
    }
}

fn files_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Whether a file was written, replaced or renamed at this second or later: nobody can turn that time back.
fn is_newer(path: &Path, second: i64) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.ctime() >= second)
}
