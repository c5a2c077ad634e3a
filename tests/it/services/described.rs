//! A database with one of everything that dumps have lost once, and all that a server tells of one.

use cdrvault_format::entry::Entry;
use cdrvault_format::fingerprint;
use sha2::{Digest as _, Sha256};

use super::home::Site;
use super::mariadb::MariaDb;

/// Makes one of everything in the application's database.
pub fn fill(server: &MariaDb) {
    server.app(&std::fs::read_to_string(super::places::test_file("fixtures/everything.sql")).unwrap());
}

/// All that a server tells of a database, a line each: what makes each object, and every value as hexadecimal digits.
pub fn described(server: &MariaDb, database: &str) -> Vec<String> {
    let ask = |sql: &str| {
        server.sql(database, sql).replace(&format!("`{database}`."), "").replace(&format!("\t{database}\t"), "\t")
    };
    let list = |sql: &str| server.sql(database, &sql.replace("= HERE", &format!("= '{database}'")));
    let name = |name: &str| format!("`{}`", name.replace('`', "``"));
    let mut all = Vec::new();
    for line in
        list("SELECT HEX(table_name), table_type FROM information_schema.tables WHERE table_schema = HERE ORDER BY 1")
            .lines()
    {
        let (hex, kind) = line.split_once('\t').unwrap();
        let table = unhex(hex);
        let table = name(&table);
        if kind == "VIEW" {
            all.push(ask(&format!("SHOW CREATE VIEW {table}")));
            continue;
        }
        all.push(ask(&format!("SHOW CREATE TABLE {table}")));
        let columns = list(&format!(
            "SELECT HEX(column_name) FROM information_schema.columns WHERE table_schema = HERE AND table_name = X'{hex}' ORDER BY ordinal_position"
        ));
        let mut shown: Vec<String> =
            columns.lines().map(|column| format!("IFNULL(HEX({}), 'NULL')", name(&unhex(column)))).collect();
        // The statement shows `?` for some of what is in them.
        let defaults: Vec<String> = columns
            .lines()
            .map(|column| format!("IFNULL(HEX(DEFAULT(own.{})), 'NULL')", name(&unhex(column))))
            .collect();
        for (default, column) in defaults.iter().zip(columns.lines()).filter(|_| table.contains("otherwise")) {
            let asked =
                format!("SELECT {default} FROM (SELECT 1) one LEFT JOIN (SELECT * FROM {table} LIMIT 0) own ON 0");
            // What is computed has none.
            all.push(format!("{table}.{column}: {}", server.try_sql(database, &asked).unwrap_or_default()));
        }
        let mut from = table.clone();
        if kind == "SYSTEM VERSIONED" {
            from += " FOR SYSTEM_TIME ALL";
            if table != "`own_period`" {
                shown.extend(["row_start".to_owned(), "row_end".to_owned()]);
            }
        }
        let rows = ask(&format!(
            "SET time_zone = '+00:00'; SELECT CONCAT_WS(',', {}) AS shown FROM {from} ORDER BY shown",
            shown.join(", ")
        ));
        all.extend(rows.lines().map(|row| format!("{table}: {row}")));
    }
    for line in list(
        "SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = HERE ORDER BY 1, 2",
    )
    .lines()
    {
        let (kind, routine) = line.split_once('\t').unwrap();
        all.push(ask(&format!("SHOW CREATE {kind} {}", name(routine))));
    }
    let triggers = "SELECT trigger_name, event_object_table, action_timing, event_manipulation, action_order, HEX(action_statement), sql_mode, definer, \
                    character_set_client, collation_connection FROM information_schema.triggers WHERE trigger_schema = HERE ORDER BY 1";
    all.push(list(triggers));
    for event in list("SELECT event_name FROM information_schema.events WHERE event_schema = HERE ORDER BY 1").lines() {
        all.push(ask(&format!("SHOW CREATE EVENT {}", name(event))));
    }
    all.push(list("SELECT default_character_set_name, default_collation_name, schema_comment FROM information_schema.schemata WHERE schema_name = HERE"));
    all
}

fn unhex(digits: &str) -> String {
    String::from_utf8(hex::decode(digits).unwrap()).unwrap()
}

/// A dump as a server with TokuDB would have made it.
pub fn of_tokudb(dump: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"-- cdrvault: ";
    let at = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let mut out = Vec::new();
    let mut rest = dump;
    while let Some(begin) = at(rest, MARK) {
        let (before, after) = rest.split_at(begin + MARK.len());
        let (head, body) = after.split_at(at(after, b"\n").unwrap() + 1);
        let frame = std::str::from_utf8(head).unwrap().split_once(" bytes, ");
        let Some((bytes, what)) = frame else {
            out.extend([before, head].concat());
            rest = body;
            continue;
        };
        let (sql, after) = body.split_at(bytes.parse().unwrap());
        let mut sql = sql.to_owned();
        if what.starts_with("table ") && sql.starts_with(b"CREATE") {
            const ENGINE: &[u8] = b"\n) ENGINE=InnoDB";
            if let Some(found) = at(&sql, ENGINE) {
                sql.splice(found..found + ENGINE.len(), *b"\n) ENGINE=TokuDB ROW_FORMAT=TOKUDB_ZLIB");
            }
        }
        out.extend([before, format!("{} bytes, {what}", sql.len()).as_bytes(), &sql].concat());
        rest = after;
    }
    out.extend(rest);
    out
}

/// Puts other bytes into a vault, with a receipt that tells of them.
pub fn replace(site: &Site, path: &str, bytes: &[u8], stored: &[u8]) {
    let dataset = path.split('/').next().unwrap();
    std::fs::write(site.vault().join(path), stored).unwrap();
    let receipts = site.vault().join(".cdrvault/manifests").join(dataset).join("snapshot");
    let newest = std::fs::read_dir(receipts).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let mut receipt: serde_json::Value = serde_json::from_slice(&std::fs::read(&newest).unwrap()).unwrap();
    receipt["content"]["object"]["bytes"] = stored.len().into();
    receipt["content"]["object"]["sha256"] = hex::encode(Sha256::digest(stored)).into();
    let mut entry = Entry::object(path.rsplit('/').next().unwrap());
    (entry.size, entry.sha256) = (bytes.len() as u64, Some(hex::encode(Sha256::digest(bytes))));
    receipt["fingerprint"] = serde_json::to_value(fingerprint::of_entries(&[entry])).unwrap();
    receipt.as_object_mut().unwrap().remove("self-sha256");
    let body = receipt.to_string();
    let sum = hex::encode(Sha256::digest(&body));
    std::fs::write(newest, format!("{},\"self-sha256\":\"{sum}\"}}", body.strip_suffix('}').unwrap())).unwrap();
}
