//! What is learnt of a payload while it streams from its source into the transforms.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use cdrvault_format::error::Result;
use cdrvault_format::facts::FactGatherer;
use cdrvault_format::partition::Unit;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Body, ByteStream, Object, ObjectStream, RowStream};
use cdrvault_plugin::stage::FactCell;

/// Gathers the facts of rows; they are in `facts` when the stream has ended well.
pub(super) fn rows(cx: &Context, unit: &Unit, input: RowStream, facts: FactCell) -> RowStream {
    let RowStream { schema, about, batches } = input;
    let gatherer = FactGatherer::new(&schema, &about.renumbered);
    let (cx, unit) = (cx.clone(), unit.clone());
    let batches = through(
        batches,
        gatherer,
        move |gatherer, batch| {
            cx.progress.read(&unit, batch.num_rows() as u64, batch.get_array_memory_size() as u64);
            gatherer.add(batch)
        },
        move |gatherer| facts.set(gatherer.finish()),
    );
    RowStream { schema, about, batches: batches.boxed() }
}

/// Length and SHA-256 of the body that ended last: one is read to its end before the next is asked for.
pub(super) type LastBody = Arc<Mutex<Option<(u64, String)>>>;

/// Hashes the bodies of objects; what is learnt of one is in `seen` when its stream has ended well.
pub(super) fn objects(cx: &Context, unit: &Unit, input: ObjectStream, seen: LastBody) -> ObjectStream {
    let (cx, unit) = (cx.clone(), unit.clone());
    input
        .map(move |object| {
            let Object { entry, body } = object?;
            let body = match body {
                Body::Stream(bytes) => {
                    let seen = Arc::clone(&seen);
                    Body::Stream(hashed(&cx, &unit, bytes, move |length, sha256| {
                        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((length, sha256));
                    }))
                }
                other => other,
            };
            Ok(Object { entry, body })
        })
        .boxed()
}

/// Hashes a stream of bytes and tells length and SHA-256 at its end.
fn hashed(cx: &Context, unit: &Unit, bytes: ByteStream, tell: impl FnOnce(u64, String) + Send + 'static) -> ByteStream {
    let (cx, unit) = (cx.clone(), unit.clone());
    through(
        bytes,
        (0_u64, Sha256::new()),
        move |(length, hash), chunk| {
            cx.progress.read(&unit, 0, chunk.len() as u64);
            *length += chunk.len() as u64;
            hash.update(chunk);
            Ok(())
        },
        move |(length, hash)| tell(length, hex::encode(hash.finalize())),
    )
    .boxed()
}

/// Lets items through, showing each to `see`, and tells what was gathered at the end, unless there was an error.
fn through<T, G>(
    input: impl Stream<Item = Result<T>> + Send + 'static,
    gathered: G,
    see: impl FnMut(&mut G, &T) -> Result<()> + Send + 'static,
    end: impl FnOnce(G) + Send + 'static,
) -> impl Stream<Item = Result<T>> + Send + 'static
where
    T: Send + 'static,
    G: Send + 'static,
{
    stream::unfold(Some((input.boxed(), gathered, see, end)), |state| async {
        let (mut input, mut gathered, mut see, end) = state?;
        match input.next().await {
            Some(Ok(item)) => match see(&mut gathered, &item) {
                Ok(()) => Some((Ok(item), Some((input, gathered, see, end)))),
                Err(error) => Some((Err(error), None)),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                end(gathered);
                None
            }
        }
    })
}
