//! Which server it is, and since when it runs.

use cdrvault_format::error::Result;
use cdrvault_plugin::stage::Server;

use super::connect::{integer, text};
use super::holder::Holder;

/// MariaDB keeps its status in the one schema, MySQL in the other. Both count the seconds from the time at which the
/// statement began, so that the difference is always the same.
const STATUS: [&str; 2] = ["information_schema.GLOBAL_STATUS", "performance_schema.global_status"];

/// What a server tells of itself; nothing of it needs a right.
pub(super) async fn of(k: &mut Holder) -> Result<Option<Server>> {
    let rows = k.query("SELECT CONCAT(@@hostname, ':', @@port, ' ', @@datadir)").await?;
    let Some(name) = rows.first().and_then(|row| text(row, 0)) else { return Ok(None) };
    let mut started = None;
    for status in STATUS {
        let sql = format!(
            "SELECT UNIX_TIMESTAMP() - CAST(VARIABLE_VALUE AS SIGNED) FROM {status} WHERE VARIABLE_NAME = 'UPTIME'"
        );
        // A server that lacks the one has the other; a connection that is lost is noticed by the next statement.
        if let Ok(rows) = k.query(&sql).await {
            started = rows.first().and_then(|row| integer(row, 0));
            break;
        }
    }
    Ok(Some(Server { name, started }))
}
