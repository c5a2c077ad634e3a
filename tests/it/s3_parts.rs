//! Objects that travel in parts: two writers at once, replies that are lost, and copies that one request does not make.

use std::path::Path;
use std::sync::Arc;

use cdrvault_engine::config;
use cdrvault_engine::retry::Retrying;
use cdrvault_format::error::{Kind, Result};
use cdrvault_format::layout;
use cdrvault_format::manifest::{Manifest, Notes};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::{Context, Writer};
use cdrvault_plugin::payload::Body;
use cdrvault_plugin::progress::Quiet;
use cdrvault_plugin::registry::Around;
use cdrvault_plugin::sink::{Expected, Live, LiveObject, Sealed, Vault};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use crate::services;
use crate::services::garage::Garage;
use crate::services::gate::{Asked, Fate, Gate};
use crate::services::moto::Moto;
use crate::services::sealed::{self, bytes, live_path};

/// More than goes in one request.
const IN_PARTS: usize = 9_000_000;

/// More than one request copies.
const COPIED_IN_PARTS: usize = 65 << 20;

enum Server {
    Garage(Garage),
    Moto(Moto),
}

impl Server {
    fn boto3(&self, script: &str) -> String {
        match self {
            Self::Garage(server) => server.boto3(script),
            Self::Moto(server) => server.boto3(script),
        }
        .unwrap()
    }

    fn port(&self) -> u16 {
        match self {
            Self::Garage(server) => server.port(),
            Self::Moto(server) => server.port(),
        }
    }

    /// The SHA-256 of an object, read by another client.
    fn sha256(&self, name: &str) -> String {
        let script = format!(
            "import hashlib\nprint(hashlib.sha256(s3.get_object(Bucket='vault', Key='site/{name}')['Body'].read()).hexdigest())"
        );
        self.boto3(&script).trim().to_owned()
    }

    /// The names of kept versions whose bytes are not those that the name tells of, and how many versions there are.
    fn wrong_versions(&self) -> String {
        self.boto3(
            "import hashlib\nfound = s3.list_objects_v2(Bucket='vault', Prefix='site/.cdrvault/versions/').get('Contents', [])\n\
             sha = lambda key: hashlib.sha256(s3.get_object(Bucket='vault', Key=key)['Body'].read()).hexdigest()\n\
             wrong = [one['Key'] for one in found if one['Key'].rsplit('-', 1)[1].split('.')[0] != sha(one['Key'])[:12]]\n\
             print(wrong, len(found) > 0)",
        )
        .trim()
        .to_owned()
    }

    fn unfinished(&self) -> String {
        self.boto3("print(len(s3.list_multipart_uploads(Bucket='vault').get('Uploads', [])))").trim().to_owned()
    }
}

/// A writer of the vault, which reaches the bucket at this port.
struct Place {
    home: tempfile::TempDir,
    cx: Context,
    sink: Arc<dyn Vault>,
}

impl Place {
    async fn open(server: &Server, port: u16) -> Self {
        Self::open_as(server, port, "0badcafe", false).await
    }

    /// As another host does, which may take the vault over.
    async fn open_as(server: &Server, port: u16, writer: &str, adopt: bool) -> Self {
        let home = tempfile::Builder::new().prefix("cdrvault-parts").tempdir().unwrap();
        let (region, key, secret) = match server {
            Server::Garage(server) => (server.region(), server.access_key(), server.secret_key()),
            Server::Moto(server) => (server.region(), server.access_key(), server.secret_key()),
        };
        let section = services::remote::s3_section(&format!("http://127.0.0.1:{port}"), region, "vault", key);
        let text = format!(
            "name = \"parts\"\nstate = \"state\"\n{section}[flow.data]\nsource.files = {{ path = \"in\" }}\nsinks = [\"bucket\"]\n"
        );
        std::fs::write(home.path().join("pipeline.toml"), text).unwrap();
        let file = home.path().join("s3-secret");
        std::fs::write(&file, secret).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let cx = Context {
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: Arc::new(Quiet),
            writer: Arc::new(Writer {
                pipeline: "parts".to_owned(),
                id: writer.to_owned(),
                timezone: jiff::tz::TimeZone::UTC,
                state: home.path().join("state"),
            }),
            scratch: None,
        };
        let pipeline = config::open(&home.path().join("pipeline.toml"), &cdrvault::registry()).unwrap();
        let around = Around { datasets: vec!["data".to_owned()], mirrored: None };
        let sink: Arc<dyn Vault> = Arc::new(Retrying(pipeline.sink("bucket").unwrap().build.build(&around).unwrap()));
        sink.open(&cx, &Expected { adopt, ..Expected::default() }, false).await.unwrap();
        Self { home, cx, sink }
    }

    async fn live(&self) -> Live {
        self.sink.live(&self.cx, &unit()).await.unwrap()
    }

    async fn publish(&self, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        self.sink.publish(&self.cx, sealed, over).await
    }

    /// What the program itself reads of a generation.
    async fn read(&self, generation: u32) -> Vec<u8> {
        let manifest = self.sink.manifest(&self.cx, &unit(), generation).await.unwrap();
        let objects: Vec<_> = self.sink.read(&self.cx, &manifest).await.unwrap().try_collect().await.unwrap();
        match objects.into_iter().next().unwrap().body {
            Body::Stream(bytes) => bytes.try_collect::<Vec<_>>().await.unwrap().concat(),
            _ => panic!("a bucket has streams"),
        }
    }
}

fn unit() -> Unit {
    Unit::new("data", Partition::Day("2026-01-01".parse().unwrap()))
}

/// With its checksum.
fn sealed(directory: &Path, generation: u32, content: &[u8]) -> (Sealed, String) {
    (sealed::sealed(directory, &unit(), generation, content), hex::encode(Sha256::digest(content)))
}

/// The end of an upload in parts of something like this.
fn ends(asked: &Asked, name: &str) -> bool {
    asked.is("POST", "uploadId=") && asked.target.contains(name)
}

#[test]
fn of_two_writers_in_parts_one_is_told_and_what_is_live_is_whole() {
    let server = Server::Moto(Moto::start());
    let gate = Gate::start(server.port());
    let runtime = Runtime::new().unwrap();
    let ours = runtime.block_on(Place::open(&server, gate.port()));
    let theirs = Arc::new(runtime.block_on(Place::open(&server, server.port())));
    assert!(ours.sink.capabilities().conditional_put);
    let shas = |generation: u32| {
        let seed = u64::from(generation) * 2;
        let one = sealed(ours.home.path(), generation, &bytes(seed, IN_PARTS));
        (one, sealed(theirs.home.path(), generation, &bytes(seed + 1, IN_PARTS)))
    };
    // All of our parts are there; before we can end them, somebody else begins and ends.
    let overtaken = |sealed: Sealed, over: Live| {
        let (theirs, runtime, mut sealed) = (Arc::clone(&theirs), runtime.handle().clone(), Some(sealed));
        move |asked: &Asked| {
            if ends(asked, "/data/")
                && let Some(sealed) = sealed.take()
            {
                let (theirs, over) = (Arc::clone(&theirs), over.clone());
                let (say, said) = std::sync::mpsc::channel();
                runtime.spawn(async move { say.send(theirs.publish(&sealed, &over).await.map(drop)).unwrap() });
                said.recv().unwrap().expect("nothing is in their way");
            }
            Fate::Pass
        }
    };

    // Where there was nothing.
    let ((mine, _), (other, winner)) = shas(1);
    gate.set(overtaken(other, Live::NOTHING));
    let refused = runtime.block_on(ours.publish(&mine, &Live::NOTHING)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    assert!(refused.one_line().contains("PreconditionFailed"), "{refused}");
    assert_eq!(gate.count("POST", "uploadId="), 1, "a refusal is final");
    assert_eq!(server.sha256(&live_path(&unit())), winner);
    let live = runtime.block_on(ours.live());
    assert_eq!((live.generation(), &live.object), (1, &LiveObject::Intact), "the receipt is the winner's");
    assert_eq!(server.unfinished(), "0", "the loser took its parts away");

    // Over what both have seen. Moto does not ask for the condition of such an end, so the last one stays; it has no receipt.
    let ((mine, my_sha), (other, their_sha)) = shas(2);
    gate.set(overtaken(other, live.clone()));
    let refused = runtime.block_on(ours.publish(&mine, &live)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    let tagged = gate.asked().iter().any(|asked| ends(asked, "/data/") && asked.header("if-match").is_some());
    assert!(tagged, "we ask for it");
    let there = server.sha256(&live_path(&unit()));
    assert!([&my_sha, &their_sha].contains(&&there), "one of them, and whole");

    // At the same moment, in any order.
    let live = runtime.block_on(ours.live());
    let ((mine, my_sha), (other, their_sha)) = shas(3);
    gate.set(|_: &Asked| Fate::Pass);
    let (first, second) =
        runtime.block_on(async { tokio::join!(ours.publish(&mine, &live), theirs.publish(&other, &live)) });
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let there = server.sha256(&live_path(&unit()));
    assert!([&my_sha, &their_sha].contains(&&there), "one of them, and whole");

    // What comes next finds its way.
    let live = runtime.block_on(ours.live());
    let ((mine, my_sha), _) = shas(4);
    runtime.block_on(ours.publish(&mine, &live)).unwrap();
    assert_eq!(server.sha256(&live_path(&unit())), my_sha);
    assert_eq!(runtime.block_on(ours.live()).object, LiveObject::Intact);
    assert_eq!(server.unfinished(), "0");
}

/// One version is kept at the first try, the next with replies that are lost.
fn a_version_above_one_request_is_whole(server: &Server) {
    let gate = Gate::start(server.port());
    let runtime = Runtime::new().unwrap();
    let place = runtime.block_on(Place::open(server, gate.port()));
    let content = [bytes(1, COPIED_IN_PARTS), bytes(2, COPIED_IN_PARTS)];
    let (first, first_sha) = sealed(place.home.path(), 1, &content[0]);
    let (second, second_sha) = sealed(place.home.path(), 2, &content[1]);
    let (third, _) = sealed(place.home.path(), 3, b"few calls");
    runtime.block_on(place.publish(&first, &Live::NOTHING)).unwrap();

    let next = |sealed: &Sealed| runtime.block_on(async { place.publish(sealed, &place.live().await).await });
    gate.set(|_: &Asked| Fate::Pass);
    next(&second).unwrap();
    let asked = gate.asked();
    let ranges: Vec<_> = asked.iter().filter_map(|asked| asked.header("x-amz-copy-source-range")).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let name = layout::version(&unit(), 1, &first_sha).unwrap();
    assert_eq!(server.sha256(&name), first_sha);
    assert!(runtime.block_on(place.read(1)) == content[0]);

    // The server has done it, and says so to nobody.
    let mut lost = 0;
    gate.set(move |asked: &Asked| {
        lost += u32::from(ends(asked, "/versions/"));
        if ends(asked, "/versions/") && lost <= 2 { Fate::LoseReply } else { Fate::Pass }
    });
    next(&third).unwrap();
    assert!(gate.count("POST", "/versions/") > 2, "it was asked again");
    let name = layout::version(&unit(), 2, &second_sha).unwrap();
    assert_eq!(server.sha256(&name), second_sha);
    assert_eq!(server.unfinished(), "0");
}

#[test]
fn a_version_above_one_request_is_whole_on_garage() {
    a_version_above_one_request_is_whole(&Server::Garage(Garage::start()));
}

#[test]
fn a_version_above_one_request_is_whole_on_moto() {
    a_version_above_one_request_is_whole(&Server::Moto(Moto::start()));
}

/// Created and replaced: the reply to the end of the upload is lost once, and always.
fn an_end_whose_reply_is_lost_is_found_to_be_ours(server: &Server) {
    let gate = Gate::start(server.port());
    let runtime = Runtime::new().unwrap();
    let place = runtime.block_on(Place::open(server, gate.port()));
    for (generation, losses) in [(1, 1), (2, 1), (3, u32::MAX)] {
        let (sealed, sha256) = sealed(place.home.path(), generation, &bytes(generation.into(), IN_PARTS));
        let live = runtime.block_on(place.live());
        let mut lost = 0;
        gate.set(move |asked: &Asked| {
            let loses = ends(asked, "/data/") && lost < losses;
            lost += u32::from(loses);
            if loses { Fate::LoseReply } else { Fate::Pass }
        });
        runtime.block_on(place.publish(&sealed, &live)).unwrap();
        assert!(gate.count("POST", "uploadId=") > 1, "it was asked again");
        assert_eq!(server.sha256(&live_path(&unit())), sha256);
        let live = runtime.block_on(place.live());
        assert_eq!((live.generation(), &live.object), (generation, &LiveObject::Intact));
        assert_eq!(server.unfinished(), "0");
    }
}

#[test]
fn an_end_whose_reply_is_lost_is_found_to_be_ours_on_garage() {
    an_end_whose_reply_is_lost_is_found_to_be_ours(&Server::Garage(Garage::start()));
}

#[test]
fn an_end_whose_reply_is_lost_is_found_to_be_ours_on_moto() {
    an_end_whose_reply_is_lost_is_found_to_be_ours(&Server::Moto(Moto::start()));
}

/// Another host replaces what is live just before it is kept.
fn a_version_is_what_was_seen_or_is_not_there(server: &Server) {
    let gate = Gate::start(server.port());
    let runtime = Runtime::new().unwrap();
    let ours = runtime.block_on(Place::open(server, gate.port()));
    let theirs = Arc::new(runtime.block_on(Place::open(server, server.port())));
    let of = |home: &Path, generation: u32, seed: u64| sealed(home, generation, &bytes(seed, 5000)).0;
    runtime.block_on(ours.publish(&of(ours.home.path(), 1, 1), &Live::NOTHING)).unwrap();
    // Whichever request to the live object comes then: the look at it is the first.
    for moment in 1..=3 {
        let live = runtime.block_on(ours.live());
        let next = live.generation() + 1;
        let mine = of(ours.home.path(), next, 100 + moment);
        let mut other = Some((of(theirs.home.path(), next, 200 + moment), live.clone()));
        let (theirs, handle, mut seen) = (Arc::clone(&theirs), runtime.handle().clone(), 0);
        gate.set(move |asked: &Asked| {
            let of_live = asked.target.contains("/data/day") || asked.header("x-amz-copy-source").is_some();
            seen += u64::from(of_live);
            if of_live
                && seen > moment
                && let Some((sealed, over)) = other.take()
            {
                let theirs = Arc::clone(&theirs);
                let (say, said) = std::sync::mpsc::channel();
                handle.spawn(async move { say.send(theirs.publish(&sealed, &over).await.map(drop)).unwrap() });
                let _ = said.recv().unwrap();
            }
            Fate::Pass
        });
        let _ = runtime.block_on(ours.publish(&mine, &live));
        assert_eq!(server.wrong_versions(), "[] True", "moment {moment}");
        gate.set(|_: &Asked| Fate::Pass);
    }
    // Both at once, again and again.
    let rounds = if std::env::var_os("CDRVAULT_TEST_FULL").is_some() { 100 } else { 8 };
    for round in 0..rounds {
        let live = runtime.block_on(theirs.live());
        let next = live.generation() + 1;
        let (mine, other) = (of(ours.home.path(), next, 1000 + round), of(theirs.home.path(), next, 2000 + round));
        let (_, _) =
            runtime.block_on(async { tokio::join!(ours.publish(&mine, &live), theirs.publish(&other, &live)) });
        assert_eq!(server.wrong_versions(), "[] True", "round {round}");
    }
}

#[test]
fn a_version_is_what_was_seen_or_is_not_there_on_moto() {
    a_version_is_what_was_seen_or_is_not_there(&Server::Moto(Moto::start()));
}

#[test]
fn a_version_is_what_was_seen_or_is_not_there_on_garage() {
    a_version_is_what_was_seen_or_is_not_there(&Server::Garage(Garage::start()));
}

#[test]
fn a_host_whose_vault_was_taken_over_writes_nothing_more() {
    let server = Server::Moto(Moto::start());
    let runtime = Runtime::new().unwrap();
    let old = runtime.block_on(Place::open(&server, server.port()));
    let of = |home: &Path, generation: u32, seed: u64| sealed(home, generation, &bytes(seed, 5000));
    let first = runtime.block_on(old.publish(&of(old.home.path(), 1, 1).0, &Live::NOTHING)).unwrap();
    let new = runtime.block_on(Place::open_as(&server, server.port(), "5ca1ab1e", true));
    let live = runtime.block_on(old.live());
    let refused = [
        runtime.block_on(old.publish(&of(old.home.path(), 2, 2).0, &live)).map(drop),
        runtime.block_on(old.sink.remove(&old.cx, &first)),
        runtime.block_on(old.sink.unrecord(&old.cx, &[(unit(), 1)])),
        runtime.block_on(old.sink.put_notes(&old.cx, &unit(), &Notes::default())),
    ];
    for (index, refused) in refused.into_iter().enumerate().filter(|(index, _)| *index != 2) {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{index}: {error}");
        assert!(error.one_line().contains("was taken over by writer 5ca1ab1e"), "{index}: {}", error.one_line());
    }
    let (next, sha) = of(new.home.path(), 2, 3);
    runtime.block_on(new.publish(&next, &live)).unwrap();
    assert_eq!(server.sha256(&live_path(&unit())), sha);
    assert_eq!(server.wrong_versions(), "[] True");
}
