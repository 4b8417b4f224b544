//! One task, from its admission to the end of its memory: what was asked, what runs, what came out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use orchqueue_core::{AttemptNo, ClassNo, Forecast, TaskNo, TenantNo, Time};
use orchqueue_wire::reader::{EngineEnd, EngineFault};
use orchqueue_wire::request::{Level, TaskRequest};
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::journal::{Ack, Key};
use crate::registry::{Pool, Replica};
use crate::transcript::Transcript;

/// Through which door a task came, which decides what a lost client does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `202`: the client comes back for the stream.
    Queued,
    /// The answer is the stream, or the finished task (`wait`).
    OneTrip,
    /// The OpenAI view: the client can't come back.
    OpenAi,
}

/// One upstream exchange of the task.
#[derive(Clone)]
pub struct AttemptRecord {
    pub attempt: AttemptNo,
    pub replica: Arc<Replica>,
    pub started: Time,
    pub first_token: Option<Time>,
    pub ended: Option<Time>,
    /// `running`, then how it ended.
    pub outcome: &'static str,
    /// Tokens that it decoded only to repeat what an earlier attempt had sent.
    pub redecoded: u32,
    /// Tokens that it decoded in all, as far as its engine has told.
    pub tokens_out: u32,
}

/// What changes while the task runs.
#[derive(Default)]
pub struct Run {
    pub pool: Option<Arc<Pool>>,
    pub forecast: Forecast,
    pub attempts: Vec<AttemptRecord>,
    /// Closes the attempt that runs.
    pub stop: Option<CancellationToken>,
    pub result: Option<EngineEnd>,
    pub fault: Option<EngineFault>,
    pub ended: Option<Time>,
    /// The first output byte in which a repeated decode differed from what was sent.
    pub diverged: Option<u64>,
    /// Its admission could not be made durable: its client was told that it was not taken.
    pub unaccepted: bool,
    /// The record of a task that ended in an earlier life.
    pub stored: Option<serde_json::Value>,
    /// The journal record of the admission, until it is handed over.
    pub admission: Option<Admission>,
}

impl Run {
    /// Changes the record of one attempt.
    pub fn with_attempt(&mut self, no: AttemptNo, change: impl FnOnce(&mut AttemptRecord)) {
        if let Some(record) = self.attempts.iter_mut().find(|a| a.attempt == no) {
            change(record);
        }
    }
}

/// The admission record on its way to the journal.
pub struct Admission {
    pub data: String,
    pub ack: Option<Ack>,
}

pub struct Task {
    pub no: TaskNo,
    pub key: Key,
    pub tenant: TenantNo,
    pub request: TaskRequest,
    /// Exactly what the request digest covers; the adapter's template reads it too.
    pub effective: Map<String, Value>,
    pub seed: u32,
    pub class: ClassNo,
    pub class_name: Arc<str>,
    /// The level that was asked for or inherited; the receipt states what was kept.
    strict: AtomicBool,
    pub door: Door,
    pub correlation_id: Arc<str>,
    pub received: Time,
    pub transcript: Transcript,
    pub run: Mutex<Run>,
    /// Microseconds of the last progress of the running attempt; 0 before its first token.
    pub progress_us: AtomicU64,
    pub tokens_out: AtomicU32,
    readers: AtomicUsize,
    /// Readers that ever came: tells a timer whether somebody was there meanwhile.
    arrivals: AtomicU64,
    /// A client was told `202`: it comes back, whatever became of earlier readers.
    kept: AtomicBool,
}

/// What a task is made from.
pub struct NewTask {
    pub no: TaskNo,
    pub key: Key,
    pub tenant: TenantNo,
    pub request: TaskRequest,
    pub class: ClassNo,
    pub class_name: Arc<str>,
    pub level: Level,
    pub door: Door,
    pub correlation_id: Arc<str>,
    pub received: Time,
}

impl Task {
    #[must_use]
    pub fn new(new: NewTask) -> Self {
        let seed = new
            .request
            .seed
            .unwrap_or_else(|| orchqueue_wire::request::default_seed(&new.key.id));
        let effective = new.request.effective(seed);
        let digest = orchqueue_wire::digest::request_digest(&effective);
        Self {
            no: new.no,
            key: new.key,
            tenant: new.tenant,
            request: new.request,
            effective,
            seed,
            class: new.class,
            class_name: new.class_name,
            strict: AtomicBool::new(new.level == Level::Strict),
            door: new.door,
            correlation_id: new.correlation_id,
            received: new.received,
            transcript: Transcript::new(digest),
            run: Mutex::new(Run::default()),
            progress_us: AtomicU64::new(0),
            tokens_out: AtomicU32::new(0),
            readers: AtomicUsize::new(0),
            arrivals: AtomicU64::new(0),
            kept: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn id(&self) -> String {
        orchqueue_wire::request::format_uuid(&self.key.id)
    }

    /// The level that was asked for, or that the pool gives to a task that does not say.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.strict.load(Ordering::Relaxed) {
            Level::Strict
        } else {
            Level::BestEffort
        }
    }

    /// The pool is settled: a task that did not say takes its level.
    pub fn inherit(&self, level: Level) {
        if self.request.determinism.is_none() {
            self.strict.store(level == Level::Strict, Ordering::Relaxed);
        }
    }

    /// Counts a reader in.
    pub fn reader_came(&self) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        self.readers.fetch_add(1, Ordering::AcqRel);
    }

    /// Readers that ever came.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Acquire)
    }

    /// Somebody was promised that the task goes on without readers.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// Counts a reader out; true when nobody is left.
    pub fn reader_left(&self) -> bool {
        self.readers.fetch_sub(1, Ordering::AcqRel) == 1
    }

    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }

    /// The engine made progress: what the watchdogs and the metrics event read.
    pub fn progressed(&self, now: Time, tokens_out: u32) {
        self.progress_us.store(now.0, Ordering::Relaxed);
        self.tokens_out.store(tokens_out, Ordering::Relaxed);
    }
}

const SHARDS: usize = 32;

/// Every task in memory, by its id and by its number.
pub struct Tasks {
    by_key: Vec<RwLock<HashMap<Key, Arc<Task>>>>,
    by_no: Vec<RwLock<HashMap<TaskNo, Arc<Task>>>>,
    next: AtomicU64,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            by_key: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_no: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(1),
        }
    }
}

impl Tasks {
    /// Numbers in order of arrival.
    pub fn next_no(&self) -> TaskNo {
        TaskNo(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn key_shard(&self, key: &Key) -> &RwLock<HashMap<Key, Arc<Task>>> {
        // The last byte of a UUID is random in every version that clients make.
        &self.by_key[usize::from(key.id[15]) % SHARDS]
    }

    fn no_shard(&self, no: TaskNo) -> &RwLock<HashMap<TaskNo, Arc<Task>>> {
        &self.by_no[(no.0 % SHARDS as u64) as usize]
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Task>> {
        self.key_shard(key).read().get(key).cloned()
    }

    #[must_use]
    pub fn by_no(&self, no: TaskNo) -> Option<Arc<Task>> {
        self.no_shard(no).read().get(&no).cloned()
    }

    /// Takes the task in unless its id is taken; then the task that has it comes back.
    pub fn insert(&self, task: &Arc<Task>) -> Result<(), Arc<Task>> {
        let mut shard = self.key_shard(&task.key).write();
        if let Some(other) = shard.get(&task.key) {
            return Err(Arc::clone(other));
        }
        shard.insert(task.key.clone(), Arc::clone(task));
        self.no_shard(task.no)
            .write()
            .insert(task.no, Arc::clone(task));
        Ok(())
    }

    pub fn remove(&self, task: &Task) {
        let mut shard = self.key_shard(&task.key).write();
        if shard.get(&task.key).is_some_and(|t| t.no == task.no) {
            shard.remove(&task.key);
        }
        drop(shard);
        self.no_shard(task.no).write().remove(&task.no);
    }

    /// Every task in memory, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Task>> {
        self.by_no
            .iter()
            .flat_map(|s| s.read().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_no.iter().map(|s| s.read().len()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
