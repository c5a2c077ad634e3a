//! One pipeline with sinks everywhere: what each of them holds, and what happens when they are away, full, or killed.

mod kills;
mod refusals;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::services::files;
use crate::services::garage::Garage;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::python;
use crate::services::rating::{Rating, owed, rate_again};
use crate::services::remote;
use crate::services::sshd::Sshd;
fn live_of(vault: &Path, day: &str) -> Vec<u8> {
    std::fs::read(vault.join(format!("ar_cdr/day={day}/ar_cdr-{day}.parquet"))).unwrap()
}

/// The kept objects of a day.
fn kept_of(vault: &Path, day: &str) -> Vec<Vec<u8>> {
    files(&vault.join(format!(".cdrvault/versions/ar_cdr/{day}")))
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn each_sink_alone_gives_everything_back_and_the_version_before() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(1, 4, 60).fill(&server);
    let site = Site::on(&server);
    let sections = remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site);
    remote::add(&site, &sections, &["mirror", "offsite", "bucket"]);
    site.ok("run", &[]);
    assert_eq!(owed(&server), 0);
    let (far, back) = (ssh.directory().join("rsync"), site.path("back"));
    let each = |check: &dyn Fn(&str, &Path)| {
        check("vault", &site.vault());
        check("rsync", &far);
        check("rdiff", &remote::rdiff_restore(&ssh, 0, &back));
        check("s3", &s3.download(&back));
    };
    each(&|name, vault| {
        python::compare(&server, vault, false).unwrap_or_else(|error| panic!("{name}: {error}"));
        let counted = python::reader("count_rows.py", &[vault.to_str().unwrap()]);
        assert!(counted.contains("ar_cdr 240"), "{name}: {counted}");
    });
    let old = live_of(&site.vault(), "2026-01-02");

    std::thread::sleep(Duration::from_millis(1100));
    rate_again(&server, "2026-01-02");
    assert_eq!(site.published(), ["ar_cdr 2026-01-02"]);
    each(&|name, vault| {
        python::compare(&server, vault, false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_ne!(live_of(vault, "2026-01-02"), old, "{name}");
        if name != "rdiff" {
            assert_eq!(kept_of(vault, "2026-01-02"), std::slice::from_ref(&old), "{name}");
        }
    });
    assert_eq!(live_of(&remote::rdiff_restore(&ssh, 1, &back), "2026-01-02"), old);

    let listed = site.ok("snapshots", &["--day", "2026-01-02", "--flow", "ar_cdr", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let sinks = listed["snapshots"][0]["sinks"].as_object().unwrap();
    assert_eq!(sinks.keys().collect::<Vec<_>>(), ["bucket", "mirror", "offsite", "vault"]);
    // Nothing changed: nothing is read, nothing travels.
    let before = (site.content(), files(&ssh.directory().join("rdiff/rdiff-backup-data")).len());
    assert_eq!(site.published(), Vec::<String>::new());
    assert!(before == (site.content(), files(&ssh.directory().join("rdiff/rdiff-backup-data")).len()));
}

#[test]
fn a_required_sink_that_is_away_keeps_the_debt_and_an_optional_one_warns() {
    let (server, mut ssh, mut s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(2, 3, 40).fill(&server);
    let site = Site::on(&server);
    let bucket = remote::s3(&s3, &site).replace("[sink.bucket.s3]\n", "[sink.bucket.s3]\noptional = true\n");
    remote::add(&site, &(remote::rsync(&ssh) + &bucket), &["mirror", "bucket"]);
    site.ok("run", &[]);

    s3.stop();
    rate_again(&server, "2026-01-01");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("bucket") && said.err.contains("optional"), "{}", said.err);
    assert_eq!(owed(&server), 0, "an optional sink owes nothing");
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    let status = site.run("status", &[]);
    assert!(status.out.contains("cannot be read"), "{}", status.out);

    ssh.stop();
    rate_again(&server, "2026-01-02");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("Connection refused"), "{}", said.err);
    python::compare(&server, &site.vault(), false).expect("the others get the day");
    assert!(owed(&server) > 0, "what a required sink lacks stays owed");

    s3.restart();
    ssh.restart();
    let behind = site.run("status", &[]);
    assert!(behind.out.contains("1 behind"), "{}", behind.out);
    site.ok("run", &[]);
    assert_eq!(owed(&server), 0);
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    python::compare(&server, &s3.download(&site.path("back")), false).unwrap();
}

#[test]
fn new_sinks_are_filled_from_the_vault_and_a_lost_vault_from_a_mirror() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(3, 3, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    remote::add(
        &site,
        &(remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site)),
        &["mirror", "offsite", "bucket"],
    );
    let said = site.ok("run", &["--json"]);
    let report = said.report();
    assert_eq!(report["units"].as_array().unwrap().len(), 0, "the database is not asked: {}", said.out);
    assert_eq!(report["caught-up"], serde_json::json!({ "bucket": 6, "mirror": 6, "offsite": 6 }));
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
    python::compare(&server, &s3.download(&site.path("back")), false).unwrap();

    std::fs::remove_dir_all(site.vault()).unwrap();
    let refused = site.run("run", &[]);
    assert_ne!(refused.status, 0);
    assert!(refused.err.contains("is the disk mounted"), "{}", refused.err);
    assert!(!site.vault().exists(), "nothing is made in the place of a lost vault");
    // What is to stay free stays free, also of what is only passing through.
    site.edit("min-free = \"1MiB\"", "min-free = \"1000TiB\"");
    let full = site.run("run", &["--adopt-vault"]);
    assert_ne!(full.status, 0);
    assert!(full.err.contains("MiB are to stay free"), "{}", full.err);
    assert_eq!(site.live(), Vec::<PathBuf>::new());
    assert_eq!(site.leftovers(), Vec::<PathBuf>::new());
    site.edit("min-free = \"1000TiB\"", "min-free = \"1MiB\"");
    let said = site.ok("run", &["--adopt-vault", "--json"]);
    let report = said.report();
    assert_eq!(report["caught-up"]["vault"], 6, "{}", said.out);
    python::compare(&server, &site.vault(), false).unwrap();
    site.ok("run", &[]);
    assert_eq!(owed(&server), 0);
}

#[test]
fn what_one_sink_lost_comes_back_from_another() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(4, 3, 40).fill(&server);
    let site = Site::on(&server);
    remote::add(&site, &(remote::rsync(&ssh) + &remote::s3(&s3, &site)), &["mirror", "bucket"]);
    site.ok("run", &[]);
    let path = "ar_cdr/day=2026-01-02/ar_cdr-2026-01-02.parquet";
    let good = std::fs::read(site.vault().join(path)).unwrap();
    std::fs::remove_file(site.vault().join(path)).unwrap();
    s3.boto3(&format!("s3.delete_object(Bucket='{}', Key='site/{path}')", s3.bucket())).unwrap();
    std::fs::remove_file(ssh.directory().join("rsync/ar_source_cdr/day=2026-01-03/ar_source_cdr-2026-01-03.parquet"))
        .unwrap();
    let said = site.ok("run", &["--json"]);
    let report = said.report();
    assert_eq!(report["caught-up"], serde_json::json!({ "bucket": 1, "mirror": 1, "vault": 1 }), "{}", said.out);
    assert_eq!(std::fs::read(site.vault().join(path)).unwrap(), good);
    python::compare(&server, &site.vault(), false).unwrap();
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    python::compare(&server, &s3.download(&site.path("back")), false).unwrap();
    assert_eq!(site.published(), Vec::<String>::new());
}

#[test]
fn a_damaged_receipt_in_an_optional_sink_stops_nothing() {
    let (server, s3) = (MariaDb::start(Engine::InnoDb), Garage::start());
    Rating::new(5, 3, 40).fill(&server);
    let site = Site::on(&server);
    let section = remote::s3(&s3, &site).replace("[sink.bucket.s3]\n", "[sink.bucket.s3]\noptional = true\n");
    remote::add(&site, &section, &["bucket"]);
    site.ok("run", &[]);
    let key = "site/.cdrvault/manifests/ar_cdr/2026-01-01/g0001.json";
    s3.boto3(&format!("s3.put_object(Bucket='{}', Key='{key}', Body=b'{{')", s3.bucket())).unwrap();
    for number in 0..3 {
        rate_again(&server, &Rating::day(number));
    }
    let said = site.run("run", &[]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("receipt") && said.err.contains("2026-01-01"), "{}", said.err);
    python::compare(&server, &site.vault(), false).unwrap();
    assert_eq!(owed(&server), 0);
}
