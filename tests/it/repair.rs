//! Lost and damaged receipts, generations that were pruned, and what `verify` tells when something else goes wrong, too.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::services;
use crate::services::home::{Said, Site};

/// A site on SQLite, with days of calls and a tree, in these local sinks.
pub(crate) fn site(sinks: &[&str]) -> Site {
    let site = Site::new("sqlite:billing.sqlite");
    std::fs::create_dir_all(site.path("tree")).unwrap();
    std::fs::write(site.path("tree/file"), "content").unwrap();
    sql(
        &site,
        "CREATE TABLE ar_source_cdr (calldate DATETIME, id INT, ar_cdr_provider_id INT, ar_physical_format_id INT,
         content TEXT, is_hacked TINYINT, PRIMARY KEY (calldate, id))",
    );
    for day in 1..=3 {
        for call in 0..10 {
            add(&site, &format!("2026-01-{day:02} 10:00:00"), call);
        }
    }
    let sections = sinks.iter().map(|name| format!("[sink.{name}.local]\npath = \"{name}\"\n")).collect::<String>();
    let names = sinks.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    site.pipeline(&format!(
        "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n[database.billing]\nurl = \"sqlite:billing.sqlite\"\n{sections}\
         [flow.ar_source_cdr]\nsource.ar-source-cdr = {{ database = \"billing\" }}\ntransforms = [\"incremental\", \"parquet\"]\nsinks = [{names}]\n\
         [flow.tree]\nsource.files = {{ path = \"tree\" }}\ntransforms = [\"incremental\"]\nsinks = [{names}]\n"
    ));
    site.ok("run", &[]);
    site
}

fn sql(site: &Site, text: &str) {
    let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.execute(sys.argv[2])\ndb.commit()\n";
    services::python::run(script, &[site.path("billing.sqlite").to_str().unwrap(), text]);
}

pub(crate) fn add(site: &Site, at: &str, call: u32) {
    sql(site, &format!("INSERT INTO ar_source_cdr VALUES ('{at}', {call}, 1, 2, 'call {call}', 0)"));
}

fn report(said: &Said) -> serde_json::Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", said.out, said.err))
}

/// Runs `verify --json`; gives its exit status, and `sink problem partition` of each finding.
pub(crate) fn findings(site: &Site, more: &[&str]) -> (i32, Vec<String>) {
    let said = site.run("verify", &[&["--json"], more].concat());
    let of = |finding: &serde_json::Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or("-").to_owned();
        let fate = if finding["repaired"] == true { " repaired" } else { "" };
        format!("{} {} {}{fate}", text("sink"), text("problem"), text("partition"))
    };
    let mut lines: Vec<String> = report(&said)["findings"].as_array().unwrap().iter().map(of).collect();
    lines.sort();
    (said.status, lines)
}

pub(crate) fn lines(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn receipt(vault: &Path, day: &str, generation: u32) -> PathBuf {
    vault.join(format!(".cdrvault/manifests/ar_source_cdr/{day}/g{generation:04}.json"))
}

fn live(vault: &Path, day: &str) -> PathBuf {
    vault.join(format!("ar_source_cdr/day={day}/ar_source_cdr-{day}.parquet"))
}

pub(crate) fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[40] ^= 0x10;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn csv(site: &Site, more: &[&str]) -> Said {
    let into = site.path("back");
    let _ = std::fs::remove_dir_all(&into);
    let into = format!("csv:{}", into.display());
    site.run("restore", &[&["--from-sink", "vault", "--flow", "ar_source_cdr", "--into", &into], more].concat())
}

#[test]
fn a_sink_that_lost_every_receipt_of_a_dataset_is_never_silent() {
    let one = site(&["vault"]);
    let receipts = one.vault().join(".cdrvault/manifests/ar_source_cdr");
    std::fs::remove_dir_all(&receipts).unwrap();
    let days = ["2026-01-01", "2026-01-02", "2026-01-03"];
    let lost = days.map(|day| format!("vault missing-receipt {day}"));
    assert_eq!(findings(&one, &[]), (4, lost.to_vec()));
    assert_eq!(findings(&one, &["--flow", "ar_source_cdr"]), (4, lost.to_vec()));
    let bare = std::process::Command::new(env!("CARGO_BIN_EXE_cdrvault"))
        .args(["verify", "--vault", one.vault().to_str().unwrap()])
        .status()
        .unwrap();
    assert_eq!(bare.code(), Some(4));

    let two = site(&["vault", "second"]);
    std::fs::remove_dir_all(two.path("second/.cdrvault/manifests/ar_source_cdr")).unwrap();
    std::fs::remove_file(live(&two.path("second"), "2026-01-03")).unwrap();
    let lost = days.map(|day| format!("second missing-receipt {day}"));
    assert_eq!(findings(&two, &[]), (4, lost.to_vec()));
    let repaired = lost.map(|line| format!("{line} repaired"));
    assert_eq!(findings(&two, &["--repair"]), (0, repaired.to_vec()));
    two.ok("run", &[]);
    assert_eq!(findings(&two, &[]), (0, vec![]));
}

#[test]
fn a_damaged_receipt_comes_back_from_another_sink_even_if_only_one_is_verified() {
    let site = site(&["vault", "second"]);
    flip(&receipt(&site.vault(), "2026-01-02", 1));
    flip(&site.vault().join(".cdrvault/manifests/tree/snapshot/g0001.json"));
    let hurt = ["vault damaged-receipt 2026-01-02", "vault damaged-receipt snapshot"];
    assert_eq!(findings(&site, &[]), (4, lines(&hurt)));
    let repaired = hurt.map(|line| format!("{line} repaired"));
    assert_eq!(findings(&site, &["--sink", "vault", "--repair"]), (0, repaired.to_vec()));
    assert_eq!(findings(&site, &[]), (0, vec![]));
    let text = |vault: &str| std::fs::read(receipt(&site.path(vault), "2026-01-02", 1)).unwrap();
    assert_eq!(text("vault"), text("second"));
    // The object, too, when only its own sink is verified.
    flip(&live(&site.vault(), "2026-01-01"));
    assert_eq!(findings(&site, &["--sink", "vault", "--repair"]), (0, lines(&["vault damaged 2026-01-01 repaired"])));
}

#[test]
fn a_run_goes_on_although_a_receipt_is_damaged() {
    let site = site(&["vault"]);
    flip(&receipt(&site.vault(), "2026-01-02", 1));
    flip(&site.vault().join(".cdrvault/manifests/tree/snapshot/g0001.json"));
    add(&site, "2026-01-02 11:00:00", 90);
    std::fs::write(site.path("tree/file"), "other").unwrap();
    site.ok("run", &[]);
    assert!(receipt(&site.vault(), "2026-01-02", 2).exists());
    let both = ["vault damaged-receipt 2026-01-02", "vault damaged-receipt snapshot"];
    assert_eq!(findings(&site, &[]), (4, lines(&both)), "the old ones");
    assert_eq!(site.published(), Vec::<String>::new());
    // Nobody else holds them: they are set aside.
    assert_eq!(findings(&site, &["--repair"]), (4, lines(&both)));
    assert!(receipt(&site.vault(), "2026-01-02", 1).with_extension("json.damaged").exists());
    let (status, left) = findings(&site, &[]);
    assert!(status == 0 && left.iter().all(|line| line == "vault orphaned -"), "{left:?}");
    assert_eq!(csv(&site, &[]).status, 0);
}

#[test]
fn a_receipt_that_nobody_else_has_is_set_aside_and_the_day_saved_again() {
    let site = site(&["vault"]);
    flip(&receipt(&site.vault(), "2026-01-02", 1));
    let said = site.run("verify", &["--repair"]);
    assert_eq!(said.status, 4);
    assert!(said.err.contains("g0001.json.damaged; `replay --flow ar_source_cdr --day 2026-01-02`"), "{}", said.err);
    assert_eq!(findings(&site, &[]), (4, lines(&["vault extra -"])));
    site.ok("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-02"]);
    assert_eq!(findings(&site, &[]).0, 0);
    assert_eq!(csv(&site, &[]).status, 0);
}

#[test]
fn what_cannot_be_read_takes_nothing_away_from_what_was_found() {
    let site = site(&["vault"]);
    flip(&live(&site.vault(), "2026-01-01"));
    let locked = std::fs::File::open(site.vault().join(".cdrvault/lock")).unwrap();
    locked.try_lock().unwrap();
    let said = site.run("verify", &["--repair", "--json"]);
    drop(locked);
    assert_eq!((said.status, report(&said)["damage"].as_u64()), (4, Some(1)));
    assert_eq!(report(&said)["failures"].as_array().unwrap().len(), 1, "{}", said.out);
    std::fs::rename(site.path("billing.sqlite"), site.path("gone")).unwrap();
    let said = site.run("verify", &["--against-source", "--json"]);
    assert_eq!((said.status, report(&said)["damage"].as_u64()), (4, Some(1)), "{}", said.err);
    std::fs::rename(site.path("gone"), site.path("billing.sqlite")).unwrap();
    let closed = live(&site.vault(), "2026-01-02");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(&closed).is_ok() {
        eprintln!("skipped in part: root may read everything");
        return;
    }
    let said = site.run("verify", &["--json"]);
    let report = report(&said);
    assert_eq!((said.status, report["damage"].as_u64()), (4, Some(1)), "{}", said.err);
    assert!(report["failures"][0]["message"].as_str().unwrap().contains("2026-01-02 g0001"), "{report}");
    assert_eq!(report["sinks"][0]["good"], 3, "the others were read");
    // Nothing is damaged any more, and one thing could not be looked at.
    std::fs::remove_dir_all(site.path("back")).ok();
    flip(&live(&site.vault(), "2026-01-01"));
    assert_eq!(site.run("verify", &[]).status, 3);
}

/// Generations 1, 2 and 3 of a day, and times at which each of them was live.
fn three_generations(site: &Site, day: &str) -> Vec<String> {
    let mut times = vec![now()];
    for call in [50, 51] {
        add(site, &format!("{day} 12:00:00"), call);
        site.ok("replay", &["--flow", "ar_source_cdr", "--day", day]);
        times.push(now());
    }
    times
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn restored_rows(site: &Site, more: &[&str]) -> usize {
    let said = csv(site, more);
    assert_eq!(said.status, 0, "{}", said.err);
    let plan = csv(site, &[more, &["-n", "--json"]].concat());
    let plan = report(&plan);
    let rows = plan["plan"]["units"].as_array().unwrap().iter().map(|unit| unit["rows"].as_u64().unwrap()).sum::<u64>();
    usize::try_from(rows).unwrap()
}

#[test]
fn what_was_pruned_is_never_replaced_by_something_older_in_silence() {
    let site = site(&["vault"]);
    let times = three_generations(&site, "2026-01-02");
    let day = |at: &str| ["--day", "2026-01-02", "--at", at].map(str::to_owned);
    let args = |at: &str, more: &[&'static str]| {
        let mut args: Vec<String> = day(at).to_vec();
        args.extend(more.iter().map(|text| (*text).to_owned()));
        args
    };
    let rows = |args: Vec<String>| restored_rows(&site, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!([0, 1, 2].map(|index| rows(args(&times[index], &[]))), [10, 11, 12]);
    // As `prune` did where the first is the last verified copy, before there was an index of the receipts.
    std::fs::remove_file(site.vault().join(".cdrvault/index/ar_source_cdr.json")).unwrap();
    std::fs::remove_file(receipt(&site.vault(), "2026-01-02", 2)).unwrap();
    let said = csv(&site, &["--day", "2026-01-02", "--at", &times[1]]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("was pruned: ar_source_cdr 2026-01-02 (there is g0001 since"), "{}", said.err);
    assert!(said.err.contains("g0003 since") && said.err.contains("--nearest"), "{}", said.err);
    assert_eq!(rows(args(&times[1], &["--nearest"])), 10);
    assert_eq!(rows(args(&times[2], &[])), 12);
    std::fs::remove_file(receipt(&site.vault(), "2026-01-02", 1)).unwrap();
    assert_eq!(csv(&site, &["--day", "2026-01-02", "--at", &times[0]]).status, 1);
    assert_eq!(rows(args(&times[0], &["--nearest"])), 12);
}

#[test]
fn a_day_that_grew_in_many_runs_is_restored_as_of_any_of_them() {
    let site = site(&["vault"]);
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().to_string();
    add(&site, &format!("{today} 00:00:01"), 1);
    site.ok("run", &[]);
    let times = three_generations(&site, &today);
    for (index, time) in times.iter().enumerate() {
        // The calls of then, and those that came after them.
        assert_eq!(restored_rows(&site, &["--day", &today, "--at", time]), 3, "{index}");
        assert_eq!(restored_rows(&site, &["--at", time]), 33, "{index}");
    }
    let listed = site.ok("snapshots", &["--day", &today, "--all", "--json"]);
    let listed = report(&listed);
    let kept: Vec<&serde_json::Value> =
        listed["snapshots"].as_array().unwrap().iter().map(|one| &one["generation"]).collect();
    assert_eq!(kept, [3], "only what is kept is shown");
}

#[test]
fn a_range_without_a_day_of_a_dataset_is_told() {
    let site = site(&["vault"]);
    site.edit("[flow.tree]", "[flow.more]\nsource.ar-source-cdr = { database = \"billing\", since = \"2026-01-02\" }\ntransforms = [\"incremental\", \"parquet\"]\nsinks = [\"vault\"]\n[flow.tree]");
    site.ok("run", &[]);
    let into = format!("csv:{}", site.path("back").display());
    let said = site.run("restore", &["--from-sink", "vault", "--day", "2026-01-01", "--into", &into]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("more: nothing is saved in the range"), "{}", said.err);
    assert!(!said.err.contains("tree"), "{}", said.err);
}

#[test]
fn only_what_was_looked_at_is_remembered_as_verified() {
    let site = site(&["vault"]);
    let status = || report(&site.run("status", &["--json"]))["datasets"][0]["verified"].clone();
    assert_eq!(findings(&site, &["--day", "2026-01-01"]).0, 0);
    assert!(status().is_null(), "one day is not the sink");
    assert_eq!(findings(&site, &[]).0, 0);
    let note = || -> serde_json::Value {
        let path = site.vault().join(".cdrvault/verified/ar_source_cdr/2026-01-02.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    assert_eq!(note()["verified"]["generation"], 1);
    add(&site, "2026-01-02 12:00:00", 60);
    site.ok("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-02"]);
    assert_eq!(findings(&site, &[]).0, 0);
    assert_eq!(note()["verified"]["generation"], 2);
    // The copy that was good is not any more: the one before it is the last good one.
    flip(&live(&site.vault(), "2026-01-02"));
    assert_eq!(findings(&site, &[]), (4, lines(&["vault damaged 2026-01-02"])));
    assert_eq!(note()["verified"]["generation"], 1);
    let before = status();
    assert_eq!(before["damage"], 1);
    assert_eq!(findings(&site, &["--day", "2026-01-01"]).0, 0);
    assert_eq!(status(), before, "another day says nothing of it");
}

#[test]
fn a_body_that_many_snapshots_share_is_read_once() {
    let site = site(&["vault"]);
    std::fs::write(site.path("tree/large"), vec![7; 100_000]).unwrap();
    for round in 0..3 {
        std::fs::write(site.path("tree/file"), format!("round {round}")).unwrap();
        site.ok("run", &[]);
    }
    let said = report(&site.ok("verify", &["--json"]));
    assert_eq!(said["sinks"][0]["good"], 7, "{said}");
    let stored = site.content().into_iter().filter(|(path, _)| {
        path.starts_with(site.vault().join(".cdrvault/objects")) || path.extension().is_some_and(|end| end == "parquet")
    });
    let stored = stored.map(|(_, content)| content.len() as u64).sum::<u64>();
    assert_eq!(said["sinks"][0]["bytes"].as_u64(), Some(stored));
    // And it is missed once it is damaged, in each of them.
    let large = site.content().into_iter().find(|(_, content)| content.len() == 100_000).unwrap().0;
    flip(&large);
    assert_eq!(findings(&site, &[]), (4, lines(&["vault damaged snapshot"; 3])));
}

/// A second generation of a day.
fn second(site: &Site) {
    add(site, "2026-01-01 11:00:00", 50);
    site.ok("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-01"]);
}

#[test]
fn a_lost_receipt_is_found_and_made_anew_from_the_object_that_it_told_of() {
    let site = site(&["vault"]);
    let vault = site.vault();
    second(&site);
    assert_eq!(findings(&site, &[]), (0, vec![]));
    // The newest of two, which is live.
    let newest = receipt(&vault, "2026-01-01", 2);
    let text = std::fs::read(&newest).unwrap();
    std::fs::remove_file(&newest).unwrap();
    assert_eq!(findings(&site, &[]), (4, lines(&["vault missing-receipt 2026-01-01"])));
    // The only one of a day.
    std::fs::remove_dir_all(receipt(&vault, "2026-01-02", 1).parent().unwrap()).unwrap();
    let lost = ["vault missing-receipt 2026-01-01", "vault missing-receipt 2026-01-02"];
    assert_eq!(findings(&site, &[]), (4, lines(&lost)));
    assert_eq!(findings(&site, &["--repair"]), (0, lost.map(|line| format!("{line} repaired")).to_vec()));
    assert_eq!(findings(&site, &[]), (0, vec![]));
    let parse = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    let (was, is) = (parse(&text), parse(&std::fs::read(&newest).unwrap()));
    for key in ["generation", "rows", "content", "fingerprint", "tripwire", "columns", "table", "replaced"] {
        assert_eq!(is[key], was[key], "{key}");
    }
    assert_eq!(restored_rows(&site, &[]), 31);
    assert_eq!(site.published(), Vec::<String>::new());
}

#[test]
fn a_vault_without_an_index_gets_one_and_a_lost_newest_receipt_is_found_without_it() {
    let site = site(&["vault"]);
    let vault = site.vault();
    second(&site);
    std::fs::remove_dir_all(vault.join(".cdrvault/index")).unwrap();
    assert_eq!(findings(&site, &[]), (0, vec![]), "as an older version left it");
    std::fs::remove_file(receipt(&vault, "2026-01-01", 2)).unwrap();
    assert_eq!(findings(&site, &[]), (4, lines(&["vault missing-receipt 2026-01-01"])));
    assert_eq!(findings(&site, &["--repair"]), (0, lines(&["vault missing-receipt 2026-01-01 repaired"])));
    site.ok("run", &[]);
    assert!(vault.join(".cdrvault/index/ar_source_cdr.json").is_file());
    assert!(vault.join(".cdrvault/index/tree.json").is_file());
}

#[test]
fn lost_receipts_of_files_and_of_old_generations_are_found_and_given_up_once_nobody_has_them() {
    let site = site(&["vault"]);
    let vault = site.vault();
    second(&site);
    std::fs::write(site.path("tree/file"), "other content").unwrap();
    site.ok("run", &[]);
    let trees = vault.join(".cdrvault/manifests/tree");
    std::fs::rename(&trees, site.path("away")).unwrap();
    std::fs::remove_file(receipt(&vault, "2026-01-01", 1)).unwrap();
    let (status, found) = findings(&site, &[]);
    let lost = ["vault missing-receipt 2026-01-01", "vault missing-receipt snapshot", "vault missing-receipt snapshot"];
    let told: Vec<String> = found.into_iter().filter(|line| !line.contains("orphaned")).collect();
    assert_eq!((status, told), (4, lines(&lost)));
    // They come back as they were, from wherever.
    std::fs::rename(site.path("away"), &trees).unwrap();
    assert_eq!(findings(&site, &[]).0, 4);
    let (status, _) = findings(&site, &["--repair"]);
    assert_eq!(status, 4, "nobody has the old one any more");
    assert_eq!(findings(&site, &[]).0, 0, "which was told, and is not told for ever");
}

#[test]
fn a_lost_receipt_comes_back_from_another_sink_by_the_next_run_or_a_repair() {
    let site = site(&["vault", "second"]);
    second(&site);
    let lost = receipt(&site.vault(), "2026-01-01", 2);
    let text = std::fs::read(&lost).unwrap();
    for way in ["repair", "run"] {
        std::fs::remove_file(&lost).unwrap();
        assert_eq!(findings(&site, &[]), (4, lines(&["vault missing-receipt 2026-01-01"])), "{way}");
        if way == "run" {
            site.ok("run", &[]);
        } else {
            assert_eq!(findings(&site, &["--repair"]), (0, lines(&["vault missing-receipt 2026-01-01 repaired"])));
        }
        assert_eq!(findings(&site, &[]), (0, vec![]), "{way}");
        let parse = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&std::fs::read(&lost).unwrap())["content"], parse(&text)["content"]);
    }
}

#[test]
fn what_was_pruned_was_not_lost() {
    let site = site(&["vault"]);
    site.edit("path = \"vault\"\n", "path = \"vault\"\nkeep = { last = 1 }\n");
    for call in 50..54 {
        add(&site, "2026-01-01 11:00:00", call);
        site.ok("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-01"]);
        std::fs::write(site.path("tree/file"), format!("content {call}")).unwrap();
        site.ok("run", &[]);
        assert_eq!(findings(&site, &[]).0, 0);
    }
    site.ok("prune", &["--yes"]);
    assert_eq!(findings(&site, &[]).0, 0);
    assert!(!receipt(&site.vault(), "2026-01-01", 1).exists());
}

#[test]
fn a_receipt_with_the_highest_number_is_not_followed_by_the_first_one() {
    let site = site(&["vault"]);
    let forged = receipt(&site.vault(), "2026-01-01", u32::MAX);
    std::fs::copy(receipt(&site.vault(), "2026-01-01", 1), &forged).unwrap();
    let said = site.run("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-01"]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.err.contains("no number is left"), "{}", said.err);
    assert!(!receipt(&site.vault(), "2026-01-01", 0).exists());
    assert_eq!(findings(&site, &[]), (4, lines(&["vault damaged-receipt 2026-01-01"])));
    assert_eq!(findings(&site, &["--repair"]).0, 4);
    assert!(!forged.exists());
    site.ok("run", &[]);
    assert_eq!(findings(&site, &[]).0, 0);
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
    let site = site(&["vault"]);
    second(&site);
    let vault = site.vault();
    let places = [
        vault.join(".cdrvault/vault.json"),
        vault.join(".cdrvault/lock"),
        receipt(&vault, "2026-01-01", 2),
        live(&vault, "2026-01-01"),
        vault.join(".cdrvault/index/ar_source_cdr.json"),
        site.path("state/state.json"),
        site.path("state/lock"),
    ];
    for place in places {
        let aside = site.path("aside");
        std::fs::rename(&place, &aside).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&place).status().unwrap();
        assert!(made.success());
        for verb in ["run", "verify", "status"] {
            let mut command = std::process::Command::new("timeout");
            command.args(["-k", "1", "60"]).arg(env!("CARGO_BIN_EXE_cdrvault"));
            let output = command.args([verb, site.path("pipeline.toml").to_str().unwrap()]).output().unwrap();
            let err = String::from_utf8_lossy(&output.stderr);
            let code = output.status.code();
            assert!(code.is_some_and(|code| code != 124 && code < 128), "{verb} {}: {code:?} {err}", place.display());
        }
        let _ = std::fs::remove_file(&place);
        std::fs::rename(&aside, &place).unwrap();
    }
}

/// A receipt as somebody would write it who can compute checksums.
fn forge(receipt: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    use sha2::{Digest as _, Sha256};
    let mut value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(receipt).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("self-sha256");
    change(&mut value);
    let body = value.to_string();
    let sha256 = hex::encode(Sha256::digest(body.as_bytes()));
    std::fs::write(receipt, format!("{},\"self-sha256\":\"{sha256}\"}}", &body[..body.len() - 1])).unwrap();
}

#[test]
fn forged_modes_of_files_are_not_restored() {
    let site = site(&["vault"]);
    forge(&site.vault().join(".cdrvault/manifests/tree/snapshot/g0001.json"), |receipt| {
        receipt["content"]["tree"]["entries"][0]["mode"] = 0o4755.into();
    });
    assert_eq!(findings(&site, &[]).0, 4);
    let into = format!("dir:{}", site.path("back").display());
    let said = site.run("restore", &["--from-sink", "vault", "--flow", "tree", "--into", &into]);
    assert_ne!(said.status, 0);
    assert!(said.err.contains("are not those that the receipt names"), "{}", said.err);
}

#[test]
fn a_sink_that_a_wrong_clock_has_filled_catches_up_all_the_same() {
    let site = site(&["vault", "second"]);
    // As if the clock had been far ahead in the first run.
    for vault in ["vault", "second"] {
        forge(&receipt(&site.path(vault), "2026-01-01", 1), |receipt| {
            for time in ["sealed", "received"] {
                receipt[time] = "2027-06-01T00:00:00Z".into();
            }
            receipt["origin"]["snapshot"] = "2027-06-01T00:00:00Z".into();
        });
    }
    let away = site.path("second-away");
    site.edit("path = \"second\"\n", "path = \"second\"\noptional = true\n");
    std::fs::rename(site.path("second"), &away).unwrap();
    std::fs::write(site.path("second"), "a file").unwrap();
    second(&site);
    std::fs::remove_file(site.path("second")).unwrap();
    std::fs::rename(&away, site.path("second")).unwrap();
    site.ok("run", &[]);
    assert!(receipt(&site.path("second"), "2026-01-01", 2).exists());
    assert_eq!(findings(&site, &[]), (0, vec![]));
}

#[test]
fn damaged_notes_are_found_and_mended_and_no_run_fails_by_them() {
    let site = site(&["vault"]);
    second(&site);
    site.ok("verify", &[]);
    let notes = site.vault().join(".cdrvault/verified/ar_source_cdr/2026-01-01.json");
    let sound = std::fs::read(&notes).unwrap();
    let mut flipped = sound.clone();
    flipped[20] ^= 1;
    for hurt in [Vec::new(), b"{".to_vec(), flipped] {
        std::fs::write(&notes, &hurt).unwrap();
        assert_eq!(findings(&site, &[]), (4, lines(&["vault damaged-notes 2026-01-01"])));
        add(&site, "2026-01-01 12:00:00", u32::try_from(hurt.len()).unwrap() + 100);
        site.ok("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-01"]);
        std::fs::write(&notes, &hurt).unwrap();
        assert_eq!(findings(&site, &["--repair"]), (0, lines(&["vault damaged-notes 2026-01-01 repaired"])));
        assert_eq!(findings(&site, &[]), (0, vec![]));
        // Nobody knows what was pinned.
        let text = std::fs::read_to_string(&notes).unwrap();
        assert!(text.contains("\"generation\":1,\"reason\":\"what was noted of it is damaged"), "{text}");
    }
    // As an older version wrote them.
    std::fs::write(&notes, "{\"pins\":[]}").unwrap();
    assert_eq!(findings(&site, &[]), (0, vec![]));
}

#[test]
fn a_damaged_identity_or_index_is_found_and_mended_from_its_copy_or_the_receipts() {
    let site = site(&["vault"]);
    for name in ["vault.json", "vault-copy.json", "index/ar_source_cdr.json"] {
        let path = site.vault().join(".cdrvault").join(name);
        let sound = std::fs::read(&path).unwrap();
        for way in ["run", "repair"] {
            let mut hurt = sound.clone();
            hurt[15] ^= 1;
            std::fs::write(&path, hurt).unwrap();
            if way == "run" {
                assert_eq!(findings(&site, &[]), (4, lines(&["vault damaged-notes -"])), "{name}");
                site.ok("run", &[]);
            } else {
                assert_eq!(findings(&site, &["--repair"]), (0, lines(&["vault damaged-notes - repaired"])), "{name}");
            }
            assert_eq!(findings(&site, &[]), (0, vec![]), "{name} {way}");
            assert_eq!(std::fs::read(&path).unwrap(), sound, "{name} {way}");
        }
    }
    // An older version wrote no copy and no checksum.
    let identity = site.vault().join(".cdrvault/vault.json");
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&identity).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("self-sha256");
    std::fs::write(&identity, value.to_string()).unwrap();
    std::fs::remove_file(site.vault().join(".cdrvault/vault-copy.json")).unwrap();
    assert_eq!(findings(&site, &[]), (0, vec![]));
    site.ok("run", &[]);
    assert!(std::fs::read_to_string(&identity).unwrap().contains("self-sha256"));
    // Both are gone: somebody has to say whose it is.
    for name in ["vault.json", "vault-copy.json"] {
        std::fs::write(site.vault().join(".cdrvault").join(name), "").unwrap();
    }
    assert_ne!(site.run("run", &[]).status, 0);
    site.ok("run", &["--adopt-vault"]);
    assert_eq!(findings(&site, &[]), (0, vec![]));
}

#[test]
fn a_clock_that_went_back_keeps_the_versions_of_past_days() {
    let site = site(&["vault"]);
    for call in [51, 52] {
        add(&site, "2026-01-03 11:00:00", call);
        let mut command = site.command("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-03"]);
        command.env("LD_PRELOAD", services::places::libfaketime()).env("FAKETIME", "@2026-01-03 06:00:00");
        let said = services::home::said(command.output().unwrap());
        assert_eq!(said.status, 0, "{}", said.err);
    }
    let versions = site.vault().join(".cdrvault/versions/ar_source_cdr/2026-01-03");
    let mut names: Vec<String> = std::fs::read_dir(versions)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap()[..5].to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["g0001", "g0002"]);
    assert_eq!(findings(&site, &[]), (0, vec![]));
}
