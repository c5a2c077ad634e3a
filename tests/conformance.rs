//! What every sink must do, whatever it is made of. A new sink adds a [`Subject`] and a line to the list at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "names are the vault's own")]

mod services;

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdrvault_pipeline::config;
use cdrvault_pipeline::context::{Context, Writer};
use cdrvault_pipeline::engine::Retrying;
use cdrvault_pipeline::error::{Kind, Result};
use cdrvault_pipeline::layout;
use cdrvault_pipeline::manifest::{Content, Manifest, Notes, Pin};
use cdrvault_pipeline::partition::{Partition, Unit};
use cdrvault_pipeline::payload::Body;
use cdrvault_pipeline::plugin::Around;
use cdrvault_pipeline::progress::Quiet;
use cdrvault_pipeline::sink::{Expected, Live, LiveObject, Sealed, Sink};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use jiff::civil::Date;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use services::garage::Garage;
use services::moto::Moto;
use services::proxy::{Fault, Proxy};
use services::rsyncd::Rsyncd;
use services::sealed::{bytes, live_path, sealed};
use services::sshd::Sshd;

/// A sink under test.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a place, not a state")]
struct Subject {
    home: tempfile::TempDir,
    /// The other end, looked at without the sink.
    far: Far,
    /// Makes what comes from the sink fail halfway, and lets it go again.
    fault: Option<Box<dyn Fn(bool)>>,
    mirror: bool,
    /// Each publishing is a session of seconds.
    slow: bool,
    /// What was written there tells what time it is there.
    tells_time: bool,
    /// It is held to 40 MiB a second.
    limited: bool,
    /// The longest object.
    largest: usize,
    _servers: Vec<Box<dyn Any>>,
}

/// Where the vault really is.
enum Far {
    Directory(PathBuf),
    Bucket(Box<AmazonS3>, String),
}

impl Far {
    async fn get(&self, name: &str) -> Option<Vec<u8>> {
        match self {
            Self::Directory(root) => std::fs::read(root.join(name)).ok(),
            Self::Bucket(store, prefix) => {
                let got = store.get(&key(&format!("{prefix}/{name}"))).await.ok()?;
                Some(got.bytes().await.ok()?.to_vec())
            }
        }
    }

    async fn names(&self) -> BTreeSet<String> {
        match self {
            Self::Directory(root) => {
                let mut names = BTreeSet::new();
                walk(root, root, &mut names);
                names.retain(|name| !name.starts_with("rdiff-backup-data/"));
                names
            }
            Self::Bucket(store, prefix) => {
                let listed: Vec<_> = store.list(Some(&key(prefix))).try_collect().await.unwrap();
                let start = prefix.len() + 1;
                listed.iter().map(|meta| meta.location.as_ref()[start..].to_owned()).collect()
            }
        }
    }
}

fn key(name: &str) -> object_store::path::Path {
    object_store::path::Path::parse(name).unwrap()
}

fn walk(root: &Path, directory: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, names);
        } else {
            names.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// A dataset of every legal kind of character.
const ODD: &str = "0A_z.9-x";

impl Subject {
    /// `sinks` defines `[sink.subject.KIND]`, and for a mirror `[sink.vault.local]` with `path = "vault"`.
    fn new(sinks: &str, far: Far, servers: Vec<Box<dyn Any>>) -> Self {
        let home = tempfile::Builder::new().prefix("cdrvault-conformance").tempdir().unwrap();
        let mirror = sinks.contains("mirror = ");
        let listed = if mirror { "[\"vault\", \"subject\"]" } else { "[\"subject\"]" };
        let flow = |name: &str| format!("[flow.\"{name}\"]\nsource.files = {{ path = \"in\" }}\nsinks = {listed}\n");
        let text = format!("name = \"conformance\"\nstate = \"state\"\n{sinks}\n{}{}", flow("data"), flow(ODD));
        std::fs::write(home.path().join("pipeline.toml"), text).unwrap();
        Self {
            home,
            far,
            fault: None,
            mirror,
            slow: false,
            tells_time: false,
            limited: false,
            largest: 200 << 20,
            _servers: servers,
        }
    }

    fn context(&self) -> Context {
        let writer = Writer {
            pipeline: "conformance".to_owned(),
            id: "0badcafe".to_owned(),
            timezone: jiff::tz::TimeZone::UTC,
            state: self.home.path().join("state"),
        };
        Context {
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: Arc::new(Quiet),
            writer: Arc::new(writer),
        }
    }

    async fn open(&self) -> Result<Place> {
        self.open_in(self.home.path()).await
    }

    /// The same from another directory: another vault that is mirrored, and the same far end.
    async fn open_in(&self, home: &Path) -> Result<Place> {
        let cx = self.context();
        let pipeline = config::open(&home.join("pipeline.toml"), &cdrvault::registry())?;
        let mut mirrored = None;
        let mut identity = None;
        if self.mirror {
            let vault = pipeline.sink("vault").unwrap().build.build(&Around::default())?;
            identity = Some(vault.open(&cx, &Expected::default(), false).await?);
            mirrored = Some(vault);
        }
        let around =
            Around { datasets: vec!["data".to_owned(), ODD.to_owned()], mirrored: mirrored.as_ref().map(Arc::clone) };
        let sink = pipeline.sink("subject").unwrap().build.build(&around)?;
        let sink: Arc<dyn Sink> = Arc::new(Retrying(sink));
        let expect = Expected { mirrored: identity, ..Expected::default() };
        match sink.open(&cx, &expect, false).await {
            Ok(_) => Ok(Place { cx, sink, mirrored }),
            Err(error) => {
                if let Some(vault) = mirrored {
                    vault.close().await;
                }
                Err(error)
            }
        }
    }
}

/// An open sink, and the vault that it mirrors if it is a mirror.
struct Place {
    cx: Context,
    sink: Arc<dyn Sink>,
    mirrored: Option<Arc<dyn Sink>>,
}

impl Place {
    /// Publishes without a flush.
    async fn note(&self, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        if let Some(vault) = &self.mirrored {
            let live = vault.live(&self.cx, &sealed.manifest.unit).await?;
            vault.publish(&self.cx, sealed, &live).await?;
        }
        self.sink.publish(&self.cx, sealed, over).await
    }

    async fn publish(&self, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        let receipt = self.note(sealed, over).await?;
        self.sink.flush(&self.cx).await?;
        Ok(receipt)
    }

    async fn publish_next(&self, sealed: &Sealed) -> Result<Manifest> {
        let live = self.live(&sealed.manifest.unit).await;
        self.publish(sealed, &live).await
    }

    async fn live(&self, unit: &Unit) -> Live {
        self.sink.live(&self.cx, unit).await.unwrap()
    }

    async fn content(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        let objects: Vec<_> = self.sink.read(&self.cx, manifest).await?.try_collect().await?;
        assert_eq!(objects.len(), 1);
        match objects.into_iter().next().unwrap().body {
            Body::File(path) => Ok(std::fs::read(path).unwrap()),
            Body::Stream(bytes) => Ok(bytes.try_collect::<Vec<_>>().await?.concat()),
            _ => panic!("an object without a body"),
        }
    }

    async fn close(self) {
        self.sink.close().await;
        if let Some(vault) = self.mirrored {
            vault.close().await;
        }
    }
}

fn day(dataset: &str, day: &str) -> Unit {
    Unit::new(dataset, Partition::Day(day.parse().unwrap()))
}

async fn round_trip_of_many_sizes(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let sizes = [0, 1, 511, 65_536, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 24 << 20, 25_000_001, subject.largest];
    let first: Date = "2026-01-01".parse().unwrap();
    let units: Vec<Unit> = (0..sizes.len())
        .map(|index| Unit::new("data", Partition::Day(first + jiff::Span::new().days(i64::try_from(index).unwrap()))))
        .collect();
    for (index, (unit, size)) in units.iter().zip(sizes).enumerate() {
        let sealed = sealed(subject.home.path(), unit, 1, &bytes(index as u64, size));
        let receipt = place.note(&sealed, &Live::NOTHING).await.unwrap();
        assert!(receipt.received.is_some());
        std::fs::remove_file(sealed.bodies.values().next().unwrap()).unwrap();
    }
    place.sink.flush(&place.cx).await.unwrap();
    place.close().await;

    let place = subject.open().await.unwrap();
    let index = place.sink.index(&place.cx, "data").await.unwrap();
    assert_eq!(index.len(), sizes.len());
    assert!(index.values().all(|held| held.generation == 1 && held.object_there));
    for (index, (unit, size)) in units.iter().zip(sizes).enumerate() {
        let content = bytes(index as u64, size);
        assert!(subject.far.get(&live_path(unit)).await.unwrap() == content, "{unit}: {size} bytes at the far end");
        let live = place.live(unit).await;
        assert_eq!(live.object, LiveObject::Intact);
        assert!(place.content(&live.manifest.unwrap()).await.unwrap() == content, "{unit}: {size} bytes read back");
    }
    place.close().await;
}

async fn a_replacement_is_whole_or_invisible(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let unit = day("data", "2026-02-01");
    let contents: Vec<Vec<u8>> = (0..4).map(|seed| bytes(100 + seed, 3_000_000)).collect();
    place.publish_next(&sealed(subject.home.path(), &unit, 1, &contents[0])).await.unwrap();
    let done = AtomicBool::new(false);
    let path = live_path(&unit);
    let looking = async {
        let mut looks = 0;
        while !done.load(Ordering::Relaxed) || looks == 0 {
            let seen = subject.far.get(&path).await.expect("a live object never vanishes");
            assert!(contents.contains(&seen), "{} bytes that nobody published", seen.len());
            looks += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let replacing = async {
        for (generation, content) in (2..).zip(&contents[1..]) {
            place.publish_next(&sealed(subject.home.path(), &unit, generation, content)).await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(looking, replacing);
    assert_eq!(subject.far.get(&path).await.unwrap(), contents[3]);
    for (generation, content) in (1..).zip(&contents) {
        let manifest = place.sink.manifest(&place.cx, &unit, generation).await.unwrap();
        assert!(place.content(&manifest).await.unwrap() == *content, "generation {generation}");
    }
    place.close().await;
}

async fn a_receipt_is_written_once(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let unit = day("data", "2026-02-02");
    let first = sealed(subject.home.path(), &unit, 1, b"one");
    place.publish(&first, &Live::NOTHING).await.unwrap();
    if subject.tells_time {
        let offset = place.sink.clock_offset().expect("it tells what time it is");
        assert!(offset.abs() < 60, "this very machine is {offset} s ahead");
    }
    place.publish(&first, &Live::NOTHING).await.expect("the same again is no conflict");
    let other = place.note(&sealed(subject.home.path(), &unit, 1, b"another"), &Live::NOTHING).await;
    assert_eq!(other.unwrap_err().kind(), Kind::Conflict);
    let late = place.note(&sealed(subject.home.path(), &unit, 2, b"late"), &Live::NOTHING).await;
    if place.mirrored.is_none() {
        assert_eq!(late.unwrap_err().kind(), Kind::Conflict, "it was begun when nothing was live");
        assert_eq!(subject.far.get(&live_path(&unit)).await.unwrap(), b"one");
    }
    place.close().await;
}

async fn what_is_not_what_was_sealed_never_becomes_live(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let unit = day("data", "2026-02-03");
    for size in [1000, 20_000_000] {
        let generation = place.live(&unit).await.generation() + 1;
        let old = bytes(7, size);
        place.publish_next(&sealed(subject.home.path(), &unit, generation, &old)).await.unwrap();
        let sealed = sealed(subject.home.path(), &unit, generation + 1, &bytes(8, size));
        let body = sealed.bodies.values().next().unwrap();
        // Another byte, then too few of them.
        let mut wrong = bytes(8, size);
        wrong[size / 2] ^= 1;
        for wrong in [&wrong[..], &wrong[..size / 2], b""] {
            std::fs::write(body, wrong).unwrap();
            let failed = place.publish_next(&sealed).await;
            assert_eq!(failed.unwrap_err().kind(), Kind::Damaged);
            assert!(subject.far.get(&live_path(&unit)).await.unwrap() == old, "the old object stays");
            assert_eq!(place.live(&unit).await.generation(), generation, "no receipt");
        }
        std::fs::write(body, bytes(8, size)).unwrap();
        place.publish_next(&sealed).await.unwrap();
    }
    place.close().await;
}

async fn a_publishing_that_is_given_up_does_no_harm(subject: &Subject) {
    let unit = day("data", "2026-02-04");
    let contents = [bytes(1, 40_000_000), bytes(2, 40_000_000)];
    let place = subject.open().await.unwrap();
    let first = sealed(subject.home.path(), &unit, 1, &contents[0]);
    place.publish(&first, &Live::NOTHING).await.unwrap();
    place.close().await;
    let second = sealed(subject.home.path(), &unit, 2, &contents[1]);
    let patience = if subject.slow { [100, 600] } else { [10, 60] };
    for patience in patience {
        let place = subject.open().await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(patience), place.publish_next(&second)).await;
        let seen = subject.far.get(&live_path(&unit)).await.unwrap();
        assert!(contents.contains(&seen), "{} bytes that nobody published", seen.len());
        place.close().await;
    }
    let place = subject.open().await.unwrap();
    place.publish_next(&second).await.unwrap();
    assert!(subject.far.get(&live_path(&unit)).await.unwrap() == contents[1]);
    assert_eq!(place.live(&unit).await.generation(), 2);
    place.close().await;
    no_leftovers(subject).await;
}

async fn an_error_halfway_does_no_harm(subject: &Subject) {
    let Some(fault) = &subject.fault else { return };
    let unit = day("data", "2026-02-05");
    let contents = [bytes(3, 20_000_000), bytes(4, 20_000_000)];
    let place = subject.open().await.unwrap();
    place.publish(&sealed(subject.home.path(), &unit, 1, &contents[0]), &Live::NOTHING).await.unwrap();
    let second = sealed(subject.home.path(), &unit, 2, &contents[1]);
    let live = place.live(&unit).await;
    fault(true);
    place.publish(&second, &live).await.expect_err("the way is cut");
    fault(false);
    let seen = subject.far.get(&live_path(&unit)).await.unwrap();
    assert!(seen == contents[0], "half of a transfer is visible: {} bytes", seen.len());
    place.close().await;
    let place = subject.open().await.unwrap();
    let live = place.live(&unit).await;
    assert_eq!(live.generation(), 1, "there is no receipt of what did not arrive");
    place.publish(&second, &live).await.unwrap();
    assert!(subject.far.get(&live_path(&unit)).await.unwrap() == contents[1]);
    place.close().await;
    no_leftovers(subject).await;
}

/// After the next opening, every name is one of the vault's format.
async fn no_leftovers(subject: &Subject) {
    subject.open().await.unwrap().close().await;
    let fixed = [layout::IDENTITY, layout::LOCK, ".cdrvault/probe"];
    let known = |name: &str| {
        fixed.contains(&name)
            || name.ends_with(".parquet") && !name.rsplit('/').next().unwrap().starts_with('.')
            || name.starts_with(layout::MANIFESTS) && name.ends_with(".json")
            || name.starts_with(".cdrvault/versions/") && name.ends_with(".kept")
            || name.starts_with(".cdrvault/verified/") && name.ends_with(".json")
    };
    let names = subject.far.names().await;
    let strange: Vec<_> = names.iter().filter(|name| !known(name)).collect();
    assert!(strange.is_empty(), "left over: {strange:?}");
}

async fn five_thousand_days_are_listed(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let first: Date = "2001-01-01".parse().unwrap();
    let root = match (&place.mirrored, &subject.far) {
        (Some(vault), _) => vault.root().unwrap().to_owned(),
        (None, Far::Directory(root)) => root.clone(),
        (None, Far::Bucket(..)) => PathBuf::new(),
    };
    let mut files = Vec::new();
    let mut last = None;
    for index in 0..5_000 {
        let unit = Unit::new(ODD, Partition::Day(first + jiff::Span::new().days(index)));
        let sealed = sealed(subject.home.path(), &unit, 3, b"calls");
        let receipt = Manifest { received: Some(Timestamp::now()), ..sealed.manifest.clone() };
        files.push((live_path(&unit), b"calls".to_vec()));
        files.push((layout::manifest(&unit, 3).unwrap(), receipt.to_receipt().unwrap()));
        last = Some(sealed);
    }
    match &subject.far {
        Far::Bucket(store, prefix) => {
            use futures::StreamExt as _;
            let puts = files.into_iter().map(|(name, content)| async move {
                store.put(&key(&format!("{prefix}/{name}")), content.into()).await.unwrap();
            });
            futures::stream::iter(puts).buffer_unordered(32).collect::<Vec<()>>().await;
        }
        Far::Directory(_) => {
            for (name, content) in files {
                let path = root.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
        }
    }
    if place.mirrored.is_some() {
        for index in 0..5_000 {
            let unit = Unit::new(ODD, Partition::Day(first + jiff::Span::new().days(index)));
            let mut sealed = last.clone().unwrap();
            sealed.manifest.unit = unit;
            place.sink.publish(&place.cx, &sealed, &Live::NOTHING).await.unwrap();
        }
        place.sink.flush(&place.cx).await.unwrap();
    }
    place.close().await;
    let place = subject.open().await.unwrap();
    let index = place.sink.index(&place.cx, ODD).await.unwrap();
    assert_eq!(index.len(), 5_000);
    assert!(index.values().all(|held| held.generation == 3 && held.object_there));
    assert_eq!(place.sink.history(&place.cx, ODD).await.unwrap().len(), 5_000);
    place.close().await;
}

/// Size and whole seconds are what rsync and rdiff-backup go by.
async fn what_looks_unchanged_is_sent(subject: &Subject) {
    let Far::Directory(far) = &subject.far else { return };
    let place = subject.open().await.unwrap();
    let Some(vault) = &place.mirrored else { return place.close().await };
    let unit = day("data", "2026-02-08");
    let path = live_path(&unit);
    let here = vault.root().unwrap().join(&path);
    let time = || std::fs::metadata(&here).unwrap().modified().unwrap();
    let note = |generation, content: &'static [u8]| {
        let sealed = sealed(subject.home.path(), &unit, generation, content);
        let place = &place;
        async move {
            place.note(&sealed, &Live::NOTHING).await.unwrap();
            // rdiff-backup looks at hard links, too.
            std::fs::remove_file(sealed.bodies.values().next().unwrap()).unwrap();
        }
    };
    note(1, b"these calls").await;
    place.sink.flush(&place.cx).await.unwrap();
    let before = time();
    note(2, b"other calls").await;
    let seconds = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(seconds(time()) > seconds(before), "a new generation has a later second");
    std::fs::File::open(&here).unwrap().set_modified(before).unwrap();

    // What others would do with it.
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    let run = |program: &str, arguments: &[&Path]| {
        let done = std::process::Command::new(program).args(arguments).output().unwrap();
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run("cp", &[Path::new("-a"), far, &copy]);
    if place.sink.capabilities().native_history {
        // Its sessions have steps of a second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        run("rdiff-backup", &[Path::new("backup"), vault.root().unwrap(), &copy]);
    } else {
        run("rsync", &[Path::new("-a"), &vault.root().unwrap().join(""), &copy.join("")]);
    }
    assert_eq!(std::fs::read(copy.join(&path)).unwrap(), b"these calls", "it looks changed: nothing is proved here");

    place.sink.flush(&place.cx).await.unwrap();
    assert_eq!(subject.far.get(&path).await.unwrap(), b"other calls");
    place.close().await;
}

/// How long it takes beyond that is up to the machine.
async fn a_limit_takes_its_time(subject: &Subject) {
    if !subject.limited {
        return;
    }
    let place = subject.open().await.unwrap();
    let began = std::time::Instant::now();
    place
        .publish_next(&sealed(subject.home.path(), &day("data", "2026-02-09"), 1, &bytes(9, 80_000_000)))
        .await
        .unwrap();
    assert!(began.elapsed() > Duration::from_secs(1), "80 MB at 40 MiB a second took {:?}", began.elapsed());
    place.close().await;
}

async fn notes_and_removal(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let unit = day("data", "2026-02-06");
    assert_eq!(place.sink.notes(&place.cx, &unit).await.unwrap(), Notes::default());
    for generation in 1..=3 {
        let sealed = sealed(subject.home.path(), &unit, generation, format!("content {generation}").as_bytes());
        place.publish_next(&sealed).await.unwrap();
    }
    let pin = Pin { generation: 2, reason: "it shrank".to_owned(), since: Timestamp::now() };
    let notes = Notes { pins: vec![pin], ..Notes::default() };
    let noting = place.mirrored.as_ref().unwrap_or(&place.sink);
    noting.put_notes(&place.cx, &unit, &notes).await.unwrap();
    assert_eq!(place.sink.notes(&place.cx, &unit).await.unwrap(), notes);
    assert!(place.sink.datasets(&place.cx).await.unwrap().contains(&"data".to_owned()));
    if !place.sink.capabilities().native_history {
        let history = |place: &Place| {
            let (sink, cx) = (Arc::clone(&place.sink), place.cx.clone());
            async move { sink.history(&cx, "data").await.unwrap() }
        };
        assert_eq!(history(&place).await[&unit.partition], [1, 2, 3]);
        let manifest = place.sink.manifest(&place.cx, &unit, 1).await.unwrap();
        place.sink.remove(&place.cx, &manifest).await.unwrap();
        place.sink.remove(&place.cx, &manifest).await.expect("what is gone can be removed again");
        place.sink.flush(&place.cx).await.unwrap();
        place.close().await;
        let place = subject.open().await.unwrap();
        assert_eq!(history(&place).await[&unit.partition], [2, 3]);
        let names = subject.far.names().await;
        let Content::Object(object) = &manifest.content else { panic!() };
        assert!(!names.contains(&layout::version(&unit, 1, &object.sha256).unwrap()));
        let missing = place.sink.manifest(&place.cx, &unit, 1).await;
        assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
        let live = place.live(&unit).await;
        assert_eq!(place.content(&live.manifest.unwrap()).await.unwrap(), b"content 3");
        place.close().await;
        return;
    }
    place.close().await;
}

async fn two_writers_do_not_mix(subject: &Subject) {
    let unit = day("data", "2026-02-07");
    if subject.mirror {
        // The vault that is mirrored has a lock; at the far end, the copy of one vault is no other's.
        let before = subject.far.names().await;
        let other = tempfile::tempdir().unwrap();
        let pipeline = std::fs::read_to_string(subject.home.path().join("pipeline.toml")).unwrap();
        std::fs::write(other.path().join("pipeline.toml"), &pipeline).unwrap();
        for name in std::fs::read_dir(subject.home.path()).unwrap().map(|entry| entry.unwrap().file_name()) {
            if name == "password" {
                std::fs::copy(subject.home.path().join(&name), other.path().join(&name)).unwrap();
            }
        }
        let refused = subject.open_in(other.path()).await.map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        assert!(refused.one_line().contains("is a copy of another vault"), "{refused}");
        assert_eq!(subject.far.names().await, before);
    }
    let first = subject.open().await.unwrap();
    first.publish(&sealed(subject.home.path(), &unit, 1, b"one"), &Live::NOTHING).await.unwrap();
    match subject.open().await {
        Err(error) => assert_eq!(error.kind(), Kind::Locked),
        Ok(second) => {
            let (a, b) = (first.live(&unit).await, second.live(&unit).await);
            let (ours, theirs) =
                (sealed(subject.home.path(), &unit, 2, b"ours"), sealed(subject.home.path(), &unit, 2, b"theirs"));
            first.publish(&ours, &a).await.unwrap();
            assert_eq!(second.publish(&theirs, &b).await.unwrap_err().kind(), Kind::Conflict);
            assert_eq!(subject.far.get(&live_path(&unit)).await.unwrap(), b"ours");
            if first.sink.capabilities().conditional_put {
                // At the same moment: one of them wins, and its receipt names what is live.
                let (a, b) = (first.live(&unit).await, second.live(&unit).await);
                let (ours, theirs) = (
                    sealed(subject.home.path(), &unit, 3, b"ours 3"),
                    sealed(subject.home.path(), &unit, 3, b"theirs 3"),
                );
                let (ours, theirs) = tokio::join!(first.publish(&ours, &a), second.publish(&theirs, &b));
                assert!(ours.is_ok() != theirs.is_ok(), "{ours:?} {theirs:?}");
                assert_eq!(first.live(&unit).await.object, LiveObject::Intact);
            }
            second.close().await;
        }
    }
    first.close().await;
}

/// All of it, in one vault.
fn conforms(subject: Subject) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        a_replacement_is_whole_or_invisible(&subject).await;
        a_receipt_is_written_once(&subject).await;
        what_is_not_what_was_sealed_never_becomes_live(&subject).await;
        what_looks_unchanged_is_sent(&subject).await;
        a_limit_takes_its_time(&subject).await;
        a_publishing_that_is_given_up_does_no_harm(&subject).await;
        an_error_halfway_does_no_harm(&subject).await;
        notes_and_removal(&subject).await;
        two_writers_do_not_mix(&subject).await;
        five_thousand_days_are_listed(&subject).await;
    });
    drop(runtime);
}

fn sizes(subject: Subject) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(round_trip_of_many_sizes(&subject));
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cdrvault-far end").tempdir().unwrap()
}

fn local() -> Subject {
    let far = directory();
    let path = far.path().join("vault");
    let mut subject = Subject::new(
        &format!("[sink.subject.local]\npath = \"{}\"\n", path.display()),
        Far::Directory(path),
        vec![Box::new(far)],
    );
    subject.tells_time = true;
    subject
}

const MIRRORED: &str = "[sink.vault.local]\npath = \"vault\"\n";

/// A mirror on another host; the way to it can be cut.
fn over_ssh(kind: &str, colon: &str, more: &str, force: Option<&dyn Fn(&Path) -> String>) -> Subject {
    let server = Sshd::start();
    let root = server.directory();
    let proxy = Arc::new(Proxy::start(([127, 0, 0, 1], server.port()).into()));
    if let Some(command) = force {
        server.force_command(Some(&command(&root)));
    }
    // A host is known by its name and port.
    let known = root.join("known");
    let keys = std::fs::read_to_string(server.known_hosts()).unwrap();
    let renamed = keys.replace(&format!(":{}", server.port()), &format!(":{}", proxy.address().port()));
    std::fs::write(&known, renamed).unwrap();
    let path = if force.is_some() {
        // rrsync lets nobody into what is not there.
        std::fs::create_dir(root.join("far")).unwrap();
        "far".to_owned()
    } else {
        root.join("far").display().to_string()
    };
    let sinks = format!(
        "{MIRRORED}[sink.subject.{kind}]\nmirror = \"vault\"\nto = \"{}@127.0.0.1{colon}{path}\"\n{more}\
         ssh = {{ port = {}, identity-file = \"{}\", known-hosts = \"{}\", connect-timeout = \"5s\", stall-timeout = \"20s\" }}\n",
        server.user(),
        proxy.address().port(),
        server.identity_file().display(),
        known.display(),
    );
    let mut subject = Subject::new(&sinks, Far::Directory(root.join("far")), vec![Box::new(server)]);
    subject.fault = Some(Box::new(move |cut| proxy.set(if cut { Fault::CutAfter(5_000_000) } else { Fault::None })));
    subject.slow = true;
    subject.tells_time = kind == "rsync";
    subject
}

/// A module of a daemon; the way to it can be cut.
fn to_daemon() -> Subject {
    let server = Rsyncd::start();
    let proxy = Arc::new(Proxy::start(([127, 0, 0, 1], server.port()).into()));
    let sinks = format!(
        "{MIRRORED}[sink.subject.rsync]\nmirror = \"vault\"\nto = \"rsync://cdr@127.0.0.1:{}/locked/far\"\n\
         password = {{ file = \"password\" }}\n",
        proxy.address().port()
    );
    let far = Far::Directory(server.module().join("far"));
    let mut subject = Subject::new(&sinks, far, vec![Box::new(server)]);
    std::fs::write(subject.home.path().join("password"), services::rsyncd::PASSWORD).unwrap();
    subject.fault = Some(Box::new(move |cut| proxy.set(if cut { Fault::CutAfter(5_000_000) } else { Fault::None })));
    subject.slow = true;
    subject
}

/// A mirror in another directory of this machine.
fn to_directory(kind: &str) -> Subject {
    let disk = directory();
    let far = disk.path().join("far");
    let sinks = format!("{MIRRORED}[sink.subject.{kind}]\nmirror = \"vault\"\nto = \"{}\"\n", far.display());
    let mut subject = Subject::new(&sinks, Far::Directory(far), vec![Box::new(disk)]);
    subject.slow = true;
    subject.tells_time = kind == "rsync";
    subject
}

/// What is sent at 40 MiB a second.
fn limited(mut subject: Subject) -> Subject {
    subject.largest = 1;
    subject.limited = true;
    subject
}

fn bucket(
    endpoint: &str,
    direct: u16,
    region: &str,
    bucket: &str,
    key: (&str, &str),
    more: &str,
    server: Box<dyn Any>,
) -> Subject {
    let prefix = "pre fix/é+=&%#'~!*()";
    let proxy = Arc::new(Proxy::start(([127, 0, 0, 1], direct).into()));
    let sinks = format!(
        "[sink.subject.s3]\nurl = \"s3://{bucket}/{prefix}\"\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"{region}\"\n\
         access-key-id = \"{}\"\nsecret-access-key = {{ file = \"secret\" }}\nretry-for = \"2s\"\n{more}",
        proxy.address().port(),
        key.0,
    );
    let store = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region(region)
        .with_bucket_name(bucket)
        .with_access_key_id(key.0)
        .with_secret_access_key(key.1)
        .build()
        .unwrap();
    let mut subject = Subject::new(&sinks, Far::Bucket(Box::new(store), prefix.to_owned()), vec![server]);
    std::fs::write(subject.home.path().join("secret"), key.1).unwrap();
    subject.fault = Some(Box::new(move |cut| {
        if cut {
            // Those that are open would not be cut.
            proxy.set(Fault::Reset);
        }
        proxy.set(if cut { Fault::CutAfter(5_000_000) } else { Fault::None });
    }));
    subject
}

fn garage(more: &str) -> Subject {
    let server = Garage::start();
    let (id, secret) = (server.access_key().to_owned(), server.secret_key().to_owned());
    bucket(&server.endpoint(), server.port(), server.region(), server.bucket(), (&id, &secret), more, Box::new(server))
}

fn moto() -> Subject {
    let server = Moto::start();
    let key = (server.access_key(), server.secret_key());
    bucket(&server.endpoint(), server.port(), server.region(), server.bucket(), key, "", Box::new(server))
}

fn rsync() -> Subject {
    over_ssh("rsync", ":", "", None)
}

fn rrsync() -> Subject {
    over_ssh("rsync", ":", "", Some(&|root| format!("rrsync {}", root.display())))
}

fn rdiff() -> Subject {
    over_ssh("rdiff", "::", "", None)
}

macro_rules! conformance {
    ($($name:ident: $subject:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn conforms() {
                super::conforms($subject);
            }

            #[test]
            fn round_trip_of_many_sizes() {
                sizes($subject);
            }
        })*
    };
}

conformance! {
    a_directory: local();
    rsync_over_ssh: rsync();
    rsync_with_rrsync: rrsync();
    rsync_with_a_limit: limited(over_ssh("rsync", ":", "bandwidth = \"40MiB\"\n", None));
    rsync_to_a_daemon: to_daemon();
    rsync_to_a_directory: to_directory("rsync");
    rdiff_over_ssh: rdiff();
    rdiff_to_a_directory: to_directory("rdiff");
    s3_that_ignores_conditions: garage("");
    s3_with_a_limit: limited(garage("bandwidth = \"40MiB\"\n"));
    s3_that_honours_conditions: moto();
}
