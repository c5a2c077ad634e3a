//! A database server whose disk is full during a restore.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb, Server};
use crate::services::rating::{Rating, source_day};

/// A file system in memory, which ends with the test.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: PathBuf, options: &str) -> Self {
        std::fs::create_dir(&at).unwrap();
        Self::run(&["-t", "tmpfs", "-o", options, "cdrvault-test"], &at);
        Self { at }
    }

    fn resize(&self, bytes: u64) {
        Self::run(&["-o", &format!("remount,size={bytes}")], &self.at);
    }

    fn run(options: &[&str], at: &Path) {
        let done = Command::new("mount").args(options).arg(at).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "this test mounts file systems and needs root: {said}");
    }

    fn used(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.at).unwrap();
        (found.f_blocks - found.f_bfree) * found.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

const DAYS: [&str; 3] = ["2026-01-01", "2026-01-02", "2026-01-03"];

#[test]
fn a_server_whose_disk_is_full_keeps_whole_days_and_the_restore_goes_on_when_there_is_room() {
    let (full, site) = {
        let server = MariaDb::start(Engine::InnoDb);
        let mut rating = Rating::new(331, 3, 40);
        rating.fill(&server);
        let calls = rating.source_calls(DAYS[1], 100_000);
        server.app(&services::rating::transaction(&calls, &[DAYS[1]]));
        let site = Site::on(&server);
        site.ok("run", &[]);
        (DAYS.map(|name| source_day(&server, name)), site)
    };
    let disk = Disk::mount(site.path("disk"), "size=1g");
    let log = site.path("mariadb.log");
    let mut server =
        Server::new(Engine::InnoDb).option(&format!("--log-error={}", log.display())).within(&disk.at).start();
    let admin = site.admin(&server);
    server.app(
        "INSERT INTO ar_source_cdr VALUES ('2026-01-02 05:00:00', 7, 1, 2, 'not saved', 0), ('2027-01-01 05:00:00', 8, 1, 2, 'of another day', 0)",
    );
    let mut target = vec!["--from-sink", "vault", "--flow", "ar_source_cdr"];
    target.extend(admin.iter().map(String::as_str));
    let before = DAYS.map(|name| source_day(&server, name));
    let other = source_day(&server, "2027-01-01");

    // First the copy beside the table does not fit, later the table itself.
    let mut whole = [false; DAYS.len()];
    let (mut failed, mut said_of) = (0, std::collections::BTreeSet::new());
    // The server takes room for temporary tables 64 MiB at a time.
    let mut size = disk.used() + (2 << 20);
    disk.resize(size);
    let said = loop {
        let said = site.run("restore", &target);
        if said.status == 0 {
            break said;
        }
        failed += 1;
        assert!(failed < 60, "it never fits: {}", said.err);
        // The first day was restored, or was there already.
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains("ar_source_cdr 2026-01-0"), "the day is named: {}", said.err);
        // Without room to roll back, InnoDB ends its server; it rolls back when it is started again.
        let ended = said.err.contains("its error log says why (a full disk, for one)");
        let full_told = said.err.contains("is full") && said.err.contains("free some space on the database server");
        assert!(ended || full_told, "{}", said.err);
        said_of.insert(said.err.contains("INSERT INTO `cdrvault_restore_ar_source_cdr`"));
        size += 4 << 20;
        disk.resize(size);
        if ended {
            let log = std::fs::read_to_string(&log).unwrap();
            assert!(log.contains("InnoDB: Error (Out of disk space) in rollback"), "{log}");
            server.start_again();
        }
        let now = DAYS.map(|name| source_day(&server, name));
        for (index, content) in now.iter().enumerate() {
            // What was written stays, and what failed is as before.
            let untouched = *content == before[index] && !whole[index];
            assert!(*content == full[index] || untouched, "{}: {content}", DAYS[index]);
            whole[index] = *content == full[index];
        }
        assert!(whole[0], "the first day fits");
        assert_eq!(source_day(&server, "2027-01-01"), other);
        let ours = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'cdrvault%'";
        assert_eq!(server.app(ours).trim(), "0", "a staging table is left");
    };
    assert!(said_of.contains(&true) && said_of.contains(&false), "{failed} {said_of:?}");
    let there = whole.iter().filter(|whole| **whole).count();
    assert!(said.out.contains(&format!("{there} were there already")), "it went on: {}", said.out);
    assert_eq!(DAYS.map(|name| source_day(&server, name)), full);
    assert_eq!(source_day(&server, "2027-01-01"), other);
    drop(server);
}
