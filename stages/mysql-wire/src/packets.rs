//! Packets on a stream: a length of three bytes, a number that counts up, and the bytes themselves.

use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::failure::Failure;

/// What completes an answer, or a part of one.
pub(crate) const OK: u8 = 0x00;
pub(crate) const ERROR: u8 = 0xff;
pub(crate) const END: u8 = 0xfe;

/// A packet that is this long goes on in the next one.
const LONGEST: usize = 0xff_ffff;

const HEADER: usize = 4;

/// So much is read at a time, if it is there.
const BUFFER: usize = 128 << 10;

/// What a server may say at once that is not a row: a greeting, an error, the description of a column.
pub(super) const WORDS: usize = 1 << 20;

/// A buffer that grew beyond this for one packet does not stay so.
const GROWN: usize = 4 << 20;

/// What packets travel on.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// Where a packet lies, until the next one is asked for.
pub(super) type At = (usize, usize);

/// See the module.
pub(super) struct Packets {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// Which part of the buffer was received and is not read yet.
    unread: Range<usize>,
    /// The number of the next packet, in either direction.
    number: u8,
    /// The longest packet that is taken: the other side alone decides how far one goes on.
    limit: usize,
}

impl Packets {
    pub(super) fn new(stream: Box<dyn Stream>, number: u8) -> Self {
        Self { stream, buffer: vec![0; BUFFER], unread: 0..0, number, limit: WORDS }
    }

    /// Gives the stream away, so that it can be encrypted, and the number of the next packet.
    pub(super) fn into_stream(self) -> Result<(Box<dyn Stream>, u8), Failure> {
        // What came before encryption began must not count as said under it.
        if self.unread.is_empty() {
            Ok((self.stream, self.number))
        } else {
            Err(Failure::protocol("the server sends a packet out of turn"))
        }
    }

    pub(super) fn bytes(&self, (from, to): At) -> &[u8] {
        &self.buffer[from..to]
    }

    /// The same for a packet that may be longer than [`WORDS`].
    pub(super) async fn next_up_to(&mut self, limit: usize) -> Result<At, Failure> {
        self.limit = limit.max(WORDS);
        let at = self.next().await;
        self.limit = WORDS;
        at
    }

    /// Waits for a packet, unless it is there already.
    pub(super) async fn next(&mut self) -> Result<At, Failure> {
        loop {
            if let Some(at) = self.arrived()? {
                return Ok(at);
            }
            self.receive().await?;
        }
    }

    /// The next packet, if all of it has arrived. One that came in parts is put together in its place.
    fn arrived(&mut self) -> Result<Option<At>, Failure> {
        let mut lengths = Vec::new();
        let (mut at, mut number) = (self.unread.start, self.number);
        let mut whole = 0;
        loop {
            let Some(&[a, b, c, found]) = self.buffer[at..self.unread.end].first_chunk::<HEADER>() else {
                return Ok(None);
            };
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            // Known before its bytes are, which therefore need no room.
            whole += length;
            if whole > self.limit {
                return Err(Failure::TooLong { limit: self.limit });
            }
            let body = &self.buffer[at + HEADER..self.unread.end];
            // A server that gives up says why when it likes, and counts from where it likes.
            let may_give_up = lengths.is_empty() && length > 0 && body.first().is_none_or(|first| *first == ERROR);
            if found != number && !may_give_up {
                return Err(Failure::protocol("packets are out of order"));
            }
            if body.len() < length {
                return Ok(None);
            }
            if found != number {
                return Err(Failure::from_packet(&body[..length]));
            }
            number = number.wrapping_add(1);
            at += HEADER + length;
            if length < LONGEST && lengths.is_empty() {
                self.number = number;
                self.unread.start = at;
                return Ok(Some((at - length, at)));
            }
            lengths.push(length);
            if length < LONGEST {
                break;
            }
        }
        let first = self.unread.start + HEADER;
        let (mut from, mut to) = (first, first);
        for length in lengths {
            self.buffer.copy_within(from..from + length, to);
            from += length + HEADER;
            to += length;
        }
        self.number = number;
        self.unread.start = at;
        Ok(Some((first, to)))
    }

    /// Receives some bytes, for which it makes room.
    async fn receive(&mut self) -> Result<(), Failure> {
        if self.unread.is_empty() {
            self.unread = 0..0;
            if self.buffer.len() > GROWN {
                self.buffer = vec![0; BUFFER];
            }
        } else if self.buffer.len() - self.unread.end < BUFFER / 4 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            if self.buffer.len() - self.unread.end < BUFFER / 4 {
                // No more than the longest packet needs, with the headers of its parts.
                let most = self.limit + (self.limit / LONGEST + 2) * HEADER + BUFFER;
                let length = (self.buffer.len() * 2).min(most).max(self.buffer.len() + BUFFER);
                self.buffer.reserve_exact(length - self.buffer.len());
                self.buffer.resize(length, 0);
            }
        }
        match self.stream.read(&mut self.buffer[self.unread.end..]).await? {
            0 => Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server closed the connection").into()),
            count => {
                self.unread.end += count;
                Ok(())
            }
        }
    }

    /// Begins a conversation with a command.
    pub(super) async fn command(&mut self, command: u8, body: &[u8]) -> Result<(), Failure> {
        self.number = 0;
        self.send(&[&[command], body]).await
    }

    /// What the server said before it broke off, if it did.
    pub(super) async fn last_words(&mut self) -> Option<Failure> {
        match self.next().await {
            Ok(at) => Some(self.bytes(at)).filter(|packet| packet.first() == Some(&ERROR)).map(Failure::from_packet),
            Err(said @ Failure::Server { .. }) => Some(said),
            Err(_) => None,
        }
    }

    /// Sends what these parts make together.
    pub(super) async fn send(&mut self, parts: &[&[u8]]) -> Result<(), Failure> {
        let mut body = Vec::with_capacity(HEADER + parts.iter().map(|part| part.len()).sum::<usize>());
        body.extend([0; HEADER]);
        for part in parts {
            body.extend_from_slice(part);
        }
        let mut start = 0;
        loop {
            let length = (body.len() - HEADER - start).min(LONGEST);
            let [a, b, c, ..] = (length as u64).to_le_bytes();
            // The header of each part but the first takes the place of bytes that are sent already.
            body[start..start + HEADER].copy_from_slice(&[a, b, c, self.number]);
            self.stream.write_all(&body[start..start + HEADER + length]).await?;
            self.number = self.number.wrapping_add(1);
            start += length;
            if length < LONGEST {
                return Ok(self.stream.flush().await?);
            }
        }
    }

    pub(super) async fn shut(&mut self) -> Result<(), Failure> {
        Ok(self.stream.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    fn pair() -> (Packets, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64 << 20);
        (Packets::new(Box::new(ours), 0), theirs)
    }

    fn framed(number: u8, body: &[u8]) -> Vec<u8> {
        let [a, b, c, ..] = (body.len() as u64).to_le_bytes();
        [&[a, b, c, number], body].concat()
    }

    async fn read(packets: &mut Packets) -> Result<Vec<u8>, Failure> {
        let at = packets.next().await?;
        Ok(packets.bytes(at).to_vec())
    }

    #[tokio::test]
    async fn packets_come_whole_wherever_the_stream_is_cut() {
        let sent = [framed(0, b"one"), framed(1, b""), framed(2, b"three")].concat();
        for cut in 0..=sent.len() {
            let (mut packets, mut server) = pair();
            let (first, second) = (sent[..cut].to_vec(), sent[cut..].to_vec());
            let serving = tokio::spawn(async move {
                server.write_all(&first).await.unwrap();
                tokio::task::yield_now().await;
                server.write_all(&second).await.unwrap();
            });
            for expected in [&b"one"[..], b"", b"three"] {
                assert_eq!(read(&mut packets).await.unwrap(), expected);
            }
            serving.await.unwrap();
            let end = read(&mut packets).await.unwrap_err();
            assert!(matches!(end, Failure::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof));
        }
    }

    #[tokio::test]
    async fn long_packets_come_and_go_in_parts() {
        for length in [0, 1, LONGEST - 2, LONGEST - 1, LONGEST, 2 * LONGEST + 5] {
            let body: Vec<u8> = (0..=250).cycle().take(length).collect();
            let (mut ours, theirs) = pair();
            let mut server = Packets::new(Box::new(theirs), 0);
            ours.command(3, &body).await.unwrap();
            let at = server.next_up_to(3 * LONGEST).await.unwrap();
            let received = server.bytes(at).to_vec();
            assert!(received[0] == 3 && received[1..] == body, "{length}");
            // The answer goes on counting; whatever follows is not taken for a part of it.
            server.send(&[&body]).await.unwrap();
            server.send(&[b"next"]).await.unwrap();
            let at = ours.next_up_to(3 * LONGEST).await.unwrap();
            assert!(ours.bytes(at) == body, "{length}");
            assert_eq!(read(&mut ours).await.unwrap(), b"next");
            server.send(&[b"last"]).await.unwrap();
            assert_eq!(read(&mut ours).await.unwrap(), b"last");
            assert!(ours.buffer.len() <= GROWN, "a long packet's room is given back");
        }
    }

    #[tokio::test]
    async fn packets_out_of_order_and_words_before_encryption_are_refused() {
        let (mut packets, mut server) = pair();
        server.write_all(&framed(1, b"one too many")).await.unwrap();
        assert!(matches!(read(&mut packets).await.unwrap_err(), Failure::Protocol(_)));
        let (mut packets, mut server) = pair();
        server.write_all(&framed(1, b"")).await.unwrap();
        assert!(matches!(read(&mut packets).await.unwrap_err(), Failure::Protocol(_)));

        let (mut packets, mut server) = pair();
        server.write_all(&[framed(0, b"greeting"), framed(1, b"from somebody in between")].concat()).await.unwrap();
        assert_eq!(read(&mut packets).await.unwrap(), b"greeting");
        assert!(matches!(packets.into_stream(), Err(Failure::Protocol(_))));
    }

    #[tokio::test]
    async fn a_packet_that_never_ends_is_given_up_before_it_has_room() {
        let (mut packets, mut server) = pair();
        let serving = tokio::spawn(async move {
            let part = vec![7; LONGEST];
            for number in 0_u8.. {
                if server.write_all(&framed(number, &part)).await.is_err() {
                    return;
                }
            }
        });
        let limit = 2 * LONGEST;
        assert!(matches!(packets.next_up_to(limit).await, Err(Failure::TooLong { limit: given }) if given == limit));
        assert!(packets.buffer.capacity() <= limit + 3 * BUFFER, "{} bytes", packets.buffer.len());
        drop(packets);
        serving.await.unwrap();

        // Of one that is not a row, not even the first part is waited for.
        let (mut packets, mut server) = pair();
        server.write_all(&[0xff, 0xff, 0xff, 0]).await.unwrap();
        assert!(matches!(read(&mut packets).await, Err(Failure::TooLong { limit: WORDS })));
    }
}
