//! The attempts: start, progress, watchdog, every way to end (a cancel: ORCH-3026), and the way back to the
//! queue.

use crate::accounts::Debt;
use crate::api::{
    Action, AttemptEnd, AttemptNo, EndReason, PoolNo, Refusal, ReplicaNo, StopReason, TaskNo, Time,
    TimeoutKind,
};
use crate::fairness::Cost;
use crate::fleet::{Known, Permit, Stopped};
use crate::pools::Pool;
use crate::scheduler::Scheduler;
use crate::state::{Attempt, Awaits, Event, Phase, Unexpected};
use crate::tasks::Task;
use crate::timers::{Timer, Verdict, watch, watch_report};

/// How long a busy replica rests when it does not say.
const REST_MS: u64 = 1000;

impl Scheduler {
    /// Places a queued task on the best replica. False if there is none.
    pub(crate) fn start(&mut self, no: TaskNo, out: &mut Vec<Action>) -> Result<bool, Unexpected> {
        let Some(task) = self.tasks.get_mut(no) else {
            return Ok(false);
        };
        let (pool, class, entry) = (task.pool, task.class, task.entry(no));
        let preferred = task
            .session
            .and_then(|slot| self.sessions.last_replica(slot));
        let Some(replica) = self.fleet.choose(pool, entry.need, preferred) else {
            return Ok(false);
        };
        let (now, attempt) = (self.now, AttemptNo(task.attempts + 1));
        let placed = task
            .state
            .place(|| Some(Attempt::new(attempt, self.fleet.take(replica)?, now)))?;
        if !placed {
            return Ok(false);
        }
        let input = Cost::new(self.config.prices, task.tokens_in, 0);
        task.attempts = attempt.0;
        task.set = task.set.or(self.fleet.set_of(replica));
        if let Some(slot) = task.session {
            self.sessions.placed(slot, replica);
        }
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.queue.serve(class, &entry, input);
            pool.running += 1;
            let first_ms = pool.timeouts.first_token_ms.min(pool.timeouts.wall_ms);
            self.watch_task(no, now.plus_ms(first_ms));
        }
        out.push(Action::Start {
            task: no,
            attempt,
            replica,
        });
        Ok(true)
    }

    pub(crate) fn progress(
        &mut self,
        (no, number): (TaskNo, AttemptNo),
        at: Time,
        tokens_out: u32,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        if !self.runs(no, number) || tokens_out == 0 {
            return Ok(());
        }
        self.charge_output(no, tokens_out);
        let now = self.now;
        let Some(task) = self.tasks.get_mut(no) else {
            return Ok(());
        };
        if task.state.phase() == Phase::Started {
            task.state.leave(Event::FirstToken)?;
        }
        let (Some(attempt), Some(pool)) = (task.state.attempt_mut(), self.pools.get(&task.pool))
        else {
            return Ok(());
        };
        attempt.last_progress = attempt.last_progress.max(at.min(now));
        let asked = matches!(attempt.awaits, Awaits::Report { .. });
        attempt.awaits = Awaits::Idle;
        let verdict = if asked {
            watch_report(attempt, pool.timeouts, now)
        } else {
            watch(attempt, pool.timeouts, now)
        };
        self.obey(no, verdict, out)
    }

    /// The timer of a running task.
    pub(crate) fn watchdog_due(
        &mut self,
        no: TaskNo,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        let Some(task) = self.tasks.get(no) else {
            return Ok(());
        };
        let (Some(attempt), Some(pool)) = (task.state.attempt(), self.pools.get(&task.pool)) else {
            return Ok(());
        };
        let verdict = watch(attempt, pool.timeouts, self.now);
        self.obey(no, verdict, out)
    }

    fn obey(
        &mut self,
        no: TaskNo,
        verdict: Verdict,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        match verdict {
            Verdict::TimedOut(kind) => self.stop(no, StopReason::TimedOut(kind), out),
            Verdict::Wait(due) => {
                // A timer that comes too early sets itself anew; only one that comes too late must be moved.
                if self.tasks.get(no).is_some_and(|task| due < task.watch) {
                    self.watch_task(no, due);
                }
                Ok(())
            }
            Verdict::Ask(by) => {
                let attempt = self
                    .tasks
                    .get_mut(no)
                    .and_then(|task| task.state.attempt_mut());
                if let Some(attempt) = attempt {
                    attempt.awaits = Awaits::Report { by };
                    out.push(Action::ReportProgress {
                        task: no,
                        attempt: attempt.number,
                    });
                }
                self.watch_task(no, by);
                Ok(())
            }
        }
    }

    pub(crate) fn cancel(&mut self, no: TaskNo, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        match self.tasks.get(no).map(|task| task.state.phase()) {
            Some(Phase::Queued) => {
                self.conclude(no, Event::Canceled, EndReason::Canceled, out)?;
                Ok(())
            }
            Some(_) => self.stop(no, StopReason::Canceled, out),
            None => Ok(()),
        }
    }

    /// Stops the attempt of a running task and ends the task, unless another replica may go on. The slot comes
    /// back when the engine is idle, not when the connection is closed.
    fn stop(
        &mut self,
        no: TaskNo,
        reason: StopReason,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        let Some(task) = self.tasks.get(no) else {
            return Ok(());
        };
        let pool = task.pool;
        let goes_on = self.outlives(task, reason);
        let debt = Some(Debt {
            pool,
            class: task.class,
            flow: task.flow,
            tokens_charged: task.tokens_charged,
        });
        if let Some(attempt) = task.state.attempt() {
            out.push(Action::Stop {
                task: no,
                attempt: attempt.number,
                replica: attempt.permit.replica(),
                reason,
            });
        }
        let attempt = match reason {
            StopReason::TimedOut(_) if goes_on => {
                // It did not answer in time: find out, before the next task is given to it.
                self.blame(self.runs_on(no), &AttemptEnd::Stopped, out);
                self.requeue(no, out)?
            }
            StopReason::TimedOut(kind) => {
                self.conclude(no, Event::TimedOut, EndReason::TimedOut(kind), out)?
            }
            StopReason::Canceled => self.conclude(no, Event::Canceled, EndReason::Canceled, out)?,
        };
        if let Some(attempt) = attempt {
            let until = self.now.plus_ms(self.config.reclaim_ms);
            let stopped = (no, attempt.number);
            let debt = debt.filter(|_| !goes_on);
            if self.fleet.reclaim(attempt.permit, stopped, (until, debt)) {
                self.timers.set(until, Timer::Reclaim(stopped));
            }
            self.attempt_closed(pool);
        }
        Ok(())
    }

    /// Whether the task goes on after its attempt is stopped for this reason: a replica of a reproducible set
    /// kept silent for too long, and there are attempts left. The wall time limits the task's own length.
    fn outlives(&self, task: &Task, reason: StopReason) -> bool {
        let silent = matches!(
            reason,
            StopReason::TimedOut(TimeoutKind::FirstToken | TimeoutKind::Idle)
        );
        let reproducible = task
            .state
            .attempt()
            .is_some_and(|attempt| self.fleet.is_reproducible(attempt.permit.replica()));
        silent && task.resumable && reproducible && task.attempts < self.config.max_attempts
    }

    pub(crate) fn attempt_ended(
        &mut self,
        (no, number): (TaskNo, AttemptNo),
        end: &AttemptEnd,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        if !self.runs(no, number) {
            self.stopped_attempt_ended((no, number), end, out);
            return Ok(());
        }
        let (event, reason) = match *end {
            AttemptEnd::Finished {
                tokens_in,
                tokens_out,
            } => {
                self.observe(no, tokens_out);
                self.charge_output(no, tokens_out);
                self.settle_account(no, tokens_in);
                (Event::Finished, EndReason::Finished)
            }
            AttemptEnd::Refused => (Event::Failed, EndReason::EngineRefused),
            AttemptEnd::Busy { .. } | AttemptEnd::Failed { resumable: true } => {
                self.blame(self.runs_on(no), end, out);
                return self.send_back(no, out);
            }
            // A live attempt is not closed by us: whatever closed it, its engine's state is not known.
            AttemptEnd::Failed { resumable: false } | AttemptEnd::Stopped => {
                self.blame(self.runs_on(no), end, out);
                (Event::Failed, EndReason::WorkerReset)
            }
        };
        let pool = self.tasks.get(no).map(|task| task.pool);
        if let (Some(attempt), Some(pool)) = (self.conclude(no, event, reason, out)?, pool) {
            self.release(attempt.permit, pool);
        }
        Ok(())
    }

    /// The end of an attempt that was stopped before: it only frees the slot. After `Stopped` the engine
    /// may go on decoding, after a failure its state is not known; anything else means that it is done.
    fn stopped_attempt_ended(
        &mut self,
        (no, number): (TaskNo, AttemptNo),
        end: &AttemptEnd,
        out: &mut Vec<Action>,
    ) {
        let Some((replica, _)) = self.fleet.reclaim_of((no, number)) else {
            return;
        };
        match end {
            AttemptEnd::Stopped => {}
            AttemptEnd::Failed { .. } => self.blame(Some(replica), end, out),
            AttemptEnd::Finished { .. } | AttemptEnd::Refused | AttemptEnd::Busy { .. } => {
                self.blame(Some(replica), end, out);
                self.reclaimed(replica, (no, number));
            }
        }
    }

    pub(crate) fn slot_idle(&mut self, replica: ReplicaNo, no: TaskNo) {
        if let Some(stopped) = self.fleet.stopped_at(replica, no) {
            self.reclaimed(replica, stopped);
        }
    }

    fn reclaimed(&mut self, replica: ReplicaNo, stopped: Stopped) {
        let pool = self.fleet.pool_of(replica);
        self.fleet.reclaimed(stopped);
        self.dirty.extend(pool);
    }

    /// The timer of a slot that did not come back.
    pub(crate) fn reclaim_due(&mut self, stopped: Stopped, out: &mut Vec<Action>) {
        if let Some((replica, _)) = self.fleet.reclaim_of(stopped)
            && self.fleet.suspect(replica)
        {
            out.push(Action::Probe { replica });
        }
    }

    /// What the end of an attempt says about its replica.
    fn blame(&mut self, replica: Option<ReplicaNo>, end: &AttemptEnd, out: &mut Vec<Action>) {
        let Some(replica) = replica else {
            return;
        };
        match end {
            AttemptEnd::Finished { .. } | AttemptEnd::Refused => {}
            AttemptEnd::Busy { retry_after_ms } => {
                let until = self.now.plus_ms(retry_after_ms.unwrap_or(REST_MS));
                if self.fleet.rest(replica, until) {
                    self.timers.set(until, Timer::Rest(replica));
                }
            }
            AttemptEnd::Failed { .. } | AttemptEnd::Stopped => {
                if self.fleet.suspect(replica) {
                    out.push(Action::Probe { replica });
                }
            }
        }
    }

    /// The attempt ended and another may go on, if there is one left.
    fn send_back(&mut self, no: TaskNo, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        let Some(task) = self.tasks.get(no) else {
            return Ok(());
        };
        let pool = task.pool;
        let lost = if task.attempts < self.config.max_attempts {
            self.requeue(no, out)?
        } else {
            self.conclude(no, Event::Failed, EndReason::ReplicaExhausted, out)?
        };
        if let Some(attempt) = lost {
            self.release(attempt.permit, pool);
        }
        Ok(())
    }

    /// The attempt is lost: back to the place in the queue that the task's arrival gave it. What the attempt
    /// held is given out.
    fn requeue(
        &mut self,
        no: TaskNo,
        out: &mut Vec<Action>,
    ) -> Result<Option<Attempt>, Unexpected> {
        let Some(task) = self.tasks.get_mut(no) else {
            return Ok(None);
        };
        let lost = task.state.leave(Event::Returned)?;
        let (class, entry) = (task.class, task.entry(no));
        let Some(pool) = self.pools.get_mut(&task.pool) else {
            return Ok(lost);
        };
        pool.queue.push(class, &entry);
        let (admits, wall_ms) = (pool.admits(), pool.timeouts.wall_ms);
        self.watch_task(no, self.now.plus_ms(wall_ms.max(1)));
        if !admits {
            self.rebind(no, out)?;
        }
        Ok(lost)
    }

    /// The timer of a queued task that was started before. It can only go on in its set: when no replica of
    /// that is left, in this pool or another, it ends instead of waiting for ever.
    pub(crate) fn set_due(&mut self, no: TaskNo, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        let Some(task) = self.tasks.get(no) else {
            return Ok(());
        };
        let (pool, need) = (task.pool, task.need());
        if self.fleet.knows(pool, need) != Known::Fitting {
            self.rebind(no, out)?;
            if self.tasks.get(no).is_some_and(|task| task.pool == pool) {
                self.conclude(no, Event::Dropped, EndReason::WorkerReset, out)?;
            }
        }
        let wall_ms = self.pools.get(&pool).map_or(1, |p| p.timeouts.wall_ms);
        self.watch_task(no, self.now.plus_ms(wall_ms.max(1)));
        Ok(())
    }

    fn observe(&mut self, no: TaskNo, tokens_out: u32) {
        let Some(task) = self.tasks.get(no) else {
            return;
        };
        if let (Some(attempt), Some(pool)) = (task.state.attempt(), self.pools.get_mut(&task.pool))
        {
            let busy_us = self.now.0.saturating_sub(attempt.started_at.0);
            pool.service.observe(busy_us, tokens_out);
        }
    }

    /// The engine is done with the attempt: the slot is free.
    fn release(&mut self, permit: Permit, pool: PoolNo) {
        self.fleet.give_back(permit);
        self.attempt_closed(pool);
    }

    fn attempt_closed(&mut self, no: PoolNo) {
        if let Some(pool) = self.pools.get_mut(&no) {
            pool.running = pool.running.saturating_sub(1);
        }
        self.dirty.insert(no);
        self.forget_if_removed(no);
    }

    pub(crate) fn runs(&self, no: TaskNo, number: AttemptNo) -> bool {
        self.tasks
            .get(no)
            .and_then(|task| task.state.attempt())
            .is_some_and(|attempt| attempt.number == number)
    }

    fn runs_on(&self, no: TaskNo) -> Option<ReplicaNo> {
        let attempt = self.tasks.get(no)?.state.attempt()?;
        Some(attempt.permit.replica())
    }

    /// The next task of the pool that can be placed at once; those that come too late are ended on the way.
    pub(crate) fn next_placeable(
        &mut self,
        no: PoolNo,
        out: &mut Vec<Action>,
    ) -> Result<Option<TaskNo>, Unexpected> {
        loop {
            let Some(pool) = self.pools.get(&no).filter(|pool| Pool::places(pool)) else {
                return Ok(None);
            };
            let placeable = |need| self.fleet.can_place(no, need);
            let queued_at = |task| {
                self.tasks
                    .get(task)
                    .map_or(Time(u64::MAX), |task| task.queued_at)
            };
            let Some(next) = pool.queue.pick(self.now, &placeable, &queued_at) else {
                return Ok(None);
            };
            if !self
                .tasks
                .get(next)
                .is_some_and(|task| self.is_too_late(task))
            {
                return Ok(Some(next));
            }
            let reason = EndReason::Refused(Refusal::DeadlineUnmet);
            self.conclude(next, Event::Dropped, reason, out)?;
        }
    }
}
