//! Random tables with every type of the server and the values that usually get damaged: saved, emptied, restored, and
//! every cell is what it was.

use crate::services;
use crate::services::Random;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};

/// A type, how its values are looked at without losing anything, and values at its edges, as SQL.
struct Kind {
    sql: &'static str,
    seen: Seen,
    values: &'static [&'static str],
    /// What a column has that may not be NULL.
    default: &'static str,
}

#[derive(Clone, Copy)]
enum Seen {
    /// Its stored bytes.
    Bytes,
    /// Its digits or its text.
    Text,
    /// All digits of the double that it is.
    Double,
    /// Its number: a label's, or that of bits.
    Number,
}

const KINDS: &[Kind] = &[
    Kind { sql: "TINYINT", seen: Seen::Text, values: &["-128", "127", "0"], default: "1" },
    Kind { sql: "TINYINT(1)", seen: Seen::Text, values: &["-128", "2", "0"], default: "1" },
    Kind { sql: "TINYINT UNSIGNED", seen: Seen::Text, values: &["255", "0"], default: "1" },
    Kind { sql: "SMALLINT", seen: Seen::Text, values: &["-32768", "32767"], default: "1" },
    Kind { sql: "SMALLINT UNSIGNED", seen: Seen::Text, values: &["65535"], default: "1" },
    Kind { sql: "MEDIUMINT", seen: Seen::Text, values: &["-8388608", "8388607"], default: "1" },
    Kind { sql: "MEDIUMINT UNSIGNED", seen: Seen::Text, values: &["16777215"], default: "1" },
    Kind { sql: "INT", seen: Seen::Text, values: &["-2147483648", "2147483647"], default: "1" },
    Kind { sql: "INT(5) UNSIGNED ZEROFILL", seen: Seen::Text, values: &["4294967295", "7"], default: "1" },
    Kind { sql: "BIGINT", seen: Seen::Text, values: &["-9223372036854775808", "9223372036854775807"], default: "1" },
    Kind { sql: "BIGINT UNSIGNED", seen: Seen::Text, values: &["18446744073709551615", "0"], default: "1" },
    Kind { sql: "BIT(1)", seen: Seen::Number, values: &["1", "0"], default: "1" },
    Kind { sql: "BIT(64)", seen: Seen::Number, values: &["18446744073709551615", "5"], default: "1" },
    Kind { sql: "YEAR", seen: Seen::Text, values: &["0", "1901", "2155", "2070"], default: "2000" },
    Kind { sql: "DECIMAL(10,0)", seen: Seen::Text, values: &["-9999999999", "0"], default: "1" },
    Kind { sql: "DECIMAL(20,6)", seen: Seen::Text, values: &["-12345678901234.123456", "0.000001"], default: "1" },
    Kind {
        sql: "DECIMAL(65,30)",
        seen: Seen::Text,
        values: &["-99999999999999999999999999999999999.999999999999999999999999999999", "1e-30"],
        default: "1",
    },
    Kind {
        sql: "FLOAT",
        seen: Seen::Double,
        values: &["16777216", "-1.17549435e-38", "3.4028234e38", "0.1"],
        default: "1",
    },
    Kind {
        sql: "DOUBLE",
        seen: Seen::Double,
        values: &["0.1", "-2.2250738585072014e-308", "1.7976931348623157e308", "-0e0"],
        default: "1",
    },
    Kind {
        sql: "DATE",
        seen: Seen::Text,
        values: &["'0000-00-00'", "'2024-02-31'", "'2024-00-10'", "'9999-12-31'", "'1000-01-01'", "'0001-01-01'"],
        default: "'2026-01-01'",
    },
    Kind {
        sql: "DATETIME",
        seen: Seen::Text,
        values: &["'0000-00-00 00:00:00'", "'2024-02-31 01:02:03'", "'9999-12-31 23:59:59'"],
        default: "'2026-01-01'",
    },
    Kind {
        sql: "DATETIME(6)",
        seen: Seen::Text,
        values: &[
            "'0000-00-00 00:00:00'",
            "'2024-00-31 01:02:03.000004'",
            "'9999-12-31 23:59:59.999999'",
            "'2026-01-01 00:00:00.5'",
        ],
        default: "'2026-01-01'",
    },
    Kind { sql: "DATETIME(3)", seen: Seen::Text, values: &["'2026-01-01 00:00:00.001'"], default: "'2026-01-01'" },
    Kind {
        sql: "TIMESTAMP(6)",
        seen: Seen::Text,
        values: &["'1970-01-02 00:00:01.000001'", "'2038-01-19 03:14:07.999999'", "0"],
        default: "'2026-01-01'",
    },
    Kind {
        sql: "TIME(6)",
        seen: Seen::Text,
        values: &["'-838:59:59.999999'", "'838:59:59.999999'", "'-00:00:00.000001'", "0"],
        default: "0",
    },
    Kind { sql: "TIME", seen: Seen::Text, values: &["'-838:59:59'", "'25:00:00'"], default: "0" },
    Kind {
        sql: "CHAR(20)",
        seen: Seen::Bytes,
        values: &["''", "'trailing  '", "' leading'", "'\u{1f600}'"],
        default: "'x'",
    },
    Kind {
        sql: "VARCHAR(200)",
        seen: Seen::Bytes,
        values: &[
            "''",
            "'trailing  '",
            "'it''s \\\\ \\\" % _ \\0 \\n \\r \\t \\Z'",
            "'\u{fc}\u{1f600}'",
            "_utf8mb4 X'EDA080'",
            "'NULL'",
            "'\\\\N'",
        ],
        default: "'x'",
    },
    Kind {
        sql: "VARCHAR(50) CHARACTER SET latin1",
        seen: Seen::Bytes,
        values: &["_latin1 X'E9FF80818D'", "''", "'plain'"],
        default: "'x'",
    },
    Kind { sql: "VARCHAR(50) CHARACTER SET utf16", seen: Seen::Bytes, values: &["'\u{1f600}x'", "''"], default: "'x'" },
    Kind { sql: "VARCHAR(50) CHARACTER SET ucs2", seen: Seen::Bytes, values: &["'\u{fc}x'"], default: "'x'" },
    Kind {
        sql: "VARCHAR(50) CHARACTER SET sjis",
        seen: Seen::Bytes,
        values: &["_sjis X'5C7E'", "_sjis X'83658358'"],
        default: "'x'",
    },
    Kind { sql: "VARCHAR(50) CHARACTER SET utf8mb3", seen: Seen::Bytes, values: &["'\u{fc}'"], default: "'x'" },
    Kind { sql: "VARCHAR(50) CHARACTER SET ascii", seen: Seen::Bytes, values: &["'~'"], default: "'x'" },
    Kind { sql: "TEXT", seen: Seen::Bytes, values: &["REPEAT('\u{fc}', 20000)", "''"], default: "'x'" },
    Kind { sql: "LONGTEXT", seen: Seen::Bytes, values: &["'long'"], default: "'x'" },
    Kind {
        sql: "JSON",
        seen: Seen::Bytes,
        values: &["'{\"a\" :  [1,2.50, null]}'", "'\"\\\\u0041\"'"],
        default: "'{}'",
    },
    Kind { sql: "BINARY(8)", seen: Seen::Bytes, values: &["X'00'", "X'FFFE'", "''"], default: "X'01'" },
    Kind { sql: "VARBINARY(300)", seen: Seen::Bytes, values: &["X'00FF275C0A0D1A'", "''"], default: "X'01'" },
    Kind { sql: "BLOB", seen: Seen::Bytes, values: &["REPEAT(X'00FF', 9000)", "''"], default: "X'01'" },
    Kind { sql: "LONGBLOB", seen: Seen::Bytes, values: &["X'DEADBEEF'"], default: "X'01'" },
    Kind {
        sql: "ENUM('a','','b''c','\u{fc}\u{fc}','2')",
        seen: Seen::Number,
        values: &["'a'", "''", "0", "4", "5", "'no label'"],
        default: "'a'",
    },
    Kind { sql: "ENUM('x') CHARACTER SET latin1", seen: Seen::Number, values: &["'x'", "0"], default: "'x'" },
    Kind { sql: "SET('x','y','z','\u{fc}\u{fc}')", seen: Seen::Number, values: &["''", "'x,z'", "15"], default: "'x'" },
    Kind {
        sql: "UUID",
        seen: Seen::Text,
        values: &["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"],
        default: "'123e4567-e89b-12d3-a456-426655440001'",
    },
    Kind {
        sql: "INET6",
        seen: Seen::Text,
        values: &["'::1'", "'2001:db8::ff00:42:8329'", "'::ffff:10.0.0.1'"],
        default: "'::'",
    },
    Kind { sql: "INET4", seen: Seen::Text, values: &["'255.255.255.255'", "'0.0.0.0'"], default: "'1.2.3.4'" },
    Kind {
        sql: "POINT",
        seen: Seen::Bytes,
        values: &["ST_GeomFromText('POINT(1.5 -2)', 4326)", "POINT(0,0)"],
        default: "POINT(1,1)",
    },
    Kind {
        sql: "GEOMETRY",
        seen: Seen::Bytes,
        values: &["ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"],
        default: "POINT(1,1)",
    },
];

const NAMES: &[&str] = &[
    "plain",
    "sp ace",
    "back``tick",
    "quo'te",
    "dou\"ble",
    "\u{fc}ml\u{e4}ut",
    "select",
    "per%cent",
    "UPPER",
    "com,ma",
    "semi;colon",
    "back\\slash",
    "dot.dot",
    "1",
    "__row",
];

/// What one column is, and the expression that shows its every bit.
struct Column {
    name: String,
    kind: &'static Kind,
    nullable: bool,
}

impl Column {
    fn shown(&self) -> String {
        let name = format!("`{}`", self.name);
        let value = match self.kind.seen {
            Seen::Bytes => format!("CAST({name} AS BINARY)"),
            Seen::Text => format!("CAST({name} AS CHAR)"),
            Seen::Double => format!("CAST({name} + 0e0 AS CHAR)"),
            Seen::Number => format!("CAST(CAST({name} AS UNSIGNED) AS CHAR)"),
        };
        format!("IFNULL(HEX({value}), 'NULL')")
    }
}

#[test]
fn every_cell_of_two_hundred_random_tables_comes_back() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("GRANT ALL ON asterisell.* TO admin@'127.0.0.1' IDENTIFIED BY 'admin-secret'");
    let mut random = Random(401);
    let mut pick = move |limit: usize| usize::try_from(random.below(limit as u64)).unwrap();
    for number in 0..200 {
        // Every type is met at least four times, whatever the chances.
        let mut columns: Vec<Column> = Vec::new();
        for index in 0..4 + pick(7) {
            let kind = if index == 0 { &KINDS[number % KINDS.len()] } else { &KINDS[pick(KINDS.len())] };
            let name = format!("{}{index}", NAMES[pick(NAMES.len())]);
            columns.push(Column { name, kind, nullable: pick(3) > 0 });
        }
        let key =
            ["PRIMARY KEY (calldate, id)", "PRIMARY KEY (id, calldate)", "KEY (calldate)", "UNIQUE KEY (id)"][pick(4)];
        let definitions: String = columns
            .iter()
            .map(|column| {
                let null = if column.nullable { "NULL DEFAULT NULL" } else { "NOT NULL" };
                format!("`{}` {} {null}, ", column.name, column.kind.sql)
            })
            .collect();
        let table = format!(
            "DROP TABLE IF EXISTS ar_source_cdr; CREATE TABLE ar_source_cdr (calldate DATETIME NOT NULL, {definitions} id INT NOT NULL, \
             ar_cdr_provider_id INT, ar_physical_format_id INT, content VARCHAR(100), is_hacked TINYINT, {key});"
        );
        let mut sql = format!(
            "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'; {table}"
        );
        let names: String = columns.iter().map(|column| format!(", `{}`", column.name)).collect();
        for row in 0..12 {
            let values: String = columns
                .iter()
                .map(|column| {
                    let choice = pick(column.kind.values.len() + 2);
                    let value = column.kind.values.get(choice).copied();
                    format!(", {}", value.unwrap_or(if column.nullable { "NULL" } else { column.kind.default }))
                })
                .collect();
            let day = ["2026-01-01", "2026-01-02", "2024-02-31"][pick(3)];
            sql += &format!(
                "INSERT INTO ar_source_cdr (calldate, id{names}) VALUES ('{day} 10:00:{row:02}', {row}{values});"
            );
        }
        server.app(&sql);
        let shown: Vec<String> = columns.iter().map(Column::shown).collect();
        let content = || {
            let list = shown.join(", ");
            server.app(&format!(
                "SET SESSION time_zone = '+00:00'; SELECT calldate, id, {list} FROM ar_source_cdr ORDER BY id"
            ))
        };
        let before = content();
        assert_eq!(before.lines().count(), 12);

        let site = Site::on(&server);
        site.edit("[flow.ar_cdr]\nsource.ar-cdr = { database = \"billing\", money-scale = 4 }\ntransforms = [\"incremental\", \"parquet\"]\nsinks = [\"vault\"]\n", "");
        site.secret("admin", "admin-secret");
        site.ok("replay", &["--from", "0001-01-01", "--to", "9999-12-31"]);
        site.ok("run", &[]);
        let into = format!("mysql://admin@127.0.0.1:{}/asterisell", server.port());
        let password = site.path("admin").display().to_string();
        let target = ["--from-sink", "vault", "--into", &into, "--password-file", &password];
        let restore = || {
            let said = site.run("restore", &target);
            assert_eq!(said.status, 0, "schema {number}: {}\n{table}", said.err);
            said.out
        };
        assert!(
            restore().starts_with("0 partitions restored"),
            "schema {number}: what is there is not known again\n{table}"
        );
        server.app("DELETE FROM ar_source_cdr");
        restore();
        let after = content();
        if after != before {
            let differs = before.lines().zip(after.lines()).find(|(a, b)| a != b);
            panic!("schema {number}: {differs:.900?}\n{table}");
        }
        // By hand, through files.
        let files = format!("csv:{}", site.path("csv").display());
        site.ok("restore", &["--from-sink", "vault", "--into", &files]);
        server.app("DELETE FROM ar_source_cdr; SET GLOBAL local_infile = 1");
        let script = std::fs::read_to_string(site.path("csv/ar_source_cdr/LOAD.sql")).unwrap();
        server.app(&script);
        let after = content();
        if after != before {
            let differs = before.lines().zip(after.lines()).find(|(a, b)| a != b);
            panic!("schema {number}, by LOAD DATA: {differs:.900?}\n{table}\n{script}");
        }
        server.app("DELETE FROM ar_daily_status_job");
    }
}

/// The pipeline with the one flow whose table a test makes as it likes.
fn site_of_source(server: &MariaDb) -> Site {
    let site = Site::on(server);
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let (from, to) = (text.find("[flow.ar_cdr]").unwrap(), text.find("[flow.ar_source_cdr]").unwrap());
    site.pipeline(&format!("{}{}", &text[..from], &text[to..]));
    site
}

/// The target of a restore by an account that may do what restores need, and no more.
fn least(server: &MariaDb, site: &Site) -> Vec<String> {
    server.app(
        "CREATE OR REPLACE USER least@'127.0.0.1' IDENTIFIED BY 'least-secret';
         GRANT SELECT, INSERT, DELETE, CREATE TEMPORARY TABLES ON asterisell.* TO least@'127.0.0.1'",
    );
    site.secret("least", "least-secret");
    let url = format!("mysql://least@127.0.0.1:{}/asterisell", server.port());
    let password = site.path("least").display().to_string();
    ["--from-sink", "vault", "--into", &url, "--password-file", &password].map(str::to_owned).to_vec()
}

fn restored(site: &Site, target: &[String]) -> services::home::Said {
    site.run("restore", &target.iter().map(String::as_str).collect::<Vec<_>>())
}

const FIXED: &str = "ar_cdr_provider_id INT, ar_physical_format_id INT, is_hacked TINYINT, PRIMARY KEY (calldate, id)";

#[test]
fn text_of_every_character_set_comes_back_byte_by_byte() {
    let server = MariaDb::start(Engine::InnoDb);
    let sets = server.app("SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS ORDER BY 1");
    let sets: Vec<&str> = sets.lines().filter(|set| *set != "binary").collect();
    assert!(sets.len() > 35, "{sets:?}");
    let columns: String = sets.iter().map(|set| format!("c_{set} VARCHAR(8) CHARACTER SET {set}, ")).collect();
    let long = ["ascii", "latin1", "ucs2"];
    let longs: String = long.iter().map(|set| format!("l_{set} LONGTEXT CHARACTER SET {set}, ")).collect();
    // What a set refuses is cut off by a server that is not strict; whatever it stored then is what has to come back.
    let mut sql = format!(
        "SET SESSION sql_mode = ''; DROP TABLE ar_source_cdr; CREATE TABLE ar_source_cdr (calldate DATETIME NOT NULL, \
         id INT NOT NULL, content VARCHAR(100), {columns}{longs}{FIXED});"
    );
    for family in 0..4_u16 {
        for byte in 0..=255_u8 {
            let value = |set: &&str| match (*set, family) {
                ("utf32", _) => format!("0000{:02X}{byte:02X}", 0xd8 + family),
                ("ucs2" | "utf16" | "utf16le", 0) => format!("{byte:02X}{byte:02X}"),
                ("ucs2" | "utf16" | "utf16le", 1) => format!("D8{byte:02X}0041"),
                ("ucs2" | "utf16" | "utf16le", 2) => format!("{byte:02X}DC"),
                ("ucs2" | "utf16" | "utf16le", _) => format!("D8{byte:02X}DC{byte:02X}"),
                (_, 0) => format!("{byte:02X}41"),
                (_, 1) => format!("{byte:02X}"),
                (_, 2) => format!("{byte:02X}A9"),
                // Letters of UTF-8, wherever they are.
                _ => format!("C3{byte:02X}E282AC"),
            };
            let values: String = sets.iter().map(|set| format!(", X'{}'", value(set))).collect();
            let id = family * 256 + u16::from(byte);
            let long = if id == 0 {
                ", REPEAT(X'C3A9', 600000), REPEAT(X'E9FF81', 400000), REPEAT(X'D8000041', 300000)"
            } else {
                ", NULL, NULL, NULL"
            };
            sql += &format!(
                "INSERT INTO ar_source_cdr VALUES ('2026-01-0{} 10:00:00', {id}, NULL{values}{long}, 1, 1, 0);",
                1 + family
            );
        }
    }
    server.app(&sql);
    let shown: Vec<String> = sets.iter().map(|set| format!("HEX(c_{set})")).collect();
    let shown = format!("{}, MD5(l_ascii), MD5(l_latin1), MD5(HEX(l_ucs2))", shown.join(", "));
    let content = || server.app(&format!("SELECT id, {shown} FROM ar_source_cdr ORDER BY id"));
    let before = content();
    assert_eq!(before.lines().count(), 1024);
    // The server took odd bytes where it always does.
    for (set, bytes) in [("ascii", "FF41"), ("ascii", "C3A9"), ("ucs2", "D8410041"), ("utf32", "0000D841")] {
        let there = server.app(&format!("SELECT COUNT(*) FROM ar_source_cdr WHERE HEX(c_{set}) LIKE '{bytes}%'"));
        assert_ne!(there.trim(), "0", "{set} {bytes}");
    }
    let site = site_of_source(&server);
    site.ok("run", &[]);
    site.ok("verify", &["--against-source"]);
    let target = least(&server, &site);
    // Once into an empty day, and once in place of other rows.
    for change in ["DELETE FROM ar_source_cdr", "UPDATE ar_source_cdr SET is_hacked = 1, c_ascii = 'x'"] {
        server.app(change);
        let said = restored(&site, &target);
        assert_eq!(said.status, 0, "{change}: {}", said.err);
        let after = content();
        if let Some((was, is)) = before.lines().zip(after.lines()).find(|(was, is)| was != is) {
            let differs = was.split('\t').zip(is.split('\t')).position(|(was, is)| was != is);
            panic!("{change}: column {differs:?}\n{was}\n{is}");
        }
        assert_eq!(after, before);
    }
}

#[test]
fn halves_of_pairs_come_back_through_files_in_whatever_character_set_they_are() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app(&format!(
        "SET SESSION sql_mode = ''; DROP TABLE ar_source_cdr; CREATE TABLE ar_source_cdr (calldate DATETIME NOT NULL, id INT NOT NULL, \
         content VARCHAR(100), u VARCHAR(9) CHARACTER SET ucs2, w VARCHAR(9) CHARACTER SET utf32, l VARCHAR(9) CHARACTER SET latin1, \
         m VARCHAR(9) CHARACTER SET utf8mb4, g VARCHAR(9) CHARACTER SET greek, {FIXED}); INSERT INTO ar_source_cdr VALUES \
         ('2026-01-01 10:00:00', 1, 'x', X'D8000041', X'0000D80000000041', X'EDA08041', X'EDA08041', X'C1FF', 1, 1, 0), \
         ('2026-01-01 10:00:01', 2, 'x', X'00E9DC00', X'0000DFFF', X'E980', X'FF', X'E1', 1, 1, 0), \
         ('2026-01-01 10:00:02', 3, 'x', '\u{e9}', '\u{1f600}', '\u{e9}', '\u{1f600}', '\u{3b1}', 1, 1, 0);"
    ));
    let content = || server.app("SELECT id, HEX(u), HEX(w), HEX(l), HEX(m), HEX(g) FROM ar_source_cdr ORDER BY id");
    let before = content();
    assert!(before.contains("D8000041\t0000D80000000041\tEDA08041\tEDA08041"), "{before}");
    let site = site_of_source(&server);
    site.ok("run", &[]);
    site.ok("restore", &["--from-sink", "vault", "--into", &format!("csv:{}", site.path("csv").display())]);
    server.app("DELETE FROM ar_source_cdr; SET GLOBAL local_infile = 1");
    server.app(&std::fs::read_to_string(site.path("csv/ar_source_cdr/LOAD.sql")).unwrap());
    assert_eq!(content(), before);
}

#[test]
fn decimals_of_many_digits_are_text_where_that_is_asked_for() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app(&format!(
        "SET SESSION sql_mode = ''; DROP TABLE ar_source_cdr; CREATE TABLE ar_source_cdr (calldate DATETIME NOT NULL, id INT NOT NULL, \
         content VARCHAR(100), d DECIMAL(65,30), z DECIMAL(40,2) UNSIGNED ZEROFILL, n DECIMAL(38,10), {FIXED}); \
         INSERT INTO ar_source_cdr VALUES \
         ('2026-01-01 10:00:00', 1, 'x', -99999999999999999999999999999999999.999999999999999999999999999999, 7.5, 1.5, 1, 1, 0), \
         ('2026-01-01 10:00:01', 2, 'x', 1e-30, NULL, NULL, 1, 1, 0), ('2026-01-01 10:00:02', 3, 'x', NULL, 0, 0, 1, 1, 0), \
         ('2026-01-02 10:00:00', 4, 'x', 12345678901234567890123456789012345.000000000000000000000000000001, 1, 1, 1, 1, 0);"
    ));
    let content = || server.app("SELECT id, d, z, n FROM ar_source_cdr ORDER BY id");
    let before = content();
    let site = site_of_source(&server);
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let from = "source.ar-source-cdr = { database = \"billing\"";
    let as_text = text.replace(from, &format!("{from}, wide-decimals = \"text\""));
    assert_ne!(text, as_text);
    // A day that is saved keeps its form until it is saved again, and is compared in it.
    site.ok("run", &[]);
    site.pipeline(&as_text);
    server
        .app("UPDATE ar_source_cdr SET n = 2.5 WHERE id = 1; UPDATE ar_source_cdr SET content = 'longer' WHERE id = 1");
    site.ok("run", &[]);
    site.ok("verify", &["--against-source"]);
    let vault = site.vault().display().to_string();
    let shown = services::python::reader("wide_decimals.py", &[&vault]);
    assert_eq!(
        shown.lines().take(3).collect::<Vec<_>>(),
        [
            "2026-01-01 VARCHAR -99999999999999999999999999999999999.999999999999999999999999999999",
            "2026-01-01 VARCHAR 0.000000000000000000000000000001",
            "2026-01-01 VARCHAR None",
        ]
    );
    assert!(shown.lines().nth(3).unwrap().starts_with("2026-01-02 DOUBLE 1.2345678901234"), "{shown}");
    services::python::reader("check_vault.py", &[&vault]);
    let target = least(&server, &site);
    let before = before.replace("1.5000000000", "2.5000000000");
    for change in ["DELETE FROM ar_source_cdr", "UPDATE ar_source_cdr SET d = 1, z = 2"] {
        server.app(change);
        let said = restored(&site, &target);
        assert_eq!(said.status, 0, "{change}: {}", said.err);
        assert_eq!(content(), before, "{change}");
    }
    assert!(restored(&site, &target).out.starts_with("0 partitions restored"));
    let files = format!("csv:{}", site.path("csv").display());
    site.ok("restore", &["--from-sink", "vault", "--into", &files]);
    server.app("DELETE FROM ar_source_cdr; SET GLOBAL local_infile = 1");
    server.app(&std::fs::read_to_string(site.path("csv/ar_source_cdr/LOAD.sql")).unwrap());
    assert_eq!(content(), before);
    // Back again: the text is compared as text.
    site.pipeline(&text);
    site.ok("verify", &["--against-source"]);
}

#[test]
fn a_long_row_is_saved_and_restored_or_refused_by_its_key() {
    let server = MariaDb::start(Engine::InnoDb);
    let packet = |bytes: &str| server.app(&format!("SET GLOBAL max_allowed_packet = {bytes}"));
    packet("64 << 20");
    server.app(&format!(
        "DROP TABLE ar_source_cdr; CREATE TABLE ar_source_cdr (calldate DATETIME NOT NULL, id INT NOT NULL, \
         content LONGTEXT CHARACTER SET latin1, {FIXED});
         INSERT INTO ar_source_cdr VALUES ('2026-01-05 10:00:00', 41, 'short', 1, 1, 0),
           ('2026-01-05 11:00:00', 42, REPEAT(_latin1 X'E962', 10 << 20), 1, 1, 0),
           ('2026-01-06 10:00:00', 43, 'short', 1, 1, 0)"
    ));
    let content = || server.app("SELECT calldate, id, LENGTH(content), MD5(content) FROM ar_source_cdr ORDER BY id");
    let before = content();
    assert!(before.contains("20971520"), "{before}");
    // What a server takes does not bound what it sends.
    packet("1 << 20");
    let site = site_of_source(&server);
    site.edit("[database.billing]", "[database.billing]\nmax-row = \"16MiB\"");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    for part in
        ["2026-01-05", "longer than `max-row`, 16777216 bytes: calldate = 2026-01-05 11:00:00, id = 42", "\"31MiB\""]
    {
        assert!(said.err.contains(part), "`{part}` is not in {}", said.err);
    }
    assert!(!said.err.contains("id = 41"), "{}", said.err);
    assert_eq!(site.live().len(), 1, "the other day is saved");
    site.edit("16MiB", "32MiB");
    site.ok("run", &[]);
    site.ok("verify", &["--against-source"]);

    // Nothing is changed by a restore that the server cannot take.
    let target = least(&server, &site);
    for change in ["DELETE FROM ar_source_cdr WHERE id = 42", "DELETE FROM ar_source_cdr WHERE calldate < '2026-01-06'"]
    {
        server.app(change);
        let there = content();
        let said = restored(&site, &target);
        assert_ne!(said.status, 0, "{}", said.err);
        for part in ["calldate = '2026-01-05 11:00:00', id = 42", "more than `max_allowed_packet`", "SET GLOBAL"] {
            assert!(said.err.contains(part), "`{part}` is not in {}", said.err);
        }
        assert!(!said.err.contains("trying again"), "{}", said.err);
        assert_eq!(content(), there);
    }
    packet("64 << 20");
    let said = restored(&site, &target);
    assert_eq!(said.status, 0, "{}", said.err);
    assert_eq!(content(), before);
}

#[test]
fn a_row_of_many_values_that_are_nearly_long_is_restored() {
    let server = MariaDb::start(Engine::InnoDb);
    let columns: String = (0..40).map(|number| format!("c{number} MEDIUMBLOB, ")).collect();
    let values: String = (0..40).map(|number| format!("REPEAT(CHAR({number}), 20000), ")).collect();
    server.app(&format!(
        "SET GLOBAL max_allowed_packet = 1 << 20; DROP TABLE ar_source_cdr; CREATE TABLE ar_source_cdr \
         (calldate DATETIME NOT NULL, id INT NOT NULL, content VARCHAR(9), {columns}{FIXED});
         INSERT INTO ar_source_cdr VALUES ('2026-01-05 10:00:00', 1, 'x', {values}1, 1, 0)"
    ));
    let content = || server.app("SELECT MD5(CONCAT(c0, c1, c20, c39)) FROM ar_source_cdr");
    let before = content();
    let site = site_of_source(&server);
    site.ok("run", &[]);
    server.app("DELETE FROM ar_source_cdr");
    let said = restored(&site, &least(&server, &site));
    assert_eq!(said.status, 0, "{}", said.err);
    assert_eq!(content(), before);
}

#[test]
fn a_day_of_a_partitioned_table_is_replaced_without_a_table_that_others_see() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app(&format!(
        "DROP TABLE ar_source_cdr; CREATE TABLE ar_source_cdr (calldate DATETIME NOT NULL, id INT NOT NULL, \
         content VARCHAR(100) COMMENT 'a\\n PARTITION BY b', {FIXED}) ROW_FORMAT=DYNAMIC PARTITION BY RANGE (YEAR(calldate)) \
         (PARTITION before2026 VALUES LESS THAN (2026), PARTITION later VALUES LESS THAN MAXVALUE);
         INSERT INTO ar_source_cdr VALUES ('2025-12-31 10:00:00', 1, 'a', 1, 1, 0), ('2026-01-05 11:00:00', 2, 'b', 1, 1, 0)"
    ));
    let content = || server.app("SELECT * FROM ar_source_cdr ORDER BY id");
    let before = content();
    let site = site_of_source(&server);
    site.ok("run", &[]);
    server.app("UPDATE ar_source_cdr SET content = 'other'");
    let target = least(&server, &site);
    let said = restored(&site, &target);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(!said.err.contains("staged") && !said.out.contains("staged"), "{}{}", said.out, said.err);
    assert_eq!(content(), before);
}

#[test]
fn the_name_of_our_own_column_is_refused_and_other_odd_names_stay_on_their_line() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("ALTER TABLE ar_source_cdr ADD `__raw` INT");
    let site = site_of_source(&server);
    let said = site.run("run", &[]);
    assert_ne!(said.status, 0);
    assert!(said.err.contains("has a column `__raw`") && said.err.contains("rename the column"), "{}", said.err);

    server.app(
        "ALTER TABLE ar_source_cdr CHANGE `__raw` `a\u{1b}[31m\nerror: b` INT;
         INSERT INTO ar_source_cdr VALUES ('2026-01-05 11:00:00', 2, 1, 1, 'b', 0, 7)",
    );
    site.ok("run", &[]);
    server.app("ALTER TABLE ar_source_cdr DROP `a\u{1b}[31m\nerror: b`; UPDATE ar_source_cdr SET content = 'c'");
    let said = restored(&site, &least(&server, &site));
    assert_ne!(said.status, 0);
    assert!(said.err.contains("`a\\u{1b}[31m\\nerror: b` (int(11)) is missing in the table"), "{}", said.err);
    assert!(!said.err.contains('\u{1b}'), "{}", said.err);
}

#[test]
fn tables_without_transactions_and_views_are_saved_with_a_word_about_it() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("INSERT INTO ar_source_cdr VALUES ('2026-01-05 11:00:00', 2, 1, 1, 'b', 0)");
    let site = site_of_source(&server);
    let has = |part: &str| {
        for (verb, more) in [("run", &[][..]), ("validate", &["--connect"][..])] {
            let said = site.ok(verb, more);
            let all = format!("{}{}", said.out, said.err);
            assert_eq!(all.contains("transactions"), !part.is_empty(), "{verb}: {all}");
            assert!(all.contains(part), "{verb}: {all}");
        }
    };
    has("");
    for engine in ["MyISAM", "Aria"] {
        server.app(&format!("ALTER TABLE ar_source_cdr ENGINE = {engine}"));
        has(&format!("table `ar_source_cdr` is of the engine {engine}, which has no transactions"));
    }
    server.app("RENAME TABLE ar_source_cdr TO calls; CREATE VIEW ar_source_cdr AS SELECT * FROM calls");
    has("`ar_source_cdr` is a view");
}
