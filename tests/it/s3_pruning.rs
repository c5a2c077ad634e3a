//! Pruning of a bucket: by a key of its own, under object lock, and with a server whose clock is wrong.

use crate::services::garage::Garage;
use crate::services::gate::{Asked, Fate, Gate};
use crate::services::home::filled;
use crate::services::moto::Moto;
use crate::services::rating::rate_again;
use crate::services::{python, remote};

const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";

/// What is to be removed, by itself or as one of several in a body.
fn deletes(asked: &Asked) -> bool {
    asked.method == "DELETE" && !asked.target.contains("uploadId=") || asked.is("POST", "?delete")
}

fn signed_by(asked: &Asked, key: &str) -> bool {
    asked.header("authorization").is_some_and(|signed| signed.contains(&format!("Credential={key}/")))
}

#[test]
fn versions_go_by_the_key_of_pruning_and_the_other_never_tries() {
    let ((server, site), s3) = (filled(311, 2), Garage::start());
    let gate = Gate::start(s3.port());
    // Garage knows no right to write without the right to delete.
    let (writer, secret) = s3.new_key(true, true);
    let (pruner, pruner_secret) = s3.new_key(true, true);
    let only_pruner = {
        let writer = writer.clone();
        move |asked: &Asked| {
            let refused = deletes(asked) && signed_by(asked, &writer);
            if refused { Fate::Answer(403, DENIED.to_owned()) } else { Fate::Pass }
        }
    };
    gate.set(only_pruner.clone());
    site.secret("s3-secret", &secret);
    site.secret("prune-secret", "this-is-not-the-secret");
    let section = remote::s3_section(&gate.endpoint(), s3.region(), s3.bucket(), &writer).replace(
        "retry-for",
        &format!(
            "keep = {{ last = 1 }}\nprune-access-key-id = \"{pruner}\"\nprune-secret-access-key = {{ file = \"prune-secret\" }}\nretry-for"
        ),
    );
    remote::add(&site, &section, &["bucket"]);
    let kept = || {
        let back = s3.download(&site.path("back"));
        let mut names: Vec<_> = std::fs::read_dir(back.join(".cdrvault/versions/ar_cdr/2026-01-01"))
            .map(|found| found.map(|entry| entry.unwrap().file_name().into_string().unwrap()[..5].to_owned()).collect())
            .unwrap_or_default();
        names.sort();
        let receipts = std::fs::read_dir(back.join(".cdrvault/manifests/ar_cdr/2026-01-01")).unwrap().count();
        (names, receipts)
    };
    site.ok("run", &[]);
    rate_again(&server, "2026-01-01");
    site.ok("run", &[]);
    assert_eq!(gate.asked().iter().filter(|asked| deletes(asked)).count(), 0, "there was nothing to prune");
    assert_eq!(kept(), (vec!["g0001".to_owned()], 2));

    // A wrong key: the backup goes on, and nothing is lost.
    rate_again(&server, "2026-01-01");
    let said = site.ok("run", &[]);
    for part in ["bucket", "is not pruned", "prune-access-key-id", "prune-secret-access-key"] {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    let said = site.run("prune", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("correct `prune-access-key-id` and `prune-secret-access-key`"), "{}", said.err);
    // It can be known before, and is what a run warns of.
    let said = site.ok("validate", &["--connect"]);
    let told = format!("{}{}", said.out, said.err);
    assert!(told.contains("pruning of sink bucket: ") && told.contains("correct `prune-access-key-id`"), "{told}");
    assert!(!(said.out + &said.err).contains("this-is-not-the-secret"));
    assert_eq!(kept(), (vec!["g0001".to_owned(), "g0002".to_owned()], 3));
    site.ok("verify", &[]);

    // The right one.
    site.secret("prune-secret", &pruner_secret);
    gate.set(only_pruner);
    let said = site.ok("validate", &["--connect"]);
    assert!(!format!("{}{}", said.out, said.err).contains("pruning of"), "{}", said.err);
    rate_again(&server, "2026-01-01");
    let said = site.ok("run", &[]);
    assert_eq!(said.err, "");
    assert_eq!(kept(), (vec!["g0003".to_owned()], 2));
    let asked = gate.asked();
    let tried: Vec<&Asked> = asked.iter().filter(|asked| deletes(asked)).collect();
    assert!(!tried.is_empty() && tried.iter().all(|asked| signed_by(asked, &pruner)), "{tried:?}");
    let others: Vec<&Asked> = asked.iter().filter(|asked| !deletes(asked) && signed_by(asked, &pruner)).collect();
    assert!(others.is_empty(), "that key does nothing else: {others:?}");
    python::compare(&server, &s3.download(&site.path("back")), false).unwrap();
    site.ok("verify", &["--against-source"]);
}

#[test]
fn what_object_lock_retains_outlives_pruning_and_goes_when_it_may() {
    let ((server, site), s3) = (filled(312, 2), Moto::start());
    s3.versioned_bucket("locked", true);
    let retain = "s3.put_object_lock_configuration(Bucket='locked', ObjectLockConfiguration={'ObjectLockEnabled': 'Enabled', \
                  'Rule': {'DefaultRetention': {'Mode': 'GOVERNANCE', 'Days': 90}}})";
    s3.boto3(retain).unwrap();
    site.secret("s3-secret", s3.secret_key());
    let section = remote::s3_section(&s3.endpoint(), s3.region(), "locked", s3.access_key())
        .replace("retry-for", "keep = { last = 1 }\nretry-for");
    remote::add(&site, &section, &["bucket"]);
    // What is above 8 MiB goes in parts.
    std::fs::create_dir(site.path("etc")).unwrap();
    std::fs::write(site.path("etc/large"), vec![7; 9 << 20]).unwrap();
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.etc]\nsource.files = {{ path = \"etc\" }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\", \"bucket\"]\n"
    ));
    for _ in 0..4 {
        let said = site.ok("run", &[]);
        assert_eq!(said.err, "", "a lock causes no warning");
        rate_again(&server, "2026-01-01");
    }
    let count = r"
import hashlib
def versions():
    found = s3.list_object_versions(Bucket='locked', Prefix='site/.cdrvault/versions/ar_cdr/')
    return found.get('Versions', []), found.get('DeleteMarkers', [])
bodies, markers = versions()
current = [one for one in bodies if one['IsLatest']]
gone = [one for one in bodies if not one['IsLatest']]
assert (len(current), len(gone), len(markers)) == (1, 2, 2), (current, gone, markers)
for one in bodies:
    body = s3.get_object(Bucket='locked', Key=one['Key'], VersionId=one['VersionId'])
    assert body['ObjectLockMode'] == 'GOVERNANCE', body
    sha256 = hashlib.sha256(body['Body'].read()).hexdigest()
    assert sha256.startswith(one['Key'].rsplit('-', 1)[1].split('.')[0]), 'whole'
for one in gone:
    try:
        s3.delete_object(Bucket='locked', Key=one['Key'], VersionId=one['VersionId'])
        raise SystemExit('a locked version was destroyed')
    except ClientError as error:
        assert error.response['Error']['Code'] == 'AccessDenied', error
";
    s3.boto3(count).unwrap();
    assert_eq!(site.ok("prune", &["-n"]).out.matches("remove").count(), 0, "what is a delete marker is gone for us");
    site.ok("verify", &[]);

    // What a lifecycle rule does when the time is over; who may lift the lock does it before.
    let expire = r"
import datetime
found = s3.list_object_versions(Bucket='locked', Prefix='site/.cdrvault/versions/ar_cdr/')
for one in [one for one in found['Versions'] if not one['IsLatest']]:
    s3.delete_object(Bucket='locked', Key=one['Key'], VersionId=one['VersionId'], BypassGovernanceRetention=True)
found = s3.list_object_versions(Bucket='locked', Prefix='site/.cdrvault/versions/ar_cdr/')
assert len(found['Versions']) == 1, found
";
    s3.boto3(expire).unwrap();
    site.ok("run", &[]);
    site.ok("verify", &["--against-source"]);
}

/// Some servers refuse to hide what is locked.
#[test]
fn a_lock_that_lets_nothing_be_removed_is_told_and_costs_no_backup() {
    let ((server, site), s3) = (filled(313, 2), Moto::start());
    let gate = Gate::start(s3.port());
    site.secret("s3-secret", s3.secret_key());
    let section = remote::s3_section(&gate.endpoint(), s3.region(), s3.bucket(), s3.access_key())
        .replace("retry-for", "keep = { last = 1 }\nretry-for");
    remote::add(&site, &section, &["bucket"]);
    for _ in 0..2 {
        site.ok("run", &[]);
        rate_again(&server, "2026-01-01");
    }
    gate.set(|asked: &Asked| {
        let locked = "<Error><Code>AccessDenied</Code>\
                      <Message>Access Denied because object protected by object lock.</Message></Error>";
        if deletes(asked) { Fate::Answer(403, locked.to_owned()) } else { Fate::Pass }
    });
    let said = site.ok("run", &[]);
    for part in ["bucket", "is not pruned", "protected by object lock", "see prune-access-key-id"] {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    let said = site.run("prune", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("protected by object lock"), "{}", said.err);
    site.ok("verify", &["--against-source"]);
    // When the lock is over, it goes.
    gate.set(|_: &Asked| Fate::Pass);
    let said = site.ok("prune", &[]);
    assert!(said.err.contains("bucket: 1 superseded versions removed"), "{}", said.err);
}

#[test]
fn a_server_whose_clock_is_far_off_is_written_to_and_not_pruned() {
    for (ahead, says) in [("+10d", "s ahead of ours"), ("-10d", " is -")] {
        let ((server, site), s3) = (filled(314, 2), Moto::start_with_clock(ahead));
        site.secret("s3-secret", s3.secret_key());
        let section = remote::s3_section(&s3.endpoint(), s3.region(), s3.bucket(), s3.access_key())
            .replace("retry-for", "keep = { superseded = \"1s\" }\nretry-for");
        remote::add(&site, &section, &["bucket"]);
        site.ok("run", &[]);
        rate_again(&server, "2026-01-01");
        site.ok("run", &[]);
        std::thread::sleep(std::time::Duration::from_millis(1500));
        for verb in ["run", "prune"] {
            let said = site.run(verb, &[]);
            assert_eq!(said.status, i32::from(verb == "prune"), "a backup goes on: {}", said.err);
            assert!(said.err.contains("nothing is pruned: the clock of s3://vault/site is"), "{verb}: {}", said.err);
            assert!(said.err.contains(says), "{verb}: {}", said.err);
        }
        let kept =
            "print(len(s3.list_objects_v2(Bucket='vault', Prefix='site/.cdrvault/versions/ar_cdr/')['Contents']))";
        assert_eq!(s3.boto3(kept).unwrap().trim(), "1", "nothing went");
        site.ok("verify", &["--against-source"]);
    }
}
