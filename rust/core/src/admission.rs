//! Admission: whether a new task is taken, which pool it is bound to and what its client is told.

use crate::api::{Action, ClassNo, EndReason, Forecast, PoolNo, Refusal, TaskNo, TaskSpec, Time};
use crate::fairness::{Flow, Need};
use crate::fleet::Known;
use crate::pools::Pool;
use crate::queue::Room;
use crate::scheduler::Scheduler;
use crate::state::{Event, Unexpected};
use crate::tasks::{Claim, Task, expected_tokens};
use crate::timers::Timer;

/// What is done to take a task in.
struct Plan {
    pool: PoolNo,
    /// The task that gives way.
    evict: Option<TaskNo>,
}

/// Why it is not taken in.
struct Rejection {
    refusal: Refusal,
    retry_after_ms: Option<u64>,
    forecast: Forecast,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            retry_after_ms: None,
            forecast: Forecast::default(),
        }
    }
}

/// How soon a pool would start a task; smaller is sooner.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Prospect {
    Now,
    /// Microseconds, by a guess while the pool has served nothing.
    After(u64),
    /// No replica is ready: so many tasks wait for one.
    Unknown(usize),
    Full,
}

/// The service time that pools are compared by while nothing is known of one.
const GUESS_US: u64 = 1_000_000;

impl Scheduler {
    pub(crate) fn submit(
        &mut self,
        mut spec: TaskSpec,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        // A class that does not exist is served as the lowest one.
        let lowest = self.config.classes.len().saturating_sub(1);
        spec.class = spec
            .class
            .min(ClassNo(u8::try_from(lowest).unwrap_or(u8::MAX)));
        match self.admit(&spec) {
            Ok(plan) => self.enter(&spec, &plan, out),
            Err(rejection) => {
                out.push(Action::Rejected {
                    task: spec.task,
                    refusal: rejection.refusal,
                    retry_after_ms: rejection.retry_after_ms,
                    forecast: rejection.forecast,
                });
                Ok(())
            }
        }
    }

    fn admit(&self, spec: &TaskSpec) -> Result<Plan, Rejection> {
        if self.tasks.get(spec.task).is_some() {
            return Err(Refusal::DuplicateTask.into());
        }
        if !self.admitting {
            return Err(Refusal::ShuttingDown.into());
        }
        let claim = self.claim(spec);
        let pool = self.bind(spec, claim)?;
        if let Some(key) = spec.session
            && !spec.recovered
            && !self.sessions.has_turn(self.now, key)
        {
            return Err(Refusal::SessionTurnsExhausted.into());
        }
        self.check_deadline(spec, pool, claim)?;
        if spec.recovered || self.fleet.can_place(pool, claim.need) {
            return Ok(Plan { pool, evict: None });
        }
        self.find_room(pool, claim)
    }

    fn claim(&self, spec: &TaskSpec) -> Claim {
        let tenant = spec.tenant;
        let weight = self.weights.get(&tenant).copied().unwrap_or(1);
        Claim {
            class: spec.class,
            flow: Flow { tenant, weight },
            need: Need {
                strict: spec.strict || spec.strict_explicit,
                set: None,
            },
        }
    }

    /// The pool that the task is bound to: the one among its pools that would start it first.
    fn bind(&self, spec: &TaskSpec, claim: Claim) -> Result<PoolNo, Refusal> {
        let known = |no: &PoolNo| self.pools.get(no).filter(|pool| pool.exists());
        if !spec.eligible.iter().any(|no| known(no).is_some()) {
            return Err(Refusal::PoolUnavailable);
        }
        let open = || {
            let admits = |no: &PoolNo| known(no).is_some_and(Pool::admits);
            spec.eligible.iter().copied().filter(admits)
        };
        if open().next().is_none() {
            return Err(Refusal::PoolUnready);
        }
        if !spec.strict && !spec.strict_explicit {
            return self.earliest(open(), claim).ok_or(Refusal::PoolUnready);
        }
        // A pool without any replica is being started or repaired: what will come is not known yet.
        let could = |no: &PoolNo| self.fleet.knows(*no, claim.need) != Known::Others;
        let fitting = self.earliest(open().filter(could), claim);
        match fitting {
            Some(pool) => Ok(pool),
            None if spec.strict_explicit => Err(Refusal::NoReproducibleReplica),
            None => self.earliest(open(), claim).ok_or(Refusal::PoolUnready),
        }
    }

    /// The pool that would start the task first; the order given decides between equals.
    pub(crate) fn earliest(
        &self,
        pools: impl Iterator<Item = PoolNo>,
        claim: Claim,
    ) -> Option<PoolNo> {
        pools.min_by_key(|no| self.prospect(*no, claim))
    }

    fn prospect(&self, no: PoolNo, claim: Claim) -> Prospect {
        if self.fleet.can_place(no, claim.need) {
            return Prospect::Now;
        }
        let Some(pool) = self.pools.get(&no) else {
            return Prospect::Full;
        };
        if pool.queue.room(claim.class, claim.flow.tenant) == Room::Full {
            return Prospect::Full;
        }
        let ahead = pool.queue.next_position(claim.class, claim.flow);
        let slots = self.fleet.ready_slots(no);
        if slots == 0 {
            return Prospect::Unknown(ahead);
        }
        let guess = || (ahead as u64 + 1).saturating_mul(GUESS_US) / u64::from(slots);
        Prospect::After(pool.service.start_us(ahead, slots).unwrap_or_else(guess))
    }

    fn check_deadline(&self, spec: &TaskSpec, no: PoolNo, claim: Claim) -> Result<(), Rejection> {
        let (Some(deadline), Some(pool), false) =
            (spec.deadline, self.pools.get(&no), spec.recovered)
        else {
            return Ok(());
        };
        let ahead = pool.queue.next_position(claim.class, claim.flow);
        let start_us = self.start_us(no, ahead, claim.need);
        let busy_us = pool.service.busy_us(expected_tokens(spec));
        let needed_us = start_us.unwrap_or(0).saturating_add(busy_us.unwrap_or(0));
        if self.now < deadline && self.now.0.saturating_add(needed_us) <= deadline.0 {
            return Ok(());
        }
        Err(Rejection {
            forecast: self.forecast_new(no, claim),
            ..Refusal::DeadlineUnmet.into()
        })
    }

    fn find_room(&self, no: PoolNo, claim: Claim) -> Result<Plan, Rejection> {
        let Some(pool) = self.pools.get(&no) else {
            return Err(Refusal::PoolUnavailable.into());
        };
        match pool.queue.room(claim.class, claim.flow.tenant) {
            Room::Free => Ok(Plan {
                pool: no,
                evict: None,
            }),
            Room::Evict(task) => Ok(Plan {
                pool: no,
                evict: Some(task),
            }),
            Room::Full => Err(Rejection {
                refusal: Refusal::QueueFull(pool.queue.policy(claim.class)),
                retry_after_ms: pool
                    .service
                    .retry_after_ms(self.fleet.ready_slots(no), pool.queue.share(claim.class)),
                forecast: self.forecast_new(no, claim),
            }),
        }
    }

    fn enter(
        &mut self,
        spec: &TaskSpec,
        plan: &Plan,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        let (no, pool) = (spec.task, plan.pool);
        if let Some(evicted) = plan.evict {
            let policy = self
                .pools
                .get(&pool)
                .map_or(crate::api::FullPolicy::Reject, |p| {
                    p.queue.policy(spec.class)
                });
            let reason = EndReason::Refused(Refusal::Evicted(policy));
            self.conclude(evicted, Event::Dropped, reason, out)?;
        }
        let claim = self.claim(spec);
        let forecast = self.forecast_new(pool, claim);
        let mut task = Task::new(spec, claim.flow.weight, pool, self.now);
        if let Some(key) = spec.session {
            task.session = Some(self.sessions.admit(self.now, key));
        }
        if let Some(entered) = self.pools.get_mut(&pool) {
            entered.queue.push(spec.class, &task.entry(no));
            if let Some(deadline) = task.deadline {
                let latest = entered.service.latest_start(deadline, task.tokens_expected);
                task.watch = after(latest.max(self.now));
                self.timers.set(task.watch, Timer::Task(no));
            }
        }
        self.tasks.insert(no, task);
        self.dirty.insert(pool);
        out.push(Action::Admitted {
            task: no,
            pool,
            forecast,
        });
        Ok(())
    }

    /// What a task that arrives now would be told.
    fn forecast_new(&self, no: PoolNo, claim: Claim) -> Forecast {
        if self.fleet.can_place(no, claim.need) {
            return Forecast {
                position: 0,
                start_ms: Some(0),
            };
        }
        let ahead = self
            .pools
            .get(&no)
            .map_or(0, |pool| pool.queue.next_position(claim.class, claim.flow));
        self.forecast(no, ahead, claim.need)
    }

    pub(crate) fn forecast(&self, no: PoolNo, ahead: usize, need: Need) -> Forecast {
        Forecast {
            position: u32::try_from(ahead).unwrap_or(u32::MAX),
            start_ms: self
                .start_us(no, ahead, need)
                .map(|start_us| start_us.div_ceil(1000)),
        }
    }

    fn start_us(&self, no: PoolNo, ahead: usize, need: Need) -> Option<u64> {
        if self.fleet.can_place(no, need) {
            return Some(0);
        }
        let pool = self.pools.get(&no)?;
        pool.service.start_us(ahead, self.fleet.ready_slots(no))
    }

    /// A queued task that was never started and cannot meet its deadline any more.
    pub(crate) fn is_too_late(&self, task: &Task) -> bool {
        let (Some(deadline), true) = (task.deadline, task.is_fresh()) else {
            return false;
        };
        let latest = self.pools.get(&task.pool).map_or(deadline, |pool| {
            pool.service.latest_start(deadline, task.tokens_expected)
        });
        self.now >= deadline || self.now > latest
    }

    /// The timer of a queued task that was never started: it ends, or is looked at again once its latest
    /// start, as it is reckoned now, has passed.
    pub(crate) fn deadline_due(
        &mut self,
        no: TaskNo,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        let Some(task) = self.tasks.get(no) else {
            return Ok(());
        };
        if self.is_too_late(task) {
            let reason = EndReason::Refused(Refusal::DeadlineUnmet);
            self.conclude(no, Event::Dropped, reason, out)?;
            return Ok(());
        }
        if let (Some(deadline), Some(pool)) = (task.deadline, self.pools.get(&task.pool)) {
            let latest = pool.service.latest_start(deadline, task.tokens_expected);
            self.watch_task(no, after(latest));
        }
        Ok(())
    }
}

/// The first moment later than `time`.
fn after(time: Time) -> Time {
    Time(time.0.saturating_add(1))
}
