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

/// All names of ours begin with this.
const OURS: &str = "cdrvault/";

/// The statement that lists all rows that may be ours.
pub(crate) fn select_names() -> String {
    format!("SELECT name FROM {JOBS} WHERE name LIKE '{OURS}%' ORDER BY name")
}

/// The statements that take rows away, given as SQL literals: first what is queued for them.
pub(crate) fn delete_names(literals: &[String]) -> [String; 2] {
    let list = literals.join(", ");
    [
        format!("DELETE FROM {QUEUE} WHERE ar_daily_status_job_id IN (SELECT id FROM {JOBS} WHERE name IN ({list}))"),
        format!("DELETE FROM {JOBS} WHERE name IN ({list})"),
    ]
}

/// The ids of a flow's two jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobIds {
    pub(crate) inbox: i64,
    pub(crate) debt: i64,
}
