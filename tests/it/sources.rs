//! The same rows have the same fingerprint, whichever database they come from, and in whatever batches and order.

use crate::services;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use cdrvault::generator::{Generator, Settings, mysql, sqlite};
use jiff::civil::Date;

#[test]
fn mariadb_and_sqlite_agree_on_every_fingerprint() {
    let server = MariaDb::start(Engine::InnoDb);
    let from_server = Site::on(&server);
    let from_file = Site::new("sqlite:billing.sqlite");
    let start = Date::constant(2026, 3, 27);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut in_file = sqlite::create(&from_file.path("billing.sqlite")).await.unwrap();
        // Days of many seeds and sizes: one batch, several, and a few rows.
        for (number, calls) in [3, 40, 700, 9000, 1, 2500].into_iter().enumerate() {
            let number = i64::try_from(number).unwrap();
            let settings = Settings { seed: 100 + u64::try_from(number).unwrap(), start, ..Settings::default() };
            let generator = Generator::new(settings);
            let day = start.checked_add(jiff::Span::new().days(number)).unwrap();
            for statement in mysql::statements(generator.exactly(day, calls)) {
                server.sql("asterisell", &statement);
            }
            sqlite::load(&mut in_file, generator.exactly(day, calls)).await.unwrap();
        }
    });
    let fingerprints = |site: &Site| {
        site.ok("run", &[]);
        let said = site.ok("snapshots", &["--json"]);
        let listed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let mut found: Vec<String> = listed["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| format!("{} {} {} {}", s["dataset"], s["partition"], s["content"], s["full"]))
            .collect();
        found.sort();
        found
    };
    let (server_says, file_says) = (fingerprints(&from_server), fingerprints(&from_file));
    assert_eq!(server_says.len(), 12);
    assert_eq!(server_says, file_says);
    services::python::compare(&server, &from_server.vault(), false).unwrap();
    // Across the two databases too: the SQLite vault is compared with MariaDB.
    services::python::compare(&server, &from_file.vault(), false).unwrap();
}
