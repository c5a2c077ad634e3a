//! Tables that rows are loaded into before they count.

use arrow_array::RecordBatch;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::raw::RAW_COLUMN;
use sha2::{Digest as _, Sha256};

use super::columns::{Decoding, Reading};
use super::connect::{execute, integer, query, query_integer, quoted, text};
use super::error::explain;
use super::literal;
use super::wire::{Bound, Connection};
use crate::cells::{Cell, Rows};
use crate::database::tables::Table;

/// Strict, so that nothing is cut or bent; dates as they were; ids 0 stay 0.
pub(super) const STRICT: &str = "SET SESSION sql_mode = \
     'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = 50";
/// The same without strictness, for the error value of an ENUM. The only warning that is then accepted is its own.
pub(super) const LOOSE: &str =
    "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'";
/// "Data truncated for column".
const TRUNCATED: i64 = 1265;

/// A statement is sent at this length, or at a quarter of what the server takes.
const STATEMENT_BYTES: usize = 1 << 20;

/// What all names of such tables begin with. A dump leaves them out.
pub(crate) const PREFIX: &str = "cdrvault_restore_";

/// The longest name that the server takes, in characters.
const NAME_CHARS: usize = 64;

/// A table that rows are loaded into before they count.
pub(super) struct Staging {
    pub(super) name: String,
    pub(super) temporary: bool,
}

impl Staging {
    /// An empty table of the same form: a temporary one, where the engine has such. A strict server might refuse a form
    /// that it once took.
    pub(super) async fn make(connection: &mut Connection, table: &str) -> Result<Self> {
        execute(connection, LOOSE).await?;
        let made = async {
            if let Some(staging) = Self::temporary(connection, table).await? {
                return Ok(staging);
            }
            let name = name_of(table);
            execute(connection, &format!("DROP TABLE IF EXISTS {}", quoted(&name))).await?;
            execute(connection, &format!("CREATE TABLE {} LIKE {}", quoted(&name), quoted(table))).await?;
            Ok(Self { name, temporary: false })
        };
        let made = made.await;
        execute(connection, STRICT).await?;
        made
    }

    /// `None` where the engine has no temporary tables, or none of this form.
    pub(super) async fn temporary(connection: &mut Connection, table: &str) -> Result<Option<Self>> {
        let name = name_of(table);
        let (like, quoted_name) = (quoted(table), quoted(&name));
        execute(connection, &format!("DROP TEMPORARY TABLE IF EXISTS {quoted_name}")).await?;
        match execute(connection, &format!("CREATE TEMPORARY TABLE {quoted_name} LIKE {like}")).await {
            Ok(_) => Ok(Some(Self { name, temporary: true })),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Transient) => {
                Err(error).at("staging needs the right to CREATE TEMPORARY TABLES")
            }
            // No temporary table has partitions, and what is staged needs none.
            Err(_) => match without_partitions(connection, table, &quoted_name).await? {
                Some(create) if execute(connection, &create).await.is_ok() => Ok(Some(Self { name, temporary: true })),
                _ => Ok(None),
            },
        }
    }

    pub(super) fn of(&self, table: &Table<Reading>) -> Table<Reading> {
        let Table { date_column, date_nullable, columns, key, .. } = table;
        Table::new(&self.name, date_column, *date_nullable, columns.clone(), key.clone())
    }

    pub(super) async fn drop(&self, connection: &mut Connection) -> Result<()> {
        let temporary = if self.temporary { "TEMPORARY " } else { "" };
        execute(connection, &format!("DROP {temporary}TABLE IF EXISTS {}", quoted(&self.name))).await.map(drop)
    }
}

/// The statement that makes a partitioned table as a temporary one; `None` for a table without partitions.
async fn without_partitions(connection: &mut Connection, table: &str, as_name: &str) -> Result<Option<String>> {
    let rows = query(connection, &format!("SHOW CREATE TABLE {}", quoted(table))).await?;
    let create = rows.first().and_then(|row| text(row, 1)).unwrap_or_default();
    Ok(temporary_form(&create, table, as_name))
}

/// Partitions begin a line of their own behind the table's options, in MySQL within a comment. No text within quotes
/// begins a line: line ends in it are escaped.
fn temporary_form(create: &str, table: &str, as_name: &str) -> Option<String> {
    let at = create.rfind("\n PARTITION BY ").or_else(|| create.rfind("\n/*!50100 PARTITION BY "))?;
    let head = format!("CREATE TABLE {} ", quoted(table));
    let form = create.get(..at)?.strip_prefix(&head)?;
    Some(format!("CREATE TEMPORARY TABLE {as_name} {form}"))
}

/// A long name is cut, and told from others by its hash.
fn name_of(table: &str) -> String {
    let whole = format!("{PREFIX}{table}");
    if whole.chars().count() <= NAME_CHARS {
        return whole;
    }
    let hash = hex::encode(Sha256::digest(table));
    let hash = hash.get(..12).unwrap_or_default();
    let kept: String = whole.chars().take(NAME_CHARS - hash.len() - 1).collect();
    format!("{kept}_{hash}")
}

/// An error unless the last statement had no warning, or only that of an ENUM's error value.
pub(super) async fn no_warnings(connection: &mut Connection, loose: bool) -> Result<()> {
    if query_integer(connection, "SELECT @@warning_count").await? == Some(0) {
        return Ok(());
    }
    for row in query(connection, "SHOW WARNINGS").await? {
        if loose && integer(&row, 1) == Some(TRUNCATED) {
            continue;
        }
        let what = text(&row, 2).unwrap_or_default();
        return Err(Error::new(Kind::Refused, format!("the server warns: {what}")));
    }
    Ok(())
}

/// Rows on their way into a table.
pub(super) struct Loading<'a> {
    table: &'a Table<Reading>,
    head: String,
    statement: String,
    /// The rows that a strict server refuses.
    odd: String,
    any_odd: bool,
    limit: usize,
    /// What the server takes at once.
    packet: usize,
    /// A row whose values are too long for a literal, which would double them.
    long: Option<Long>,
    /// Whether `__raw` holds bytes of this kind of server.
    own: bool,
}

struct Long {
    statement: String,
    bound: Vec<Bound>,
    strict: bool,
    /// Which row it is, for a person to read.
    key: String,
}

impl<'a> Loading<'a> {
    pub(super) async fn new(connection: &mut Connection, table: &'a Table<Reading>, own: bool) -> Result<Self> {
        let packet = query_integer(connection, "SELECT @@max_allowed_packet").await?;
        let packet = packet.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(STATEMENT_BYTES * 4);
        let names: Vec<String> = table.columns.iter().map(|column| quoted(column.field.name())).collect();
        let head = format!("INSERT INTO {} ({}) VALUES ", quoted(&table.name), names.join(", "));
        let (statement, odd) = (String::new(), String::new());
        let limit = (packet / 4).min(STATEMENT_BYTES);
        Ok(Self { table, head, statement, odd, any_odd: false, limit, packet, long: None, own })
    }

    pub(super) async fn add(&mut self, connection: &mut Connection, batch: &RecordBatch) -> Result<()> {
        let mut row = 0;
        while row < batch.num_rows() {
            row = self.push_rows(batch, row)?;
            if self.statement.len() >= self.limit {
                self.send(connection).await?;
            }
            if self.odd.len() >= self.limit {
                self.send_odd(connection).await?;
            }
            if let Some(long) = self.long.take() {
                self.send_long(connection, long).await?;
            }
        }
        Ok(())
    }

    /// Adds rows until a statement is full; tells which row is next.
    fn push_rows(&mut self, batch: &RecordBatch, first: usize) -> Result<usize> {
        let names = self.table.columns.iter().map(|column| column.field.name().as_str());
        let rows = Rows::of(batch, names)?;
        let mut values = String::new();
        for row in first..batch.num_rows() {
            let raw = rows.raw(row)?;
            if !raw.is_empty() && !self.own {
                let names: Vec<&str> = raw.keys().copied().collect();
                let message = format!("SQLite held values in `{}` that no such column can hold", names.join("`, `"));
                return Err(
                    Error::new(Kind::Refused, message).hint("restore the day into a SQLite file, and correct it there")
                );
            }
            let (mut strict, mut bound) = (true, Vec::new());
            values.clear();
            for (column, cells) in self.table.columns.iter().zip(rows.columns()) {
                values.push(if values.is_empty() { '(' } else { ',' });
                let decoding = &column.reading.decoding;
                let cell = cells.get(row);
                // A literal may be twice as long as its value, and many that are nearly long make a long row too.
                let (longest, room) = (self.limit / 4, self.limit.saturating_sub(values.len()));
                let is_long = |length: usize| length >= longest || 2 * length > room;
                match (cell, raw.get(column.field.name().as_str())) {
                    (Cell::Null, Some(bytes)) if is_long(bytes.len()) => {
                        values.push('?');
                        bound.push(Bound::Bytes(literal::stored(bytes, decoding).into_owned()));
                    }
                    (Cell::Null, Some(bytes)) => {
                        strict &= literal::push_raw(&mut values, bytes, decoding)
                            .at(format!("column `{}`, kept in `{RAW_COLUMN}`", column.field.name()))?;
                    }
                    (Cell::Text(text), _) if is_long(text.len()) => {
                        values.push('?');
                        bound.push(if *decoding == Decoding::Ascii && !text.is_ascii() {
                            Bound::Bytes(text.as_bytes().to_vec())
                        } else {
                            Bound::Text(text.to_owned())
                        });
                    }
                    (Cell::Bytes(bytes), _) if is_long(bytes.len()) => {
                        values.push('?');
                        bound.push(Bound::Bytes(bytes.to_vec()));
                    }
                    (cell, _) => literal::push(&mut values, cell, decoding),
                }
            }
            values.push(')');
            if !bound.is_empty() {
                let key = self.key(&rows, row);
                self.long = Some(Long { statement: format!("{}{values}", self.head), bound, strict, key });
                return Ok(row + 1);
            }
            let into = if strict { &mut self.statement } else { &mut self.odd };
            into.push_str(if into.is_empty() { &self.head } else { "," });
            into.push_str(&values);
            if into.len() >= self.limit {
                return Ok(row + 1);
            }
        }
        Ok(batch.num_rows())
    }

    /// The key of a row, as `id = 7`.
    fn key(&self, rows: &Rows<'_>, row: usize) -> String {
        let named = self.table.columns.iter().zip(rows.columns());
        let named = named.filter(|(column, _)| self.table.key.contains(column.field.name()));
        let parts = named.map(|(column, cells)| {
            let mut text = format!("{} = ", column.field.name());
            literal::push(&mut text, cells.get(row), &column.reading.decoding);
            text.chars().take(120).collect::<String>()
        });
        parts.collect::<Vec<_>>().join(", ")
    }

    async fn send(&mut self, connection: &mut Connection) -> Result<()> {
        if !self.statement.is_empty() {
            execute(connection, &self.statement).await?;
            no_warnings(connection, false).await?;
            self.statement.clear();
        }
        Ok(())
    }

    async fn send_odd(&mut self, connection: &mut Connection) -> Result<()> {
        if !self.odd.is_empty() {
            self.any_odd = true;
            execute(connection, LOOSE).await?;
            execute(connection, &self.odd).await?;
            no_warnings(connection, true).await?;
            execute(connection, STRICT).await?;
            self.odd.clear();
        }
        Ok(())
    }

    /// By the binary protocol, which sends bytes as they are.
    async fn send_long(&mut self, connection: &mut Connection, long: Long) -> Result<()> {
        let length: usize = long.bound.iter().map(Bound::len).sum();
        // What else is in the packet: types and lengths.
        if length + long.bound.len() * 16 + 64 > self.packet {
            let message = format!(
                "the row with {} has {length} bytes, more than `max_allowed_packet` of the server, {} bytes",
                long.key, self.packet
            );
            let mebibytes = (length >> 20) + 2;
            return Err(Error::new(Kind::Refused, message).hint(format!(
                "`SET GLOBAL max_allowed_packet = {mebibytes} << 20` on the server (at most 1 GiB), and restore again"
            )));
        }
        if !long.strict {
            self.any_odd = true;
            execute(connection, LOOSE).await?;
        }
        let loaded = connection.execute_with(&long.statement, &long.bound).await;
        loaded.map_err(|error| explain("load a long row", error))?;
        no_warnings(connection, !long.strict).await?;
        if long.strict { Ok(()) } else { execute(connection, STRICT).await.map(drop) }
    }

    /// Sends the rest; tells whether there are values that only a lenient server takes.
    pub(super) async fn finish(&mut self, connection: &mut Connection) -> Result<bool> {
        self.send(connection).await?;
        self.send_odd(connection).await?;
        Ok(self.any_odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitioned_table_is_staged_without_its_partitions() {
        let mariadb = "CREATE TABLE `a``b` (\n  `d` date COMMENT '\\n PARTITION BY x'\n) ENGINE=InnoDB\n PARTITION BY RANGE (`d`)\n(PARTITION `p` VALUES LESS THAN MAXVALUE ENGINE = InnoDB)";
        let expected = "CREATE TEMPORARY TABLE `s` (\n  `d` date COMMENT '\\n PARTITION BY x'\n) ENGINE=InnoDB";
        assert_eq!(temporary_form(mariadb, "a`b", "`s`").as_deref(), Some(expected));
        let mysql = "CREATE TABLE `t` (\n  `d` date\n) ENGINE=InnoDB\n/*!50100 PARTITION BY KEY (d) */";
        let expected = "CREATE TEMPORARY TABLE `s` (\n  `d` date\n) ENGINE=InnoDB";
        assert_eq!(temporary_form(mysql, "t", "`s`").as_deref(), Some(expected));
        assert_eq!(temporary_form("CREATE TABLE `t` (\n  `d` date\n) ENGINE=InnoDB", "t", "`s`"), None);
    }

    #[test]
    fn long_names_stay_different_and_short_enough() {
        assert_eq!(name_of("ar_cdr"), "cdrvault_restore_ar_cdr");
        let (a, b) = ("ü".repeat(63) + "a", "ü".repeat(63) + "b");
        assert_eq!(name_of(&a).chars().count(), 64);
        assert_ne!(name_of(&a), name_of(&b));
    }
}
