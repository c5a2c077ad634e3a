//! What a database has besides rows: what `information_schema` names, and how each is made again.

use std::collections::{BTreeMap, BTreeSet};

use cdrvault_format::error::{Error, Kind, Result};

use super::frames::{push_compound, shown};
use super::table::Table;
use super::{Dumping, OURS, Settings, frames, text, unreadable};
use crate::database::mysql::connect::{literal, quoted, text as text_of};
use crate::database::mysql::staging;
use crate::database::mysql::wire::Row;

/// What has rows, or looks so.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tables: Vec<Table>,
    pub(super) sequences: Vec<String>,
    pub(super) views: Vec<String>,
}

impl Found {
    /// An error where nothing would be saved.
    pub(super) fn has_any(&self, database: &str) -> Result<()> {
        if self.tables.iter().any(|table| table.has_data) {
            return Ok(());
        }
        let message = format!("{database} has no table that is to be dumped");
        let hint =
            "check the database's name in `url`, `tables`, `include` and `exclude`, and the rights of the account";
        Err(Error::new(Kind::NotFound, message).hint(hint))
    }
}

/// What has a text of its own that is run later.
pub(super) struct Body<'a> {
    /// `PROCEDURE`.
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    /// Where the answer to `SHOW CREATE` has the text; the character set and collation follow.
    pub(super) text: usize,
    pub(super) mode: Option<usize>,
    pub(super) zone: Option<usize>,
    /// When a trigger runs, and for which table.
    pub(super) trigger: Option<(&'a str, &'a str)>,
}

/// Views behind those that their texts mention: of some, columns are not known to stand in for them.
fn in_order<'a>(texts: &BTreeMap<&'a str, Vec<u8>>) -> Vec<&'a str> {
    fn visit<'a>(
        name: &'a str,
        texts: &BTreeMap<&'a str, Vec<u8>>,
        seen: &mut BTreeSet<&'a str>,
        out: &mut Vec<&'a str>,
    ) {
        if !seen.insert(name) {
            return;
        }
        let text = texts.get(name).map(|text| String::from_utf8_lossy(text)).unwrap_or_default();
        for other in texts.keys().filter(|other| text.contains(&quoted(other))) {
            visit(other, texts, seen, out);
        }
        out.push(name);
    }
    let (mut seen, mut out) = (BTreeSet::new(), Vec::new());
    for name in texts.keys() {
        visit(name, texts, &mut seen, &mut out);
    }
    out
}

impl Dumping<'_> {
    pub(super) async fn find(&mut self) -> Result<Found> {
        let sql = "SELECT t.TABLE_NAME, t.TABLE_TYPE, t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t \
                   LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
                   WHERE t.TABLE_SCHEMA = DATABASE()";
        let mut found = Found::default();
        let mut without_transactions = Vec::new();
        for row in self.query(sql).await? {
            let at = |column| text_of(&row, column).unwrap_or_default();
            let (name, kind, engine) = (at(0), at(1), at(2));
            // What a restore that was killed left.
            if name.starts_with(staging::PREFIX) {
                continue;
            }
            let has_data = self.chosen.has_data_of(&name);
            match kind.as_str() {
                // A table that cannot be opened has no engine.
                "BASE TABLE" | "SYSTEM VERSIONED" => {
                    if self.chosen.is_only_data() && !has_data {
                        continue;
                    }
                    let is_elsewhere = ["mrg_myisam", "federated"].contains(&engine.to_lowercase().as_str());
                    let is_transactional = at(3) == "YES";
                    if has_data && is_elsewhere {
                        self.notices
                            .note(format!("the rows of {} lie in other tables; its schema is saved", shown(&name)));
                    } else if has_data && !is_transactional {
                        without_transactions.push(format!("{} ({engine})", shown(&name)));
                    }
                    found.tables.push(Table {
                        has_data: has_data && !is_elsewhere,
                        is_left_out: self.chosen.leaves_out(&name),
                        is_versioned: kind == "SYSTEM VERSIONED",
                        is_transactional,
                        name,
                    });
                }
                "SEQUENCE" if !self.chosen.leaves_out(&name) => found.sequences.push(name),
                "VIEW" if has_data && !self.chosen.is_only_data() => found.views.push(name),
                "SEQUENCE" | "VIEW" | "TEMPORARY" => {}
                other if !self.chosen.leaves_out(&name) => {
                    let other = other.to_lowercase();
                    self.saved(Err(Error::failed("this program does not know what that is")), &other, &name)?;
                }
                _ => {}
            }
        }
        if !without_transactions.is_empty() {
            without_transactions.sort();
            self.notices.note(format!(
                "tables without transactions may hold rows of different moments: {}",
                without_transactions.join(", ")
            ));
        }
        // By their bytes: the same names in the same order, whatever the server's collation.
        found.tables.sort_by(|one, other| one.name.cmp(&other.name));
        found.sequences.sort();
        found.views.sort();
        Ok(found)
    }

    pub(super) async fn routines(&mut self) -> Result<()> {
        let sql =
            "SELECT ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()";
        let rows = self.query(sql).await?;
        let mut all: Vec<(u8, String, String)> = rows
            .iter()
            .map(|row| (text_of(row, 1).unwrap_or_default(), text_of(row, 0).unwrap_or_default()))
            // A package stands before its body.
            .map(|(kind, name)| (u8::from(kind == "PACKAGE BODY"), kind, name))
            .collect();
        all.sort();
        for (_, kind, name) in all.iter().filter(|(_, _, name)| !self.chosen.leaves_out(name)) {
            let done = if ["PROCEDURE", "FUNCTION", "PACKAGE", "PACKAGE BODY"].contains(&kind.as_str()) {
                self.body(&Body { kind, name, text: 2, mode: Some(1), zone: None, trigger: None }).await
            } else {
                Err(Error::failed("this program does not know what that is"))
            };
            let done = done.map_err(|error| match error.kind() {
                Kind::Denied => error.hint("grant SELECT on `mysql`.`proc`"),
                _ => error,
            });
            self.saved(done, &kind.to_lowercase(), name)?;
        }
        self.send(crate::blocking::CHUNK).await
    }

    /// Something with a text, under the settings that it was made under.
    async fn body(&mut self, body: &Body<'_>) -> Result<()> {
        let (row, sql) = self.shown_create(body.kind, body.name, body.text).await?.ok_or_else(unreadable)?;
        let at = |column: Option<usize>| column.and_then(|column| text_of(&row, column));
        let (mode, zone) = (at(body.mode), at(body.zone));
        let (client, collation) = (at(Some(body.text + 1)), at(Some(body.text + 2)));
        self.under_collation(at(Some(body.text + 3)).as_deref().filter(|_| body.kind != "VIEW"));
        let sql = self.in_one_charset(body, sql, client.as_deref().unwrap_or(OURS.character_set_client)).await?;
        let settings = Settings {
            sql_mode: mode.as_deref().unwrap_or(OURS.sql_mode),
            character_set_client: client.as_deref().unwrap_or(OURS.character_set_client),
            collation_connection: collation.as_deref().unwrap_or(OURS.collation_connection),
            time_zone: zone.as_deref().unwrap_or(OURS.time_zone),
        };
        let kind = body.kind;
        let what = format!("{} {}", kind.to_lowercase(), shown(body.name));
        // A name is ours to write; but only as Oracle would have it does a server know what a package is.
        let is_package = kind.starts_with("PACKAGE");
        self.under(&if is_package { Settings { sql_mode: settings.sql_mode, ..OURS } } else { OURS });
        // Without a package there is no body.
        if kind != "PACKAGE BODY" {
            let name = if is_package { format!("\"{}\"", body.name.replace('"', "\"\"")) } else { quoted(body.name) };
            self.push(&what, format!("DROP {kind} IF EXISTS {name}"));
        }
        self.under(&settings);
        push_compound(&mut self.pending, &what, &sql);
        Ok(())
    }

    /// A text that is in one character set throughout: of some objects the server shows the name, the comment and the
    /// definer in UTF-8, and the rest in the character set of the client that made it.
    async fn in_one_charset(&mut self, body: &Body<'_>, sql: Vec<u8>, charset: &str) -> Result<Vec<u8>> {
        let unknown = || Error::failed("its text has a form that this program does not know");
        let name = self.encoded(quoted(body.name).as_bytes(), charset).await?;
        let part = |from: usize, to: usize| sql.get(from..to).unwrap_or_default();
        match (body.trigger, body.kind) {
            (Some((when, table)), _) => {
                let (head, from) = text::trigger(&sql, charset, (body.name, when, table)).ok_or_else(unknown)?;
                Ok([&self.encoded(&head, charset).await?, part(from, sql.len())].concat())
            }
            (None, "EVENT") => {
                let to = text::event_body(&sql);
                Ok([&self.encoded(part(0, to), charset).await?, part(to, sql.len())].concat())
            }
            (None, "VIEW") => {
                // A view that got another name keeps its character set, which may not have all letters of the name.
                let has_name = sql.windows(name.len()).any(|window| window == name);
                if has_name { Ok(text::unqualified(&sql, self.database, true)) } else { Err(unknown()) }
            }
            _ => {
                let Some(comment) = text::routine_comment(&text::masked(&sql, charset)) else { return Ok(sql) };
                let asked = format!(
                    "SELECT ROUTINE_COMMENT FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() \
                     AND ROUTINE_TYPE = '{}' AND ROUTINE_NAME = {}",
                    body.kind,
                    literal(body.name)
                );
                let said = self.query(&asked).await?;
                let said = said.first().and_then(|row| row.get(0)).unwrap_or_default();
                if said.is_ascii() {
                    return Ok(sql);
                }
                // Masked, a character of UTF-8 may have hidden the end.
                let comment = comment.start..comment.start + text::whole(part(comment.start, sql.len()));
                let encoded = self.encoded(part(comment.start, comment.end), charset).await?;
                Ok([part(0, comment.start), &encoded, part(comment.end, sql.len())].concat())
            }
        }
    }

    /// Views may be about views, in any order. Where there are several, each is first made as something with the same
    /// columns.
    pub(super) async fn views(&mut self, names: &[String]) -> Result<()> {
        let mut whole = BTreeMap::new();
        let mut stand_ins = Vec::new();
        for name in names {
            let fields = self.query(&format!("SHOW FIELDS FROM {}", quoted(name))).await;
            match fields {
                Ok(fields) => {
                    let columns: Vec<String> = fields
                        .iter()
                        .filter_map(|row| text_of(row, 0))
                        .map(|name| format!("1 AS {}", quoted(&name)))
                        .collect();
                    stand_ins.push((name, format!("CREATE VIEW {} AS SELECT {}", quoted(name), columns.join(", "))));
                }
                // The account that it works as is gone; the view can still be made.
                Err(error) if error.message().contains("(error 1449)") => {
                    self.notices.warning(format!(
                        "view {} is saved, and cannot be used: {}",
                        shown(name),
                        error.message()
                    ));
                }
                // It calls a function that is not ours to call.
                Err(error) if error.message().contains("(error 1370)") => {}
                Err(error) => {
                    let broken = error.message().contains("(error 1356)");
                    if broken && self.broken_view(name).await? {
                        let error = error.message();
                        self.notices.problem(format!(
                            "view {} cannot be made again: {error}; its text stands in the dump as a comment; mend or drop it, \
                             or `exclude` leaves it out without a word",
                            shown(name)
                        ));
                    } else {
                        self.saved(Err(error), "view", name)?;
                    }
                    continue;
                }
            }
            match self.shown_create("VIEW", name, 1).await {
                Ok(Some((_, sql))) => {
                    whole.insert(name.as_str(), sql);
                }
                Ok(None) => self.saved(Err(unreadable()), "view", name)?,
                Err(error) => self.saved(Err(error), "view", name)?,
            }
        }
        self.under(&OURS);
        if stand_ins.len() > 1 {
            for (name, sql) in stand_ins {
                let what = format!("view {}", shown(name));
                self.push(&what, format!("DROP VIEW IF EXISTS {}", quoted(name)));
                self.push(&what, sql);
            }
        }
        for name in in_order(&whole) {
            let done = self.body(&Body { kind: "VIEW", name, text: 1, mode: None, zone: None, trigger: None }).await;
            self.saved(done, "view", name)?;
        }
        self.send(crate::blocking::CHUNK).await
    }

    /// The text of a view that no server would take, for a person to read. `false` where it cannot be read either.
    async fn broken_view(&mut self, name: &str) -> Result<bool> {
        let (row, sql) = match self.shown_create("VIEW", name, 1).await {
            Ok(Some(found)) => found,
            Err(error) if error.kind().passes() || error.kind() == Kind::Interrupted => return Err(error),
            Ok(None) | Err(_) => return Ok(false),
        };
        let charset = text_of(&row, 2).unwrap_or_default();
        let mut text = String::from_utf8_lossy(&sql).into_owned();
        if !sql.is_ascii() && !charset.starts_with("utf8") {
            let asked = format!("SELECT CONVERT(_{charset} X'{}' USING utf8mb4)", hex::encode(&sql));
            text = self.query(&asked).await?.first().and_then(|row| text_of(row, 0)).unwrap_or(text);
        }
        self.pending.extend_from_slice(frames::commented(&text).as_bytes());
        Ok(true)
    }

    pub(super) async fn triggers(&mut self, tables: &[String]) -> Result<()> {
        let sql = "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER \
                   FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()";
        let mut all: Vec<(String, String, i64, String)> = Vec::new();
        for row in self.query(sql).await? {
            let at = |column| text_of(&row, column).unwrap_or_default();
            if tables.contains(&at(1)) {
                all.push((at(1), format!("{} {}", at(2), at(3)), at(4).parse().unwrap_or(0), at(0)));
            }
        }
        // Several at the same moment run in the order in which they are made.
        all.sort();
        for (table, when, _, name) in all {
            let trigger = Some((when.as_str(), table.as_str()));
            let done =
                self.body(&Body { kind: "TRIGGER", name: &name, text: 2, mode: Some(1), zone: None, trigger }).await;
            self.saved(done, "trigger", &name)?;
        }
        self.send(crate::blocking::CHUNK).await
    }

    pub(super) async fn events(&mut self) -> Result<()> {
        let sql = "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()";
        let mut names: Vec<String> = self.query(sql).await?.iter().filter_map(|row: &Row| text_of(row, 0)).collect();
        names.sort();
        names.retain(|name| !self.chosen.leaves_out(name));
        for name in names {
            let done = self
                .body(&Body { kind: "EVENT", name: &name, text: 3, mode: Some(1), zone: Some(2), trigger: None })
                .await;
            self.saved(done, "event", &name)?;
        }
        self.send(crate::blocking::CHUNK).await
    }
}
