//! How a connection begins: the server's greeting, encryption, and the proof of who we are.

use mysql_common::auth::plugins::{AuthProc, ChallengeResponsePlugin as _, Context};
use mysql_common::constants::CapabilityFlags as Capabilities;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use secrecy::ExposeSecret as _;
use tokio::net::{TcpStream, UnixStream};

use crate::failure::{Failure, Result};
use crate::packets::{END, ERROR, OK, Packets, Stream};
use crate::server::{Place, Server, Tls};
use crate::tls;

/// The longest packet that we take.
const LONGEST: u32 = 1 << 30;

/// `utf8mb4_general_ci`, which all servers know.
const COLLATION: u8 = 45;

/// More of a challenge, or of what follows it.
const MORE: u8 = 0x01;

/// A statement tells how many rows it found, not how many it changed. Files of ours are not offered.
const WANTED: Capabilities = Capabilities::CLIENT_PROTOCOL_41
    .union(Capabilities::CLIENT_SECURE_CONNECTION)
    .union(Capabilities::CLIENT_PLUGIN_AUTH)
    .union(Capabilities::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Capabilities::CLIENT_CONNECT_WITH_DB)
    .union(Capabilities::CLIENT_TRANSACTIONS)
    .union(Capabilities::CLIENT_FOUND_ROWS);

/// A stream to where the server listens.
pub(super) async fn connect(server: &Server) -> Result<Box<dyn Stream>> {
    Ok(match &server.place {
        Place::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Place::Socket(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// Listens to the greeting, and proves who we are.
pub(super) async fn log_in(stream: Box<dyn Stream>, server: &Server) -> Result<Packets> {
    let mut packets = Packets::new(stream, 0);
    let at = packets.next().await?;
    let greeting = packets.bytes(at);
    if greeting.first() == Some(&ERROR) {
        return Err(Failure::from_packet(greeting));
    }
    // All servers have nonces of 20 bytes and a zero. `mysql_common` 0.38 computes with this length in 8 bits, with a sign.
    if nonce_length(greeting).is_some_and(|length| length > 0x7f) {
        return Err(Failure::protocol("a greeting with too long a nonce"));
    }
    let greeting = ParseBuf(greeting).parse::<HandshakePacket<'_>>(())?.into_owned();
    let mut capabilities = WANTED & greeting.capabilities();
    if !capabilities.contains(Capabilities::CLIENT_PROTOCOL_41 | Capabilities::CLIENT_SECURE_CONNECTION) {
        return Err(Failure::protocol("the server is neither MariaDB nor MySQL 4.1 or newer"));
    }
    let is_local = matches!(server.place, Place::Socket(_));
    let is_encrypted = match server.tls {
        Tls::Disabled => false,
        // What goes through a socket of this machine needs none.
        Tls::Preferred => !is_local && greeting.capabilities().contains(Capabilities::CLIENT_SSL),
        Tls::Required | Tls::VerifyCa | Tls::VerifyIdentity => true,
    };
    if is_encrypted {
        if !greeting.capabilities().contains(Capabilities::CLIENT_SSL) {
            return Err(Failure::Tls("the server does not offer it".to_owned()));
        }
        capabilities |= Capabilities::CLIENT_SSL;
        packets.send(&[&serialized(&SslRequest::new(capabilities, LONGEST, COLLATION))]).await?;
        let (stream, number) = packets.into_stream()?;
        packets = Packets::new(tls::encrypt(stream, server).await?, number);
    }
    let password = server.password.as_ref().map(|password| password.expose_secret().as_bytes());
    let mut proof = Proof {
        password: password.unwrap_or_default(),
        nonce: greeting.nonce(),
        is_local,
        is_encrypted,
        is_proved: is_local || (is_encrypted && is_proved(server)),
    };
    // An account may want another way than the one that the server proposes; it says so in its answer to this.
    let acceptable = |plugin: &AuthPlugin<'_>| is_known(plugin) && proof.may_begin(plugin);
    let proposed = greeting.auth_plugin().filter(acceptable).unwrap_or(AuthPlugin::MysqlNativePassword);
    let mut procedure = proof.begin(&proposed)?;
    let response = HandshakeResponse::new(
        proof.answer(&mut procedure, None)?,
        greeting.server_version_parsed().unwrap_or((5, 5, 3)),
        Some(server.user.as_bytes()),
        Some(server.database.as_bytes()),
        Some(proposed.borrow()),
        capabilities,
        None,
        LONGEST,
    );
    packets.send(&[&serialized(&response)]).await?;
    loop {
        let at = packets.next().await?;
        let answer = match packets.bytes(at) {
            [OK, ..] => return Ok(packets),
            said @ [ERROR, ..] => return Err(Failure::from_packet(said)),
            // So ask servers before 4.1, and for an account that is as old.
            [END] => return Err(refused(&AuthPlugin::MysqlOldPassword)),
            said @ [END, ..] => {
                let switch: AuthSwitchRequest<'_> = ParseBuf(said).parse(())?;
                procedure = proof.begin(&switch.auth_plugin())?;
                proof.nonce = switch.plugin_data().to_vec();
                Some(proof.answer(&mut procedure, None)?.unwrap_or_default())
            }
            [MORE, challenge @ ..] => {
                proof.keep_password(&procedure, challenge)?;
                proof.answer(&mut procedure, Some(challenge))?
            }
            _ => return Err(Failure::protocol("unexpected packet during authentication")),
        };
        if let Some(answer) = answer {
            packets.send(&[&answer]).await?;
        }
    }
}

/// What a greeting says of its nonce's length.
fn nonce_length(greeting: &[u8]) -> Option<u8> {
    // Before it are the protocol, the version with a zero at its end, the thread (4), the nonce's beginning and a zero (9),
    // capabilities (2), charset (1), status (2), and more capabilities (2).
    let version = greeting.iter().skip(1).position(|byte| *byte == 0)?;
    greeting.get(1 + version + 1 + 4 + 9 + 2 + 1 + 2 + 2).copied()
}

fn serialized(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}

/// Whether it neither sends the password itself nor what could be used in its place.
fn is_known(plugin: &AuthPlugin<'_>) -> bool {
    !matches!(plugin, AuthPlugin::Other(_) | AuthPlugin::MysqlOldPassword | AuthPlugin::MysqlClearPassword)
}

fn refused(plugin: &AuthPlugin<'_>) -> Failure {
    Failure::Login(format!("the account logs in with `{}`", String::from_utf8_lossy(plugin.as_bytes())))
}

/// Whether a server that is encrypted by these options has proved to be the one that is meant. An authority of the
/// system's signs for everybody, so that its certificate alone proves nothing.
fn is_proved(server: &Server) -> bool {
    match server.tls {
        Tls::Disabled | Tls::Preferred | Tls::Required => false,
        Tls::VerifyCa => server.tls_ca.is_some(),
        Tls::VerifyIdentity => true,
    }
}

/// What a way to log in may need.
struct Proof<'s> {
    password: &'s [u8],
    nonce: Vec<u8>,
    is_local: bool,
    is_encrypted: bool,
    /// Whether the other side may learn the password: what it asks us to encrypt it with is its own key.
    is_proved: bool,
}

impl Proof<'_> {
    fn may_begin(&self, plugin: &AuthPlugin<'_>) -> bool {
        // Its first answer is the password, or a request for the key to encrypt it with.
        self.is_proved || self.password.is_empty() || *plugin != AuthPlugin::Sha256Password
    }

    fn begin(&self, plugin: &AuthPlugin<'_>) -> Result<AuthProc> {
        if !self.may_begin(plugin) {
            return Err(Failure::Unproved("sha256_password"));
        }
        let procedure = if is_known(plugin) { plugin.init().ok() } else { None };
        procedure.ok_or_else(|| refused(plugin))
    }

    /// An error where a challenge asks for the password of a server that anybody may have started.
    fn keep_password(&self, procedure: &AuthProc, challenge: &[u8]) -> Result<()> {
        // Of `caching_sha2_password`; all else that it says leads to no answer.
        const NOT_CACHED: &[u8] = &[0x04];
        let asks = matches!(procedure, AuthProc::CachingSha2Password(_)) && challenge == NOT_CACHED;
        if asks && !self.is_proved { Err(Failure::Unproved("caching_sha2_password")) } else { Ok(()) }
    }

    /// The answer to a challenge, if there is one to give; the first challenge is the nonce.
    fn answer(&self, procedure: &mut AuthProc, challenge: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let response = procedure.run(self, challenge.unwrap_or(&self.nonce));
        response.map(|response| response.data().map(<[u8]>::to_vec)).map_err(|error| Failure::Login(error.to_string()))
    }
}

impl Context for &Proof<'_> {
    fn pass(&self) -> &[u8] {
        self.password
    }

    fn is_ipc_transport(&self) -> bool {
        self.is_local
    }

    fn is_tls_transport(&self) -> bool {
        self.is_encrypted
    }

    fn scramble(&self) -> &[u8] {
        &self.nonce
    }

    fn server_key_pem(&self) -> Option<&[u8]> {
        None
    }
}
