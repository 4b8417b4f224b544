//! The journal's thread: batches, commits, keeps what the disk refused, drops what is past retention.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::{Ack, JournalError, Key, Kind, Op, Record};
use crate::config::Retention;

/// Records per commit at most: bounds the latency of a commit under load.
const BATCH: usize = 1024;
/// How soon a commit that the disk refused is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Ended tasks that one trim drops at most: it must not hold up a commit for long.
const TRIM_MOST: i64 = 2_000;
/// How often a trim is worth its reads.
const TRIM_EVERY_MS: u64 = 60_000;

/// A record and who waits for its commit.
type Entry = (Record, Option<Ack>);

pub(super) struct Writer {
    db: Connection,
    retention: Retention,
    settled: Arc<AtomicU64>,
    /// What the disk refused and nobody waits for: written first with the next commit, in its old order. Bounded,
    /// because nothing is admitted any more above `BACKLOG_LIMIT`.
    unsaved: Vec<Record>,
    trimmed_ms: u64,
}

impl Writer {
    pub(super) fn new(db: Connection, retention: Retention, settled: Arc<AtomicU64>) -> Self {
        Self {
            db,
            retention,
            settled,
            unsaved: Vec::new(),
            trimmed_ms: 0,
        }
    }

    pub(super) fn run(mut self, rx: &Receiver<Op>) {
        loop {
            let mut batch = Vec::new();
            if self.unsaved.is_empty() {
                match rx.recv() {
                    Ok(op) => batch.push(op),
                    Err(_) => return,
                }
            } else {
                match rx.recv_timeout(RETRY) {
                    Ok(op) => batch.push(op),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            while batch.len() < BATCH {
                match rx.try_recv() {
                    Ok(op) => batch.push(op),
                    Err(_) => break,
                }
            }
            if self.commit(batch) {
                return;
            }
        }
    }

    /// Writes one batch; true when the journal is to close.
    fn commit(&mut self, batch: Vec<Op>) -> bool {
        let mut entries: Vec<Entry> = self
            .unsaved
            .drain(..)
            .map(|record| (record, None))
            .collect();
        let mut barriers = Vec::new();
        let mut trims = Vec::new();
        let mut close = false;
        for op in batch {
            match op {
                Op::Append { record, ack } => entries.push((record, ack)),
                Op::Barrier(ack) => barriers.push(ack),
                Op::Trim {
                    folded_seq,
                    now_ms,
                    done,
                } => trims.push((folded_seq, now_ms, done)),
                Op::Close => close = true,
            }
        }
        let failure = self.write(&entries).err().map(|e| e.to_string());
        self.settle(entries, failure.as_deref());
        for barrier in barriers {
            // Whoever waited may have gone.
            let _ = barrier.send(outcome(failure.as_deref()));
        }
        for (folded_seq, now_ms, done) in trims {
            let _ = done.send(self.trim(folded_seq, now_ms).unwrap_or(0));
        }
        close
    }

    /// Tells every waiter; what was refused and nobody waits for is kept for the next commit.
    fn settle(&mut self, entries: Vec<Entry>, failure: Option<&str>) {
        let mut settled = 0;
        for (record, ack) in entries {
            match (ack, failure) {
                (None, Some(_)) => self.unsaved.push(record),
                (None, None) => settled += 1,
                (Some(ack), failure) => {
                    settled += 1;
                    let _ = ack.send(outcome(failure));
                }
            }
        }
        self.settled.fetch_add(settled, Ordering::Relaxed);
    }

    fn write(&mut self, entries: &[Entry]) -> rusqlite::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let tx = self.db.transaction()?;
        append(&tx, entries)?;
        tx.commit()
    }

    /// Drops whole tasks whose end is folded and past retention, oldest first; an open task is never touched.
    fn trim(&mut self, folded_seq: i64, now_ms: u64) -> rusqlite::Result<usize> {
        let window_ms = (self.retention.hours * 3_600_000.0) as u64;
        let due = self.trimmed_ms + TRIM_EVERY_MS.min(window_ms / 4);
        if now_ms < due {
            return Ok(0);
        }
        let before = i64::try_from(now_ms.saturating_sub(window_ms)).unwrap_or(i64::MAX);
        let mut dropped = self.drop_ended(folded_seq, before)?;
        if self.used_bytes()? > self.retention.max_mb << 20 {
            dropped += self.drop_ended(folded_seq, i64::MAX)?;
        }
        if dropped == 0 {
            // Nothing more to do for a while; else the next call goes on.
            self.trimmed_ms = now_ms;
        }
        Ok(dropped)
    }

    fn drop_ended(&self, folded_seq: i64, before: i64) -> rusqlite::Result<usize> {
        self.db.execute(
            "DELETE FROM record WHERE seq IN (
                 SELECT r.seq FROM (
                     SELECT id, tenant, seq FROM record
                     WHERE kind = 2 AND seq <= ?1 AND at_ms < ?2 ORDER BY seq LIMIT ?3
                 ) e JOIN record r ON r.id = e.id AND r.tenant = e.tenant AND r.seq <= e.seq
             )",
            params![folded_seq, before, TRIM_MOST],
        )
    }

    fn used_bytes(&self) -> rusqlite::Result<u64> {
        let pragma = |name: &str| {
            self.db
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
        };
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or(0))
    }
}

fn outcome(failure: Option<&str>) -> Result<(), JournalError> {
    failure.map_or(Ok(()), |m| Err(JournalError::Write(m.to_owned())))
}

fn append(tx: &Transaction<'_>, entries: &[Entry]) -> rusqlite::Result<()> {
    // The last end of each task in this batch: what is admitted before it never opens.
    let ended: HashMap<&Key, usize> = entries
        .iter()
        .enumerate()
        .filter(|(_, (record, _))| record.kind == Kind::Ended)
        .map(|(index, (record, _))| (&record.key, index))
        .collect();
    let mut insert = tx.prepare_cached(
        "INSERT INTO record (id, tenant, kind, at_ms, data) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut open = tx.prepare_cached("INSERT INTO open (seq) VALUES (?1)")?;
    let mut close = tx.prepare_cached(
        "DELETE FROM open WHERE seq IN (SELECT seq FROM record WHERE id = ?1 AND tenant = ?2 AND kind = 0)",
    )?;
    let mut never_opened = HashSet::new();
    for (index, (record, _)) in entries.iter().enumerate() {
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
                never_opened.insert(key);
            }
            Kind::Admitted => {
                open.execute([tx.last_insert_rowid()])?;
            }
            Kind::Ended if !never_opened.contains(key) => {
                close.execute(params![key.id.as_slice(), &*key.tenant])?;
            }
            Kind::Started | Kind::Ended => {}
        }
    }
    Ok(())
}
