//! A limit of bytes a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Everything that goes through one of these together keeps below the limit.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.filter(|limit| *limit > 0), free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may go.
    pub(crate) async fn take(&self, bytes: usize) {
        if let Some(limit) = self.bytes_per_second {
            tokio::time::sleep_until(self.reserve(bytes, limit, Instant::now()).into()).await;
        }
    }

    /// When so many bytes may go; they are taken for gone.
    #[expect(clippy::cast_precision_loss, reason = "a speed need not be exact")]
    fn reserve(&self, bytes: usize, limit: u64, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = now.max(*free_at);
        *free_at = begin + Duration::from_secs_f64(bytes as f64 / limit as f64);
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_those_before_them() {
        let throttle = Throttle::new(Some(1000));
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(throttle.reserve(2000, 1000, now), now);
        assert_eq!(throttle.reserve(500, 1000, now), now + Duration::from_secs(2));
        let later = now + Duration::from_mins(1);
        assert_eq!(throttle.reserve(1, 1000, later), later);
    }
}
