//! A server that takes statements and never answers, because somebody has locked a table. Clocks go ahead, so that nobody
//! has to wait.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::services::home::{Said, Site, said};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::{Rating, source_day};
use crate::services::{eventually, places, remote, wait_for};
use rustix::process::{Pid, Signal, kill_process};

const DAYS: [&str; 2] = ["2026-01-01", "2026-01-02"];

/// A session that has locked a table, until this value ends.
struct Lock {
    client: Child,
}

impl Lock {
    fn take(server: &MariaDb, how: &str) -> Self {
        let client = Command::new(places::program("mariadb", "mariadb-client"))
            .args(["--no-defaults", "-uroot", &format!("--socket={}", server.socket().display()), "asterisell", "-e"])
            .arg(format!("LOCK TABLES {how}; SELECT SLEEP(3600)"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lock = Self { client };
        eventually("the table is locked", || Self::sessions(server).len() == 1);
        lock
    }

    /// The server would not see for seconds that a client which sleeps is gone.
    fn release(mut self, server: &MariaDb) {
        for session in Self::sessions(server) {
            server.app(&format!("KILL {session}"));
        }
        let _ = self.client.wait();
        eventually("the lock is gone", || Self::sessions(server).is_empty());
    }

    fn sessions(server: &MariaDb) -> BTreeSet<u64> {
        let sleeping = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
        server.app(sleeping).lines().map(|id| id.trim().parse().unwrap()).collect()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// The sessions of the program, and those of them that wait for a table.
fn sessions(server: &MariaDb, condition: &str) -> BTreeSet<u64> {
    let ours = "SELECT id FROM information_schema.processlist WHERE user IN ('admin', 'cdrvault')";
    server.app(&format!("{ours} AND {condition}")).lines().map(|id| id.trim().parse().unwrap()).collect()
}

/// A command for which somebody locks a table when it has begun, and whose clock goes so many minutes ahead each time that
/// it waits for it, until it gives up.
fn gives_up(server: &MariaDb, site: &Site, mut command: Command, (point, lock): (&str, &str), minutes: u32) -> Said {
    let (clock, go, reached) = (site.path("clock"), site.path("go"), site.path("go.reached"));
    std::fs::write(&clock, "+0").unwrap();
    for old in [&go, &reached] {
        let _ = std::fs::remove_file(old);
    }
    command
        .env("LD_PRELOAD", places::libfaketime())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("CDRVAULT_FAILPOINT", format!("{point}=pause:{}", go.display()));
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&reached);
    let held = Lock::take(server, lock);
    std::fs::write(&go, "").unwrap();
    let mut seen = BTreeSet::new();
    let mut ahead = 0;
    eventually("it gives up", || {
        let now = sessions(server, "state LIKE 'Waiting for table%'");
        if !now.is_subset(&seen) {
            seen.extend(now);
            ahead += minutes;
            set(&clock, ahead);
        }
        wake(&running);
        running.try_wait().unwrap().is_some()
    });
    held.release(server);
    eventually("the server has done with it", || sessions(server, "TRUE").is_empty());
    let gave_up = said(running.wait_with_output().unwrap());
    assert!(!seen.is_empty(), "it never waited: {}", gave_up.err);
    gave_up
}

fn set(clock: &Path, minutes: u32) {
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("+{minutes}m")).unwrap();
    std::fs::rename(new, clock).unwrap();
}

/// So that a process that sleeps looks at its clock: its sleep was measured by the clock of before.
fn wake(process: &Child) {
    let pid = Pid::from_child(process);
    for signal in [Signal::STOP, Signal::CONT] {
        let _ = kill_process(pid, signal);
    }
}

#[track_caller]
fn says(said: &Said, texts: &[&str]) {
    let what_to_do = "see whether the server responds, and what holds it up: its `SHOW PROCESSLIST` tells";
    for text in texts.iter().chain([&what_to_do]) {
        assert!(said.err.contains(text), "`{text}` is not in: {}", said.err);
    }
}

/// Restores one flow as the administrator.
fn restore(site: &Site, admin: &[String], flow: &str, more: &[&str]) -> Command {
    let mut command = site.command("restore", &["--from-sink", "vault", "--flow", flow]);
    command.args(admin).args(more);
    command
}

#[test]
fn a_restore_of_calls_that_gets_no_answer_leaves_whole_days() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(341, 2, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let admin = site.admin(&server);
    let content = || DAYS.map(|day| source_day(&server, day));
    let full = content();

    let delete = "DELETE FROM ar_source_cdr WHERE calldate < '2026-01-03'";
    let change = "UPDATE ar_source_cdr SET content = 'other' WHERE calldate < '2026-01-03'";
    let (all, writes) = ("ar_source_cdr WRITE", "ar_source_cdr READ");
    for (before, lock, minutes, doing) in [
        (delete, ("before-restore", all), 11, "cannot read the rows that are there: no answer within 600 s"),
        (delete, ("before-restore", writes), 11, "cannot check the table: no answer within 600 s"),
        (delete, ("before-load", writes), 11, "cannot load rows: no answer within 600 s"),
        (change, ("before-load", writes), 61, "cannot put the day in place: no answer within 3600 s"),
    ] {
        server.app(before);
        let there = content();
        assert_ne!(there, full);
        let one_day = restore(&site, &admin, "ar_source_cdr", &["--day", DAYS[0]]);
        let gave_up = gives_up(&server, &site, one_day, lock, minutes);
        assert_eq!(gave_up.status, 1, "{}", gave_up.err);
        says(&gave_up, &[doing, &format!("ar_source_cdr {}", DAYS[0])]);
        assert_eq!(content(), there, "{doing}");
        let again = said(restore(&site, &admin, "ar_source_cdr", &[]).output().unwrap());
        assert_eq!(again.status, 0, "{}", again.err);
        assert_eq!(content(), full, "{doing}");
    }
}

#[test]
fn a_dump_that_gets_no_answer_is_given_up_when_it_is_made_and_when_it_is_restored() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(342, 1, 10).fill(&server);
    let site = Site::on(&server);
    remote::add_files_and_dump(&site, &server, &["vault"]);
    server.app("GRANT SELECT ON mysql.proc TO cdrvault@'127.0.0.1'; INSERT INTO ar_params (name) VALUES ('saved')");
    site.ok("run", &[]);
    let dump = site.vault().join("configurations/configurations.sql.zst");
    let saved = std::fs::read(&dump).unwrap();

    server.app("UPDATE ar_params SET name = 'changed'");
    let run = site.command("run", &["--flow", "configurations"]);
    let gave_up = gives_up(&server, &site, run, ("after-snapshot", "ar_params WRITE"), 61);
    assert_ne!(gave_up.status, 0);
    says(&gave_up, &["configurations", "cannot make the dump: no answer within 3600 s"]);
    assert!(std::fs::read(&dump).unwrap() == saved, "the good one stays");

    let admin = site.admin(&server);
    // The dump has triggers of root.
    server.app("GRANT SUPER ON *.* TO admin@'127.0.0.1'");
    let restoring = restore(&site, &admin, "configurations", &[]);
    let gave_up = gives_up(&server, &site, restoring, ("before-restore", "ar_params WRITE"), 61);
    assert_eq!(gave_up.status, 1, "{}", gave_up.err);
    says(&gave_up, &["configurations snapshot", "restore table `ar_params`: no answer within 3600 s"]);
    let again = said(restore(&site, &admin, "configurations", &[]).output().unwrap());
    assert_eq!(again.status, 0, "{}", again.err);
    assert_eq!(server.app("SELECT name FROM ar_params").trim(), "saved");
}
