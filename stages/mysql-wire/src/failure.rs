//! What can go wrong between us and a server.

use std::borrow::Cow;
use std::io;

/// Of this crate: it fails in one way.
pub type Result<T> = std::result::Result<T, Failure>;

/// What can go wrong between us and a server. None of it tells a password.
///
/// Texts of a server are passed on as they came, control characters included: who shows them makes them safe.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What the server says.
    #[error("{message} (error {number})")]
    Server {
        /// By <https://mariadb.com/kb/en/mariadb-error-code-reference/>.
        number: u16,
        /// Its text, without the state.
        message: String,
    },
    /// The stream broke, or could not be opened.
    #[error("{0}")]
    Io(io::Error),
    /// Encryption failed, or the server's certificate is not the one that is asked for.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The server and we have no way in common to prove who we are.
    #[error("{0}")]
    Login(String),
    /// The server asks for the password itself, by this plugin, and has not proved which server it is.
    #[error("the server asks for the password itself (`{0}`), and has not proved which server it is")]
    Unproved(&'static str),
    /// What the server sends at once is longer than we take.
    #[error("the server sends more than {limit} bytes at once")]
    TooLong {
        /// In bytes.
        limit: usize,
    },
    /// What came is not what should come.
    #[error("protocol error: {0}")]
    Protocol(Cow<'static, str>),
}

impl Failure {
    pub(crate) fn protocol(what: &'static str) -> Self {
        Self::Protocol(Cow::Borrowed(what))
    }

    /// Whether the other side no longer takes what we send.
    pub(crate) fn is_hang_up(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, Self::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
    }

    /// Of a packet that tells of an error: its number, a state unless nobody is logged in yet, a text.
    pub(crate) fn from_packet(packet: &[u8]) -> Self {
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
