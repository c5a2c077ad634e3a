//! A table is made as the receipts of its days describe it: its columns, their types, and its key. What receipts do not
//! tell is not there: defaults, other indexes, constraints, triggers.

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::{ColumnInfo, Manifest};

use super::connect::{execute, quoted};
use super::wire::Connection;

/// Makes the table of these rows, unless it is there by now.
pub(super) async fn make_table(connection: &mut Connection, manifest: &Manifest) -> Result<()> {
    let hint = "make the table by hand, or restore a dump that has it";
    execute(connection, &statement(manifest)?).await.map(drop).map_err(|error| error.hint(hint))
}

/// The statement that makes it.
pub(super) fn statement(manifest: &Manifest) -> Result<String> {
    let table = manifest.table.as_ref().ok_or_else(|| {
        Error::new(Kind::Refused, format!("the receipt of {} does not name its table", manifest.unit))
    })?;
    let of_server = !manifest.origin.source.starts_with("sqlite:");
    let mut lines = Vec::new();
    for column in &manifest.columns {
        let is_key = table.key.contains(&column.name);
        let sql_type = if of_server { declared(column) } else { derived(column, is_key) }.ok_or_else(|| {
            let message = format!(
                "table `{}` cannot be made: of column `{}` the receipt says `{}`, stored as {}",
                table.name,
                column.name,
                column.sql_type.escape_debug(),
                column.arrow_type.escape_debug()
            );
            Error::new(Kind::Refused, message).hint("make the table by hand, or restore a dump that has it")
        })?;
        let null = if is_key && is_primary(manifest) { "NOT NULL" } else { "NULL" };
        lines.push(format!("{} {sql_type} {null}", quoted(&column.name)));
    }
    let key: Vec<String> = table.key.iter().map(|name| quoted(name)).collect();
    // A table without a key is sorted by its date: such days may have equal dates.
    lines.push(format!("{} ({})", if is_primary(manifest) { "PRIMARY KEY" } else { "KEY" }, key.join(", ")));
    Ok(format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  {}\n) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        quoted(&table.name),
        lines.join(",\n  ")
    ))
}

fn is_primary(manifest: &Manifest) -> bool {
    manifest.table.as_ref().is_some_and(|table| table.key != [table.date_column.clone()])
}

/// The type that a server told of itself, if it is nothing but a type: a receipt may be somebody else's.
fn declared(column: &ColumnInfo) -> Option<&str> {
    let mut rest = column.sql_type.as_str();
    while let Some(next) = rest.chars().next() {
        rest = match next {
            'a'..='z' | '0'..='9' | '_' | ' ' | '(' | ')' | ',' => &rest[1..],
            // A label of an ENUM or a SET.
            '\'' => {
                let end = rest[1..].find('\'')?;
                let label = &rest[1..=end];
                if label.contains('\\') {
                    return None;
                }
                &rest[end + 2..]
            }
            _ => return None,
        };
    }
    // Nothing after the type itself that would be a clause of its own.
    let outside = outside_parentheses(&column.sql_type)?;
    let mut words = outside.split_whitespace();
    let first = words.next()?;
    let rest_is_known = words.all(|word| matches!(word, "unsigned" | "zerofill" | "signed" | "precision" | "varying"));
    (first.starts_with(|first: char| first.is_ascii_lowercase()) && rest_is_known).then_some(column.sql_type.as_str())
}

/// The text without its one pair of parentheses; `None` where they do not match.
fn outside_parentheses(text: &str) -> Option<String> {
    let Some((before, inside)) = text.split_once('(') else {
        return (!text.contains([')', ',', '\''])).then(|| text.to_owned());
    };
    let (labels, after) = inside.rsplit_once(')')?;
    let mut in_label = false;
    for char in labels.chars() {
        match char {
            '\'' => in_label = !in_label,
            '(' | ')' if !in_label => return None,
            _ => {}
        }
    }
    (!in_label && !before.contains([')', ',', '\'']) && !after.contains([',', '\'']))
        .then(|| format!("{before} {after}"))
}

/// A type for what SQLite had, which has no types of its own.
fn derived(column: &ColumnInfo, is_key: bool) -> Option<&'static str> {
    Some(match column.arrow_type.as_str() {
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INT",
        "Int64" => "BIGINT",
        "UInt8" => "TINYINT UNSIGNED",
        "UInt16" => "SMALLINT UNSIGNED",
        "UInt32" => "INT UNSIGNED",
        "UInt64" => "BIGINT UNSIGNED",
        "Float32" => "FLOAT",
        "Float64" => "DOUBLE",
        "Date32" => "DATE",
        other if other.starts_with("Timestamp") => "DATETIME(6)",
        "Utf8" if is_key => "VARCHAR(255)",
        "Binary" if is_key => "VARBINARY(255)",
        "Utf8" => "LONGTEXT",
        "Binary" => "LONGBLOB",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(sql_type: &str, arrow_type: &str) -> ColumnInfo {
        ColumnInfo { name: "a".to_owned(), sql_type: sql_type.to_owned(), arrow_type: arrow_type.to_owned() }
    }

    #[test]
    fn only_a_type_is_taken_from_a_receipt() {
        for sound in [
            "int(11)",
            "bigint(20) unsigned zerofill",
            "decimal(65,30)",
            "datetime(6)",
            "varchar(1024)",
            "enum('a','it''s, (fine)','Zoë')",
            "set('')",
            "double",
            "uuid",
        ] {
            assert_eq!(declared(&column(sound, "Utf8")), Some(sound));
        }
        for wrong in [
            "",
            "int) select",
            "int, b int",
            "int as (1)",
            "int default (sleep(9))",
            "enum('a\\')",
            "enum('a",
            "int(11) references t",
            "int -- ",
            "INT",
            "int(1), b int(1)",
            "enum('a'),b enum('b')",
        ] {
            assert_eq!(declared(&column(wrong, "Utf8")), None, "{wrong}");
        }
    }

    #[test]
    fn what_sqlite_had_gets_a_type_that_holds_it() {
        assert_eq!(derived(&column("", "Utf8"), true), Some("VARCHAR(255)"));
        assert_eq!(derived(&column("INTEGER", "Int64"), false), Some("BIGINT"));
        assert_eq!(derived(&column("", "Timestamp(Microsecond, None)"), true), Some("DATETIME(6)"));
        assert_eq!(derived(&column("", "Struct"), false), None);
    }
}
