//! Other sides that refuse, are away, are full or say nothing.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::{content, days_ago, live, read, rsync_to};
use crate::services::home::{Site, filled, said};
use crate::services::mariadb::MariaDb;
use crate::services::rating::{owed, rate_again};
use crate::services::rsyncd::{self, Rsyncd};
use crate::services::sshd::Sshd;
use crate::services::{files, python, remote};

#[test]
fn a_daemon_that_wants_a_password_or_is_away_is_told() {
    let ((server, site), daemon) = (filled(13, 3), Rsyncd::start());
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
    assert!(owed(server) > 0, "the debt stays");
}

#[test]
fn a_full_disk_under_rdiff_backup_is_told_and_healed() {
    let ((server, site), ssh) = (filled(14, 3), Sshd::start());
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
        let ((_one, first), (_two, second)) = (filled(15, 3), filled(16, 3));
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
    let ((server, site), ssh) = (filled(17, 3), Sshd::start());
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
fn what_the_other_side_says_instead_of_rdiff_backup_is_told() {
    let ((_server, site), ssh) = (filled(21, 2), Sshd::start());
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    for (command, says) in [
        ("echo The account is closed, ask Bob >&2; exit 1", "the other side said: The account is closed, ask Bob"),
        ("echo Welcome to this host; exec rdiff-backup server", "must print nothing"),
        ("rdiff-backup server --restrict-path /nonexistent", "the key is bound to another directory there"),
    ] {
        ssh.force_command(Some(command));
        let said = site.run("run", &[]);
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains(says), "`{says}` is not in:\n{}", said.err);
    }
}

#[test]
fn an_address_of_ipv6_and_a_path_at_home_are_taken() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    let ((server, site), ssh) = (filled(22, 2), Sshd::start());
    // As if this were the home directory of the account.
    ssh.force_command(Some(&format!("cd {} && eval $SSH_ORIGINAL_COMMAND", ssh.directory().display())));
    let at = |sections: String| sections.replace("@127.0.0.1:", "@[::1]:");
    let home = |kind: &str| format!("{}/{kind}\"", ssh.directory().display());
    let rsync = at(remote::rsync(&ssh)).replace(&home("rsync"), "~/rsync\"");
    let rdiff = at(remote::rdiff(&ssh)).replace(&home("rdiff"), "$HOME/rdiff\"");
    remote::add(&site, &format!("{rsync}{rdiff}"), &["mirror", "offsite"]);
    site.ok("run", &[]);
    site.ok("verify", &[]);
    assert!(ssh.directory().join("rsync/.cdrvault/vault.json").is_file());
    ssh.force_command(None);
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
}

#[test]
fn a_transfer_that_failed_on_the_way_is_tried_again_at_the_end() {
    let ((server, site), disk) = (filled(18, 3), tempfile::tempdir().unwrap());
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
    assert_eq!(owed(&server), 0);
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
fn whether_a_mirror_can_be_written_is_tried_without_a_trace_or_not_said() {
    let ((_server, site), ssh, daemon) = (filled(19, 3), Sshd::start(), Rsyncd::start());
    site.secret("rsync-password", rsyncd::PASSWORD);
    let to = format!("rsync://cdr@127.0.0.1:{}/locked/site", daemon.port());
    let sections = remote::rsync(&ssh)
        + &remote::rdiff(&ssh)
        + &format!(
            "[sink.daemon.rsync]\nmirror = \"vault\"\nto = \"{to}\"\npassword = {{ file = \"rsync-password\" }}\n"
        );
    remote::add(&site, &sections, &["mirror", "offsite", "daemon"]);
    let (far, there) = (ssh.directory().join("rsync"), daemon.module().join("site"));
    for place in [&far, &there] {
        let _ = std::fs::create_dir(place);
    }
    let found = |sink: &str| {
        let said = site.run("validate", &["--connect"]);
        let all = said.out.clone() + &said.err;
        let line = all.lines().find(|line| line.contains(&format!("sink {sink}"))).map(str::to_owned);
        (said.status, line.filter(|_| said.status == 0).unwrap_or(all))
    };
    // Empty as an admin makes them.
    for sink in ["mirror", "daemon"] {
        let (status, line) = found(sink);
        assert!(status == 0 && line.contains(": can be written"), "{status} {line}");
    }
    for place in [&far, &there] {
        assert_eq!(std::fs::read_dir(place).unwrap().count(), 0, "{}", place.display());
    }
    // Somebody else's.
    let mode =
        |path: &std::path::Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&ssh.directory(), 0o755);
    mode(&far, 0o555);
    if rustix::process::geteuid().is_root() {
        ssh.force_command(Some("setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \"$SSH_ORIGINAL_COMMAND\""));
    }
    let (status, line) = found("mirror");
    assert!(status == 1 && line.contains("Permission denied"), "{status} {line}");
    ssh.force_command(None);
    mode(&far, 0o755);
    site.ok("run", &[]);
    let before = files(&far);
    for (sink, says) in [
        ("mirror", ": can be written"),
        ("daemon", ": can be written"),
        ("offsite", "can be read; whether it can be written was not tried"),
    ] {
        let (status, line) = found(sink);
        assert!(status == 0 && line.contains(says), "{status} {line}");
    }
    assert_eq!(files(&far), before);
    // What a killed probe leaves goes with the next run.
    let left = far.join(".cdrvault/.probe.json.tryout");
    std::fs::write(&left, "").unwrap();
    site.ok("run", &[]);
    assert!(!left.exists());
}
