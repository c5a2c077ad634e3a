//! A server that says what it was told to say, whatever it hears.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client heard and said, until it goes.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    pub(crate) given: usize,
    pub(crate) heard: Vec<u8>,
}

/// The stream of a client.
pub(crate) struct Script {
    said: Vec<u8>,
    /// After all is said, it goes on with zeros for ever instead of hanging up.
    endless: bool,
    /// How many bytes come at a time, in turn.
    pieces: Vec<usize>,
    turn: usize,
    talk: Arc<Mutex<Talk>>,
}

impl Script {
    /// Comes in pieces of these lengths, over and over; at once if there are none.
    pub(crate) fn new(said: Vec<u8>, pieces: &[usize]) -> (Self, Arc<Mutex<Talk>>) {
        let talk = Arc::new(Mutex::new(Talk::default()));
        let pieces = if pieces.is_empty() { vec![usize::MAX] } else { pieces.to_vec() };
        (Self { said, endless: false, pieces, turn: 0, talk: Arc::clone(&talk) }, talk)
    }

    pub(crate) fn without_end(mut self) -> Self {
        self.endless = true;
        self
    }
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let piece = self.pieces[self.turn % self.pieces.len()].max(1);
        self.turn += 1;
        let talk = Arc::clone(&self.talk);
        let mut talk = talk.lock().unwrap();
        let left = &self.said[talk.given.min(self.said.len())..];
        let count = piece.min(room.remaining());
        let count = if left.is_empty() && self.endless {
            room.initialize_unfilled_to(count).fill(0);
            room.advance(count);
            count
        } else {
            let count = count.min(left.len());
            room.put_slice(&left[..count]);
            count
        };
        talk.given += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.talk.lock().unwrap().heard.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
