//! The statements that make the accounts of a database again.

use std::collections::BTreeSet;

use cdrvault_format::error::{Kind, Result};
use cdrvault_plugin::notice::Notices;

use super::connect::{literal, query, quoted, text};
use super::rights::{identifier, like};
use super::wire::Connection;

/// An account, or a role of MariaDB, which has no host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Account {
    user: String,
    host: String,
    is_role: bool,
}

impl Account {
    fn written(&self) -> String {
        if self.is_role { quoted(&self.user) } else { format!("{}@{}", literal(&self.user), literal(&self.host)) }
    }
}

/// Statements for all who have rights on this very database: roles, then accounts, then what they may. None where we may
/// not read who has. An account that cannot be written is a warning.
pub(crate) async fn statements(connection: &mut Connection, database: &str, notices: &Notices) -> Result<Vec<String>> {
    let mut made = Vec::new();
    let mut granted = Vec::new();
    let accounts = accounts(connection, database, notices).await?;
    let roles: Vec<&str> = accounts.iter().filter(|account| account.is_role).map(|role| role.user.as_str()).collect();
    for account in &accounts {
        match of_account(connection, account, database, &roles).await {
            Ok((create, grants)) => {
                made.extend(create);
                // What a role may is told for its members, too.
                granted.extend(grants);
            }
            Err(error) if matches!(error.kind(), Kind::Transient | Kind::Interrupted) => return Err(error),
            Err(error) => {
                notices.warning(format!("the account {} is not in the dump: {}", account.written(), error.one_line()));
            }
        }
    }
    let mut seen = BTreeSet::new();
    granted.retain(|line| seen.insert(line.clone()));
    made.extend(granted);
    Ok(made)
}

async fn of_account(
    connection: &mut Connection,
    account: &Account,
    database: &str,
    roles: &[&str],
) -> Result<(Vec<String>, Vec<String>)> {
    let written = account.written();
    let mut created = Vec::new();
    if account.is_role {
        created.push(format!("CREATE ROLE IF NOT EXISTS {written}"));
    } else {
        for row in query(connection, &format!("SHOW CREATE USER {written}")).await? {
            let line = text(&row, 0).unwrap_or_default();
            created.push(line.replacen("CREATE USER ", "CREATE USER IF NOT EXISTS ", 1));
        }
    }
    let mut grants = Vec::new();
    for row in query(connection, &format!("SHOW GRANTS FOR {written}")).await? {
        let line = text(&row, 0).unwrap_or_default();
        if is_about(&line, database, roles) {
            grants.push(line);
        }
    }
    Ok((created, grants))
}

/// Who has rights: on the whole database by its name or a pattern, on a table, a column or a routine of it, or by a role.
async fn accounts(connection: &mut Connection, database: &str, notices: &Notices) -> Result<BTreeSet<Account>> {
    let name = literal(database);
    let mut found = BTreeSet::new();
    // Another server than MariaDB knows no such roles.
    let sql = "SELECT User FROM mysql.user WHERE is_role = 'Y'";
    let all_roles: BTreeSet<String> = match query(connection, sql).await {
        Ok(rows) => rows.iter().map(|row| text(row, 0).unwrap_or_default()).collect(),
        Err(error) if error.kind() == Kind::Transient => return Err(error),
        Err(_) => BTreeSet::new(),
    };
    let account = |user: String, host: String| {
        let is_role = host.is_empty() && all_roles.contains(&user);
        Account { user, host, is_role }
    };
    for (table, of_us) in [
        ("db", format!("{name} LIKE Db")),
        ("tables_priv", format!("Db = {name}")),
        ("columns_priv", format!("Db = {name}")),
        ("procs_priv", format!("Db = {name}")),
    ] {
        let sql = format!("SELECT DISTINCT User, Host FROM mysql.{table} WHERE {of_us} AND User <> ''");
        match query(connection, &sql).await {
            Ok(rows) => {
                for row in rows {
                    let part = |column| text(&row, column).unwrap_or_default();
                    found.insert(account(part(0), part(1)));
                }
            }
            Err(error) if error.kind() == Kind::Denied && table == "db" => return Ok(BTreeSet::new()),
            Err(error) if error.kind() == Kind::Denied => notices.note(format!(
                "accounts may be missing in the dump: ours may read `mysql.db`, but not `mysql.{table}`"
            )),
            Err(error) => return Err(error),
        }
    }
    // Roles may be given to roles.
    loop {
        let roles: Vec<String> = found.iter().filter(|one| one.is_role).map(|role| literal(&role.user)).collect();
        if roles.is_empty() {
            return Ok(found);
        }
        let before = found.len();
        // The creator of a role is a member, too, with the right to give it on.
        let sql = format!(
            "SELECT User, Host FROM mysql.roles_mapping WHERE Admin_option = 'N' AND Role IN ({})",
            roles.join(", ")
        );
        match query(connection, &sql).await {
            Ok(rows) => {
                for row in rows {
                    let part = |column| text(&row, column).unwrap_or_default();
                    found.insert(account(part(0), part(1)));
                }
            }
            Err(error) if error.kind() == Kind::Denied => {
                notices.note("accounts may be missing in the dump: ours may not read `mysql.roles_mapping`");
                return Ok(found);
            }
            Err(error) => return Err(error),
        }
        if found.len() == before {
            return Ok(found);
        }
    }
}

/// Whether a line of `SHOW GRANTS` gives rights on the database, or one of the roles.
fn is_about(line: &str, database: &str, roles: &[&str]) -> bool {
    if let Some((_, after)) = line.split_once(" ON ") {
        let after = ["PROCEDURE ", "FUNCTION ", "PACKAGE ", "PACKAGE BODY "]
            .iter()
            .find_map(|kind| after.strip_prefix(kind))
            .unwrap_or(after);
        return identifier(after).is_some_and(|(pattern, _)| like(&pattern, database));
    }
    let given = ["GRANT ", "SET DEFAULT ROLE "].iter().find_map(|verb| line.strip_prefix(verb));
    given.and_then(identifier).is_some_and(|(role, _)| roles.contains(&role.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_told_apart_by_the_database_that_they_are_for() {
        let of_us = |line: &str| is_about(line, "my_db", &["reader"]);
        assert!(of_us("GRANT SELECT ON `my_db`.* TO `a`@`b`"));
        assert!(of_us("GRANT SELECT ON `my\\_db`.* TO `a`@`b`"));
        assert!(of_us("GRANT SELECT (`x`) ON `my_db`.`t` TO `a`@`b`"));
        assert!(of_us("GRANT SELECT ON `my%`.* TO `a`@`b`"));
        assert!(of_us("GRANT EXECUTE ON PROCEDURE `my_db`.`p` TO `a`@`b`"));
        assert!(of_us("GRANT `reader` TO `a`@`b`"));
        assert!(of_us("SET DEFAULT ROLE `reader` FOR `a`@`b`"));
        assert!(!of_us("GRANT USAGE ON *.* TO `a`@`b`"));
        assert!(!of_us("GRANT SELECT ON `my_db2`.* TO `a`@`b`"));
        assert!(!of_us("GRANT `writer` TO `a`@`b`"));
    }
}
