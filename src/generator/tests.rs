//! What the generator promises.
#![allow(clippy::cast_possible_wrap, reason = "small numbers of a test")]

use std::collections::HashSet;

use jiff::civil::date;

use super::csv::Size;
use super::{Day, Generator, Rated, Row, Settings, Value, csv, mysql, sqlite};

fn generator() -> Generator {
    Generator::new(Settings { seed: 7, ..Settings::default() })
}

#[test]
fn the_same_seed_gives_the_same_day() {
    let day = date(2026, 1, 15);
    assert_eq!(generator().day(day), generator().day(day));
    assert_ne!(generator().day(day), Generator::new(Settings { seed: 8, ..Settings::default() }).day(day));
}

#[test]
fn a_day_stays_what_it_was_in_earlier_releases() {
    let mut size = Size::default();
    let day = generator().day(date(2026, 1, 15));
    day.cdrs.iter().for_each(|cdr| size.add(cdr));
    day.source_cdrs.iter().for_each(|source| size.add(source));
    assert_eq!((day.cdrs.len(), day.source_cdrs.len(), size.bytes()), (2_207, 2_192, 843_703));
}

#[test]
fn keys_are_unique_and_in_the_order_of_the_calls() {
    let day: Day = generator().exactly(date(2026, 1, 15), 300_000).collect();
    let ids: HashSet<_> = day.cdrs.iter().map(|cdr| cdr.id).collect();
    assert_eq!(ids.len(), day.cdrs.len());
    let rerated: HashSet<_> = generator().rerate(&day, 1).cdrs.iter().map(|cdr| cdr.id).collect();
    assert_eq!(rerated.len(), day.cdrs.len());
    let sources: HashSet<_> = day.source_cdrs.iter().map(|source| source.id).collect();
    assert_eq!(sources.len(), 300_000);
    assert!(day.cdrs.is_sorted_by_key(|cdr| cdr.calldate));
    assert!(day.cdrs.iter().all(|cdr| cdr.calldate.date() == date(2026, 1, 15)));
    assert!(day.cdrs.iter().filter_map(|cdr| cdr.from_source_cdr_id).all(|id| sources.contains(&id)));
}

#[test]
fn calls_are_of_every_kind() {
    let day: Day = generator().exactly(date(2026, 1, 15), 20_000).collect();
    for kind in [1, 2, 3, 5, 6] {
        assert!(day.cdrs.iter().any(|cdr| cdr.destination_type == kind), "no call of type {kind}");
    }
    for format in 1..=3 {
        assert!(day.source_cdrs.iter().any(|source| source.ar_physical_format_id == format), "no format {format}");
    }
    assert!(day.cdrs.iter().any(|cdr| cdr.is_service_cdr == 1 && cdr.to_calldate.is_some()));
    assert!(day.cdrs.iter().any(|cdr| cdr.is_redirect == 1));
    assert!(day.cdrs.iter().any(|cdr| cdr.cost < Some(0) && cdr.cost.is_some()));
    assert!(day.source_cdrs.iter().any(|source| source.content.is_none()));
    assert!(day.source_cdrs.iter().any(|source| source.is_hacked == 1));
    assert!(day.source_cdrs.iter().flat_map(|source| &source.content).any(|line| line.contains("St.Pölten")));
    assert!(day.cdrs.iter().flat_map(|cdr| &cdr.imported_info).any(|info| info.contains('\t')));
    let unanswered = day.cdrs.iter().filter(|cdr| cdr.billsec == 0).count();
    assert!((4_000..6_000).contains(&unanswered), "{unanswered} unanswered");
}

#[test]
fn every_column_that_may_be_null_is_so_somewhere_and_not_everywhere() {
    let day: Day = generator().exactly(date(2026, 1, 15), 20_000).collect();
    let mandatory = [0, 1, 2, 4, 5, 6, 7, 8, 23, 28];
    for (index, column) in super::Cdr::COLUMNS.iter().enumerate() {
        let nulls = day.cdrs.iter().filter(|cdr| cdr.values().nth(index) == Some(Value::Null)).count();
        assert_eq!(nulls == 0, mandatory.contains(&index), "{column} is NULL {nulls} times");
        assert_ne!(nulls, day.cdrs.len(), "{column} is always NULL");
    }
}

#[test]
fn days_grow_and_rest() {
    let generator = generator();
    let january = generator.volume(date(2026, 1, 14));
    assert!(generator.volume(date(2026, 7, 15)) > 2 * january);
    assert!(generator.volume(date(2026, 1, 18)) * 2 < january, "Sunday is quiet");
    let day = generator.day(date(2026, 1, 14));
    let at = |hour| day.cdrs.iter().filter(|cdr| cdr.calldate.hour() == hour && cdr.is_service_cdr == 0).count();
    assert!(at(3) * 20 < at(10), "{} at night, {} in the morning", at(3), at(10));
    assert_eq!(day.source_cdrs.len() as u64, january);
    assert_eq!(generator.exactly(date(2026, 1, 14), 0).filter(|rated| rated.source.is_some()).count(), 0);
}

#[test]
fn a_few_customers_make_most_of_the_calls() {
    let day = generator().day(date(2026, 1, 14));
    let mut calls = std::collections::HashMap::<_, usize>::new();
    for cdr in &day.cdrs {
        *calls.entry(cdr.billable_ar_organization_unit_id).or_default() += 1;
    }
    let mut counts: Vec<_> = calls.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    assert!(counts.iter().take(5).sum::<usize>() * 3 > day.cdrs.len());
    assert!(counts.len() > 30);
}

#[test]
fn rerating_changes_every_id_and_some_rates() {
    let day = generator().day(date(2026, 1, 14));
    for (percent, expected) in [(0, 0..1), (33, 400..1_000), (100, 1_900..3_000)] {
        let rerating = generator().rerating(3, percent);
        let mut changed = 0;
        for cdr in &day.cdrs {
            let mut again = cdr.clone();
            rerating.apply(&mut again);
            assert_ne!(again.id, cdr.id);
            again.id = cdr.id;
            changed += usize::from(again != *cdr);
        }
        assert!(expected.contains(&changed), "{percent} %: {changed} changed");
    }
    let once = generator().rerate(&day, 1);
    assert_eq!(once, generator().rerate(&day, 1));
    assert_ne!(once, generator().rerate(&day, 2));
    assert_eq!(once.source_cdrs, day.source_cdrs);
}

#[test]
fn a_csv_line_is_that_of_select_into_outfile() {
    let source = super::SourceCdr {
        calldate: date(2026, 1, 14).at(9, 12, 44, 0),
        id: 5,
        ar_cdr_provider_id: 1,
        ar_physical_format_id: 2,
        content: Some("a,\"b\"\\ü".to_owned()),
        is_hacked: 0,
    };
    let mut line = Vec::new();
    csv::write(&mut line, &source).unwrap();
    assert_eq!(String::from_utf8(line.clone()).unwrap(), "\"2026-01-14 09:12:44\",5,1,2,\"a,\\\"b\\\"\\\\ü\",0\n");
    let mut size = Size::default();
    size.add(&source);
    assert_eq!(size.bytes(), line.len() as u64);

    let mut inserts = mysql::Inserts::default();
    assert_eq!(inserts.push(&source), None);
    let row = "\n('2026-01-14 09:12:44',5,1,2,_utf8mb4 X'612C2262225CC3BC',0)";
    assert!(inserts.finish().unwrap().ends_with(row));
    assert_eq!(inserts.finish(), None);
}

/// Rows, income, bytes of the paths, and how these are stored.
type Sums = (i64, i64, i64, String);

#[tokio::test]
async fn a_sqlite_database_holds_what_was_generated() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = sqlite::create(&directory.path().join("billing.sqlite")).await.unwrap();
    let (generator, date) = (generator(), date(2026, 1, 14));
    let calls: Vec<Rated> = generator.calls(date).collect();
    sqlite::load(&mut connection, calls.clone()).await.unwrap();
    sqlite::load(&mut connection, generator.calls(date.tomorrow().unwrap())).await.unwrap();
    sqlx::query("INSERT INTO ar_daily_status_job (name) VALUES ('a'), ('b')").execute(&mut connection).await.unwrap();

    let day: Day = calls.into_iter().collect();
    let sum = "SELECT count(*), sum(income), sum(length(cached_parent_id_hierarchy)), group_concat(DISTINCT typeof(
        cached_parent_id_hierarchy)) FROM ar_cdr WHERE calldate < '2026-01-15'";
    let expected = |day: &Day| {
        let paths = day.cdrs.iter().flat_map(|cdr| &cdr.cached_parent_id_hierarchy).map(|path| path.len() as i64);
        (day.cdrs.len() as i64, day.cdrs.iter().filter_map(|cdr| cdr.income).sum(), paths.sum(), "blob,null".to_owned())
    };
    let found: Sums = sqlx::query_as(sum).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, expected(&day));

    let rerated = generator.rerate(&day, 1);
    sqlite::rerate_day(&mut connection, date, rerated.cdrs.clone()).await.unwrap();
    sqlite::announce(&mut connection, date).await.unwrap();
    let found: Sums = sqlx::query_as(sum).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, expected(&rerated));
    let days: Vec<(String, i64)> =
        sqlx::query_as("SELECT * FROM ar_daily_status_change").fetch_all(&mut connection).await.unwrap();
    assert_eq!(days, [("2026-01-14".to_owned(), 1), ("2026-01-14".to_owned(), 2)]);
    let next: (i64,) = sqlx::query_as("SELECT count(*) FROM ar_cdr WHERE calldate > '2026-01-15'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(next.0 > 1_000);
}
