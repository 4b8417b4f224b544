//! The task journal: one thread, one SQLite file, group commit (architecture, decision 4).
//!
//! Records are appended (`admitted`, `started`, `ended`) and never changed. `open` holds the sequence numbers
//! of admitted tasks that have not ended, so that recovery costs what is open and not what was ever done.
//! A task that is admitted and ended within one commit never touches `open`. The journal keeps records for
//! the retention window, so a restart answers for ended tasks without any help; Python folds it into the
//! store and asks for what is past the window to be dropped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use crate::config::Retention;

mod writer;

/// Above this backlog nothing new is admitted: the disk is slower than the clients.
pub const BACKLOG_LIMIT: u64 = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Admitted = 0,
    Started = 1,
    Ended = 2,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Started => "started",
            Self::Ended => "ended",
        }
    }

    fn from_sql(value: i64) -> Self {
        match value {
            0 => Self::Admitted,
            1 => Self::Started,
            _ => Self::Ended,
        }
    }
}

/// A task's name in the journal: ids are scoped to the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub tenant: Arc<str>,
    pub id: [u8; 16],
}

#[derive(Clone, Debug)]
pub struct Record {
    pub key: Key,
    pub kind: Kind,
    pub at_ms: u64,
    pub data: String,
}

#[derive(Clone, Debug)]
pub struct StoredRecord {
    pub seq: i64,
    pub record: Record,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal `{path}` can't be used: {cause}")]
    Open {
        path: String,
        cause: rusqlite::Error,
    },
    #[error(
        "the journal `{path}` is of a newer orchqueue (format {found}); this one reads format {VERSION}"
    )]
    Newer { path: String, found: i64 },
    #[error("the journal could not be written: {0}")]
    Write(String),
    #[error("the journal could not be read: {0}")]
    Read(#[from] rusqlite::Error),
    #[error("the journal is closed")]
    Closed,
}

/// Tells one waiter how its commit went.
pub type Ack = oneshot::Sender<Result<(), JournalError>>;

enum Op {
    Append {
        record: Record,
        ack: Option<Ack>,
    },
    Trim {
        folded_seq: i64,
        now_ms: u64,
        done: oneshot::Sender<usize>,
    },
    Barrier(Ack),
    Close,
}

/// Handle to the journal thread; cheap to share.
pub struct Journal {
    tx: Sender<Op>,
    sent: AtomicU64,
    /// Records that have had their commit.
    settled: Arc<AtomicU64>,
    reader: Mutex<Connection>,
    /// The fold reads in bulk: it must not hold up a look-up.
    bulk: Mutex<Connection>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Format of the file.
const VERSION: i64 = 1;

const SCHEMA: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA busy_timeout = 5000;
CREATE TABLE IF NOT EXISTS record (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    tenant TEXT NOT NULL,
    kind INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS record_id ON record (id, tenant);
CREATE TABLE IF NOT EXISTS open (seq INTEGER PRIMARY KEY);
-- A journal that is made anew must not number from 1 again: the store folds only what is above its watermark.
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'record', unixepoch() * 1000 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'record');
PRAGMA user_version = 1;
";

fn connect(path: &Path) -> Result<Connection, JournalError> {
    let fail = |cause| JournalError::Open {
        path: path.display().to_string(),
        cause,
    };
    let db = Connection::open(path).map_err(fail)?;
    let found = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(fail)?;
    if found > VERSION {
        return Err(JournalError::Newer {
            path: path.display().to_string(),
            found,
        });
    }
    db.execute_batch(SCHEMA).map_err(fail)?;
    db.set_prepared_statement_cache_capacity(16);
    Ok(db)
}

impl Journal {
    /// Opens (or makes) the journal and starts its thread.
    ///
    /// # Errors
    /// [`JournalError::Open`] when the file can't be opened or is no journal.
    pub fn open(path: &Path, retention: Retention) -> Result<Self, JournalError> {
        let writer = connect(path)?;
        let reader = connect(path)?;
        let bulk = connect(path)?;
        let (tx, rx) = channel();
        let settled = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&settled);
        let thread = std::thread::Builder::new()
            .name("orchqueue-journal".into())
            .spawn(move || writer::Writer::new(writer, retention, counter).run(&rx))
            .map_err(|e| JournalError::Write(e.to_string()))?;
        Ok(Self {
            tx,
            sent: AtomicU64::new(0),
            settled,
            reader: Mutex::new(reader),
            bulk: Mutex::new(bulk),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Records that wait for their commit.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.sent().saturating_sub(self.settled())
    }

    /// How many records were ever handed over.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many of them have had their commit.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Appends without waiting.
    pub fn append(&self, record: Record) {
        self.append_with(record, None);
    }

    /// Appends; `ack` hears how the commit went.
    pub fn append_with(&self, record: Record, ack: Option<Ack>) {
        self.send(Op::Append { record, ack });
    }

    fn send(&self, op: Op) {
        if matches!(op, Op::Append { .. }) {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        // A closed journal drops the op; its acknowledgement then reads as `Closed`.
        let _ = self.tx.send(op);
    }

    /// Everything that was appended before is durable when this returns.
    ///
    /// # Errors
    /// [`JournalError::Write`] when the disk refuses, [`JournalError::Closed`] after `close`.
    pub async fn barrier(&self) -> Result<(), JournalError> {
        let (ack, done) = oneshot::channel();
        self.send(Op::Barrier(ack));
        done.await.map_err(|_| JournalError::Closed)?
    }

    /// Drops records that are folded and past retention; returns how many.
    pub fn trim(&self, folded_seq: i64, now_ms: u64) -> usize {
        let (done, count) = oneshot::channel();
        self.send(Op::Trim {
            folded_seq,
            now_ms,
            done,
        });
        count.blocking_recv().unwrap_or(0)
    }

    /// Records after `after_seq`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub fn read(&self, after_seq: i64, limit: usize) -> Result<Vec<StoredRecord>, JournalError> {
        let db = self.bulk.lock();
        let mut query = db.prepare_cached(
            "SELECT seq, id, tenant, kind, at_ms, data FROM record WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let rows = query.query_map(
            params![after_seq, i64::try_from(limit).unwrap_or(i64::MAX)],
            stored,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The `admitted` records of tasks that have not ended, in order of admission.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub fn open_tasks(&self) -> Result<Vec<StoredRecord>, JournalError> {
        let db = self.reader.lock();
        let mut query = db.prepare(
            "SELECT r.seq, r.id, r.tenant, r.kind, r.at_ms, r.data FROM open o JOIN record r ON r.seq = o.seq ORDER BY o.seq",
        )?;
        let rows = query.query_map([], stored)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest admission of a task and its end, if it has one.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub fn task(
        &self,
        key: &Key,
    ) -> Result<Option<(StoredRecord, Option<StoredRecord>)>, JournalError> {
        let db = self.reader.lock();
        let newest = |kind: Kind, after: i64| -> rusqlite::Result<Option<StoredRecord>> {
            db.prepare_cached(
                "SELECT seq, id, tenant, kind, at_ms, data FROM record
                 WHERE id = ?1 AND tenant = ?2 AND kind = ?3 AND seq > ?4 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row(params![key.id.as_slice(), &*key.tenant, kind as u8, after], stored)
            .optional()
        };
        let Some(admitted) = newest(Kind::Admitted, 0)? else {
            return Ok(None);
        };
        let ended = newest(Kind::Ended, admitted.seq)?;
        Ok(Some((admitted, ended)))
    }

    /// Writes what is left and ends the thread. Further appends are lost.
    pub fn close(&self) {
        self.send(Op::Close);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredRecord> {
    let id: Vec<u8> = row.get(1)?;
    let tenant: String = row.get(2)?;
    Ok(StoredRecord {
        seq: row.get(0)?,
        record: Record {
            key: Key {
                tenant: tenant.into(),
                id: id.try_into().unwrap_or_default(),
            },
            kind: Kind::from_sql(row.get(3)?),
            at_ms: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
            data: row.get(5)?,
        },
    })
}

#[cfg(test)]
mod tests;
