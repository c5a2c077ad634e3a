//! Named points at which tests stop, kill or fail a run. They exist in debug builds only.
//!
//! `CDRVAULT_FAILPOINT` lists them, separated by `;`: `after-claim=abort` ends the process at once, as a power cut
//! would; `after-claim:3=abort` the third time; `after-seal=error` fails the step; `after-claim=pause:/tmp/p` writes
//! `/tmp/p.reached` and waits until `/tmp/p` exists.

use crate::error::Result;

/// Says that a run is here.
#[cfg(not(debug_assertions))]
#[inline]
pub fn hit(_: &str) -> Result<()> {
    Ok(())
}

/// Says that a run is here.
#[cfg(debug_assertions)]
pub fn hit(name: &str) -> Result<()> {
    active::hit(name)
}

#[cfg(debug_assertions)]
#[expect(clippy::disallowed_methods, reason = "a marker for tests, not data")]
mod active {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use crate::error::{Error, Kind, Result};

    struct Point {
        nth: u64,
        action: String,
    }

    fn points() -> &'static HashMap<String, Point> {
        static POINTS: OnceLock<HashMap<String, Point>> = OnceLock::new();
        POINTS.get_or_init(|| parse(&std::env::var("CDRVAULT_FAILPOINT").unwrap_or_default()))
    }

    fn parse(text: &str) -> HashMap<String, Point> {
        text.split(';')
            .filter_map(|one| one.split_once('='))
            .map(|(name, action)| {
                let (name, nth) =
                    name.split_once(':').map_or((name, 1), |(name, nth)| (name, nth.parse().unwrap_or(1)));
                (name.trim().to_owned(), Point { nth, action: action.trim().to_owned() })
            })
            .collect()
    }

    pub(super) fn hit(name: &str) -> Result<()> {
        static HITS: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);
        let Some(point) = points().get(name) else { return Ok(()) };
        let count = {
            let mut hits = HITS.lock().unwrap_or_else(PoisonError::into_inner);
            let count = hits.get_or_insert_default().entry(name.to_owned()).or_insert(0);
            *count += 1;
            *count
        };
        if count != point.nth {
            return Ok(());
        }
        match point.action.split_once(':') {
            Some(("pause", path)) => {
                let _ = std::fs::write(format!("{path}.reached"), name);
                while !Path::new(path).exists() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
            _ if point.action == "abort" => std::process::abort(),
            _ => Err(Error::new(Kind::Failed, format!("failpoint `{name}`"))),
        }
    }
}
