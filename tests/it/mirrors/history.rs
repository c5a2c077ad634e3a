//! The history that rdiff-backup keeps, and its sessions that were cut off.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{between, content, days_ago, live, rdiff_backup, read, restored};
use crate::services::home::filled;
use crate::services::mariadb::MariaDb;
use crate::services::rating::{rate_again, transaction};
use crate::services::sshd::Sshd;
use crate::services::{files, python, remote};

/// Half of the calls of a day and more are gone: the generation before is pinned.
fn shrink(server: &MariaDb, day: &str) {
    let of_day = format!("calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY");
    let sql = format!("DELETE FROM ar_cdr WHERE {of_day} ORDER BY calldate LIMIT 30;");
    server.app(&transaction(&sql, &[day]));
}

/// A section of a mirror with its own `keep`.
fn keeping(section: &str, keep: &str) -> String {
    section.replace("mirror = \"vault\"\n", &format!("mirror = \"vault\"\nkeep = {keep}\n"))
}

/// How many days ago each of its sessions was.
fn sessions(repository: &Path) -> Vec<i64> {
    let now = jiff::Timestamp::now().as_second();
    let text = rdiff_backup(&["--parsable-output", "list", "increments", repository.to_str().unwrap()]);
    let times = text.split_whitespace().filter_map(|word| word.parse::<i64>().ok());
    times.map(|time| (now - time + 43_200) / 86_400).collect()
}

#[test]
fn a_version_that_was_replaced_a_short_while_ago_stays_in_the_history_of_rdiff_backup() {
    let ((server, site), ssh) = (filled(1, 3), Sshd::start());
    remote::add(&site, &keeping(&remote::rdiff(&ssh), "{ superseded = \"7d\" }"), &["offsite"]);
    let repository = ssh.directory().join("rdiff");
    days_ago(&site, 60, "run");
    let of_first = restored(&site, "offsite", "", "2026-01-01").unwrap();
    rate_again(&server, "2026-01-01");
    shrink(&server, "2026-01-02");
    let before_shrinking = read(site.vault().join(live("ar_cdr", "2026-01-02")));
    days_ago(&site, 30, "run");
    let of_second = restored(&site, "offsite", "", "2026-01-01").unwrap();
    assert_ne!(of_first, of_second);
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    site.ok("prune", &["--yes"]);
    assert_eq!(sessions(&repository), [60, 30, 0], "the version that is pinned is in the oldest state");
    let old = site.path("old");
    rdiff_backup(&["restore", "--at", "45D", repository.to_str().unwrap(), old.to_str().unwrap()]);
    assert!(read(old.join(live("ar_cdr", "2026-01-02"))) == before_shrinking);

    site.ok("prune", &["--yes", "--release", "2026-01-02"]);
    assert_eq!(sessions(&repository), [30, 0], "what was replaced 30 days ago goes; what was replaced now stays");
    let ten_days_ago = (jiff::Timestamp::now() - std::time::Duration::from_hours(240)).to_string();
    assert_eq!(restored(&site, "offsite", &ten_days_ago, "2026-01-01").unwrap(), of_second);
}

#[test]
fn what_the_vault_has_pruned_comes_back_from_the_history_of_rdiff_backup() {
    let ((server, site), ssh) = (filled(2, 3), Sshd::start());
    site.edit("path = \"vault\"", "path = \"vault\"\nkeep = { superseded = \"1s\" }");
    remote::add(&site, &keeping(&remote::rdiff(&ssh), "{ superseded = \"1h\" }"), &["offsite"]);
    site.ok("run", &[]);
    let days = ["2026-01-01", "2026-01-02"];
    let first = days.map(|day| restored(&site, "vault", "", day).unwrap());
    let at_first = between();
    rate_again(&server, "2026-01-01");
    shrink(&server, "2026-01-02");
    site.ok("run", &[]);
    let second = days.map(|day| restored(&site, "vault", "", day).unwrap());
    let at_second = between();
    for _ in 0..2 {
        for day in days {
            rate_again(&server, day);
        }
        site.ok("run", &[]);
        between();
        site.ok("prune", &["--yes"]);
    }
    // Of the first day the vault has only what is live, of the second also what is pinned.
    for day in days {
        rate_again(&server, day);
    }
    site.ok("run", &[]);
    let kept = |day: &str| files(&site.vault().join(format!(".cdrvault/versions/ar_cdr/{day}"))).len();
    site.ok("prune", &["--yes"]);
    assert!(kept(days[0]) <= 1 && kept(days[1]) <= 2, "the vault is pruned");
    for lost in [false, true] {
        if lost {
            std::fs::rename(site.vault(), site.path("lost")).unwrap();
        }
        for (index, day) in days.into_iter().enumerate() {
            assert!(restored(&site, "offsite", &at_first, day).unwrap() == first[index], "{day}, as it was first");
            assert!(restored(&site, "offsite", &at_second, day).unwrap() == second[index], "{day}, as it was then");
        }
    }
}

#[test]
fn what_the_history_of_rdiff_backup_never_had_or_has_dropped_is_no_damage() {
    let ((server, site), mut ssh) = (filled(3, 3), Sshd::start());
    site.edit("path = \"vault\"", "path = \"vault\"\nkeep = { superseded = \"1h\" }");
    remote::add(&site, &keeping(&remote::rdiff(&ssh), "{ superseded = \"2h\" }"), &["offsite"]);
    site.ok("run", &[]);
    let first = restored(&site, "vault", "", "2026-01-01").unwrap();
    let at_first = between();
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    let second = restored(&site, "vault", "", "2026-01-01").unwrap();
    let at_second = between();
    // One that never gets there: the next one comes before a session can.
    ssh.stop();
    rate_again(&server, "2026-01-01");
    assert_eq!(site.run("run", &[]).status, 3);
    let at_third = between();
    ssh.restart();
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    let listed = |generation: u64| {
        let said = site.ok("snapshots", &["--all", "--day", "2026-01-01", "--flow", "ar_cdr", "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let all = listed["snapshots"].as_array().unwrap();
        let one = all.iter().find(|one| one["generation"] == generation).unwrap();
        one["sinks"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    site.ok("verify", &["--sink", "offsite"]);
    assert_eq!(listed(3), ["vault"], "it was never there");
    assert_eq!(listed(2), ["offsite", "vault"]);
    assert!(restored(&site, "offsite", &at_second, "2026-01-01").unwrap() == second);
    let gone = restored(&site, "offsite", &at_third, "2026-01-01").unwrap_err();
    assert!(gone.err.contains("is not in the history of"), "{}", gone.err);
    site.edit("\"2h\"", "\"1s\"");
    between();
    site.ok("prune", &["--yes"]);
    assert_eq!(listed(1), ["vault"]);
    assert!(restored(&site, "vault", &at_first, "2026-01-01").unwrap() == first);
    let gone = restored(&site, "offsite", &at_first, "2026-01-01").unwrap_err();
    assert!(gone.err.contains("is not in the history of"), "{}", gone.err);
    site.ok("verify", &[]);
}

/// Puts a repository into the state that a session leaves which was cut off after it began: two current mirrors.
fn cut_off(repository: &Path, source: &Path) {
    let data = repository.join("rdiff-backup-data");
    let marks = || -> Vec<PathBuf> {
        files(&data).into_iter().filter(|path| path.to_str().unwrap().contains("/current_mirror.")).collect()
    };
    let before = marks();
    let text = read(before[0].clone());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    rdiff_backup(&["backup", source.to_str().unwrap(), repository.to_str().unwrap()]);
    std::fs::write(&before[0], text).unwrap();
    assert_eq!(marks().len(), 2);
}

#[test]
fn a_session_that_was_cut_off_is_undone_only_where_it_is_ours() {
    let ((server, site), ssh) = (filled(10, 3), Sshd::start());
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    let repository = ssh.directory().join("rdiff");
    // Somebody else's, named by mistake.
    let theirs = site.path("theirs");
    std::fs::create_dir_all(theirs.join(".cdrvault")).unwrap();
    std::fs::write(theirs.join(".cdrvault/vault.json"), "{\"vault\":\"another\"}").unwrap();
    rdiff_backup(&["backup", theirs.to_str().unwrap(), repository.to_str().unwrap()]);
    std::fs::write(theirs.join("new"), "of the session that was cut off").unwrap();
    cut_off(&repository, &theirs);
    let before = content(&repository);
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("was cut off, and nothing says that it is a copy of this vault"), "{}", said.err);
    assert!(content(&repository) == before, "nothing is touched");

    std::fs::remove_dir_all(&repository).unwrap();
    site.ok("run", &[]);
    std::fs::write(theirs.join("half"), "a file").unwrap();
    cut_off(&repository, &theirs);
    rate_again(&server, "2026-01-02");
    site.ok("run", &[]);
    assert!(!repository.join("half").exists());
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
}

#[test]
fn a_first_session_that_was_cut_off_is_begun_anew_and_compared_by_hash() {
    let ((server, site), ssh) = (filled(11, 3), Sshd::start());
    site.ok("run", &[]);
    let repository = ssh.directory().join("rdiff");
    // What such a session leaves: files, and a data directory without a current mirror.
    let copied = Command::new("cp").args(["-a", site.vault().to_str().unwrap(), repository.to_str().unwrap()]).status();
    assert!(copied.unwrap().success());
    let data = repository.join("rdiff-backup-data");
    std::fs::create_dir_all(data.join("increments")).unwrap();
    for name in ["chars_to_quote", "special_escapes", "backup.log"] {
        std::fs::write(data.join(name), "").unwrap();
    }
    // One of them has other bytes, and the same length and time.
    let file = repository.join(live("ar_cdr", "2026-01-01"));
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let mut bytes = read(file.clone());
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    site.ok("run", &[]);
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
    site.ok("verify", &["--sink", "offsite"]);
}
