//! Servers that speak TLS: only one that has proved to be the one that is meant gets the password.
//!
//! `keys/` has an authority, the certificate that it signed for `db.example.net` with its key, and another authority with its key;
//! they are of these tests alone and are valid for a hundred years.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdrvault_mysql_wire::{Connection, Failure, Place, Server, Tls};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;

const PASSWORD: &[u8] = b"plum-pudding";

fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/encrypted/keys").join(name)
}

/// Shows a certificate whatever it is asked for, also one whose key it does not have.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Greets with an offer of TLS, encrypts, and says these packets, each after something was heard. Gives what it heard under
/// encryption.
async fn serve(mut stream: DuplexStream, has: &'static str, plugin: &'static str, says: Vec<Vec<u8>>) -> Vec<u8> {
    let greeting = [
        &b"\x0a8.0.36\0\x07\0\0\0abcdefgh\0\x0a\xaa\x2d\x02\0\x28\0\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0"[..],
        plugin.as_bytes(),
        b"\0",
    ]
    .concat();
    stream.write_all(&framed(0, &greeting)).await.unwrap();
    let mut request = [0; 36];
    stream.read_exact(&mut request).await.unwrap();

    let certificates = CertificateDer::pem_file_iter(key("server.pem")).unwrap().map(Result::unwrap).collect();
    let own = PrivateKeyDer::from_pem_file(key(has)).unwrap();
    let signing = ring::default_provider().key_provider.load_private_key(own).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(certificates, signing)))));
    let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return Vec::new() };
    let mut heard = Vec::new();
    for said in says {
        let mut header = [0; 4];
        if stream.read_exact(&mut header).await.is_err() {
            return heard;
        }
        let mut body = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
        stream.read_exact(&mut body).await.unwrap();
        heard.extend(body);
        stream.write_all(&framed(header[3] + 1, &said)).await.unwrap();
    }
    let _ = stream.read_to_end(&mut heard).await;
    heard
}

fn framed(number: u8, body: &[u8]) -> Vec<u8> {
    let [length, ..] = body.len().to_le_bytes();
    [&[length, 0, 0, number], body].concat()
}

/// The plugin of a greeting, and what is said afterwards.
type Ask = (&'static str, Vec<Vec<u8>>);

/// The ways to ask for the password itself that are answered with it.
fn asking() -> [Ask; 3] {
    let done = vec![0, 0, 0, 2, 0, 0, 0];
    let switch = b"\xfesha256_password\0abcdefghijklmnopqrst\0".to_vec();
    [
        ("caching_sha2_password", vec![vec![1, 4], done.clone()]),
        ("sha256_password", vec![done.clone()]),
        ("mysql_native_password", vec![switch, done]),
    ]
}

fn has_password(heard: &[u8]) -> bool {
    heard.windows(PASSWORD.len()).any(|window| window == PASSWORD)
}

/// What became of a login, and what the server heard.
async fn tried(
    host: &str,
    tls: Tls,
    authority: Option<&str>,
    has: &'static str,
    ask: &Ask,
) -> (Result<(), Failure>, Vec<u8>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(serve(theirs, has, ask.0, ask.1.clone()));
    let server = Server {
        place: Place::Tcp { host: host.to_owned(), port: 3306 },
        user: "backup".to_owned(),
        password: Some(String::from_utf8(PASSWORD.to_vec()).unwrap().into()),
        database: "billing".to_owned(),
        tls,
        tls_ca: authority.map(key),
    };
    let result = Connection::log_in(ours, &server).await.map(drop);
    (result, serving.await.unwrap())
}

#[tokio::test]
async fn a_server_that_is_proved_gets_the_password() {
    for ask in asking() {
        for (host, tls) in [
            ("db.example.net", Tls::VerifyIdentity),
            ("db.example.net", Tls::VerifyCa),
            ("elsewhere.example.net", Tls::VerifyCa),
        ] {
            let (result, heard) = tried(host, tls, Some("ca.pem"), "server.key", &ask).await;
            assert!(result.is_ok() && has_password(&heard), "{host}, {tls:?}, {}: {result:?}", ask.0);
        }
    }
}

#[tokio::test]
async fn an_encrypted_server_that_is_not_proved_does_not_get_the_password() {
    for ask in asking() {
        for tls in [Tls::Preferred, Tls::Required] {
            let (result, heard) = tried("db.example.net", tls, None, "server.key", &ask).await;
            // One that begins with `sha256_password` is answered as if it had not, and then lets us in without it.
            if ask.0 != "sha256_password" {
                assert!(matches!(result, Err(Failure::Unproved(_))), "{tls:?}, {}: {result:?}", ask.0);
            }
            assert!(heard.starts_with(&[0x0a]) && !has_password(&heard), "{tls:?}, {}", ask.0);
        }
    }
}

#[tokio::test]
async fn a_server_with_the_wrong_certificate_hears_nothing() {
    let cases = [
        ("of another name", "elsewhere.example.net", Tls::VerifyIdentity, Some("ca.pem"), "server.key"),
        ("of another authority", "db.example.net", Tls::VerifyIdentity, Some("other-ca.pem"), "server.key"),
        ("of another authority", "db.example.net", Tls::VerifyCa, Some("other-ca.pem"), "server.key"),
        ("without an authority of the system", "db.example.net", Tls::VerifyCa, None, "server.key"),
        ("without an authority of the system", "db.example.net", Tls::VerifyIdentity, None, "server.key"),
        ("of somebody else", "db.example.net", Tls::VerifyIdentity, Some("ca.pem"), "other.key"),
        ("of somebody else", "db.example.net", Tls::VerifyCa, Some("ca.pem"), "other.key"),
        ("of somebody else", "db.example.net", Tls::Required, None, "other.key"),
        ("of somebody else", "db.example.net", Tls::Preferred, None, "other.key"),
    ];
    for (what, host, tls, authority, has) in cases {
        for ask in asking() {
            let (result, heard) = tried(host, tls, authority, has, &ask).await;
            assert!(matches!(result, Err(Failure::Tls(_))), "a certificate {what}, {tls:?}: {result:?}");
            assert!(heard.is_empty(), "a certificate {what}, {tls:?}: {heard:02x?}");
        }
    }
}
