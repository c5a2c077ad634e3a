//! The demo, and every pipeline in `configs/`: each is loaded and run.

use std::path::Path;
use std::process::Command;

use crate::services;
use crate::services::garage::Garage;
use crate::services::home::{Said, Site, said};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::Rating;
use crate::services::sshd::Sshd;

fn cdrvault(args: &[&str], home: &Path) -> Said {
    said(Command::new(env!("CARGO_BIN_EXE_cdrvault")).current_dir(home).args(args).output().unwrap())
}

#[test]
fn the_demo_leaves_an_example_that_the_other_verbs_work_on() {
    let home = tempfile::tempdir().unwrap();
    let demo = cdrvault(&["demo", "--days", "5", "--calls-per-day", "300"], home.path());
    assert_eq!(demo.status, 0, "{}", demo.err);
    for part in
        ["10 partitions published", "2026-01-03 was rated again", "1 partition published", "times smaller", "Try next"]
    {
        assert!(demo.out.contains(part), "`{part}` is not in:\n{}", demo.out);
    }
    let left: Vec<String> = ["billing.sqlite", "pipeline.toml", "vault"]
        .iter()
        .filter(|name| !home.path().join("cdrvault-demo").join(name).exists())
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(left, Vec::<String>::new());
    let pipeline = "cdrvault-demo/pipeline.toml";
    let status = cdrvault(&["status", pipeline, "--max-age", "1h"], home.path());
    assert_eq!(status.status, 0, "{}", status.err);
    assert!(status.out.contains("up to date"), "{}", status.out);
    let aged = cdrvault(&["status", pipeline, "--max-age", "0s"], home.path());
    assert_eq!(aged.status, 1);
    assert!(aged.err.contains("ago"), "{}", aged.err);
    assert!(cdrvault(&["history", pipeline], home.path()).out.matches("done").count() >= 3);
    assert!(cdrvault(&["snapshots", pipeline, "--day", "2026-01-03", "--all"], home.path()).out.contains("g0002"));
    assert_eq!(cdrvault(&["run", pipeline, "-n"], home.path()).out, "nothing to do\n");
    assert_eq!(cdrvault(&["validate", pipeline, "--connect"], home.path()).status, 0);
    // The same seed gives the same database; a second demo does not overwrite the first.
    let again = cdrvault(&["demo"], home.path());
    assert_eq!(again.status, 1);
    assert!(again.err.contains("is not empty"), "{}", again.err);
}

/// Paths and the server are those of this test; nothing else is changed.
#[test]
fn every_pipeline_in_configs_runs_as_it_is() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(71, 2, 20).fill(&server);
    // What dumps need besides.
    server.app(
        "GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'; GRANT SELECT ON mysql.* TO cdrvault@'127.0.0.1';
         INSERT INTO ar_params () VALUES ();",
    );
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(configs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        let site = Site::on(&server);
        let here = site.home.path().display().to_string();
        let mut text = std::fs::read_to_string(&path).unwrap();
        let far = |name: &str| format!("@127.0.0.1{name}");
        let there = format!("{}{}", far(":"), ssh.directory().join(format!("{name}-mirror")).display());
        let history = format!("{}{}", far("::"), ssh.directory().join(format!("{name}-rdiff")).display());
        let key =
            "ssh    = { identity-file = \"/etc/cdrvault/id_ed25519\", known-hosts = \"/etc/cdrvault/known_hosts\" }\n";
        for (from, to) in [
            ("cdr@backup.example.net:/srv/cdr/mirror", format!("{}{there}", ssh.user())),
            ("cdr@backup.example.net::/srv/cdr/rdiff", format!("{}{history}", ssh.user())),
            (key, services::remote::ssh_options(&ssh)),
            ("s3://cdr-archive/asterisell", format!("s3://{}/example", s3.bucket())),
            ("https://s3.example.net", s3.endpoint()),
            ("eu-south-1", s3.region().to_owned()),
            ("AKIAEXAMPLE", s3.access_key().to_owned()),
        ] {
            text = text.replace(from, &to);
        }
        for place in ["/var/lib/", "/var/backups/", "/etc", "/srv/"] {
            text = text.replace(&format!("\"{place}"), &format!("\"{here}{place}"));
        }
        text = text.replace("mysql://cdrvault@127.0.0.1/asterisell", &server.url());
        for directory in [
            "etc/cdrvault",
            "var/lib/cdrvault",
            "var/backups",
            "srv/asterisell/web/uploads",
            "srv/asterisell-management/fabric_data/rome",
            "srv/asterisell-management/customizations",
            "srv/asterisell-management/source",
        ] {
            std::fs::create_dir_all(site.path(directory)).unwrap();
        }
        site.secret("etc/cdrvault/billing.password", services::mariadb::PASSWORD);
        site.secret("etc/cdrvault/s3.secret", s3.secret_key());
        for file in [
            "srv/asterisell/web/uploads/logo.png",
            "srv/asterisell-management/asterisell_instances.py",
            "srv/asterisell-management/passwords.ini",
            "srv/asterisell-management/fabric_data/rome/key",
            "srv/asterisell-management/source/of-asterisell.php",
        ] {
            std::fs::write(site.path(file), file).unwrap();
        }
        if text.contains("sqlite:") {
            assert_eq!(
                cdrvault(&["demo", "--dir", "demo", "--days", "3", "--calls-per-day", "20"], site.home.path()).status,
                0
            );
            std::fs::copy(site.path("demo/billing.sqlite"), site.path("billing.sqlite")).unwrap();
        }
        site.pipeline(&switched_on(&text));
        site.ok("validate", &[]);
        site.pipeline(&text);
        site.ok("validate", &[]);
        site.ok("validate", &["--connect"]);
        site.ok("run", &[]);
        let said = site.ok("snapshots", &["--json"]);
        let listed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert!(listed["snapshots"].as_array().unwrap().len() >= 2, "{}: {}", path.display(), said.out);
        assert_eq!(site.published(), Vec::<String>::new(), "{}: a second run has nothing to do", path.display());
        if name == "management-host" {
            let back = site.path("back");
            site.ok("restore", &["--from-sink", "mirror", "--into", &format!("dir:{}", back.display())]);
            assert!(back.join("management/fabric_data/rome/key").exists());
            assert!(!back.join("management/source").exists(), "it is not named by `include`");
        }
    }
    assert!(seen >= 5, "there are {seen} pipelines in configs/");
}

/// With the options that a line switches on by losing its `#`; comments have a space after theirs.
fn switched_on(text: &str) -> String {
    let option = |line: &str| line.starts_with(|first: char| first == '[' || first.is_ascii_lowercase());
    text.lines()
        .map(|line| line.strip_prefix('#').filter(|line| option(line)).unwrap_or(line).to_owned() + "\n")
        .collect()
}

/// What the comment at the beginning of `configs/sqlite-demo.toml` says to type.
#[test]
fn the_sqlite_demo_goes_as_its_comment_says() {
    let home = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/sqlite-demo.toml")).unwrap();
    std::fs::write(home.path().join("sqlite-demo.toml"), &text).unwrap();
    let path = Path::new(env!("CARGO_BIN_EXE_cdrvault")).parent().unwrap().display().to_string();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    let lines = text.lines().take_while(|line| line.starts_with('#')).filter_map(|line| line.strip_prefix("#   "));
    let mut typed = 0;
    for line in lines {
        let (line, _) = line.split_once("  ").unwrap();
        let done = Command::new("sh").args(["-c", line]).current_dir(home.path()).env("PATH", &path).output().unwrap();
        let done = said(done);
        assert_eq!(done.status, 0, "{line}: {}{}", done.out, done.err);
        typed += 1;
    }
    assert_eq!(typed, 6);
    assert!(home.path().join("cdrvault-demo/second/ar_cdr").is_dir(), "the second place is filled again");
}

#[test]
fn help_and_wrong_usage() {
    let home = tempfile::tempdir().unwrap();
    for verb in [
        "run",
        "replay",
        "status",
        "history",
        "snapshots",
        "validate",
        "stages",
        "schema",
        "init",
        "demo",
        "restore",
        "verify",
        "prune",
        "completions",
        "man",
    ] {
        let said = cdrvault(&[verb, "--help"], home.path());
        assert_eq!(said.status, 0);
        assert!(said.out.contains("Example"), "{verb} --help has no example:\n{}", said.out);
    }
    assert_eq!(cdrvault(&["no-such-verb"], home.path()).status, 2);
    assert_eq!(cdrvault(&["run"], home.path()).status, 2);
    let missing = cdrvault(&["run", "./nowhere.toml"], home.path());
    assert_eq!(missing.status, 1, "{}", missing.err);
    assert!(missing.err.contains("nowhere.toml"), "{}", missing.err);
    std::fs::write(home.path().join("broken.toml"), "name = \"x\"\nsinkz = 1\n").unwrap();
    let broken = cdrvault(&["run", "./broken.toml"], home.path());
    assert_eq!(broken.status, 78, "{}", broken.err);
    assert!(broken.err.contains("broken.toml:2:1"), "{}", broken.err);
}
