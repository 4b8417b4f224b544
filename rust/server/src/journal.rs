//! The task journal: one thread, one SQLite file, group commit (architecture, decision 4).
//!
//! Records are appended (`admitted`, `started`, `ended`) and never changed. `open` holds the sequence numbers
//! of admitted tasks that have not ended, so that recovery costs what is open and not what was ever done.
//! A task that is admitted and ended within one commit never touches `open`. The journal keeps records for
//! the retention window, so a restart answers for ended tasks without any help; Python folds it into the
//! store and asks for what is past the window to be dropped.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use crate::config::Retention;

/// Records per commit at most: bounds the latency of a commit under load.
const BATCH: usize = 1024;
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
    thread: Mutex<Option<JoinHandle<()>>>,
}

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
        let (tx, rx) = channel();
        let settled = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&settled);
        let thread = std::thread::Builder::new()
            .name("orchqueue-journal".into())
            .spawn(move || {
                Writer {
                    db: writer,
                    retention,
                    settled: counter,
                    unsaved: Vec::new(),
                }
                .run(&rx)
            })
            .map_err(|e| JournalError::Write(e.to_string()))?;
        Ok(Self {
            tx,
            sent: AtomicU64::new(0),
            settled,
            reader: Mutex::new(reader),
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

    /// Appends and returns when the record is durable.
    ///
    /// # Errors
    /// [`JournalError::Write`] when the disk refuses, [`JournalError::Closed`] after `close`.
    pub async fn append_durably(&self, record: Record) -> Result<(), JournalError> {
        let (ack, done) = oneshot::channel();
        self.send(Op::Append {
            record,
            ack: Some(ack),
        });
        done.await.map_err(|_| JournalError::Closed)?
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
    /// As [`Journal::append_durably`].
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
        let db = self.reader.lock();
        let mut query = db.prepare_cached(
            "SELECT seq, id, tenant, kind, at_ms, data FROM record WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let rows = query.query_map(
            params![after_seq, i64::try_from(limit).unwrap_or(i64::MAX)],
            stored,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The `admitted` records of tasks that have not ended, in order of admission, with whether they started.
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

struct Writer {
    db: Connection,
    retention: Retention,
    settled: Arc<AtomicU64>,
    /// Ends that the disk refused; written again with the next commit. Bounded by `BACKLOG_LIMIT`.
    unsaved: Vec<Record>,
}

impl Writer {
    fn run(mut self, rx: &Receiver<Op>) {
        loop {
            let Ok(first) = rx.recv() else { break };
            let mut batch = vec![first];
            while batch.len() < BATCH {
                match rx.try_recv() {
                    Ok(op) => batch.push(op),
                    Err(_) => break,
                }
            }
            if self.commit(batch) {
                break;
            }
        }
    }

    /// Writes one batch; true when the journal is to close.
    fn commit(&mut self, batch: Vec<Op>) -> bool {
        let mut records = std::mem::take(&mut self.unsaved);
        let mut acks = Vec::new();
        let mut trims = Vec::new();
        let mut close = false;
        let mut taken = 0;
        for op in batch {
            match op {
                Op::Append { record, ack } => {
                    taken += 1;
                    records.push(record);
                    acks.extend(ack);
                }
                Op::Barrier(ack) => acks.push(ack),
                Op::Trim {
                    folded_seq,
                    now_ms,
                    done,
                } => trims.push((folded_seq, now_ms, done)),
                Op::Close => close = true,
            }
        }
        let result = if records.is_empty() {
            Ok(())
        } else {
            self.write(&records)
        };
        self.settled.fetch_add(taken, Ordering::Relaxed);
        let failure = result.err().map(|e| e.to_string());
        if failure.is_some() {
            self.unsaved = records
                .into_iter()
                .filter(|r| r.kind == Kind::Ended)
                .take(BACKLOG_LIMIT as usize)
                .collect();
        }
        for ack in acks {
            let _ = ack.send(
                failure
                    .clone()
                    .map_or(Ok(()), |m| Err(JournalError::Write(m))),
            );
        }
        for (folded_seq, now_ms, done) in trims {
            let _ = done.send(self.trim(folded_seq, now_ms).unwrap_or(0));
        }
        close
    }

    fn write(&mut self, records: &[Record]) -> rusqlite::Result<()> {
        // The last end of each task in this batch: what is admitted before it never opens.
        let ended: HashMap<&Key, usize> = records
            .iter()
            .enumerate()
            .filter(|(_, r)| r.kind == Kind::Ended)
            .map(|(i, r)| (&r.key, i))
            .collect();
        let tx = self.db.transaction()?;
        {
            let mut insert = tx.prepare_cached(
                "INSERT INTO record (id, tenant, kind, at_ms, data) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            let mut open = tx.prepare_cached("INSERT INTO open (seq) VALUES (?1)")?;
            let mut close = tx.prepare_cached(
                "DELETE FROM open WHERE seq IN (SELECT seq FROM record WHERE id = ?1 AND tenant = ?2 AND kind = 0)",
            )?;
            let mut opened_here = HashSet::new();
            for (index, record) in records.iter().enumerate() {
                let Record {
                    key,
                    kind,
                    at_ms,
                    data,
                } = record;
                let ends_here = ended.get(key).is_some_and(|&last| last > index);
                if *kind == Kind::Started && ends_here {
                    continue;
                }
                let at_ms = i64::try_from(*at_ms).unwrap_or(i64::MAX);
                insert.execute(params![
                    key.id.as_slice(),
                    &*key.tenant,
                    *kind as u8,
                    at_ms,
                    data
                ])?;
                match kind {
                    Kind::Admitted if ends_here => {
                        opened_here.insert(key);
                    }
                    Kind::Admitted => {
                        open.execute([tx.last_insert_rowid()])?;
                    }
                    Kind::Ended if !opened_here.contains(key) => {
                        close.execute(params![key.id.as_slice(), &*key.tenant])?;
                    }
                    Kind::Started | Kind::Ended => {}
                }
            }
        }
        tx.commit()
    }

    fn trim(&mut self, folded_seq: i64, now_ms: u64) -> rusqlite::Result<usize> {
        let window_ms = (self.retention.hours * 3_600_000.0) as u64;
        let before = i64::try_from(now_ms.saturating_sub(window_ms)).unwrap_or(i64::MAX);
        let mut dropped = self.db.execute(
            "DELETE FROM record WHERE seq <= ?1 AND at_ms < ?2 AND seq NOT IN (SELECT seq FROM open)
             AND seq <= (SELECT MIN(seq) + 20000 FROM record)",
            params![folded_seq, before],
        )?;
        let used: i64 = self.db.query_row(
            "SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())
                  - (SELECT freelist_count FROM pragma_freelist_count()) * (SELECT page_size FROM pragma_page_size())",
            [],
            |row| row.get(0),
        )?;
        if u64::try_from(used).unwrap_or(0) > self.retention.max_mb << 20 {
            dropped += self.db.execute(
                "DELETE FROM record WHERE seq <= ?1 AND seq NOT IN (SELECT seq FROM open)
                 AND seq <= (SELECT MIN(seq) + 5000 FROM record)",
                params![folded_seq],
            )?;
        }
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (Journal, std::path::PathBuf) {
        let mut name = [0u8; 8];
        getrandom::fill(&mut name).unwrap();
        let path = std::env::temp_dir().join(format!("orchqueue-journal-{}.db", hex::encode(name)));
        (
            Journal::open(
                &path,
                Retention {
                    hours: 24.0,
                    max_mb: 1024,
                },
            )
            .unwrap(),
            path,
        )
    }

    fn record(id: u8, kind: Kind, at_ms: u64) -> Record {
        Record {
            key: Key {
                tenant: "default".into(),
                id: [id; 16],
            },
            kind,
            at_ms,
            data: format!("{{\"n\":{id}}}"),
        }
    }

    #[tokio::test]
    async fn an_admitted_task_is_open_until_it_ends_and_survives_reopening() {
        let (journal, path) = journal();
        journal
            .append_durably(record(1, Kind::Admitted, 5))
            .await
            .unwrap();
        journal
            .append_durably(record(2, Kind::Admitted, 6))
            .await
            .unwrap();
        journal
            .append_durably(record(2, Kind::Ended, 7))
            .await
            .unwrap();
        journal.close();
        let again = Journal::open(
            &path,
            Retention {
                hours: 24.0,
                max_mb: 1024,
            },
        )
        .unwrap();
        let open = again.open_tasks().unwrap();
        assert_eq!(
            open.iter().map(|r| r.record.key.id[0]).collect::<Vec<_>>(),
            [1]
        );
        let (_, ended) = again.task(&record(2, Kind::Ended, 0).key).unwrap().unwrap();
        assert_eq!(ended.unwrap().record.at_ms, 7);
        again.close();
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_task_within_one_commit_never_opens() {
        let (journal, path) = journal();
        journal.append(record(3, Kind::Admitted, 1));
        journal.append(record(3, Kind::Started, 1));
        journal.append(record(3, Kind::Ended, 2));
        journal.barrier().await.unwrap();
        assert!(journal.open_tasks().unwrap().is_empty());
        assert!(
            journal
                .task(&record(3, Kind::Ended, 0).key)
                .unwrap()
                .unwrap()
                .1
                .is_some()
        );
        journal.close();
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_readmitted_task_is_open_again() {
        let (journal, path) = journal();
        for kind in [Kind::Admitted, Kind::Ended, Kind::Admitted] {
            journal.append_durably(record(4, kind, 1)).await.unwrap();
        }
        assert_eq!(journal.open_tasks().unwrap().len(), 1);
        let (_, ended) = journal
            .task(&record(4, Kind::Ended, 0).key)
            .unwrap()
            .unwrap();
        assert!(ended.is_none());
        journal.close();
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn trimming_spares_what_is_open_or_not_folded() {
        let (journal, path) = journal();
        for (id, kind) in [
            (1, Kind::Admitted),
            (2, Kind::Admitted),
            (2, Kind::Ended),
            (3, Kind::Admitted),
        ] {
            journal.append_durably(record(id, kind, 1)).await.unwrap();
        }
        let day = 25 * 3_600_000;
        let third = journal.read(0, 10).unwrap()[2].seq;
        let journal = std::sync::Arc::new(journal);
        let trimmer = std::sync::Arc::clone(&journal);
        let dropped = tokio::task::spawn_blocking(move || trimmer.trim(third, day))
            .await
            .unwrap();
        assert_eq!(dropped, 2);
        assert_eq!(journal.open_tasks().unwrap().len(), 2);
        journal.close();
        std::fs::remove_file(path).unwrap();
    }
}
