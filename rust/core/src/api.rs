//! The words in which the world talks to the scheduler: inputs in, actions out.
//!
//! Everything here is plain data. Time, ids and order come in from outside; the scheduler never reads a
//! clock, never draws a random number and never performs an effect. The same inputs give the same actions.

/// Microseconds since the Unix epoch, read by the caller from one clock that never runs backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The later moment `ms` milliseconds from here; saturates instead of wrapping.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Milliseconds from `earlier` to here, rounded up; 0 when `earlier` is later.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0).div_ceil(1000)
    }
}

/// Number of a task in this daemon's life. The caller hands them out in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskNo(pub u64);
/// Number of a pool, given by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolNo(pub u32);
/// Number of a replica, given by the caller; never used again for another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaNo(pub u32);
/// Number of a replica set (one identity, determinism.md); two sets are never mixed for one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetNo(pub u32);
/// Index of a priority class in [`Config::classes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassNo(pub u8);
/// Number of a tenant: the flow key of fairness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantNo(pub u32);
/// A session id (UUID bits), scoped to its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub TenantNo, pub u128);
/// 1 for the first attempt of a task, then counting up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNo(pub u32);

/// What happens when the queue of a class is full (ORCH-3005).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullPolicy {
    /// Refuse the new task, unless its tenant has less than its share of the places: then the newest queued
    /// task of the tenant with the most gives way.
    Reject,
    /// End the oldest queued task of the tenant with the most, take the new one.
    DropLru,
    /// End the newest queued task of a lower class of the same pool, of the tenant with the most there; with
    /// none, as `Reject`.
    ShedLowPriority,
}

/// One priority class. Classes are listed from the highest to the lowest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// Share of the slots under contention, relative to the other classes' weights; at least 1.
    pub weight: u32,
    /// Most tasks that may wait per pool.
    pub capacity: usize,
    pub full_policy: FullPolicy,
    /// A task of this class that has waited so long goes before every other class.
    pub max_wait_ms: Option<u64>,
}

/// What a token costs in the account of its tenant (fairness inside a class).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPrices {
    pub input: u32,
    pub output: u32,
}

impl Default for TokenPrices {
    /// A token that is decoded costs two that are read.
    fn default() -> Self {
        Self {
            input: 1,
            output: 2,
        }
    }
}

/// What holds for the whole scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    pub classes: Vec<ClassConfig>,
    /// Idle time after which a session is forgotten; at most 600,000 (ORCH-3021).
    pub session_ttl_ms: u64,
    /// Most tasks per session; at most 8 (ORCH-3021).
    pub session_max_turns: u32,
    /// Most attempts per task before `ReplicaExhausted`.
    pub max_attempts: u32,
    /// How long a slot may be reclaiming before its replica must be probed.
    pub reclaim_ms: u64,
    pub prices: TokenPrices,
}

/// Timeouts of one attempt, queue time excluded (ORCH-3016).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub first_token_ms: u64,
    pub idle_ms: u64,
    pub wall_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolState {
    /// Replicas are still being started: tasks are queued, and placed on those that are ready already.
    Starting,
    /// Tasks are queued and placed.
    Ready,
    /// What is queued and running is finished; new tasks get `PoolUnready`.
    Draining,
    /// No replica can be had: queued tasks end with `PoolUnavailable`, new tasks get `PoolUnready`.
    Failed,
}

#[derive(Clone, Debug)]
pub struct PoolSpec {
    pub pool: PoolNo,
    pub timeouts: Timeouts,
    pub state: PoolState,
}

#[derive(Clone, Debug)]
pub struct ReplicaSpec {
    pub replica: ReplicaNo,
    pub pool: PoolNo,
    pub set: SetNo,
    /// Tasks that may run at once; at least 1.
    pub slots: u32,
    /// The replica keeps the promise of determinism.md.
    pub reproducible: bool,
}

/// What the scheduler must know of a task. The body stays outside.
#[derive(Clone, Debug)]
pub struct TaskSpec {
    pub task: TaskNo,
    pub tenant: TenantNo,
    pub class: ClassNo,
    pub session: Option<SessionKey>,
    /// Pools that can serve the task, best first among equals; empty is `PoolUnavailable`.
    pub eligible: Vec<PoolNo>,
    /// Only reproducible replicas will do (an explicit or inherited `strict`).
    pub strict: bool,
    /// `strict` was asked for by the client: with no such replica the task is refused at once.
    pub strict_explicit: bool,
    pub tokens_in_estimate: u32,
    pub tokens_out_max: u32,
    pub tokens_out_expected: Option<u32>,
    pub deadline: Option<Time>,
    /// Another replica of the set may go on in mid-stream, because the output is reproducible: a timeout for
    /// the first token or between tokens is then the replica's fault and not the end of the task.
    pub resumable: bool,
    /// Accepted by an earlier life of this daemon: bounds and deadlines do not refuse it again.
    pub recovered: bool,
}

/// How an upstream exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The engine said that it was done.
    Finished { tokens_in: u32, tokens_out: u32 },
    /// The engine refused the request itself (4xx): the replica is healthy, the task is at fault.
    Refused,
    /// The engine is full (429, 503): back-pressure; the replica is healthy, the task goes elsewhere or waits.
    Busy { retry_after_ms: Option<u64> },
    /// Transport failure, 5xx, end of stream without the end marker. `resumable`: another replica may go on
    /// without the client noticing (nothing was sent yet, or the set is reproducible).
    Failed { resumable: bool },
    /// The connection was closed because an `Action::Stop` said so.
    Stopped,
}

#[derive(Clone, Debug)]
pub enum Input {
    PoolSet(PoolSpec),
    /// The pool is gone; its tasks end with `PoolUnavailable` unless another pool is eligible.
    PoolRemoved(PoolNo),
    /// Known, not ready yet.
    ReplicaAdded(ReplicaSpec),
    ReplicaReady(ReplicaNo),
    /// Not placed upon any more; what runs there goes on until its attempt ends.
    ReplicaUnready(ReplicaNo),
    /// Gone. The caller reports the end of its attempts by `AttemptEnded` as for any other failure.
    ReplicaRemoved(ReplicaNo),
    /// The first action that names this task is `Admitted` or `Rejected`.
    Submit(Box<TaskSpec>),
    /// Cancel wins over everything that has not ended: `Action::End(Canceled)` comes at once, the slot follows.
    Cancel(TaskNo),
    /// The upstream stream made progress: `at` is when, `tokens_out` the tokens so far in this attempt.
    /// Sent at the first token and as the answer to `Action::ReportProgress`; not for every token.
    Progress {
        task: TaskNo,
        attempt: AttemptNo,
        at: Time,
        tokens_out: u32,
    },
    /// `tokens_out` are those that the attempt brought, however it ended; they are charged.
    AttemptEnded {
        task: TaskNo,
        attempt: AttemptNo,
        end: AttemptEnd,
        tokens_out: u32,
    },
    /// The adapter's rule says that the engine is idle again after a stop.
    SlotIdle {
        replica: ReplicaNo,
        task: TaskNo,
    },
    /// The tenant's share of a class under contention, relative to the other tenants' weights; 1 for a tenant
    /// that is never set. It holds for tasks that are submitted from now on.
    TenantSet {
        tenant: TenantNo,
        weight: u32,
    },
    /// A session is ended by its owner.
    SessionClosed(SessionKey),
    /// Time has passed (see `Scheduler::next_wakeup`).
    Tick,
    /// From here on nothing is admitted any more.
    StopAdmitting,
}

/// Why a task was not admitted, or ended without an engine's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    QueueFull(FullPolicy),
    /// Gave way to another task: by drop-lru, by shed-low-priority, or because its tenant had more than its
    /// share of a full queue.
    Evicted(FullPolicy),
    /// The pool is draining or failed.
    PoolUnready,
    /// No eligible pool, or the pool went away.
    PoolUnavailable,
    /// No reproducible replica for an explicit `strict`.
    NoReproducibleReplica,
    DeadlineUnmet,
    SessionTurnsExhausted,
    ShuttingDown,
    DuplicateTask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutKind {
    FirstToken,
    Idle,
    Wall,
}

/// Why the scheduler ended a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The attempt finished; the caller has the result.
    Finished,
    Canceled,
    TimedOut(TimeoutKind),
    /// The engine refused the request.
    EngineRefused,
    /// The replica died under the task and it could not go on elsewhere.
    WorkerReset,
    /// Too many attempts.
    ReplicaExhausted,
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Canceled,
    TimedOut(TimeoutKind),
}

/// What the client is told at admission (ORCH-2001).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Tasks that are dispatched before this one if nothing else arrives; 0 = next.
    pub position: u32,
    /// Milliseconds until it starts; `None` while the pool has served nothing yet.
    pub start_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Admitted {
        task: TaskNo,
        pool: PoolNo,
        forecast: Forecast,
    },
    /// The task is unknown to the scheduler after this.
    Rejected {
        task: TaskNo,
        refusal: Refusal,
        retry_after_ms: Option<u64>,
        forecast: Forecast,
    },
    /// Open the upstream exchange.
    Start {
        task: TaskNo,
        attempt: AttemptNo,
        replica: ReplicaNo,
    },
    /// Close the upstream exchange; `AttemptEnded { end: Stopped }` must follow, then `SlotIdle`. The task has
    /// ended if `End` is the next action; else it waits for another replica.
    Stop {
        task: TaskNo,
        attempt: AttemptNo,
        replica: ReplicaNo,
        reason: StopReason,
    },
    /// Answer with `Input::Progress`.
    ReportProgress { task: TaskNo, attempt: AttemptNo },
    /// The task has ended, once. The caller writes the terminal event.
    End { task: TaskNo, reason: EndReason },
    /// The replica is suspect (failed attempt, or a slot that was not given back): find out. Until
    /// `ReplicaReady` comes it is not placed upon.
    Probe { replica: ReplicaNo },
}

/// Where a live task stands. A task that has ended is unknown to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Admitted; waits for a slot, for the first time or again after an attempt that was lost.
    Queued,
    /// An attempt is open and has not brought a token yet.
    Started,
    /// An attempt is open and has brought a token.
    Streaming,
}

/// What can be told about a live task at the last handled moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskView {
    pub state: TaskState,
    /// The pool that the task is bound to; it changes only when that pool drains, fails or goes away.
    pub pool: PoolNo,
    pub class: ClassNo,
    /// The current attempt, or the last one while the task waits again; 0 before the first.
    pub attempt: AttemptNo,
    /// Where the current attempt runs; `None` while the task is queued.
    pub replica: Option<ReplicaNo>,
    /// Position and start for a queued task; position 0 and start 0 for one that runs.
    pub forecast: Forecast,
}

/// What can be told about a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    pub pool: PoolNo,
    pub set: SetNo,
    pub slots: u32,
    /// Slots held by an open attempt.
    pub in_flight: u32,
    /// Slots whose attempt was stopped and whose engine is not known to be idle yet.
    pub reclaiming: u32,
    /// Healthy: placed upon unless it rests or is full.
    pub ready: bool,
    /// Said that it was busy; nothing is placed upon it for a while.
    pub resting: bool,
}

/// What can be told about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Milliseconds until it is forgotten if nothing else happens; the full time while one of its tasks lives.
    pub ttl_ms_remaining: u64,
    /// Tasks admitted in this session so far.
    pub turns: u32,
    /// The replica of its last attempt.
    pub last_replica: Option<ReplicaNo>,
}
