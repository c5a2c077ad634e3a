//! What one sink lost, or holds damaged, comes back from another that holds it whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::findings::{Finding, Problem};
use super::look::Held;
use super::rebuild::rebuild;
use super::{Fetched, compare, undo};
use crate::config::Pipeline;
use crate::opened::Opened;
use crate::opening::open_to_prune;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{Content, Manifest};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Sealed, Vault};

/// See the module.
pub(super) struct Mending<'a> {
    cx: &'a Context,
    pipeline: &'a Arc<Pipeline>,
    codecs: &'a Codecs,
    /// To read from: those that were verified, and then all others.
    places: Vec<(String, Arc<dyn Vault>)>,
    /// Those that cannot be read.
    silent: Vec<String>,
}

impl<'a> Mending<'a> {
    pub(super) fn new(cx: &'a Context, pipeline: &'a Arc<Pipeline>, codecs: &'a Codecs, all: &[Held]) -> Self {
        let places = all.iter().map(|held| (held.name.clone(), Arc::clone(&held.sink))).collect();
        Self { cx, pipeline, codecs, places, silent: Vec::new() }
    }

    /// Under the locks of a run. What cannot be mended stays a finding, which says why.
    pub(super) async fn mend(&mut self, findings: &mut [Finding]) -> Result<()> {
        let hurt = |finding: &Finding| {
            use Problem::{Behind, Damaged, DamagedNotes, DamagedReceipt, Missing, MissingReceipt};
            matches!(finding.problem, Damaged | Missing | DamagedReceipt | MissingReceipt | DamagedNotes | Behind)
        };
        if !findings.iter().any(hurt) {
            return Ok(());
        }
        let verified = self.places.len();
        let (_guard, _, opened) =
            open_to_prune(self.cx, Arc::clone(self.pipeline), &[], std::time::Duration::ZERO, false).await?;
        let mended = self.mend_all(&opened, findings, hurt).await;
        for (_, sink) in self.places.drain(verified..) {
            sink.close().await;
        }
        opened.close().await;
        mended
    }

    async fn mend_all(
        &mut self,
        opened: &Opened,
        findings: &mut [Finding],
        hurt: impl Fn(&Finding) -> bool,
    ) -> Result<()> {
        for spec in &self.pipeline.sinks {
            if self.places.iter().any(|(name, _)| *name == spec.name) {
                continue;
            }
            match super::open(self.cx, spec).await {
                Ok((sink, _)) => self.places.push((spec.name.clone(), sink)),
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => self.silent.push(error.one_line()),
            }
        }
        // A mirror is mended from the local vault, so that comes first; and receipts say what objects should be.
        let notes = findings.iter_mut().filter(|finding| finding.problem == Problem::DamagedNotes);
        self.mend_notes(opened, notes.collect()).await?;
        let left = |index: &usize| hurt(&findings[*index]) && findings[*index].problem != Problem::DamagedNotes;
        let mut order: Vec<usize> = (0..findings.len()).filter(left).collect();
        order.sort_by_key(|index| {
            let finding = &findings[*index];
            let mirror = opened.sinks.iter().any(|open| open.name == finding.sink && open.mirrors.is_some());
            (mirror, !matches!(finding.problem, Problem::DamagedReceipt | Problem::MissingReceipt))
        });
        let mut named = Vec::new();
        for finding in order {
            let finding = &mut findings[finding];
            match self.mend_one(opened, finding).await {
                Ok(manifest) => {
                    finding.repaired = true;
                    if let Content::Object(object) = manifest.content {
                        named.push((finding.sink.clone(), object.path));
                    }
                }
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => {
                    finding.detail += &format!("; it cannot be repaired: {}", error.one_line());
                    if let Some(hint) = error.hint_text() {
                        finding.detail += &format!("; {hint}");
                    }
                }
            }
        }
        let mended = findings.iter().filter(|finding| finding.repaired);
        let places: BTreeSet<(String, String)> =
            mended.filter_map(|one| Some((one.sink.clone(), one.unit.as_ref()?.dataset.clone()))).collect();
        for (name, dataset) in places {
            let open = opened.sinks.iter().find(|open| open.name == name);
            if let Some(Ok(sink)) = open.map(|open| &open.sink) {
                sink.record(self.cx, &dataset).await?;
            }
        }
        // What no receipt named has its receipt again.
        for finding in findings.iter_mut().filter(|finding| finding.problem == Problem::Extra) {
            finding.repaired = named.iter().any(|(sink, path)| *sink == finding.sink && *path == finding.detail);
        }
        Ok(())
    }

    /// Notes that cannot be understood are replaced by some that pin everything, an index is made anew from the receipts, and
    /// an identity was mended when the sink was opened, from its copy.
    async fn mend_notes(&self, opened: &Opened, findings: Vec<&mut Finding>) -> Result<()> {
        for finding in findings {
            let open = opened.sinks.iter().find(|open| open.name == finding.sink);
            let Some(Ok(sink)) = open.map(|open| &open.sink) else { continue };
            let datasets: BTreeSet<String> = sink.datasets(self.cx).await?.into_iter().collect();
            if let Some(unit) = &finding.unit {
                sink.put_notes(self.cx, unit, &sink.notes(self.cx, unit).await?).await?;
            } else {
                for dataset in &datasets {
                    sink.record(self.cx, dataset).await?;
                }
            }
            let left = sink.damaged_notes(self.cx, &datasets).await?;
            finding.repaired = left.iter().all(|(_, detail)| *detail != finding.detail);
        }
        Ok(())
    }

    async fn mend_one(&self, opened: &Opened, finding: &Finding) -> Result<Manifest> {
        let (Some(unit), Some(generation)) = (&finding.unit, finding.generation) else {
            return Err(Error::failed("nothing is known of it"));
        };
        let open = opened.sinks.iter().find(|open| open.name == finding.sink);
        let to: &Arc<dyn Vault> = match open.map(|open| &open.sink) {
            Some(Ok(sink)) => sink,
            Some(Err(error)) => return Err(Error::new(error.kind(), error.one_line())),
            None => return Err(Error::failed("there is no such sink")),
        };
        let own = match finding.problem {
            Problem::DamagedReceipt | Problem::MissingReceipt | Problem::Behind => None,
            _ => {
                let here = self.places.iter().find(|(name, _)| *name == finding.sink);
                let (_, here) = here.ok_or_else(|| Error::failed("its receipt is not known"))?;
                Some(here.manifest(self.cx, unit, generation).await?)
            }
        };
        let Some(sound) = self.sound_elsewhere(&finding.sink, unit, generation, own.as_ref()).await? else {
            match finding.problem {
                Problem::DamagedReceipt => return Err(self.set_aside(to, unit, generation).await?),
                Problem::MissingReceipt => return self.make_anew(to, &finding.sink, unit, generation).await,
                _ => {}
            }
            return Err(Error::new(Kind::NotFound, "no other sink holds it whole"));
        };
        let sealed = Sealed { manifest: own.unwrap_or_else(|| sound.manifest.clone()), bodies: sound.bodies().clone() };
        to.mend(self.cx, &sealed).await?;
        // Not what was fetched before: what is there now.
        let spec = self.pipeline.sink(&finding.sink).ok_or_else(|| Error::failed("there is no such sink"))?;
        let (again, _) = super::open(self.cx, spec).await?;
        let checking = async {
            let manifest = again.manifest(self.cx, unit, generation).await?;
            self.check(&again, &manifest).await?;
            Ok(manifest)
        };
        let done = checking.await;
        again.close().await;
        done
    }

    /// From the object itself, if that is what is live. Otherwise nobody knows any more what the generation was, and its
    /// receipt is not asked for again.
    async fn make_anew(&self, to: &Arc<dyn Vault>, name: &str, unit: &Unit, generation: u32) -> Result<Manifest> {
        let here = self.places.iter().find(|(other, _)| other == name);
        let (_, here) = here.ok_or_else(|| Error::failed("the sink cannot be read"))?;
        let mut why = "no other sink holds the receipt".to_owned();
        if let Some(found) = here.nameless(self.cx, unit).await? {
            let like = self.like(here, unit).await?;
            match rebuild(self.cx, here, self.codecs, unit, found, like.as_ref()).await {
                Ok(manifest) if manifest.generation == generation || like.is_none() => {
                    to.mend(self.cx, &Sealed { manifest: manifest.clone(), bodies: BTreeMap::new() }).await?;
                    return Ok(manifest);
                }
                Ok(other) => why += &format!(", and what is live says that it is generation {}", other.generation),
                Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotFound | Kind::Failed) => {
                    why += &format!(", and what is live does not tell it: {}", error.one_line());
                }
                Err(error) => return Err(error),
            }
        }
        to.unrecord(self.cx, &[(unit.clone(), generation)]).await?;
        Err(Error::new(Kind::NotFound, why).hint(save_again(unit)))
    }

    /// The newest receipt of the unit, or of another one of its dataset.
    async fn like(&self, here: &Arc<dyn Vault>, unit: &Unit) -> Result<Option<Manifest>> {
        let history = here.history(self.cx, &unit.dataset).await?;
        let own = history.get_key_value(&unit.partition);
        for (partition, generations) in own.into_iter().chain(history.iter().rev().take(3)) {
            let Some(newest) = generations.last() else { continue };
            let of = Unit::new(&unit.dataset, *partition);
            match here.manifest(self.cx, &of, *newest).await {
                Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotFound) => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    /// Nobody knows any more what the generation was. What is told then is what has to be done.
    async fn set_aside(&self, to: &Arc<dyn Vault>, unit: &Unit, generation: u32) -> Result<Error> {
        let aside = to.set_aside(self.cx, unit, generation).await?;
        let message = format!("no other sink holds the receipt, which is now {aside}");
        Ok(Error::new(Kind::NotFound, message).hint(save_again(unit)))
    }

    async fn check(&self, sink: &Arc<dyn Vault>, manifest: &Manifest) -> Result<Fetched> {
        let fetched = Fetched::fetch(self.cx, sink, manifest.clone()).await?;
        let reading = fetched.open()?;
        compare(self.cx, manifest, undo(self.cx, self.codecs, manifest, reading.objects()?).await?).await?;
        drop(reading);
        Ok(fetched)
    }

    /// The same generation, read and checked, of the same content where that is known. `None` where no other sink has it,
    /// an error where one has it and not whole, or could not be asked.
    async fn sound_elsewhere(
        &self,
        here: &str,
        unit: &Unit,
        generation: u32,
        wanted: Option<&Manifest>,
    ) -> Result<Option<Fetched>> {
        let mut tried = self.silent.clone();
        for (_, sink) in self.places.iter().filter(|(name, _)| name != here) {
            let fetching = async {
                let manifest = sink.manifest(self.cx, unit, generation).await?;
                if wanted.is_some_and(|wanted| wanted.content != manifest.content) {
                    return Ok(None);
                }
                self.check(sink, &manifest).await.map(Some).map_err(|error| match error.kind() {
                    // It is not that it has no such generation.
                    Kind::NotFound => Error::new(Kind::Damaged, error.one_line()),
                    _ => error,
                })
            };
            match fetching.await {
                Ok(Some(fetched)) => return Ok(Some(fetched)),
                Ok(None) => {}
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => tried.push(error.one_line()),
            }
        }
        if tried.is_empty() {
            return Ok(None);
        }
        Err(Error::new(Kind::NotFound, format!("no other sink holds it whole: {}", tried.join("; "))))
    }
}

/// What brings back what is still in the source.
fn save_again(unit: &Unit) -> String {
    match unit.partition {
        Partition::Day(day) => format!("`replay --flow {} --day {day}` saves the day again", unit.dataset),
        Partition::Undated => format!("`replay --flow {} --undated` saves them again", unit.dataset),
        Partition::Snapshot => "the next run saves it again".to_owned(),
    }
}
