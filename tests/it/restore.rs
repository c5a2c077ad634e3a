//! What was saved comes back, from every sink, into every target, and nothing is touched that could not be restored whole.

use std::path::Path;

use crate::services::files;
use crate::services::garage::Garage;
use crate::services::home::{Said, Site, filled, open_to_all, readable_by_others, said};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::proxy::{Fault, Proxy};
use crate::services::python;
use crate::services::rating::{Rating, owed, transaction};
use crate::services::remote;
use crate::services::sshd::Sshd;

/// Every value of both tables as hexadecimal digits, with NULL told from ''.
fn content(server: &MariaDb) -> String {
    let mut content = String::new();
    for table in ["ar_cdr", "ar_source_cdr"] {
        let columns = server.app(&format!(
            "SELECT GROUP_CONCAT(CONCAT('IFNULL(HEX(`', column_name, '`), ''NULL'')') ORDER BY ordinal_position SEPARATOR \
             ', '','', ') FROM information_schema.columns WHERE table_schema = 'asterisell' AND table_name = '{table}'"
        ));
        content += &server
            .app(&format!("SET SESSION sql_mode = ''; SELECT CONCAT({}) FROM {table} ORDER BY 1", columns.trim()));
    }
    content
}

fn restore(site: &Site, target: &[String], more: &[&str]) -> Said {
    let target: Vec<&str> = target.iter().map(String::as_str).chain(more.iter().copied()).collect();
    site.run("restore", &target)
}

#[track_caller]
fn restored(site: &Site, target: &[String], more: &[&str]) -> String {
    let said = restore(site, target, more);
    assert_eq!(said.status, 0, "{more:?}: {}\n{}", said.out, said.err);
    said.out
}

#[track_caller]
fn refused(site: &Site, target: &[String], more: &[&str], status: i32, says: &[&str]) {
    let said = restore(site, target, more);
    assert_eq!(said.status, status, "{}\n{}", said.out, said.err);
    for text in says {
        assert!(said.err.contains(text), "`{text}` is not in: {}", said.err);
    }
}

const FROM_VAULT: [&str; 2] = ["--from-sink", "vault"];

#[test]
fn a_mangled_table_becomes_what_was_saved_and_twice_is_once() {
    for engine in [Engine::InnoDb, Engine::RocksDb] {
        let server = MariaDb::start(engine);
        Rating::new(101, 4, 50).fill(&server);
        // What usually gets damaged.
        server.app(
            "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO';
             UPDATE ar_cdr SET to_calldate = '0000-00-00' WHERE calldate < '2026-01-02' LIMIT 1;
             UPDATE ar_cdr SET to_calldate = '2024-02-31 01:02:03' WHERE calldate < '2026-01-03' AND calldate >= '2026-01-02' LIMIT 2;
             UPDATE ar_cdr SET imported_info = CONCAT('a\\0b\\n\\\\', CHAR(39), CHAR(34), 'ž😀') WHERE calldate >= '2026-01-03' LIMIT 3;
             UPDATE ar_cdr SET imported_info = '', id = 0 WHERE calldate >= '2026-01-04' LIMIT 1;
             INSERT INTO ar_source_cdr VALUES ('2026-01-04 05:00:00', 1, 1, 2, _binary X'EDA080FF'  , 0)
               ON DUPLICATE KEY UPDATE is_hacked = 1;
             INSERT INTO ar_source_cdr VALUES ('2024-02-31 05:00:00', 1, 1, 2, 'undated', 0);",
        );
        let site = Site::on(&server);
        site.ok("run", &[]);
        let (before, target) = (content(&server), site.admin(&server));
        assert!(restored(&site, &target, &FROM_VAULT).starts_with("0 partitions restored"), "all of it is there");

        server.app(
            "DELETE FROM ar_cdr WHERE calldate < '2026-01-02'; UPDATE ar_cdr SET cost = 1, id = id + 1 WHERE calldate >= '2026-01-03';
             DELETE FROM ar_source_cdr; INSERT INTO ar_source_cdr VALUES ('2026-01-02 05:00:00', 7, 1, 2, 'not saved', 0);",
        );
        assert_ne!(content(&server), before);
        let plan = restored(&site, &target, &["--from-sink", "vault", "-n"]);
        assert!(plan.contains("ar_source_cdr undated") || plan.contains("__HIVE"), "{plan}");
        assert_ne!(content(&server), before, "a dry run changes nothing");
        let said = restored(&site, &target, &FROM_VAULT);
        assert!(said.starts_with("8 partitions restored"), "{engine:?}: {said}");
        assert!(content(&server) == before, "{engine:?}: what came back is not what was saved");
        assert!(restored(&site, &target, &FROM_VAULT).starts_with("0 partitions restored"));
        // The application and we ourselves are told; what we find is what is saved.
        assert!(owed(&server) > 0);
        assert_eq!(site.published(), Vec::<String>::new());
        assert_eq!(owed(&server), 0);
        assert!(!server.app("SHOW TABLES").contains("restore"), "the staging table stays");
    }
}

#[test]
fn every_sink_gives_back_what_was_at_any_time() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(102, 3, 40).fill(&server);
    let site = Site::on(&server);
    let sections = remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site);
    remote::add(&site, &sections, &["mirror", "offsite", "bucket"]);
    site.ok("run", &[]);
    let (old, target) = (content(&server), site.admin(&server));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let between = jiff::Timestamp::now().to_string();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let sql = "UPDATE ar_cdr SET income = income + 7 WHERE calldate >= '2026-01-02';";
    server.app(&transaction(sql, &["2026-01-02", "2026-01-03"]));
    let new = content(&server);
    site.ok("run", &[]);
    // The vault of the pipeline's own host is gone with it; the sinks elsewhere are enough.
    for sink in ["vault", "mirror", "offsite", "bucket"] {
        if sink == "mirror" {
            std::fs::rename(site.vault(), site.path("gone")).unwrap();
        }
        server.app("TRUNCATE ar_cdr; TRUNCATE ar_source_cdr;");
        restored(&site, &target, &["--from-sink", sink, "--at", &between]);
        assert!(content(&server) == old, "{sink}, as it was");
        restored(&site, &target, &["--from-sink", sink]);
        assert!(content(&server) == new, "{sink}, as it is");
    }
    // Nothing but the program and access.
    for vault in [site.path("gone"), ssh.directory().join("rsync"), ssh.directory().join("rdiff")] {
        server.app("TRUNCATE ar_cdr; TRUNCATE ar_source_cdr;");
        bare(&vault.display().to_string(), &target, &[]);
        assert!(content(&server) == new, "{}", vault.display());
    }
    server.app("TRUNCATE ar_cdr; TRUNCATE ar_source_cdr;");
    let environment = [
        ("AWS_ENDPOINT_URL", s3.endpoint()),
        ("AWS_REGION", s3.region().to_owned()),
        ("AWS_ACCESS_KEY_ID", s3.access_key().to_owned()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key().to_owned()),
    ];
    bare(&format!("s3://{}/site", s3.bucket()), &target, &environment);
    assert!(content(&server) == new, "from the bucket");
}

/// Restores from a vault without a pipeline file or a state directory.
#[track_caller]
fn bare(vault: &str, target: &[String], environment: &[(&str, String)]) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cdrvault"));
    command.current_dir("/").args(["restore", "--vault", vault]).args(target);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let said = said(command.output().unwrap());
    assert_eq!(said.status, 0, "{vault}: {}\n{}", said.out, said.err);
}

#[test]
fn tables_become_a_sqlite_file_that_can_be_saved_again() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(103, 3, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let file = site.path("new.sqlite");
    let target = ["--into".to_owned(), format!("sqlite:{}", file.display())];
    restored(&site, &target, &FROM_VAULT);
    refused(&site, &target, &FROM_VAULT, 1, &["is there already"]);
    assert_eq!(site.leftovers(), Vec::<std::path::PathBuf>::new());
    let other = Site::new(&format!("sqlite://{}", file.display()));
    other.ok("run", &[]);
    python::compare(&server, &other.vault(), false).unwrap();

    // And back, from SQLite's vault into MariaDB.
    let (before, admin) = (content(&server), other.admin(&server));
    server.app("DELETE FROM ar_cdr WHERE calldate >= '2026-01-02'; UPDATE ar_source_cdr SET content = 'x';");
    restored(&other, &admin, &FROM_VAULT);
    assert!(content(&server) == before);

    // An invalid date stays its text in SQLite, and what only SQLite can hold is not bent.
    let sql = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'; UPDATE ar_cdr SET to_calldate = '2024-02-31' WHERE calldate < '2026-01-02';";
    server.app(&transaction(sql, &["2026-01-01"]));
    site.ok("run", &[]);
    std::fs::remove_file(&file).unwrap();
    restored(&site, &target, &FROM_VAULT);
    let other = Site::new(&format!("sqlite://{}", file.display()));
    other.secret("admin", "admin-secret");
    let (cut, admin) = (admin.len() - 1, admin);
    let admin = [&admin[..cut], &[other.path("admin").display().to_string()]].concat();
    other.ok("run", &[]);
    server.app("UPDATE ar_cdr SET cost = 0");
    let said = restore(&other, &admin, &FROM_VAULT);
    assert_eq!(said.status, 3, "{}\n{}", said.out, said.err);
    assert!(said.err.contains("SQLite held values in `to_calldate`"), "{}", said.err);
    assert!(said.out.starts_with("2 partitions restored"), "the other days are: {}", said.out);
    assert_eq!(server.app("SELECT COUNT(*) FROM ar_cdr WHERE calldate < '2026-01-02' AND cost <> 0").trim(), "0");
}

#[test]
fn csv_files_are_what_load_data_reads() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(104, 3, 40).fill(&server);
    server.app(
        "SET SESSION sql_mode = 'ALLOW_INVALID_DATES';
         UPDATE ar_cdr SET to_calldate = '2024-02-31', imported_info = CONCAT('a\\0b\\n\\\\N\\r', CHAR(39), CHAR(34), ',ž') LIMIT 5;
         UPDATE ar_cdr SET imported_info = '\\\\N' ORDER BY id LIMIT 2;",
    );
    let site = Site::on(&server);
    site.ok("run", &[]);
    let before = content(&server);
    let target = ["--into".to_owned(), format!("csv:{}", site.path("csv").display())];
    restored(&site, &target, &FROM_VAULT);
    assert!(site.path("csv/ar_cdr/y_2026/m_01/ar_cdr-2026-01-02.csv").is_file());
    server.app("TRUNCATE ar_cdr; TRUNCATE ar_source_cdr; SET GLOBAL local_infile = 1;");
    for table in ["ar_cdr", "ar_source_cdr"] {
        let script = std::fs::read_to_string(site.path(&format!("csv/{table}/LOAD.sql"))).unwrap();
        server.app(&script);
    }
    assert!(content(&server) == before);
    refused(&site, &target, &FROM_VAULT, 1, &["is there already", "an empty directory"]);
}

#[test]
fn copies_of_a_mirror_are_private_and_those_of_a_killed_restore_go_with_the_next_run() {
    let far = tempfile::tempdir().unwrap();
    let (_server, site) = filled(131, 2);
    let to = far.path().display();
    remote::add(&site, &format!("[sink.mirror.rsync]\nmirror = \"vault\"\nto = \"{to}\"\n"), &["mirror"]);
    site.ok("run", &[]);
    let into = format!("csv:{}", site.path("csv").display());
    let (named, other) = (site.path("named").display().to_string(), site.path("tmp"));
    std::fs::create_dir(&other).unwrap();
    for (more, place) in [(vec![], site.path("state/scratch")), (vec!["--scratch", &named], site.path("named"))] {
        let flags = [&["--from-sink", "mirror", "--into", &into], more.as_slice()].concat();
        let killed = open_to_all(&site, "restore", &flags)
            .env("CDRVAULT_FAILPOINT", "before-restore=abort")
            .env("TMPDIR", &other)
            .output()
            .unwrap();
        assert_eq!(killed.status.code(), None, "{}", String::from_utf8_lossy(&killed.stderr));
        let left = files(&place);
        assert!(!left.is_empty(), "there is nothing in {}", place.display());
        assert_eq!(readable_by_others(&place), Vec::<std::path::PathBuf>::new());
        open_to_all(&site, "verify", &more).output().unwrap();
        assert_eq!(files(&place), Vec::<std::path::PathBuf>::new());
    }
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0, "nothing lies in the temporary directory");
    site.ok("restore", &["--from-sink", "mirror", "--into", &into]);
}

#[test]
fn files_come_back_as_they_were_and_never_elsewhere() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    let site = Site::new("sqlite:none.sqlite");
    let tree = site.path("tree");
    std::fs::create_dir_all(tree.join("a/deep")).unwrap();
    std::fs::write(tree.join("a/deep/file"), vec![7; 3_000_000]).unwrap();
    std::fs::write(tree.join("a/empty"), "").unwrap();
    std::fs::write(tree.join("new\nline"), "x").unwrap();
    symlink("/etc/passwd", tree.join("link")).unwrap();
    symlink("nowhere", tree.join("a/dangling")).unwrap();
    std::fs::set_permissions(tree.join("a/deep/file"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    std::fs::set_permissions(tree.join("a"), std::fs::Permissions::from_mode(0o500)).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    std::fs::File::open(tree.join("a/empty")).unwrap().set_modified(long_ago).unwrap();
    std::fs::File::open(tree.join("a")).unwrap().set_modified(long_ago).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(tree.join("a/empty"), Some(12), Some(34)).unwrap();
    }
    site.pipeline(&format!(
        "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n[sink.vault.local]\npath = \"vault\"\n[flow.tree]\nsource.files = {{ path = \"{}\" }}\n\
         transforms = [\"incremental\", \"compress\"]\nsinks = [\"vault\"]\n",
        tree.display()
    ));
    site.ok("run", &[]);
    let target = ["--into".to_owned(), format!("dir:{}", site.path("back").display())];
    restored(&site, &target, &FROM_VAULT);
    let described = |root: &Path| {
        let mut all = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let found = path.symlink_metadata().unwrap();
            let content = if found.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let link = std::fs::read_link(&path).ok();
            if path != root {
                let below = path.strip_prefix(root).unwrap().to_owned();
                all.push((
                    below,
                    found.mode(),
                    found.uid(),
                    found.gid(),
                    found.mtime(),
                    found.mtime_nsec(),
                    content,
                    link,
                ));
            }
            if found.is_dir() {
                left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        all.sort();
        all
    };
    assert!(described(&tree) == described(&site.path("back/tree")));
    refused(&site, &target, &FROM_VAULT, 1, &["not empty"]);

    // A receipt that somebody forged.
    let receipt = site.vault().join(".cdrvault/manifests/tree/snapshot/g0001.json");
    let receipt = if receipt.is_file() { receipt } else { only_file(&site.vault().join(".cdrvault/manifests/tree")) };
    let sound = std::fs::read_to_string(&receipt).unwrap();
    for (from, to) in [
        ("\"a/deep/file\"", "\"../outside\""),
        ("\"a/deep/file\"", "\"/tmp/outside\""),
        ("\"a/deep/file\"", "\"a/../../outside\""),
        ("\"a/deep/file\"", "\"link/outside\""),
        ("\"a/deep/file\"", "\"a\\u0000b\""),
        ("\"a/deep/file\"", "\"a/empty\""),
        ("\"kind\":\"symlink\"", "\"kind\":\"device\""),
    ] {
        assert!(sound.contains(from), "{from} is not in {sound:.2000}");
        std::fs::write(&receipt, sealed_again(&sound.replacen(from, to, 1))).unwrap();
        let target = ["--into".to_owned(), format!("dir:{}", site.path("forged").display())];
        refused(&site, &target, &FROM_VAULT, 1, &["the receipt"]);
        assert!(!site.path("forged").exists(), "{to}");
        assert!(!site.path("outside").exists() && !Path::new("/tmp/outside").exists());
    }
    std::fs::set_permissions(tree.join("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(site.path("back/tree/a"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// A pipeline that saves the directory `tree` alone.
fn site_of_a_tree() -> Site {
    let site = Site::new("sqlite:none.sqlite");
    std::fs::create_dir(site.path("tree")).unwrap();
    site.pipeline(
        "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n[sink.vault.local]\npath = \"vault\"\n[flow.tree]\nsource.files = { path = \"tree\" }\n\
         transforms = [\"incremental\", \"compress\"]\nsinks = [\"vault\"]\n",
    );
    site
}

fn into(directory: &Path) -> Vec<String> {
    vec!["--into".to_owned(), format!("dir:{}", directory.display())]
}

/// Makes `depth` directories of 60 bytes, one in the other, with a file `file` in each, and gives the last of them.
fn dig(top: &Path, depth: usize) -> rustix::fd::OwnedFd {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let name = "d".repeat(60);
    let mut at = openat(CWD, top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..depth {
        let file = openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap();
        rustix::io::write(&file, level.to_string().as_bytes()).unwrap();
        mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = openat(&at, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    at
}

#[test]
fn a_tree_whose_paths_are_longer_than_the_system_takes_comes_back_and_goes_on_after_a_kill() {
    use rustix::fs::{CWD, Mode, OFlags, mknodat, openat, symlinkat};
    const DEPTH: usize = 200;
    let site = site_of_a_tree();
    let bottom = dig(&site.path("tree"), DEPTH);
    symlinkat("/etc/passwd", &bottom, "link").unwrap();
    mknodat(&bottom, "pipe", rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    let flow =
        "[flow.tree2]\nsource.files = { path = \"tree2\" }\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n";
    site.pipeline(&(std::fs::read_to_string(site.path("pipeline.toml")).unwrap() + flow));
    std::fs::create_dir(site.path("tree2")).unwrap();
    std::fs::write(site.path("tree2/last"), "x").unwrap();
    site.ok("run", &[]);
    site.ok("verify", &[]);
    let back = site.path("back");
    // Killed when the tree is there: it is compared, and not made anew.
    let target = into(&back);
    let words: Vec<&str> = target.iter().map(String::as_str).chain(FROM_VAULT).collect();
    let killed = site.command("restore", &words).env("CDRVAULT_FAILPOINT", "before-restore:2=abort").output().unwrap();
    assert!(!killed.status.success());
    let said = restored(&site, &target, &FROM_VAULT);
    assert!(said.contains("1 were there already"), "{said}");
    let same = |root: &Path| {
        let mut at = openat(CWD, root, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for level in 0..DEPTH {
            let file = openat(&at, "file", OFlags::RDONLY, Mode::empty()).unwrap();
            let mut text = vec![0; 8];
            let count = rustix::io::read(&file, text.as_mut_slice()).unwrap();
            assert_eq!(String::from_utf8_lossy(&text[..count]), level.to_string());
            at = openat(&at, "d".repeat(60).as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let link = rustix::fs::readlinkat(&at, "link", Vec::new()).unwrap();
        assert_eq!(link.as_bytes(), b"/etc/passwd");
        assert!(rustix::fs::statat(&at, "pipe", rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_err());
    };
    same(&back.join("tree"));
}

/// What `getfattr` and `getfacl` say of everything below a directory.
fn attributes(root: &Path) -> String {
    let run = |program: &str, args: &[&str]| {
        let done = std::process::Command::new(program).args(args).arg(".").current_dir(root).output().unwrap();
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    run("getfattr", &["-R", "-h", "-d", "-m", "^(user|trusted|security.capability)", "-e", "hex"])
        + &run("getfacl", &["-R", "-P", "-n", "-s", "--omit-header"])
}

/// Runs a program that must go well.
fn sh(directory: &Path, script: &str) {
    let done = std::process::Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn attributes_access_lists_names_and_holes_of_files_come_back() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: trusted attributes and capabilities need root");
        return;
    }
    let site = site_of_a_tree();
    let tree = site.path("tree");
    sh(
        &tree,
        "mkdir dir; printf secret > dir/shared; chmod 640 dir/shared; chown 12:34 dir/shared; setfacl -m u:33:rwx,g:44:r dir/shared
         setfacl -m d:u:33:rx,d:g:44:rwx dir; setfattr -n user.of-dir -v there dir
         printf x > tool; chown 5:6 tool; chmod 4755 tool; setcap cap_net_raw+ep tool
         setfattr -n user.bytes -v 0x00ff0a tool; setfattr -n trusted.mark -v root tool; setfattr -n user.empty tool
         ln -s nowhere link; setfattr -h -n trusted.of-link -v l link
         printf one > first; ln first second; ln first dir/third; printf one > other
         truncate -s 64M sparse; printf middle | dd of=sparse bs=1 seek=20000001 conv=notrunc 2> /dev/null
         dd if=/dev/zero of=zeros bs=1M count=2 2> /dev/null; truncate -s 1M hollow",
    );
    site.ok("run", &[]);
    site.ok("verify", &[]);
    restored(&site, &into(&site.path("back")), &FROM_VAULT);
    let back = site.path("back/tree");
    // The top of a tree is not part of it.
    sh(&tree, "chmod 700 .");
    assert_eq!(attributes(&back), attributes(&tree));
    let found = |name: &str| back.join(name).metadata().unwrap();
    assert_eq!((found("first").ino(), found("first").ino()), (found("second").ino(), found("dir/third").ino()));
    assert_eq!((found("first").nlink(), found("other").nlink()), (3, 1));
    assert_eq!((found("tool").mode() & 0o7777, found("tool").uid()), (0o4755, 5));
    assert!(std::fs::read(back.join("sparse")).unwrap() == std::fs::read(tree.join("sparse")).unwrap());
    assert!(found("sparse").blocks() * 512 < 1 << 20, "{} blocks", found("sparse").blocks());
    assert_eq!((found("hollow").len(), found("hollow").blocks()), (1 << 20, 0));
    assert!(found("zeros").blocks() * 512 >= 2 << 20, "what was allocated stays so");

    // Nothing changed: no new generation. A change of one list alone is one.
    let generations = || std::fs::read_dir(site.vault().join(".cdrvault/manifests/tree/snapshot")).unwrap().count();
    site.ok("run", &[]);
    assert_eq!(generations(), 1);
    sh(&tree, "setfacl -m u:34:r dir/shared");
    site.ok("run", &[]);
    assert_eq!(generations(), 2);
    sh(&tree, "setfattr -n user.new -v 1 dir");
    site.ok("run", &[]);
    assert_eq!(generations(), 3);
    site.ok("verify", &[]);
    python::reader("check_vault.py", &[site.vault().to_str().unwrap()]);
}

#[test]
fn a_list_that_the_target_hands_down_opens_nothing_of_what_is_restored() {
    let site = site_of_a_tree();
    sh(&site.path("tree"), "mkdir d; printf x > d/secret; chmod 640 d/secret");
    site.ok("run", &[]);
    std::fs::create_dir(site.path("back")).unwrap();
    sh(&site.path("back"), "setfacl -m d:u:33:rwx,u:33:rwx .");
    restored(&site, &into(&site.path("back")), &FROM_VAULT);
    let listed = attributes(&site.path("back/tree"));
    assert!(!listed.contains("user:33"), "{listed}");
}

#[test]
fn what_a_file_system_cannot_keep_is_named_and_the_rest_is_restored() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a file system needs root");
        return;
    }
    let site = site_of_a_tree();
    sh(
        &site.path("tree"),
        "printf x > listed; chmod 600 listed; setfacl -m u:33:rwx,m:rwx listed; printf y > marked; setfattr -n user.x -v 1 marked; printf z > plain",
    );
    site.ok("run", &[]);
    let bare = site.path("bare");
    std::fs::create_dir(&bare).unwrap();
    // It knows neither attributes nor lists.
    sh(site.home.path(), "mount -t ramfs ramfs bare");
    let done = restore(&site, &into(&bare), &FROM_VAULT);
    let mode = std::fs::metadata(bare.join("tree/listed")).map(|found| found.permissions().mode() & 0o7777);
    let there = ["listed", "marked", "plain"].map(|name| std::fs::read_to_string(bare.join("tree").join(name)).ok());
    sh(site.home.path(), "umount bare");
    assert_eq!(done.status, 3, "{}\n{}", done.out, done.err);
    for text in ["system.posix_acl_access", "bare/tree/listed", "user.x", "bare/tree/marked"] {
        assert!(done.err.contains(text), "`{text}` is not in {}", done.err);
    }
    assert!(!done.err.contains("plain"), "{}", done.err);
    assert_eq!(there, ["x", "y", "z"].map(|text| Some(text.to_owned())));
    // The list gave the group nothing; its mask would have been read as the group's rights.
    assert_eq!(mode.unwrap(), 0o600);
}

#[test]
fn an_entry_that_cannot_be_made_as_it_was_is_named_and_the_others_come_back() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: giving files away needs root");
        return;
    }
    let site = site_of_a_tree();
    sh(
        &site.path("tree"),
        "printf a > a; mkdir d; printf b > d/b; printf c > d/foreign; chown 12:34 d/foreign; chmod 6755 d/foreign; printf e > e",
    );
    site.ok("run", &[]);
    // Here only the owner 0 is known.
    let command = site.command("restore", &["--from-sink", "vault", &into(&site.path("back")).join("=")]);
    let mut inside = std::process::Command::new("unshare");
    inside.args(["--user", "--map-root-user"]).arg(command.get_program()).args(command.get_args()).current_dir("/");
    let done = said(inside.output().unwrap());
    assert_eq!(done.status, 3, "{}\n{}", done.out, done.err);
    assert!(done.err.contains("cannot set the owner of") && done.err.contains("back/tree/d/foreign"), "{}", done.err);
    let there = ["a", "d/b", "e"].map(|name| std::fs::read_to_string(site.path("back/tree").join(name)).ok());
    assert_eq!(there, ["a", "b", "e"].map(|text| Some(text.to_owned())));
    // Run again where all owners are known, it is made anew.
    restored(&site, &into(&site.path("back")), &FROM_VAULT);
    let found = site.path("back/tree/d/foreign").metadata().unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (12, 0o6755));
    assert!(!site.path("back/.cdrvault-unfinished").exists());
}

#[test]
fn flags_that_are_not_kept_are_named() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: chattr needs root");
        return;
    }
    let site = site_of_a_tree();
    sh(
        &site.path("tree"),
        "printf x > fixed; printf y > fixed2; printf z > log; chattr +i fixed fixed2; chattr +a log",
    );
    let done = site.run("run", &["-v"]);
    sh(&site.path("tree"), "chattr -i fixed fixed2; chattr -a log");
    assert_eq!(done.status, 0, "{}\n{}", done.out, done.err);
    for text in ["the flag `immutable` of", "tree/fixed, and of 1 more is not saved", "the flag `append only` of"] {
        assert!(done.err.contains(text), "`{text}` is not in {}", done.err);
    }
    restored(&site, &into(&site.path("back")), &FROM_VAULT);
}

/// A receipt whose checksum is right again, as a forger would have it.
fn sealed_again(receipt: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let body = receipt.split_once(",\"self-sha256\"").unwrap().0.to_owned() + "}";
    let sha256 = hex::encode(Sha256::digest(&body));
    format!("{},\"self-sha256\":\"{sha256}\"}}", &body[..body.len() - 1])
}

fn only_file(directory: &Path) -> std::path::PathBuf {
    let entry = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    if entry.is_dir() { only_file(&entry) } else { entry }
}

#[test]
fn what_stands_in_the_way_is_told_before_anything_is_touched() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(105, 3, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let target = site.admin(&server);
    server.app("DELETE FROM ar_cdr WHERE calldate < '2026-01-02'");
    let before = content(&server);
    let fails = |more: &[&str], status: i32, says: &[&str]| {
        refused(&site, &target, more, status, says);
        assert!(content(&server) == before, "{says:?} changed the table");
    };
    fails(&["--from-sink", "vault", "--day", "2027-01-01"], 1, &["holds nothing", "2027-01-01"]);
    fails(&["--from-sink", "vault", "--flow", "ar_cd"], 1, &["holds nothing of `ar_cd`", "ar_source_cdr"]);
    fails(&["--from-sink", "vault", "--at", "2001-01-01"], 1, &["holds nothing"]);
    fails(&["--from-sink", "walt"], 1, &["no sink `walt`", "vault"]);
    fails(&["--from-sink", "vault", "--at", "yesterday"], 2, &["is not a time"]);
    let nowhere = ["--into".to_owned(), "nowhere".to_owned()];
    refused(&site, &nowhere, &FROM_VAULT, 2, &["is not a target", "billing", "sqlite:FILE"]);
    let files = ["--into".to_owned(), "dir:/nonexistent".to_owned()];
    refused(&site, &files, &FROM_VAULT, 1, &["rows of a table"]);
    // The account of the run may not write.
    let ours = ["--into".to_owned(), "billing".to_owned()];
    refused(&site, &ours, &FROM_VAULT, 1, &["denied", "mysql://USER@127.0.0.1", "--password-file FILE", "DELETE"]);
    assert!(content(&server) == before);

    server.app("ALTER TABLE ar_cdr ADD site_note VARCHAR(10) NOT NULL DEFAULT 'dflt'");
    refused(&site, &target, &FROM_VAULT, 1, &["`site_note` is not in the backup", "--missing-columns"]);
    restored(&site, &target, &["--from-sink", "vault", "--missing-columns"]);
    assert_eq!(server.app("SELECT COUNT(*) FROM ar_cdr WHERE site_note = 'dflt'").trim(), "120");
    server.app("ALTER TABLE ar_cdr DROP site_note, DROP cost; DELETE FROM ar_cdr WHERE calldate < '2026-01-02'");
    refused(&site, &target, &FROM_VAULT, 1, &["`cost` (bigint(20)) is missing in the table"]);
    server.app("ALTER TABLE ar_cdr ADD cost VARCHAR(20) NULL AFTER ar_communication_channel_type_id");
    refused(&site, &target, &FROM_VAULT, 1, &["`cost` was saved as Int64 and is Utf8 now"]);
    server.app("ALTER TABLE ar_cdr MODIFY cost BIGINT NULL; CREATE TRIGGER loud AFTER INSERT ON ar_cdr FOR EACH ROW SET @a = 1;");
    refused(&site, &target, &FROM_VAULT, 1, &["trigger `loud`", "--allow-triggers"]);
    let said = restore(&site, &target, &["--from-sink", "vault", "--allow-triggers"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("trigger `loud`"), "{}", said.err);
    python::compare(&server, &site.vault(), false).unwrap();

    // Damage in one day of the range: nothing of the range is restored.
    server.app("DELETE FROM ar_cdr WHERE calldate < '2026-01-02'; DROP TRIGGER loud;");
    let before = content(&server);
    let day = site.vault().join("ar_cdr/day=2026-01-03/ar_cdr-2026-01-03.parquet");
    let sound = std::fs::read(&day).unwrap();
    let mut damaged = sound.clone();
    damaged[100] ^= 1;
    std::fs::write(&day, damaged).unwrap();
    refused(&site, &target, &FROM_VAULT, 1, &["nothing was restored", "ar_cdr 2026-01-03"]);
    assert!(content(&server) == before);
    std::fs::remove_file(&day).unwrap();
    refused(&site, &target, &FROM_VAULT, 1, &["nothing was restored", "missing or damaged"]);
    std::os::unix::fs::symlink("/etc/passwd", &day).unwrap();
    refused(&site, &target, &FROM_VAULT, 1, &["nothing was restored"]);
    assert!(content(&server) == before);
    std::fs::remove_dir_all(site.vault()).unwrap();
    refused(&site, &target, &FROM_VAULT, 1, &["there is no vault in"]);
}

/// Every day is as it was before, or as it was saved, and the next restore goes on.
#[test]
fn a_server_that_goes_away_in_the_middle_leaves_whole_days_only() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(106, 25, 60).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let (before, mut target) = (content(&server), site.admin(&server));
    let proxy = Proxy::start((std::net::Ipv4Addr::LOCALHOST, server.port()).into());
    target[1] = format!("mysql://admin@127.0.0.1:{}/asterisell", proxy.address().port());
    server.app("UPDATE ar_cdr SET cost = 1");
    let arguments: Vec<&str> = FROM_VAULT.into_iter().chain(target.iter().map(String::as_str)).collect();
    let mut run = site.command("restore", &arguments);
    let run = run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // A day that is committed; the server's default shows those under way, too.
    let committed =
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SELECT COUNT(*) FROM ar_cdr WHERE cost <> 1";
    while server.app(committed).trim() == "0" {}
    proxy.set(Fault::Reset);
    let said = said(run.wait_with_output().unwrap());
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("were not tried; run the same command again to go on"), "{}", said.err);
    let halves = "SELECT COUNT(*) FROM (SELECT DATE(calldate) AS day FROM ar_cdr GROUP BY day HAVING SUM(cost = 1) > 5 AND SUM(cost = 1) < 50) AS half";
    assert_eq!(server.app(halves).trim(), "0", "a day is half restored");
    assert!(content(&server) != before);
    proxy.set(Fault::None);
    let out = restored(&site, &target, &FROM_VAULT);
    assert!(!out.contains(" 0 were there already"), "it went on: {out}");
    assert!(content(&server) == before);
}

/// Neither `SELECT *` nor a list of values knows of such columns.
#[test]
fn invisible_and_generated_columns_come_back() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(307, 2, 40).fill(&server);
    server.app(
        "ALTER TABLE ar_cdr ADD hidden VARCHAR(20) INVISIBLE DEFAULT 'by default', ADD twice BIGINT AS (duration * 2) STORED,
             ADD thrice BIGINT AS (duration * 3) VIRTUAL;
         UPDATE ar_cdr SET hidden = CONCAT('hid-', id) WHERE calldate < '2026-01-02'",
    );
    let site = Site::on(&server);
    site.ok("run", &[]);
    let sums = || server.app("SELECT id, calldate, hidden, twice, thrice FROM ar_cdr ORDER BY calldate, id");
    let (before, target) = (sums(), site.admin(&server));
    assert!(before.contains("hid-") && before.contains("by default"));
    server.app("UPDATE ar_cdr SET hidden = 'lost', duration = duration + 1");
    let said = restore(&site, &target, &["--from-sink", "vault"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(sums() == before);
}

/// A statement fails halfway through a day: the day is as before, and no table of ours stays.
#[test]
fn a_restore_that_fails_leaves_the_day_as_it_was_and_no_table_of_its_own() {
    for engine in [Engine::InnoDb, Engine::RocksDb] {
        let server = MariaDb::start(engine);
        Rating::new(308, 2, 40).fill(&server);
        let site = Site::on(&server);
        site.ok("run", &[]);
        let target = site.admin(&server);
        // A guard of the site's own refuses one of the values that are to come back.
        server.app(
            "UPDATE ar_cdr SET cost = 1;
             ALTER TABLE ar_cdr ADD CONSTRAINT cheap CHECK (cost = 1 OR calldate >= '2026-01-02')",
        );
        let all =
            || server.app("SELECT id, calldate, cost FROM ar_cdr WHERE calldate < '2026-01-02' ORDER BY calldate, id");
        let before = all();
        let said = restore(&site, &target, &["--from-sink", "vault", "--flow", "ar_cdr", "--day", "2026-01-01"]);
        assert_eq!(said.status, 1, "{engine:?}: {}", said.err);
        assert!(said.err.contains("cheap"), "{engine:?}: {}", said.err);
        assert!(all() == before, "{engine:?}");
        let ours = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'cdrvault%'";
        assert_eq!(server.app(ours).trim(), "0", "{engine:?}");
    }
}

/// Two days saved, the first of them twice.
fn saved_twice(seed: u64) -> (MariaDb, Site) {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(seed, 2, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let sql = "UPDATE ar_cdr SET income = income + 7 WHERE calldate < '2026-01-02';";
    server.app(&transaction(sql, &["2026-01-01"]));
    site.ok("run", &[]);
    (server, site)
}

#[test]
fn a_dump_that_fails_does_not_keep_the_calls_from_coming_back() {
    let (server, site) = saved_twice(309);
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.dump]\nsource.dump = {{ database = \"billing\", tables = \"configuration\" }}\nsinks = [\"vault\"]\n"
    ));
    server.app("GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'");
    site.ok("run", &[]);
    let (before, target) = (content(&server), site.admin(&server));
    let fails = |says: &str| {
        server.app("UPDATE ar_cdr SET cost = 1");
        let said = restore(&site, &target, &FROM_VAULT);
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains("dump snapshot") && said.err.contains(says), "{}", said.err);
        assert!(!said.err.contains("not tried"), "{}", said.err);
        assert!(content(&server) == before, "the calls are back");
    };
    // The account may not make a trigger of somebody else.
    fails("Access denied");
    // In the way of a table of the dump.
    site.ok("run", &[]);
    server.app("GRANT ALL ON *.* TO admin@'127.0.0.1'; DROP TABLE ar_params; CREATE VIEW ar_params AS SELECT 1 AS a");
    fails("ar_params");
}

#[test]
fn what_is_stored_without_its_receipt_is_named_by_a_restore() {
    let (_server, site) = saved_twice(310);
    let receipts = site.vault().join(".cdrvault/manifests/ar_cdr");
    let into = |name: &str, more: &[&str]| {
        let target = format!("sqlite:{}", site.path(name).display());
        site.run("restore", &[&["--into", &target], more].concat())
    };
    assert_eq!(into("whole.sqlite", &[]).status, 0);
    std::fs::remove_file(receipts.join("2026-01-01/g0002.json")).unwrap();
    let newest_is_gone = "ar_cdr 2026-01-01 generation 2: the index of the vault names it";
    for more in [&["-n"][..], &[]] {
        let said = into("one.sqlite", more);
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains(newest_is_gone), "{}", said.err);
    }
    assert_eq!(into("other.sqlite", &["--flow", "ar_source_cdr"]).status, 0);
    assert_eq!(into("meant.sqlite", &["--generation", "1", "--day", "2026-01-01"]).status, 0);
    std::fs::remove_dir_all(receipts.join("2026-01-02")).unwrap();
    let said = into("two.sqlite", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    let no_receipt = "ar_cdr 2026-01-02 generation 1: the index of the vault names it";
    assert!(said.err.contains(newest_is_gone) && said.err.contains(no_receipt), "{}", said.err);
    let said = into("three.sqlite", &["--day", "2026-01-02"]);
    assert!(said.status == 3 && said.err.contains(no_receipt) && !said.err.contains(newest_is_gone), "{}", said.err);
    // A vault that an older version wrote has no index; its objects tell.
    std::fs::remove_file(site.vault().join(".cdrvault/index/ar_cdr.json")).unwrap();
    let said = into("older.sqlite", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("ar_cdr 2026-01-01 generation 2: what is live is not generation 1"), "{}", said.err);
    let no_receipt = "ar_cdr 2026-01-02 generation 1: it has an object and no receipt";
    assert!(said.err.contains(no_receipt), "{}", said.err);
    // A dataset of which no receipt is left.
    std::fs::remove_dir_all(&receipts).unwrap();
    let said = into("four.sqlite", &[]);
    assert!(said.status == 3 && said.err.contains(no_receipt), "{}", said.err);
}

#[test]
fn a_generation_is_found_by_its_number_and_by_the_time_that_is_shown() {
    let (_server, site) = saved_twice(311);
    let first = |name: &str, more: &[&str]| {
        let target = format!("csv:{}", site.path(name).display());
        let day = ["--flow", "ar_cdr", "--day", "2026-01-01", "--into", &target];
        let said = site.run("restore", &[&day[..], more].concat());
        let file = site.path(name).join("ar_cdr/y_2026/m_01/ar_cdr-2026-01-01.csv");
        if said.status == 0 { Ok(std::fs::read_to_string(file).unwrap()) } else { Err(said.err) }
    };
    let (one, two) = (first("one", &["--generation", "1"]).unwrap(), first("two", &["--generation", "2"]).unwrap());
    assert_ne!(one, two);
    assert_eq!(first("newest", &[]).unwrap(), two);
    let none = first("three", &["--generation", "3"]).unwrap_err();
    assert!(none.contains("no generation 3 of ar_cdr 2026-01-01 (there is g0001, g0002)"), "{none}");
    assert_eq!(site.run("restore", &["--into", "csv:x", "--generation", "0"]).status, 2);

    // The second of the receipt is all that people see.
    let receipt = site.vault().join(".cdrvault/manifests/ar_cdr/2026-01-01/g0002.json");
    let receipt: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    let received: jiff::Timestamp = receipt["received"].as_str().unwrap().parse().unwrap();
    let rome = received.to_zoned(jiff::tz::TimeZone::get("Europe/Rome").unwrap());
    let shown = rome.strftime("%F %T").to_string();
    assert!(site.ok("snapshots", &["--all"]).out.contains(&shown[..10]));
    assert_eq!(first("shown", &["--at", &shown]).unwrap(), two);
    let early = first("early", &["--at", "2026-01-01 10:00"]).unwrap_err();
    assert!(early.contains("at 2026-01-01 10:00:00+01:00"), "in the pipeline's zone: {early}");
}

#[test]
fn a_vault_of_rows_alone_goes_into_an_empty_database() {
    let (server, site) = saved_twice(312);
    server.app("DROP TRIGGER fixture_source_cdr_kind");
    let before = content(&server);
    let target = site.admin(&server);
    let described = || {
        server.app(
            "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLUMN_KEY FROM information_schema.COLUMNS
             WHERE TABLE_SCHEMA = 'asterisell' AND TABLE_NAME IN ('ar_cdr', 'ar_source_cdr')
             ORDER BY TABLE_NAME, ORDINAL_POSITION",
        )
    };
    let columns = described();
    server.sql("", "DROP DATABASE asterisell; CREATE DATABASE asterisell");
    refused(&site, &target, &FROM_VAULT, 1, &["no table `ar_cdr`", "--create-tables"]);
    let plan = restore(&site, &target, &["--create-tables", "-n"]);
    assert!(plan.status == 0 && plan.err.contains("table `ar_cdr` is not there, and is made"), "{}", plan.err);
    assert_eq!(server.app("SHOW TABLES"), "", "a dry run makes nothing");
    restored(&site, &target, &["--create-tables"]);
    assert!(content(&server) == before, "what came back is not what was saved");
    assert_eq!(described(), columns);
    assert!(restored(&site, &target, &["--create-tables"]).starts_with("0 partitions restored"));
    // What a receipt says is a type is not taken for more.
    let receipt = only_file(&site.vault().join(".cdrvault/manifests/ar_source_cdr/2026-01-02"));
    let forged = std::fs::read_to_string(&receipt).unwrap();
    let forged = forged.replacen("\"varchar(10000)\"", "\"varchar(10000), b int\"", 1);
    std::fs::write(&receipt, sealed_again(&forged)).unwrap();
    server.app("DROP TABLE ar_source_cdr");
    refused(&site, &target, &["--create-tables", "--day", "2026-01-02"], 1, &["cannot be made", "`content`"]);
}
