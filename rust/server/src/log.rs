//! JSON lines on standard error, in the field names of the contract (ORCH-3027).
//!
//! A thread of its own writes, so that a blocked terminal never holds up a stream. The queue is bounded; what
//! does not fit is counted and reported with the next line. Prompts and outputs never appear here.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use serde_json::Value;

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
                    let _ = writeln!(std::io::stderr().lock(), "{line}");
                }
            });
        // Without its thread the queue only counts what it drops.
        drop(spawned);
        Self { tx, dropped }
    }

    /// Queues one line; never blocks.
    pub fn line(&self, value: Value) {
        if let Err(TrySendError::Full(_)) = self.tx.try_send(value) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
