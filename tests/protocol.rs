//! Nothing that was committed is lost, nothing half-written is visible, and running again converges: under re-rating,
//! kills at random moments, and a stop at each step of the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, clippy::format_push_string, clippy::cast_possible_truncation, reason = "a test")]

mod services;

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use services::Random;
use services::home::{Site, all_whole};
use services::mariadb::{Engine, MariaDb};
use services::python;
use services::rating::{Rating, owed};
use services::wait_for;

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

/// The lock connection is lost while a run is at work: it publishes and deletes nothing any more.
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
        assert_ne!(said.status, 11, "another run is said to be at work");
        holder.join().unwrap();
    });
    site.ok("run", &[]);
    python::compare(&server, &site.vault(), true).unwrap();
}
