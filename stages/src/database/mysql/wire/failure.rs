//! What can go wrong between us and a server.

use std::borrow::Cow;
use std::io;

/// See the module.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the server says.
    Server {
        number: u16,
        message: String,
    },
    Io(io::Error),
    Tls(String),
    /// The server and we have no way in common to prove who we are.
    Login(String),
    /// The server asks for the password itself, by this plugin, and has not proved which server it is.
    Unproved(&'static str),
    /// A packet is longer than we take.
    TooLong {
        limit: usize,
    },
    /// What came is not what should come.
    Protocol(Cow<'static, str>),
}

impl Failure {
    pub(super) fn protocol(what: &'static str) -> Self {
        Self::Protocol(Cow::Borrowed(what))
    }

    /// Whether the other side no longer takes what we send.
    pub(super) fn is_hang_up(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, Self::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
    }

    /// Of a packet that tells of an error: its number, a state unless nobody is logged in yet, a text.
    pub(super) fn from_packet(packet: &[u8]) -> Self {
        let (number, text) = match packet {
            [_, a, b, b'#', _, _, _, _, _, text @ ..] | [_, a, b, text @ ..] => (u16::from_le_bytes([*a, *b]), text),
            _ => return Self::protocol("an error without a number"),
        };
        Self::Server { number, message: String::from_utf8_lossy(text).into_owned() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
