//! What is wrong with a sink is told, with its place and what to do, and leaves what was there.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::live_of;
use crate::services::garage::Garage;
use crate::services::home::{Said, Site, filled, said};
use crate::services::mariadb::{self, MariaDb};
use crate::services::moto::Moto;
use crate::services::rating::{owed, rate_again};
use crate::services::sshd::Sshd;
use crate::services::{files, python, remote, tls};

#[test]
fn options_that_cannot_work_are_told_with_their_place() {
    let (_server, site) = filled(121, 4);
    let wrong = [
        ("rsync", "mirror = \"vault\"\nto = \"-oProxyCommand=touch@x:y\"", "this is not `USER@HOST`"),
        ("rsync", "mirror = \"vault\"\nto = \"host:a$(touch x)\"", "another character with a meaning to shells"),
        ("rsync", "mirror = \"vault\"\nto = \"/mnt/b\"\nssh = { port = 22 }", "`ssh` is for targets of the form"),
        ("rsync", "mirror = \"vault\"\nto = \"h:b\"\npassword = { env = \"X\" }", "`password` is for an rsync daemon"),
        ("rdiff", "mirror = \"vault\"\nto = \"me@host:path\"", "neither `USER@HOST::PATH` nor an absolute path"),
        (
            "rdiff",
            "mirror = \"vault\"\nto = \"h::p\"\nkeep = { last = 3 }",
            "`last` does not work in a sink of kind `rdiff`",
        ),
        ("s3", "url = \"https://bucket/x\"", "this is not the URL of a bucket"),
        ("s3", "url = \"s3://b\"\naccess-key-id = \"AK\"", "`access-key-id` needs `secret-access-key`"),
        ("s3", "url = \"s3://b\"\nstorage-class = \"DEEP_ARCHIVE\"", "`storage-class` cannot be `DEEP_ARCHIVE`"),
        ("s3", "url = \"s3://b\"\nkms-key = \"k\"", "`kms-key` is for `encryption = \"aws:kms\"`"),
        ("s3", "url = \"s3://b\"\nendpoint = \"ftp://host\"", "this is not an endpoint"),
        ("s3", "url = \"s3://b\"\nkeep = {}", "`keep` is empty"),
    ];
    let sections = wrong.iter().enumerate();
    let sections: String =
        sections.map(|(n, (kind, options, _))| format!("[sink.s{n}.{kind}]\n{options}\n\n")).collect();
    remote::add(&site, &sections, &[]);
    let said = site.run("validate", &[]);
    assert_eq!(said.status, 78, "{}", said.err);
    for (_, options, message) in wrong {
        assert!(said.err.contains(message), "`{message}` is not in:\n{}", said.err);
        let last = options.lines().last().unwrap();
        assert!(said.err.contains(last), "the line `{last}` is not shown:\n{}", said.err);
    }
    assert_eq!(said.err.matches("\nerror: ").count() + 1, wrong.len(), "one error each:\n{}", said.err);
}

/// Runs what must fail in one sink only: the vault gets the day, the debt stays.
fn refused(site: &Site, server: &MariaDb, says: &[&str]) -> Said {
    rate_again(server, "2026-01-01");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    for part in says {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    python::compare(server, &site.vault(), false).expect("the vault gets the day");
    assert!(owed(server) > 0, "the debt stays");
    said
}

#[test]
fn what_is_wrong_with_ssh_is_told() {
    let ((server, site), mut ssh) = (filled(61, 4), Sshd::start());
    remote::add(&site, &(remote::rsync(&ssh) + &remote::rdiff(&ssh)), &["mirror", "offsite"]);
    site.ok("run", &[]);
    let good = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let before = files(&ssh.directory());

    let other = ssh.other_identity();
    site.edit(ssh.identity_file().to_str().unwrap(), other.to_str().unwrap());
    refused(&site, &server, &["does not accept our key", "authorized_keys", "mirror", "offsite"]);
    site.pipeline(&good);

    std::fs::write(site.path("nobody"), "").unwrap();
    let nobody = site.path("nobody");
    site.edit(ssh.known_hosts().to_str().unwrap(), nobody.to_str().unwrap());
    refused(&site, &server, &["host key of the other side is not known", "compare its fingerprint"]);
    site.pipeline(&good);

    site.edit(&format!("{}@127.0.0.1:", ssh.user()), "me@no-such-host.invalid:");
    refused(&site, &server, &["there is no such host", "correct the name of the host"]);
    site.pipeline(&good);

    ssh.change_host_key();
    refused(&site, &server, &["host key of the other side has changed", "find out why"]);
    assert_eq!(files(&ssh.directory()), before, "nothing was touched");
}

#[test]
fn a_full_disk_over_there_is_told_and_leaves_what_was_there() {
    let ((server, site), ssh) = (filled(71, 4), Sshd::start());
    let far = ssh.directory().join("rsync");
    std::fs::create_dir(&far).unwrap();
    let mounted =
        said(Command::new("mount").args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"]).arg(&far).output().unwrap());
    assert_eq!(mounted.status, 0, "{}", mounted.err);
    remote::add(&site, &remote::rsync(&ssh), &["mirror"]);
    site.ok("run", &[]);
    let full = far.join("full");
    let _ = std::fs::write(&full, vec![0; 600 << 10]);
    let before = live_of(&far, "2026-01-01");
    refused(&site, &server, &["No space left", "free some space there"]);
    assert_eq!(live_of(&far, "2026-01-01"), before);
    std::fs::remove_file(&full).unwrap();
    site.ok("run", &[]);
    python::compare(&server, &far, false).unwrap();
    assert!(Command::new("umount").arg("-l").arg(&far).status().unwrap().success());
}

/// Whose vault it is arrives before anything else: or the next run would not know it for its own.
#[test]
fn a_new_mirror_whose_first_transfer_was_cut_off_is_gone_on_with() {
    let ((server, site), ssh) = (filled(72, 4), Sshd::start());
    let far = ssh.directory().join("rsync");
    std::fs::create_dir(&far).unwrap();
    let mount = |options: &str| {
        let done =
            said(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&far).output().unwrap());
        assert_eq!(done.status, 0, "{}", done.err);
    };
    mount("size=32k");
    remote::add(&site, &remote::rsync(&ssh), &["mirror"]);
    let cut = site.run("run", &[]);
    assert_eq!(cut.status, 3, "{}", cut.err);
    assert!(cut.err.contains("No space left"), "{}", cut.err);
    let identity = ".cdrvault/vault.json";
    let there = std::fs::read(far.join(identity)).unwrap();
    assert!(there == std::fs::read(site.vault().join(identity)).unwrap());
    assert!(!far.join(".cdrvault/manifests").exists(), "no receipt without its object");
    mount("remount,size=8m");
    site.ok("run", &[]);
    python::compare(&server, &far, false).unwrap();
    assert!(Command::new("umount").arg("-l").arg(&far).status().unwrap().success());
}

#[test]
fn what_is_wrong_with_a_bucket_is_told() {
    let ((server, site), s3) = (filled(81, 4), Garage::start());
    remote::add(&site, &remote::s3(&s3, &site), &["bucket"]);
    site.ok("run", &[]);
    let good = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let before = s3.download(&site.path("before"));

    let (reads, secret) = s3.new_key(true, false);
    site.edit(s3.access_key(), &reads);
    site.secret("s3-secret", &secret);
    let said = refused(&site, &server, &["sink `bucket`", "s3://vault/site", "right to list, read and write"]);
    assert!(!said.err.contains(&secret));
    site.pipeline(&good);

    site.secret("s3-secret", "0123456789wrong-canary");
    let said = refused(&site, &server, &["correct `access-key-id` and `secret-access-key`"]);
    assert!(!said.err.contains("wrong-canary"));
    site.secret("s3-secret", s3.secret_key());

    site.edit("region = \"garage\"", "region = \"eu-nowhere-1\"");
    refused(&site, &server, &["correct `region`"]);
    site.pipeline(&good);

    site.edit("s3://vault/site", "s3://no-such-bucket/site");
    refused(&site, &server, &["make the bucket"]);
    site.pipeline(&good);

    let after = s3.download(&site.path("after"));
    let names =
        |root: &Path| files(root).iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "nothing was touched");
    site.ok("run", &[]);
    python::compare(&server, &s3.download(&site.path("back")), false).unwrap();
}

#[test]
fn certificates_that_are_expired_or_unknown_are_refused() {
    let (server, site) = filled(91, 4);
    let tls = tls::Tls::start(&site.path("tls"));
    site.secret("s3-secret", "never-sent-canary");
    for (port, authority, says) in [
        (tls.expired, "tls/ca.pem", ["expired", "renew the server's certificate"]),
        (tls.good, "tls/other-ca.pem", ["certificate", "tls-ca"]),
        (tls.other_name, "tls/ca.pem", ["certificate", "correct `endpoint`"]),
    ] {
        let plain = Site::text(&server.url());
        site.pipeline(&plain);
        let section = remote::s3_section(&format!("https://127.0.0.1:{port}"), "x", "vault", "key");
        let section = section.replace("retry-for", &format!("tls-ca = \"{authority}\"\nretry-for"));
        remote::add(&site, &section, &["bucket"]);
        let said = refused(&site, &server, &says);
        assert!(!said.err.contains("never-sent-canary"));
    }
}

#[test]
fn no_secret_is_seen_anywhere() {
    let ((server, site), ssh, s3) = (filled(101, 4), Sshd::start(), Garage::start());
    let sections = remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site);
    remote::add(&site, &sections, &["mirror", "offsite", "bucket"]);
    let canaries = [s3.secret_key().to_owned(), mariadb::PASSWORD.to_owned()];
    let mut run = site.command("run", &["-vv"]);
    run.env("RUST_LOG", "trace").stdout(Stdio::piped()).stderr(std::fs::File::create(site.path("log")).unwrap());
    let mut run = run.spawn().unwrap();
    let (mut looks, mut seen_rsync) = (0, false);
    while run.try_wait().unwrap().is_none() {
        for pid in std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let Ok(text) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let text = String::from_utf8_lossy(&text).into_owned();
            seen_rsync |= text.starts_with("rsync\0");
            // The tests' own servers and clients are told theirs.
            let ours = text.contains("cdrvault\0run")
                || text.starts_with("rsync")
                || text.starts_with("ssh")
                || text.contains("rdiff-backup");
            assert!(!ours || canaries.iter().all(|canary| !text.contains(canary)), "in ps: {text}");
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(run.wait().unwrap().success());
    assert!(looks > 20 && seen_rsync, "{looks} looks");
    let clean =
        |what: &str, text: &str| assert!(canaries.iter().all(|canary| !text.contains(canary)), "in {what}: {text}");
    let look_at_files = || {
        let mut spooled = 0;
        for path in files(site.home.path()) {
            if path.ends_with("password") || path.ends_with("s3-secret") {
                continue;
            }
            spooled += u64::from(path.to_string_lossy().contains("/spool/"));
            clean(&path.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        }
        spooled
    };
    look_at_files();
    assert!(std::fs::metadata(site.path("log")).unwrap().len() > 0, "the log says nothing");
    // The spool of a run that was stopped when everything was sealed, and the words of runs that fail.
    rate_again(&server, "2026-01-01");
    let stopped = site.with_failpoint("run", "after-seal=abort");
    clean("what a stopped run says", &(stopped.out + &stopped.err));
    assert!(look_at_files() > 0, "nothing was in the spool");
    site.edit(&s3.endpoint(), "http://127.0.0.1:9");
    site.edit("asterisell\"", "asterisk\"");
    for more in [&["-vv"][..], &["--json"], &["--log-format", "json", "-vv"]] {
        let failed = site.run("run", more);
        assert_ne!(failed.status, 0);
        clean("what a failing run says", &(failed.out + &failed.err));
    }
    let shown = site.run("validate", &["--connect", "-vv"]);
    clean("what validate says", &(shown.out + &shown.err));
}

#[test]
fn versioned_buckets_and_object_lock_are_respected() {
    let ((server, site), s3) = (filled(111, 4), Moto::start());
    s3.versioned_bucket("locked", true);
    site.secret("s3-secret", s3.secret_key());
    let section = remote::s3_section(&s3.endpoint(), s3.region(), "locked", s3.access_key())
        .replace("[sink.bucket.s3]\n", "[sink.bucket.s3]\nkeep = { last = 1 }\n");
    remote::add(&site, &section, &["bucket"]);
    site.ok("run", &[]);
    for _ in 0..3 {
        rate_again(&server, "2026-01-01");
        site.ok("run", &[]);
    }
    let script = r#"
names = [found["Key"] for found in s3.list_objects_v2(Bucket="locked", Prefix="site/.cdrvault/versions/ar_cdr").get("Contents", [])]
print(len(names))
versions = s3.list_object_versions(Bucket="locked", Prefix="site/.cdrvault/versions/ar_cdr")
print(len(versions.get("DeleteMarkers", [])))
"#;
    assert_eq!(s3.boto3(script).unwrap(), "1\n2\n", "one version stays; of two there is a delete marker");
}
