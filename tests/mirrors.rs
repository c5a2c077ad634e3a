//! What mirrors promise beyond what every sink does: the history that rdiff-backup keeps, what may not be sent, and where to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

mod services;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use services::home::{Said, Site, said};
use services::mariadb::{Engine, MariaDb};
use services::python;
use services::rating::{Rating, transaction};
use services::remote;
use services::rsyncd::{self, Rsyncd};
use services::sshd::Sshd;

fn rate_again(server: &MariaDb, day: &str) {
    let sql = format!(
        "UPDATE ar_cdr SET income = income + 7 WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY;"
    );
    server.app(&transaction(&sql, &[day]));
}

/// Half of the calls of a day and more are gone: the generation before is pinned.
fn shrink(server: &MariaDb, day: &str) {
    let of_day = format!("calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY");
    let sql = format!("DELETE FROM ar_cdr WHERE {of_day} ORDER BY calldate LIMIT 30;");
    server.app(&transaction(&sql, &[day]));
}

fn filled(seed: u64) -> (MariaDb, Site) {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(seed, 3, 40).fill(&server);
    let site = Site::on(&server);
    (server, site)
}

/// A section of a mirror with its own `keep`.
fn keeping(section: &str, keep: &str) -> String {
    section.replace("mirror = \"vault\"\n", &format!("mirror = \"vault\"\nkeep = {keep}\n"))
}

/// The same command, so many days ago.
fn days_ago(site: &Site, days: u32, verb: &str) -> Said {
    let library = services::places::libfaketime();
    let mut command = site.command(verb, &[]);
    command.env("LD_PRELOAD", library).env("FAKETIME", format!("-{days}d"));
    let said = said(command.output().unwrap());
    assert_eq!(said.status, 0, "{}", said.err);
    said
}

fn live(dataset: &str, day: &str) -> String {
    format!("{dataset}/day={day}/{dataset}-{day}.parquet")
}

fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs rdiff-backup itself; what it printed.
#[track_caller]
fn rdiff_backup(arguments: &[&str]) -> String {
    let said = said(Command::new("rdiff-backup").args(arguments).output().unwrap());
    assert_eq!(said.status, 0, "{arguments:?}: {}", said.err);
    said.out
}

/// How many days ago each of its sessions was.
fn sessions(repository: &Path) -> Vec<i64> {
    let now = jiff::Timestamp::now().as_second();
    let text = rdiff_backup(&["--parsable-output", "list", "increments", repository.to_str().unwrap()]);
    let times = text.split_whitespace().filter_map(|word| word.parse::<i64>().ok());
    times.map(|time| (now - time + 43_200) / 86_400).collect()
}

/// The calls of a day that `restore` gives back from a sink, as it was at that time.
fn restored(site: &Site, sink: &str, at: &str, day: &str) -> Result<Vec<u8>, Said> {
    let into = site.path("restored.csv");
    let _ = std::fs::remove_dir_all(&into);
    let target = format!("csv:{}", into.display());
    let next: jiff::civil::Date = day.parse().unwrap();
    let next = next.tomorrow().unwrap().to_string();
    let mut arguments = vec!["--from-sink", sink, "--flow", "ar_cdr", "--from", day, "--to", &next, "--into", &target];
    if !at.is_empty() {
        arguments.extend(["--at", at]);
    }
    let said = site.run("restore", &arguments);
    if said.status != 0 {
        return Err(said);
    }
    let mut all = Vec::new();
    for path in files(&into) {
        all.extend(read(path));
    }
    assert!(!all.is_empty(), "{}", said.out);
    Ok(all)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A moment that lies between what was done before and what is done after it.
fn between() -> String {
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let now = jiff::Timestamp::now().to_string();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    now
}

#[test]
fn a_version_that_was_replaced_a_short_while_ago_stays_in_the_history_of_rdiff_backup() {
    let ((server, site), ssh) = (filled(1), Sshd::start());
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
    let ((server, site), ssh) = (filled(2), Sshd::start());
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
    let ((server, site), mut ssh) = (filled(3), Sshd::start());
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

#[test]
fn a_dataset_that_is_not_sent_any_more_stays_where_it_was_sent() {
    let ((server, site), ssh) = (filled(4), Sshd::start());
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    site.ok("run", &[]);
    let there = ssh.directory().join("rdiff").join(live("ar_source_cdr", "2026-01-01"));
    let before = read(there.clone());
    let flow = "transforms = [\"incremental\", \"parquet\"]\nsinks = [\"vault\", \"offsite\"]\n";
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let (first, source) = text.split_once("[flow.ar_source_cdr]").unwrap();
    site.pipeline(&format!("{first}[flow.ar_source_cdr]{}", source.replace(flow, &flow.replace(", \"offsite\"", ""))));
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
    assert!(read(there.clone()) == before);
    // What the vault lost is not dropped there, either.
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(text.split_once("[flow.ar_source_cdr]").unwrap().0);
    std::fs::remove_dir_all(site.vault().join("ar_source_cdr/day=2026-01-01")).unwrap();
    rate_again(&server, "2026-01-01");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(
        said.err.contains("it holds ar_source_cdr 2026-01-01") && said.err.contains("no flow sends"),
        "{}",
        said.err
    );
    assert!(read(there) == before);
}

fn rsync_to(to: &str, more: &str) -> String {
    format!("[sink.mirror.rsync]\nmirror = \"vault\"\nto = \"{to}\"\n{more}\n")
}

#[test]
fn what_rsync_left_is_removed_wherever_it_lies() {
    let ((server, site), far) = (filled(5), tempfile::tempdir().unwrap());
    remote::add(&site, &rsync_to(far.path().to_str().unwrap(), ""), &["mirror"]);
    remote::add_files_and_dump(&site, &server, &["vault", "mirror"]);
    site.ok("run", &[]);
    let dump = files(&far.path().join("configurations")).pop().expect("there is a dump");
    let name = dump.file_name().unwrap().to_str().unwrap();
    let body = files(&far.path().join(".cdrvault/objects")).pop().expect("there is a body");
    let left = [
        dump.with_file_name(format!(".{name}.Xy12Zb")),
        body.with_file_name(format!(".{}.Xy12Zb", body.file_name().unwrap().to_str().unwrap())),
        far.path().join(".cdrvault/.vault.json.Xy12Zb"),
        far.path().join("ar_cdr/day=2026-01-01/.ar_cdr-2026-01-01.parquet.Xy12Zb"),
    ];
    let foreign = far.path().join("theirs");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join(".dump.sql.Xy12Zb"), "not ours").unwrap();
    for path in &left {
        std::fs::write(path, "half").unwrap();
    }
    site.ok("run", &[]);
    for path in left {
        assert!(!path.exists(), "{} is left", path.display());
    }
    assert!(foreign.join(".dump.sql.Xy12Zb").exists());
    assert!(dump.exists() && body.exists());
}

#[test]
fn only_what_lists_the_sink_is_sent_there() {
    let ((server, site), ssh) = (filled(6), Sshd::start());
    remote::add(&site, &(remote::rsync(&ssh) + &remote::rdiff(&ssh)), &[]);
    remote::add_files_and_dump(&site, &server, &["vault"]);
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let (first, rest) = text.split_once("sinks = [\"vault\"]").unwrap();
    site.pipeline(&format!("{first}sinks = [\"vault\", \"mirror\", \"offsite\"]{rest}"));
    site.ok("run", &[]);
    rate_again(&server, "2026-01-01");
    std::fs::write(site.path("etc/asterisk.conf"), "two").unwrap();
    site.ok("run", &[]);
    assert!(!files(&site.vault().join(".cdrvault/objects")).is_empty());
    for root in [ssh.directory().join("rsync"), ssh.directory().join("rdiff")] {
        let names: Vec<String> = files(&root)
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
            .filter(|name| !name.starts_with("rdiff-backup-data/") || name.contains("/increments/"))
            .collect();
        assert!(names.contains(&live("ar_cdr", "2026-01-01")), "{names:?}");
        for strange in ["ar_source_cdr", "configurations", "etc/", "manifests/etc", ".cdrvault/objects"] {
            assert!(!names.iter().any(|name| name.contains(strange)), "{strange} is in {names:?}");
        }
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_not_called_a_refused_key() {
    let ((server, site), ssh) = (filled(7), Sshd::start());
    // Nobody but who runs the tests may enter the server's directory.
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"";
    if rustix::process::geteuid().is_root() {
        ssh.force_command(Some(&nobody.replace("\\\"", "\"")));
    } else {
        let closed = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o555);
        std::fs::set_permissions(ssh.directory(), closed).unwrap();
    }
    remote::add(&site, &(remote::rsync(&ssh) + &remote::rdiff(&ssh)), &["mirror", "offsite"]);
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(!said.err.contains("does not accept our key"), "{}", said.err);
    assert_eq!(said.err.matches("cannot write into root@127.0.0.1:").count(), 2, "{}", said.err);
    assert_eq!(said.err.matches("give the remote user the right to write there").count(), 1, "{}", said.err);
    python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn a_damaged_receipt_of_the_vault_leaves_its_mirrors_in_use_and_is_not_sent() {
    let ((server, site), ssh) = (filled(8), Sshd::start());
    remote::add(&site, &(remote::rsync(&ssh) + &remote::rdiff(&ssh)), &["mirror", "offsite"]);
    site.ok("run", &[]);
    let receipt = ".cdrvault/manifests/ar_cdr/2026-01-01/g0001.json";
    let good = read(site.vault().join(receipt));
    std::fs::write(site.vault().join(receipt), "{").unwrap();
    let listed = site.run("snapshots", &["--day", "2026-01-01", "--flow", "ar_cdr", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let sinks = shown["snapshots"][0]["sinks"].as_object().unwrap();
    assert_eq!(sinks.keys().collect::<Vec<_>>(), ["mirror", "offsite"], "{}", listed.err);
    rate_again(&server, "2026-01-02");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("2026-01-01 was changed in the local vault"), "{}", said.err);
    python::compare(&server, &ssh.directory().join("rsync"), false).expect("the other days are delivered");
    for far in ["rsync", "rdiff"] {
        assert!(read(ssh.directory().join(far).join(receipt)) == good, "{far}");
    }
    std::fs::write(site.vault().join(receipt), good).unwrap();
    site.ok("run", &[]);
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
}

#[test]
fn what_others_changed_in_the_vault_is_not_sent() {
    let ((server, site), ssh) = (filled(9), Sshd::start());
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    site.ok("run", &[]);
    let name = live("ar_cdr", "2026-01-01");
    let good = read(site.vault().join(&name));
    std::fs::write(site.vault().join(&name), "changed by other hands").unwrap();
    rate_again(&server, "2026-01-02");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("ar_cdr 2026-01-01 was changed in the local vault"), "{}", said.err);
    assert!(said.err.contains("verify --repair"), "{}", said.err);
    assert!(read(ssh.directory().join("rdiff").join(&name)) == good);
    site.run("verify", &["--repair"]);
    assert!(read(site.vault().join(&name)) == good);
    site.ok("run", &[]);
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
}

#[test]
fn a_damaged_receipt_of_an_older_generation_comes_back() {
    let ((server, site), ssh) = (filled(19), Sshd::start());
    remote::add(&site, &(remote::rsync(&ssh) + &remote::rdiff(&ssh)), &["mirror", "offsite"]);
    site.ok("run", &[]);
    rate_again(&server, "2026-01-02");
    site.ok("run", &[]);
    for (far, day, generation) in [("rsync", "2026-01-02", 1), ("rsync", "2026-01-02", 2), ("rdiff", "2026-01-02", 2)] {
        let name = format!(".cdrvault/manifests/ar_cdr/{day}/g{generation:04}.json");
        let good = read(site.vault().join(&name));
        let there = ssh.directory().join(far).join(&name);
        let mut bad = good.clone();
        bad[40] ^= 1;
        // As a failing disk does it: nothing else of the file changes.
        let times = there.metadata().unwrap().modified().unwrap();
        std::fs::write(&there, bad).unwrap();
        std::fs::File::open(&there).unwrap().set_modified(times).unwrap();
        let sink = if far == "rsync" { "mirror" } else { "offsite" };
        let said = site.run("verify", &["--sink", sink, "--repair"]);
        let told = format!("{}{}", said.out, said.err);
        assert!(told.contains("damaged receipt"), "{far} g{generation}: {told}");
        assert_eq!(said.status, 0, "{far} g{generation}: {}\n{}", said.out, said.err);
        assert!(read(there) == good, "{far} g{generation}");
    }
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
    let ((server, site), ssh) = (filled(10), Sshd::start());
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
    let ((server, site), ssh) = (filled(11), Sshd::start());
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

fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let logs = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    files(directory).into_iter().filter(|path| !logs(path)).map(|path| (path.clone(), read(path))).collect()
}

/// A daemon and directories, which are no hosts to log in to.
#[test]
fn a_daemon_and_other_directories_are_mirrors_like_any_other() {
    let ((server, site), daemon) = (filled(12), Rsyncd::start());
    site.secret("rsync-password", rsyncd::PASSWORD);
    let disks = tempfile::tempdir().unwrap();
    let (disk, history) = (disks.path().join("a disk"), disks.path().join("a history"));
    let sections = rsync_to(
        &format!("rsync://cdr@127.0.0.1:{}/locked/site", daemon.port()),
        "password = { file = \"rsync-password\" }\n",
    ) + &format!(
        "[sink.disk.rsync]\nmirror = \"vault\"\nto = \"{}\"\n[sink.history.rdiff]\nmirror = \"vault\"\nto = \"{}\"\n",
        disk.display(),
        history.display()
    );
    remote::add(&site, &sections, &["mirror", "disk", "history"]);
    site.ok("run", &[]);
    let old = read(site.vault().join(live("ar_cdr", "2026-01-01")));
    let first = restored(&site, "vault", "", "2026-01-01").unwrap();
    let at_first = between();
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    for far in [daemon.module().join("site"), disk.clone()] {
        python::compare(&server, &far, false).unwrap();
        let kept = files(&far.join(".cdrvault/versions/ar_cdr/2026-01-01"));
        assert_eq!(kept.iter().map(|path| read(path.clone())).collect::<Vec<_>>(), std::slice::from_ref(&old));
    }
    let now = site.path("now");
    rdiff_backup(&["restore", history.to_str().unwrap(), now.to_str().unwrap()]);
    python::compare(&server, &now, false).unwrap();
    site.ok("verify", &[]);
    std::fs::rename(site.vault(), site.path("lost")).unwrap();
    for sink in ["mirror", "disk", "history"] {
        assert!(restored(&site, sink, &at_first, "2026-01-01").unwrap() == first, "{sink}");
    }
}

#[test]
fn a_daemon_that_wants_a_password_or_is_away_is_told() {
    let ((server, site), daemon) = (filled(13), Rsyncd::start());
    let module = |module: &str| format!("rsync://cdr@127.0.0.1:{}/{module}", daemon.port());
    remote::add(&site, &rsync_to(&module("locked"), ""), &["mirror"]);
    // On a terminal, where rsync could ask.
    let run = site.command("run", &[]);
    let line = format!("{} run {}", run.get_program().display(), site.path("pipeline.toml").display());
    let mut on_terminal = Command::new("timeout");
    on_terminal.args(["--kill-after=5", "120", "script", "-qec", &line, "/dev/null"]).stdin(Stdio::null());
    let said = said(on_terminal.output().unwrap());
    assert_eq!(said.status, 3, "{}", said.out);
    assert!(said.out.contains("correct the user in `to` and the `password`"), "{}", said.out);
    assert!(!said.out.contains("Password:"), "{}", said.out);

    site.secret("rsync-password", "a-wrong-canary");
    site.edit("/locked\"\n", "/locked\"\npassword = { file = \"rsync-password\" }\n");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("correct the user in `to`") && !said.err.contains("a-wrong-canary"), "{}", said.err);

    site.secret("rsync-password", rsyncd::PASSWORD);
    site.edit("/locked\"\n", "/nothing\"\n");
    let said = site.run("run", &[]);
    assert!(said.err.contains("correct the module in `to`"), "{}", said.err);
    site.edit("/nothing\"\n", "/locked\"\n");
    drop(daemon);
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("see whether the other side still answers"), "{}", said.err);
    assert!(!said.err.contains("sshd"), "{}", said.err);
    python::compare(&server, &site.vault(), false).unwrap();
}

/// Re-rates a day that cannot get there: the vault has it, the debt stays, and nothing over there changes.
fn not_delivered(site: &Site, server: &MariaDb, day: &str, says: &[&str]) {
    rate_again(server, day);
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    for part in says {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    python::compare(server, &site.vault(), false).expect("the vault gets the day");
    assert_ne!(server.app("SELECT COUNT(*) FROM ar_daily_status_change").trim(), "0", "the debt stays");
}

#[test]
fn a_full_disk_under_rdiff_backup_is_told_and_healed() {
    let ((server, site), ssh) = (filled(14), Sshd::start());
    let far = ssh.directory().join("rdiff");
    std::fs::create_dir(&far).unwrap();
    let mounted =
        said(Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&far).output().unwrap());
    assert_eq!(mounted.status, 0, "{}", mounted.err);
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    site.ok("run", &[]);
    let full = far.join("rdiff-backup-data/full");
    let _ = std::fs::write(&full, vec![0; 2 << 20]);
    let name = live("ar_cdr", "2026-01-01");
    let before = read(far.join(&name));
    not_delivered(&site, &server, "2026-01-01", &["offsite", "No space left", "free some space there"]);
    assert!(read(far.join(&name)) == before);
    std::fs::remove_file(&full).unwrap();
    site.ok("run", &[]);
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
    assert!(Command::new("umount").arg("-l").arg(&far).status().unwrap().success());
}

#[test]
fn of_two_first_runs_into_one_place_the_second_is_refused() {
    let far = tempfile::tempdir().unwrap();
    for kind in ["rsync", "rdiff"] {
        let place = far.path().join(kind);
        let section = format!("[sink.mirror.{kind}]\nmirror = \"vault\"\nto = \"{}\"\n\n", place.display());
        let ((_one, first), (_two, second)) = (filled(15), filled(16));
        remote::add(&first, &section, &["mirror"]);
        remote::add(&second, &section, &["mirror"]);
        let gate = first.path("gate");
        let mut waiting = first.start(&format!("after-publish=pause:{}", gate.display()));
        while !first.path("gate.reached").exists() {
            assert!(waiting.try_wait().unwrap().is_none());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        second.ok("run", &[]);
        let theirs = content(&place);
        std::fs::write(&gate, "").unwrap();
        assert_eq!(waiting.wait().unwrap().code(), Some(3), "{kind}");
        assert!(content(&place) == theirs, "{kind}: what is there stays the second one's");
        let said = first.run("run", &[]);
        assert!(said.err.contains("is a copy of another vault"), "{kind}: {}", said.err);
    }
}

#[test]
fn another_side_that_says_nothing_is_given_up() {
    let ((server, site), ssh) = (filled(17), Sshd::start());
    remote::add(&site, &remote::rdiff(&ssh).replace("\"20s\"", "\"2s\""), &["offsite"]);
    site.ok("run", &[]);
    // It lets us in, keeps the connection alive, and does nothing.
    ssh.force_command(Some("sleep 1000"));
    not_delivered(&site, &server, "2026-01-01", &["nothing moved for 2 s", "stall-timeout"]);
    ssh.force_command(None);
    site.ok("run", &[]);
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
}

#[test]
fn a_transfer_that_failed_on_the_way_is_tried_again_at_the_end() {
    let ((server, site), disk) = (filled(18), tempfile::tempdir().unwrap());
    let above = disk.path().join("mounted later");
    remote::add(&site, &rsync_to(above.join("far").to_str().unwrap(), ""), &["mirror"]);
    site.edit("min-free", "workers = 1\nmin-free");
    // The first day is sent on the way, and fails; the second one waits until the disk is there.
    let gate = site.path("gate");
    let mut run = site.start(&format!("flush-is-not-due=error;after-publish:3=pause:{}", gate.display()));
    while !site.path("gate.reached").exists() {
        assert!(run.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::fs::create_dir(&above).unwrap();
    std::fs::write(&gate, "").unwrap();
    assert!(run.wait().unwrap().success());
    python::compare(&server, &above.join("far"), false).unwrap();
    assert_eq!(server.app("SELECT COUNT(*) FROM ar_daily_status_change").trim(), "0");
    let history = site.ok("history", &["--json"]).out;
    assert!(history.contains("tried again at the end"), "{history}");
}

#[test]
fn the_clock_of_the_vault_s_disk_is_a_second_opinion() {
    let site = Site::new("sqlite:none");
    std::fs::create_dir(site.path("etc")).unwrap();
    std::fs::write(site.path("etc/asterisk.conf"), "one").unwrap();
    site.pipeline(
        "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n[sink.vault.local]\npath = \"vault\"\nkeep = { superseded = \"1d\" }\n\
         [flow.etc]\nsource.files = { path = \"etc\" }\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n",
    );
    site.ok("run", &[]);
    std::fs::write(site.path("etc/asterisk.conf"), "another").unwrap();
    let said = days_ago(&site, 10, "run");
    let vault = format!("nothing is pruned: the clock of {}", site.vault().display());
    assert!(said.err.contains(&vault), "{}", said.err);
    site.ok("run", &[]);
    site.ok("prune", &[]);
}

#[test]
fn what_was_not_tried_is_not_called_writable() {
    let ((_server, site), ssh) = (filled(19), Sshd::start());
    remote::add(&site, &remote::rsync(&ssh), &["mirror"]);
    site.ok("run", &[]);
    let said = site.ok("validate", &["--connect"]);
    let line = said.out.lines().find(|line| line.contains("sink mirror")).unwrap();
    assert!(line.contains("can be read; whether it can be written was not tried"), "{line}");
}
