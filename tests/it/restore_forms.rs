//! The forms of a restore that others read: the application's own import, and directories that were left half made.

use std::path::{Path, PathBuf};

use crate::services::home::{Said, Site};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::Rating;

fn restore(site: &Site, into: &str, more: &[&str]) -> Said {
    site.run("restore", &[&["--from-sink", "vault", "--into", into], more].concat())
}

#[track_caller]
fn ended(said: &Said, status: i32, says: &[&str]) {
    assert_eq!(said.status, status, "{}\n{}", said.out, said.err);
    for text in says {
        assert!(said.err.contains(text), "`{text}` is not in: {}", said.err);
    }
}

fn columns(server: &MariaDb, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'asterisell' AND table_name = '{table}'
         AND column_name <> 'id' ORDER BY ordinal_position"
    );
    server.app(&sql).lines().map(str::to_owned).collect()
}

/// Every value of the columns as hexadecimal digits, whatever the order of the rows.
fn values(server: &MariaDb, table: &str, columns: &[String]) -> String {
    let shown: Vec<String> = columns.iter().map(|column| format!("IFNULL(HEX(`{column}`), 'NULL')")).collect();
    server.app(&format!("SELECT CONCAT_WS(',', {}) AS shown FROM {table} ORDER BY shown", shown.join(", ")))
}

/// As the application does it: every file two directories below, copied to where the server can read it.
fn import(server: &MariaDb, root: &Path, table: &str, kind: &str, columns: &[String], mode: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    server.app(&format!(
        "CREATE TABLE fresh LIKE {table}; RENAME TABLE {table} TO saved_{table}, fresh TO {table};
         ALTER TABLE {table} MODIFY id INT NOT NULL AUTO_INCREMENT, ADD KEY (id);"
    ));
    let copy = server.socket().with_file_name("import.csv");
    for year in listed(&root.join(kind)) {
        for file in listed(&year).iter().flat_map(|month| listed(month)) {
            std::fs::copy(&file, &copy).unwrap();
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o644)).unwrap();
            let load = format!(
                "LOAD DATA INFILE '{}' INTO TABLE {table} CHARACTER SET 'utf8mb4' FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' \
                 ESCAPED BY '\\\\' LINES TERMINATED BY '\\r\\n' STARTING BY '' ({}) SET id = NULL",
                copy.display(),
                columns.join(", ")
            );
            server.app(&format!("SET SESSION sql_mode = '{mode}'; {load}"));
        }
    }
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn back(server: &MariaDb) {
    for table in ["ar_cdr", "ar_source_cdr"] {
        server.app(&format!("DROP TABLE {table}; RENAME TABLE saved_{table} TO {table}"));
    }
}

const SOURCE: [&str; 4] = ["ar_cdr_provider_id", "ar_physical_format_id", "calldate", "content"];

#[test]
fn the_applications_own_import_reads_what_is_restored_for_it() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(321, 3, 40).fill(&server);
    server.app(
        "DROP TRIGGER fixture_source_cdr_kind;
         SET SESSION sql_mode = 'ALLOW_INVALID_DATES', NAMES utf8mb4;
         UPDATE ar_cdr SET imported_info = CONCAT('a\\0b\\n\\\\N\\r\\n\\t\\Z', CHAR(39), CHAR(34), ',ž😀\\\\'), debug_cost_rate = 'c\\r\\n\"d\\\\' LIMIT 9;
         UPDATE ar_cdr SET debug_cost_rate = '\\\\N', debug_income_rate = '' ORDER BY calldate DESC LIMIT 7;
         UPDATE ar_cdr SET debug_cost_rate = NULL, debug_income_rate = 'NULL', ar_problem_duplication_key = ' trailing  ' ORDER BY id LIMIT 5;
         UPDATE ar_cdr SET to_calldate = '2024-02-31', cost = -9223372036854775808, income = 9223372036854775807 ORDER BY id DESC LIMIT 3;
         UPDATE ar_cdr SET to_calldate = '0000-00-00', cached_parent_id_hierarchy = '/1/\"2\"\\\\5/' WHERE calldate >= '2026-01-02' LIMIT 3;
         UPDATE ar_source_cdr SET content = '2026-01-02,\"\"\"Bob\"\" <2020>\",\\r\\n,\\\\,😀' ORDER BY id LIMIT 4;
         UPDATE ar_source_cdr SET content = '\\r' ORDER BY id DESC LIMIT 2;
         UPDATE ar_source_cdr SET content = NULL WHERE calldate >= '2026-01-03' LIMIT 2;
         UPDATE ar_source_cdr SET content = '', is_hacked = 1 WHERE calldate >= '2026-01-02' LIMIT 2;"
            .replace(", NAMES utf8mb4", "")
            .as_str(),
    );
    let site = Site::on(&server);
    site.ok("run", &[]);
    let source: Vec<String> = SOURCE.map(str::to_owned).to_vec();

    // What release 6 reads. The rest is told, and is what the server gives by default.
    let root = site.path("backup");
    let into = format!("csv-asterisell:{}", root.display());
    let said = restore(&site, &into, &[]);
    ended(
        &said,
        0,
        &["`ar_cdr` does not read `id`, `imported_info`", "`ar_source_cdr` does not read `id`, `is_hacked`"],
    );
    let mut names: Vec<_> = listed(&root).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["cdrs", "source-cdrs"]);
    for kind in ["cdrs", "source-cdrs"] {
        let mut files = listed(&root.join(kind).join("y_2026/m_01"));
        files.sort();
        let wanted: Vec<_> =
            (1..=3).map(|day| root.join(format!("{kind}/y_2026/m_01/{kind}-2026-01-0{day}.csv"))).collect();
        assert_eq!(files, wanted);
    }
    let all = columns(&server, "ar_cdr");
    let until = all.iter().position(|name| name == "debug_income_rate").unwrap();
    let rated = all.get(..=until).unwrap();
    import(&server, &root, "ar_cdr", "cdrs", rated, "ALLOW_INVALID_DATES");
    import(&server, &root, "ar_source_cdr", "source-cdrs", &source, "STRICT_ALL_TABLES");
    assert!(values(&server, "ar_cdr", rated) == values(&server, "saved_ar_cdr", rated));
    assert!(values(&server, "ar_source_cdr", &source) == values(&server, "saved_ar_source_cdr", &source));
    assert_ne!(server.app("SELECT COUNT(*) FROM ar_cdr").trim(), "0");
    back(&server);
    ended(&restore(&site, &into, &[]), 1, &["is there already", "an empty directory"]);

    // What another version reads, in its order: here everything that is saved.
    let other = site.path("other");
    let into = format!("csv-asterisell:{}", other.display());
    let of_source: Vec<String> = columns(&server, "ar_source_cdr").into_iter().rev().collect();
    let lists =
        [format!("--columns=ar_cdr={}", all.join(",")), format!("--columns=ar_source_cdr={}", of_source.join(","))];
    ended(&restore(&site, &into, &[&lists[0], &lists[1]]), 0, &[]);
    import(&server, &other, "ar_cdr", "cdrs", &all, "STRICT_ALL_TABLES,ALLOW_INVALID_DATES");
    import(&server, &other, "ar_source_cdr", "source-cdrs", &of_source, "STRICT_ALL_TABLES");
    assert!(values(&server, "ar_cdr", &all) == values(&server, "saved_ar_cdr", &all));
    assert!(values(&server, "ar_source_cdr", &of_source) == values(&server, "saved_ar_source_cdr", &of_source));
    back(&server);
}

#[test]
fn what_the_applications_import_would_change_is_refused() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(322, 2, 20).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let into = format!("csv-asterisell:{}", site.path("backup").display());
    let more = ["--columns", "ar_cdr=calldate,debug_rating_details,cost"];
    ended(&restore(&site, &into, &more), 1, &["without `debug_rating_details`", "`income`", "--columns ar_cdr=COLUMN"]);
    ended(&restore(&site, &into, &["--columns", "ar_party=id"]), 1, &["imports no files of `ar_party`"]);
    ended(&restore(&site, &into, &["--columns", "ar_cdr"]), 2, &["TABLE=COLUMN"]);
    let csv = format!("csv:{}", site.path("csv").display());
    ended(&restore(&site, &csv, &["--columns", "ar_cdr=cost"]), 2, &["csv-asterisell"]);
    assert!(!site.path("backup").exists() && !site.path("csv").exists());

    server.app(
        "SET SESSION sql_mode = 'ALLOW_INVALID_DATES';
         INSERT INTO ar_source_cdr VALUES ('2026-01-02 05:00:00', 1, 1, 2, _binary X'EDA080', 0), ('2024-02-31 05:00:00', 1, 1, 2, 'x', 0)",
    );
    site.ok("replay", &["--day", "2026-01-02"]);
    site.ok("replay", &["--undated"]);
    ended(&restore(&site, &into, &[]), 1, &["__HIVE_DEFAULT_PARTITION__ has no day", "--from --to"]);
    let said = restore(&site, &into, &["--month", "2026-01"]);
    ended(&said, 3, &["ar_source_cdr 2026-01-02: a value of `content` is not valid UTF-8"]);
    let files = listed(&site.path("backup/source-cdrs/y_2026/m_01"));
    assert_eq!(files, [site.path("backup/source-cdrs/y_2026/m_01/source-cdrs-2026-01-01.csv")]);
    // It goes on when the value is mended.
    server.app("DELETE FROM ar_source_cdr WHERE content = _binary X'EDA080'");
    site.ok("replay", &["--day", "2026-01-02"]);
    let said = restore(&site, &into, &["--month", "2026-01"]);
    ended(&said, 0, &[]);
    assert!(said.out.starts_with("1 partition restored") && said.out.contains("3 were there already"), "{}", said.out);
    assert!(!site.path("backup/.cdrvault-unfinished").exists());
}

#[test]
fn rows_without_a_date_are_replayed_by_name() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(323, 2, 20).fill(&server);
    let site = Site::on(&server);
    let undated = || {
        let said = site.ok("snapshots", &["--flow", "ar_source_cdr", "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let all = shown["snapshots"].as_array().unwrap().clone();
        let found = all.iter().find(|one| one["partition"] == "__HIVE_DEFAULT_PARTITION__").cloned();
        found.map(|one| (one["generation"].as_u64().unwrap(), one["rows"].as_u64().unwrap()))
    };
    site.ok("run", &[]);
    let said = site.ok("replay", &["--undated"]);
    assert!(said.err.contains("no rows without a date"), "{}\n{}", said.out, said.err);
    server.app(
        "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'; DROP TRIGGER fixture_source_cdr_kind;
         INSERT INTO ar_source_cdr VALUES ('2024-02-31 05:00:00', 1, 1, 2, 'x', 0)",
    );
    let of = |said: &Said| said.report()["units"].as_array().unwrap().len();
    assert_eq!(of(&site.ok("replay", &["--undated", "--json"])), 1);
    assert_eq!(undated(), Some((1, 1)));
    server.app("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'; INSERT INTO ar_source_cdr VALUES ('2024-02-31 06:00:00', 2, 1, 2, 'y', 0)");
    site.ok("replay", &["--day", "2026-01-01"]);
    assert_eq!(undated(), Some((1, 1)), "a range does not mean them");
    site.ok("replay", &["--undated"]);
    assert_eq!(undated(), Some((2, 2)));
    assert_eq!(site.run("replay", &["--undated", "--day", "2026-01-01"]).status, 2);
    let said = site.run("replay", &[]);
    ended(&said, 2, &["--undated"]);
}

/// Path, kind and mode, owner, time, and content of everything below a directory.
fn described(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut all, mut left) = (Vec::new(), listed(root));
    while let Some(path) = left.pop() {
        let found = path.symlink_metadata().unwrap();
        let content = if found.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let link = std::fs::read_link(&path).ok();
        let below = path.strip_prefix(root).unwrap();
        let time = (found.mtime(), found.mtime_nsec());
        all.push(format!(
            "{} {:o} {} {} {time:?} {content:?} {link:?}",
            below.display(),
            found.mode(),
            found.uid(),
            found.gid()
        ));
        if found.is_dir() {
            left.extend(listed(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn a_directory_whose_restore_was_killed_is_looked_at_before_it_is_gone_on_with() {
    let site = Site::new("sqlite:none.sqlite");
    let (first, second) = (site.path("a-etc"), site.path("b-uploads"));
    for (directory, count) in [(&first, 30), (&second, 1200)] {
        std::fs::create_dir_all(directory.join("deep/er")).unwrap();
        for number in 0..count {
            std::fs::write(directory.join(format!("deep/er/{number}")), format!("{number}\n").repeat(500)).unwrap();
        }
        std::os::unix::fs::symlink("deep/er/1", directory.join("link")).unwrap();
    }
    let flow = |name: &str| {
        format!(
            "[flow.{name}]\nsource.files = {{ path = \"{name}\" }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n"
        )
    };
    site.pipeline(&format!(
        "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n[sink.vault.local]\npath = \"vault\"\n{}{}",
        flow("a-etc"),
        flow("b-uploads")
    ));
    site.ok("run", &[]);
    let back = site.path("back");
    let into = format!("dir:{}", back.display());
    let killed = || {
        let mut command = site.command("restore", &["--from-sink", "vault", "--into", &into]);
        let null = std::process::Stdio::null;
        let mut run = command.stdout(null()).stderr(null()).spawn().unwrap();
        // The second tree is being made.
        let begun = || {
            let made = listed(&back).into_iter().find(|path| path.join("made/deep/er/1000").exists());
            back.join("a-etc").exists() && made.is_some_and(|path| !path.join("made/link").exists())
        };
        while !(back.exists() && begun()) {
            assert!(run.try_wait().unwrap().is_none(), "it was not killed in the middle");
        }
        run.kill().unwrap();
        run.wait().unwrap();
        assert!(!back.join("b-uploads").exists());
    };
    killed();
    let damaged = back.join("a-etc/deep/er/7");
    std::fs::write(&damaged, std::fs::read(&damaged).unwrap().get(..100).unwrap()).unwrap();
    // What somebody put there is not taken away.
    std::fs::write(back.join("a-etc/note"), "mine").unwrap();
    ended(&restore(&site, &into, &[]), 3, &["note was not saved", "move it away"]);
    std::fs::remove_file(back.join("a-etc/note")).unwrap();
    std::fs::remove_dir_all(back.join("b-uploads")).unwrap();
    killed();
    let bytes = std::fs::read(&damaged).unwrap();
    assert_eq!(bytes.len(), 7_u32.to_string().len() * 500 + 500, "the damaged file is made again");
    // Of the same length.
    std::fs::write(&damaged, vec![b'x'; bytes.len()]).unwrap();
    let said = restore(&site, &into, &[]);
    ended(&said, 0, &[]);
    assert!(said.out.starts_with("2 partitions restored"), "{}", said.out);
    for name in ["a-etc", "b-uploads"] {
        assert!(described(&site.path(name)) == described(&back.join(name)), "{name}");
    }
    let mut left: Vec<_> = listed(&back);
    left.sort();
    assert_eq!(left, [back.join("a-etc"), back.join("b-uploads")], "nothing else is left");
    ended(&restore(&site, &into, &[]), 1, &["not empty"]);
}
