//! What each of them must keep.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdrvault_format::error::Kind;
use cdrvault_format::layout;
use cdrvault_format::manifest::{Content, Manifest, Notes, Pin};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::sink::{Live, LiveObject};
use jiff::Timestamp;
use jiff::civil::Date;
use object_store::ObjectStoreExt as _;

use super::subject::{Far, ODD, Place, Subject, day, key};
use crate::services::sealed::{bytes, live_path, sealed};

pub(crate) async fn round_trip_of_many_sizes(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let sizes = [0, 1, 511, 65_536, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 24 << 20, 21_500_001, subject.largest];
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
    place.flush().await.unwrap();
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

pub(crate) async fn a_replacement_is_whole_or_invisible(subject: &Subject) {
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

pub(crate) async fn a_receipt_is_written_once(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let unit = day("data", "2026-02-02");
    let first = sealed(subject.home.path(), &unit, 1, b"one");
    place.publish(&first, &Live::NOTHING).await.unwrap();
    if subject.tells_time {
        let offset = place.sink.clock_offset().expect("it tells what time it is");
        assert!(offset.abs() < 60, "this very machine is {offset} s ahead");
    }
    place.publish(&first, &Live::NOTHING).await.expect("the same again is not a conflict");
    let other = place.note(&sealed(subject.home.path(), &unit, 1, b"another"), &Live::NOTHING).await;
    assert_eq!(other.unwrap_err().kind(), Kind::Conflict);
    let late = place.note(&sealed(subject.home.path(), &unit, 2, b"late"), &Live::NOTHING).await;
    if place.mirrored.is_none() {
        assert_eq!(late.unwrap_err().kind(), Kind::Conflict, "it was begun when nothing was live");
        assert_eq!(subject.far.get(&live_path(&unit)).await.unwrap(), b"one");
    }
    place.close().await;
}

pub(crate) async fn what_is_not_what_was_sealed_never_becomes_live(subject: &Subject) {
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

pub(crate) async fn a_publishing_that_is_given_up_does_no_harm(subject: &Subject) {
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

pub(crate) async fn an_error_halfway_does_no_harm(subject: &Subject) {
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
pub(crate) async fn no_leftovers(subject: &Subject) {
    subject.open().await.unwrap().close().await;
    let fixed = [layout::IDENTITY, layout::IDENTITY_COPY, layout::LOCK, ".cdrvault/probe"];
    let known = |name: &str| {
        fixed.contains(&name)
            || name.ends_with(".parquet") && !name.rsplit('/').next().unwrap().starts_with('.')
            || name.starts_with(layout::MANIFESTS) && name.ends_with(".json")
            || name.starts_with(".cdrvault/versions/") && name.ends_with(".kept")
            || name.starts_with(".cdrvault/verified/") && name.ends_with(".json")
            || name.starts_with(layout::INDEXES) && name.ends_with(".json")
    };
    let names = subject.far.names().await;
    let strange: Vec<_> = names.iter().filter(|name| !known(name)).collect();
    assert!(strange.is_empty(), "left over: {strange:?}");
}

pub(crate) async fn fifteen_hundred_days_are_listed(subject: &Subject) {
    let place = subject.open().await.unwrap();
    let first: Date = "2001-01-01".parse().unwrap();
    let root = match (&place.mirrored, &subject.far) {
        (Some(vault), _) => vault.root().unwrap().to_owned(),
        (None, Far::Directory(root)) => root.clone(),
        (None, Far::Bucket(..)) => PathBuf::new(),
    };
    let mut files = Vec::new();
    let mut last = None;
    for index in 0..1_500 {
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
        for index in 0..1_500 {
            let unit = Unit::new(ODD, Partition::Day(first + jiff::Span::new().days(index)));
            let mut sealed = last.clone().unwrap();
            sealed.manifest.unit = unit;
            place.sink.publish(&place.cx, &sealed, &Live::NOTHING).await.unwrap();
        }
        place.flush().await.unwrap();
    }
    place.close().await;
    let place = subject.open().await.unwrap();
    let index = place.sink.index(&place.cx, ODD).await.unwrap();
    assert_eq!(index.len(), 1_500);
    assert!(index.values().all(|held| held.generation == 3 && held.object_there));
    assert_eq!(place.sink.history(&place.cx, ODD).await.unwrap().len(), 1_500);
    place.close().await;
}

/// Size and whole seconds are what rsync and rdiff-backup go by.
pub(crate) async fn what_looks_unchanged_is_sent(subject: &Subject) {
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
    place.flush().await.unwrap();
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

    place.flush().await.unwrap();
    assert_eq!(subject.far.get(&path).await.unwrap(), b"other calls");
    place.close().await;
}

/// How long it takes beyond that is up to the machine.
pub(crate) async fn a_limit_takes_its_time(subject: &Subject) {
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

pub(crate) async fn notes_and_removal(subject: &Subject) {
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
        place.flush().await.unwrap();
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

pub(crate) async fn two_writers_do_not_mix(subject: &Subject) {
    let unit = day("data", "2026-02-07");
    if subject.mirror {
        // The vault that is mirrored has a lock; at the far end, the copy of one vault is not that of another.
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
        Err(error) => {
            // It is this very process that holds the lock. Then as another one would have written it.
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            if let Some(root) = first.sink.root() {
                let lock = root.join(cdrvault_format::layout::LOCK);
                std::fs::write(lock, r#"{"pid":42,"since":"2026-01-01T00:00:00Z"}"#).unwrap();
                assert_eq!(subject.open().await.map(drop).unwrap_err().kind(), Kind::Locked);
            }
        }
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
