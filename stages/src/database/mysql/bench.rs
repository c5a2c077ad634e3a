//! Reading rows, for `cargo bench`: what a server would send lies in memory.

#![allow(clippy::cast_possible_truncation, reason = "all that is cut is small")]

use std::io::Cursor;
use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use bytes::Bytes;
use cdrvault_format::error::Result;

use super::columns::{Decoding, Reading};
use super::snapshot::BatchesOf;
use super::wire::{Connection, push_with_length};
use crate::database::tables::{Column, Table};

/// What a server answers to a select of calls.
pub struct Answer {
    table: Arc<Table<Reading>>,
    sent: Bytes,
}

impl Answer {
    /// Calls with an id, a time, two amounts, a duration, and a telephone number.
    pub fn of_calls(count: u32) -> Self {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let columns = [
            ("id", "int(20)", DataType::Int32, Decoding::Int, LONG),
            ("calldate", "datetime", time, Decoding::DateTime, DATETIME),
            ("income", "int(20)", DataType::Int32, Decoding::Int, LONG),
            ("cost", "int(20)", DataType::Int32, Decoding::Int, LONG),
            ("duration", "int(20)", DataType::Int32, Decoding::Int, LONG),
            ("external_telephone_number", "varchar(255)", DataType::Utf8, Decoding::Text, VAR_STRING),
        ];
        let mut sent = Sent::default();
        // The statement is prepared: it has the number 1, and what columns it has is told when it runs.
        sent.packet(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        sent.number = 0;
        sent.packet(&[columns.len() as u8]);
        for (name, _, _, _, kind) in &columns {
            let mut body = Vec::new();
            for text in ["def", "billing", "ar_cdr", "ar_cdr", name, name] {
                push_with_length(&mut body, text.as_bytes());
            }
            // utf8mb4, as long as need be; neither flags nor decimals.
            body.extend([12, 45, 0, 0, 4, 0, 0, *kind, 0, 0, 0, 0, 0]);
            sent.packet(&body);
        }
        sent.packet(&END);
        for n in 0..count {
            let mut row = vec![0, 0];
            row.extend(n.to_le_bytes());
            row.extend([7, 0xea, 7, 1, 1 + (n / 86_400 % 28) as u8]);
            row.extend([(n / 3_600 % 24) as u8, (n / 60 % 60) as u8, (n % 60) as u8]);
            for number in [n.wrapping_mul(31) % 90_000, n.wrapping_mul(17) % 90_000, n % 1_800] {
                row.extend(number.to_le_bytes());
            }
            let telephone = format!("39059{:07}", u64::from(n) * 7_919 % 10_000_000);
            push_with_length(&mut row, telephone.as_bytes());
            sent.packet(&row);
        }
        sent.packet(&END);
        let columns = columns.map(|(name, sql_type, kind, decoding, _)| Column {
            field: Field::new(name, kind, true),
            sql_type: sql_type.to_owned(),
            default_weight: None,
            reading: Reading { select: name.to_owned(), beside: None, decoding },
        });
        let table = Table::new("ar_cdr", "calldate", false, columns.into(), vec!["id".to_owned()]);
        Self { table: Arc::new(table), sent: sent.bytes.into() }
    }

    /// Makes batches of it; tells how many rows they have.
    pub async fn read(&self) -> Result<usize> {
        let mut connection = Connection::on(tokio::io::join(Cursor::new(self.sent.clone()), tokio::io::sink()));
        let mut batches = BatchesOf::select(&mut connection, &self.table, "SELECT").await?;
        let mut rows = 0;
        while let Some(batch) = batches.next().await? {
            rows += batch.num_rows();
        }
        Ok(rows)
    }
}

/// The types of columns, by <https://mariadb.com/kb/en/result-set-packets/#field-types>.
const LONG: u8 = 3;
const DATETIME: u8 = 12;
const VAR_STRING: u8 = 253;

/// The end of the columns, or of the rows.
const END: [u8; 5] = [0xfe, 0, 0, 2, 0];

/// Packets that are shorter than 64 KiB, one after the other.
#[derive(Default)]
struct Sent {
    bytes: Vec<u8>,
    number: u8,
}

impl Sent {
    fn packet(&mut self, body: &[u8]) {
        self.number = self.number.wrapping_add(1);
        let [low, high, ..] = body.len().to_le_bytes();
        self.bytes.extend([low, high, 0, self.number]);
        self.bytes.extend(body);
    }
}
