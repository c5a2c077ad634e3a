//! What a restore must not do unseen: leave the application untold, let triggers change rows, leave half a day or a file.

use crate::services::home::{Said, Site, said};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::{Rating, owed};

/// An account that may do what it is granted, and a target that uses it.
fn account(server: &MariaDb, site: &Site, database: &str, grants: &[&str]) -> Vec<String> {
    server.app("CREATE USER IF NOT EXISTS guard@'127.0.0.1' IDENTIFIED BY 'guard-secret'");
    for grant in grants {
        server.app(&format!("GRANT {grant} TO guard@'127.0.0.1'"));
    }
    site.secret("guard", "guard-secret");
    let url = format!("mysql://guard@127.0.0.1:{}/{database}", server.port());
    let password = site.path("guard").display().to_string();
    ["--from-sink", "vault", "--into", &url, "--password-file", &password].map(str::to_owned).to_vec()
}

fn restore(site: &Site, target: &[String], more: &[&str]) -> Said {
    let arguments: Vec<&str> = target.iter().map(String::as_str).chain(more.iter().copied()).collect();
    site.run("restore", &arguments)
}

#[track_caller]
fn ended(said: &Said, status: i32, says: &[&str]) {
    assert_eq!(said.status, status, "{}\n{}", said.out, said.err);
    for text in says {
        assert!(said.err.contains(text), "`{text}` is not in: {}", said.err);
    }
}

fn cost_of(server: &MariaDb) -> String {
    server.app("SELECT SUM(CRC32(CONCAT_WS('|', calldate, id, cost, income))), COUNT(*) FROM ar_cdr")
}

fn served(number: u64, days: u64) -> (MariaDb, Site) {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(number, days, 40).fill(&server);
    server.app("DROP TRIGGER IF EXISTS fixture_source_cdr_kind");
    let site = Site::on(&server);
    site.ok("run", &[]);
    (server, site)
}

#[test]
fn an_account_that_cannot_tell_the_application_must_say_so() {
    let (server, site) = served(301, 2);
    let before = cost_of(&server);
    let rights = [
        "SELECT, INSERT, DELETE ON asterisell.ar_cdr",
        "SELECT, INSERT, DELETE ON asterisell.ar_source_cdr",
        "CREATE TEMPORARY TABLES ON asterisell.*",
    ];
    let target = account(&server, &site, "asterisell", &rights);
    server.app("UPDATE ar_cdr SET cost = 1");
    let mangled = cost_of(&server);
    for more in [&["-n"][..], &[]] {
        ended(&restore(&site, &target, more), 1, &["cannot be told of restored days", "--no-announce"]);
    }
    assert_eq!(cost_of(&server), mangled);
    ended(&restore(&site, &target, &["-n", "--no-announce"]), 0, &["will not be told"]);
    ended(&restore(&site, &target, &["--no-announce"]), 0, &["was not told"]);
    assert_eq!(cost_of(&server), before);
    assert_eq!(owed(&server), 0);
}

#[test]
fn a_trigger_that_changes_rows_does_not_change_a_day() {
    let (server, site) = served(302, 2);
    let before = cost_of(&server);
    let target = account(&server, &site, "asterisell", &["ALL ON asterisell.*"]);
    server.app("UPDATE ar_cdr SET cost = 1");
    let mangled = cost_of(&server);
    server.app("CREATE TRIGGER bends BEFORE INSERT ON ar_cdr FOR EACH ROW SET NEW.income = 5");
    ended(&restore(&site, &target, &["--allow-triggers"]), 3, &["trigger `bends`", "is not what was saved"]);
    assert_eq!(cost_of(&server), mangled, "the days are taken back");
    server.app("DROP TRIGGER bends");
    ended(&restore(&site, &target, &[]), 0, &[]);
    assert_eq!(cost_of(&server), before);
}

/// Even a strict server only notes that it cuts spaces off.
#[test]
fn a_warning_of_the_server_takes_the_day_back() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(321, 2, 40).fill(&server);
    server.app(
        "UPDATE ar_cdr SET imported_info = NULL; UPDATE ar_cdr SET imported_info = 'ab    ' ORDER BY calldate LIMIT 1",
    );
    let site = Site::on(&server);
    site.ok("run", &[]);
    let before = cost_of(&server);
    let target = account(&server, &site, "asterisell", &["ALL ON asterisell.*"]);
    let target = [&target[..], &["--flow".to_owned(), "ar_cdr".to_owned()]].concat();
    for harm in ["UPDATE ar_cdr SET cost = 1", "DELETE FROM ar_cdr"] {
        server.app(&format!("{harm}; UPDATE ar_cdr SET imported_info = NULL"));
        server.app("ALTER TABLE ar_cdr MODIFY imported_info VARCHAR(2) NULL");
        let says = ["ar_cdr 2026-01-01", "the server warns: Data truncated for column 'imported_info'"];
        ended(&restore(&site, &target, &[]), 3, &says);
        let first = "SELECT COUNT(*) FROM ar_cdr WHERE calldate < '2026-01-02' AND cost <> 1";
        assert_eq!(server.app(first).trim(), "0", "{harm}");
        server.app("ALTER TABLE ar_cdr MODIFY imported_info VARCHAR(4096) NULL");
        ended(&restore(&site, &target, &[]), 0, &[]);
        assert_eq!(cost_of(&server), before, "{harm}");
    }
}

#[test]
fn foreign_keys_need_a_flag_and_what_names_a_call_stays() {
    let (server, site) = served(322, 2);
    let before = cost_of(&server);
    let target = account(&server, &site, "asterisell", &["ALL ON asterisell.*"]);
    server.app(
        "CREATE TABLE noted (calldate DATETIME, id INT, kind TINYINT, CONSTRAINT of_a_call FOREIGN KEY (calldate, id, kind)
           REFERENCES ar_cdr (calldate, id, is_service_cdr) ON DELETE CASCADE);
         INSERT INTO noted SELECT calldate, id, is_service_cdr FROM ar_cdr;
         UPDATE ar_cdr SET cost = 1",
    );
    let mangled = cost_of(&server);
    let notes = server.app("SELECT COUNT(*) FROM noted");
    assert_ne!(notes.trim(), "0");
    ended(&restore(&site, &target, &[]), 1, &["foreign key `of_a_call` from `noted` to `ar_cdr`", "--allow-triggers"]);
    assert_eq!(cost_of(&server), mangled);
    ended(&restore(&site, &target, &["--allow-triggers"]), 0, &["foreign key `of_a_call`"]);
    assert_eq!(cost_of(&server), before);
    assert_eq!(server.app("SELECT COUNT(*) FROM noted"), notes);
}

#[test]
fn a_trigger_that_a_dump_brings_needs_the_flag_too() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(303, 2, 20).fill(&server);
    let site = Site::on(&server);
    with_dump(&site, "configuration");
    server.app("GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'; GRANT SELECT ON mysql.proc TO cdrvault@'127.0.0.1'");
    site.ok("run", &[]);
    server.app("CREATE DATABASE other");
    let target = account(&server, &site, "other", &["ALL ON *.*"]);
    ended(&restore(&site, &target, &[]), 3, &["table `ar_source_cdr` has trigger `fixture_source_cdr_kind`"]);
    assert_eq!(server.sql("other", "SELECT COUNT(*) FROM ar_source_cdr").trim(), "0");
    ended(&restore(&site, &target, &["--allow-triggers"]), 0, &["trigger `fixture_source_cdr_kind`"]);
    assert_ne!(server.sql("other", "SELECT COUNT(*) FROM ar_source_cdr").trim(), "0");
}

fn with_dump(site: &Site, tables: &str) {
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.dump]\nsource.dump = {{ database = \"billing\", tables = \"{tables}\" }}\n\
         transforms = [\"incremental\"]\nsinks = [\"vault\"]\n"
    ));
}

#[test]
fn a_table_without_transactions_is_refused() {
    let (server, site) = served(304, 1);
    let target = account(&server, &site, "asterisell", &["ALL ON asterisell.*"]);
    for engine in ["MyISAM", "Aria"] {
        server.app(&format!("ALTER TABLE ar_cdr ENGINE = {engine}"));
        ended(&restore(&site, &target, &["-n"]), 1, &["has no transactions", "ENGINE = InnoDB"]);
    }
}

#[test]
fn a_long_row_comes_back_and_one_longer_than_a_packet_is_told() {
    let (server, site) = served(305, 1);
    let target = account(&server, &site, "asterisell", &["ALL ON asterisell.*"]);
    server.app(
        "ALTER TABLE ar_source_cdr ADD bytes LONGBLOB, ADD letters LONGTEXT;
         UPDATE ar_source_cdr SET bytes = REPEAT(X'00FF275C', 2500000), letters = REPEAT('\u{fc}''', 1000000) ORDER BY id LIMIT 1;",
    );
    site.ok("replay", &["--from", "2026-01-01", "--to", "2026-01-03"]);
    let content = || server.app("SELECT calldate, id, MD5(bytes), MD5(letters) FROM ar_source_cdr ORDER BY 1, 2");
    let before = content();
    server.app("DELETE FROM ar_source_cdr");
    server.app("SET GLOBAL max_allowed_packet = 8388608");
    let said = restore(&site, &target, &["--flow", "ar_source_cdr"]);
    ended(&said, 1, &["max_allowed_packet"]);
    assert!(!said.err.contains("Broken pipe"), "{}", said.err);
    server.app("SET GLOBAL max_allowed_packet = 16777216");
    ended(&restore(&site, &target, &["--flow", "ar_source_cdr"]), 0, &[]);
    assert!(content() == before);

    // One that comes and goes in parts: a part has at most 16 MiB.
    server.app("SET GLOBAL max_allowed_packet = 67108864");
    server.app("UPDATE ar_source_cdr SET bytes = REPEAT(X'00FF275C', 5000000), letters = REPEAT('x', 17000000) ORDER BY id LIMIT 1");
    site.ok("replay", &["--from", "2026-01-01", "--to", "2026-01-03"]);
    let before = content();
    server.app("UPDATE ar_source_cdr SET bytes = NULL, letters = NULL");
    ended(&restore(&site, &target, &["--flow", "ar_source_cdr"]), 0, &[]);
    assert!(content() == before);
}

#[test]
fn rows_without_a_date_are_announced_to_us_alone() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(306, 1, 40).fill(&server);
    let site = Site::on(&server);
    server.app(
        "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'; INSERT INTO ar_source_cdr VALUES ('2024-02-31 05:00:00', 1, 1, 2, 'x', 0);
         INSERT INTO ar_daily_status_job (name) VALUES ('of the application');
         DROP TRIGGER fixture_source_cdr_kind;",
    );
    site.ok("run", &[]);
    server.app("DELETE FROM ar_source_cdr WHERE calldate < '2025-01-01'; DELETE FROM ar_daily_status_change;");
    let target = account(&server, &site, "asterisell", &["ALL ON asterisell.*"]);
    let said = restore(&site, &target, &[]);
    ended(&said, 0, &[]);
    assert!(said.out.starts_with("1 partition restored"), "{}", said.out);
    let told = server.app("SELECT DISTINCT name LIKE 'cdrvault/%' FROM ar_daily_status_change JOIN ar_daily_status_job ON id = ar_daily_status_job_id");
    assert_eq!(told.trim(), "1");
}

#[test]
fn a_dump_has_no_calls_no_staging_tables_and_no_numbers_that_move() {
    let (server, site) = served(307, 1);
    with_dump(&site, "all");
    server.app(
        "GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'; GRANT SELECT ON mysql.* TO cdrvault@'127.0.0.1';
         CREATE TABLE cdrvault_restore_ar_cdr (a INT);",
    );
    assert!(site.published().contains(&"dump snapshot".to_owned()) || site.vault().join("dump").exists());
    let dump = || String::from_utf8(std::fs::read(site.vault().join("dump/dump.sql")).unwrap()).unwrap();
    assert!(dump().contains("CREATE TABLE IF NOT EXISTS `ar_cdr`") && !dump().contains("INSERT INTO `ar_cdr`"));
    assert!(!dump().contains("cdrvault_restore_"));

    site.edit("tables = \"all\"", "tables = \"configuration\"");
    site.ok("run", &[]);
    let before = dump();
    server.app("ALTER TABLE ar_report AUTO_INCREMENT = 4711;");
    assert_eq!(site.published(), Vec::<String>::new(), "no content has changed");
    assert!(dump() == before && !before.contains("AUTO_INCREMENT=4711"));
}

#[test]
fn every_kind_of_account_is_in_a_dump_and_a_bad_one_does_not_stop_it() {
    let (server, site) = served(308, 1);
    with_dump(&site, "configuration");
    server.app(
        "GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'; GRANT SELECT ON mysql.* TO cdrvault@'127.0.0.1';
         CREATE ROLE watchers; GRANT SELECT ON asterisell.* TO watchers; CREATE USER member@'%'; GRANT watchers TO member@'%';
         CREATE USER table_only@'%'; GRANT SELECT ON asterisell.ar_report TO table_only@'%';
         CREATE USER column_only@'%'; GRANT SELECT (id) ON asterisell.ar_report TO column_only@'%';
         CREATE USER pattern@'%'; GRANT SELECT ON `aster%`.* TO pattern@'%';
         CREATE USER stranger@'%'; GRANT SELECT ON test.* TO stranger@'%';
         INSERT INTO mysql.db (Host, Db, User, Select_priv) VALUES ('%', 'asterisell', 'orphan', 'Y');",
    );
    let said = site.ok("run", &[]);
    let dump = String::from_utf8(std::fs::read(site.vault().join("dump/dump.sql")).unwrap()).unwrap();
    let is_of_account = |text: &&str| text.lines().next().is_some_and(|head| head.ends_with(" bytes, account"));
    let accounts: String = dump.split("-- cdrvault: ").filter(is_of_account).collect();
    for line in [
        "CREATE ROLE IF NOT EXISTS `watchers`;",
        "GRANT SELECT ON `asterisell`.* TO `watchers`;",
        "GRANT `watchers` TO `member`@`%`;",
        "GRANT SELECT ON `asterisell`.`ar_report` TO `table_only`@`%`;",
        "GRANT SELECT (`id`) ON `asterisell`.`ar_report` TO `column_only`@`%`;",
        "GRANT SELECT ON `aster%`.* TO `pattern`@`%`;",
    ] {
        assert!(accounts.contains(line), "`{line}` is not in {accounts}");
    }
    assert!(!accounts.contains("stranger"), "{accounts}");
    assert!(said.err.contains("'orphan'@'%'"), "{}", said.err);
    // It runs, on a server that has none of them.
    let other = MariaDb::start(Engine::InnoDb);
    let target = account(&other, &site, "asterisell", &["ALL ON *.*"]);
    other.app("GRANT ALL ON *.* TO guard@'127.0.0.1' WITH GRANT OPTION");
    ended(&restore(&site, &target, &["--flow", "dump", "--accounts"]), 0, &[]);
    assert!(other.app("SHOW GRANTS FOR member@'%'").contains("watchers"));
}

#[test]
fn a_dry_run_makes_nothing_and_an_interrupted_restore_leaves_no_file() {
    let (server, site) = served(309, 27);
    let file = site.path("new.sqlite");
    let target = ["--from-sink", "vault", "--into", &format!("sqlite:{}", file.display())].map(str::to_owned);
    ended(&restore(&site, &target, &["-n"]), 0, &[]);
    assert_eq!(site.leftovers(), Vec::<std::path::PathBuf>::new());
    let arguments: Vec<&str> = target.iter().map(String::as_str).collect();
    let mut command = site.command("restore", &arguments);
    let run = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while site.leftovers().is_empty() {}
    let pid = rustix::process::Pid::from_raw(i32::try_from(run.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said = said(run.wait_with_output().unwrap());
    assert_eq!(said.status, 130, "{}\n{}", said.out, said.err);
    assert!(said.out.starts_with("0 partitions restored"), "{}", said.out);
    assert!(!file.exists() && site.leftovers().is_empty());
    drop(server);
}

#[test]
fn an_engine_without_temporary_tables_gets_no_table_by_a_dry_run_or_an_error() {
    let server = MariaDb::start(Engine::RocksDb);
    Rating::new(310, 1, 20).fill(&server);
    server.app("DROP TRIGGER IF EXISTS fixture_source_cdr_kind");
    let site = Site::on(&server);
    site.ok("run", &[]);
    let target = account(&server, &site, "asterisell", &["ALL ON asterisell.*"]);
    server.app(
        "UPDATE ar_cdr SET cost = 1; CREATE TRIGGER bends BEFORE INSERT ON ar_cdr FOR EACH ROW SET NEW.income = 5",
    );
    let of_tables = "SELECT GROUP_CONCAT(TABLE_NAME, CREATE_TIME ORDER BY TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'asterisell'";
    let before = server.app(of_tables);
    ended(&restore(&site, &target, &["-n", "--allow-triggers"]), 0, &["no temporary table can stand in for"]);
    assert_eq!(server.app(of_tables), before);
    let said = restore(&site, &target, &["--allow-triggers", "--flow", "ar_cdr"]);
    assert_ne!(said.status, 0, "{}", said.out);
    assert_eq!(server.app(of_tables), before, "the staging table stays after an error");
}

#[test]
fn files_of_an_interrupted_restore_are_gone_on_with() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_server, site) = served(311, 4);
    let csv = site.path("csv");
    let target = ["--from-sink", "vault", "--into", &format!("csv:{}", csv.display())].map(str::to_owned);
    // A day that cannot be written, as on a disk that is full.
    let in_the_way = csv.join("ar_source_cdr/y_2026/m_01/ar_source_cdr-2026-01-03.csv");
    std::fs::create_dir_all(&in_the_way).unwrap();
    std::fs::write(csv.join("ar_source_cdr/.cdrvault-unfinished"), "").unwrap();
    ended(&restore(&site, &target, &[]), 3, &["2026-01-03.csv is there already"]);
    std::fs::remove_dir(&in_the_way).unwrap();
    let said = restore(&site, &target, &[]);
    ended(&said, 0, &[]);
    assert!(said.out.starts_with("1 partition restored") && said.out.contains("7 were there already"), "{}", said.out);
    ended(&restore(&site, &target, &[]), 1, &["is there already", "an empty directory"]);
    let script = std::fs::read_to_string(csv.join("ar_source_cdr/LOAD.sql")).unwrap();
    assert_eq!(script.matches("LOAD DATA").count(), 4);

    // A tree: nobody else may enter what is restored.
    std::fs::create_dir_all(site.path("etc")).unwrap();
    std::fs::write(site.path("etc/secret"), "x").unwrap();
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.etc]\nsource.files = {{ path = \"etc\" }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n"
    ));
    site.ok("run", &[]);
    let back = site.path("back");
    let target = ["--from-sink", "vault", "--into", &format!("dir:{}", back.display())].map(str::to_owned);
    ended(&restore(&site, &target, &[]), 0, &[]);
    assert_eq!(back.join("etc").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!back.join(".cdrvault-unfinished").exists());
    ended(&restore(&site, &target, &[]), 1, &["not empty"]);
}
