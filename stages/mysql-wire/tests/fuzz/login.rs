//! Logins: greetings, plugins, proofs, and how encryption begins. What a proof must be is computed by `ring`, which the crate does
//! not use for it.

use cdrvault_mysql_wire::{Connection, Failure, Place, Server, Tls};
use proptest::prelude::*;
use ring::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use ring::signature::Ed25519KeyPair;

use crate::captured::{self, LOGINS};
use crate::damage::{apply, damages};
use crate::encoded::{Packet, done, framed, text};
use crate::script::Script;
use crate::{fuzz, now};

const NATIVE: &str = "mysql_native_password";
const CACHING: &str = "caching_sha2_password";
const ED25519: &str = "client_ed25519";

/// 4.1, plugins with proofs of any length, a database, transactions, found rows.
const CAPABILITIES: u32 = 0x0028_a20a;
const SSL: u32 = 0x800;

fn server(password: &str, place: Place, tls: Tls) -> Server {
    Server {
        place,
        user: "backup-account".to_owned(),
        password: Some(password.to_owned().into()),
        database: "billing".to_owned(),
        tls,
        tls_ca: None,
    }
}

fn tcp() -> Place {
    Place::Tcp { host: "db.example.net".to_owned(), port: 3306 }
}

fn greeting(plugin: &str, nonce: &[u8], capabilities: u32) -> Vec<u8> {
    let capabilities = capabilities.to_le_bytes();
    [
        b"\x0a8.0.36\0\x07\0\0\0",
        &nonce[..8],
        b"\0",
        &capabilities[..2],
        b"\x2d\x02\0",
        &capabilities[2..],
        b"\x15\0\0\0\0\0\0\0\0\0\0",
        &nonce[8..20],
        b"\0",
        plugin.as_bytes(),
        b"\0",
    ]
    .concat()
}

fn switch(plugin: &str, nonce: &[u8]) -> Vec<u8> {
    // MySQL ends a nonce of 20 bytes with a zero.
    let end: &[u8] = if nonce.len() == 20 { b"\0" } else { b"" };
    [b"\xfe", plugin.as_bytes(), b"\0", nonce, end].concat()
}

fn numbered(packets: impl IntoIterator<Item = (u8, Vec<u8>)>) -> Vec<Packet> {
    packets.into_iter().map(|(number, body)| Packet { number, body, length: None }).collect()
}

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

fn proof(plugin: &str, password: &str, nonce: &[u8]) -> Vec<u8> {
    let password = password.as_bytes();
    match plugin {
        ED25519 => Ed25519KeyPair::from_seed_unchecked(password).unwrap().sign(nonce).as_ref().to_vec(),
        _ if password.is_empty() => Vec::new(),
        CACHING => {
            let once = hash(&SHA256, &[password]);
            let twice = hash(&SHA256, &[&once]);
            xor(&once, &hash(&SHA256, &[&twice, nonce]))
        }
        _ => {
            let once = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[password]);
            let twice = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&once]);
            xor(&once, &hash(&SHA1_FOR_LEGACY_USE_ONLY, &[nonce, &twice]))
        }
    }
}

/// The answer to a greeting.
fn response(plugin: &str, proof: &[u8]) -> Vec<u8> {
    [
        &CAPABILITIES.to_le_bytes()[..],
        b"\0\0\0\x40\x2d",
        &[0; 23],
        b"backup-account\0",
        &text(proof),
        b"billing\0",
        plugin.as_bytes(),
        b"\0",
    ]
    .concat()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Tries to log in; gives what was heard of us.
fn tried(said: Vec<u8>, pieces: &[usize], server: &Server) -> (Result<(), Failure>, Vec<u8>) {
    let (script, talk) = Script::new(said, pieces);
    let result = now(Connection::log_in(script, server)).map(drop);
    let heard = std::mem::take(&mut talk.lock().unwrap().heard);
    (result, heard)
}

/// A password that is found where it should not be; one of 32 bytes is a seed, which other libraries of Ed25519 take.
fn password() -> impl Strategy<Value = String> {
    "[a-z]{8}-[0-9]{8}-[a-z]{14}"
}

fn nonce(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, length)
}

/// A login that is let in: what is said, and what must be heard.
fn logins() -> impl Strategy<Value = (String, Vec<Packet>, Vec<Packet>)> {
    let proposed =
        prop::sample::select(&[NATIVE, CACHING, "auth_gssapi_client", "mysql_clear_password", "sha256_password"][..]);
    let asked = prop::option::of(prop::sample::select(&[NATIVE, CACHING, ED25519][..]));
    let empty = prop::bool::weighted(0.1);
    (password(), empty, proposed, nonce(20), asked, nonce(32)).prop_map(
        |(password, empty, proposed, nonce, asked, other_nonce)| {
            let password = if empty && asked != Some(ED25519) { String::new() } else { password };
            let mut said = vec![(0, greeting(proposed, &nonce, CAPABILITIES))];
            // Another than these is not begun with: the server will ask for it, if it means it.
            let begun = match proposed {
                CACHING => CACHING,
                "sha256_password" if password.is_empty() => "sha256_password",
                _ => NATIVE,
            };
            let mut heard = vec![(1, response(begun, &proof(begun, &password, &nonce)))];
            let mut last = begun;
            if let Some(asked) = asked {
                let nonce = if asked == ED25519 { &other_nonce[..] } else { &other_nonce[..20] };
                said.push((2, switch(asked, nonce)));
                heard.push((3, proof(asked, &password, nonce)));
                last = asked;
            }
            let mut number = 2 * said.len() as u8;
            if last == CACHING && !password.is_empty() {
                said.push((number, vec![1, 3]));
                number += 1;
            }
            said.push((number, done()));
            (password, numbered(said), numbered(heard))
        },
    )
}

#[test]
fn proofs_are_what_the_documentation_says_and_a_cut_is_an_error() {
    let inputs = (logins(), prop::collection::vec(1..50_usize, 0..3));
    fuzz(400, &inputs, |((password, said, expected), pieces)| {
        let server = server(&password, tcp(), Tls::Disabled);
        let said = framed(&said);
        let (result, heard) = tried(said.clone(), &pieces, &server);
        prop_assert!(result.is_ok(), "{:?}", result);
        prop_assert_eq!(heard, framed(&expected));
        for end in 0..said.len() {
            prop_assert!(tried(said[..end].to_vec(), &pieces, &server).0.is_err(), "cut at {}", end);
        }
        Ok(())
    });
}

/// Captured and made logins, of which the server also asks for the password in other ways.
fn hostile() -> impl Strategy<Value = Vec<Packet>> {
    let plugins = &[
        NATIVE,
        CACHING,
        ED25519,
        "sha256_password",
        "mysql_clear_password",
        "mysql_old_password",
        "parsec",
        "dialog",
    ][..];
    let said = prop_oneof![
        (prop::sample::select(plugins), nonce(32), 0..33_usize)
            .prop_map(|(plugin, nonce, length)| switch(plugin, &nonce[..length])),
        Just(b"\xfe".to_vec()),
        Just(vec![1, 4]),
        Just(vec![1, 3]),
        Just(vec![1, 2]),
        Just([b"\x01", KEY].concat()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|more| [&[1], &more[..]].concat()),
        Just(done()),
    ];
    let capabilities = prop_oneof![3 => Just(CAPABILITIES), 1 => any::<u32>()];
    let made = (prop::sample::select(plugins), nonce(20), capabilities, prop::collection::vec(said, 0..6)).prop_map(
        |(plugin, nonce, capabilities, said)| {
            let bodies = std::iter::once(greeting(plugin, &nonce, capabilities)).chain(said);
            numbered((0..).step_by(2).zip(bodies))
        },
    );
    prop_oneof![
        2 => made.boxed(),
        1 => (0..LOGINS.len()).prop_map(|which| captured::packets(LOGINS[which])).boxed(),
        1 => logins().prop_map(|(_, said, _)| said).boxed(),
    ]
}

/// Anybody can make one.
const KEY: &[u8] = include_bytes!("captured/impostor.pem");

#[test]
fn no_server_gets_the_password_and_no_error_tells_it() {
    let tls = prop::sample::select(&[Tls::Disabled, Tls::Preferred, Tls::Required][..]);
    let damages = prop_oneof![Just(Vec::new()).boxed(), damages().boxed()];
    let inputs = (hostile(), damages, any::<bool>(), password(), tls, prop::collection::vec(1..90_usize, 0..3));
    fuzz(5_000, &inputs, |(packets, damages, renumber, password, tls, pieces)| {
        let said = apply(packets, &damages, renumber);
        let lets_in = contains(&said, &[0]);
        let (result, heard) = tried(said, &pieces, &server(&password, tcp(), tls));
        prop_assert!(!contains(&heard, password.as_bytes()));
        prop_assert!(result.is_err() || lets_in);
        prop_assert!(result.is_err() || tls != Tls::Required, "a script cannot encrypt");
        let mut rest = &heard[..];
        while let [a, b, c, number, more @ ..] = rest {
            // TLS, which says nothing of us.
            if [*a, *b] == [0x16, 3] {
                prop_assert!(!contains(rest, b"backup-account"));
                break;
            }
            let length = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
            // No proof is as long as the password under an RSA key.
            prop_assert!(*number == 1 || length <= 64 || contains(&more[..length], b"backup-account"));
            prop_assert!(tls != Tls::Required || length == 32, "before TLS, {} bytes", length);
            rest = &more[length..];
        }
        if let Err(error) = result {
            let told = format!("{error} {error:?}");
            prop_assert!(!told.contains(&password), "{}", told);
        }
        Ok(())
    });
}

#[test]
fn a_local_server_gets_the_password_by_its_socket_alone() {
    fuzz(50, &(password(), nonce(20)), |(password, nonce)| {
        let said = numbered([(0, greeting(CACHING, &nonce, CAPABILITIES)), (2, vec![1, 4]), (4, done())]);
        let socket = server(&password, Place::Socket("/run/mysqld/mysqld.sock".into()), Tls::Preferred);
        let (result, heard) = tried(framed(&said), &[], &socket);
        prop_assert!(result.is_ok());
        let clear = [password.as_bytes(), b"\0"].concat();
        prop_assert!(heard.ends_with(&clear));
        let here = Place::Tcp { host: "127.0.0.1".to_owned(), port: 3306 };
        let (result, heard) = tried(framed(&said), &[], &server(&password, here, Tls::Preferred));
        prop_assert!(matches!(result, Err(Failure::Unproved(_))));
        prop_assert!(!contains(&heard, password.as_bytes()));
        Ok(())
    });
}

#[test]
fn encryption_begins_before_anything_is_told() {
    let tls = prop::sample::select(&[Tls::Preferred, Tls::Required][..]);
    let after = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        // A handshake, an alert, and data of TLS.
        (prop::sample::select(&[0x14_u8, 0x15, 0x16, 0x17][..]), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(kind, body)| [&[kind, 3, 3, 0, body.len() as u8], &body[..]].concat()),
    ];
    fuzz(1_000, &(nonce(20), tls, after, any::<bool>()), |(nonce, tls, after, at_once)| {
        let server = server("plum-pudding", tcp(), tls);
        let first = framed(&numbered([(0, greeting(NATIVE, &nonce, CAPABILITIES | SSL))]));
        let pieces = if at_once { vec![] } else { vec![first.len(), usize::MAX] };
        let said_early = at_once && !after.is_empty();
        let (result, heard) = tried([&first[..], &after].concat(), &pieces, &server);
        prop_assert!(result.is_err());
        let request = [&b"\x20\0\0\x01"[..], &(CAPABILITIES | SSL).to_le_bytes(), b"\0\0\0\x40\x2d", &[0; 23]].concat();
        prop_assert_eq!(&heard[..request.len()], &request[..]);
        if said_early {
            prop_assert!(matches!(result, Err(Failure::Protocol(_))));
            prop_assert_eq!(heard.len(), request.len());
        } else {
            prop_assert!(matches!(result, Err(Failure::Tls(_))), "{:?}", result);
            prop_assert_eq!(&heard[request.len()..][..2], &[0x16, 3][..]);
        }
        prop_assert!(!contains(&heard, b"backup-account") && !contains(&heard, &proof(NATIVE, "plum-pudding", &nonce)));

        // Without an offer, a server that must be encrypted hears nothing.
        let first = framed(&numbered([(0, greeting(NATIVE, &nonce, CAPABILITIES))]));
        let (result, heard) = tried(first, &[], &server);
        prop_assert_eq!(heard.is_empty(), tls == Tls::Required);
        prop_assert!(result.is_err());
        Ok(())
    });
}
