//! A simulator of the rating engine: calls are made, rated again, moved away and announced, in the engine's way.

use std::fmt::Write as _;

use super::Random;
use super::mariadb::MariaDb;

/// The days that the simulator works on are `first` January 2026 and so many after it.
pub struct Rating {
    pub random: Random,
    pub days: u64,
    pub calls: u64,
}

impl Rating {
    pub fn new(seed: u64, days: u64, calls: u64) -> Self {
        Self { random: Random(seed), days, calls }
    }

    pub fn day(number: u64) -> String {
        let (month, day) = if number < 31 { (1, number + 1) } else { (2, number - 30) };
        format!("2026-{month:02}-{day:02}")
    }

    /// Source and rated calls of every day, announced.
    pub fn fill(&mut self, server: &MariaDb) {
        for number in 0..self.days {
            let day = Self::day(number);
            let calls = self.calls;
            let sql = format!("{}{}", self.source_calls(&day, calls), self.rated(&day, calls, 0));
            server.app(&transaction(&sql, &[&day]));
        }
    }

    /// One operation of the engine, or of a person, chosen at random.
    pub fn step(&mut self, server: &MariaDb) {
        let day = Self::day(self.random.below(self.days));
        let delete = format!("DELETE FROM ar_cdr WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY;");
        let sql = match self.random.below(10) {
            // The same calls with other ids: no change of content.
            0 | 1 => {
                let offset = 1 + self.random.below(1_000_000);
                transaction(
                    &format!(
                        "CREATE TEMPORARY TABLE again AS SELECT * FROM ar_cdr WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY;
                         {delete} UPDATE again SET id = id + {offset}; INSERT INTO ar_cdr SELECT * FROM again; DROP TEMPORARY TABLE again;"
                    ),
                    &[&day],
                )
            }
            // Emptied.
            2 => transaction(&delete, &[&day]),
            // New source calls that arrive late.
            3 => {
                let calls = 1 + self.random.below(3);
                transaction(&self.source_calls(&day, calls), &[&day])
            }
            // Rated again with other prices, and another number of calls.
            _ => {
                let calls = self.calls / 2 + self.random.below(self.calls);
                let price = self.random.below(1_000_000);
                transaction(&format!("{delete}{}", self.rated(&day, calls, price)), &[&day])
            }
        };
        // The engine tries again when it has to wait for a lock.
        for _ in 0..20 {
            match server.try_sql("asterisell", &sql) {
                Ok(_) => return,
                Err(error) => {
                    assert!(error.contains("1205") || error.contains("1213") || error.contains("1020"), "{error}");
                }
            }
        }
        panic!("the engine could not get its locks");
    }

    pub fn source_calls(&mut self, day: &str, calls: u64) -> String {
        let mut sql = String::from("INSERT IGNORE INTO ar_source_cdr VALUES ");
        for call in 0..calls {
            let (time, id) = (self.time(), self.random.below(1 << 30));
            let comma = if call == 0 { "" } else { "," };
            write!(sql, "{comma}('{day} {time}',{id},1,2,'{day} {time};\"\"\"Zoë\"\" <{call}>\";St.Pölten;0;{id}',0)")
                .unwrap();
        }
        sql + ";\n"
    }

    pub fn rated(&mut self, day: &str, calls: u64, price: u64) -> String {
        let mut sql = String::from(
            "INSERT IGNORE INTO ar_cdr (calldate,id,is_service_cdr,destination_type,duration,billsec,cached_parent_id_hierarchy,\
             income,cost,cached_external_telephone_number,imported_info,exported_internal_telephone_number,from_source_cdr_id) VALUES ",
        );
        for call in 0..calls {
            let (time, id, billsec) = (self.time(), self.random.below(1 << 30), self.random.below(300));
            let comma = if call == 0 { "" } else { "," };
            let cost = if call % 7 == 0 { "NULL".to_owned() } else { (billsec * 17 + price).to_string() };
            write!(
                sql,
                "{comma}('{day} {time}',{id},0,{},{},{billsec},'/1/{}/',{cost},{},'39051{id:07}','a\\tb',{call},{id})",
                1 + call % 6,
                billsec + 8,
                call % 9,
                billsec * 11,
            )
            .unwrap();
        }
        sql + ";\n"
    }

    fn time(&mut self) -> String {
        let second = self.random.below(86_400);
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }
}

/// What the engine does in one transaction, with its event calls at the end.
pub fn transaction(sql: &str, announced: &[&str]) -> String {
    let events: String = announced.iter().map(|day| format!("CALL add_daily_status_change_event('{day}');")).collect();
    format!("SET autocommit=0; {sql} {events} COMMIT;")
}

/// Other prices for a day, announced.
pub fn rate_again(server: &MariaDb, day: &str) {
    let sql = format!(
        "UPDATE ar_cdr SET income = income + 7 WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY;"
    );
    server.app(&transaction(&sql, &[day]));
}

/// How many days are owed. The mark of the last run is not a day.
pub fn owed(server: &MariaDb) -> u64 {
    let sql = "SELECT COUNT(*) FROM ar_daily_status_change WHERE ar_daily_status_job_id NOT IN
               (SELECT id FROM ar_daily_status_job WHERE name LIKE 'cdrvault/%/mark')";
    server.app(sql).trim().parse().unwrap()
}

/// What a server has of a day of calls as received, as a few numbers to be compared.
pub fn source_day(server: &MariaDb, day: &str) -> String {
    server.app(&format!(
        "SELECT COUNT(*), SUM(CRC32(CONCAT_WS('|', calldate, id, HEX(content)))) FROM ar_source_cdr
         WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY"
    ))
}
