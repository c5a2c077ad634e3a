//! What one sink lost, or holds damaged, comes back from another that holds it whole.

use std::sync::Arc;

use super::verify::{Finding, Held, Problem};
use super::{Fetched, compare, undo};
use crate::config::Pipeline;
use crate::context::Context;
use crate::engine::{Opened, open_to_prune};
use crate::error::{Error, Kind, Result};
use crate::manifest::Manifest;
use crate::partition::Unit;
use crate::plugin::Decoder;
use crate::sink::{Sealed, Sink};

/// See the module.
pub(super) struct Mending<'a> {
    pub(super) cx: &'a Context,
    pub(super) pipeline: &'a Arc<Pipeline>,
    pub(super) decoders: &'a [Decoder],
    pub(super) all: &'a [Held],
}

impl Mending<'_> {
    /// Under the locks of a run. What cannot be mended stays a finding, which says why.
    pub(super) async fn mend(&self, findings: &mut [Finding]) -> Result<()> {
        let hurt = |finding: &&mut Finding| matches!(finding.problem, Problem::Damaged | Problem::Missing);
        if findings.iter_mut().filter(hurt).count() == 0 {
            return Ok(());
        }
        let (_guard, _, opened) =
            open_to_prune(self.cx, Arc::clone(self.pipeline), &[], std::time::Duration::ZERO, false).await?;
        // A mirror is mended from the local vault, so that comes first.
        let mut order: Vec<&mut Finding> = findings.iter_mut().filter(hurt).collect();
        order
            .sort_by_key(|finding| opened.sinks.iter().any(|open| open.name == finding.sink && open.mirrors.is_some()));
        let mut failed = None;
        for finding in order {
            match self.mend_one(&opened, finding).await {
                Ok(()) => finding.repaired = true,
                Err(error) if error.kind() == Kind::Interrupted => {
                    failed = Some(error);
                    break;
                }
                Err(error) => finding.detail += &format!("; it cannot be repaired: {}", error.one_line()),
            }
        }
        opened.close().await;
        failed.map_or(Ok(()), Err)
    }

    async fn mend_one(&self, opened: &Opened, finding: &Finding) -> Result<()> {
        let (Some(unit), Some(generation)) = (&finding.unit, finding.generation) else {
            return Err(Error::failed("nothing is known of it"));
        };
        let here = self.all.iter().find(|held| held.name == finding.sink);
        let manifest = here.and_then(|held| held.manifests.get(unit)?.get(&generation));
        let (Some(here), Some(manifest)) = (here, manifest) else {
            return Err(Error::failed("its receipt is not known"));
        };
        let sound = self.sound_elsewhere(here, unit, generation, manifest).await?;
        let open = opened.sinks.iter().find(|open| open.name == finding.sink);
        let to: &Arc<dyn Sink> = match open.map(|open| &open.sink) {
            Some(Ok(sink)) => sink,
            Some(Err(error)) => return Err(Error::new(error.kind(), error.one_line())),
            None => return Err(Error::failed("there is no such sink")),
        };
        let sealed = Sealed { manifest: manifest.clone(), bodies: sound.bodies().clone() };
        to.mend(self.cx, &sealed).await?;
        // Not what was fetched before: what is there now.
        let spec = self.pipeline.sink(&finding.sink).ok_or_else(|| Error::failed("there is no such sink"))?;
        let (again, _) = super::open(self.cx, spec).await?;
        let done = self.check(&again, manifest).await.map(drop);
        again.close().await;
        done
    }

    async fn check(&self, sink: &Arc<dyn Sink>, manifest: &Manifest) -> Result<Fetched> {
        let fetched = Fetched::fetch(self.cx, sink, manifest.clone()).await?;
        compare(self.cx, manifest, undo(self.decoders, manifest, fetched.objects()?).await?).await?;
        Ok(fetched)
    }

    /// The same content of the same generation, read and checked.
    async fn sound_elsewhere(&self, here: &Held, unit: &Unit, generation: u32, wanted: &Manifest) -> Result<Fetched> {
        let mut tried = Vec::new();
        for held in self.all.iter().filter(|held| held.name != here.name) {
            let Some(manifest) = held.manifests.get(unit).and_then(|all| all.get(&generation)) else { continue };
            if manifest.content != wanted.content {
                continue;
            }
            match self.check(&held.sink, manifest).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => tried.push(error.one_line()),
            }
        }
        let why = if tried.is_empty() { String::new() } else { format!(": {}", tried.join("; ")) };
        Err(Error::new(Kind::NotFound, format!("no other sink holds it whole{why}")))
    }
}
