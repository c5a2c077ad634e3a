//! Nothing that was committed is lost, nothing half-written is visible, and running again converges: under re-rating,
//! kills at random moments, and a stop at each step of the protocol.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::services;
use crate::services::Random;
use crate::services::home::{Site, all_whole};
use crate::services::mariadb::{Engine, MariaDb, Server};
use crate::services::python;
use crate::services::rating::{Rating, owed};
use crate::services::wait_for;

/// The steps after which a run may end, in their order.
const STEPS: [&str; 9] = [
    "before-claim",
    "after-claim",
    "after-snapshot",
    "after-seal",
    "after-version",
    "after-live",
    "after-check",
    "after-receipt",
    "after-publish",
];

const RERATINGS: u64 = 300;

#[test]
fn a_stop_at_each_step_is_healed_by_the_next_run() {
    for engine in [Engine::InnoDb, Engine::RocksDb] {
        let server = MariaDb::start(engine);
        let mut rating = Rating::new(21, 2, 40);
        rating.fill(&server);
        let site = Site::on(&server);
        // In the first run there is nothing to keep a version of; in the second there is.
        for round in 0..2 {
            for step in STEPS.iter().chain(&["after-settle"]) {
                let said = site.with_failpoint("run", &format!("{step}=abort"));
                assert!(
                    said.status != 0 || (round == 0 && *step == "after-version"),
                    "{step} was not reached: {}",
                    said.err
                );
                all_whole(&site.vault());
                if *step != "after-settle" {
                    rating_changes_everything(&server, &mut rating);
                }
            }
            site.ok("run", &[]);
            python::compare(&server, &site.vault(), true).unwrap_or_else(|e| panic!("{engine:?}, round {round}: {e}"));
            assert_eq!(site.leftovers(), Vec::<std::path::PathBuf>::new());
            assert_eq!(owed(&server), 0);
            rating_changes_everything(&server, &mut rating);
        }
    }
}

fn rating_changes_everything(server: &MariaDb, rating: &mut Rating) {
    for number in 0..rating.days {
        let day = Rating::day(number);
        let calls = rating.calls + 1 + number;
        let sql = format!(
            "DELETE FROM ar_cdr WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY; {}{}",
            rating.rated(&day, calls, calls),
            rating.source_calls(&day, 1)
        );
        server.app(&services::rating::transaction(&sql, &[&day]));
    }
}

/// Re-rates at random while `run` is called again and again. It is told a number and says whether what it started was killed;
/// both must happen.
fn under_rerating(server: &MariaDb, rating: &mut Rating, seed: u64, mut run: impl FnMut(&mut Random) -> bool) {
    let (busy, killed, finished) = (AtomicBool::new(true), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // On a slow machine there is more rating, not less killing.
            let few = || killed.load(Ordering::Relaxed) < 20 || finished.load(Ordering::Relaxed) < 5;
            for step in 0.. {
                if step >= RERATINGS && !few() {
                    break;
                }
                rating.step(server);
                // Longer than a run waits for nothing, so that runs and ratings interleave in every way.
                std::thread::sleep(Duration::from_millis(rating.random.below(120)));
            }
            busy.store(false, Ordering::Relaxed);
        });
        let mut random = Random(seed);
        while busy.load(Ordering::Relaxed) {
            if run(&mut random) { &killed } else { &finished }.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Lets a process end, or kills it -9 after a while; whether it was killed.
fn ended_or_killed(mut run: std::process::Child, random: &mut Random) -> bool {
    std::thread::sleep(Duration::from_millis(random.below(700)));
    if random.below(4) > 0 {
        let _ = run.kill();
    }
    run.wait().unwrap().code().is_none()
}

#[test]
fn random_rerating_while_runs_are_killed_loses_nothing() {
    for (engine, seed) in [(Engine::InnoDb, 31), (Engine::RocksDb, 32)] {
        let server = MariaDb::start(engine);
        let mut rating = Rating::new(seed, 12, 30);
        rating.fill(&server);
        let site = Site::on(&server);
        site.ok("run", &[]);
        under_rerating(&server, &mut rating, seed, |random| {
            let failpoint = match random.below(3) {
                0 => format!("{}:{}=abort", STEPS[random.below(STEPS.len() as u64) as usize], 1 + random.below(3)),
                _ => String::new(),
            };
            let killed = ended_or_killed(site.start(&failpoint), random);
            all_whole(&site.vault());
            killed
        });
        site.ok("run", &[]);
        all_whole(&site.vault());
        python::compare(&server, &site.vault(), true).unwrap_or_else(|e| panic!("{engine:?}: {e}"));
        assert_eq!(owed(&server), 0, "{engine:?}");
        assert_eq!(site.leftovers(), Vec::<std::path::PathBuf>::new(), "{engine:?}");
        assert_eq!(site.published(), Vec::<String>::new(), "{engine:?}: a second run finds nothing");
    }
}

/// A change that commits between our snapshot and our settling: with our order it stays announced.
#[test]
fn a_change_during_an_export_is_exported_next() {
    let server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(41, 1, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    rating_changes_everything(&server, &mut rating);
    let go = site.path("go");
    let mut run = site.start(&format!("after-seal=pause:{}", go.display()));
    wait_for(&site.path("go.reached"));
    rating_changes_everything(&server, &mut rating);
    std::fs::write(&go, "").unwrap();
    assert!(run.wait().unwrap().success());
    let before = python::compare(&server, &site.vault(), true);
    assert!(before.is_err(), "the run read the day before the change");
    site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).unwrap();
}

/// The negative control: the order of the upstream job (export the day, then delete its event) loses the same change.
/// If this test fails, the one above proves nothing.
#[test]
fn the_order_of_the_upstream_job_loses_that_change() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("INSERT INTO ar_daily_status_job (name) VALUES ('upstream')");
    let mut rating = Rating::new(41, 1, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    upstream_only(&site);
    let upstream_job = |during: &mut dyn FnMut()| {
        for day in server.app(UPSTREAM_QUEUE).lines() {
            site.ok("replay", &["--day", day]);
            during();
            server.app(&format!("DELETE FROM ar_daily_status_change WHERE day = '{day}'"));
        }
    };
    upstream_job(&mut || {});
    rating_changes_everything(&server, &mut rating);
    upstream_job(&mut || rating_changes_everything(&server, &mut rating));
    // One clean run of the job afterwards: nothing is announced any more, and the vault is stale for ever.
    upstream_job(&mut || {});
    let said = python::compare(&server, &site.vault(), true);
    assert!(said.is_err(), "the upstream order must lose the change");
}

const UPSTREAM_QUEUE: &str = "SELECT day FROM ar_daily_status_change q JOIN ar_daily_status_job j \
                              ON j.id = q.ar_daily_status_job_id WHERE j.name = 'upstream' ORDER BY day";

/// Our own events are off: what is exported is what the upstream job's queue says.
fn upstream_only(site: &Site) {
    site.edit(
        "[\"incremental\", \"parquet\"]",
        "[{ incremental = { detect = [\"tripwire\"], sweep-every = \"9y\" } }, \"parquet\"]",
    );
}

/// The same random re-ratings and kills as above, with the order of the upstream job: sooner or later it loses a change.
#[test]
fn random_rerating_loses_changes_in_the_order_of_the_upstream_job() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("INSERT INTO ar_daily_status_job (name) VALUES ('upstream')");
    let mut rating = Rating::new(33, 12, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    upstream_only(&site);
    let export =
        |day: &str| site.command("replay", &["--day", day, "--allow-shrink"]).stderr(Stdio::null()).spawn().unwrap();
    let announced = |day: &str| server.app(&format!("DELETE FROM ar_daily_status_change WHERE day = '{day}'"));
    for round in 0..10 {
        under_rerating(&server, &mut rating, 33 + round, |random| {
            let queue = server.app(UPSTREAM_QUEUE);
            let Some(day) = queue.lines().next() else { return false };
            let killed = ended_or_killed(export(day), random);
            if !killed {
                announced(day);
            }
            killed
        });
        // One clean run of the job.
        for day in server.app(UPSTREAM_QUEUE).lines() {
            assert!(export(day).wait().unwrap().success());
            announced(day);
        }
        if python::compare(&server, &site.vault(), true).is_err() {
            return;
        }
    }
    panic!("the order of the upstream job lost nothing: then the test above proves nothing");
}

/// The lock connection is lost while a run is in progress: it publishes and deletes nothing any more.
#[test]
fn a_run_that_lost_its_lock_stops_publishing() {
    let server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(51, 2, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.edit("state = ", "workers = 1\nstate = ");
    site.ok("run", &[]);
    rating_changes_everything(&server, &mut rating);
    let before = site.live().iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let go = site.path("go");
    let mut run = site.start(&format!("after-seal=pause:{}", go.display()));
    wait_for(&site.path("go.reached"));
    let holder = server.app("SELECT id FROM information_schema.processlist WHERE user = 'cdrvault' ORDER BY id");
    for id in holder.lines() {
        let _ = server.try_sql("", &format!("KILL {id}"));
    }
    std::fs::write(&go, "").unwrap();
    assert!(!run.wait().unwrap().success());
    let after = site.live().iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    assert!(before == after, "a zombie published");
    assert!(owed(&server) > 0, "the debt stays");
    site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).unwrap();
}

/// The engine holds an event row: the day waits, the others go on, and the engine is never made to wait for us.
#[test]
fn a_day_that_the_engine_holds_waits_for_the_next_run() {
    let server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(61, 3, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    rating_changes_everything(&server, &mut rating);
    let holding = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            server.app("START TRANSACTION; CALL add_daily_status_change_event('2026-01-01'); SELECT SLEEP(12); COMMIT;")
        });
        std::thread::sleep(Duration::from_millis(800));
        let said = site.run("run", &["--json"]);
        holder.join().unwrap();
        said
    });
    assert_eq!(holding.status, 3, "{}", holding.err);
    let report = holding.report();
    let of = |day: &str, what: &str| {
        report["units"].as_array().unwrap().iter().filter(|u| u["partition"] == day && u["result"] == what).count()
    };
    assert_eq!((of("2026-01-01", "failed"), of("2026-01-02", "published"), of("2026-01-03", "published")), (2, 2, 2));
    site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).unwrap();
}

/// The server lets go of a killed run's lock only when its statement ends: the next run waits for that.
#[test]
fn the_lock_of_a_killed_run_is_waited_for() {
    let server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(71, 1, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    rating_changes_everything(&server, &mut rating);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            server.app("START TRANSACTION; CALL add_daily_status_change_event('2026-01-01'); SELECT SLEEP(6); COMMIT;")
        });
        let held = "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(6)'";
        while server.sql("", held).trim() == "0" {
            assert!(!holder.is_finished(), "nothing was held");
        }
        let mut run = site.start("");
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'cdrvault' AND time_ms > 50 \
                       AND (info LIKE 'INSERT IGNORE%' OR info LIKE 'DELETE%')";
        while server.sql("", waiting).trim() == "0" {
            assert!(run.try_wait().unwrap().is_none(), "the run did not wait for the engine");
        }
        run.kill().unwrap();
        run.wait().unwrap();
        let said = site.run("run", &[]);
        assert_ne!(said.status, 11, "another run is said to be in progress");
        holder.join().unwrap();
    });
    site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Puts back what a server had.
fn put_back(server: &mut MariaDb, copy_of_it: &Path) {
    server.end(true);
    std::fs::remove_dir_all(server.data()).unwrap();
    copy(copy_of_it, &server.data());
    server.start_again();
}

/// For an hour after a registration every sweep is a full one; a lost state would make the next one so, too.
fn long_registered(site: &Site) {
    let path = site.path("state/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for flow in ["ar_cdr", "ar_source_cdr"] {
        state["flows"][flow]["full-until"] = serde_json::Value::Null;
        state["flows"][flow]["swept"] = jiff::Timestamp::now().to_string().into();
    }
    std::fs::write(&path, state.to_string()).unwrap();
}

const NOT_AS_LEFT: &str = "is not as the last run left it";

/// A run that ends at a step, as if it was killed there.
fn cut_off(site: &Site, step: &str) {
    assert_ne!(site.with_failpoint("run", &format!("{step}=abort")).status, 0);
}

#[test]
fn what_a_database_lost_when_it_was_put_back_is_not_published_from_the_spool() {
    let mut server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(91, 3, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    long_registered(&site);
    rating_changes_everything(&server, &mut rating);
    cut_off(&site, "after-claim");
    assert!(owed(&server) > 0);
    server.end(true);
    copy(&server.data(), &site.path("earlier"));
    server.start_again();
    rating_changes_everything(&server, &mut rating);
    // Sealed with what is lost below; the debt is older, and stands.
    cut_off(&site, "after-seal");
    put_back(&mut server, &site.path("earlier"));
    let said = site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).unwrap();
    assert_eq!(said.err.matches(NOT_AS_LEFT).count(), 1, "{}", said.err);
    let again = site.ok("run", &["--json"]);
    assert!(!again.out.contains(NOT_AS_LEFT), "said once: {}", again.out);
    assert_eq!(again.report()["units"].as_array().unwrap().len(), 0, "{}", again.out);
}

/// Sums cannot tell: the texts are as long as before. And what the database has no calls of any more stays saved.
#[test]
fn every_day_of_a_database_that_was_put_back_is_read_again() {
    let mut server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(92, 3, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    long_registered(&site);
    server.end(true);
    copy(&server.data(), &site.path("earlier"));
    server.start_again();
    let changed = "UPDATE ar_cdr SET imported_info = REVERSE(imported_info) WHERE calldate < '2026-01-02';";
    let new = rating.rated("2026-01-04", 20, 1);
    server.app(&services::rating::transaction(&format!("{changed}{new}"), &["2026-01-01", "2026-01-04"]));
    site.ok("run", &[]);
    put_back(&mut server, &site.path("earlier"));
    let plan = site.ok("run", &["-n"]);
    assert!(plan.err.contains(NOT_AS_LEFT) && plan.out.contains(NOT_AS_LEFT), "{}{}", plan.err, plan.out);
    let said = site.ok("run", &[]);
    assert!(said.err.contains(NOT_AS_LEFT) && said.err.contains("no longer in the database"), "{}", said.err);
    let lost = site.live().into_iter().find(|path| path.to_string_lossy().contains("2026-01-04")).expect("it stays");
    std::fs::remove_file(lost).unwrap();
    python::compare(&server, &site.vault(), true).unwrap();
}

/// What a power cut leaves with `innodb_flush_log_at_trx_commit = 0`: everything up to some commit, and nothing after it.
#[test]
fn a_change_that_a_server_lost_in_a_crash_is_not_kept_as_if_it_were_there() {
    let server = Server::new(Engine::InnoDb).option("--innodb-flush-log-at-trx-commit=0");
    let mut server = server.start();
    let mut rating = Rating::new(93, 2, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    long_registered(&site);
    server.end(true);
    copy(&server.data(), &site.path("on disk"));
    server.start_again();
    let changed = "UPDATE ar_cdr SET imported_info = REVERSE(imported_info) WHERE calldate < '2026-01-02';";
    server.app(&services::rating::transaction(changed, &["2026-01-01"]));
    assert_eq!(site.published(), ["ar_cdr 2026-01-01"]);
    server.end(false);
    std::fs::remove_dir_all(server.data()).unwrap();
    copy(&site.path("on disk"), &server.data());
    server.start_again();
    let said = site.ok("run", &[]);
    assert!(said.err.contains(NOT_AS_LEFT), "{}", said.err);
    python::compare(&server, &site.vault(), true).unwrap();
}

/// The same machine-id, host name and path: both take the announcements from the same rows.
#[test]
fn of_two_clones_of_a_host_each_gets_every_change() {
    let server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(94, 3, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    long_registered(&site);
    let parts = ["state", "vault"];
    let switch = |from: &str, to: &str| {
        for part in parts {
            std::fs::rename(site.path(part), site.path(&format!("{part} of {from}"))).unwrap();
            std::fs::rename(site.path(&format!("{part} of {to}")), site.path(part)).unwrap();
        }
    };
    for part in parts {
        copy(&site.path(part), &site.path(&format!("{part} of the clone")));
    }
    let changed = "UPDATE ar_cdr SET imported_info = REVERSE(imported_info) WHERE calldate < '2026-01-02';";
    server.app(&services::rating::transaction(changed, &["2026-01-01"]));
    site.ok("run", &[]);
    switch("the host", "the clone");
    let said = site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).expect("the clone has it");
    assert!(said.err.contains(NOT_AS_LEFT), "{}", said.err);
    rating_changes_everything(&server, &mut rating);
    site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).unwrap();
    switch("the clone", "the host");
    let said = site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).expect("the host has it");
    assert!(said.err.contains(NOT_AS_LEFT), "{}", said.err);
}

/// A server that was started anew in order is looked at, and not talked about.
#[test]
fn a_server_that_was_started_anew_is_swept_in_full_without_a_word() {
    let mut server = MariaDb::start(Engine::InnoDb);
    Rating::new(95, 2, 30).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    long_registered(&site);
    server.app("UPDATE ar_cdr SET cost = cost + 1 WHERE calldate < '2026-01-02'");
    assert_eq!(site.published(), Vec::<String>::new(), "no sweep is due");
    server.end(true);
    server.start_again();
    assert_eq!(site.ok("run", &["-n"]).err.matches("warning").count(), 0);
    assert_eq!(site.published(), ["ar_cdr 2026-01-01"]);
}

/// The application announces to every job in its list: what it announces to that of the mark goes with the next mark.
#[test]
fn what_is_announced_to_the_job_of_the_mark_does_not_pile_up() {
    let server = MariaDb::start(Engine::InnoDb);
    let mut rating = Rating::new(96, 3, 30);
    rating.fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let rows = || server.app("SELECT COUNT(*) FROM ar_daily_status_change");
    assert_eq!(rows().trim(), "2");
    rating_changes_everything(&server, &mut rating);
    site.ok("run", &[]);
    assert_eq!(rows().trim(), "2");
    assert_eq!(server.app("SELECT COUNT(*) FROM ar_daily_status_job WHERE name LIKE '%/mark'").trim(), "1");
}
