//! The pools: their state, their queue and service model, and what happens to waiting tasks when a pool drains,
//! fails or goes away.

use crate::api::{
    Action, ClassConfig, EndReason, PoolNo, PoolSpec, PoolState, Refusal, TaskNo, Timeouts,
};
use crate::deadline::Service;
use crate::fairness::Need;
use crate::fleet::Known;
use crate::queue::PoolQueue;
use crate::scheduler::Scheduler;
use crate::state::{Event, Unexpected};

/// What a pool does with tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Set(PoolState),
    /// Removed, with attempts still open; forgotten with the last of them.
    Removed,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Pool {
    stage: Stage,
    pub timeouts: Timeouts,
    pub queue: PoolQueue,
    pub service: Service,
    /// Open attempts of its tasks.
    pub running: u32,
}

impl Pool {
    fn new(spec: &PoolSpec, classes: &[ClassConfig]) -> Self {
        Self {
            stage: Stage::Set(spec.state),
            timeouts: spec.timeouts,
            queue: PoolQueue::new(classes),
            service: Service::default(),
            running: 0,
        }
    }

    pub fn exists(&self) -> bool {
        self.stage != Stage::Removed
    }

    /// New tasks are taken.
    pub fn admits(&self) -> bool {
        matches!(
            self.stage,
            Stage::Set(PoolState::Starting | PoolState::Ready)
        )
    }

    /// Waiting tasks are placed on its ready replicas. A pool that is starting uses those it has.
    pub fn places(&self) -> bool {
        self.admits() || self.stage == Stage::Set(PoolState::Draining)
    }
}

impl Scheduler {
    pub(crate) fn set_pool(
        &mut self,
        spec: &PoolSpec,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        let classes = &self.config.classes;
        let pool = self
            .pools
            .entry(spec.pool)
            .or_insert_with(|| Pool::new(spec, classes));
        pool.stage = Stage::Set(spec.state);
        pool.timeouts = spec.timeouts;
        self.dirty.insert(spec.pool);
        if pool.admits() {
            return Ok(());
        }
        self.evacuate(spec.pool, out)
    }

    pub(crate) fn remove_pool(
        &mut self,
        no: PoolNo,
        out: &mut Vec<Action>,
    ) -> Result<(), Unexpected> {
        if let Some(pool) = self.pools.get_mut(&no) {
            pool.stage = Stage::Removed;
        }
        let moved = self.evacuate(no, out);
        self.forget_if_removed(no);
        moved
    }

    /// A removed pool goes with the last attempt that needs its timeouts.
    pub(crate) fn forget_if_removed(&mut self, no: PoolNo) {
        if self
            .pools
            .get(&no)
            .is_some_and(|pool| !pool.exists() && pool.running == 0)
        {
            self.pools.remove(&no);
        }
    }

    /// Moves what waits in a pool that takes no new tasks to other pools. What cannot be moved stays if the
    /// pool still places, else it ends.
    fn evacuate(&mut self, no: PoolNo, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        let Some(pool) = self.pools.get(&no) else {
            return Ok(());
        };
        for task in pool.queue.tasks() {
            self.rebind(task, out)?;
        }
        Ok(())
    }

    /// A task that was started needs a known replica of its set. A strict one may wait for the first replica of
    /// a pool, but not for the promise of replicas that do not give it.
    fn could_serve(&self, pool: PoolNo, need: Need) -> bool {
        match need {
            Need { set: Some(_), .. } => self.fleet.knows(pool, need) == Known::Fitting,
            Need { strict: true, .. } => self.fleet.knows(pool, need) != Known::Others,
            Need { strict: false, .. } => true,
        }
    }

    /// Binds a queued task whose pool cannot serve it any more to the best of its other pools.
    pub(crate) fn rebind(&mut self, no: TaskNo, out: &mut Vec<Action>) -> Result<(), Unexpected> {
        let Some(task) = self.tasks.get(no) else {
            return Ok(());
        };
        let (from, claim, entry) = (task.pool, task.claim(), task.entry(no));
        let others = task.eligible.iter().copied().filter(|other| {
            *other != from
                && self.pools.get(other).is_some_and(Pool::admits)
                && self.could_serve(*other, entry.need)
        });
        let Some(to) = self.earliest(others, claim) else {
            if !self.pools.get(&from).is_some_and(Pool::places) {
                let reason = EndReason::Refused(Refusal::PoolUnavailable);
                self.conclude(no, Event::Dropped, reason, out)?;
            }
            return Ok(());
        };
        if let Some(pool) = self.pools.get_mut(&from) {
            pool.queue.remove(claim.class, &entry);
        }
        if let Some(pool) = self.pools.get_mut(&to) {
            pool.queue.push(claim.class, &entry);
        }
        if let Some(task) = self.tasks.get_mut(no) {
            task.pool = to;
        }
        self.dirty.insert(to);
        Ok(())
    }
}
