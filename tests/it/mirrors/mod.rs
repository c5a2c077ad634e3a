//! What mirrors promise beyond what every sink does: the history that rdiff-backup keeps, what may not be sent, and where to.

mod accidents;
mod history;
mod receipts;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services;
use crate::services::files;
use crate::services::home::{Said, Site, filled, said};
use crate::services::python;
use crate::services::rating::rate_again;
use crate::services::remote;
use crate::services::rsyncd::{self, Rsyncd};
use crate::services::sshd::Sshd;

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

/// A moment that lies between what was done before and what is done after it.
fn between() -> String {
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let now = jiff::Timestamp::now().to_string();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    now
}

#[test]
fn a_dataset_that_is_not_sent_any_more_stays_where_it_was_sent() {
    let ((server, site), ssh) = (filled(4, 3), Sshd::start());
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
    let ((server, site), far) = (filled(5, 3), tempfile::tempdir().unwrap());
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
    let ((server, site), ssh) = (filled(6, 3), Sshd::start());
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
    let ((server, site), ssh) = (filled(7, 3), Sshd::start());
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
    let ((server, site), ssh) = (filled(8, 3), Sshd::start());
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
    let ((server, site), ssh) = (filled(9, 3), Sshd::start());
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
    let ((server, site), ssh) = (filled(19, 3), Sshd::start());
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

fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let logs = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    files(directory).into_iter().filter(|path| !logs(path)).map(|path| (path.clone(), read(path))).collect()
}

/// A daemon and directories, which are not hosts to log in to.
#[test]
fn a_daemon_and_other_directories_are_mirrors_like_any_other() {
    let ((server, site), daemon) = (filled(12, 3), Rsyncd::start());
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
