//! What a bucket's server may do to us on a bad day, seen by a man in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

mod services;

use services::gate::{Asked, Fate, Gate};
use services::home::Site;
use services::mariadb::{Engine, MariaDb};
use services::moto::Moto;
use services::rating::{Rating, transaction};
use services::{python, remote};

const LIVE: &str = "/ar_cdr/day%3D2026-01-01/";

/// A site whose bucket is reached through the gate.
fn site(seed: u64) -> (MariaDb, Moto, Gate, Site) {
    let (server, s3) = (MariaDb::start(Engine::InnoDb), Moto::start());
    Rating::new(seed, 2, 40).fill(&server);
    let gate = Gate::start(s3.port());
    let site = Site::on(&server);
    site.secret("s3-secret", s3.secret_key());
    remote::add(&site, &remote::s3_section(&gate.endpoint(), s3.region(), s3.bucket(), s3.access_key()), &["bucket"]);
    (server, s3, gate, site)
}

fn compare(server: &MariaDb, s3: &Moto, site: &Site) {
    let script = format!(
        "import pathlib\nfor found in s3.get_paginator('list_objects_v2').paginate(Bucket='{}', Prefix='site/'):\n    for entry in found.get('Contents', []):\n        to = pathlib.Path('{}') / entry['Key'][5:]\n        to.parent.mkdir(parents=True, exist_ok=True)\n        s3.download_file('{}', entry['Key'], str(to))\n",
        s3.bucket(),
        site.path("back").display(),
        s3.bucket()
    );
    let _ = std::fs::remove_dir_all(site.path("back"));
    s3.boto3(&script).unwrap();
    python::compare(server, &site.path("back"), false).unwrap();
}

fn rate_again(server: &MariaDb) {
    server.app(&transaction("UPDATE ar_cdr SET income = income + 7 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
}

/// The first request of each object meets this fate. There are no notes, and the answer that says so is left alone.
fn first_of(method: &'static str, fate: Fate) -> impl FnMut(&Asked) -> Fate + Send + 'static {
    let mut seen = std::collections::BTreeSet::new();
    move |asked| {
        let path = asked.target.split('?').next().unwrap_or_default().to_owned();
        if asked.method == method && !path.contains("/verified/") && seen.insert(path) {
            fate.clone()
        } else {
            Fate::Pass
        }
    }
}

#[test]
fn a_server_that_is_busy_or_cuts_off_is_asked_again() {
    let (server, s3, gate, site) = site(201);
    for (method, fate) in [
        ("PUT", Fate::Answer(503, "<Error><Code>SlowDown</Code></Error>".to_owned())),
        ("PUT", Fate::Answer(429, String::new())),
        ("HEAD", Fate::Answer(500, String::new())),
        ("GET", Fate::CutReply(10)),
        ("PUT", Fate::LoseReply),
    ] {
        gate.set(first_of(method, fate.clone()));
        let said = site.ok("run", &[]);
        assert_eq!(said.err, "", "{method} {fate:?}");
        assert!(gate.count("PUT", LIVE) > 0, "{method} {fate:?}: nothing was written");
        compare(&server, &s3, &site);
        rate_again(&server);
    }
}

#[test]
fn a_refusal_is_not_asked_about_again() {
    let (server, s3, gate, site) = site(202);
    site.ok("run", &[]);
    rate_again(&server);
    gate.set(|asked: &Asked| {
        let refused = asked.is("PUT", LIVE);
        if refused { Fate::Answer(403, "<Error><Code>AccessDenied</Code></Error>".to_owned()) } else { Fate::Pass }
    });
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("AccessDenied"), "{}", said.err);
    assert_eq!(gate.count("PUT", LIVE), 1);
    gate.set(|_: &Asked| Fate::Pass);
    site.ok("run", &[]);
    compare(&server, &s3, &site);
}

/// Credentials that may write and not delete are enough for a run; only pruning needs more.
#[test]
fn a_run_deletes_nothing() {
    let (server, s3, gate, site) = site(203);
    let no_deletes = |asked: &Asked| {
        let deletes = asked.method == "DELETE" || asked.is("POST", "?delete");
        if deletes { Fate::Answer(403, "<Error><Code>AccessDenied</Code></Error>".to_owned()) } else { Fate::Pass }
    };
    gate.set(no_deletes);
    for _ in 0..2 {
        let said = site.ok("run", &[]);
        assert_eq!(said.err, "");
        rate_again(&server);
    }
    site.ok("run", &[]);
    compare(&server, &s3, &site);
    assert_eq!(gate.count("DELETE", ""), 0, "nobody tried");
    site.edit("retry-for = \"2s\"", "retry-for = \"2s\"\nkeep = { last = 1 }");
    let refused = site.run("prune", &["--yes"]);
    assert_eq!(refused.status, 3, "{}", refused.err);
    assert!(refused.err.contains("AccessDenied"), "{}", refused.err);
}

#[test]
fn what_an_interrupted_upload_left_is_taken_away() {
    let (_server, s3, _gate, site) = site(204);
    site.ok("run", &[]);
    let begin = format!(
        "for number in range(1005): s3.create_multipart_upload(Bucket='{0}', Key=f'site/ar_cdr/left-{{number}}')\n\
         s3.create_multipart_upload(Bucket='{0}', Key='elsewhere/theirs')",
        s3.bucket()
    );
    s3.boto3(&begin).unwrap();
    site.ok("run", &[]);
    let left = format!(
        "print([one['Key'] for one in s3.list_multipart_uploads(Bucket='{}').get('Uploads', [])])",
        s3.bucket()
    );
    assert_eq!(s3.boto3(&left).unwrap().trim(), "['elsewhere/theirs']");
}
