//! What a tree that holds still is saved as.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use super::*;

#[tokio::test]
async fn a_tree_comes_with_all_that_the_file_system_knows_of_it() {
    let trial = Trial::new("");
    trial.write("plain.conf", "[general]\n");
    trial.write("St.P\u{f6}lten/\u{1f4de}", "unicode");
    trial.write(OsStr::from_bytes(b"caf\xe9"), "latin-1");
    trial.write("new\nline", "odd");
    trial.write("-rf *", "odd");
    trial.write("empty", "");
    fs::create_dir(trial.path("nothing in it")).unwrap();
    symlink("loop", trial.path("loop")).unwrap();
    symlink(OsStr::from_bytes(b"/no/such/\xff"), trial.path("dangling")).unwrap();
    symlink("..", trial.path("up")).unwrap();
    symlink("plain.conf", trial.path("link")).unwrap();
    fs::hard_link(trial.path("plain.conf"), trial.path("other name")).unwrap();
    trial.write("tool", "#!");
    fs::set_permissions(trial.path("tool"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(trial.path("nothing in it"), fs::Permissions::from_mode(0o1700)).unwrap();
    let sparse = fs::File::create(trial.path("sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();

    let saved = trial.save().await;
    assert_eq!(trial.counts(), [0, 0, 0], "{}", trial.said());
    let names: Vec<_> = saved.keys().map(String::as_str).collect();
    let expected = [
        "-rf *",
        "St.P\u{f6}lten",
        "St.P\u{f6}lten/\u{1f4de}",
        "caf\u{fffd}",
        "dangling",
        "empty",
        "link",
        "loop",
        "new\\nline",
        "nothing in it",
        "other name",
        "plain.conf",
        "sparse",
        "tool",
        "up",
    ];
    assert_eq!(names, expected);

    let bytes = |name: &str| match &saved[name].1 {
        Saving::Bytes(bytes) => bytes.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(bytes("plain.conf"), b"[general]\n");
    assert_eq!(bytes("other name"), b"[general]\n");
    assert_eq!(bytes("caf\u{fffd}"), b"latin-1");
    assert_eq!(saved["caf\u{fffd}"].0.path, RawPath(b"caf\xe9".to_vec()));
    assert_eq!(bytes("empty"), b"");
    assert!(bytes("sparse") == vec![0; 3_000_000]);
    let target = |name: &str| match &saved[name].0.kind {
        EntryKind::Symlink { target } => target.0.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!((target("loop"), target("up")), (b"loop".to_vec(), b"..".to_vec()));
    assert_eq!(target("dangling"), b"/no/such/\xff");
    assert_eq!((saved["tool"].0.mode, saved["nothing in it"].0.mode), (0o6751, 0o1700));

    for (entry, _) in saved.values() {
        let real = fs::symlink_metadata(trial.path(OsStr::from_bytes(&entry.path.0))).unwrap();
        assert_eq!((entry.uid, entry.gid, entry.mode), (real.uid(), real.gid(), real.mode() & 0o7777));
        assert_eq!(entry.mtime, (real.mtime(), u32::try_from(real.mtime_nsec()).unwrap()));
        let size = if real.is_file() { real.len() } else { 0 };
        assert_eq!((entry.size, entry.seen.is_some()), (size, real.is_file()));
        assert!(entry.sha256.is_none() && entry.stored.is_none());
    }
}

#[tokio::test]
async fn what_is_no_file_is_left_out_with_a_note_and_never_waited_for() {
    let trial = Trial::new("");
    trial.write("file", "x");
    let _socket = UnixListener::bind(trial.path("socket")).unwrap();
    mknodat(CWD, trial.path("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let device = mknodat(CWD, trial.path("device"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5));
    if device.is_err() {
        eprintln!("skipped: a device node needs root");
    }
    assert_eq!(trial.names().await, ["file"]);
    assert_eq!(trial.counts(), [2 + u64::from(device.is_ok()), 0, 0]);
    let said = trial.said();
    assert!(
        said.contains("/pipe is a named pipe, which is not saved") && said.contains("/socket is a socket"),
        "{said}"
    );
}

#[tokio::test]
async fn names_come_in_the_order_of_their_bytes() {
    let trial = Trial::new("");
    for name in ["a/b", "a/c/d", "a.txt", "a-b", "a0", "ab/c", "B", "z/\u{e9}", "a/c.d"] {
        trial.write(name, "");
    }
    // The consumer checks the order; here is that nothing is missing.
    let expected = ["B", "a", "a-b", "a.txt", "a/b", "a/c", "a/c.d", "a/c/d", "a0", "ab", "ab/c", "z", "z/\u{e9}"];
    assert_eq!(trial.names().await, expected);
}

#[tokio::test]
async fn deep_trees_need_neither_stack_nor_descriptors_nor_short_paths() {
    const DEPTH: usize = 300;
    let trial = Trial::new("");
    let name = "d".repeat(60);
    let mut at = openat(CWD, trial.directory.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    for depth in 0..DEPTH {
        mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        // Comes after what is below, so that the walk must come back to each directory.
        for file in ["a", "z"] {
            let file = openat(&at, file, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            rustix::io::write(&file, depth.to_string().as_bytes()).unwrap();
        }
        at = openat(&at, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let saved = trial.save().await;
    assert_eq!(trial.counts(), [0, 0, 0], "{}", trial.said());
    assert_eq!(saved.len(), 3 * DEPTH);
    for (path, (_, content)) in saved.iter().filter(|(path, _)| !path.ends_with('d')) {
        let depth = path.matches('/').count();
        assert_eq!(*content, Saving::Bytes(depth.to_string().into_bytes()));
    }
}

#[tokio::test]
async fn include_and_exclude_choose_and_exclude_wins() {
    let names = ["etc/a.conf", "etc/b.txt", "etc/ssl/key.conf", "etc/cache/x.conf", "other/c.conf", "top"];
    let chosen = async |options: &str| {
        let trial = Trial::new(options);
        for name in names {
            trial.write(name, "");
        }
        let saved = trial.save().await;
        assert_eq!(trial.counts()[2], 0, "{}", trial.said());
        saved
            .into_values()
            .filter(|(entry, _)| entry.kind == EntryKind::File)
            .map(|(e, _)| e.path.display())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        chosen(r#""exclude": ["ssl/", "*.txt"]"#).await,
        ["etc/a.conf", "etc/cache/x.conf", "other/c.conf", "top"]
    );
    assert_eq!(
        chosen(r#""include": ["*.conf"], "exclude": ["/etc/cache/**"]"#).await,
        ["etc/a.conf", "etc/ssl/key.conf", "other/c.conf"]
    );
    assert_eq!(chosen(r#""include": ["/top", "etc/ssl"]"#).await, ["etc/ssl/key.conf", "top"]);
    assert_eq!(chosen(r#""include": ["key.conf"], "exclude": ["ssl"]"#).await, [""; 0]);
}

#[tokio::test]
async fn directories_that_cannot_hold_what_is_included_are_neither_saved_nor_entered() {
    let trial = Trial::new(r#""include": ["a/b/*.ini"]"#);
    for name in ["a/b/x.ini", "a/b/c/y.ini", "a/other/z.ini", "b/x.ini"] {
        trial.write(name, "");
    }
    assert_eq!(trial.names().await, ["a", "a/b", "a/b/x.ini"]);
}

#[tokio::test]
async fn the_top_may_be_a_link_but_must_be_a_directory() {
    let trial = Trial::new("");
    trial.write("real/file", "x");
    symlink("real", trial.path("top")).unwrap();
    let top = Trial::on(trial.path("top"), tempfile::tempdir().unwrap(), "");
    assert_eq!(top.names().await, ["file"]);

    let check = async |name: &str| {
        let trial = Trial::on(trial.path(name), tempfile::tempdir().unwrap(), "");
        trial.tree.check(&trial.cx).await.unwrap_err()
    };
    let missing = check("missing").await;
    assert_eq!(
        (missing.kind(), missing.hint_text()),
        (Kind::NotFound, Some("correct `path`, or mount what should be there"))
    );
    let file = check("real/file").await;
    assert_eq!(file.kind(), Kind::Config);
    assert!(file.hint_text().unwrap().contains("`include`"));
}

#[tokio::test]
async fn what_may_not_be_read_is_a_problem_and_the_rest_is_saved() {
    if let Some(path) = given() {
        return as_nobody(path).await;
    }
    let trial = Trial::new("");
    for name in ["open", "secret", "locked/inside", "excluded/inside"] {
        trial.write(name, "x");
    }
    let mode = |name, mode| fs::set_permissions(trial.path(name), fs::Permissions::from_mode(mode)).unwrap();
    mode("secret", 0o600);
    mode("locked", 0o700);
    mode("excluded", 0o700);
    mode(".", 0o755);
    again(
        "files::tests::tree::what_may_not_be_read_is_a_problem_and_the_rest_is_saved",
        trial.directory.path(),
        |mut command| {
            command.uid(65534).gid(65534);
            command
        },
    );
}

async fn as_nobody(path: PathBuf) {
    let trial = Trial::on(path, tempfile::tempdir().unwrap(), r#""exclude": ["excluded/**"]"#);
    // That `excluded` cannot be listed is a problem: only what is in it was excluded.
    assert_eq!(trial.names().await, ["excluded", "locked", "open"]);
    assert_eq!(trial.counts(), [1, 0, 3], "{}", trial.said());
    assert!(trial.said().contains("cannot open") && trial.said().contains("cannot list the directory"));

    let trial = Trial::on(trial.tree.path, trial.directory, r#""exclude": ["excluded", "locked/", "secret"]"#);
    assert_eq!(trial.names().await, ["open"]);
    assert_eq!(trial.counts(), [0, 0, 0], "what is excluded is not even looked into");
}

#[tokio::test]
async fn one_file_system_stays_where_it_is() {
    if let Some(path) = given() {
        return with_a_mount(path).await;
    }
    let trial = Trial::new("");
    trial.write("here", "x");
    trial.write("mounted/covered", "x");
    again("files::tests::tree::one_file_system_stays_where_it_is", trial.directory.path(), |command| {
        let mut unshare = Command::new("unshare");
        let mount = "mount -t tmpfs none \"$CDRVAULT_TEST_DIRECTORY/mounted\"";
        let script = format!("{mount} || exit {CANNOT}; exec \"$0\" \"$@\"");
        unshare.args(["--mount", "sh", "-c", &script]).arg(command.get_program());
        unshare
    });
}

async fn with_a_mount(path: PathBuf) {
    fs::write(path.join("mounted/there"), "x").unwrap();
    let names = async |options: &str| Trial::on(path.clone(), tempfile::tempdir().unwrap(), options).names().await;
    assert_eq!(names(r#""one-file-system": true"#).await, ["here", "mounted"]);
    assert_eq!(names("").await, ["here", "mounted", "mounted/there"]);
}

#[tokio::test]
async fn what_the_pipeline_itself_writes_is_left_out_with_a_note() {
    let mut trial = Trial::new("");
    for name in ["a", "vault/.cdrvault/vault.json", "var/state/lock", "other/vault/x"] {
        trial.write(name, "x");
    }
    // Behind a link, as well.
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(trial.path("var/state"), elsewhere.path().join("link")).unwrap();
    let own = [trial.path("vault"), elsewhere.path().join("link"), trial.path("none")];
    trial.tree.leave_out(&own);
    assert_eq!(trial.names().await, ["a", "other", "other/vault", "other/vault/x", "var"]);
    assert_eq!(trial.counts(), [2, 0, 0], "{}", trial.said());
    assert!(trial.said().contains("vault is written by this pipeline itself, and is not saved"), "{}", trial.said());
}

#[tokio::test]
async fn a_tree_in_a_place_that_the_pipeline_writes_is_refused() {
    let mut trial = Trial::new("");
    trial.write("x/y", "x");
    for own in [trial.directory.path().to_owned(), trial.path("../")] {
        trial.tree.leave_out(&[own]);
        let error = trial.tree.check(&trial.cx).await.unwrap_err();
        assert!(error.message().contains("where this pipeline itself writes"), "{}", error.message());
    }
    trial.tree.leave_out(&[trial.path("x")]);
    trial.tree.check(&trial.cx).await.unwrap();
}

#[tokio::test]
async fn a_pattern_that_matches_nothing_is_told() {
    let trial = Trial::new(r#""include": ["*.conf", "ssl"], "exclude": ["/passwd", "*.bak"]"#);
    trial.write("a.conf", "x");
    trial.save().await;
    assert_eq!(trial.counts(), [1, 2, 0], "{}", trial.said());
    for what in ["`ssl` of `include` matches nothing in", "`/passwd` of `exclude` matches nothing in"] {
        assert!(trial.said().contains(what), "{}", trial.said());
    }
}
