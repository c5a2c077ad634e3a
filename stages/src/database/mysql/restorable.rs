//! What may stand in the way of rows that are restored, and who is to hear of them.

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::partition::Partition;
use cdrvault_plugin::target::TargetOptions;

use super::columns::Reading;
use super::connect::{execute, literal, query, query_integer, quoted, text};
use super::queue;
use super::staging::{PREFIX, Staging};
use super::wire::Connection;
use crate::database::jobs::{JOBS, QUEUE};
use crate::database::tables::Table;

/// What is not allowed to happen unseen when rows go and come.
pub(super) async fn check_table(
    connection: &mut Connection,
    table: &Table<Reading>,
    options: &TargetOptions,
) -> Result<Vec<String>> {
    is_transactional(connection, &table.name).await?;
    let name = literal(&table.name);
    let mut found = Vec::new();
    let triggers = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = DATABASE() \
         AND EVENT_OBJECT_TABLE = {name}"
    );
    for row in query(connection, &triggers).await? {
        found.push(format!("trigger `{}`", text(&row, 0).unwrap_or_default()));
    }
    let keys = format!(
        "SELECT CONSTRAINT_NAME, TABLE_NAME, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = DATABASE() AND (TABLE_NAME = {name} OR REFERENCED_TABLE_NAME = {name})"
    );
    for row in query(connection, &keys).await? {
        let at = |column| text(&row, column).unwrap_or_default();
        found.push(format!("foreign key `{}` from `{}` to `{}`", at(0), at(1), at(2)));
    }
    if !found.is_empty() && !options.allow_triggers {
        return Err(Error::new(Kind::Refused, format!("table `{}` has {}", table.name, found.join(", ")))
            .hint("--allow-triggers restores all the same: triggers fire for each row, foreign keys are not checked"));
    }
    // The server checks the rights for these two, and does nothing.
    let table_name = quoted(&table.name);
    execute(connection, &format!("EXPLAIN DELETE FROM {table_name} WHERE FALSE")).await?;
    execute(connection, &format!("EXPLAIN INSERT INTO {table_name} SELECT * FROM {table_name} WHERE FALSE")).await?;
    Ok(found.into_iter().map(|what| format!("table `{}` has {what}", table.name)).collect())
}

/// A day is replaced in one transaction, or not at all.
async fn is_transactional(connection: &mut Connection, table: &str) -> Result<()> {
    let sql = format!(
        "SELECT t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t \
         LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
         WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME = {}",
        literal(table)
    );
    let rows = query(connection, &sql).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let Some(engine) = text(row, 0) else {
        return Err(Error::new(Kind::Refused, format!("`{table}` is a view, or its table cannot be opened"))
            .hint("restore into a table"));
    };
    if text(row, 1).as_deref() == Some("YES") {
        return Ok(());
    }
    let message = format!("table `{table}` is of the engine {engine}, which has no transactions");
    Err(Error::new(Kind::Refused, message).hint(format!(
        "a restore that breaks off would leave half a day: `ALTER TABLE {} ENGINE = InnoDB` first, or restore into another database",
        quoted(table)
    )))
}

/// Whether a table of this form can be made beside it, as far as that can be known without making one that others see.
pub(super) async fn check_staging(connection: &mut Connection, table: &str) -> Result<Option<String>> {
    match Staging::temporary(connection, table).await? {
        Some(staging) => staging.drop(connection).await.map(|()| None),
        None => Ok(Some(format!(
            "no temporary table can stand in for `{table}`, whose engine may have none: its days are staged in a table `{PREFIX}...`, which is dropped again"
        ))),
    }
}

/// Whether the application has a queue of changed days here that we may write to. `information_schema` hides tables
/// from accounts without rights on them, so the server itself is asked.
pub(super) async fn announces(connection: &mut Connection, options: &TargetOptions) -> Result<bool> {
    if options.no_announce {
        return Ok(false);
    }
    match execute(connection, &announcement("2000-01-01", "FALSE")).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) if error.kind() == Kind::Denied => Err(Error::new(
            Kind::Denied,
            format!("the application cannot be told of restored days: {}", error.one_line()),
        )
        .hint(format!("grant SELECT on `{JOBS}` and INSERT on `{QUEUE}`; --no-announce restores without telling it"))),
        Err(error) => Err(error),
    }
}

/// Tells the jobs of the application, ours among them, of a day that was written.
pub(super) async fn announce(connection: &mut Connection, partition: Partition) -> Result<()> {
    // The application's own jobs know no invalid day.
    let whose = if partition.day().is_some() { "TRUE" } else { "name LIKE 'cdrvault/%'" };
    execute(connection, &announcement(&queue::day_of(partition), whose)).await.map(drop)
}

fn announcement(day: &str, whose: &str) -> String {
    format!("INSERT IGNORE INTO {QUEUE} (day, ar_daily_status_job_id) SELECT '{day}', id FROM {JOBS} WHERE {whose}")
}

/// Announced changes whose job is not there: a dump brings other jobs back than those that the queue was for.
pub(super) async fn orphans(connection: &mut Connection) -> Result<i64> {
    let sql = format!("SELECT COUNT(*) FROM {QUEUE} WHERE ar_daily_status_job_id NOT IN (SELECT id FROM {JOBS})");
    match query_integer(connection, &sql).await {
        Ok(count) => Ok(count.unwrap_or(0)),
        // There is no queue, or it is not ours to look at.
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => Ok(0),
        Err(error) => Err(error),
    }
}
