//! What one sink lost, or holds damaged, comes back from another that holds it whole.

use std::sync::Arc;

use super::look::Held;
use super::verify::{Finding, Problem};
use super::{Fetched, compare, undo};
use crate::config::Pipeline;
use crate::context::Context;
use crate::engine::{Opened, open_to_prune};
use crate::error::{Error, Kind, Result};
use crate::manifest::{Content, Manifest};
use crate::partition::{Partition, Unit};
use crate::plugin::Decoder;
use crate::sink::{Sealed, Sink};

/// See the module.
pub(super) struct Mending<'a> {
    cx: &'a Context,
    pipeline: &'a Arc<Pipeline>,
    decoders: &'a [Decoder],
    /// To read from: those that were verified, and then all others.
    places: Vec<(String, Arc<dyn Sink>)>,
    /// Those that cannot be read.
    silent: Vec<String>,
}

impl<'a> Mending<'a> {
    pub(super) fn new(cx: &'a Context, pipeline: &'a Arc<Pipeline>, decoders: &'a [Decoder], all: &[Held]) -> Self {
        let places = all.iter().map(|held| (held.name.clone(), Arc::clone(&held.sink))).collect();
        Self { cx, pipeline, decoders, places, silent: Vec::new() }
    }

    /// Under the locks of a run. What cannot be mended stays a finding, which says why.
    pub(super) async fn mend(&mut self, findings: &mut [Finding]) -> Result<()> {
        let hurt = |finding: &Finding| {
            use Problem::{Behind, Damaged, DamagedReceipt, Missing};
            matches!(finding.problem, Damaged | Missing | DamagedReceipt | Behind)
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
        let mut order: Vec<usize> = (0..findings.len()).filter(|index| hurt(&findings[*index])).collect();
        order.sort_by_key(|index| {
            let finding = &findings[*index];
            let mirror = opened.sinks.iter().any(|open| open.name == finding.sink && open.mirrors.is_some());
            (mirror, finding.problem != Problem::DamagedReceipt)
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
        // What no receipt named has its receipt again.
        for finding in findings.iter_mut().filter(|finding| finding.problem == Problem::Extra) {
            finding.repaired = named.iter().any(|(sink, path)| *sink == finding.sink && *path == finding.detail);
        }
        Ok(())
    }

    async fn mend_one(&self, opened: &Opened, finding: &Finding) -> Result<Manifest> {
        let (Some(unit), Some(generation)) = (&finding.unit, finding.generation) else {
            return Err(Error::failed("nothing is known of it"));
        };
        let open = opened.sinks.iter().find(|open| open.name == finding.sink);
        let to: &Arc<dyn Sink> = match open.map(|open| &open.sink) {
            Some(Ok(sink)) => sink,
            Some(Err(error)) => return Err(Error::new(error.kind(), error.one_line())),
            None => return Err(Error::failed("there is no such sink")),
        };
        let own = match finding.problem {
            Problem::DamagedReceipt | Problem::Behind => None,
            _ => {
                let here = self.places.iter().find(|(name, _)| *name == finding.sink);
                let (_, here) = here.ok_or_else(|| Error::failed("its receipt is not known"))?;
                Some(here.manifest(self.cx, unit, generation).await?)
            }
        };
        let Some(sound) = self.sound_elsewhere(&finding.sink, unit, generation, own.as_ref()).await? else {
            if finding.problem == Problem::DamagedReceipt {
                return Err(self.set_aside(to, unit, generation).await?);
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

    /// Nobody knows any more what the generation was. What is told then is what has to be done.
    async fn set_aside(&self, to: &Arc<dyn Sink>, unit: &Unit, generation: u32) -> Result<Error> {
        let aside = to.set_aside(self.cx, unit, generation).await?;
        let message = format!("no other sink holds the receipt, which is now {aside}");
        Ok(Error::new(Kind::NotFound, message).hint(match unit.partition {
            Partition::Day(day) => format!("`replay --flow {} --day {day}` saves the day again", unit.dataset),
            Partition::Undated => format!("`replay --flow {} --undated` saves them again", unit.dataset),
            Partition::Snapshot => "the next run saves it again".to_owned(),
        }))
    }

    async fn check(&self, sink: &Arc<dyn Sink>, manifest: &Manifest) -> Result<Fetched> {
        let fetched = Fetched::fetch(self.cx, sink, manifest.clone()).await?;
        compare(self.cx, manifest, undo(self.decoders, manifest, fetched.objects()?).await?).await?;
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
