//! Which superseded versions go, and which never do.

use std::time::Duration;

use crate::services;
use crate::services::home::{Said, Site, said};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::{Rating, rate_again, transaction};
use crate::services::remote;
use crate::services::sshd::Sshd;

/// The generations of a day of `ar_cdr` whose objects are kept below a vault.
fn kept(vault: &std::path::Path, day: &str) -> Vec<String> {
    let entries = std::fs::read_dir(vault.join(format!(".cdrvault/versions/ar_cdr/{day}"))).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap()[..5].to_owned()).collect();
    names.sort();
    names
}

/// A site with three days, whose vault has this `keep`.
fn site(server: &MariaDb, keep: &str) -> Site {
    Rating::new(9, 3, 40).fill(server);
    let site = Site::on(server);
    site.edit("path = \"vault\"", &format!("path = \"vault\"\nkeep = {keep}"));
    site.ok("run", &[]);
    site
}

fn plan(site: &Site) -> String {
    site.ok("prune", &["-n"]).out
}

#[test]
fn the_last_versions_and_the_young_ones_stay() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ last = 2, superseded = \"1h\" }");
    for _ in 0..4 {
        rate_again(&server, "2026-01-01");
        site.ok("run", &[]);
        std::thread::sleep(Duration::from_millis(1200));
    }
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001", "g0002", "g0003", "g0004"], "they are young");
    site.edit("\"1h\"", "\"1s\"");
    let shown = plan(&site);
    assert!(shown.contains("one of the last 2") && shown.contains("remove"), "{shown}");
    let before = site.content();
    plan(&site);
    assert!(site.content() == before, "a plan changes nothing");
    site.ok("prune", &["--yes"]);
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0003", "g0004"]);
    let listed = site.ok("snapshots", &["--day", "2026-01-01", "--flow", "ar_cdr", "--all"]);
    assert!(!listed.out.contains("g0002") && listed.out.contains("g0005"), "{}", listed.out);
    // At the end of a run, by itself.
    rate_again(&server, "2026-01-01");
    let said = site.ok("run", &["-v"]);
    assert!(said.err.contains("1 version pruned in vault"), "{}", said.err);
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0004", "g0005"]);
}

#[test]
fn what_is_pinned_stays_until_it_is_released() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ superseded = \"1s\" }");
    server.app(&transaction("DELETE FROM ar_cdr WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    site.ok("run", &[]);
    std::thread::sleep(Duration::from_millis(1200));
    assert!(plan(&site).contains("pinned: the day is empty now"), "{}", plan(&site));
    site.ok("prune", &["--yes"]);
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001"]);
    let said = site.ok("prune", &["--release", "2026-01-01"]);
    assert!(said.err.contains("1 pins released"), "{}", said.err);
    assert_eq!(kept(&site.vault(), "2026-01-01"), Vec::<String>::new());
}

#[test]
fn a_shorter_keep_and_a_clean_sweep_are_asked_about() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ superseded = \"30d\" }");
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    std::thread::sleep(Duration::from_millis(1200));
    site.edit("\"30d\"", "\"1s\"");
    let said = site.ok("run", &[]);
    assert!(said.err.contains("is not pruned: its `keep` got shorter") && said.err.contains("--yes"), "{}", said.err);
    assert_eq!(site.ok("run", &[]).err, "", "cron's mail says it once");
    assert!(site.ok("report", &[]).out.contains("its `keep` got shorter"), "and the report as long as it is so");
    let said = site.run("prune", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001"]);
    site.ok("prune", &["--yes"]);
    assert_eq!(kept(&site.vault(), "2026-01-01"), Vec::<String>::new());
    // Most of many versions.
    for _ in 0..50 {
        rate_again(&server, "2026-01-02");
        site.edit("keep = { superseded = \"1s\" }\n", "");
        site.ok("run", &[]);
        site.edit("path = \"vault\"\n", "path = \"vault\"\nkeep = { superseded = \"1s\" }\n");
    }
    std::thread::sleep(Duration::from_millis(1200));
    let said = site.run("prune", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("it would remove 50 of 50 versions"), "{}", said.err);
    site.ok("prune", &["--yes"]);
    assert_eq!(kept(&site.vault(), "2026-01-02"), Vec::<String>::new());
}

#[test]
fn the_first_keep_is_asked_about() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(10, 2, 20).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    std::thread::sleep(Duration::from_millis(1200));
    site.edit("path = \"vault\"\n", "path = \"vault\"\nkeep = { superseded = \"1s\" }\n");
    let said = site.ok("run", &[]);
    assert!(said.err.contains("it had no `keep` until now") && said.err.contains("--yes"), "{}", said.err);
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001"]);
    site.ok("prune", &["--yes"]);
    assert_eq!(kept(&site.vault(), "2026-01-01"), Vec::<String>::new());
}

/// A verb, run by somebody whom the modes of files bind: not even root reads what it may not.
fn bound(site: &Site, verb: &str) -> Said {
    if !rustix::process::geteuid().is_root() {
        return site.run(verb, &[]);
    }
    let own = site.command(verb, &[]);
    let mut command = std::process::Command::new("setpriv");
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg(own.get_program()).args(own.get_args());
    said(command.output().unwrap())
}

#[test]
fn what_cannot_be_read_any_more_pins_the_last_complete_snapshot_and_no_other() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new("sqlite:none");
    std::fs::create_dir(site.path("etc")).unwrap();
    std::fs::write(site.path("etc/conf"), "1").unwrap();
    std::fs::write(site.path("etc/secret"), "once it could be read").unwrap();
    site.pipeline(
        "name = \"etc\"\nstate = \"state\"\n\n[sink.vault.local]\npath = \"vault\"\nkeep = { superseded = \"1s\" }\n\n\
         [flow.etc]\nsource.files = { path = \"etc\" }\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n",
    );
    site.ok("run", &[]);
    std::fs::set_permissions(site.path("etc/secret"), std::fs::Permissions::from_mode(0o000)).unwrap();
    for content in ["2", "3"] {
        std::fs::write(site.path("etc/conf"), content).unwrap();
        let said = bound(&site, "run");
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains("etc/secret"), "{}", said.err);
        std::thread::sleep(Duration::from_millis(1200));
    }
    let shown = plan(&site);
    assert_eq!(shown.matches("pinned: not everything could be read").count(), 1, "{shown}");
    assert!(shown.lines().any(|line| line.contains("g0001") && line.contains("keep")), "{shown}");
    assert!(shown.lines().any(|line| line.contains("g0002") && line.contains("remove")), "{shown}");
    let said = site.ok("prune", &["--release", "snapshot"]);
    assert!(said.err.contains("1 pins released"), "{}", said.err);
    assert_eq!(plan(&site), "there is no superseded version\n");
    let usage = site.run("prune", &["--release", "yesterday"]);
    assert_eq!(usage.status, 2, "{}", usage.err);
}

/// The same command under a clock that is ten days ahead.
fn with_wrong_clock(site: &Site, verb: &str) -> Said {
    let library = services::places::libfaketime();
    said(site.command(verb, &[]).env("LD_PRELOAD", library).env("FAKETIME", "+10d").output().unwrap())
}

#[test]
fn with_a_wrong_clock_everything_stays() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ superseded = \"1d\" }");
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    for verb in ["prune", "run"] {
        let said = with_wrong_clock(&site, verb);
        assert!(said.err.contains("nothing is pruned: the clock of mysql://"), "{verb}: {}", said.err);
        assert_eq!(said.status, i32::from(verb == "prune"), "a backup goes on: {}", said.err);
        assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001"]);
    }
}

#[test]
fn bodies_go_when_no_tree_names_them() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ superseded = \"1s\" }");
    for name in ["etc", "srv"] {
        std::fs::create_dir(site.path(name)).unwrap();
        std::fs::write(site.path(name).join("shared"), "the same in both").unwrap();
    }
    std::fs::write(site.path("etc/old"), "only in the first generation").unwrap();
    let flow = |name: &str| {
        format!(
            "[flow.{name}]\nsource.files = {{ path = \"{name}\" }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n"
        )
    };
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!("{text}\n{}{}", flow("etc"), flow("srv")));
    site.ok("run", &[]);
    let bodies = || {
        let names = site.content().into_iter().map(|(path, _)| path);
        names.filter(|path| path.to_string_lossy().contains(".cdrvault/objects/")).count()
    };
    assert_eq!(bodies(), 2);
    std::fs::remove_file(site.path("etc/old")).unwrap();
    std::fs::remove_file(site.path("etc/shared")).unwrap();
    std::fs::write(site.path("etc/new"), "only in the second").unwrap();
    site.ok("run", &[]);
    assert_eq!(bodies(), 3);
    std::thread::sleep(Duration::from_millis(1200));
    site.ok("prune", &[]);
    assert_eq!(bodies(), 2, "what the other tree names stays");
}

#[test]
fn a_removal_that_was_cut_off_is_finished_by_the_next_one() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ last = 1 }");
    std::fs::create_dir(site.path("etc")).unwrap();
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let etc = "[flow.etc]\nsource.files = { path = \"etc\" }\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n";
    site.pipeline(&format!("{text}\n{etc}").replace("{ last = 1 }", "{ last = 9 }"));
    for number in 1..=3 {
        std::fs::write(site.path("etc/file"), format!("content {number}")).unwrap();
        rate_again(&server, "2026-01-01");
        site.ok("run", &[]);
    }
    site.edit("{ last = 9 }", "{ last = 1 }");
    let cut = |number: u32| {
        let failpoint = format!("after-receipt-removed:{number}=abort");
        let said = said(site.command("prune", &["--yes"]).env("CDRVAULT_FAILPOINT", failpoint).output().unwrap());
        assert_eq!(said.status, -1, "{}", said.err);
    };
    // A tree's bodies, and a day's object.
    let bodies = || services::files(&site.vault().join(".cdrvault/objects")).len();
    let versions = || kept(&site.vault(), "2026-01-01");
    assert_eq!((versions().len(), bodies()), (3, 3));
    cut(1);
    assert_eq!(versions().len(), 3, "its object is there still");
    cut(3);
    let orphans = |said: Said| said.err.matches("orphaned").count();
    assert!(orphans(site.run("verify", &[])) > 0);
    site.ok("prune", &["--yes"]);
    assert_eq!((versions(), bodies()), (vec!["g0003".to_owned()], 2));
    assert_eq!(orphans(site.ok("verify", &[])), 0);
    assert!(!std::fs::read_to_string(site.path("state/state.json")).unwrap().contains("pruning"));
}

#[test]
fn a_plan_shows_also_what_no_rule_removes() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ last = 9 }");
    site.edit("keep = { last = 9 }", "");
    assert!(plan(&site).contains("there is no superseded version"));
    for _ in 0..2 {
        rate_again(&server, "2026-01-01");
        site.ok("run", &[]);
    }
    let said = site.ok("prune", &["-n"]);
    assert_eq!(said.out.matches("the sink has no `keep`").count(), 2, "{}", said.out);
    assert!(said.err.contains("no sink has a `keep`: every version stays"), "{}", said.err);
}

#[test]
fn each_mirror_keeps_by_its_own_rule() {
    let (server, ssh) = (MariaDb::start(Engine::InnoDb), Sshd::start());
    let site = site(&server, "{ last = 3 }");
    let short = |section: String, keep: &str| {
        section.replace("mirror = \"vault\"\n", &format!("mirror = \"vault\"\nkeep = {keep}\n"))
    };
    let sections = short(remote::rsync(&ssh), "{ last = 1 }") + &short(remote::rdiff(&ssh), "{ superseded = \"1s\" }");
    remote::add(&site, &sections, &["mirror", "offsite"]);
    for _ in 0..3 {
        rate_again(&server, "2026-01-01");
        site.ok("run", &[]);
        std::thread::sleep(Duration::from_millis(1200));
    }
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001", "g0002", "g0003"]);
    assert_eq!(kept(&ssh.directory().join("rsync"), "2026-01-01"), ["g0003"]);
    std::thread::sleep(Duration::from_millis(1200));
    site.ok("prune", &[]);
    // rdiff-backup may remove the directory with the last of them.
    let increments = std::fs::read_dir(ssh.directory().join("rdiff/rdiff-backup-data/increments"));
    let increments = increments.into_iter().flatten().count();
    assert_eq!(increments, 0, "old increments are gone");
    // What was pruned there does not come back with the next transfer.
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    assert_eq!(kept(&ssh.directory().join("rsync"), "2026-01-01"), ["g0004"]);
}

#[test]
fn a_damaged_receipt_keeps_its_own_version_and_no_other() {
    let server = MariaDb::start(Engine::InnoDb);
    let site = site(&server, "{ superseded = \"1s\" }");
    site.edit("{ superseded = \"1s\" }", "{ superseded = \"30d\" }");
    for day in ["2026-01-01", "2026-01-02", "2026-01-01"] {
        rate_again(&server, day);
        site.ok("run", &[]);
    }
    std::thread::sleep(Duration::from_millis(1200));
    site.edit("{ superseded = \"30d\" }", "{ superseded = \"1s\" }");
    let receipts = site.vault().join(".cdrvault/manifests/ar_cdr/2026-01-01");
    let sound = |generation: &str| std::fs::read(receipts.join(generation)).unwrap();
    // Of a version that is to go.
    let first = sound("g0001.json");
    std::fs::write(receipts.join("g0001.json"), &first[..first.len() / 2]).unwrap();
    let said = site.run("prune", &["--yes"]);
    assert_eq!(said.status, 3, "{}\n{}", said.out, said.err);
    assert!(said.err.contains("the receipt") && said.err.contains("g0001.json"), "{}", said.err);
    assert!(said.err.contains("vault: 2 superseded versions removed"), "{}", said.err);
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001"]);
    assert_eq!(kept(&site.vault(), "2026-01-02"), Vec::<String>::new());
    std::fs::write(receipts.join("g0001.json"), &first).unwrap();
    // The receipt of what is live now: nobody knows when the one before it was replaced.
    let third = sound("g0003.json");
    std::fs::write(receipts.join("g0003.json"), &third[..third.len() / 2]).unwrap();
    let said = site.run("prune", &["--yes"]);
    assert_eq!(said.status, 3, "{}\n{}", said.out, said.err);
    assert!(said.err.contains("g0003.json"), "{}", said.err);
    assert_eq!(kept(&site.vault(), "2026-01-01"), ["g0001"]);
    std::fs::write(receipts.join("g0003.json"), &third).unwrap();
    site.ok("prune", &["--yes"]);
    assert_eq!(kept(&site.vault(), "2026-01-01"), Vec::<String>::new());
}
