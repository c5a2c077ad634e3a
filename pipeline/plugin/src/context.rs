//! What every long operation carries: cancellation, limits and who we are.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;
use cdrvault_format::error::{Error, Result};

/// Shared by everything that one run does. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Set when the user or the system asks us to stop.
    pub cancel: CancellationToken,
    /// Who hears how far we are.
    pub progress: Arc<dyn Progress>,
    /// Who writes.
    pub writer: Arc<Writer>,
    /// Where copies lie that are read once, if not in the state directory; see [`crate::scratch`].
    pub scratch: Option<PathBuf>,
}

/// Who writes: what event rows, locks and manifests carry.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The pipeline's name.
    pub pipeline: String,
    /// Eight hex digits of a hash of machine, host name and state directory.
    pub id: String,
    /// The wall clock of the billing host.
    pub timezone: TimeZone,
    /// The state directory.
    pub state: PathBuf,
}

impl Writer {
    /// Today in the wall clock of the billing host.
    pub fn today(&self) -> jiff::civil::Date {
        Timestamp::now().to_zoned(self.timezone.clone()).date()
    }
}

impl Context {
    /// An error when we were asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Runs a future, or gives it up when we are asked to stop. Only for futures that may be dropped halfway.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::interrupted()),
            done = work => done,
        }
    }
}
