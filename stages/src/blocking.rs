//! Synchronous codecs between asynchronous streams.
//!
//! A codec that pulls or pushes (zstd, Parquet) runs on a thread of tokio's blocking pool. [`work`] gives it an iterator
//! of what comes in and a place for what goes out, both bounded, so that memory does not grow with the data.
//! Nothing starts before the stream that [`work`] returns is polled, and dropping that stream stops the thread at its
//! next chunk.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::payload::ByteStream;
use futures::future::{BoxFuture, Fuse};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Chunks on their way in each direction. More would hide no more latency and hold more memory.
const IN_FLIGHT: usize = 4;

/// Bytes that [`ChannelWriter`] gathers before it sends them on.
pub(crate) const CHUNK: usize = 128 * 1024;

/// What comes in, one item at a time; to be used on the worker's thread only.
///
/// The end of the iterator is the end of the input. A consumer that went away is an error instead, so that no codec
/// takes half of its input for the whole.
pub(crate) struct Inputs<I> {
    from: mpsc::Receiver<Option<Result<I>>>,
    ended: bool,
}

impl<I> Iterator for Inputs<I> {
    type Item = Result<I>;

    fn next(&mut self) -> Option<Result<I>> {
        if self.ended {
            return None;
        }
        let next = self.from.blocking_recv().unwrap_or_else(|| Some(Err(Error::interrupted())));
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Where the worker puts what it makes; to be used on the worker's thread only.
pub(crate) struct Outputs<O> {
    to: mpsc::Sender<O>,
}

impl<O> Outputs<O> {
    /// Waits until there is room. [`Kind::Interrupted`] when nobody wants the rest.
    pub(crate) fn send(&self, item: O) -> Result<()> {
        self.to.blocking_send(item).map_err(|_| Error::interrupted())
    }
}

/// Runs `codec` on a thread of its own, fed by `input`. Its error is the last item of the stream that is returned.
pub(crate) fn work<I, O, F>(input: BoxStream<'static, Result<I>>, codec: F) -> BoxStream<'static, Result<O>>
where
    I: Send + 'static,
    O: Send + 'static,
    F: FnOnce(Inputs<I>, &Outputs<O>) -> Result<()> + Send + 'static,
{
    let start = async move {
        let (feed, from) = mpsc::channel(IN_FLIGHT);
        let (to, made) = mpsc::channel(IN_FLIGHT);
        let worker = tokio::task::spawn_blocking(move || codec(Inputs { from, ended: false }, &Outputs { to }));
        stream::unfold(Some(Running { pump: pump(input, feed).boxed().fuse(), made, worker }), Running::next)
    };
    stream::once(start).flatten().boxed()
}

/// Runs a codec that reads bytes and writes bytes.
pub(crate) fn recode<F>(input: ByteStream, codec: F) -> ByteStream
where
    F: FnOnce(ByteReader, &mut ChannelWriter<'_>) -> Result<()> + Send + 'static,
{
    work(input, move |inputs, outputs| {
        let mut writer = ChannelWriter::new(outputs);
        codec(ByteReader::new(inputs), &mut writer)?;
        io::Write::flush(&mut writer).map_err(|error| unwrap_io("pass on bytes", error))
    })
}

/// The bytes of a local file, which is opened when the stream is first polled.
pub(crate) fn read_file(path: PathBuf) -> ByteStream {
    let nothing: ByteStream = stream::empty().boxed();
    recode(nothing, move |_, writer| {
        let cannot = |error| Error::io("read", &path, error);
        let mut file = File::open(&path).map_err(cannot)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = io::Read::read(&mut file, &mut buffer).map_err(cannot)?;
            if count == 0 {
                return Ok(());
            }
            io::Write::write_all(writer, &buffer[..count]).map_err(|error| unwrap_io("pass on bytes", error))?;
        }
    })
}

/// Forwards `input` to the worker, which may stop listening when it needs no more.
async fn pump<I>(mut input: BoxStream<'static, Result<I>>, feed: mpsc::Sender<Option<Result<I>>>) {
    while let Some(item) = input.next().await {
        let last = item.is_err();
        if feed.send(Some(item)).await.is_err() || last {
            return;
        }
    }
    let _ = feed.send(None).await;
}

/// A worker and what feeds it. Both are driven by the task that polls for the next item: no task outlives the consumer.
struct Running<O> {
    pump: Fuse<BoxFuture<'static, ()>>,
    made: mpsc::Receiver<O>,
    worker: JoinHandle<Result<()>>,
}

impl<O> Running<O> {
    /// What the worker made next and, at the end, how it ended: a panic there must not look like the end of the data.
    async fn next(running: Option<Self>) -> Option<(Result<O>, Option<Self>)> {
        let mut running = running?;
        let made = loop {
            tokio::select! {
                biased;
                made = running.made.recv() => break made,
                () = &mut running.pump => {}
            }
        };
        if let Some(item) = made {
            return Some((Ok(item), Some(running)));
        }
        match running.worker.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((Err(error), None)),
            Err(died) => Some((Err(Error::failed("a codec stopped unexpectedly").with_source(died)), None)),
        }
    }
}

/// [`Inputs`] of bytes as a reader.
pub(crate) struct ByteReader {
    inputs: Inputs<Bytes>,
    chunk: Bytes,
}

impl ByteReader {
    /// Reads what `inputs` gives.
    pub(crate) fn new(inputs: Inputs<Bytes>) -> Self {
        Self { inputs, chunk: Bytes::new() }
    }
}

impl io::BufRead for ByteReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.inputs.next() {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.chunk.split_to(amount.min(self.chunk.len()));
    }
}

impl io::Read for ByteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = io::BufRead::fill_buf(self)?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        io::BufRead::consume(self, count);
        Ok(count)
    }
}

/// [`Outputs`] of bytes as a writer, in chunks of [`CHUNK`]. What was not flushed is lost when it is dropped.
pub(crate) struct ChannelWriter<'a> {
    outputs: &'a Outputs<Bytes>,
    gathered: Vec<u8>,
}

impl<'a> ChannelWriter<'a> {
    /// Writes to `outputs`.
    pub(crate) fn new(outputs: &'a Outputs<Bytes>) -> Self {
        Self { outputs, gathered: Vec::new() }
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.gathered));
        self.outputs.send(chunk).map_err(io::Error::other)
    }
}

impl io::Write for ChannelWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(CHUNK);
        }
        let count = bytes.len().min(CHUNK - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() { Ok(()) } else { self.send() }
    }
}

/// The pipeline's own error out of an I/O error that [`ByteReader`] or [`ChannelWriter`] wrapped; any other one is
/// taken for damaged input, because neither side does I/O of its own.
pub(crate) fn unwrap_io(doing: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(other) => Error::new(Kind::Damaged, format!("cannot {doing}")).with_source(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn bytes(chunks: Vec<Result<Bytes>>) -> ByteStream {
        stream::iter(chunks).boxed()
    }

    fn copy(input: ByteStream) -> ByteStream {
        recode(input, |mut reader, writer| {
            io::copy(&mut reader, writer).map(drop).map_err(|error| unwrap_io("copy", error))
        })
    }

    #[tokio::test]
    async fn bytes_come_through_in_order_whatever_their_chunks() {
        let whole: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 17).collect();
        for size in [1_000, CHUNK - 1, CHUNK, 2 * CHUNK] {
            let chunks = whole.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            let out: Vec<Bytes> = copy(bytes(chunks)).map(|chunk| chunk.unwrap()).collect().await;
            assert!(out.iter().all(|chunk| chunk.len() <= CHUNK));
            assert_eq!(out.concat(), whole, "chunks of {size}");
        }
        assert_eq!(copy(bytes(vec![])).count().await, 0);
    }

    #[tokio::test]
    async fn an_error_of_the_input_comes_out_last_with_its_kind() {
        let input = vec![Ok(Bytes::from_static(b"ab")), Err(Error::new(Kind::Transient, "lost"))];
        let mut out: Vec<_> = copy(bytes(input)).collect().await;
        assert_eq!(out.pop().unwrap().unwrap_err().kind(), Kind::Transient);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_the_end() {
        let mut out: Vec<_> = recode(bytes(vec![Ok(Bytes::from_static(b"ab"))]), |_, writer| {
            writer.write_all(b"half").map_err(|e| unwrap_io("write", e))?;
            panic!("a codec's bug");
        })
        .collect()
        .await;
        assert!(out.pop().unwrap().is_err());
    }

    #[tokio::test]
    async fn who_goes_away_stops_the_worker_and_is_not_the_end_of_the_input() {
        let (told, heard) = tokio::sync::oneshot::channel();
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))).boxed();
        let mut out = recode(endless, |mut reader, _writer| {
            let ended = io::copy(&mut reader, &mut io::sink());
            let _ = told.send(ended.is_err());
            Ok(())
        });
        assert!(futures::poll!(out.next()).is_pending());
        drop(out);
        assert!(heard.await.unwrap());
    }

    #[tokio::test]
    async fn a_worker_that_needs_no_more_ends_the_stream() {
        let then_silence = stream::iter([Ok(Bytes::from_static(&[7; 4096]))]).chain(stream::pending()).boxed();
        let out: Vec<Bytes> = recode(then_silence, |reader, writer| {
            io::copy(&mut reader.take(10), writer).map(drop).map_err(|error| unwrap_io("copy", error))
        })
        .map(|chunk| chunk.unwrap())
        .collect()
        .await;
        assert_eq!(out.concat(), [7; 10]);
    }
}
