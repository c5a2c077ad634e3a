//! Memory does not grow with the size of a day.

use std::process::Stdio;
use std::time::Duration;

use crate::services;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};

const LIMIT_KIB: u64 = 300 * 1024;

/// A day in the width of real ones: 31 columns, some of them text that differs in every row.
fn fill(server: &MariaDb, calls: u64) {
    server.app(&format!(
        "SET SESSION unique_checks = 0;
         INSERT INTO ar_cdr (calldate, id, to_calldate, destination_type, duration, billsec, ar_organization_unit_id,
           cached_parent_id_hierarchy, billable_ar_organization_unit_id, income, cost_saving, ar_vendor_id, cost,
           expected_cost, ar_telephone_prefix_id, cached_external_telephone_number,
           external_telephone_number_with_applied_portability, cached_masked_external_telephone_number, debug_cost_rate,
           debug_income_rate, imported_info, exported_internal_telephone_number, from_source_cdr_id)
         SELECT '2026-01-05' + INTERVAL seq * 86399 DIV {calls} SECOND, CRC32(seq) DIV 4, '2026-01-05 12:00:00', 2,
           seq % 900, seq % 870, seq % 500, CONCAT('/1/', seq % 40, '/', seq % 500, '/'), seq % 500, CRC32(seq) % 100000,
           NULL, seq % 7, CRC32(seq + 1) % 90000, NULL, seq % 3000, CONCAT('0039', CRC32(seq * 7)), NULL,
           CONCAT('0039', CRC32(seq * 7) DIV 1000, 'XXX'), CONCAT('rate ', seq % 97), CONCAT('rate ', seq % 89),
           CONCAT('trunk-', seq % 5, '\t', MD5(seq)), CONCAT('2', seq % 1000), seq
         FROM seq_1_to_{calls}"
    ));
}

/// The peak of a verb's memory, and what it said.
fn peak_kib(site: &Site, verb: &str, more: &[&str]) -> u64 {
    let mut run = site.command(verb, more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    while run.try_wait().unwrap().is_none() {
        // VmHWM of proc_pid_status(5): the peak so far, which never falls.
        let status = std::fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = services::home::said(run.wait_with_output().unwrap());
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(peak > 10 * 1024, "nothing was measured");
    peak
}

#[test]
fn a_day_of_two_million_calls_needs_less_than_300_mb() {
    const CALLS: u64 = 2_000_000;
    let server = MariaDb::start(Engine::InnoDb);
    fill(&server, CALLS);
    let site = Site::on(&server);
    let peak = peak_kib(&site, "run", &["--flow", "ar_cdr"]);
    assert!(peak < LIMIT_KIB, "the run needed {} MiB", peak / 1024);
    let listed = site.ok("snapshots", &["--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed["snapshots"][0]["rows"], CALLS);
}

#[test]
fn the_restore_of_half_a_million_calls_needs_less_than_300_mb() {
    let server = MariaDb::start(Engine::InnoDb);
    fill(&server, 500_000);
    let site = Site::on(&server);
    site.ok("run", &["--flow", "ar_cdr"]);
    let sum = "SELECT COUNT(*), SUM(id), SUM(CRC32(imported_info)) FROM ar_cdr";
    let before = server.app(sum);
    server.app("TRUNCATE ar_cdr");
    let into = format!("mysql://root@localhost/asterisell?socket={}", server.socket().display());
    let peak = peak_kib(&site, "restore", &["--from-sink", "vault", "--into", &into]);
    assert!(peak < LIMIT_KIB, "the restore needed {} MiB", peak / 1024);
    assert_eq!(server.app(sum), before);
}

/// Text that compresses well: a row group must end before it becomes too large to be read.
#[test]
fn a_day_of_calls_with_ten_thousand_characters_needs_less_than_300_mb() {
    const CALLS: u64 = 40_000;
    let server = MariaDb::start(Engine::InnoDb);
    server.app(&format!(
        "INSERT INTO ar_source_cdr (calldate, id, ar_cdr_provider_id, ar_physical_format_id, content, is_hacked)
         SELECT '2026-01-05' + INTERVAL seq SECOND, seq, 1, 1, RPAD(MD5(seq), 10000, MD5(seq)), 0 FROM seq_1_to_{CALLS}"
    ));
    let site = Site::on(&server);
    let peak = peak_kib(&site, "run", &["--flow", "ar_source_cdr"]);
    assert!(peak < LIMIT_KIB, "the run needed {} MiB", peak / 1024);
    let file = std::fs::File::open(&site.live()[0]).unwrap();
    let reader = parquet::file::reader::SerializedFileReader::new(file).unwrap();
    let groups = parquet::file::reader::FileReader::metadata(&reader).row_groups();
    assert_eq!(groups.iter().fold(0, |rows, group| rows + group.num_rows().unsigned_abs()), CALLS);
    for group in groups {
        assert!(group.total_byte_size() <= 260 << 20, "{} MiB", group.total_byte_size() >> 20);
    }
}

/// A row is held whole: ten times `max-row` is what a run needs at most.
#[test]
fn a_row_of_60_mb_needs_less_than_700_mb() {
    let server = MariaDb::start(Engine::InnoDb);
    server.app("SET GLOBAL max_allowed_packet = 128 << 20; ALTER TABLE ar_source_cdr MODIFY content LONGTEXT");
    server.app("DROP TRIGGER IF EXISTS fixture_source_cdr_kind");
    // Nothing that compresses.
    server.app(
        "SET SESSION group_concat_max_len = 64 << 20;
         INSERT INTO ar_source_cdr SELECT '2026-01-05', 1, 1, 1, GROUP_CONCAT(SHA2(seq, 512) SEPARATOR ''), 0 FROM seq_1_to_470000",
    );
    let sum = "SELECT id, LENGTH(content), MD5(content) FROM ar_source_cdr";
    let before = server.app(sum);
    assert!(before.contains("60160000"), "{before}");
    let site = Site::on(&server);
    let peak = peak_kib(&site, "run", &["--flow", "ar_source_cdr"]);
    server.app("DELETE FROM ar_source_cdr");
    let into = format!("mysql://root@localhost/asterisell?socket={}", server.socket().display());
    let restoring = peak_kib(&site, "restore", &["--from-sink", "vault", "--into", &into]);
    assert!(
        peak.max(restoring) < 700 * 1024,
        "the run needed {} MiB, the restore {} MiB",
        peak / 1024,
        restoring / 1024
    );
    assert_eq!(server.app(sum), before);
}
