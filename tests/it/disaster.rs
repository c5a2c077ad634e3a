//! The server is gone with everything on it, and comes back from each sink in turn: the procedure of
//! docs/disaster-recovery.md.

use std::process::Command;

use crate::services;
use crate::services::garage::Garage;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::{Rating, transaction};
use crate::services::remote;
use crate::services::sshd::Sshd;

/// Everything of the database but the queue of changed days, as the server tells it.
fn dumped(server: &MariaDb) -> String {
    let all = services::described::described(server, "asterisell");
    let told: Vec<String> = all.into_iter().filter(|line| !line.contains("`ar_daily_status_change`: ")).collect();
    told.join("\n")
}

/// Some rows in every table, and one of everything else that a database has.
fn populate(server: &MariaDb) {
    Rating::new(301, 4, 50).fill(server);
    for table in server.app("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'").lines() {
        let table = table.split('\t').next().unwrap();
        if !["ar_cdr", "ar_source_cdr", "ar_daily_status_change", "ar_daily_status_job"].contains(&table) {
            server.app(&format!("SET SESSION sql_mode = ''; INSERT IGNORE INTO `{table}` () VALUES ();"));
        }
    }
    let blobs = "SELECT CONCAT(table_name, ' ', column_name) FROM information_schema.columns WHERE table_schema = 'asterisell' \
                 AND data_type IN ('longblob', 'mediumblob', 'blob')";
    for blob in server.app(blobs).lines() {
        let (table, column) = blob.split_once(' ').unwrap();
        let bytes: String = (0..=255).map(|byte| format!("{byte:02X}")).collect();
        server.app(&format!("UPDATE `{table}` SET `{column}` = REPEAT(X'{bytes}', 300)"));
    }
    server.app(
        "SET SESSION sql_mode = 'ALLOW_INVALID_DATES';
         CREATE VIEW calls_a_day AS SELECT DATE(calldate) AS day, COUNT(*) AS calls FROM ar_cdr GROUP BY 1;
         CREATE FUNCTION half(x INT) RETURNS INT DETERMINISTIC RETURN x / 2;
         CREATE EVENT nothing ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1;
         CREATE TABLE odd (`a``b` VARCHAR(40) CHARACTER SET latin1, d DATE, b BIT(3), PRIMARY KEY (`a``b`)) COMMENT = 'it''s; ) ENGINE=TokuDB';
         INSERT INTO odd VALUES ('caf\u{e9}\\n) ENGINE=TokuDB', '2024-02-31', 5), ('CREATE TABLE `x`\\r\\n-- cdrvault: accounts of this database', '0000-00-00', 1);
         UPDATE ar_cdr SET to_calldate = '0000-00-00', imported_info = 'tab\\there' LIMIT 5;",
    );
    services::described::fill(server);
    server.app("DROP VIEW broken");
}

const FLOWS: &str = r#"
[flow.configurations]
source.dump = { database = "billing", tables = "configuration" }
transforms = ["incremental", { compress = "zstd(9)" }]
sinks = ["vault"]

[flow.reports]
source.dump = { database = "billing", tables = "reports" }
transforms = ["incremental", "compress"]
sinks = ["vault"]

[flow.etc]
source.files = { path = "etc", exclude = ["shadow*"] }
transforms = ["incremental", "compress"]
sinks = ["vault"]

[flow.uploads]
source.files = { path = "uploads" }
transforms = ["incremental"]
sinks = ["vault"]
"#;

#[test]
fn a_new_server_is_what_the_old_one_was_from_each_sink_alone() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    populate(&server);
    server.app(
        "GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1';
         GRANT SELECT ON mysql.* TO cdrvault@'127.0.0.1';
         CREATE USER phone@'10.0.0.%' IDENTIFIED BY 'rings'; GRANT SELECT, INSERT ON asterisell.* TO phone@'10.0.0.%';
         CREATE USER stranger@localhost IDENTIFIED BY 'x';",
    );
    let site = Site::on(&server);
    for (path, content) in
        [("etc/a.conf", "a"), ("etc/deep/b.conf", "b"), ("etc/shadow", "secret"), ("uploads/logo.png", "\u{0}png")]
    {
        std::fs::create_dir_all(site.path(path).parent().unwrap()).unwrap();
        std::fs::write(site.path(path), content).unwrap();
    }
    std::os::unix::fs::symlink("a.conf", site.path("etc/link")).unwrap();
    site.pipeline(&(std::fs::read_to_string(site.path("pipeline.toml")).unwrap() + FLOWS));
    let sections = remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site);
    remote::add(&site, &sections, &["mirror", "offsite", "bucket"]);
    site.ok("run", &[]);
    // Nothing changed: a dump with the same content is not a new generation.
    assert_eq!(site.published(), Vec::<String>::new());
    server.app("INSERT INTO odd VALUES ('late', NULL, 2)");
    assert_eq!(site.published(), ["configurations snapshot"]);
    site.ok("verify", &[]);
    let (before, url) = (dumped(&server), server.url());
    let trees = ["etc", "uploads"].map(|tree| listed(&site.path(tree)));
    drop(server);
    assert!(before.contains("calls_a_day") && before.contains("half") && before.contains("EVENT"), "{before}");

    // What the run said of the lost server does not help: the vault is on another disk, or another host.
    let said = site.run("run", &[]);
    assert_ne!(said.status, 0);
    assert!(said.err.contains(url.rsplit(':').next().unwrap().split('/').next().unwrap()), "{}", said.err);
    let bucket = format!("s3://{}/site", s3.bucket());
    let far =
        |colon: &str, name: &str| format!("{}@127.0.0.1{colon}{}", ssh.user(), ssh.directory().join(name).display());
    let vaults = [
        ("vault", site.vault().display().to_string()),
        ("mirror", far(":", "rsync")),
        ("offsite", far("::", "rdiff")),
        ("bucket", bucket),
    ];
    // The new machine has the program, an ssh that knows the backup host, and what the tools of AWS take from the
    // environment; no pipeline, no state.
    let path = remote::ssh_that_knows(&ssh, &site.path("bin"));
    let bare = |verb: &str, vault: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdrvault"));
        command.current_dir("/").args([verb, "--vault", vault]).args(more).env("PATH", &path);
        command.envs([("AWS_ENDPOINT_URL", s3.endpoint().as_str()), ("AWS_REGION", s3.region())]);
        command.envs([("AWS_ACCESS_KEY_ID", s3.access_key()), ("AWS_SECRET_ACCESS_KEY", s3.secret_key())]);
        let said = services::home::said(command.output().unwrap());
        assert_eq!(said.status, 0, "{verb} --vault {vault}: {}\n{}", said.out, said.err);
        said
    };
    let mut last = None;
    for (sink, vault) in &vaults {
        if *sink == "mirror" {
            std::fs::rename(site.vault(), site.path("lost")).unwrap();
            std::fs::remove_dir_all(site.path("state")).unwrap();
        }
        bare("verify", vault, &[]);
        let new = MariaDb::start(Engine::InnoDb);
        new.sql("", "DROP DATABASE asterisell; DROP USER cdrvault@'127.0.0.1';");
        new.sql("", "CREATE DATABASE asterisell CHARACTER SET latin1");
        let into = format!("mysql://root@localhost/asterisell?socket={}", new.socket().display());
        let whole = ["--into", &into, "--accounts", "--replace-engine", "--allow-triggers"];
        let said = bare("restore", vault, &whole);
        assert!(said.err.contains("etc: ") && said.err.contains("cannot take it"), "{}", said.err);
        let after = dumped(&new);
        if after != before {
            let differs = before.lines().zip(after.lines()).find(|(a, b)| a != b);
            panic!("{sink}: {differs:.600?}");
        }
        assert!(new.sql("", "SHOW GRANTS FOR phone@'10.0.0.%'").contains("SELECT, INSERT ON `asterisell`"));
        assert!(
            new.try_sql("", "SHOW GRANTS FOR stranger@localhost").is_err(),
            "it has nothing to do with this database"
        );
        let back = site.path(&format!("back-{sink}"));
        let into = format!("dir:{}", back.display());
        bare("restore", vault, &["--flow", "etc", "--flow", "uploads", "--into", &into]);
        bare("restore", vault, &["--flow", "reports", "--into", &into]);
        assert!(!back.join("etc/shadow").exists());
        std::fs::write(back.join("etc/shadow"), "secret").unwrap();
        assert!(["etc", "uploads"].map(|tree| listed(&back.join(tree))) == trees, "{sink}");
        assert!(
            std::fs::read_to_string(back.join("reports/reports.sql")).unwrap().contains("CREATE TABLE `ar_report`")
        );
        // The calls alone, once more, over what is there.
        new.app("DELETE FROM ar_cdr WHERE calldate >= '2026-01-02'");
        let into = format!("mysql://root@localhost/asterisell?socket={}", new.socket().display());
        site.ok(
            "restore",
            &["--from-sink", sink, "--into", &into, "--allow-triggers", "--flow", "ar_cdr", "--day", "2026-01-03"],
        );
        assert_eq!(
            new.app(
                "SELECT COUNT(*), MIN(DATE(calldate)), MAX(DATE(calldate)) FROM ar_cdr WHERE calldate > '2026-01-02'"
            )
            .trim(),
            "50\t2026-01-03\t2026-01-03"
        );
        // Run again, it goes on.
        let into = format!("mysql://root@localhost/asterisell?socket={}", new.socket().display());
        bare("restore", vault, &["--into", &into, "--accounts", "--replace-engine", "--allow-triggers"]);
        last = Some(new);
    }
    // The job of the new host, with the vault of the old one.
    let new = last.unwrap();
    std::fs::rename(site.path("lost"), site.vault()).unwrap();
    site.edit(&url, &new.url());
    site.ok("run", &["--adopt-vault"]);
    site.ok("verify", &["--against-source"]);
}

fn listed(root: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(
                listed(&path)
                    .into_iter()
                    .map(|(below, content)| (std::path::Path::new(path.file_name().unwrap()).join(below), content)),
            );
        } else {
            let content = std::fs::read_link(&path)
                .map_or_else(|_| std::fs::read(&path).unwrap(), |link| link.into_os_string().into_encoded_bytes());
            all.push((path.file_name().unwrap().into(), content));
        }
    }
    all.sort();
    all
}

#[test]
fn a_dump_is_made_without_other_programs_and_names_what_it_may_not_read() {
    let server = MariaDb::start(Engine::InnoDb);
    populate(&server);
    let site = Site::on(&server);
    site.pipeline(&(std::fs::read_to_string(site.path("pipeline.toml")).unwrap() + FLOWS));
    std::fs::create_dir_all(site.path("etc")).unwrap();
    std::fs::create_dir_all(site.path("uploads")).unwrap();
    // Without the rights for it: what may not be read is named.
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("view `calls_a_day` is not in the dump"), "{}", said.err);
    for what in ["triggers", "events", "routines"] {
        assert!(said.err.contains(&format!("{what} may be missing in the dump")), "{}", said.err);
    }
    assert!(site.vault().join("ar_cdr/day=2026-01-01").exists());
    server.app("GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'; GRANT SELECT ON mysql.proc TO cdrvault@'127.0.0.1';");
    site.ok("run", &[]);
    // No program is needed for it; and patterns choose among the tables.
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.chosen]\nsource.dump = {{ database = \"billing\", include = [\"ar_params\", \"od*\"], exclude = [\"*s\"] }}\n\
         transforms = [\"incremental\"]\nsinks = [\"vault\"]\n"
    ));
    server.app("INSERT INTO ar_params (name) VALUES ('a param')");
    let run = site.command("run", &["--flow", "chosen"]).env("PATH", "/nonexistent").output().unwrap();
    let run = services::home::said(run);
    assert_eq!(run.status, 0, "{}", run.err);
    let chosen = std::fs::read(site.vault().join("chosen/chosen.sql")).unwrap();
    let chosen = String::from_utf8_lossy(&chosen);
    assert!(
        chosen.contains("INSERT INTO `odd`") && chosen.contains("CREATE TABLE IF NOT EXISTS `ar_params`"),
        "{chosen}"
    );
    assert!(!chosen.contains("INSERT INTO `ar_"), "{chosen}");
    site.pipeline(&text);

    // A restore of the configuration leaves the calls of a server alone.
    let calls = server.app("SELECT COUNT(*), SUM(id) FROM ar_cdr");
    server.app("DELETE FROM ar_params; DROP TABLE odd;");
    let into = format!("mysql://root@localhost/asterisell?socket={}", server.socket().display());
    site.ok("restore", &["--from-sink", "vault", "--flow", "configurations", "--into", &into]);
    assert_eq!(server.app("SELECT COUNT(*), SUM(id) FROM ar_cdr"), calls);
    assert_eq!(server.app("SELECT COUNT(*) FROM odd").trim(), "2");
    assert_ne!(server.app("SELECT COUNT(*) FROM ar_params").trim(), "0");
    assert!(server.app(&transaction("SELECT half(8);", &["2026-01-01"])).starts_with('4'));

    // The engine of yesterday: the same dump, as an old server would have made it.
    let dump = site.vault().join("configurations/configurations.sql.zst");
    let text = zstd::decode_all(std::fs::File::open(dump).unwrap()).unwrap();
    let old = services::described::of_tokudb(&text);
    let stored = zstd::encode_all(old.as_slice(), 1).unwrap();
    services::described::replace(&site, "configurations/configurations.sql.zst", &old, &stored);
    let refused = site.run("restore", &["--from-sink", "vault", "--flow", "configurations", "--into", &into]);
    assert_eq!(refused.status, 1, "the server has no TokuDB: {}", refused.out);
    site.ok("restore", &["--from-sink", "vault", "--flow", "configurations", "--into", &into, "--replace-engine"]);
    assert_eq!(server.app("SELECT COUNT(*) FROM odd").trim(), "2");
    assert!(server.app("SHOW CREATE TABLE odd").contains("ENGINE=InnoDB"));
}
