//! Dumps: everything that a database has comes back byte by byte, or is named as not saved.

use std::fmt::Write as _;
use std::process::Command;

use crate::services;
use crate::services::described::described;
use crate::services::home::{Said, Site};
use crate::services::mariadb::{Engine, MariaDb, Server};

/// A pipeline that dumps the application's database as root.
fn site(server: &MariaDb, more: &str) -> Site {
    let site = Site::new("sqlite:none.sqlite");
    write(&site, server, more);
    site
}

fn write(site: &Site, server: &MariaDb, more: &str) {
    site.pipeline(&format!(
        "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n\
         [database.db]\nurl = \"mysql://root@localhost/asterisell\"\nsocket = \"{}\"\n\
         [sink.vault.local]\npath = \"vault\"\n\
         [flow.dump]\nsource.dump = {{ database = \"db\"{more} }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n",
        server.socket().display()
    ));
}

fn into(server: &MariaDb, database: &str) -> String {
    format!("mysql://root@localhost/{database}?socket={}", server.socket().display())
}

fn restore(site: &Site, server: &MariaDb, database: &str, more: &[&str]) -> Said {
    site.run("restore", &[&["--from-sink", "vault", "--into", &into(server, database)], more].concat())
}

#[track_caller]
fn ended(said: &Said, status: i32, says: &[&str]) {
    assert_eq!(said.status, status, "{}\n{}", said.out, said.err);
    for text in says {
        assert!(said.err.contains(text), "`{text}` is not in: {}", said.err);
    }
}

fn dump(site: &Site) -> Vec<u8> {
    std::fs::read(site.vault().join("dump/dump.sql")).unwrap()
}

fn replace(site: &Site, path: &str, bytes: &[u8]) {
    services::described::replace(site, path, bytes, bytes);
}

#[track_caller]
fn same(one: &[String], other: &[String]) {
    for (a, b) in one.iter().zip(other) {
        assert!(a == b, "{a:.900}\n{b:.900}");
    }
    assert_eq!(one.len(), other.len());
}

#[test]
fn every_object_and_every_character_set_comes_back_byte_by_byte() {
    let server = MariaDb::start(Engine::InnoDb);
    services::described::fill(&server);
    let charsets = server.sql("", "SHOW CHARACTER SET");
    let mut sql = String::from("SET SESSION sql_mode = '';\n");
    for charset in charsets.lines().map(|line| line.split('\t').next().unwrap()) {
        // Every byte, alone, behind itself, and before ASCII; and, in order, all of them.
        sql += &format!("CREATE TABLE cs_{charset} (v VARBINARY(400), b BLOB, c BINARY(8), n INT, e INT);\n");
        let rows: Vec<String> = (0..=255)
            .map(|byte| format!("(X'{byte:02X}', X'{byte:02X}{byte:02X}41{byte:02X}', X'{byte:02X}', {byte}, 1)"))
            .collect();
        sql += &format!("INSERT INTO cs_{charset} VALUES {};\n", rows.join(", "));
        let all: String = (0..=255).fold(String::new(), |mut all, byte| {
            let _ = write!(all, "{byte:02X}");
            all
        });
        sql += &format!("INSERT INTO cs_{charset} VALUES (X'{all}', X'{all}', X'', 256, 1);\n");
        if charset != "binary" {
            sql += &format!(
                "ALTER TABLE cs_{charset} MODIFY v VARCHAR(400) CHARACTER SET {charset}, MODIFY b TEXT CHARACTER SET {charset},
                 MODIFY c CHAR(8) CHARACTER SET {charset}, MODIFY e ENUM('a', 'b c', '') CHARACTER SET {charset} DEFAULT 'b c';\n"
            );
        }
    }
    server.app(&sql);
    let site = site(&server, ", exclude = [\"broken\"]");
    site.ok("run", &[]);
    // The same content is the same dump.
    let report = site.ok("run", &["--json"]).report();
    assert!(!report.to_string().contains("\"published\":1"), "{report}");
    for database in ["again", "by_hand"] {
        server.sql("", &format!("CREATE DATABASE {database}"));
    }
    server.app("DROP VIEW broken");
    let before = described(&server, "asterisell");
    // The second time over what is there.
    for _ in 0..2 {
        ended(&restore(&site, &server, "again", &["--allow-triggers"]), 0, &[]);
    }
    same(&before, &described(&server, "again"));
    // As its own first lines say, without this program.
    let done = Command::new(services::places::program("mariadb", "mariadb-client"))
        .args(["--no-defaults", "-uroot", "--comments", "--binary-mode", "--default-character-set=utf8mb4", "by_hand"])
        .arg(format!("--socket={}", server.socket().display()))
        .stdin(std::fs::File::open(site.vault().join("dump/dump.sql")).unwrap())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    same(&before, &described(&server, "by_hand"));
}

#[test]
fn settings_of_the_server_and_of_accounts_cut_no_dump() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("CREATE TABLE many (id INT PRIMARY KEY); INSERT INTO many SELECT seq FROM seq_1_to_1000;
         CREATE TABLE old (id INT) WITH SYSTEM VERSIONING; INSERT INTO old VALUES (1), (2); UPDATE old SET id = id + 2;");
    server.sql("", "CREATE DATABASE again; SET GLOBAL sql_select_limit = 500; SET GLOBAL system_versioning_asof = '2020-01-01'; SET GLOBAL sql_quote_show_create = 0;
         SET GLOBAL init_connect = 'SET SESSION sql_select_limit = 10, autocommit = 0, character_set_client = latin1'; SET GLOBAL max_statement_time = 1;
         CREATE USER dumper@localhost IDENTIFIED BY ''; GRANT SELECT, TRIGGER, EVENT, SHOW VIEW ON asterisell.* TO dumper@localhost; GRANT SELECT ON mysql.* TO dumper@localhost;
         GRANT ALL ON again.* TO dumper@localhost; GRANT ALL ON asterisell.* TO dumper@localhost;");
    let site = site(&server, "");
    // init_connect is not for those who may do everything.
    site.edit("mysql://root@", "mysql://dumper@");
    site.ok("run", &[]);
    server.app("DROP TRIGGER fixture_source_cdr_kind");
    site.ok("run", &[]);
    let target = into(&server, "again").replace("root@", "dumper@");
    let more = ["--from-sink", "vault", "--into", &target, "--definer", "CURRENT_USER"];
    ended(&site.run("restore", &more), 0, &[]);
    server.sql(
        "",
        "SET GLOBAL sql_select_limit = DEFAULT, GLOBAL system_versioning_asof = DEFAULT, GLOBAL init_connect = ''",
    );
    assert_eq!(server.sql("again", "SELECT COUNT(*) FROM many").trim(), "1000");
    assert_eq!(server.sql("again", "SELECT COUNT(*) FROM old FOR SYSTEM_TIME ALL").trim(), "4");
}

#[test]
fn what_cannot_be_saved_is_named_and_the_rest_is_saved() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app(
        "CREATE TABLE kept (id INT); INSERT INTO kept VALUES (7); CREATE TABLE gone (id INT);
         CREATE VIEW broken AS SELECT id FROM gone; DROP TABLE gone; CREATE VIEW whole AS SELECT id FROM kept;
         CREATE FUNCTION half(x INT) RETURNS INT DETERMINISTIC RETURN x / 2;
         CREATE TABLE odd (id INT) ENGINE = MyISAM;
         CREATE TABLE children (id INT) ENGINE = MERGE UNION = (odd); DROP TABLE odd;
         SET NAMES latin1; CREATE VIEW renamed AS SELECT id FROM kept; SET NAMES utf8mb4; RENAME TABLE renamed TO `\u{4e2d}`;",
    );
    let site = site(&server, "");
    for _ in 0..2 {
        let said = site.run("run", &[]);
        ended(&said, 3, &["view `broken`", "1356", "`exclude`", "table `children`", "1168"]);
        ended(&said, 3, &["view `\u{4e2d}` is not in the dump", "characters that latin1 does not have"]);
        ended(&said, 3, &["view `broken` cannot be made again", "its text stands in the dump"]);
    }
    let text = String::from_utf8(dump(&site)).unwrap();
    let broken = text.lines().find(|line| line.contains("`broken`")).unwrap();
    assert!(broken.starts_with("-- CREATE ") && broken.ends_with(" from `gone`"), "{broken}");
    assert!(text.contains("view `whole`") && text.contains("function `half`") && text.contains("rows of `kept`"));
    write(&site, &server, ", exclude = [\"broken\", \"child*\", \"\u{4e2d}\"]");
    ended(&site.run("run", &[]), 0, &[]);
    // What was to be left out, and is not there under that name, is saved.
    write(&site, &server, ", exclude = [\"broken\", \"child*\", \"\u{4e2d}\", \"kpet\", \"temp_*\"]");
    let said = site.run("run", &[]);
    ended(&said, 0, &["`kpet` of `exclude` matches nothing in the database"]);
    assert!(!said.err.contains("temp_"), "{}", said.err);

    // A routine that may be called, and whose text may not be read.
    server.sql(
        "",
        "CREATE USER dumper@localhost IDENTIFIED BY '';
         GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON asterisell.* TO dumper@localhost",
    );
    site.edit("mysql://root@", "mysql://dumper@");
    ended(&site.run("run", &[]), 3, &["function `half`", "may not read its text", "`mysql`.`proc`"]);
    assert!(String::from_utf8(dump(&site)).unwrap().contains("rows of `kept`"));
}

#[test]
fn a_table_that_is_changed_meanwhile_is_read_again() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)");
    let site = site(&server, "");
    let go = site.path("go");
    let mut command = site.command("run", &["-v"]);
    command.env("CDRVAULT_FAILPOINT", format!("dump-begun=pause:{}", go.display()));
    let running = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    services::wait_for(&site.path("go.reached"));
    server.app("ALTER TABLE t ADD COLUMN late INT DEFAULT 5, ALGORITHM = COPY");
    std::fs::write(&go, "").unwrap();
    let said = services::home::said(running.wait_with_output().unwrap());
    ended(&said, 0, &["1412"]);
    assert!(String::from_utf8(dump(&site)).unwrap().contains("(1,5)"));
}

#[test]
fn large_values_come_back_and_a_server_that_would_not_take_them_is_asked_before_anything_is_dropped() {
    let server = Server::new(Engine::InnoDb).option("--max-allowed-packet=64M").start();
    server.app(
        "CREATE TABLE large (id INT PRIMARY KEY, a LONGBLOB, b LONGTEXT CHARACTER SET latin1);
         SET @a = REPEAT(X'00FF27', 9000000), @b = REPEAT(X'E9', 700000);
         INSERT INTO large VALUES (1, @a, @b), (2, NULL, 'small'), (3, @b, NULL);
         CREATE TABLE small (id INT); INSERT INTO small VALUES (1); CREATE DATABASE again; CREATE TABLE again.large (mine INT); INSERT INTO again.large VALUES (1);",
    );
    let site = site(&server, "");
    site.ok("run", &[]);
    server.sql("", "SET GLOBAL max_allowed_packet = 16777216");
    let said = restore(&site, &server, "again", &[]);
    ended(&said, 1, &["takes 16777216 bytes at once", "`large` needs 27000000", "max_allowed_packet = 27262976"]);
    assert_eq!(server.sql("again", "SELECT mine FROM large").trim(), "1");
    // Its own server has it: it gives it, whatever it takes.
    site.ok("run", &[]);
    server.sql("", "SET GLOBAL max_allowed_packet = 33554432");
    ended(&restore(&site, &server, "again", &[]), 0, &[]);
    let sums = "SELECT id, MD5(a), MD5(b), LENGTH(a) FROM large ORDER BY id";
    assert_eq!(server.sql("again", sums), server.app(sums));
}

#[test]
fn an_error_of_a_restore_names_the_object_and_no_value() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app(
        "CREATE TABLE t (id INT, phone VARCHAR(20)); INSERT INTO t VALUES (1, '39021234567'), (2, '39021234567');",
    );
    let site = site(&server, "");
    site.ok("run", &[]);
    server.sql("", "CREATE DATABASE again");
    // As a server whose rows are not accepted: a key that it makes of what is restored.
    let path = site.vault().join("dump/dump.sql");
    let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
    let (from, to) = ("  `phone` varchar(20) DEFAULT NULL\n)", "  `phone` varchar(20) UNIQUE KEY  \n)");
    assert!(text.contains(from), "{text}");
    replace(&site, "dump/dump.sql", text.replace(from, to).as_bytes());
    let said = restore(&site, &server, "again", &[]);
    ended(&said, 1, &["restore rows of `t`", "Duplicate entry '...' for key"]);
    assert!(!said.err.contains("3902"), "{}", said.err);
}

#[test]
fn a_definer_that_is_lost_is_replaced() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app(
        "DROP TRIGGER fixture_source_cdr_kind;
         CREATE USER author@localhost; CREATE TABLE t (id INT);
         CREATE DEFINER = author@localhost VIEW v AS SELECT id FROM t;
         CREATE DEFINER = author@localhost FUNCTION f() RETURNS INT RETURN (SELECT MAX(id) FROM t);
         CREATE DEFINER = author@localhost TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.id = NEW.id + 1;
         CREATE DEFINER = author@localhost EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SET @x = 'DEFINER=`author`@`localhost`';
         DROP USER author@localhost; CREATE DATABASE again COLLATE utf8mb4_bin; CREATE USER keeper@localhost; GRANT ALL ON again.* TO keeper@localhost;
         REVOKE ALTER ON again.* FROM keeper@localhost;",
    );
    let site = site(&server, "");
    ended(&site.run("run", &[]), 0, &[]);
    let target = into(&server, "again").replace("root@", "keeper@");
    let said = site.run("restore", &["--from-sink", "vault", "--into", &target]);
    ended(&said, 1, &["restore function `f`", "--definer CURRENT_USER"]);
    let said = site.run("restore", &["--from-sink", "vault", "--into", &target, "--definer", "CURRENT_USER"]);
    ended(&said, 0, &[]);
    assert!(said.err.contains("the database keeps its own default character set"), "{said:?}");
    server.sql("again", "INSERT INTO t VALUES (1); SELECT f(); SELECT * FROM v");
    assert_eq!(server.sql("again", "SELECT f()").trim(), "2");
    assert!(server.sql("again", "SHOW CREATE EVENT e").contains("SET @x = 'DEFINER=`author`@`localhost`'"));
    ended(&restore(&site, &server, "again", &["--definer", "root@localhost"]), 0, &[]);
    assert!(server.sql("again", "SHOW CREATE VIEW v").contains("DEFINER=`root`@`localhost`"));
    assert_eq!(restore(&site, &server, "again", &["--definer", "nobody"]).status, 2);
}

#[test]
fn a_dump_of_an_earlier_version_is_restored_with_its_comments() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app(
        "DROP TRIGGER fixture_source_cdr_kind; CREATE TABLE t (id INT); INSERT INTO t VALUES (1), (2); CREATE DATABASE again;
         CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1;",
    );
    let site = site(&server, ", include = [\"t\"]");
    site.ok("run", &[]);
    // The client that makes it here strips comments, too; one only.
    server.sql("asterisell", "DELIMITER //\nCREATE PROCEDURE p() BEGIN\n/*x*/ SELECT 1;\n-- cdrvault: accounts of this database\nSELECT 2; END//");
    let made = Command::new("mariadb-dump")
        .args([
            "--no-defaults",
            "-uroot",
            "--single-transaction",
            "--skip-lock-tables",
            "--routines",
            "--events",
            "--skip-dump-date",
        ])
        .arg(format!("--socket={}", server.socket().display()))
        .args(["asterisell", "t"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut old = String::from_utf8(made.stdout).unwrap();
    // A comment that is the body's only statement.
    old = old.replace("SELECT 2; END", "/* kept */ SELECT 2; END");
    old += "\n-- cdrvault: accounts of this database\nCREATE USER IF NOT EXISTS `late`@`localhost`;\n-- cdrvault: the dump is complete\n";
    replace(&site, "dump/dump.sql", old.as_bytes());
    ended(&restore(&site, &server, "again", &[]), 0, &[]);
    assert_eq!(server.sql("again", "SELECT COUNT(*) FROM t").trim(), "2");
    assert!(server.sql("again", "SHOW CREATE PROCEDURE p").contains("/* kept */ SELECT 2; END"));
    assert!(server.try_sql("", "SHOW GRANTS FOR late@localhost").is_err());
    ended(&restore(&site, &server, "again", &["--accounts"]), 0, &[]);
    assert!(server.try_sql("", "SHOW GRANTS FOR late@localhost").is_ok());

    // What it does not take, it is not asked to take.
    server.sql("again", "INSERT INTO t VALUES (3)");
    let long = format!("INSERT INTO `t` VALUES (LENGTH('{}'));\n", "x".repeat(17 << 20));
    replace(&site, "dump/dump.sql", old.replace("UNLOCK TABLES;", &(long + "UNLOCK TABLES;")).as_bytes());
    ended(&restore(&site, &server, "again", &[]), 1, &["takes 16777216 bytes at once", "nothing was changed"]);
    assert_eq!(server.sql("again", "SELECT COUNT(*) FROM t").trim(), "3");
    replace(&site, "dump/dump.sql", &old.as_bytes()[..old.len() - 10]);
    ended(&restore(&site, &server, "again", &[]), 1, &["no closing line"]);
    assert_eq!(server.sql("again", "SELECT COUNT(*) FROM t").trim(), "3");
}
