//! What our own account may do, by `SHOW GRANTS`: the server hides what it may not see, and calls that no error.

use cdrvault_format::error::Result;

use super::connect::{query, text};
use super::wire::Connection;

/// The rights of the account that a connection belongs to, those of its active roles included.
#[derive(Debug)]
pub(crate) struct Rights(Vec<Grant>);

/// A line of `SHOW GRANTS`.
#[derive(Debug, PartialEq, Eq)]
struct Grant {
    /// Those on whole tables, in capitals.
    rights: Vec<String>,
    on: On,
}

/// A database is a pattern of `LIKE`; the name of a table is not.
#[derive(Debug, PartialEq, Eq)]
enum On {
    Everything,
    Database(String),
    Table(String, String),
}

impl Rights {
    pub(crate) async fn of(connection: &mut Connection) -> Result<Self> {
        // MariaDB counts roles in by itself. MySQL, whose roles have hosts, wants them named.
        let role = query(connection, "SELECT CURRENT_ROLE()").await;
        let role = role.ok().and_then(|rows| rows.first().and_then(|row| text(row, 0)));
        let sql = match role.filter(|role| role.contains("`@`")) {
            Some(roles) => format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}"),
            None => "SHOW GRANTS".to_owned(),
        };
        let lines = query(connection, &sql).await?;
        let lines = lines.iter().map(|row| text(row, 0).unwrap_or_default());
        Ok(Self(lines.filter_map(|line| parse(&line)).collect()))
    }

    /// Whether a right is given on all of a database.
    pub(crate) fn on_database(&self, right: &str, database: &str) -> bool {
        self.has(right, |on| match on {
            On::Everything => true,
            On::Database(pattern) => like(pattern, database),
            On::Table(..) => false,
        })
    }

    /// Whether a right is given on a table, by its own name or with all others.
    pub(crate) fn on_table(&self, right: &str, database: &str, table: &str) -> bool {
        self.on_database(right, database)
            || self.has(right, |on| matches!(on, On::Table(of, name) if of == database && name == table))
    }

    fn has(&self, right: &str, on: impl Fn(&On) -> bool) -> bool {
        let gives = |grant: &Grant| grant.rights.iter().any(|given| given == right || given == "ALL PRIVILEGES");
        self.0.iter().any(|grant| gives(grant) && on(&grant.on))
    }
}

/// `None` for what gives no right on tables: a role, a routine, a proxy.
fn parse(line: &str) -> Option<Grant> {
    let (rights, on) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let on = if on.starts_with("*.*") {
        On::Everything
    } else {
        let (database, rest) = identifier(on)?;
        match rest.strip_prefix('.')? {
            rest if rest.starts_with('*') => On::Database(database),
            rest => On::Table(database, identifier(rest)?.0),
        }
    };
    // `SELECT (a, b), INSERT`: what is given on columns alone leaves pieces that are not a right.
    Some(Grant { rights: rights.split(',').map(|right| right.trim().to_ascii_uppercase()).collect(), on })
}

/// The quoted name that a text begins with, and what follows.
pub(super) fn identifier(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text.strip_prefix('`')?.chars();
    while let Some(next) = rest.next() {
        match (next, rest.as_str().strip_prefix('`')) {
            ('`', Some(after)) => {
                rest = after.chars();
                name.push('`');
            }
            ('`', None) => return Some((name, rest.as_str())),
            (other, _) => name.push(other),
        }
    }
    None
}

/// `LIKE` of SQL.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('%') => {
            let after = rest.as_str();
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| text.get(at..).is_some_and(|text| like(after, text)))
        }
        Some(next) => {
            let (literally, wanted) = match next {
                '\\' => (true, rest.next().unwrap_or('\\')),
                other => (false, other),
            };
            let mut letters = text.chars();
            letters.next().is_some_and(|letter| (wanted == '_' && !literally) || wanted == letter)
                && like(rest.as_str(), letters.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(lines: &[&str]) -> Rights {
        Rights(lines.iter().filter_map(|line| parse(line)).collect())
    }

    #[test]
    fn patterns_match_as_in_sql() {
        assert!(like("a%", "a") && like("%b", "aab") && like("a_c", "abc") && like("%", ""));
        assert!(!like("a\\_c", "abc") && like("a\\_c", "a_c") && !like("a%", "ba"));
    }

    #[test]
    fn a_right_counts_where_it_is_given() {
        let of = rights(&[
            "GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*00'",
            "GRANT `reader` TO `a`@`%`",
            "GRANT SELECT, SHOW VIEW ON `my\\_db`.* TO `a`@`%`",
            "GRANT TRIGGER ON `my_db`.`or``ders` TO `a`@`%`",
            "GRANT SELECT (`id`, `name`), INSERT ON `other`.`t` TO `a`@`%`",
            "GRANT EXECUTE ON FUNCTION `my_db`.`half` TO `a`@`%`",
        ]);
        assert!(of.on_database("SELECT", "my_db") && of.on_database("SHOW VIEW", "my_db"));
        assert!(!of.on_database("SELECT", "myXdb") && !of.on_database("TRIGGER", "my_db"));
        assert!(of.on_table("SELECT", "my_db", "any") && of.on_table("TRIGGER", "my_db", "or`ders"));
        assert!(!of.on_table("TRIGGER", "my_db", "any"));
        assert!(of.on_table("INSERT", "other", "t") && !of.on_table("SELECT", "other", "t"), "of some columns only");
        assert!(!of.on_database("EXECUTE", "my_db"));
    }

    #[test]
    fn all_privileges_are_each_of_them() {
        assert!(rights(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"]).on_database("EVENT", "x"));
        let of = rights(&["GRANT ALL PRIVILEGES ON `x`.* TO `a`@`%`"]);
        assert!(of.on_table("TRIGGER", "x", "t") && !of.on_table("SELECT", "mysql", "proc"));
    }
}
