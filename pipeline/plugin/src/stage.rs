//! The contracts of sources, sessions and transforms. Implementations document only their differences.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::notice::Notices;
use crate::payload::{Form, Payload, Shape};
use cdrvault_format::error::Result;
use cdrvault_format::facts::Facts;
use cdrvault_format::manifest::{ColumnInfo, Manifest};
use cdrvault_format::partition::{DayRange, Partition, Unit};
use cdrvault_format::tripwire::Tripwire;

/// Where a dataset comes from.
///
/// A source is built with the [`Session`] that it shares with the other flows on the same database, so that one
/// connection holds the lock and one snapshot serves all flows of a day.
#[async_trait]
pub trait Source: Send + Sync {
    /// What [`Source::read`] gives.
    fn emits(&self) -> Shape;

    /// How its partitions lie in the vault.
    fn form(&self) -> Form {
        Form::Object
    }

    /// What it reads, for manifests and messages, without secrets: `mysql://host/database#table`.
    fn describe(&self) -> String;

    /// Checks that it can be read at all: the table is there, known columns are, privileges suffice. What it will not see
    /// of what it was asked for, without an error, is a line each: a warning of every run. Also what `validate --connect`
    /// shows. Called before the first `discover`.
    async fn check(&self, cx: &Context) -> Result<Vec<String>>;

    /// What may have changed, with the evidence that was asked for; no order is promised. It changes nothing.
    async fn discover(&self, cx: &Context, ask: &Ask) -> Result<Vec<Candidate>>;

    /// The content of one partition, from one consistent snapshot, which was opened by [`Session::snapshot`] of this
    /// source's own session. The stream ends with an error unless every row of the partition went through it.
    /// A partition that has no rows (any longer) gives an empty stream, not an error.
    async fn read(&self, cx: &Context, from: &Arc<dyn Snapshot>, what: &Read) -> Result<Payload>;
}

/// What [`Source::read`] is asked for.
#[derive(Debug, Clone)]
pub struct Read {
    /// Which partition.
    pub partition: Partition,
    /// The generation that every sink of the flow holds, if there is one: a source may answer
    /// [`crate::payload::Body::Unchanged`] for what it knows to be the same.
    pub previous: Option<Arc<Manifest>>,
    /// The columns of what is saved, where that is compared and nothing is stored: of a type that can be stored in several
    /// forms, the form is theirs.
    pub compared_with: Vec<ColumnInfo>,
    /// Where the source says what it could not save, or not as it should be, while the rest goes through.
    pub notices: Notices,
}

/// Which evidence `discover` is to bring.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Days that the application announced, and days that we owe.
    pub events: bool,
    /// Days whose tripwire is to be computed; `None` for none.
    pub tripwire: Option<Days>,
    /// Every partition there is, without evidence: a first run, a replay, a flow without `incremental`.
    pub listing: Option<DayRange>,
}

/// A set of days, as ranges and single ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Days {
    /// All days in these ranges.
    pub ranges: Vec<DayRange>,
    /// And these, if they exist.
    pub single: BTreeSet<Date>,
    /// And the rows without a valid date, if there are any.
    pub undated: bool,
}

impl Days {
    /// Whether the day is one of them.
    pub fn contains(&self, day: Date) -> bool {
        self.single.contains(&day) || self.ranges.iter().any(|range| range.contains(day))
    }
}

/// A partition that may have changed, and why we think so.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which one.
    pub partition: Partition,
    /// At least one.
    pub evidence: Vec<Evidence>,
}

/// Why a partition may have changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// The application announced a change.
    Event,
    /// An earlier run claimed it and did not deliver it everywhere.
    Debt,
    /// It exists; nothing more is known.
    Exists,
    /// Its sums, to be compared with those of the live generation.
    Tripwire {
        /// As the database has it now.
        now: Tripwire,
        /// What a row with the default adds to the sum of a column, where that is known.
        default_weights: Vec<(String, i128)>,
    },
}

/// One consistent view of a source. Dropping it ends it.
pub trait Snapshot: Any + Send + Sync {
    /// When it was opened.
    fn opened(&self) -> Timestamp;
}

/// What the flows on one database share: the lock, the queue of announced days, and snapshots.
///
/// The order of calls is that of the commit protocol: `open`, then for each unit `claim`, `snapshot`, (reading),
/// `fence`, (publishing), `settle`; at the end `close`. A session without a queue (files, or a database where we may
/// not write) answers `claim` and `settle` by doing nothing and says so in [`Opened::without_events`].
#[async_trait]
pub trait Session: Any + Send + Sync {
    /// What it is connected to, without secrets; sessions with equal identities are one.
    fn identity(&self) -> String;

    /// Connects, takes the lock, and finds out which flows can be told of changed days. With `dry_run` it takes no lock.
    async fn open(&self, cx: &Context, flows: &[String], dry_run: bool) -> Result<Opened>;

    /// In one transaction: the flows' rows are made, and each of these partitions becomes a debt.
    async fn register(&self, cx: &Context, flows: &[(String, Vec<Partition>)]) -> Result<()>;

    /// In one short transaction: the units become our debt, their announcements are taken off the queue. Where an
    /// announcement is taken, `on_announced` runs before the commit; its error rolls everything back.
    /// Claiming twice is claiming once.
    async fn claim(&self, cx: &Context, units: &[Unit], on_announced: OnAnnounced<'_>) -> Result<()>;

    /// Opens a consistent snapshot on a connection of its own, fenced: the connection that holds the lock is alive on
    /// this very server.
    async fn snapshot(&self, cx: &Context) -> Result<Arc<dyn Snapshot>>;

    /// An error unless we still hold the lock. Asked right before each commit point.
    async fn fence(&self, cx: &Context) -> Result<()>;

    /// Replaces the mark by which the next run knows the database again; see [`Opened::marks`]. Only where that is not
    /// `None`.
    async fn mark(&self, cx: &Context, mark: u64) -> Result<()> {
        let _ = (cx, mark);
        Ok(())
    }

    /// The units are delivered everywhere they must be: the debt goes.
    async fn settle(&self, cx: &Context, units: &[Unit]) -> Result<()>;

    /// The names of the rows that flows of any pipeline and writer of ours have in the application's list.
    async fn job_names(&self, cx: &Context) -> Result<Vec<String>> {
        let _ = cx;
        Ok(Vec::new())
    }

    /// Takes such rows away, with everything that is queued for them, in one transaction.
    async fn forget_jobs(&self, cx: &Context, names: &[String]) -> Result<()> {
        let _ = (cx, names);
        Ok(())
    }

    /// Gives the lock back. Errors do not matter any more.
    async fn close(&self);
}

/// What is done, before the claim commits, for a unit whose announcement was taken.
pub type OnAnnounced<'a> = &'a (dyn Fn(&Unit) -> Result<()> + Send + Sync);

/// What [`Session::open`] found.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// The flows that have rows of their own: the application tells them of changed days.
    pub registered: BTreeSet<String>,
    /// Why events cannot work here, for a person to read; `None` if they can, for flows registered or yet to be.
    pub without_events: Option<String>,
    /// How far the server's clock is from ours, in seconds; positive when the server is ahead.
    pub clock_offset: Option<i64>,
    /// The marks of ours that the database bears, usually one; `None` where it cannot be marked.
    pub marks: Option<BTreeSet<u64>>,
    /// Which server it is, where there is one that tells.
    pub server: Option<Server>,
}

/// A mark has so many bits: what a session can keep in the application's own tables.
pub const MARK_BITS: u32 = 40;

/// A server of databases, as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Server {
    /// What tells it from others: its host, its port, where its data lie.
    pub name: String,
    /// When it was started, in seconds since 1970 by its own clock.
    pub started: Option<i64>,
}

/// What happens to one flow's payload between source and sink.
pub trait Transform: Send + Sync {
    /// The kind, as in the pipeline file.
    fn kind(&self) -> &'static str;

    /// The shape it gives for the shape it takes, or `None` for a configuration error, found at load.
    fn accepts(&self, input: Shape) -> Option<Shape>;

    /// How it finds out what changed, if it does.
    fn detection(&self) -> Option<Detection> {
        None
    }

    /// Whether a candidate needs to be read for a sink, whose live generation is `live`. `None` leaves it to others.
    fn selects(&self, candidate: &Candidate, live: Option<&Manifest>) -> Option<Verdict> {
        let _ = (candidate, live);
        None
    }

    /// Wires itself behind `input`. Lazy: no I/O before the result is polled. One that encodes objects says so in each of
    /// them ([`cdrvault_format::entry::Entry::encoded`]); the [codec](crate::codec) of that name is its inverse.
    fn apply(&self, work: &Work, input: Payload) -> Result<Payload>;
}

/// How changed partitions are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// Listen to the application's events.
    pub events: bool,
    /// Sweep with tripwires.
    pub tripwire: Option<Sweep>,
}

/// How often which days are swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// So many of the last days each time.
    pub window_days: u32,
    /// A sweep is due when the last one is older than this.
    pub every: std::time::Duration,
}

/// What is to be done with a candidate, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Read it and compare.
    Export(String),
    /// Nothing to do.
    Skip,
    /// The database lost the day without telling: keep what we have.
    Gone,
}

/// What a transform knows of the unit it works on.
#[derive(Clone)]
pub struct Work {
    /// Which unit.
    pub unit: Unit,
    /// The generation it will be.
    pub generation: u32,
    /// How it lies in the vault.
    pub form: Form,
    /// The facts of the rows that went by, complete once the row stream has ended.
    pub facts: FactCell,
}

impl Work {
    /// Work on a unit that will be this generation.
    pub fn new(unit: Unit, generation: u32, form: Form) -> Self {
        Self { unit, generation, form, facts: FactCell::default() }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} g{}", self.unit, self.generation)
    }
}

/// Facts that become known when a stream has ended.
#[derive(Clone, Default)]
pub struct FactCell(Arc<std::sync::OnceLock<Facts>>);

impl FactCell {
    /// Sets them, once.
    pub fn set(&self, facts: Facts) {
        let _ = self.0.set(facts);
    }

    /// The facts, if the stream has ended.
    pub fn get(&self) -> Option<&Facts> {
        self.0.get()
    }
}
