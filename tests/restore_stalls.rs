//! A server that takes a restore's statements and never answers, because somebody has locked the table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

mod services;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use services::home::{Said, Site, said};
use services::mariadb::{Engine, MariaDb};
use services::places;
use services::rating::Rating;

const DAYS: [&str; 2] = ["2026-01-01", "2026-01-02"];

/// A session that has locked the table, until this value ends.
struct Lock {
    client: Child,
}

impl Lock {
    fn take(server: &MariaDb, how: &str) -> Self {
        let client = Command::new(places::program("mariadb", "mariadb-client"))
            .args(["--no-defaults", "-uroot", &format!("--socket={}", server.socket().display()), "asterisell", "-e"])
            .arg(format!("LOCK TABLES ar_source_cdr {how}; SELECT SLEEP(3600) AS it_is_locked"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lock = Self { client };
        eventually("the table is locked", || {
            let sleeps = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
            server.app(sleeps).trim() == "1"
        });
        lock
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}");
}

/// The sessions of the restore that wait for the table.
fn waiting(server: &MariaDb) -> BTreeSet<u64> {
    let waits =
        "SELECT id FROM information_schema.processlist WHERE user = 'admin' AND state LIKE 'Waiting for table%'";
    server.app(waits).lines().map(|id| id.trim().parse().unwrap()).collect()
}

fn content(server: &MariaDb) -> [String; 2] {
    DAYS.map(|day| {
        server.app(&format!(
            "SELECT COUNT(*), SUM(CRC32(CONCAT_WS('|', calldate, id, HEX(content)))) FROM ar_source_cdr
             WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY"
        ))
    })
}

/// A restore for which somebody locks the table when it has begun, and whose clock goes so much ahead each time that it
/// waits for it, until it gives up.
fn restore_that_waits(
    server: &MariaDb,
    site: &Site,
    target: &[&str],
    (point, lock): (&str, &str),
    minutes: u32,
) -> Said {
    let (clock, go) = (site.path("clock"), site.path("go"));
    std::fs::write(&clock, "+0").unwrap();
    let reached = site.path("go.reached");
    for old in [&go, &reached] {
        let _ = std::fs::remove_file(old);
    }
    let mut command = site.command("restore", target);
    command
        .env("LD_PRELOAD", places::libfaketime())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_TIMESTAMP_FILE", &clock);
    command.env("CDRVAULT_FAILPOINT", format!("{point}=pause:{}", go.display()));
    let mut restore = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the restore begins", || reached.exists());
    let held = Lock::take(server, lock);
    std::fs::write(&go, "").unwrap();
    let mut seen = BTreeSet::new();
    let mut ahead = 0;
    eventually("the restore gives up", || {
        let now = waiting(server);
        if !now.is_subset(&seen) {
            seen.extend(now);
            ahead += minutes;
            set(&clock, ahead);
        }
        wake(&restore);
        restore.try_wait().unwrap().is_some()
    });
    assert!(!seen.is_empty(), "it never waited");
    drop(held);
    eventually("the server has done with it", || {
        server.app("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'admin'").trim() == "0"
    });
    said(restore.wait_with_output().unwrap())
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

#[test]
fn a_restore_that_gets_no_answer_says_so_and_leaves_whole_days() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(341, 2, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    server.app("DROP TRIGGER IF EXISTS fixture_source_cdr_kind; CREATE USER admin@'127.0.0.1' IDENTIFIED BY 'admin-secret'; GRANT ALL ON asterisell.* TO admin@'127.0.0.1'");
    site.secret("admin", "admin-secret");
    let into = format!("mysql://admin@127.0.0.1:{}/asterisell", server.port());
    let password = site.path("admin").display().to_string();
    let target = ["--from-sink", "vault", "--flow", "ar_source_cdr", "--into", &into, "--password-file", &password];
    let full = content(&server);

    let delete = "DELETE FROM ar_source_cdr WHERE calldate < '2026-01-03'";
    let change = "UPDATE ar_source_cdr SET content = 'other' WHERE calldate < '2026-01-03'";
    let one_day = [&target[..], &["--day", DAYS[0]]].concat();
    for (before, lock, minutes, doing) in [
        (delete, ("before-restore", "WRITE"), 11, "cannot read the rows that are there: no answer within 600 s"),
        (delete, ("before-restore", "READ"), 11, "cannot check the table: no answer within 600 s"),
        (delete, ("before-load", "READ"), 11, "cannot load rows: no answer within 600 s"),
        (change, ("before-load", "READ"), 61, "cannot put the day in place: no answer within 3600 s"),
    ] {
        server.app(before);
        let there = content(&server);
        assert_ne!(there, full);
        let gave_up = restore_that_waits(&server, &site, &one_day, lock, minutes);
        assert_eq!(gave_up.status, 1, "{}", gave_up.err);
        let day = format!("ar_source_cdr {}", DAYS[0]);
        for text in [doing, "see whether the server is at work, and what holds it up", &day] {
            assert!(gave_up.err.contains(text), "`{text}` is not in: {}", gave_up.err);
        }
        assert_eq!(content(&server), there, "{doing}");
        site.ok("restore", &target);
        assert_eq!(content(&server), full, "{doing}");
    }
}
