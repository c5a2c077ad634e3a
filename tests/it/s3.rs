//! What a bucket's server may do to us on a bad day, seen by a man in the middle.

use crate::services;
use crate::services::gate::{Asked, Fate, Gate};
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::moto::Moto;
use crate::services::rating::{Rating, rate_again};
use crate::services::{python, remote};

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
    python::compare(server, &s3.download(&site.path("back")), false).unwrap();
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
        rate_again(&server, "2026-01-01");
    }
}

#[test]
fn a_refusal_is_not_asked_about_again() {
    let (server, s3, gate, site) = site(202);
    site.ok("run", &[]);
    rate_again(&server, "2026-01-01");
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
        rate_again(&server, "2026-01-01");
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

/// Whose credentials signed the requests.
fn signers(gate: &Gate) -> Vec<String> {
    let of = |asked: &Asked| {
        let signed = asked.header("authorization")?.split_once("Credential=")?.1.to_owned();
        signed.split('/').next().map(str::to_owned)
    };
    let mut all: Vec<String> = gate.asked().iter().filter_map(of).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn credentials_come_from_the_options_a_profile_the_environment_or_on_request_the_instance() {
    let (_server, _s3, gate, site) = site(205);
    site.ok("run", &[]);
    let look = |environment: &[(&str, &str)]| {
        gate.set(|_: &Asked| Fate::Pass);
        let mut command = site.command("status", &[]);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
            command.env_remove(name);
        }
        let done = services::home::said(command.envs(environment.iter().copied()).output().unwrap());
        assert_eq!(done.status, 0, "{}", done.err);
        signers(&gate)
    };
    assert_eq!(look(&[("AWS_ACCESS_KEY_ID", "OTHER"), ("AWS_SECRET_ACCESS_KEY", "x")]), ["test"], "the file wins");
    let credentials = site.path("credentials");
    std::fs::write(&credentials, "[work]\naws_access_key_id = PROFILED\naws_secret_access_key = x\n").unwrap();
    let of_profile = [("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()), ("AWS_ACCESS_KEY_ID", "OTHER")];
    site.edit("access-key-id = \"test\"\nsecret-access-key = { file = \"s3-secret\" }\n", "profile = \"work\"\n");
    assert_eq!(look(&of_profile), ["PROFILED"]);
    site.edit("profile = \"work\"\n", "");
    assert_eq!(look(&[("AWS_ACCESS_KEY_ID", "FROMENV"), ("AWS_SECRET_ACCESS_KEY", "x")]), ["FROMENV"]);
    let instance = Gate::start(9);
    instance.set(|asked: &Asked| {
        let answer = match (asked.method.as_str(), asked.target.trim_end_matches('/')) {
            ("PUT", "/latest/api/token") => "token",
            ("GET", "/latest/meta-data/iam/security-credentials") => "role",
            ("GET", "/latest/meta-data/iam/security-credentials/role") => {
                r#"{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"INSTANCE","SecretAccessKey":"x","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#
            }
            _ => return Fate::Answer(404, String::new()),
        };
        Fate::Answer(200, answer.to_owned())
    });
    // Nobody asked for it: so nobody is asked.
    let metadata = instance.endpoint();
    for service in ["AWS_METADATA_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
        let mut command = site.command("run", &[]);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
            command.env_remove(name);
        }
        let done = services::home::said(command.env(service, &metadata).output().unwrap());
        assert!(done.err.contains("there are no credentials") && done.err.contains("instance-credentials"), "{done:?}");
        assert_eq!(instance.asked().len(), 0);
    }
    site.edit("[sink.bucket.s3]\n", "[sink.bucket.s3]\ninstance-credentials = true\n");
    assert_eq!(look(&[("AWS_METADATA_ENDPOINT", metadata.as_str())]), ["INSTANCE"]);
}

#[test]
fn what_is_written_has_its_class_its_encryption_and_its_condition() {
    let (server, _s3, gate, site) = site(206);
    site.edit(
        "retry-for = \"2s\"",
        "retry-for = \"2s\"\nstorage-class = \"STANDARD_IA\"\nencryption = \"aws:kms\"\nkms-key = \"key-of-ours\"",
    );
    std::fs::create_dir(site.path("etc")).unwrap();
    // In parts; each byte another, so that no server finds them alike.
    let large: Vec<u8> =
        (0..20_u32 << 18).flat_map(|number| (number.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    std::fs::write(site.path("etc/large"), large).unwrap();
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.etc]\nsource.files = {{ path = \"etc\" }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\", \"bucket\"]\n"
    ));
    site.ok("run", &[]);
    let objects = |asked: &&Asked| !asked.target.contains("/.cdrvault/probe");
    let asked = gate.asked();
    let begun: Vec<&Asked> = asked.iter().filter(objects).filter(|one| one.is("POST", "?uploads")).collect();
    let whole: Vec<&Asked> =
        asked.iter().filter(objects).filter(|one| one.method == "PUT" && !one.target.contains("partNumber")).collect();
    assert!(!begun.is_empty() && whole.len() > 4, "{} and {}", begun.len(), whole.len());
    for one in begun.iter().chain(&whole) {
        assert_eq!(one.header("x-amz-server-side-encryption"), Some("aws:kms"), "{}", one.target);
        assert_eq!(one.header("x-amz-server-side-encryption-aws-kms-key-id"), Some("key-of-ours"), "{}", one.target);
    }
    let live = |asked: &[Asked]| asked.iter().find(|one| one.is("PUT", LIVE)).cloned().unwrap();
    assert_eq!(live(&asked).header("x-amz-storage-class"), Some("STANDARD_IA"));
    assert_eq!(live(&asked).header("if-none-match"), Some("*"), "nothing may be there");
    let ended = asked.iter().find(|one| one.is("POST", "uploadId=")).unwrap();
    assert_eq!(ended.header("if-none-match"), Some("*"), "in parts as well");
    rate_again(&server, "2026-01-01");
    gate.set(|_: &Asked| Fate::Pass);
    site.ok("run", &[]);
    assert!(live(&gate.asked()).header("if-match").is_some(), "only what we saw may be replaced");
}

#[test]
fn only_a_run_writes_and_only_pruning_needs_the_key_that_may_delete() {
    let (_server, _s3, gate, site) = site(207);
    site.ok("run", &[]);
    gate.set(|_: &Asked| Fate::Pass);
    site.ok("run", &["-n"]);
    assert_eq!(gate.count("PUT", "") + gate.count("POST", ""), 0, "a plan writes nothing");
    let shown = site.ok("validate", &["--connect"]);
    assert!(shown.out.contains("it honours conditional writes"), "{}", shown.out);
    let asked = gate.asked();
    let written: Vec<&Asked> = asked.iter().filter(|one| one.method == "PUT").collect();
    assert!(!written.is_empty() && written.iter().all(|one| one.target.contains("/.cdrvault/probe")), "{written:?}");
    // A key that this user may not read.
    site.edit(
        "retry-for = \"2s\"",
        "retry-for = \"2s\"\nkeep = { superseded = \"9y\" }\nprune-access-key-id = \"pruner\"\nprune-secret-access-key = { file = \"nowhere\" }",
    );
    site.ok("run", &[]);
    site.ok("status", &[]);
}
