//! Rows that are read ahead of whoever encodes them, by a task of their own.

use arrow_array::RecordBatch;
use cdrvault_pipeline::error::{Error, Result};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// So many batches may wait for whoever encodes them.
const BATCHES_AHEAD: usize = 2;

/// Where a reader puts its batches.
pub(crate) type Batches = mpsc::Sender<Result<RecordBatch>>;

/// The batches of a reader, which is stopped when the stream is dropped. Only when it ended well does the stream end
/// well: an error is its last item, and so is a panic, which must not look like the end of the day.
pub(crate) fn read_ahead<F>(read: impl FnOnce(Batches) -> F) -> BoxStream<'static, Result<RecordBatch>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (batches, receiver) = mpsc::channel(BATCHES_AHEAD);
    let reader = Reader { batches: receiver, task: tokio::spawn(read(batches)) };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        if let Some(batch) = reader.batches.recv().await {
            return Some((batch, Some(reader)));
        }
        match (&mut reader.task).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((Err(error), None)),
            Err(died) => Some((Err(Error::failed("reading rows stopped unexpectedly").with_source(died)), None)),
        }
    })
    .boxed()
}

struct Reader {
    batches: mpsc::Receiver<Result<RecordBatch>>,
    task: JoinHandle<Result<()>>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::Schema;
    use cdrvault_pipeline::error::Kind;

    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::new_empty(Arc::new(Schema::empty()))
    }

    #[tokio::test]
    async fn a_panic_of_the_reader_is_an_error_and_not_the_end_of_the_day() {
        let mut rows = read_ahead(async |batches| {
            batches.send(Ok(batch())).await.map_err(|_| Error::interrupted())?;
            panic!("a driver's bug");
        });
        assert!(rows.next().await.unwrap().is_ok());
        assert_eq!(rows.next().await.unwrap().unwrap_err().kind(), Kind::Failed);
        assert!(rows.next().await.is_none());
    }

    #[tokio::test]
    async fn an_error_of_the_reader_comes_last_and_a_good_end_is_silent() {
        let mut rows = read_ahead(async |batches| {
            let _ = batches.send(Ok(batch())).await;
            Err(Error::new(Kind::Transient, "lost"))
        });
        assert!(rows.next().await.unwrap().is_ok());
        assert_eq!(rows.next().await.unwrap().unwrap_err().kind(), Kind::Transient);
        assert!(rows.next().await.is_none());
        assert_eq!(read_ahead(async |_| Ok(())).count().await, 0);
    }

    #[tokio::test]
    async fn a_reader_ends_with_whoever_listens() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let rows = read_ahead(async move |_batches| {
            let _held = held;
            std::future::pending().await
        });
        drop(rows);
        assert!(ended.await.is_err());
    }
}
