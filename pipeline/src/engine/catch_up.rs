//! A sink that lagged, or is new, gets what it lacks from another one, without asking the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::opened::Opened;
use super::plan::Copy;
use super::report::Failure;
use super::seal;
use super::spool::Spool;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::manifest::{Manifest, Notes};
use crate::sink::{Sealed, Sink};

/// Copies one generation. Nobody announced a change of it, or it would be a task and not a copy.
async fn copy(cx: &Context, opened: &Opened, spool: &Spool, copy: &Copy) -> Result<()> {
    let (from, to) = (sink(opened, &copy.from)?, sink(opened, &copy.to)?);
    let live = from.live(cx, &copy.unit).await?;
    let Some(manifest) = live.intact().filter(|manifest| manifest.generation == copy.generation) else {
        return Err(Error::new(
            Kind::Damaged,
            format!(
                "{}: generation {} in sink `{}` is not what its receipt says",
                copy.unit, copy.generation, copy.from
            ),
        )
        .hint("export the day again: `cdrvault replay` reads it from the database"));
    };
    let over = to.live(cx, &copy.unit).await?;
    if let Some(there) = &over.manifest
        && there.origin.snapshot > manifest.origin.snapshot
    {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "{}: sink `{}` holds generation {}, which is newer than generation {} of sink `{}`",
                copy.unit, copy.to, there.generation, copy.generation, copy.from
            ),
        )
        .hint("export the day again: `cdrvault replay --force` writes a new generation to every sink"));
    }
    if to.capabilities().mirror {
        let sealed = Sealed { manifest: Manifest::clone(manifest), bodies: BTreeMap::new() };
        return to.publish(cx, &sealed, &over).await.map(drop);
    }
    let sealed = seal::fetch(cx, spool, manifest, from.read(cx, manifest).await?).await?;
    to.publish(cx, &sealed, &over).await?;
    // A vault that was lost gets its pins back, too.
    let (known, notes) = (to.notes(cx, &copy.unit).await?, from.notes(cx, &copy.unit).await?);
    if known.pins.is_empty() && !notes.pins.is_empty() {
        to.put_notes(cx, &copy.unit, &Notes { pins: notes.pins, ..known }).await?;
    }
    spool.discard(&copy.unit)
}

fn sink<'a>(opened: &'a Opened, name: &str) -> Result<&'a Arc<dyn Sink>> {
    let open = opened.sinks.iter().find(|open| open.name == name);
    let open = open.ok_or_else(|| Error::failed(format!("there is no sink `{name}`")))?;
    open.sink.as_ref().map_err(|error| super::group::shared(Arc::clone(error)))
}

/// Copies everything that the plan names. After an error the sink is left alone for this run.
pub(super) async fn run(
    cx: &Context,
    opened: &Opened,
    spool: &Spool,
    copies: &[Copy],
) -> (BTreeMap<String, u64>, Vec<Failure>) {
    let (mut done, mut failures) = (BTreeMap::new(), Vec::<Failure>::new());
    for one in copies {
        if cx.cancel.is_cancelled() {
            break;
        }
        if failures.iter().any(|failure| failure.of == one.to) {
            continue;
        }
        match copy(cx, opened, spool, one).await {
            Ok(()) => *done.entry(one.to.clone()).or_insert(0) += 1,
            Err(error) => {
                let optional = opened.sinks.iter().any(|open| open.name == one.to && open.optional);
                failures.push(Failure::of(&one.to, &error).counting(!optional));
            }
        }
    }
    (done, failures)
}
