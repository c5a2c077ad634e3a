//! What a day of MariaDB becomes, read back by readers that are not ours.

use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb, Server};
use crate::services::python;
use crate::services::rating::Rating;

#[test]
fn every_value_of_a_day_is_what_the_database_has() {
    for engine in [Engine::InnoDb, Engine::RocksDb] {
        let server = MariaDb::start(engine);
        Rating::new(7, 3, 400).fill(&server);
        // Values that usually get damaged: see the manual's page on fidelity.
        server.app(
            "SET SESSION sql_mode='ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO';
             INSERT INTO ar_source_cdr VALUES
               ('2026-01-02 00:00:00', 900001, 1, 1, '', -128),
               ('2026-01-02 23:59:59', 900002, 1, 1, NULL, 127),
               ('2026-01-02 12:00:00', 900003, 1, 1, 'trailing   ', 2),
               ('2026-01-02 12:00:00', 900004, 1, 1, _utf8mb4 x'EDA080', 0),
               ('2026-01-02 12:00:00', 900005, 1, 1, '😀 \\t tab \\0 nul', 0),
               ('2026-01-02 12:00:00', 900006, 1, 1, REPEAT('ü', 5000), 0),
               ('0000-00-00 00:00:00', 900007, 1, 1, 'zero', 0),
               ('2024-02-29 23:59:59', 900008, 1, 1, 'last second', 0),
               ('2024-02-31 10:00:00', 900009, 1, 1, 'no such day', 0),
               ('2024-00-10 00:00:00', 900010, 1, 1, 'no such month', 0),
               ('9999-12-31 23:59:59', 900011, 1, 1, 'the last day', 0);
             INSERT INTO ar_cdr (calldate, id, to_calldate, income, cost, cached_parent_id_hierarchy, exported_internal_telephone_number)
             VALUES ('2026-01-02 10:00:00', 0, '2024-02-31 01:02:03', -9223372036854775808, 9223372036854775807, x'00FF2F', ''),
                    ('2026-01-02 10:00:00', -2147483648, '0000-00-00 00:00:00', 0, NULL, '', 'x'),
                    ('2026-01-02 10:00:00', 2147483647, '9999-12-31 23:59:59', 1, 1, NULL, 'x');",
        );
        let site = Site::on(&server);
        site.ok("run", &[]);
        python::compare(&server, &site.vault(), false).unwrap_or_else(|e| panic!("{engine:?}: {e}"));
        let duck = python::reader("count_rows.py", &[site.vault().to_str().unwrap()]);
        let count = server.app("SELECT (SELECT COUNT(*) FROM ar_cdr), (SELECT COUNT(*) FROM ar_source_cdr)");
        let count: Vec<&str> = count.split_whitespace().collect();
        assert_eq!(duck.trim(), format!("ar_cdr {}\nar_source_cdr {}", count[0], count[1]), "{engine:?}");
    }
}

#[test]
fn columns_that_a_site_added_are_carried_along() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(8, 1, 50).fill(&server);
    server.app(
        "SET SESSION sql_mode='ALLOW_INVALID_DATES';
         ALTER TABLE ar_cdr
           ADD site_amount DECIMAL(20,6) NULL, ADD site_wide DECIMAL(60,4) NULL, ADD site_big BIGINT UNSIGNED NULL,
           ADD site_bits BIT(12) NULL, ADD site_year YEAR NULL, ADD site_ratio FLOAT NULL, ADD site_exact DOUBLE NULL,
           ADD site_at TIMESTAMP(6) NULL, ADD site_day DATE NULL, ADD site_span TIME(3) NULL,
           ADD site_latin VARCHAR(50) CHARACTER SET latin1 NULL, ADD site_kind ENUM('', 'a', 'bé') NULL,
           ADD site_set SET('x', 'y') NULL, ADD site_hidden INT INVISIBLE DEFAULT 5,
           ADD site_sum INT AS (duration + billsec) STORED, ADD site_blob BLOB NULL, ADD site_uuid UUID NULL;
         UPDATE ar_cdr SET site_amount = -12.345678, site_wide = 12345678901234567890123456789012345678901234567890.1234,
           site_big = 18446744073709551615, site_bits = b'100000000001', site_year = 2026, site_ratio = 16777216,
           site_exact = 0.1, site_at = '2026-01-01 10:00:00.123456', site_day = '2026-02-01', site_span = '-838:59:59.000',
           site_latin = 'Pölten', site_kind = 'bé', site_set = 'x,y', site_blob = x'00FF', site_uuid = UUID();",
    );
    let site = Site::on(&server);
    site.ok("run", &[]);
    let path = site.live().into_iter().find(|path| path.to_string_lossy().contains("ar_cdr/")).unwrap();
    let said = python::reader("site_columns.py", &[path.to_str().unwrap()]);
    assert_eq!(
        said.trim(),
        "site_amount decimal128(20, 6) Decimal('-12.345678')\n\
         site_wide decimal256(60, 4) Decimal('12345678901234567890123456789012345678901234567890.1234')\n\
         site_big uint64 18446744073709551615\n\
         site_bits uint64 2049\n\
         site_year uint16 2026\n\
         site_ratio float 16777216.0\n\
         site_exact double 0.1\n\
         site_at timestamp[us, tz=UTC] 2026-01-01 10:00:00.123456+00:00\n\
         site_day date32[day] 2026-02-01\n\
         site_span int64 -3020399000000\n\
         site_latin string 'Pölten'\n\
         site_kind string 'bé'\n\
         site_set string 'x,y'\n\
         site_hidden int32 5\n\
         site_blob binary b'\\x00\\xff'\n\
         no site_sum, site_uuid of 16 bytes, raw empty"
    );
    // A column that is added with its default everywhere does not make any day look changed.
    site.ok("run", &[]);
    server.app("ALTER TABLE ar_source_cdr ADD site_note VARCHAR(20) NOT NULL DEFAULT 'none', ADD site_flag INT NOT NULL DEFAULT 7");
    std::fs::remove_dir_all(site.path("state")).unwrap();
    assert_eq!(site.published(), Vec::<String>::new(), "a sweep in full finds nothing");
}

#[test]
fn a_known_column_that_is_missing_is_a_clear_error() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(9, 1, 5).fill(&server);
    server.app("ALTER TABLE ar_cdr DROP COLUMN expected_cost");
    let site = Site::on(&server);
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "the other flow goes on: {}", said.err);
    assert!(said.err.contains("table `ar_cdr` of mysql://127.0.0.1"), "{}", said.err);
    assert!(said.err.contains("has no column `expected_cost`"), "{}", said.err);
    assert!(site.live().iter().all(|path| path.to_string_lossy().contains("ar_source_cdr")), "{:?}", site.live());
}

/// In autumn an hour comes twice, in spring one is missing, and the new year comes at midnight of the wall clock:
/// a day is what the clock on the wall said, in any zone of the server and of ours.
#[test]
fn a_day_is_the_day_of_the_wall_clock_in_three_time_zones() {
    for (zone, server_zone) in
        [("Europe/Rome", "+01:00"), ("America/Sao_Paulo", "-03:00"), ("Pacific/Auckland", "+13:00")]
    {
        let server = Server::new(Engine::InnoDb).option(&format!("--default-time-zone={server_zone}")).start();
        let mut sql = String::from("INSERT INTO ar_source_cdr VALUES ");
        let mut id = 0;
        for day in ["2025-12-31", "2026-01-01", "2026-03-29", "2026-04-05", "2026-09-27", "2026-10-25"] {
            for time in ["00:00:00", "01:59:59", "02:00:00", "02:30:00", "02:59:59", "03:00:00", "23:59:59"] {
                // The repeated hour: the same wall clock twice.
                for _ in 0..2 {
                    id += 1;
                    sql += &format!("{}('{day} {time}',{id},1,1,'{day} {time}',0)", if id == 1 { "" } else { "," });
                }
            }
        }
        server.app(&sql);
        let site = Site::on(&server);
        site.edit("Europe/Rome", zone);
        let mut command = site.command("run", &[]);
        let done = command.env("TZ", zone).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        // compare_vault.py checks that each call lies in the file of its own day.
        let said = python::compare(&server, &site.vault(), false).unwrap_or_else(|e| panic!("{zone}: {e}"));
        assert_eq!(said.trim(), "84 rows are equal", "{zone}");
        assert_eq!(site.live().len(), 6, "{zone}");
    }
}
