//! What a server does not show as it is: MariaDB converts labels and default values to utf8mb3 on their way into
//! `SHOW CREATE TABLE`, and writes `?` for each character that has no place there.

use std::collections::BTreeMap;
use std::ops::Range;

use cdrvault_format::error::{Error, Kind, Result};

use super::text::{options, outside, whole};
use super::values::{push_hex, push_quoted};
use super::{Dumping, shown};
use crate::database::mysql::connect::{literal, quoted, text as text_of};

/// Character sets that have several codes for some characters: converted there and back, a text has other bytes.
const AMBIGUOUS: [&str; 6] = ["big5", "cp932", "eucjpms", "gbk", "sjis", "ujis"];

/// What may follow a default value; behind an expression that begins with text stands something else.
const AFTER_DEFAULT: [&str; 6] = [" COMMENT ", " CHECK ", " INVISIBLE", " WITHOUT ", " ON UPDATE ", " /*"];

/// Where the definition of a column has text that the server converted.
#[derive(Debug, PartialEq, Eq)]
struct Definition {
    name: Vec<u8>,
    /// Of an ENUM or a SET.
    labels: Vec<Range<usize>>,
    is_set: bool,
    default: Option<Range<usize>>,
}

/// The columns of a `CREATE TABLE`.
fn definitions(sql: &[u8]) -> Vec<Definition> {
    let end = options(sql).saturating_sub(1);
    let mut depth = 0_u32;
    let mut starts = Vec::new();
    for (at, byte) in outside(sql).take_while(|(at, _)| *at < end) {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' => {}
            _ => continue,
        }
        if depth == 1 && byte != b')' {
            starts.push(at + 1);
        }
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|start| start - 1).chain([end]).collect();
    starts.into_iter().zip(ends).filter_map(|(from, to)| definition(sql, from, to)).collect()
}

fn definition(sql: &[u8], from: usize, to: usize) -> Option<Definition> {
    let entry = sql.get(from..to)?;
    let from = from + entry.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let entry = sql.get(from..to)?;
    if entry.first() != Some(&b'`') {
        return None;
    }
    let name = entry.get(..whole(entry))?.to_vec();
    let kind = entry.get(name.len()..)?;
    let is_set = kind.starts_with(b" set(");
    let mut labels = Vec::new();
    if is_set || kind.starts_with(b" enum(") {
        let mut at = name.len() + if is_set { b" set(".len() } else { b" enum(".len() };
        while entry.get(at) == Some(&b'\'') {
            let length = whole(entry.get(at..)?);
            labels.push(from + at..from + at + length);
            at += length + 1;
        }
    }
    let default = outside(entry).map(|(at, _)| at).find_map(|at| {
        let rest = entry.get(at..)?.strip_prefix(b" DEFAULT ")?;
        let at = at + b" DEFAULT ".len();
        let length = if rest.first() == Some(&b'\'') { whole(rest) } else { return None };
        let after = rest.get(length..)?;
        let is_value = after.is_empty() || AFTER_DEFAULT.iter().any(|word| after.starts_with(word.as_bytes()));
        is_value.then(|| from + at..from + at + length)
    });
    Some(Definition { name, labels, is_set, default })
}

/// Text that gives these bytes in a column of this character set.
fn written(bytes: &[u8], charset: &str, is_label: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if charset == "utf8mb4" && std::str::from_utf8(bytes).is_ok() {
        push_quoted(&mut out, bytes);
        return out;
    }
    if !is_label && charset != "binary" {
        out.extend_from_slice(format!("_{charset} ").as_bytes());
    }
    push_hex(&mut out, bytes);
    out
}

impl Dumping<'_> {
    /// A `CREATE TABLE` with the labels and default values that the table has.
    pub(super) async fn with_own_texts(&mut self, table: &str, mut sql: Vec<u8>) -> Result<Vec<u8>> {
        if sql.is_ascii() && !sql.contains(&b'?') {
            return Ok(sql);
        }
        let asked = format!(
            "SELECT COLUMN_NAME, CHARACTER_SET_NAME FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
            literal(table)
        );
        let charsets: BTreeMap<Vec<u8>, String> = self
            .query(&asked)
            .await?
            .iter()
            .filter_map(|row| {
                let charset = text_of(row, 1).unwrap_or_else(|| "binary".to_owned());
                Some((quoted(&text_of(row, 0)?).into_bytes(), charset))
            })
            .collect();
        // From the end: what is before stays in its place.
        for column in definitions(&sql).into_iter().rev() {
            let Some(charset) = charsets.get(&column.name) else { continue };
            let is_doubtful = |span: &Range<usize>| {
                let text = sql.get(span.clone()).unwrap_or_default();
                text.contains(&b'?') || !text.is_ascii() && AMBIGUOUS.contains(&charset.as_str())
            };
            let (of_default, of_labels) =
                (column.default.iter().any(is_doubtful), column.labels.iter().any(is_doubtful));
            if let Some(span) = column.default.clone().filter(|_| of_default) {
                let own = self.own_default(table, &column).await.map(|default| vec![default]);
                self.put(&mut sql, &[span], own, charset, (table, &column))?;
            }
            if of_labels {
                let own = self.own_labels(table, &column).await;
                self.put(&mut sql, &column.labels, own, charset, (table, &column))?;
            }
        }
        Ok(sql)
    }

    /// Puts texts where others are shown.
    fn put(
        &self,
        sql: &mut Vec<u8>,
        spans: &[Range<usize>],
        own: Result<Vec<Vec<u8>>>,
        charset: &str,
        (table, column): (&str, &Definition),
    ) -> Result<()> {
        match own {
            Ok(texts) => {
                for (text, span) in texts.iter().zip(spans).rev() {
                    let is_label = Some(span) != column.default.as_ref();
                    sql.splice(span.clone(), written(text, charset, is_label));
                }
            }
            Err(error) if error.kind().passes() || error.kind() == Kind::Interrupted => return Err(error),
            // Another server than MariaDB; where it shows all characters there is nothing to ask for.
            Err(error) => {
                if spans.iter().any(|span| sql.get(span.clone()).is_some_and(|text| text.contains(&b'?'))) {
                    self.notices.warning(format!(
                        "column {} of table {} has `?` in its labels or its default value, and the server does not tell \
                         whether it stands for other characters: {}",
                        String::from_utf8_lossy(&column.name),
                        shown(table),
                        error.one_line()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Of a table that has no row, too: a column of no rows at all keeps the default of the one that it comes from.
    async fn own_default(&mut self, table: &str, column: &Definition) -> Result<Vec<u8>> {
        let name = String::from_utf8_lossy(&column.name);
        let sql = format!(
            "SELECT HEX(DEFAULT(own.{name})) FROM (SELECT 1) one LEFT JOIN (SELECT {name} FROM {} LIMIT 0) own ON 0",
            quoted(table)
        );
        let rows = self.query(&sql).await?;
        let digits = rows.first().and_then(|row| row.get(0));
        digits.and_then(|digits| hex::decode(digits).ok()).ok_or_else(|| Error::failed("it gives no default value"))
    }

    /// A variable of the column's type takes each of its labels.
    async fn own_labels(&mut self, table: &str, column: &Definition) -> Result<Vec<Vec<u8>>> {
        let (name, count) = (String::from_utf8_lossy(&column.name), column.labels.len());
        let number = if column.is_set { "1 << label" } else { "label + 1" };
        self.execute(&format!(
            "BEGIN NOT ATOMIC DECLARE own TYPE OF {}.{name}; DECLARE label INT DEFAULT 0; SET @cdrvault_labels = ''; \
             WHILE label < {count} DO SET own = {number}; SET @cdrvault_labels = CONCAT(@cdrvault_labels, HEX(own), ','); \
             SET label = label + 1; END WHILE; END",
            quoted(table)
        ))
        .await?;
        let rows = self.query("SELECT @cdrvault_labels").await?;
        let all = rows.first().and_then(|row| text_of(row, 0)).unwrap_or_default();
        let labels: Vec<Vec<u8>> = all.split_terminator(',').filter_map(|digits| hex::decode(digits).ok()).collect();
        if labels.len() == count { Ok(labels) } else { Err(Error::failed("it gives other labels than it shows")) }
    }

    /// UTF-8 in a character set of the server; an error where it does not have all of the characters.
    pub(super) async fn encoded(&mut self, text: &[u8], charset: &str) -> Result<Vec<u8>> {
        if text.is_ascii() || charset.starts_with("utf8") || charset == "binary" {
            return Ok(text.to_vec());
        }
        let digits = hex::encode(text);
        let there = format!("CONVERT(_utf8mb4 X'{digits}' USING {charset})");
        let rows = self.query(&format!("SELECT HEX({there}), HEX(CONVERT({there} USING utf8mb4))")).await?;
        let at = |column| rows.first().and_then(|row| row.get(column)).and_then(|digits| hex::decode(digits).ok());
        match (at(0), at(1)) {
            (Some(bytes), Some(back)) if back == text => Ok(bytes),
            _ => Err(Error::failed(format!(
                "its name or its comment has characters that {charset} does not have, the character set of its text"
            ))
            .hint("make it again by a client of utf8mb4")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_default_values_are_found_in_the_definitions_of_columns() {
        let sql = b"CREATE TABLE `t` (\n  `a``(` enum('x''y\\'',',','?') DEFAULT ',' COMMENT ' DEFAULT \\'n\\'',\n  \
            `s` set('?') NOT NULL,\n  `d` varchar(9) DEFAULT 'it''s ?',\n  `e` varchar(9) DEFAULT 'a' = 'b',\n  \
            `f` varchar(9) DEFAULT concat('?',`d`),\n  `n` decimal(3,1) DEFAULT 1.0,\n  KEY `k` (`a``(`) COMMENT '?',\n  \
            CONSTRAINT `c` CHECK (`d` <> ' DEFAULT ')\n) ENGINE=InnoDB COMMENT=' DEFAULT \\'?\\''";
        let text = |span: &Range<usize>| String::from_utf8(sql[span.clone()].to_vec()).unwrap();
        let found: Vec<(String, Vec<String>, Option<String>)> = definitions(sql)
            .iter()
            .map(|column| {
                let name = String::from_utf8(column.name.clone()).unwrap();
                (name, column.labels.iter().map(text).collect(), column.default.as_ref().map(text))
            })
            .collect();
        let expected: [(&str, &[&str], Option<&str>); 6] = [
            ("`a``(`", &["'x''y\\''", "','", "'?'"], Some("','")),
            ("`s`", &["'?'"], None),
            ("`d`", &[], Some("'it''s ?'")),
            ("`e`", &[], None),
            ("`f`", &[], None),
            ("`n`", &[], None),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, labels, default)| {
                let labels = labels.iter().map(|label| (*label).to_owned()).collect();
                ((*name).to_owned(), labels, default.map(str::to_owned))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn text_is_written_so_that_its_bytes_stay() {
        let of = |bytes: &[u8], charset, is_label| String::from_utf8(written(bytes, charset, is_label)).unwrap();
        assert_eq!(of("it's \u{1f600}".as_bytes(), "utf8mb4", true), "'it''s \u{1f600}'");
        assert_eq!(
            (of(b"\x81", "cp1250", true), of(b"\x81", "cp1250", false)),
            ("X'81'".into(), "_cp1250 X'81'".into())
        );
        assert_eq!(of(b"\xff", "binary", false), "X'FF'");
    }
}
