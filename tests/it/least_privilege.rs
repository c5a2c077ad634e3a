//! docs/recipes/least-privilege.md, word for word: what it grants is enough, and nothing of it can be left out.

use crate::services;
use crate::services::gate::{Asked, Fate, Gate};
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::moto::Moto;
use crate::services::rating::{Rating, transaction};
use crate::services::recipe::{self, BUCKET};
use crate::services::remote;
use regex::Regex;
use serde_json::Value;

fn page() -> String {
    std::fs::read_to_string(services::places::test_file("../docs/recipes/least-privilege.md")).unwrap()
}

/// A right, as `INSERT ON asterisell.ar_cdr`, and whose it is.
#[derive(Debug)]
struct Right {
    what: String,
    of: String,
}

impl Right {
    /// Every single one that the page grants.
    fn all() -> Vec<Self> {
        let grant = Regex::new(r"GRANT (.+?) +ON (\S+) +TO (\S+);").unwrap();
        let page = page();
        let grants = grant.captures_iter(&page);
        grants
            .flat_map(|grant| {
                let (on, of) = (grant[2].to_owned(), grant[3].to_owned());
                let rights: Vec<String> = grant[1].split(',').map(|right| right.trim().to_owned()).collect();
                rights.into_iter().map(move |right| Self { what: format!("{right} ON {on}"), of: of.clone() })
            })
            .collect()
    }
}

const FLOWS: &str = r#"
[flow.configurations]
source.dump = { database = "whole", tables = "configuration" }
transforms  = ["incremental", { compress = "zstd(9)" }]
sinks       = ["vault"]
"#;

/// A server with the accounts of the page and something of each kind that they are for, and its pipeline.
fn site() -> (MariaDb, Site) {
    let server = MariaDb::start(Engine::InnoDb);
    server.sql("", "DROP USER cdrvault@'127.0.0.1'");
    server.app(
        "DROP TRIGGER IF EXISTS fixture_source_cdr_kind;
         CREATE TRIGGER on_params BEFORE INSERT ON ar_params FOR EACH ROW SET @seen = 1;
         CREATE VIEW calls_a_day AS SELECT DATE(calldate) AS day, COUNT(*) AS calls FROM ar_cdr GROUP BY 1;
         CREATE FUNCTION half(x INT) RETURNS INT DETERMINISTIC RETURN x / 2;
         CREATE EVENT nothing ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1;
         CREATE USER phone@'10.0.0.%' IDENTIFIED BY 'rings'; GRANT SELECT ON asterisell.* TO phone@'10.0.0.%';",
    );
    Rating::new(61, 3, 10).fill(&server);
    server.app(&recipe::blocks(&page(), "sql").concat());
    let site = Site::on(&server);
    for (name, password) in [
        ("password", "a long password"),
        ("dump.password", "another long password"),
        ("restore.password", "a third one"),
    ] {
        site.secret(name, password);
    }
    let url = server.url();
    let whole = url.replace("cdrvault@", "cdrvault_dump@");
    site.edit(
        "[sink.",
        &format!("[database.whole]\nurl = \"{whole}\"\npassword = {{ file = \"dump.password\" }}\n\n[sink."),
    );
    site.pipeline(&(std::fs::read_to_string(site.path("pipeline.toml")).unwrap() + FLOWS));
    (server, site)
}

/// The daily work, from the first run on: what went wrong, if something did.
fn daily(server: &MariaDb, site: &Site) -> Result<(), String> {
    for directory in ["vault", "state"] {
        let _ = std::fs::remove_dir_all(site.path(directory));
    }
    server.app("DELETE FROM ar_daily_status_change; DELETE FROM ar_daily_status_job WHERE name LIKE '%cdrvault%';");
    let checked = site.run("validate", &["--connect"]);
    if checked.status != 0 || checked.out.contains("comparing sums") {
        return Err(format!("validate: {}{}", checked.out, checked.err));
    }
    for _ in 0..2 {
        let run = site.run("run", &["-v"]);
        if run.status != 0 || run.err.contains("warning") {
            return Err(format!("run: {}", run.err));
        }
        let late = "UPDATE ar_cdr SET income = income + 7 WHERE calldate < '2026-01-02';";
        server.app(&transaction(late, &["2026-01-01"]));
    }
    // What is owed is the day that was announced last.
    let run = site.run("run", &["-v"]);
    let owed = server.app("SELECT COUNT(*) FROM ar_daily_status_change AS c JOIN ar_daily_status_job AS j ON j.id = c.ar_daily_status_job_id WHERE j.name LIKE 'cdrvault/%' AND j.name NOT LIKE '%/mark'");
    if run.status != 0 || owed.trim() != "0" {
        return Err(format!("{} changes stay owed: {}", owed.trim(), run.err));
    }
    let dump = std::fs::File::open(site.path("vault/configurations/configurations.sql.zst")).unwrap();
    let dump = String::from_utf8_lossy(&zstd::decode_all(dump).unwrap()).into_owned();
    match ["`on_params`", "`calls_a_day`", "`half`", "`nothing`", "`phone`@`10.0.0.%`"]
        .iter()
        .find(|part| !dump.contains(**part))
    {
        Some(part) => Err(format!("the dump lacks {part}")),
        None => Ok(()),
    }
}

/// A day comes back: what went wrong, if something did.
fn restored(server: &MariaDb, site: &Site) -> Result<(), String> {
    let content = "SELECT COUNT(*), SUM(id), SUM(income) FROM ar_cdr; SELECT COUNT(*) FROM ar_source_cdr;";
    let before = server.app(content);
    server.app(
        "CREATE TABLE calls AS SELECT * FROM ar_cdr; CREATE TABLE sources AS SELECT * FROM ar_source_cdr;
         DELETE FROM ar_cdr WHERE calldate >= '2026-01-02' AND calldate < '2026-01-03' LIMIT 5;
         DELETE FROM ar_source_cdr WHERE calldate >= '2026-01-02' AND calldate < '2026-01-03' LIMIT 5;
         DELETE FROM ar_daily_status_change;",
    );
    let into = server.url().replace("cdrvault@", "cdrvault_restore@");
    let password = site.path("restore.password");
    let arguments = ["--from-sink", "vault", "--day", "2026-01-02", "--into", &into, "--password-file"];
    let flows = ["--flow", "ar_cdr", "--flow", "ar_source_cdr"];
    let said = site.run("restore", &[&arguments[..], &[password.to_str().unwrap()], &flows].concat());
    let after = server.app(content);
    let announced = server.app("SELECT COUNT(*) FROM ar_daily_status_change");
    server.app(
        "DELETE FROM ar_cdr; INSERT INTO ar_cdr SELECT * FROM calls; DROP TABLE calls;
         DELETE FROM ar_source_cdr; INSERT INTO ar_source_cdr SELECT * FROM sources; DROP TABLE sources;",
    );
    if said.status == 0 && after == before && announced.trim() != "0" {
        return Ok(());
    }
    Err(format!("{} calls, {} announced: {}{}", after.trim(), announced.trim(), said.out, said.err))
}

#[test]
fn the_rights_in_the_database_are_enough_and_each_is_needed() {
    let (server, site) = site();
    daily(&server, &site).unwrap();
    restored(&server, &site).unwrap();
    let rights = Right::all();
    assert!(rights.len() > 20, "{rights:?}");
    let mut needless = Vec::new();
    for right in &rights {
        server.sql("", &format!("REVOKE {} FROM {}", right.what, right.of));
        let done = if right.of.contains("_restore") { restored(&server, &site) } else { daily(&server, &site) };
        server.sql("", &format!("GRANT {} TO {}", right.what, right.of));
        match done {
            Ok(()) => needless.push(right),
            Err(error) => assert!(!error.starts_with("the dump lacks"), "{error} without {right:?}, and nothing tells"),
        }
        if right.of.starts_with("cdrvault_dump") || right.of.starts_with("cdrvault@") {
            daily(&server, &site).unwrap();
        }
    }
    assert!(needless.is_empty(), "it goes without: {needless:#?}");
}

/// What a request to S3 needs, by the table of Amazon: actions, and the objects that they are about.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>
fn needs(asked: &Asked) -> Vec<(&'static str, String)> {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let path = path.trim_start_matches('/').to_owned();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let is_bucket = !path.trim_end_matches('/').contains('/');
    let action = match (asked.method.as_str(), is_bucket) {
        ("GET", true) if has("uploads") => "s3:ListBucketMultipartUploads",
        ("GET", true) if has("list-type") => "s3:ListBucket",
        ("HEAD", true) => "s3:ListBucket",
        ("GET" | "HEAD", false) if !query.contains("versionId") => "s3:GetObject",
        ("PUT" | "POST", false) => "s3:PutObject",
        ("DELETE", false) if has("uploadId") => "s3:AbortMultipartUpload",
        ("DELETE", false) | ("POST", true) if has("delete") || !has("versionId") => "s3:DeleteObject",
        _ => panic!("a request that the table lacks: {} {}", asked.method, asked.target),
    };
    let from = asked.header("x-amz-copy-source").map(|from| ("s3:GetObject", from.trim_start_matches('/').to_owned()));
    [(action, path)].into_iter().chain(from).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_str().map_or_else(
        || value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect(),
        |text| vec![text],
    )
}

fn is_like(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(text == pattern, |start| text.starts_with(start))
}

/// Whether a policy allows a request.
fn allows(policy: &Value, asked: &Asked) -> bool {
    let query = asked.target.split_once('?').map_or("", |(_, query)| query);
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or("").replace("%2F", "/");
    needs(asked).iter().all(|(action, path)| {
        policy["Statement"].as_array().unwrap().iter().any(|statement| {
            let condition = &statement["Condition"]["StringLike"]["s3:prefix"];
            texts(&statement["Action"]).contains(action)
                && texts(&statement["Resource"]).iter().any(|resource| {
                    is_like(path.trim_end_matches('/'), resource.strip_prefix("arn:aws:s3:::").unwrap())
                })
                && (condition.is_null() || texts(condition).iter().any(|pattern| is_like(&prefix, pattern)))
        })
    })
}

/// The same policy without an action.
fn without(policy: &Value, action: &str) -> Value {
    let mut policy = policy.clone();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        let left: Vec<Value> =
            texts(&statement["Action"]).into_iter().filter(|a| *a != action).map(Value::from).collect();
        statement["Action"] = Value::Array(left);
    }
    policy
}

fn enforce(gate: &Gate, policy: &Value) {
    let policy = policy.clone();
    gate.set(move |asked| {
        if allows(&policy, asked) {
            return Fate::Pass;
        }
        Fate::Answer(403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>".to_owned())
    });
}

#[test]
fn the_policy_of_the_bucket_is_enough_and_each_action_is_needed() {
    let blocks: Vec<Value> =
        recipe::blocks(&page(), "json").iter().map(|block| serde_json::from_str(block).unwrap()).collect();
    let [policy, narrowed] = &blocks[..] else { panic!("the page has another number of policies: {blocks:?}") };
    // The narrower way to list, in place of the wide one.
    let mut narrow = without(policy, "s3:ListBucket");
    narrow["Statement"].as_array_mut().unwrap().push(narrowed.clone());

    let (server, s3) = (MariaDb::start(Engine::InnoDb), Moto::start());
    s3.new_bucket(BUCKET);
    Rating::new(62, 2, 10).fill(&server);
    let gate = Gate::start(s3.port());
    let site = Site::on(&server);
    site.secret("s3-secret", s3.secret_key());
    let mut section = remote::s3_section(&gate.endpoint(), s3.region(), BUCKET, s3.access_key());
    section = section.replace(&format!("s3://{BUCKET}/site"), &format!("s3://{BUCKET}/asterisell"));
    remote::add(&site, &section, &["bucket"]);
    // Parts of 5 MiB are the smallest that S3 has: one object that needs some, and one that does not.
    let tree = site.path("tree");
    std::fs::create_dir(&tree).unwrap();
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!("{text}\n[flow.tree]\nsource.files = {{ path = \"tree\" }}\ntransforms = [\"incremental\"]\nsinks = [\"bucket\"]\n"));
    let mut random = services::Random(63);
    let mut all = |policy: &Value| {
        enforce(&gate, policy);
        let large: Vec<u8> = (0..40 << 17).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
        std::fs::write(tree.join("large"), large).unwrap();
        server
            .app(&transaction("UPDATE ar_cdr SET income = income + 7 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
        // What a run that was killed has left there.
        s3.boto3(&format!("s3.create_multipart_upload(Bucket='{BUCKET}', Key='asterisell/left')")).unwrap();
        let mut said = Vec::new();
        for (verb, more) in [("validate", &["--connect"][..]), ("run", &["-v"]), ("verify", &[])] {
            let done = site.run(verb, more);
            if done.status != 0 || format!("{}{}", done.out, done.err).to_lowercase().contains("warn") {
                said.push(format!("{verb}: {}{}", done.out, done.err));
            }
        }
        if said.is_empty() { Ok(()) } else { Err(said.concat()) }
    };
    all(policy).unwrap();
    all(&narrow).unwrap();
    let mut needless = Vec::new();
    for statement in policy["Statement"].as_array().unwrap() {
        for action in texts(&statement["Action"]) {
            if all(&without(policy, action)).is_ok() {
                needless.push(action);
            }
        }
    }
    assert!(needless.is_empty(), "it goes without: {needless:?}");
}
