//! Programs and servers are killed at random moments, here and over there, and nothing is lost.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::services::garage::Garage;
use crate::services::home::{Site, all_whole, filled};
use crate::services::mariadb::MariaDb;
use crate::services::rating::{Rating, owed};
use crate::services::sshd::Sshd;
use crate::services::{Random, files, python, remote};

/// How often each thing is killed.
fn kills() -> u64 {
    if std::env::var_os("CDRVAULT_TEST_FULL").is_some() { 200 } else { 20 }
}

/// The processes below one, by their names.
fn below(pid: u32, name: &str) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut found = Vec::new();
    // Children of any thread.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let of_threads = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let all: Vec<String> = of_threads.chain([children]).collect();
    for child in all.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse::<u32>().ok()) {
        if std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == name) {
            found.push(child);
        }
        found.extend(below(child, name));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Re-rates, changes a file, begins a run, and has something killed at a random moment; in the end everything is
/// everywhere. `hit` says whether it killed something that a run was working with: only such a round counts.
fn killed(
    site: &Site,
    server: &MariaDb,
    seed: u64,
    sink: &str,
    mut hit: impl FnMut(u32) -> bool,
    vault: impl Fn() -> PathBuf,
) {
    remote::add_files_and_dump(site, server, &["vault", sink]);
    let mut random = Random(seed);
    let mut rating = Rating::new(seed, 4, 40);
    // How long a run takes that nobody disturbs.
    let (mut round, mut hits, mut longest) = (0, 0, Duration::from_secs(5));
    while hits < kills() {
        round += 1;
        assert!(round <= kills() * 5, "only {hits} of {round} kills hit anything");
        rating.step(server);
        std::fs::write(site.path("etc/asterisk.conf"), format!("round {round}")).unwrap();
        let mut run = site.start("");
        let began = std::time::Instant::now();
        let moment = Duration::from_millis(random.below(u64::try_from(longest.as_millis()).unwrap()));
        while began.elapsed() < moment && run.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if run.try_wait().unwrap().is_none() {
            hits += u64::from(hit(run.id()));
        } else {
            longest = began.elapsed();
        }
        let status = run.wait().unwrap();
        // What is live over there can be read to its end; what is not there yet is still owed.
        let far = vault();
        all_whole(&far);
        if registered(server) && !status.success() && python::compare(server, &far, true).is_err() {
            assert!(owed(server) > 0, "round {round}: the debt went before the delivery");
        }
    }
    site.ok("run", &[]);
    let far = vault();
    all_whole(&far);
    site.ok("verify", &[]);
    let left = |path: &PathBuf| {
        // rdiff-backup's own notes have names of their own.
        if path.starts_with(far.join("rdiff-backup-data")) {
            return false;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with('.') && name.len() > 8 || name.contains("rdiff-backup.tmp")
    };
    let left: Vec<PathBuf> = files(&far).into_iter().filter(left).collect();
    assert!(left.is_empty(), "left over there: {left:?}");
    python::compare(server, &far, true).unwrap();
    python::compare(server, &site.vault(), true).unwrap();
    assert_eq!(owed(server), 0);
    assert_eq!(site.published(), Vec::<String>::new(), "a second run finds nothing");
}

/// Whether the first run came so far that the engine tells us of changes.
fn registered(server: &MariaDb) -> bool {
    server.app("SELECT COUNT(*) FROM ar_daily_status_job WHERE name LIKE 'cdrvault/%'").trim() != "0"
}

/// Kills the run itself.
fn the_program(run: u32) -> bool {
    kill(run);
    true
}

/// Kills what a run has started; whether there was any.
fn below_it(run: u32, name: &str) -> bool {
    let found = below(run, name);
    found.iter().copied().for_each(kill);
    !found.is_empty()
}

/// Kills the server that a run is logged in to; whether it was.
fn sshd(ssh: &mut Sshd, run: u32) -> bool {
    let logged_in = !below(run, "ssh").is_empty();
    ssh.kill();
    ssh.restart();
    logged_in
}

fn with_rsync(seed: u64) -> (MariaDb, Site, Sshd) {
    let ((server, site), ssh) = (filled(seed, 4), Sshd::start());
    remote::add(&site, &remote::rsync(&ssh), &["mirror"]);
    (server, site, ssh)
}

fn with_rdiff(seed: u64) -> (MariaDb, Site, Sshd) {
    let ((server, site), ssh) = (filled(seed, 4), Sshd::start());
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    (server, site, ssh)
}

#[test]
fn rsync_survives_kills_of_the_program() {
    let (server, site, ssh) = with_rsync(11);
    killed(&site, &server, 12, "mirror", the_program, || ssh.directory().join("rsync"));
}

#[test]
fn rsync_survives_kills_of_rsync() {
    let (server, site, ssh) = with_rsync(13);
    killed(&site, &server, 14, "mirror", |run| below_it(run, "rsync"), || ssh.directory().join("rsync"));
}

#[test]
fn rsync_survives_kills_of_sshd() {
    let (server, site, mut ssh) = with_rsync(21);
    let far = ssh.directory().join("rsync");
    killed(&site, &server, 22, "mirror", |run| sshd(&mut ssh, run), || far.clone());
}

#[test]
fn rdiff_survives_kills_of_the_program() {
    let (server, site, ssh) = with_rdiff(31);
    killed(&site, &server, 32, "offsite", the_program, || ssh.directory().join("rdiff"));
}

#[test]
fn rdiff_survives_kills_of_rdiff_backup() {
    let (server, site, ssh) = with_rdiff(33);
    killed(&site, &server, 34, "offsite", |run| below_it(run, "rdiff-backup"), || ssh.directory().join("rdiff"));
}

#[test]
fn rdiff_survives_kills_of_sshd() {
    let (server, site, mut ssh) = with_rdiff(41);
    let far = ssh.directory().join("rdiff");
    killed(&site, &server, 42, "offsite", |run| sshd(&mut ssh, run), || far.clone());
}

#[test]
fn s3_survives_kills_of_the_program() {
    let ((server, site), s3) = (filled(51, 4), Garage::start());
    remote::add(&site, &remote::s3(&s3, &site), &["bucket"]);
    let back = site.path("back");
    killed(&site, &server, 52, "bucket", the_program, || s3.download(&back));
}

#[test]
fn s3_survives_kills_of_the_server() {
    let ((server, site), s3) = (filled(53, 4), std::cell::RefCell::new(Garage::start()));
    remote::add(&site, &remote::s3(&s3.borrow(), &site), &["bucket"]);
    let hit = |_| {
        s3.borrow_mut().kill();
        s3.borrow_mut().restart();
        true
    };
    let back = site.path("back");
    killed(&site, &server, 54, "bucket", hit, || s3.borrow().download(&back));
}
