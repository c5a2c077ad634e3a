//! Random tables with every type of the server and the values that usually get damaged: saved, emptied, restored, and
//! every cell is what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, clippy::format_push_string, reason = "a test")]

mod services;

use services::Random;
use services::home::Site;
use services::mariadb::{Engine, MariaDb};

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
