//! The scheduler itself: one owner of all state, one entry for all inputs.
//!
//! An input is applied, timers that are due are fired, then every pool in which something changed places what
//! can be placed. A new task comes after the timers, so that it meets slots and queues as they are now; every
//! other input goes before them, so that news beat a timeout of the same moment.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{
    Action, ClassConfig, ClassNo, Config, EndReason, Forecast, FullPolicy, Input, PoolNo,
    ReplicaNo, ReplicaView, SessionKey, SessionView, TaskNo, TaskView, TenantNo, Time,
};
use crate::fleet::Fleet;
use crate::pools::Pool;
use crate::session::Sessions;
use crate::state::{Attempt, Event, Phase, State, Unexpected};
use crate::tasks::TaskTable;
use crate::timers::{Timer, Timers};

/// Bounds of ORCH-3021.
const MOST_SESSION_TTL_MS: u64 = 600_000;
const MOST_SESSION_TURNS: u32 = 8;
/// A tenant's weight that the accounts can still tell from others.
const MOST_WEIGHT: u32 = 1_000_000;

/// The scheduler of one daemon. It is told the time and everything that happens, and says what to do.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    /// The latest moment handled; a clock that goes back does not take it along.
    pub(crate) now: Time,
    pub(crate) admitting: bool,
    /// The weights of the tenants that have another than 1.
    pub(crate) weights: BTreeMap<TenantNo, u32>,
    pub(crate) tasks: TaskTable,
    pub(crate) pools: BTreeMap<PoolNo, Pool>,
    pub(crate) fleet: Fleet,
    pub(crate) sessions: Sessions,
    pub(crate) timers: Timers,
    /// Pools in which a task or a slot may have become available.
    pub(crate) dirty: BTreeSet<PoolNo>,
}

impl Scheduler {
    /// A scheduler without pools. Values out of range are brought into it: at least one class and one attempt,
    /// weights of at least 1, sessions within their limits.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        if config.classes.is_empty() {
            config.classes.push(ClassConfig {
                weight: 1,
                capacity: 256,
                full_policy: FullPolicy::Reject,
                max_wait_ms: None,
            });
        }
        config.classes.truncate(usize::from(u8::MAX) + 1);
        for class in &mut config.classes {
            class.weight = class.weight.max(1);
        }
        config.session_ttl_ms = config.session_ttl_ms.min(MOST_SESSION_TTL_MS);
        config.session_max_turns = config.session_max_turns.min(MOST_SESSION_TURNS);
        config.max_attempts = config.max_attempts.max(1);
        Self {
            now: Time(0),
            admitting: true,
            weights: BTreeMap::new(),
            tasks: TaskTable::default(),
            pools: BTreeMap::new(),
            fleet: Fleet::default(),
            sessions: Sessions::new(config.session_ttl_ms, config.session_max_turns),
            timers: Timers::default(),
            dirty: BTreeSet::new(),
            config,
        }
    }

    /// What is to be done, in this order, because `input` came at `now`. An input that does not fit (an unknown
    /// number, an attempt that is over) changes nothing.
    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        self.now = self.now.max(now);
        let new_task = matches!(input, Input::Submit(_));
        if new_task {
            self.settle(&mut out);
        }
        // What the table of states does not know has changed nothing: there is nothing to undo or to tell.
        let _unexpected = self.apply(input, &mut out);
        self.settle(&mut out);
        self.sweep();
        out
    }

    /// When [`Input::Tick`] is wanted. It may turn out that there was nothing to do then.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Time> {
        self.timers.next()
    }

    /// `None` for a task that is unknown or has ended. The cost grows with the logarithm of the queue.
    #[must_use]
    pub fn task(&self, no: TaskNo) -> Option<TaskView> {
        let task = self.tasks.get(no)?;
        let forecast = match (task.state.attempt(), self.pools.get(&task.pool)) {
            (None, Some(pool)) => {
                let ahead = pool.queue.position(task.class, &task.entry(no));
                self.forecast(task.pool, ahead, task.need())
            }
            _ => Forecast {
                position: 0,
                start_ms: Some(0),
            },
        };
        Some(TaskView {
            state: task.state.shown()?,
            pool: task.pool,
            class: task.class,
            attempt: crate::api::AttemptNo(task.attempts),
            replica: task.state.attempt().map(|a| a.permit.replica()),
            forecast,
        })
    }

    /// Tasks of a class that wait in a pool.
    #[must_use]
    pub fn queue_depth(&self, pool: PoolNo, class: ClassNo) -> usize {
        self.pools
            .get(&pool)
            .map_or(0, |pool| pool.queue.len(class))
    }

    /// `None` for a replica that is unknown, or removed and free of attempts.
    #[must_use]
    pub fn replica(&self, replica: ReplicaNo) -> Option<ReplicaView> {
        self.fleet.view(replica)
    }

    /// `None` for a session that is unknown, closed or over at `now`.
    #[must_use]
    pub fn session(&self, now: Time, key: SessionKey) -> Option<SessionView> {
        self.sessions.view(now, key)
    }

    /// Nothing is queued, started or reclaiming.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tasks.len() == 0 && self.fleet.reclaiming() == 0
    }

    fn apply(&mut self, input: Input, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        match input {
            Input::PoolSet(spec) => self.set_pool(&spec, out)?,
            Input::PoolRemoved(pool) => self.remove_pool(pool, out)?,
            Input::ReplicaAdded(spec) => self.fleet.add(spec),
            Input::ReplicaReady(replica) => {
                self.fleet.ready(replica);
                self.dirty.extend(self.fleet.pool_of(replica));
            }
            Input::ReplicaUnready(replica) => self.fleet.unready(replica),
            Input::ReplicaRemoved(replica) => self.fleet.remove(replica),
            Input::Submit(spec) => self.submit(*spec, out)?,
            Input::Cancel(task) => self.cancel(task, out)?,
            Input::Progress {
                task,
                attempt,
                at,
                tokens_out,
            } => self.progress((task, attempt), at, tokens_out, out)?,
            Input::AttemptEnded {
                task,
                attempt,
                end,
                tokens_out,
            } => {
                self.charge_attempt((task, attempt), tokens_out);
                self.attempt_ended((task, attempt), &end, out)?;
            }
            Input::SlotIdle { replica, task } => self.slot_idle(replica, task),
            Input::TenantSet { tenant, weight } => {
                self.weights.insert(tenant, weight.clamp(1, MOST_WEIGHT));
            }
            Input::SessionClosed(key) => self.sessions.close(key),
            Input::Tick => {}
            Input::StopAdmitting => self.admitting = false,
        }
        Ok(())
    }

    /// Brings everything to the present: due timers first, then all that can be placed.
    fn settle(&mut self, out: &mut Vec<Action>) {
        while let Some((at, timer)) = self.timers.pop_due(self.now) {
            let _unexpected = self.fire(at, timer, out);
        }
        while let Some(pool) = self.dirty.pop_first() {
            while let Ok(Some(task)) = self.next_placeable(pool, out) {
                if self.start(task, out) != Ok(true) {
                    break;
                }
            }
        }
    }

    fn fire(&mut self, at: Time, timer: Timer, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        if !self.is_valid(at, timer) {
            return Ok(());
        }
        match timer {
            Timer::Task(no) => self.task_due(no, out)?,
            Timer::Reclaim(stopped) => self.reclaim_due(stopped, out),
            Timer::Rest(replica) => {
                self.fleet.wake(replica);
                self.dirty.extend(self.fleet.pool_of(replica));
            }
            Timer::Session(slot) => self.sessions.forget(slot),
        }
        Ok(())
    }

    fn task_due(&mut self, no: TaskNo, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        let Some(task) = self.tasks.get_mut(no) else {
            return Ok(());
        };
        task.watch = Time(u64::MAX);
        match task.state {
            State::Queued if task.is_fresh() => self.deadline_due(no, out),
            State::Queued => self.set_due(no, out),
            State::Started(_) | State::Streaming(_) | State::Ended => self.watchdog_due(no, out),
        }
    }

    /// Whether the subject of a timer waits for that moment.
    fn is_valid(&self, at: Time, timer: Timer) -> bool {
        match timer {
            Timer::Task(no) => self.tasks.get(no).is_some_and(|task| task.watch == at),
            Timer::Reclaim(stopped) => self
                .fleet
                .reclaim_of(stopped)
                .is_some_and(|(_, until)| until == at),
            Timer::Rest(replica) => self.fleet.rests_until(replica) == Some(at),
            Timer::Session(slot) => self.sessions.expires_at(slot, at),
        }
    }

    fn sweep(&mut self) {
        let subjects =
            self.tasks.len() + self.fleet.reclaiming() + self.fleet.len() + self.sessions.len();
        if self.timers.is_crowded(subjects) {
            let mut timers = std::mem::take(&mut self.timers);
            timers.retain(|at, timer| self.is_valid(at, timer));
            self.timers = timers;
        }
    }

    /// Sets the one valid timer of a task.
    pub(crate) fn watch_task(&mut self, no: TaskNo, at: Time) {
        if let Some(task) = self.tasks.get_mut(no) {
            task.watch = at;
            self.timers.set(at, Timer::Task(no));
        }
    }

    /// Ends a task: its record is dropped, its end is told. What its attempt held is given out.
    pub(crate) fn conclude(
        &mut self,
        no: TaskNo,
        event: Event,
        reason: EndReason,
        out: &mut Vec<Action>,
    ) -> Result<Option<Attempt>, Unexpected> {
        let Some(task) = self.tasks.get_mut(no) else {
            return Ok(None);
        };
        let queued = task.state.phase() == Phase::Queued;
        let attempt = task.state.leave(event)?;
        let Some(task) = self.tasks.remove(no) else {
            return Ok(attempt);
        };
        if queued && let Some(pool) = self.pools.get_mut(&task.pool) {
            pool.queue.remove(task.class, &task.entry(no));
        }
        if let Some(slot) = task.session
            && let Some(at) = self.sessions.task_ended(self.now, slot)
        {
            self.timers.set(at, Timer::Session(slot));
        }
        out.push(Action::End { task: no, reason });
        Ok(attempt)
    }
}
