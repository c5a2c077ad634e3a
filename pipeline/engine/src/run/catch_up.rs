//! A sink that lagged, or is new, gets what it lacks from another one, without asking the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, stream};

use super::deliver::pass_pins;
use super::group::Shop;
use super::plan::Copy;
use super::seal::{self, Files};
use super::spool::Spool;
use crate::opened::Opened;
use crate::report::Failure;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::Manifest;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Live, Sealed, Vault};

/// So many units at a time: a place far away lets us wait for each answer.
const AT_ONCE: usize = 16;

/// So many bytes, or generations, are brought here at a time from a place where one transfer is cheaper than many.
const PORTION: (u64, usize) = (1 << 30, 256);

/// Copies one generation. Nobody announced a change of it, or it would be a task and not a copy.
async fn copy(cx: &Context, opened: &Opened, spool: &Spool, copy: &Copy) -> Result<()> {
    let (from, manifest) = &whole(cx, opened, copy).await?;
    let to = sink(opened, &copy.to)?;
    let over = if copy.first { Live::NOTHING } else { to.live(cx, &copy.unit).await? };
    // What is there must be what the other one had before: not by the clock, which may have been wrong.
    if let Some(there) = &over.manifest
        && is_another(cx, from, there, manifest).await?
    {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "{}: sink `{}` holds another generation {} than {}, whose generation {} is to be copied there",
                copy.unit,
                copy.to,
                there.generation,
                from.describe(),
                copy.generation
            ),
        )
        .hint("export the day again: `cdrvault replay --force` writes a new generation to every sink"));
    }
    if to.capabilities().mirror {
        let sealed = Sealed { manifest: Manifest::clone(manifest), bodies: BTreeMap::new() };
        return to.publish(cx, &sealed, &over).await.map(drop);
    }
    let files = if to.root().is_some() { Files::Copied } else { Files::Lent };
    let sealed = seal::fetch(cx, spool, manifest, from.read(cx, manifest).await?, files).await?;
    pass_pins(cx, from, to, &copy.unit).await?;
    to.publish(cx, &sealed, &over).await?;
    spool.discard(&copy.unit)
}

/// Whether what is there is not one of the generations that the other sink has, or had: then nobody knows which is newer.
async fn is_another(cx: &Context, from: &Arc<dyn Vault>, there: &Manifest, newest: &Manifest) -> Result<bool> {
    if there.generation >= newest.generation {
        return Ok(there.content != newest.content);
    }
    match from.manifest(cx, &there.unit, there.generation).await {
        Ok(same) => Ok(same.content != there.content),
        // It was pruned there, or is damaged.
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Damaged) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first sink that holds what is to be copied, and holds it whole.
async fn whole<'a>(cx: &Context, opened: &'a Opened, copy: &Copy) -> Result<(&'a Arc<dyn Vault>, Arc<Manifest>)> {
    let mut failed = None;
    for name in &copy.from {
        let live = match sink(opened, name) {
            Ok(from) => from.live(cx, &copy.unit).await.map(|live| (from, live)),
            Err(error) => Err(error),
        };
        match live {
            Ok((from, live)) => {
                if let Some(manifest) = live.intact().filter(|manifest| manifest.generation == copy.generation) {
                    return Ok((from, Arc::clone(manifest)));
                }
                let message = format!(
                    "{}: generation {} in sink `{name}` is not what its receipt says",
                    copy.unit, copy.generation
                );
                let hint = "`cdrvault verify --repair` mends it from another sink, `cdrvault replay` from the database";
                failed = Some(Error::new(Kind::Damaged, message).hint(hint));
            }
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::failed(format!("{}: no sink has it", copy.unit))))
}

fn sink<'a>(opened: &'a Opened, name: &str) -> Result<&'a Arc<dyn Vault>> {
    let open = opened.sinks.iter().find(|open| open.name == name);
    let open = open.ok_or_else(|| Error::failed(format!("there is no sink `{name}`")))?;
    open.sink.as_ref().map_err(|error| error.copied())
}

/// Copies everything that the plan names. A place that does not take anything any more is left alone for this run; what
/// concerns one unit alone stops none of the others.
pub(super) async fn run(shop: &Arc<Shop>, copies: &[Copy]) -> (BTreeMap<String, u64>, Vec<Failure>) {
    let (mut done, mut failures) = (BTreeMap::new(), Vec::new());
    let lost = Arc::default();
    let mut rest = copies;
    while !rest.is_empty() && !shop.cx.cancel.is_cancelled() {
        let (now, later) = rest.split_at(prefetch(&shop.cx, &shop.opened, rest).await);
        rest = later;
        // Those of one unit go one after the other: they share its place in the spool.
        let work = |of_unit: &[Copy]| {
            let (shop, lost, of_unit) = (Arc::clone(shop), Arc::clone(&lost), of_unit.to_vec());
            async move { tokio::spawn(async move { copy_all(&shop, &lost, &of_unit).await }).await }
        };
        let mut working = stream::iter(now.chunk_by(|one, next| one.unit == next.unit)).map(work).buffered(AT_ONCE);
        while let Some(copied) = working.next().await {
            match copied {
                Ok((sinks, failed)) => {
                    for sink in sinks {
                        *done.entry(sink).or_insert(0) += 1;
                    }
                    failures.extend(failed);
                }
                Err(died) => {
                    let error = Error::failed("a copy stopped unexpectedly; the next run makes it").with_source(died);
                    failures.push(Failure::of("run", &error));
                }
            }
        }
    }
    (done, failures)
}

/// Makes the copies of one unit: the sinks that have it now, and why others do not.
async fn copy_all(shop: &Shop, lost: &Mutex<BTreeSet<String>>, copies: &[Copy]) -> (Vec<String>, Vec<Failure>) {
    let lost = || lost.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for one in copies {
        if shop.cx.cancel.is_cancelled() || lost().contains(&one.to) {
            continue;
        }
        match copy(&shop.cx, &shop.opened, &shop.spool, one).await {
            Ok(()) => done.push(one.to.clone()),
            Err(error) => {
                let of_unit_alone = matches!(error.kind(), Kind::Damaged | Kind::NotFound | Kind::Conflict);
                // Others were on their way there at the same time: it is told once.
                if of_unit_alone || lost().insert(one.to.clone()) {
                    let optional = shop.opened.sinks.iter().any(|open| open.name == one.to && open.optional);
                    failures.push(Failure::of(&one.to, &error).counting(!optional));
                }
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
            && let Some(mirror) = from.mirror()
            && let Err(error) = mirror.prefetch(cx, &manifests).await
        {
            tracing::debug!("{}", error.one_line());
        }
    }
    count
}
