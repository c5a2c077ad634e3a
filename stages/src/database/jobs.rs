//! Our two rows in the application's list of jobs that want to hear of changed days.

use cdrvault_pipeline::context::Writer;

/// The table of jobs: `id`, `name`.
pub(crate) const JOBS: &str = "ar_daily_status_job";
/// The queue: `day`, `ar_daily_status_job_id`.
pub(crate) const QUEUE: &str = "ar_daily_status_change";

/// The names of a flow's two jobs. The queue rows of the first are what the application announced, those of the
/// second what we owe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobNames {
    pub(crate) inbox: String,
    pub(crate) debt: String,
}

impl JobNames {
    pub(crate) fn new(writer: &Writer, flow: &str) -> Self {
        let of = |what: &str| format!("cdrvault/{}/{}/{flow}/{what}", writer.pipeline, writer.id);
        Self { inbox: of("inbox"), debt: of("debt") }
    }
}

/// The ids of a flow's two jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobIds {
    pub(crate) inbox: i64,
    pub(crate) debt: i64,
}
