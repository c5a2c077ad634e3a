//! The bytes of an object, by as many requests as it takes: each of them may only last so long.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore as _, Result};

use super::patience::{Patience, Pauses};

struct Reading {
    store: AmazonS3,
    key: Path,
    patience: Patience,
    /// What is read later must still be the same object.
    tag: Option<String>,
    size: u64,
    offset: u64,
    bytes: BoxStream<'static, Result<Bytes>>,
    pauses: Pauses,
}

/// Begins to read. A body that breaks off, or takes longer than a request may, goes on where it stopped, as long as some
/// of it comes.
pub(super) async fn read(
    store: &AmazonS3,
    key: Path,
    patience: &Patience,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let got = store.get_opts(&key, GetOptions::default()).await?;
    let reading = Reading {
        store: store.clone(),
        key,
        patience: patience.clone(),
        tag: got.meta.e_tag.clone(),
        size: got.meta.size,
        offset: 0,
        bytes: got.into_stream(),
        pauses: patience.pauses(),
    };
    let chunks =
        stream::try_unfold(
            reading,
            |mut reading| async move { Ok(reading.next().await?.map(|chunk| (chunk, reading))) },
        );
    Ok(chunks.boxed())
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.offset < self.size {
            let broken = match self.bytes.next().await {
                Some(Ok(chunk)) => {
                    self.offset += chunk.len() as u64;
                    self.pauses = self.patience.pauses();
                    return Ok(Some(chunk));
                }
                Some(Err(error)) => error,
                None => Error::Generic { store: "S3", source: "the answer ended too early".into() },
            };
            let Some(pause) = self.pauses.after_failure() else { return Err(broken) };
            tracing::info!("{} broke off after {} bytes; going on in {pause:.1?}", self.key, self.offset);
            tokio::time::sleep(pause).await;
            let rest = GetOptions {
                range: Some(GetRange::Bounded(self.offset..self.size)),
                if_match: self.tag.clone(),
                ..GetOptions::default()
            };
            self.bytes = self.store.get_opts(&self.key, rest).await?.into_stream();
        }
        Ok(None)
    }
}
