//! The only clock of the daemon: wall time at start, then monotonic. It never runs backwards.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use orchqueue_core::Time;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_us: u64,
    start: Instant,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            wall_us: u64::try_from(wall.as_micros()).unwrap_or(0),
            start: Instant::now(),
        }
    }

    #[must_use]
    pub fn now(&self) -> Time {
        Time(self.wall_us + u64::try_from(self.start.elapsed().as_micros()).unwrap_or(0))
    }

    /// The tokio instant at which `time` is reached.
    #[must_use]
    pub fn instant(&self, time: Time) -> tokio::time::Instant {
        let offset = time.0.saturating_sub(self.wall_us);
        tokio::time::Instant::from_std(self.start + std::time::Duration::from_micros(offset))
    }
}

/// Milliseconds since the epoch, for records and answers.
#[must_use]
pub fn wall_ms(time: Time) -> u64 {
    time.0 / 1000
}
