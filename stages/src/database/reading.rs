//! Rows, or a dump, that are read ahead of their encoder, by a task of their own.

use arrow_array::RecordBatch;
use cdrvault_format::error::{Error, Result};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// So many batches, or pieces, may wait for their encoder.
const AHEAD: usize = 2;

/// Where a reader puts its batches.
pub(crate) type Batches = mpsc::Sender<Result<RecordBatch>>;

/// What a reader gives, which is stopped when the stream is dropped. Only when it ended well does the stream end well: an
/// error is its last item, and so is a panic, which must not look like the end of the day.
pub(crate) fn read_ahead<T, F>(read: impl FnOnce(mpsc::Sender<Result<T>>) -> F) -> BoxStream<'static, Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (pieces, receiver) = mpsc::channel(AHEAD);
    let reader = Reader { pieces: receiver, task: tokio::spawn(read(pieces)) };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        if let Some(piece) = reader.pieces.recv().await {
            return Some((piece, Some(reader)));
        }
        match (&mut reader.task).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((Err(error), None)),
            Err(died) => {
                Some((Err(Error::failed("reading the database stopped unexpectedly").with_source(died)), None))
            }
        }
    })
    .boxed()
}

struct Reader<T> {
    pieces: mpsc::Receiver<Result<T>>,
    task: JoinHandle<Result<()>>,
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::Schema;
    use cdrvault_format::error::Kind;

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
        assert_eq!(read_ahead(async |_: Batches| Ok(())).count().await, 0);
    }

    #[tokio::test]
    async fn a_reader_ends_with_whoever_listens() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let rows = read_ahead(async move |_batches: Batches| {
            let _held = held;
            std::future::pending().await
        });
        drop(rows);
        assert!(ended.await.is_err());
    }
}
