//! A session for sources that no database announces changes to: there is nothing to lock, to claim or to settle.

use std::sync::Arc;

use async_trait::async_trait;
use cdrvault_format::error::Result;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::stage::{Candidate, Evidence, OnAnnounced, Opened, Session, Snapshot};
use jiff::Timestamp;

/// The session of one such source. What keeps two runs apart is the lock of the state directory and of the vault.
#[derive(Debug)]
pub(crate) struct Detached {
    identity: String,
    without_events: &'static str,
}

impl Detached {
    /// A session named after what its source reads; `without_events` says why no change is announced.
    pub(crate) fn new(identity: impl Into<String>, without_events: &'static str) -> Self {
        Self { identity: identity.into(), without_events }
    }

    /// What such a source discovers: its one partition, which must be looked at to know whether it changed.
    pub(crate) fn candidates() -> Vec<Candidate> {
        vec![Candidate { partition: Partition::Snapshot, evidence: vec![Evidence::Exists] }]
    }
}

#[async_trait]
impl Session for Detached {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    async fn open(&self, _: &Context, _: &[String], _: bool) -> Result<Opened> {
        Ok(Opened { without_events: Some(self.without_events.to_owned()), ..Opened::default() })
    }

    async fn register(&self, _: &Context, _: &[(String, Vec<Partition>)]) -> Result<()> {
        Ok(())
    }

    async fn claim(&self, _: &Context, _: &[Unit], _: OnAnnounced<'_>) -> Result<()> {
        Ok(())
    }

    async fn snapshot(&self, _: &Context) -> Result<Arc<dyn Snapshot>> {
        Ok(Arc::new(Moment(Timestamp::now())))
    }

    async fn fence(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn settle(&self, _: &Context, _: &[Unit]) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {}
}

/// The moment from which on things are read. It holds nothing still.
struct Moment(Timestamp);

impl Snapshot for Moment {
    fn opened(&self) -> Timestamp {
        self.0
    }
}
