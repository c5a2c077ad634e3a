//! A bucket's server that falls silent, that breaks off again and again, or that two first runs find empty.

use crate::services;
use crate::services::gate::{Asked, Fate, Gate};
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::moto::Moto;
use crate::services::rating::{Rating, owed, rate_again};
use crate::services::{files, python, remote};

const LIVE: &str = "/ar_cdr/day%3D2026-01-01/";

/// A site whose bucket is reached through the gate.
fn site(seed: u64) -> (MariaDb, Moto, Gate, Site) {
    let (server, s3) = (MariaDb::start(Engine::InnoDb), Moto::start());
    Rating::new(seed, 2, 40).fill(&server);
    let gate = Gate::start(s3.port());
    let site = Site::on(&server);
    add_bucket(&site, &gate.endpoint(), &s3);
    (server, s3, gate, site)
}

fn add_bucket(site: &Site, endpoint: &str, s3: &Moto) {
    site.secret("s3-secret", s3.secret_key());
    let section = remote::s3_section(endpoint, s3.region(), s3.bucket(), s3.access_key())
        .replace("retry-for", "timeout = \"1s\"\nretry-for");
    remote::add(site, &section, &["bucket"]);
}

fn compare(server: &MariaDb, s3: &Moto, site: &Site) {
    python::compare(server, &s3.download(&site.path("back")), false).unwrap();
}

#[test]
fn a_server_that_falls_silent_is_given_up_and_keeps_the_debt() {
    let (server, s3, gate, site) = site(321);
    site.ok("run", &[]);
    // Once: it is asked again.
    rate_again(&server, "2026-01-01");
    let mut silent = true;
    gate.set(move |asked: &Asked| {
        let falls_silent = asked.is("PUT", LIVE) && std::mem::take(&mut silent);
        if falls_silent { Fate::Silence } else { Fate::Pass }
    });
    assert_eq!(site.ok("run", &[]).err, "");
    assert_eq!(gate.count("PUT", LIVE), 2);
    compare(&server, &s3, &site);
    // One day for ever, and then the whole server.
    for everything in [false, true] {
        rate_again(&server, "2026-01-01");
        gate.set(move |asked: &Asked| if everything || asked.is("PUT", LIVE) { Fate::Silence } else { Fate::Pass });
        let said = site.run("run", &[]);
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains("timed out") && said.err.contains("s3://vault/site"), "{}", said.err);
        assert!(owed(&server) > 0, "the debt stays");
        python::compare(&server, &site.vault(), false).expect("the vault gets the day");
        gate.set(|_: &Asked| Fate::Pass);
        assert_eq!(site.ok("run", &[]).err, "");
        assert_eq!(owed(&server), 0);
        compare(&server, &s3, &site);
    }
}

#[test]
fn a_body_that_breaks_off_again_and_again_goes_on_where_it_stopped() {
    let (_server, _s3, gate, site) = site(322);
    std::fs::create_dir(site.path("etc")).unwrap();
    let large: Vec<u8> =
        (0..5_u32 << 18).flat_map(|number| (number.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    std::fs::write(site.path("etc/large"), &large).unwrap();
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.etc]\nsource.files = {{ path = \"etc\" }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\", \"bucket\"]\n"
    ));
    site.ok("run", &[]);
    let restore = |to: &str| {
        let into = format!("dir:{}", site.path(to).display());
        site.run("restore", &["--from-sink", "bucket", "--flow", "etc", "--into", &into])
    };

    // Cut, silent, cut before anything came, and cut twice more.
    let fates = [
        Fate::CutReply(1_000_000),
        Fate::StallReply(500_001),
        Fate::CutReply(0),
        Fate::CutReply(1),
        Fate::CutReply(700_000),
    ];
    let mut next = fates.clone().into_iter();
    gate.set(
        move |asked: &Asked| {
            if asked.is("GET", "/.cdrvault/objects/") { next.next().unwrap_or(Fate::Pass) } else { Fate::Pass }
        },
    );
    let said = restore("back");
    assert_eq!(said.status, 0, "{}", said.err);
    let asked = gate.asked();
    let of_body = asked.iter().filter(|asked| asked.is("GET", "/.cdrvault/objects/"));
    let ranges: Vec<_> = of_body.map(|asked| asked.header("range").unwrap_or("all").to_owned()).collect();
    let end = large.len() - 1;
    let offsets = [1_000_000, 1_500_001, 1_500_001, 1_500_002, 2_200_002];
    let expected: Vec<_> = offsets.iter().map(|offset| format!("bytes={offset}-{end}")).collect();
    assert_eq!(ranges[0], "all");
    assert_eq!(ranges[1..], expected);
    let restored = files(&site.path("back")).into_iter().find(|path| path.ends_with("large")).unwrap();
    assert!(std::fs::read(&restored).unwrap() == large, "the bytes are those of the file");

    // Nothing comes any more.
    let mut first = true;
    gate.set(move |asked: &Asked| match asked.is("GET", "/.cdrvault/objects/") {
        true if std::mem::take(&mut first) => Fate::CutReply(1_000_000),
        true => Fate::CutReply(0),
        false => Fate::Pass,
    });
    let said = restore("half");
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.err.contains("cannot read s3://vault/site/.cdrvault/objects/"), "{}", said.err);
    assert!(gate.count("GET", "/.cdrvault/objects/") > 3, "it was tried for a while");
}

/// At first nothing is there, and the server says so in a body.
#[test]
fn what_is_not_there_may_be_told_in_pieces() {
    let (server, s3, gate, site) = site(323);
    let mut seen = std::collections::BTreeSet::new();
    gate.set(move |asked: &Asked| {
        let object = asked.method == "GET" && !asked.target.contains('?');
        if object && seen.insert(asked.target.clone()) { Fate::CutReply(10) } else { Fate::Pass }
    });
    let said = site.ok("run", &[]);
    assert_eq!(said.err, "");
    assert!(gate.count("GET", "/.cdrvault/vault.json") > 1, "it was asked again");
    compare(&server, &s3, &site);
}

/// An answer that tells no checksum is not proof, and neither is a checksum of something else.
#[test]
fn what_the_server_only_says_it_wrote_is_not_delivered() {
    let (server, s3, gate, site) = site(325);
    site.ok("run", &[]);
    assert_eq!(gate.count("PUT", LIVE), 1);
    let receipts = "/.cdrvault/manifests/ar_cdr/2026-01-01/";
    for (of_what, written) in [(LIVE, "day=2026-01-01"), (receipts, "manifests/ar_cdr/2026-01-01")] {
        rate_again(&server, "2026-01-01");
        gate.set(
            move |asked: &Asked| if asked.is("PUT", of_what) { Fate::Answer(200, String::new()) } else { Fate::Pass },
        );
        let said = site.run("run", &[]);
        assert_eq!(said.status, 3, "{}", said.err);
        assert!(said.err.contains("holds other bytes than were sent") && said.err.contains(written), "{}", said.err);
        assert_eq!(gate.count("PUT", receipts), usize::from(of_what == receipts), "no receipt of what is not there");
        assert_eq!(owed(&server), 1);
        gate.set(|_: &Asked| Fate::Pass);
        site.ok("run", &[]);
        compare(&server, &s3, &site);
        site.ok("verify", &[]);
    }
    assert_eq!(owed(&server), 0);
}

#[test]
fn of_two_first_runs_on_one_prefix_one_makes_the_vault_and_the_other_is_refused() {
    let (server, s3, gate, ours) = site(324);
    // The same pipeline of another host: another state, and so another writer.
    let theirs = Site::on(&server);
    add_bucket(&theirs, &s3.endpoint(), &s3);
    let mut command = theirs.command("run", &[]);
    let mut finished = false;
    gate.set(move |asked: &Asked| {
        // We have seen that there is no vault, and are about to make it.
        if asked.is("PUT", "/.cdrvault/vault.json") && !std::mem::replace(&mut finished, true) {
            let done = services::home::said(command.output().unwrap());
            assert_eq!(done.status, 0, "{}", done.err);
        }
        Fate::Pass
    });
    let said = ours.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("another run is making a vault in s3://vault/site"), "{}", said.err);
    assert_eq!(gate.count("PUT", LIVE), 0, "nothing of ours is there");
    compare(&server, &s3, &theirs);
    python::compare(&server, &ours.vault(), false).expect("our own vault has everything");
    // The next time it is plain whose it is.
    gate.set(|_: &Asked| Fate::Pass);
    let said = ours.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("is not this pipeline's: writer"), "{}", said.err);
    assert_eq!(theirs.ok("run", &[]).err, "");
    theirs.ok("verify", &["--against-source"]);

    // At the same moment, in any order.
    let pair: Vec<Site> = (0..2)
        .map(|_| {
            let site = Site::on(&server);
            add_bucket(&site, &s3.endpoint(), &s3);
            site.edit("s3://vault/site", "s3://vault/pair");
            site
        })
        .collect();
    let runs: Vec<_> = pair
        .iter()
        .map(|site| {
            let mut command = site.command("run", &[]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let ends: Vec<_> = runs.into_iter().map(|run| services::home::said(run.wait_with_output().unwrap())).collect();
    let mut statuses: Vec<i32> = ends.iter().map(|said| said.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [0, 3], "{ends:?}");
}
