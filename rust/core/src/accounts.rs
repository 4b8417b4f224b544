//! What tasks cost their tenants: output as it is reported, input at the first start, the engine's own counts at
//! the end.
//!
//! A task is charged for each output token once: what a later attempt decodes again is free. An attempt that
//! was stopped still owes what it decoded after the last report; that is charged when its end is told.

use crate::api::{AttemptNo, ClassNo, PoolNo, TaskNo};
use crate::fairness::{Cost, Flow};
use crate::scheduler::Scheduler;

/// What a stopped attempt may still owe after its task has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debt {
    pub pool: PoolNo,
    pub class: ClassNo,
    pub flow: Flow,
    /// Output tokens that were charged before.
    pub tokens_charged: u32,
}

impl Scheduler {
    /// The attempt has brought so many tokens by its end. It may have been stopped before.
    pub(crate) fn charge_attempt(&mut self, stopped: (TaskNo, AttemptNo), tokens_out: u32) {
        let (no, number) = stopped;
        let known = self.runs(no, number) || self.fleet.reclaim_of(stopped).is_some();
        if known && self.tasks.get(no).is_some() {
            self.charge_output(no, tokens_out);
        } else if let Some(debt) = self.fleet.take_debt(stopped) {
            let tokens = tokens_out.saturating_sub(debt.tokens_charged);
            let cost = Cost::new(self.config.prices, 0, tokens);
            let pool = self.pools.get_mut(&debt.pool);
            if let Some(order) = pool.and_then(|pool| pool.queue.accounts(debt.class)) {
                order.charge(debt.flow, cost);
            }
        }
    }

    /// An attempt of the task has brought so many tokens.
    pub(crate) fn charge_output(&mut self, no: TaskNo, tokens_out: u32) {
        let Some(task) = self.tasks.get_mut(no) else {
            return;
        };
        let tokens = tokens_out.saturating_sub(task.tokens_charged);
        task.tokens_charged += tokens;
        let cost = Cost::new(self.config.prices, 0, tokens);
        let pool = self.pools.get_mut(&task.pool);
        if tokens > 0
            && let Some(order) = pool.and_then(|pool| pool.queue.accounts(task.class))
        {
            order.charge(task.flow, cost);
        }
    }

    /// The engine has told the length of the input, unless that is 0: the estimate is put right.
    pub(crate) fn settle_account(&mut self, no: TaskNo, tokens_in: u32) {
        let Some(task) = self.tasks.get_mut(no) else {
            return;
        };
        let estimate = task.tokens_in;
        if tokens_in > 0 {
            task.tokens_in = tokens_in;
        }
        let prices = self.config.prices;
        let (now, paid) = (task.tokens_in, estimate);
        let pool = self.pools.get_mut(&task.pool);
        if let Some(order) = pool.and_then(|pool| pool.queue.accounts(task.class)) {
            order.charge(task.flow, Cost::new(prices, now.saturating_sub(paid), 0));
            order.credit(task.flow, Cost::new(prices, paid.saturating_sub(now), 0));
            order.observe(Cost::new(prices, now, task.tokens_charged));
        }
    }
}
