//! What becomes of files that do not hold still, and of those that do from one run to the next.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// More than the reader can send ahead of its consumer.
const LARGE: usize = 4 << 20;

/// Takes the first chunk of the first object, so that the reader stands in the middle of it, then lets `meddle` act, and
/// gives what is saved in the end.
async fn meddled(trial: &Trial, meddle: impl FnOnce()) -> Saved {
    let mut objects = trial.objects(None).await;
    let first = objects.try_next().await.unwrap().unwrap();
    let Body::Stream(mut body) = first.body else { panic!("no bytes") };
    let mut start = body.try_next().await.unwrap().unwrap().to_vec();
    meddle();
    start.extend(body.try_collect::<Vec<Bytes>>().await.unwrap().concat());
    let key = first.entry.path.display();
    let mut saved = Saved::from([(key, (first.entry, Saving::Bytes(start)))]);
    saved.extend(save(objects).await.unwrap());
    saved
}

fn bytes(saved: &Saved, name: &str) -> Vec<u8> {
    match &saved[name].1 {
        Saving::Bytes(bytes) => bytes.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_changed_once_is_read_again() {
    for change in ["longer", "shorter", "other"] {
        let trial = Trial::new("");
        trial.write("a", vec![1; LARGE]);
        let now = match change {
            "longer" => vec![1; LARGE + 5],
            "shorter" => vec![1; 100],
            _ => vec![2; LARGE],
        };
        let saved = meddled(&trial, || fs::write(trial.path("a"), &now).unwrap()).await;
        assert!(bytes(&saved, "a") == now, "{change}");
        assert_eq!(saved["a"].0.size, now.len() as u64);
        assert_eq!(trial.counts(), [0, 0, 0], "{}", trial.said());
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_or_deleted_while_it_is_read_is_saved_whole() {
    for replaced in [true, false] {
        let trial = Trial::new("");
        trial.write("a", vec![1; LARGE]);
        let saved = meddled(&trial, || {
            if replaced {
                trial.write("x", "new");
                fs::rename(trial.path("x"), trial.path("a")).unwrap();
            } else {
                fs::remove_file(trial.path("a")).unwrap();
            }
        })
        .await;
        assert!(bytes(&saved, "a") == vec![1; LARGE]);
        assert_eq!(trial.counts(), [0, 0, 0], "{}", trial.said());
    }
}

#[tokio::test]
async fn a_log_that_never_rests_is_saved_up_to_the_size_it_had_with_a_warning() {
    let trial = Trial::new("");
    trial.write("a.log", vec![b'x'; LARGE]);
    trial.write("b", "rest");
    let mut log = OpenOptions::new().append(true).open(trial.path("a.log")).unwrap();
    // The reader stands in the middle of a read whenever its consumer has a chunk of it.
    let line = || log.write_all(b"one more line\n").unwrap();
    let saved = save_and(trial.objects(None).await, line).await.unwrap();
    let log = bytes(&saved, "a.log");
    let whole = fs::read(trial.path("a.log")).unwrap();
    assert!(log.len() > LARGE && log.len() < whole.len() && whole.starts_with(&log));
    assert_eq!(saved["a.log"].0.size, log.len() as u64);
    assert_eq!(bytes(&saved, "b"), b"rest");
    assert_eq!(trial.counts(), [0, 1, 0]);
    assert!(trial.said().contains("a.log changed each of the 4 times it was read"), "{}", trial.said());
}

#[tokio::test]
async fn files_without_an_end_or_a_size_are_not_taken_for_empty() {
    let trial = Trial::on("/proc/sys/kernel".into(), tempfile::tempdir().unwrap(), r#""include": ["/ostype"]"#);
    assert_eq!(bytes(&trial.save().await, "ostype"), b"");
    assert_eq!(trial.counts(), [0, 1, 0], "{}", trial.said());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_is_withdrawn_and_a_problem() {
    // Reading the memory at address 0 fails with EIO, as a disk does.
    let trial = Trial::on("/proc/self".into(), tempfile::tempdir().unwrap(), r#""include": ["/mem", "/cwd"]"#);
    assert_eq!(trial.names().await, ["cwd"]);
    assert_eq!(trial.counts(), [0, 0, 1], "{}", trial.said());
    assert!(trial.said().contains("cannot read /proc/self/mem: "), "{}", trial.said());
}

#[tokio::test]
async fn what_vanishes_or_changes_its_kind_neither_fails_nor_leads_astray() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    let trial = Trial::new("");
    trial.write("a", vec![1; LARGE]);
    for name in ["gone", "linked", "piped", "tree/inside", "tree2/inside", "z"] {
        trial.write(name, "x");
    }
    let saved = meddled(&trial, || {
        fs::remove_file(trial.path("gone")).unwrap();
        fs::remove_file(trial.path("linked")).unwrap();
        symlink(outside.path().join("secret"), trial.path("linked")).unwrap();
        fs::remove_file(trial.path("piped")).unwrap();
        mknodat(CWD, trial.path("piped"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::remove_dir_all(trial.path("tree")).unwrap();
        symlink(outside.path(), trial.path("tree")).unwrap();
        fs::remove_dir_all(trial.path("tree2")).unwrap();
    })
    .await;
    let kinds: Vec<_> = saved
        .iter()
        .map(|(name, (entry, _))| (name.as_str(), matches!(entry.kind, EntryKind::Symlink { .. })))
        .collect();
    assert_eq!(kinds, [("a", false), ("linked", true), ("tree", true), ("z", false)]);
    assert_eq!(trial.counts(), [3, 0, 0], "{}", trial.said());
    assert!(trial.said().contains("/gone vanished"), "{}", trial.said());
}

#[tokio::test]
async fn who_drops_a_body_gets_the_next_object_and_who_drops_all_stops_the_reader() {
    let trial = Trial::new("");
    for name in ["a", "b", "c"] {
        trial.write(name, vec![1; LARGE]);
    }
    let mut objects = trial.objects(None).await;
    drop(objects.try_next().await.unwrap().unwrap().body);
    let second = objects.try_next().await.unwrap().unwrap();
    assert_eq!(second.entry.path, "b".into());
    drop(objects);
    let Body::Stream(body) = second.body else { panic!("no bytes") };
    // The reader may finish this one, but nothing waits for it.
    let _ = body.try_collect::<Vec<Bytes>>().await;
}

#[tokio::test]
async fn being_asked_to_stop_ends_the_tree_with_an_error() {
    let trial = Trial::new("");
    trial.write("a", vec![1; LARGE]);
    let mut objects = trial.objects(None).await;
    let first = objects.try_next().await.unwrap().unwrap();
    trial.cx.cancel.cancel();
    drop(first);
    assert_eq!(save(objects).await.unwrap_err().kind(), Kind::Interrupted);
}

#[tokio::test]
async fn an_unchanged_file_is_not_read_again() {
    let trial = Trial::new("");
    for name in ["same", "touched", "rewritten", "replaced", "moded"] {
        trial.write(name, "12345");
    }
    let saved = trial.save().await;
    // As if the generation had been read ten seconds after the files were written.
    let later = Timestamp::now() + jiff::SignedDuration::from_secs(10);
    let generation = manifest(&saved, later);

    let mtime = fs::metadata(trial.path("rewritten")).unwrap().modified().unwrap();
    fs::write(trial.path("rewritten"), "54321").unwrap();
    File::options().write(true).open(trial.path("rewritten")).unwrap().set_modified(mtime).unwrap();
    File::options()
        .write(true)
        .open(trial.path("touched"))
        .unwrap()
        .set_modified(mtime + std::time::Duration::from_nanos(1))
        .unwrap();
    fs::write(trial.path("new"), "12345").unwrap();
    fs::rename(trial.path("new"), trial.path("replaced")).unwrap();
    fs::set_permissions(trial.path("moded"), fs::Permissions::from_mode(0o4711)).unwrap();

    let now = save(trial.objects(Some(generation.clone())).await).await.unwrap();
    let unread: Vec<_> =
        now.iter().filter(|(_, (_, content))| *content == Saving::Unchanged).map(|(name, _)| name.as_str()).collect();
    assert_eq!(unread, ["same"]);
    assert_eq!(now["moded"].0.mode, 0o4711);
    let (entry, _) = &now["same"];
    assert_eq!(entry.sha256.as_deref(), Some("hash of same"));
    assert_eq!(entry.stored.as_ref().unwrap().encodings, ["zstd"]);
    assert_eq!(entry.size, 5);
    assert_eq!(bytes(&now, "rewritten"), b"54321");

    // Written in the moment in which the generation was read: nobody knows whether before or after.
    let soon = save(trial.objects(Some(manifest(&saved, Timestamp::now()))).await).await.unwrap();
    assert!(soon.values().all(|(_, content)| *content != Saving::Unchanged));
}

#[tokio::test]
async fn a_tree_that_is_suddenly_empty_gives_a_warning() {
    let trial = Trial::new("");
    trial.write("a", "x");
    let generation = manifest(&trial.save().await, Timestamp::now());
    fs::remove_file(trial.path("a")).unwrap();
    assert!(save(trial.objects(Some(generation)).await).await.unwrap().is_empty());
    assert_eq!(trial.counts(), [0, 1, 0]);
    assert!(trial.said().contains("is something not mounted?"), "{}", trial.said());
}
