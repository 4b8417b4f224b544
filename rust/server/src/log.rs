//! JSON lines on standard error, in the field names of the contract (ORCH-3027).
//!
//! A thread of its own writes, so that a blocked terminal never holds up a stream. The queue is bounded; what
//! does not fit is counted and reported with the next line. Prompts and outputs never appear here.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use serde_json::{Map, Value};

use orchqueue_core::Time;

const QUEUE: usize = 8192;

#[derive(Clone)]
pub struct Log {
    tx: SyncSender<Value>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Starts the writer thread; it ends with the last handle.
    #[must_use]
    pub fn start() -> Self {
        let (tx, rx) = sync_channel::<Value>(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let spawned = std::thread::Builder::new()
            .name("orchqueue-log".into())
            .spawn(move || {
                for mut line in rx {
                    let missed = counter.swap(0, Ordering::Relaxed);
                    if let (true, Some(fields)) = (missed > 0, line.as_object_mut()) {
                        fields.insert("lines_dropped".into(), missed.into());
                    }
                    // Standard error may be closed; logging is no reason to fail.
                    // One write: rendering straight into standard error would be a system call for each piece.
                    let text = format!("{line}\n");
                    let _ = std::io::stderr().lock().write_all(text.as_bytes());
                }
            });
        // Without its thread the queue only counts what it drops.
        drop(spawned);
        Self { tx, dropped }
    }

    /// Queues one line in the form that the Python side writes too; never blocks. Absent fields are left out.
    pub fn line(&self, at: Time, level: &'static str, message: &'static str, fields: Value) {
        let mut line = Map::new();
        line.insert("time".into(), iso8601(at).into());
        line.insert("level".into(), level.into());
        line.insert("logger".into(), "orchqueue.front".into());
        line.insert("message".into(), message.into());
        if let Value::Object(fields) = fields {
            line.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        let value = Value::Object(line);
        if let Err(TrySendError::Full(_)) = self.tx.try_send(value) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// UTC with milliseconds, as RFC 3339 writes it.
#[must_use]
pub fn iso8601(at: Time) -> String {
    let (days, ms_of_day) = (at.0 / 86_400_000_000, at.0 / 1000 % 86_400_000);
    let (year, month, day) = civil(days);
    let (s, ms) = (ms_of_day / 1000, ms_of_day % 1000);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        s / 3600,
        s / 60 % 60,
        s % 60
    )
}

/// The Gregorian date of a day since 1970-01-01: eras of 400 years that begin in March, so that the leap day is last.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_utc_with_milliseconds() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999_000, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (1_795_170_600_434_567, "2026-11-20T10:30:00.434Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso8601(Time(us)), text);
        }
    }
}
