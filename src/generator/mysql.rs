//! Days of calls in MariaDB or MySQL: as SQL text, which any driver and the command line client can load.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::marker::PhantomData;

use super::calls::Rated;
use super::cdr::{Cdr, SourceCdr};
use super::row::{Row, Value};

/// The longest statement; well below the smallest `max_allowed_packet` in use, which is 1 MiB.
const STATEMENT_BYTES: usize = 768 * 1024;

/// The statements that load calls, without a transaction of their own and without events: both are up to who runs them.
pub fn statements(calls: impl IntoIterator<Item = Rated>) -> impl Iterator<Item = String> {
    let mut calls = calls.into_iter();
    let (mut cdrs, mut sources) = (Inserts::<Cdr>::default(), Inserts::<SourceCdr>::default());
    let mut made = VecDeque::new();
    std::iter::from_fn(move || {
        while made.is_empty() {
            let Some(rated) = calls.next() else { return sources.finish().or_else(|| cdrs.finish()) };
            made.extend(rated.source.and_then(|source| sources.push(&source)));
            made.extend(cdrs.push(&rated.cdr));
        }
        made.pop_front()
    })
}

/// Gathers rows into INSERT statements of many rows each.
#[derive(Debug)]
pub struct Inserts<R> {
    sql: String,
    rows: PhantomData<fn(R)>,
}

impl<R> Default for Inserts<R> {
    fn default() -> Self {
        Self { sql: String::new(), rows: PhantomData }
    }
}

impl<R: Row> Inserts<R> {
    /// Adds a row; gives a statement when it is long enough.
    pub fn push(&mut self, row: &R) -> Option<String> {
        if self.sql.is_empty() {
            self.sql = format!("INSERT INTO {} ({}) VALUES\n(", R::TABLE, R::COLUMNS.join(","));
        } else {
            self.sql.push_str(",\n(");
        }
        for (index, value) in row.values().enumerate() {
            if index > 0 {
                self.sql.push(',');
            }
            append(&mut self.sql, value);
        }
        self.sql.push(')');
        if self.sql.len() >= STATEMENT_BYTES { self.finish() } else { None }
    }

    /// The statement with the rows that are left.
    pub fn finish(&mut self) -> Option<String> {
        (!self.sql.is_empty()).then(|| std::mem::take(&mut self.sql))
    }
}

fn append(sql: &mut String, value: Value<'_>) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Null => write!(sql, "NULL"),
        Value::Integer(integer) => write!(sql, "{integer}"),
        Value::DateTime(clock) => write!(sql, "'{clock}'"),
        Value::Bytes(bytes) => return hex(sql, bytes),
        // Backslashes mean something else under NO_BACKSLASH_ESCAPES; in hexadecimal, text means the same everywhere.
        Value::Text(text) if text.bytes().any(|byte| byte == b'\\' || byte == 0) => {
            sql.push_str("_utf8mb4 ");
            return hex(sql, text.as_bytes());
        }
        Value::Text(text) if text.contains('\'') => write!(sql, "'{}'", text.replace('\'', "''")),
        Value::Text(text) => write!(sql, "'{text}'"),
    };
}

fn hex(sql: &mut String, bytes: &[u8]) {
    sql.push_str("X'");
    for byte in bytes {
        let _ = write!(sql, "{byte:02X}");
    }
    sql.push('\'');
}
