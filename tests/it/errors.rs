//! What goes wrong on a bad day: each has a message that says where, what and what to do, an exit status, and leaves the
//! vault as it was.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::services;
use crate::services::home::{Said, Site};
use crate::services::mariadb::{Engine, MariaDb, PASSWORD};
use crate::services::rating::Rating;

/// A site with two saved days.
fn saved_site(server: &MariaDb) -> Site {
    Rating::new(5, 2, 20).fill(server);
    let site = Site::on(server);
    site.ok("run", &[]);
    site
}

/// Runs what must fail, checks what it says, and that the vault is as before.
fn fails(site: &Site, more: &[&str], status: i32, says: &[&str]) -> Said {
    let before = site.content();
    let said = site.run("run", more);
    assert_eq!(said.status, status, "{}", said.err);
    for part in says {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    assert!(!said.err.contains(PASSWORD), "the password is shown:\n{}", said.err);
    assert!(site.content() == before, "the vault has changed");
    said
}

#[test]
fn what_is_wrong_with_the_database_is_told() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    let good = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();

    site.secret("password", "wrong-canary");
    let said = fails(
        &site,
        &[],
        1,
        &["cannot connect to mysql://127.0.0.1", "Access denied", "check the user in `url` and the `password`"],
    );
    assert!(!said.err.contains("wrong-canary"));
    site.secret("password", PASSWORD);

    std::fs::remove_file(site.path("password")).unwrap();
    fails(&site, &[], 1, &["database `billing`", "password"]);
    site.secret("password", PASSWORD);

    site.edit("127.0.0.1", "no-such-host.invalid");
    fails(&site, &[], 1, &["cannot connect to mysql://no-such-host.invalid", "check the host name in `url`"]);
    site.pipeline(&good);

    site.edit(&format!(":{}", server.port()), ":1");
    fails(&site, &[], 1, &["refused", "check that the server runs"]);
    site.pipeline(&good);

    site.edit("/asterisell", "/nothing");
    fails(&site, &[], 1, &["cannot connect to", "nothing"]);
    site.pipeline(&good);

    server.app("RENAME TABLE ar_cdr TO ar_cdr_away, ar_source_cdr TO ar_source_cdr_away");
    fails(&site, &[], 1, &["no table `ar_cdr`", "check the database's name in `url`"]);
    server.app("RENAME TABLE ar_cdr_away TO ar_cdr, ar_source_cdr_away TO ar_source_cdr");
    site.ok("run", &[]);

    server.app("ALTER TABLE ar_cdr RENAME COLUMN income TO revenue");
    fails(&site, &["--flow", "ar_cdr"], 1, &["has no column `income`", "check that `url` names the database"]);
    server.app("ALTER TABLE ar_cdr RENAME COLUMN revenue TO income");
    site.ok("run", &[]);
}

#[test]
fn without_write_access_to_the_events_the_sums_are_compared() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("REVOKE INSERT, DELETE ON asterisell.ar_daily_status_change FROM cdrvault@'127.0.0.1'; REVOKE INSERT ON asterisell.ar_daily_status_job FROM cdrvault@'127.0.0.1';");
    let mut rating = Rating::new(5, 2, 20);
    rating.fill(&server);
    let site = Site::on(&server);
    // The calls are older than the usual window.
    site.edit("[\"incremental\", \"parquet\"]", "[{ incremental = { window = \"9y\" } }, \"parquet\"]");
    let said = site.ok("run", &[]);
    assert!(said.err.contains("is not told of changed days") && said.err.contains("comparing sums"), "{}", said.err);
    assert_eq!(site.live().len(), 4);
    let sql = rating.source_calls("2026-01-02", 3);
    server.app(&sql);
    assert_eq!(site.published(), ["ar_source_cdr 2026-01-02"]);
    assert_eq!(site.published(), Vec::<String>::new());
    services::python::compare(&server, &site.vault(), false).unwrap();

    site.edit("window = \"9y\"", "detect = [\"events\"]");
    fails(&site, &[], 1, &["by events alone, and cannot", "detect = [\"events\", \"tripwire\"]"]);
}

#[test]
fn what_is_wrong_with_the_vault_is_told() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    server.app(&services::rating::transaction(
        "UPDATE ar_cdr SET duration = duration + 1;",
        &["2026-01-01", "2026-01-02"],
    ));

    // Not mounted: the directory is there and empty, and our rows are in the database.
    std::fs::rename(site.vault(), site.path("away")).unwrap();
    std::fs::create_dir(site.vault()).unwrap();
    fails(&site, &[], 1, &["there is no vault in", "is the disk mounted?", "--adopt-vault"]);
    std::fs::remove_dir(site.vault()).unwrap();
    fails(&site, &[], 1, &["is the disk mounted?"]);
    // Not even with the state lost: the database remembers us.
    std::fs::rename(site.path("state"), site.path("state-away")).unwrap();
    fails(&site, &[], 1, &["is the disk mounted?"]);
    let _ = std::fs::remove_dir_all(site.path("state"));
    std::fs::rename(site.path("state-away"), site.path("state")).unwrap();
    std::fs::rename(site.path("away"), site.vault()).unwrap();

    // Somebody else's.
    let identity = site.vault().join(".cdrvault/vault.json");
    let ours = std::fs::read_to_string(&identity).unwrap();
    let other = |from: &str, to: &str| {
        let text = ours.replace(from, to);
        assert_ne!(text, ours);
        let (body, _) = text.rsplit_once(",\"self-sha256\"").unwrap();
        std::fs::write(&identity, cdrvault_format::checksum::seal(format!("{body}}}").into_bytes())).unwrap();
    };
    other("\"pipeline\": \"test\"", "\"pipeline\": \"production\"");
    fails(&site, &[], 1, &["is not this pipeline's", "`production`", "--adopt-vault"]);

    // Newer.
    other("\"format\": 2", "\"format\": 3");
    fails(&site, &[], 1, &["has format 3", "use a newer cdrvault"]);
    std::fs::write(&identity, &ours).unwrap();

    assert_eq!(site.published().len(), 2, "it goes on where it was");
    services::python::compare(&server, &site.vault(), false).unwrap();
}

/// A pipeline that saves a small tree, with these sinks.
fn tree_site(sinks: &str, listed: &str) -> Site {
    let site = Site::new("sqlite:none");
    std::fs::create_dir(site.path("tree")).unwrap();
    std::fs::write(site.path("tree/a"), "a").unwrap();
    site.pipeline(&format!(
        "name = \"tree\"\nstate = \"state\"\nmin-free = \"1MiB\"\n{sinks}\n[flow.tree]\nsource.files.path = \"tree\"\n\
         sinks = [{listed}]\n"
    ));
    site
}

#[test]
fn two_sinks_in_one_place_behind_a_link_are_told() {
    let site = tree_site(
        "[sink.first.local]\npath = \"vault\"\n[sink.second.local]\npath = \"link\"\noptional = true\n\
         [sink.third.local]\npath = \"other-link/inside\"\n",
        "\"first\", \"second\", \"third\"",
    );
    std::os::unix::fs::symlink(site.vault(), site.path("link")).unwrap();
    std::os::unix::fs::symlink(site.vault(), site.path("other-link")).unwrap();
    for verb in [&["run", "-n"][..], &["run"], &["validate", "--connect"]] {
        let said = site.run(verb[0], &verb[1..]);
        assert!(!matches!(said.status, 0 | 11), "{verb:?} {}", said.err);
        for what in ["the sink `second` is the same place as the sink `first`", "`third` lies inside the sink `first`"]
        {
            assert!(said.err.contains(what), "{verb:?} {}", said.err);
        }
    }
    assert!(site.vault().join(".cdrvault/manifests/tree").exists(), "the first is written all the same");
}

#[test]
fn a_mirror_onto_its_own_vault_behind_a_link_is_told() {
    let mirror = "[sink.vault.local]\npath = \"vault\"\n[sink.copy.KIND]\nmirror = \"vault\"\nto = \"HOME/link/x\"\n";
    for kind in ["rsync", "rdiff"] {
        let site = tree_site(mirror, "\"vault\", \"copy\"");
        site.edit("KIND", kind);
        site.edit("HOME", site.home.path().to_str().unwrap());
        std::os::unix::fs::symlink(site.vault(), site.path("link")).unwrap();
        let said = site.run("run", &[]);
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains("the sink `copy` lies inside the sink `vault`"), "{}", said.err);
        assert!(!site.vault().join("x").exists());
    }
}

#[test]
fn a_mirror_onto_its_own_vault_by_a_daemon_is_told() {
    let daemon = services::rsyncd::Rsyncd::start();
    let site = tree_site(
        "[sink.vault.local]\npath = \"VAULT\"\n[sink.copy.rsync]\nmirror = \"vault\"\nto = \"rsync://127.0.0.1:PORT/open/vault\"\n",
        "\"vault\", \"copy\"",
    );
    site.edit("VAULT", daemon.module().join("vault").to_str().unwrap());
    site.edit("PORT", &daemon.port().to_string());
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("/open/vault is the vault itself, in "), "{}", said.err);
    // A copy that was made by hand has a lock, too, but not this run's.
    let done =
        Command::new("cp").arg("-a").arg(daemon.module().join("vault")).arg(daemon.module().join("copy")).status();
    assert!(done.unwrap().success());
    site.edit("/open/vault", "/open/copy");
    site.ok("run", &[]);
}

#[test]
fn two_sinks_in_one_place_behind_a_mount_are_told() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root mounts directories");
        return;
    }
    let site = tree_site(
        "[sink.first.local]\npath = \"vault\"\n[sink.second.local]\npath = \"mount/vault\"\n",
        "\"first\", \"second\"",
    );
    let mount = site.path("mount");
    std::fs::create_dir(&mount).unwrap();
    Mount::run("mount", &["--bind", site.home.path().to_str().unwrap(), mount.to_str().unwrap()]);
    let _mount = Mount(&mount);
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("the sink `second` is the same place as the sink `first`"), "{}", said.err);
}

#[test]
fn a_vault_is_not_pruned_by_the_rule_of_another_sink() {
    let site = tree_site(
        "[sink.first.local]\npath = \"vault\"\n[sink.second.local]\npath = \"link\"\nkeep = { last = 0 }\noptional = true\n",
        "\"first\"",
    );
    for content in ["a", "b", "c"] {
        std::fs::write(site.path("tree/a"), content).unwrap();
        site.ok("run", &[]);
    }
    std::os::unix::fs::symlink(site.vault(), site.path("link")).unwrap();
    site.edit("sinks = [\"first\"]", "sinks = [\"first\", \"second\"]");
    let before = services::files(&site.vault().join(".cdrvault/manifests")).len();
    for verb in [&["prune"][..], &["run"]] {
        let said = site.run(verb[0], &verb[1..]);
        assert!(!matches!(said.status, 0 | 11), "{verb:?} {}", said.err);
        assert!(said.err.contains("is the same place as the sink `first`"), "{verb:?} {}", said.err);
    }
    assert_eq!(services::files(&site.vault().join(".cdrvault/manifests")).len(), before);
}

#[test]
fn what_a_run_needs_besides_is_tried_by_validate() {
    let site = tree_site("[sink.vault.local]\npath = \"vault\"\n", "\"vault\"");
    let good = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let checked = site.ok("validate", &["--connect"]);
    assert!(checked.out.contains("state directory") && checked.out.contains("can be made"), "{}", checked.out);
    assert!(!site.path("state").exists() && !site.vault().exists(), "nothing is made");
    let write = |text: &str| {
        site.pipeline(text);
        std::fs::set_permissions(site.path("pipeline.toml"), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let refused = |change: &dyn Fn(&str) -> String, says: &str| {
        write(&change(&good));
        let said = site.run("validate", &["--connect"]);
        assert!(said.status == 1 && said.err.contains(says), "{says}: {} {}", said.status, said.err);
    };
    let table = |table: &str| format!("{good}\n{table}\n");
    refused(&|good| good.replace("1MiB", "100TiB"), "are to stay free");
    refused(&|_| table("[metrics]\ntextfile = \"none/x.prom\""), "there is no directory");
    refused(&|_| table("[notify]\nping = { file = \"none\" }"), "read the secret in");
    refused(&|_| table("[notify]\nwebhook = \"nowhere\""), "not a URL of http or https");
    refused(&|_| table("[notify]\ncommand = [\"no-such-program\"]"), "there is no program no-such-program");
    let no_program = site.path("tree/a").display().to_string();
    refused(&|_| table(&format!("[notify]\ncommand = [\"{no_program}\"]")), "there is no program /");
    std::fs::write(site.path("state"), "in the way").unwrap();
    refused(&|good| good.to_owned(), "is not a directory");
    std::fs::remove_file(site.path("state")).unwrap();
    write(&table(
        "[metrics]\ntextfile = \"x.prom\"\n[notify]\nping = \"https://example.invalid/x\"\ncommand = [\"true\"]",
    ));
    let said = site.ok("validate", &["--connect"]);
    assert!(!said.out.contains("example.invalid"), "{}", said.out);
}

#[test]
fn two_pipelines_do_not_share_a_state_directory() {
    let site = tree_site("[sink.vault.local]\npath = \"vault\"\n", "\"vault\"");
    site.ok("run", &[]);
    site.edit("name = \"tree\"", "name = \"other\"");
    site.edit("path = \"vault\"", "path = \"other\"");
    // Also while the other one runs, which would be silent.
    let lock = std::fs::File::options().write(true).open(site.path("state/lock")).unwrap();
    lock.lock().unwrap();
    fails(&site, &[], 1, &["is the state directory of pipeline `tree`", "set `state`"]);
    let said = site.run("validate", &["--connect"]);
    assert!(said.status != 0 && said.err.contains("is the state directory of pipeline `tree`"), "{}", said.err);
    drop(lock);
    site.ok("run", &["--adopt-vault"]);
    site.ok("run", &[]);
}

#[test]
fn two_databases_that_are_one_are_told() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(5, 2, 5).fill(&server);
    let site = Site::on(&server);
    let database =
        format!("[database.again]\nurl = \"{}\"\npassword = {{ file = \"password\" }}\n\n[sink.vault", server.url());
    site.edit("[sink.vault", &database);
    site.edit("source.ar-source-cdr = { database = \"billing\" }", "source.ar-source-cdr = { database = \"again\" }");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("the databases `billing` and `again` are one: mysql://"), "{}", said.err);
    assert!(said.err.contains("name `billing` in all flows"), "{}", said.err);
    let said = site.run("validate", &["--connect"]);
    assert!(said.status != 0 && said.err.contains("are one: mysql://"), "{}", said.err);
}

#[test]
fn a_vault_that_cannot_be_written_is_told() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    server.app(&services::rating::transaction(
        "UPDATE ar_cdr SET duration = duration + 1 WHERE calldate < '2026-01-02';",
        &["2026-01-01"],
    ));
    let vault = site.vault();
    let mount = Mount::bind_read_only(&vault);
    let before = site.content();
    let said = site.run("run", &[]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.err.contains("vault") && said.err.contains("Read-only file system"), "{}", said.err);
    assert!(said.err.contains("mount the file system read-write"), "{}", said.err);
    assert!(site.content() == before);
    drop(mount);
    assert_eq!(site.published(), ["ar_cdr 2026-01-01"]);
}

#[test]
fn a_full_disk_is_told_and_the_day_stays_owed() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(5, 3, 20).fill(&server);
    let site = Site::on(&server);
    std::fs::create_dir(site.vault()).unwrap();
    let vault = site.vault();
    let mount = Mount::small(&vault);
    site.edit("min-free = \"1MiB\"", "min-free = \"64KiB\"");
    site.ok("run", &[]);
    let day = Rating::day(1);
    server.app(&services::rating::transaction(&Rating::new(6, 3, 0).source_calls(&day, 60_000), &[&day]));
    let live = |site: &Site| site.live().into_iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = live(&site);
    let said = site.run("run", &[]);
    assert_ne!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("No space left on device") || said.err.contains("are to stay free"), "{}", said.err);
    assert!(said.err.contains("free some space"), "{}", said.err);
    assert!(live(&site) == before, "the vault has changed");
    services::home::all_whole(&site.vault());
    mount.grow();
    site.ok("run", &[]);
    services::python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn a_state_directory_that_cannot_be_used_is_told() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    std::fs::rename(site.path("state"), site.path("away")).unwrap();
    std::fs::write(site.path("state"), "in the way").unwrap();
    fails(&site, &[], 1, &["state", "is not a directory", "set `state`"]);
    // As somebody who may not.
    std::fs::remove_file(site.path("state")).unwrap();
    std::fs::rename(site.path("away"), site.path("state")).unwrap();
    std::fs::set_permissions(site.home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = site.path("cdrvault");
    std::fs::copy(env!("CARGO_BIN_EXE_cdrvault"), &binary).unwrap();
    let said = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary)
        .arg("run")
        .arg(site.path("pipeline.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(
        text.contains("state") && text.contains("Permission denied") && text.contains("run as a user who may"),
        "{text}"
    );
}

#[test]
fn a_second_run_at_the_same_time_is_refused_or_waits() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    server.app(&services::rating::transaction(
        "UPDATE ar_cdr SET duration = duration + 1 WHERE calldate < '2026-01-02';",
        &["2026-01-01"],
    ));
    let go = site.path("go");
    let mut first = site.start(&format!("after-claim=pause:{}", go.display()));
    while !site.path("go.reached").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let quiet = site.run("run", &[]);
    assert_eq!((quiet.status, quiet.err.as_str(), quiet.out.as_str()), (11, "", ""), "silent off a terminal");
    // Another state directory, as another container would have: the vault's own lock, and its identity, hold it off.
    site.edit("state = \"state\"", "state = \"other-state\"");
    let other = site.run("run", &[]);
    assert_eq!(other.status, 1, "{}", other.err);
    assert!(other.err.contains("is not this pipeline's") && other.err.contains("writer"), "{}", other.err);
    site.edit("state = \"other-state\"", "state = \"state\"");
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| site.run("run", &["--wait-lock", "1m"]));
        std::thread::sleep(Duration::from_millis(300));
        std::fs::write(&go, "").unwrap();
        waiting.join().unwrap()
    });
    assert!(first.wait().unwrap().success());
    assert_eq!(waiting.status, 0, "{}", waiting.err);
    services::python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn a_lock_that_only_the_database_knows_of_is_told() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    server.app(&services::rating::transaction(
        "UPDATE ar_cdr SET duration = duration + 1 WHERE calldate < '2026-01-02';",
        &["2026-01-01"],
    ));
    let go = site.path("go");
    let mut first = site.start(&format!("after-claim=pause:{}", go.display()));
    while !site.path("go.reached").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // A copy of this host would find the files free.
    for lock in ["state/lock", "vault/.cdrvault/lock"] {
        std::fs::remove_file(site.path(lock)).unwrap();
    }
    let said = site.run("run", &[]);
    assert_eq!(said.status, 11, "{}", said.err);
    assert!(said.err.contains("holds the lock on mysql://"), "{}", said.err);
    std::fs::write(&go, "").unwrap();
    first.wait().unwrap();
}

#[test]
fn a_wait_for_a_lock_can_be_stopped() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    let lock = std::fs::File::options().write(true).open(site.path("state/lock")).unwrap();
    lock.lock().unwrap();
    let mut waiting = site.command("run", &["--wait-lock", "1h"]).spawn().unwrap();
    // Until it listens to signals.
    let caught = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        u64::from_str_radix(&mask, 16).unwrap() & (1 << 14) != 0
    };
    while !caught(waiting.id()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").arg(waiting.id().to_string()).status().unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
}

#[test]
fn a_full_optional_sink_keeps_nothing_from_the_others() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root mounts a small file system");
        return;
    }
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    let usb = site.path("usb");
    std::fs::create_dir(&usb).unwrap();
    let mount = |args: &[&str]| assert!(Command::new(args[0]).args(&args[1..]).status().unwrap().success(), "{args:?}");
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", usb.to_str().unwrap()]);
    std::fs::write(usb.join("fill"), vec![0; 900 << 10]).unwrap();
    site.edit("[sink.vault.local]", "[sink.usb.local]\npath = \"usb/vault\"\noptional = true\n\n[sink.vault.local]");
    site.edit("sinks = [\"vault\"]", "sinks = [\"usb\", \"vault\"]");
    server.app(&services::rating::transaction(
        "UPDATE ar_cdr SET duration = duration + 1 WHERE calldate < '2026-01-02';",
        &["2026-01-01"],
    ));
    let said = site.run("run", &[]);
    mount(&["umount", usb.to_str().unwrap()]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("usb"), "{}", said.err);
    services::python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn a_literal_secret_that_others_can_read_is_refused() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = saved_site(&server);
    let good = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let change = |mode: u32, text: &str| {
        site.pipeline(text);
        std::fs::set_permissions(site.path("pipeline.toml"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let literal = good.replace("{ file = \"password\" }", &format!("\"{PASSWORD}\""));
    change(0o644, &literal);
    fails(&site, &[], 78, &["pipeline.toml:", "password", "{ file ="]);
    change(0o600, &literal);
    site.ok("run", &[]);
    let in_url = good.replace("cdrvault@", &format!("cdrvault:{PASSWORD}@"));
    change(0o644, &in_url);
    fails(&site, &[], 78, &["pipeline.toml:", "url"]);
}

#[test]
fn an_interrupted_run_ends_cleanly() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(5, 8, 30).fill(&server);
    let site = Site::on(&server);
    let go = site.path("go");
    let mut run = site.start(&format!("after-claim:3=pause:{}", go.display()));
    while !site.path("go.reached").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    std::fs::write(&go, "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    services::home::all_whole(&site.vault());
    assert!(site.live().len() < 16, "it stopped");
    site.ok("run", &[]);
    services::python::compare(&server, &site.vault(), false).unwrap();
}

/// Stops a verb that waits at a failpoint, and lets it go on.
fn stopped(site: &Site, verb: &str, more: &[&str], failpoint: &str) -> Said {
    let go = site.path("go");
    let _ = std::fs::remove_file(&go);
    let _ = std::fs::remove_file(site.path("go.reached"));
    let mut command = site.command(verb, more);
    command.env("CDRVAULT_FAILPOINT", format!("{failpoint}=pause:{}", go.display()));
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while !site.path("go.reached").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it never came to {failpoint}");
        std::thread::sleep(Duration::from_millis(20));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    std::fs::write(&go, "").unwrap();
    services::home::said(child.wait_with_output().unwrap())
}

#[test]
fn what_is_stopped_while_it_prunes_is_called_interrupted() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(5, 3, 5).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    // Versions for a plan that takes its time.
    for income in 1..=3 {
        server.app(&services::rating::transaction(
            &format!("UPDATE ar_cdr SET income = {income} WHERE calldate < '2026-01-02';"),
            &["2026-01-01"],
        ));
        site.ok("run", &[]);
    }
    site.edit("path = \"vault\"\n", "path = \"vault\"\nkeep = { last = 1 }\n");
    let said = stopped(&site, "prune", &["--yes"], "after-receipt-removed:1");
    assert_eq!(said.status, 130, "{}", said.err);
    site.ok("prune", &["--yes"]);
}

#[test]
fn a_replay_that_is_stopped_says_how_it_goes_on() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(5, 8, 30).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let said = stopped(&site, "replay", &["--month", "2026-01", "--force"], "after-claim:3");
    assert_eq!(said.status, 130, "{}", said.err);
    assert!(said.err.contains("were not exported again, from ar_"), "{}", said.err);
    assert!(said.err.contains("replay them once more") && !said.err.contains("The next run goes on"), "{}", said.err);
    site.ok("replay", &["--month", "2026-01"]);
    services::python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn a_full_disk_leaves_nothing_half_restored() {
    let server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(7, 3, 20);
    rating.fill(&server);
    let day = Rating::day(1);
    server.app(&services::rating::transaction(&rating.source_calls(&day, 60_000), &[&day]));
    let site = Site::on(&server);
    site.ok("run", &[]);
    let small = site.path("small");
    std::fs::create_dir(&small).unwrap();
    let _mount = Mount::small(&small);
    let into = format!("sqlite:{}", small.join("new.sqlite").display());
    let said = site.run("restore", &["--from-sink", "vault", "--into", &into]);
    assert_ne!(said.status, 0, "{}", said.out);
    assert!(said.err.contains("full"), "{}", said.err);
    assert_eq!(std::fs::read_dir(&small).unwrap().count(), 0, "something is left of the new file");
    let into = format!("csv:{}", small.join("csv").display());
    let said = site.run("restore", &["--from-sink", "vault", "--into", &into, "--flow", "ar_source_cdr"]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("No space left on device") && said.err.contains("were not tried"), "{}", said.err);
    let csv = small.join("csv/ar_source_cdr/y_2026/m_01");
    let files: Vec<_> = std::fs::read_dir(&csv).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["ar_source_cdr-2026-01-01.csv"], "whole days only");
}

/// A mount that ends with the test.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn run(program: &str, args: &[&str]) {
        let done = Command::new(program).args(args).output().unwrap();
        assert!(
            done.status.success(),
            "this test mounts file systems and needs root: {program} {args:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn small(at: &'a Path) -> Self {
        Self::run("mount", &["-t", "tmpfs", "-o", "size=1m", "none", at.to_str().unwrap()]);
        Self(at)
    }

    fn grow(&self) {
        Self::run("mount", &["-o", "remount,size=64m", self.0.to_str().unwrap()]);
    }

    fn bind_read_only(at: &'a Path) -> Self {
        let path = at.to_str().unwrap();
        Self::run("mount", &["--bind", path, path]);
        Self::run("mount", &["-o", "remount,ro,bind", path]);
        Self(at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// Runs a command whose standard output has no room.
fn without_room(mut command: Command) -> Said {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    services::home::said(command.stdout(full).output().unwrap())
}

#[test]
fn what_does_not_fit_on_standard_output_is_an_error_of_every_verb() {
    let home = tempfile::tempdir().unwrap();
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdrvault"));
        command.current_dir(home.path()).args(arguments).stdin(std::process::Stdio::null());
        command
    };
    let file = "demo/pipeline.toml";
    let made = program(&["demo", "--dir", "demo", "--days", "3", "--calls-per-day", "20"]).output().unwrap();
    assert!(made.status.success());
    let cases: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["help", "run"],
        &["completions", "bash"],
        &["man"],
        &["schema"],
        &["stages", "list"],
        &["stages", "describe", "parquet"],
        &["init", "new.toml"],
        &["validate", file],
        &["validate", file, "--json"],
        &["validate", file, "--connect"],
        &["status", file],
        &["status", file, "--json"],
        &["history", file],
        &["snapshots", file],
        &["report", file],
        &["report", file, "--json"],
        &["prune", file, "-n"],
        &["prune", file, "--json"],
        &["verify", file, "--json"],
        &["restore", file, "--from-sink", "vault", "--into", "csv:out", "-n"],
        &["restore", file, "--from-sink", "vault", "--into", "csv:out"],
        &["run", file, "-n"],
        &["run", file, "--json"],
        &["replay", file, "--day", "2026-01-01", "-n"],
        &["demo", "--dir", "again", "--days", "3", "--calls-per-day", "20"],
    ];
    let mut wrong = Vec::new();
    for case in cases {
        let said = without_room(program(case));
        let told = said.err.contains("cannot write to standard output: No space left on device");
        // What prints nothing loses nothing.
        if said.status != 1 || !told {
            wrong.push(format!("{case:?}: {} {}", said.status, said.err));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let said = without_room(program(&["status", file, "--nagios"]));
    assert_ne!(said.status, 0, "{}", said.err);
    // Another reason to fail comes first.
    let said = without_room(program(&["status", file, "--bad"]));
    assert_eq!(said.status, 2, "{}", said.err);
}

#[test]
fn who_closes_a_pipe_hears_no_more_and_that_is_no_error() {
    for case in ["--help", "man", "schema", "completions bash"] {
        let line = format!("set -o pipefail; \"$0\" {case} | true");
        for _ in 0..3 {
            let said = Command::new("bash").args(["-c", &line, env!("CARGO_BIN_EXE_cdrvault")]).output().unwrap();
            assert!(said.status.success() && said.stderr.is_empty(), "{case}: {said:?}");
        }
    }
}
