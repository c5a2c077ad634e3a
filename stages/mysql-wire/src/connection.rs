//! A connection that is logged in: commands, and their answers.

use mysql_common::io::ParseBuf;
use mysql_common::packets::StmtPacket;

use crate::failure::{Failure, Result};
use crate::login;
use crate::packets::{self, END, ERROR, OK, Packets, Stream};
use crate::rows::{self, BinaryRow, Kind, Row, Spans, push_with_length};
use crate::server::Server;

/// The server wants a file of ours.
const LOCAL_INFILE: u8 = 0xfb;

const QUIT: u8 = 0x01;
const QUERY: u8 = 0x03;
const PING: u8 = 0x0e;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const CLOSE: u8 = 0x19;

/// A value that is sent beside its statement.
#[derive(Debug)]
pub enum Bound {
    /// In utf8mb4; it is converted to the charset of its column.
    Text(String),
    /// As they are.
    Bytes(Vec<u8>),
}

/// A connection that is logged in.
pub struct Connection {
    packets: Packets,
    /// A command was begun, and its answer was not read to its end: what comes next may belong to it. Only [`Self::begin`] sets
    /// this, and only [`Self::ended`] and [`Self::refused`] take it back, so that a failure and a dropped future leave it set.
    under_way: bool,
    longest_row: usize,
}

/// The longest row that is read unless more is asked for, and all that an answer by [`Connection::query`] may come to.
pub const LONGEST_ROW: usize = 64 << 20;

impl Connection {
    /// Connects and logs in.
    pub async fn open(server: &Server) -> Result<Self> {
        Self::logged_in(login::connect(server).await?, server).await
    }

    /// Logs in on a stream that leads to the server. Only its place says whether the stream stays on this machine.
    pub async fn log_in(stream: impl Stream + 'static, server: &Server) -> Result<Self> {
        Self::logged_in(Box::new(stream), server).await
    }

    async fn logged_in(stream: Box<dyn Stream>, server: &Server) -> Result<Self> {
        let packets = login::log_in(stream, server).await?;
        Ok(Self { packets, under_way: false, longest_row: LONGEST_ROW })
    }

    /// On a stream whose other end takes us for logged in.
    pub fn on(stream: impl Stream + 'static) -> Self {
        Self { packets: Packets::new(Box::new(stream), 0), under_way: false, longest_row: LONGEST_ROW }
    }

    /// From now on rows may be so long, and no longer: a row is held in memory as a whole.
    pub fn take_rows_up_to(&mut self, bytes: usize) {
        self.longest_row = bytes;
    }

    /// Runs a statement by the text protocol; tells how many rows it touched.
    pub async fn execute(&mut self, sql: impl AsRef<[u8]>) -> Result<u64> {
        self.begin(QUERY, sql.as_ref()).await?;
        match self.answer().await? {
            Answer::Done { touched } => {
                self.ended();
                Ok(touched)
            }
            Answer::Columns(count) => {
                self.columns(count).await?;
                while self.row().await?.is_some() {}
                Ok(0)
            }
        }
    }

    /// Runs a query by the text protocol and gives all of its rows. It costs one round trip.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.begin(QUERY, sql.as_bytes()).await?;
        let Answer::Columns(count) = self.answer().await? else {
            self.ended();
            return Ok(Vec::new());
        };
        self.columns(count).await?;
        let mut rows = Vec::new();
        let mut bytes = 0;
        while let Some(at) = self.row().await? {
            let row = Row::parse(self.packets.bytes(at), count)?;
            bytes += row.kept();
            if bytes > self.longest_row.max(LONGEST_ROW) {
                return Err(Failure::TooLong { limit: self.longest_row.max(LONGEST_ROW) });
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// Runs a query by the binary protocol; its rows are to be read one by one.
    pub async fn select(&mut self, sql: &str) -> Result<Selected<'_>> {
        let statement = self.prepare(sql).await?;
        self.begin(EXECUTE, &statement.execution(&[])).await?;
        let Answer::Columns(count) = self.answer().await? else {
            return Err(Failure::protocol("a query has no columns"));
        };
        let kinds = self.columns(count).await?;
        Ok(Selected { connection: self, statement, spans: Spans::new(kinds), stage: Stage::Rows })
    }

    /// Runs a statement whose question marks stand for these values; tells how many rows it touched.
    pub async fn execute_with(&mut self, sql: &str, values: &[Bound]) -> Result<u64> {
        let statement = self.prepare(sql).await?;
        self.begin(EXECUTE, &statement.execution(values)).await?;
        let Answer::Done { touched } = self.answer().await? else {
            return Err(Failure::protocol("a statement that should only write gives rows"));
        };
        self.ended();
        self.close_statement(statement).await?;
        Ok(touched)
    }

    /// Asks whether the server is there.
    pub async fn ping(&mut self) -> Result<()> {
        self.begin(PING, &[]).await?;
        let Answer::Done { .. } = self.answer().await? else {
            return Err(Failure::protocol("the server answers with rows where it should say that it is there"));
        };
        self.ended();
        Ok(())
    }

    /// Says goodbye, so that the server does not note a connection that broke off.
    pub async fn close(mut self) -> Result<()> {
        self.packets.command(QUIT, &[]).await?;
        self.packets.shut().await
    }

    async fn begin(&mut self, command: u8, body: &[u8]) -> Result<()> {
        if self.under_way {
            return Err(Failure::protocol("the statement before was given up halfway"));
        }
        self.under_way = true;
        let Err(broken) = self.packets.command(command, body).await else { return Ok(()) };
        let said = if broken.is_hang_up() { self.packets.last_words().await } else { None };
        Err(said.unwrap_or(broken))
    }

    /// The answer was read to its end, and is what it should be.
    fn ended(&mut self) {
        self.under_way = false;
    }

    /// What an error says, which ends an answer if it is sound.
    fn refused(&mut self, at: packets::At) -> Failure {
        let failure = Failure::from_packet(self.packets.bytes(at));
        if matches!(failure, Failure::Server { .. }) {
            self.under_way = false;
        }
        failure
    }

    /// How the answer to a command begins.
    async fn answer(&mut self) -> Result<Answer> {
        let at = self.packets.next().await?;
        let packet = self.packets.bytes(at);
        match packet.first() {
            Some(&OK) => Ok(Answer::Done { touched: rows::length(packet, &mut 1)? }),
            Some(&ERROR) => Err(self.refused(at)),
            Some(&LOCAL_INFILE) => Err(Failure::protocol("the server asks for a file of this machine")),
            Some(_) => {
                let mut end = 0;
                let count = rows::length(packet, &mut end)?;
                match u16::try_from(count) {
                    _ if end != packet.len() => {
                        Err(Failure::protocol("more than the number of columns where only it should be"))
                    }
                    Ok(0) => Err(Failure::protocol("a result without columns")),
                    Ok(count) => Ok(Answer::Columns(count.into())),
                    Err(_) => Err(Failure::protocol("too many columns")),
                }
            }
            None => Err(Failure::protocol("an empty packet")),
        }
    }

    /// What so many columns are like, which end with a packet of their own.
    async fn columns(&mut self, count: usize) -> Result<Vec<Kind>> {
        let mut kinds = Vec::with_capacity(count);
        for _ in 0..count {
            let at = self.packets.next().await?;
            match self.packets.bytes(at) {
                [ERROR, ..] => return Err(self.refused(at)),
                column => kinds.push(Kind::of_column(column)?),
            }
        }
        let at = self.packets.next().await?;
        match self.packets.bytes(at) {
            end @ [END, ..] if end.len() < 9 => Ok(kinds),
            [ERROR, ..] => Err(self.refused(at)),
            _ => Err(Failure::protocol("the columns of a result do not end where they should")),
        }
    }

    /// Where the next row of a result lies; `None` after the last one.
    async fn row(&mut self) -> Result<Option<packets::At>> {
        let at = self.packets.next_up_to(self.longest_row).await?;
        let packet = self.packets.bytes(at);
        match packet.first() {
            // A text of 16 MiB and more begins with the same byte.
            Some(&END) if packet.len() < 9 => {
                self.ended();
                Ok(None)
            }
            // It has room for a row, which an error does not need.
            Some(&ERROR) if packet.len() > packets::WORDS => Err(Failure::TooLong { limit: packets::WORDS }),
            Some(&ERROR) => Err(self.refused(at)),
            _ => Ok(Some(at)),
        }
    }

    async fn prepare(&mut self, sql: &str) -> Result<Statement> {
        self.begin(PREPARE, sql.as_bytes()).await?;
        let at = self.packets.next().await?;
        let packet = self.packets.bytes(at);
        if packet.first() == Some(&ERROR) {
            return Err(self.refused(at));
        }
        let prepared: StmtPacket = ParseBuf(packet).parse(())?;
        for count in [prepared.num_params(), prepared.num_columns()] {
            if count > 0 {
                self.columns(count.into()).await?;
            }
        }
        self.ended();
        Ok(Statement { id: prepared.statement_id() })
    }

    /// The server does not answer to this.
    async fn close_statement(&mut self, statement: Statement) -> Result<()> {
        self.begin(CLOSE, &statement.id.to_le_bytes()).await?;
        self.ended();
        Ok(())
    }
}

enum Answer {
    Done { touched: u64 },
    Columns(usize),
}

/// A statement that the server knows.
#[derive(Clone, Copy)]
struct Statement {
    id: u32,
}

impl Statement {
    fn execution(self, values: &[Bound]) -> Vec<u8> {
        const NO_CURSOR: u8 = 0;
        let mut body = self.id.to_le_bytes().to_vec();
        body.push(NO_CURSOR);
        body.extend(1_u32.to_le_bytes());
        if values.is_empty() {
            return body;
        }
        // None of them is NULL, and their types are new.
        body.resize(body.len() + values.len().div_ceil(8), 0);
        body.push(1);
        for value in values {
            body.extend([if matches!(value, Bound::Text(_)) { rows::VAR_STRING } else { rows::BLOB }, 0]);
        }
        for value in values {
            push_with_length(&mut body, value.bytes());
        }
        body
    }
}

impl Bound {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// In bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

/// The rows of a query, as they arrive.
pub struct Selected<'c> {
    connection: &'c mut Connection,
    statement: Statement,
    spans: Spans,
    stage: Stage,
}

/// What the next of a query's rows may be.
enum Stage {
    Rows,
    /// The last row was given.
    Ended,
    /// Reading one failed, or was given up.
    Failed,
}

impl Selected<'_> {
    /// The next row. It lies in the buffer of the connection.
    pub async fn next(&mut self) -> Result<Option<BinaryRow<'_>>> {
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Rows => {}
            Stage::Ended => {
                self.stage = Stage::Ended;
                return Ok(None);
            }
            Stage::Failed => return Err(Failure::protocol("the row before was given up halfway")),
        }
        if let Some(at) = self.connection.row().await? {
            let row = self.spans.of(self.connection.packets.bytes(at))?;
            self.stage = Stage::Rows;
            return Ok(Some(row));
        }
        self.connection.close_statement(self.statement).await?;
        self.stage = Stage::Ended;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// The packet in which a server tells that it closes the connection, which it begins to count with.
    const KILLED: &[u8] = b"\x1e\0\0\0\xff\x87\x07#70100Connection was killed";

    #[tokio::test]
    async fn a_server_that_gave_up_is_heard() {
        for (what, stays) in [("while we write", false), ("before it reads", true)] {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            let mut connection = Connection::on(ours);
            theirs.write_all(KILLED).await.unwrap();
            let _server = stays.then_some(theirs);
            let found = connection.query("SELECT 1").await.map(|_| ());
            let expected = "Connection was killed";
            assert!(
                matches!(&found, Err(Failure::Server { number: 1927, message }) if message == expected),
                "{what}: {found:?}"
            );
            // Nothing that comes later is taken for an answer.
            assert!(matches!(connection.ping().await, Err(Failure::Protocol(_))), "{what}");
        }
    }
}
