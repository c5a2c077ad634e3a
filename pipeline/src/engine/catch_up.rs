//! A sink that lagged, or is new, gets what it lacks from another one, without asking the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::deliver::pass_pins;
use super::opened::Opened;
use super::plan::Copy;
use super::report::Failure;
use super::seal;
use super::spool::Spool;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::manifest::Manifest;
use crate::sink::{Sealed, Sink};

/// So many bytes, or generations, are brought here at a time from a place where one transfer is cheaper than many.
const PORTION: (u64, usize) = (1 << 30, 256);

/// Copies one generation. Nobody announced a change of it, or it would be a task and not a copy.
async fn copy(cx: &Context, opened: &Opened, spool: &Spool, copy: &Copy) -> Result<()> {
    let (from, manifest) = &whole(cx, opened, copy).await?;
    let to = sink(opened, &copy.to)?;
    let over = to.live(cx, &copy.unit).await?;
    if let Some(there) = &over.manifest
        && there.origin.snapshot > manifest.origin.snapshot
    {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "{}: sink `{}` holds generation {}, which is newer than generation {} in {}",
                copy.unit,
                copy.to,
                there.generation,
                copy.generation,
                from.describe()
            ),
        )
        .hint("export the day again: `cdrvault replay --force` writes a new generation to every sink"));
    }
    if to.capabilities().mirror {
        let sealed = Sealed { manifest: Manifest::clone(manifest), bodies: BTreeMap::new() };
        return to.publish(cx, &sealed, &over).await.map(drop);
    }
    let sealed = seal::fetch(cx, spool, manifest, from.read(cx, manifest).await?).await?;
    pass_pins(cx, from, to, &copy.unit).await?;
    to.publish(cx, &sealed, &over).await?;
    spool.discard(&copy.unit)
}

/// The first sink that holds what is to be copied, and holds it whole.
async fn whole<'a>(cx: &Context, opened: &'a Opened, copy: &Copy) -> Result<(&'a Arc<dyn Sink>, Arc<Manifest>)> {
    let mut failed = None;
    for name in &copy.from {
        let live = match sink(opened, name) {
            Ok(from) => from.live(cx, &copy.unit).await.map(|live| (from, live)),
            Err(error) => Err(error),
        };
        match live {
            Ok((from, live)) => match live.intact().filter(|manifest| manifest.generation == copy.generation) {
                Some(manifest) => return Ok((from, Arc::clone(manifest))),
                None => {
                    let message = format!(
                        "{}: generation {} in sink `{name}` is not what its receipt says",
                        copy.unit, copy.generation
                    );
                    let hint =
                        "`cdrvault verify --repair` mends it from another sink, `cdrvault replay` from the database";
                    failed = Some(Error::new(Kind::Damaged, message).hint(hint));
                }
            },
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::failed(format!("{}: no sink has it", copy.unit))))
}

fn sink<'a>(opened: &'a Opened, name: &str) -> Result<&'a Arc<dyn Sink>> {
    let open = opened.sinks.iter().find(|open| open.name == name);
    let open = open.ok_or_else(|| Error::failed(format!("there is no sink `{name}`")))?;
    open.sink.as_ref().map_err(|error| super::group::shared(Arc::clone(error)))
}

/// Copies everything that the plan names. A place that does not take anything any more is left alone for this run; what
/// concerns one unit alone stops none of the others.
pub(super) async fn run(
    cx: &Context,
    opened: &Opened,
    spool: &Spool,
    copies: &[Copy],
) -> (BTreeMap<String, u64>, Vec<Failure>) {
    let (mut done, mut failures) = (BTreeMap::new(), Vec::<Failure>::new());
    let mut lost = BTreeSet::new();
    let mut here = 0;
    for (index, one) in copies.iter().enumerate() {
        if cx.cancel.is_cancelled() {
            break;
        }
        if lost.contains(&one.to) {
            continue;
        }
        if index >= here {
            here = index + prefetch(cx, opened, &copies[index..]).await;
        }
        match copy(cx, opened, spool, one).await {
            Ok(()) => *done.entry(one.to.clone()).or_insert(0) += 1,
            Err(error) => {
                if !matches!(error.kind(), Kind::Damaged | Kind::NotFound | Kind::Conflict) {
                    lost.insert(&one.to);
                }
                let optional = opened.sinks.iter().any(|open| open.name == one.to && open.optional);
                failures.push(Failure::of(&one.to, &error).counting(!optional));
            }
        }
    }
    (done, failures)
}

/// Brings what the next copies need here, as far as it comes from a mirror; how many of them that are. What fails is
/// fetched again on its own, and fails there.
async fn prefetch(cx: &Context, opened: &Opened, copies: &[Copy]) -> usize {
    let (mut wanted, mut bytes, mut count): (BTreeMap<&str, Vec<Manifest>>, u64, usize) = Default::default();
    for one in copies {
        if count > 0 && (bytes >= PORTION.0 || count >= PORTION.1) {
            break;
        }
        count += 1;
        if let Some(name) = one.from.first()
            && let Ok(from) = sink(opened, name)
            && from.capabilities().mirror
            && let Ok(manifest) = from.manifest(cx, &one.unit, one.generation).await
        {
            bytes += manifest.bytes();
            wanted.entry(name).or_default().push(manifest);
        }
    }
    for (name, manifests) in wanted {
        if let Ok(from) = sink(opened, name)
            && let Err(error) = from.prefetch(cx, &manifests).await
        {
            tracing::debug!("{}", error.one_line());
        }
    }
    count
}
