//! Who goes next inside a class: token-cost fairness between flows (tenants), after the virtual token counter of
//! Sheng et al., "Fairness in Serving Large Language Models" (arXiv 2401.00588).
//!
//! Every flow has a counter: the tokens it was served, weighted by their prices and divided by the flow's
//! weight. Input is charged when a task is started, output as it is decoded, both are settled when the engine
//! tells its own count. The waiting flow with the smallest counter goes next; inside a flow it is first come,
//! first served. A flow that comes back from idle is lifted to the smallest counter of those that wait, or to
//! that of the last start, whichever is larger: it does not claim the past. A task that lost its attempt goes
//! before all others and is not charged for what is decoded again.
//!
//! # The bound
//!
//! Let `W(f)` be the tokens served to `f`, weighted; `N` the most tasks of a pool that are started and not ended
//! at one moment (its slots, and those that lost theirs); `I` and `O` the longest input and output; and
//! `B = w_in I + w_out N O`. When a task of `f` is started, no flow that waits has a smaller counter. From then
//! until the next start of `f`, its counter grows by that task's input and by the output still to come of its
//! tasks in flight, so by no more than `B / weight(f)`; the smallest counter never falls. Hence over any time in
//! which both `f` and `g` wait for the same slots
//!
//! ```text
//! | W(f) / weight(f) - W(g) / weight(g) |  <=  2 max(B / weight(f), B / weight(g))
//! ```
//!
//! The paper has one batch of `M` tokens. Here slots take its place and a task is bound to one when that is
//! free, never before: `M = N ctx`. With `w_in <= w_out`, `B <= w_out M`, which is the published
//! `2 max(w_in I, w_out M)`. Progress that is not reported yet does not loosen it: what `f` was served without
//! our knowledge is part of the output in flight that `B` counts already. That is why nobody is asked for
//! reports on account of fairness. An input estimate that is wrong by `e` tokens adds `w_in N e` to `B`.
//!
//! Tasks that need different things of a replica (`strict`, a given set) wait side by side, so that one that
//! cannot be placed does not hold back one that can.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{SetNo, TaskNo, TenantNo, TokenPrices};
use crate::lengths::Lengths;
use crate::ranked::RankedSet;

/// What a task asks of the replica that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    /// Only a reproducible replica will do.
    pub strict: bool,
    /// The set of the earlier attempts; `None` for a task that has not been started.
    pub set: Option<SetNo>,
}

/// Who is charged for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub tenant: TenantNo,
    /// Share of the service under contention, relative to the other flows' weights; at least 1.
    pub weight: u32,
}

/// A waiting task as the order sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub task: TaskNo,
    pub flow: Flow,
    pub need: Need,
}

/// Weighted tokens. A flow of weight 1 advances by `UNIT` for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost(u64);

/// Fine enough for weights of a million; coarse enough for 2^43 weighted tokens.
const UNIT: u64 = 1 << 20;

impl Cost {
    pub fn new(prices: TokenPrices, tokens_in: u32, tokens_out: u32) -> Self {
        let input = u64::from(prices.input).saturating_mul(u64::from(tokens_in));
        let output = u64::from(prices.output).saturating_mul(u64::from(tokens_out));
        Self(input.saturating_add(output))
    }

    fn of(self, weight: u32) -> u64 {
        self.0.saturating_mul(UNIT) / u64::from(weight.max(1))
    }
}

/// A flow that waits, or whose counter is ahead of the present.
#[derive(Debug)]
struct Account {
    weight: u32,
    counter: u64,
    /// Its tasks that were never started: those for any replica, those for a reproducible one.
    waiting: [RankedSet; 2],
}

impl Account {
    fn len(&self) -> usize {
        self.waiting.iter().map(RankedSet::len).sum()
    }
}

/// When a flow has its turn: by its counter, then by its oldest task.
type Turn = (u64, u64, TenantNo);

/// The order of the waiting tasks of one class in one pool. See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Tasks that were started before, by need; first come, first served.
    returned: BTreeMap<Need, RankedSet>,
    flows: BTreeMap<TenantNo, Account>,
    /// The turns of the flows that wait for any replica, and for a reproducible one.
    turns: [BTreeSet<Turn>; 2],
    /// Flows that do not wait, remembered because their counter is ahead of the present.
    ahead: BTreeSet<(u64, TenantNo)>,
    lengths: Lengths,
    /// The largest counter of a flow at one of its starts.
    present: u64,
    /// Smoothed cost of a finished task; 0 while nothing has finished.
    usual: u64,
    len: usize,
}

fn lane(need: Need) -> usize {
    usize::from(need.strict)
}

impl Order {
    pub fn len(&self) -> usize {
        self.len
    }

    /// A task that comes back goes before all that were never started.
    pub fn push(&mut self, entry: &Entry) {
        if entry.need.set.is_some() {
            let waiting = self
                .returned
                .entry(entry.need)
                .or_insert_with(RankedSet::new);
            self.len += usize::from(waiting.insert(entry.task.0));
            return;
        }
        let (tenant, lane) = (entry.flow.tenant, lane(entry.need));
        let floor = self.floor();
        let account = self.flows.entry(tenant).or_insert_with(|| Account {
            weight: entry.flow.weight,
            counter: 0,
            waiting: [RankedSet::new(), RankedSet::new()],
        });
        let (length, weight) = (account.len(), account.weight);
        if length == 0 {
            self.ahead.remove(&(account.counter, tenant));
            account.counter = account.counter.max(floor);
        }
        account.weight = entry.flow.weight;
        let waiting = &mut account.waiting[lane];
        let head = waiting.first();
        if !waiting.insert(entry.task.0) {
            return;
        }
        let turns = &mut self.turns[lane];
        if head.is_none_or(|head| entry.task.0 < head) {
            head.map(|head| turns.remove(&(account.counter, head, tenant)));
            turns.insert((account.counter, entry.task.0, tenant));
        }
        self.len += 1;
        self.lengths.remove(tenant, length, weight);
        self.lengths.insert(tenant, length + 1, account.weight);
    }

    /// False when the task does not wait here.
    pub fn remove(&mut self, entry: &Entry) -> bool {
        let removed = if entry.need.set.is_some() {
            self.remove_returned(entry)
        } else {
            self.remove_fresh(entry, 0)
        };
        self.len -= usize::from(removed);
        removed
    }

    /// Takes out a task that is started. Its input is charged unless it was started before.
    pub fn serve(&mut self, entry: &Entry, input: Cost) {
        if entry.need.set.is_none() {
            let counter = self.flows.get(&entry.flow.tenant).map(|a| a.counter);
            self.present = self.present.max(counter.unwrap_or(0));
        }
        if entry.need.set.is_some() {
            self.remove(entry);
        } else {
            let removed = self.remove_fresh(entry, input.of(entry.flow.weight));
            self.len -= usize::from(removed);
        }
        while let Some((counter, tenant)) = self.ahead.first().copied()
            && counter <= self.present
        {
            self.ahead.remove(&(counter, tenant));
            self.flows.remove(&tenant);
        }
    }

    pub fn charge(&mut self, flow: Flow, cost: Cost) {
        let advance = cost.of(flow.weight);
        if advance == 0 {
            return;
        }
        self.move_counter(flow, |counter| counter.saturating_add(advance));
    }

    /// Takes back what was charged too much.
    pub fn credit(&mut self, flow: Flow, cost: Cost) {
        let back = cost.of(flow.weight);
        if back == 0 {
            return;
        }
        self.move_counter(flow, |counter| counter.saturating_sub(back));
    }

    /// A task finished and cost so much in all.
    pub fn observe(&mut self, cost: Cost) {
        let cost = cost.0.saturating_mul(UNIT).max(1);
        self.usual = match self.usual {
            0 => cost,
            usual => usual - usual / 8 + cost / 8,
        }
        .max(1);
    }

    /// The task to be served next among those whose need can be met.
    pub fn next(&self, placeable: &dyn Fn(Need) -> bool) -> Option<TaskNo> {
        let returned = self
            .returned
            .iter()
            .filter(|(need, _)| placeable(**need))
            .filter_map(|(_, waiting)| waiting.first())
            .min();
        let fresh = || {
            let turns = [false, true].into_iter().zip(&self.turns);
            turns
                .filter(|(strict, turns)| {
                    let (strict, set) = (*strict, None);
                    !turns.is_empty() && placeable(Need { strict, set })
                })
                .filter_map(|(_, turns)| turns.first())
                .min()
                .map(|(_, task, _)| *task)
        };
        returned.or_else(fresh).map(TaskNo)
    }

    /// How many tasks of this order are served before `entry`: exact inside its flow, by the usual cost of a
    /// task where other flows wait.
    pub fn ahead_of(&self, entry: &Entry) -> usize {
        let key = entry.task.0;
        if entry.need.set.is_some() {
            return self
                .returned
                .values()
                .map(|waiting| waiting.rank(key))
                .sum();
        }
        let account = self.flows.get(&entry.flow.tenant);
        let own = account.map_or(0, |account| {
            account.waiting.iter().map(|set| set.rank(key)).sum()
        });
        self.ahead_in_flow(entry.flow, own)
    }

    /// How many would be served before a new task of the flow.
    pub fn ahead_of_new(&self, flow: Flow) -> usize {
        let account = self.flows.get(&flow.tenant);
        self.ahead_in_flow(flow, account.map_or(0, Account::len))
    }

    /// The flow with the most tasks that were never started, and their number. One that was started is not
    /// evicted: its client has seen it start.
    pub fn longest(&self) -> Option<(TenantNo, usize)> {
        self.lengths.longest()
    }

    /// Tasks of the tenant that were never started.
    pub fn length(&self, tenant: TenantNo) -> usize {
        self.flows.get(&tenant).map_or(0, Account::len)
    }

    /// Tenants with such tasks.
    pub fn backlogged(&self) -> usize {
        self.lengths.flows()
    }

    /// The tenant's oldest task that was never started.
    pub fn oldest_fresh(&self, tenant: TenantNo) -> Option<TaskNo> {
        let account = self.flows.get(&tenant)?;
        let oldest = account.waiting.iter().filter_map(RankedSet::first).min();
        oldest.map(TaskNo)
    }

    /// The tenant's newest task that was never started.
    pub fn newest_fresh(&self, tenant: TenantNo) -> Option<TaskNo> {
        let account = self.flows.get(&tenant)?;
        let newest = account.waiting.iter().filter_map(RankedSet::last).max();
        newest.map(TaskNo)
    }

    /// All waiting tasks, oldest first.
    pub fn tasks(&self) -> Vec<TaskNo> {
        let fresh = self.flows.values().flat_map(|account| &account.waiting);
        let all = self.returned.values().chain(fresh);
        let mut keys: Vec<u64> = all.flat_map(RankedSet::to_vec).collect();
        keys.sort_unstable();
        keys.into_iter().map(TaskNo).collect()
    }

    fn remove_returned(&mut self, entry: &Entry) -> bool {
        let Some(waiting) = self.returned.get_mut(&entry.need) else {
            return false;
        };
        let removed = waiting.remove(entry.task.0);
        if waiting.is_empty() {
            self.returned.remove(&entry.need);
        }
        removed
    }

    /// Takes a task out and moves the counter of its flow on, in one go.
    fn remove_fresh(&mut self, entry: &Entry, advance: u64) -> bool {
        let (tenant, lane) = (entry.flow.tenant, lane(entry.need));
        let Some(account) = self.flows.get_mut(&tenant) else {
            return false;
        };
        let (length, before) = (account.len(), account.counter);
        let heads = [0, 1].map(|lane| account.waiting[lane].first());
        if !account.waiting[lane].remove(entry.task.0) {
            return false;
        }
        let counter = before.saturating_add(advance);
        account.counter = counter;
        for ((waiting, turns), old) in account.waiting.iter().zip(&mut self.turns).zip(heads) {
            let new = waiting.first();
            if (old, before) != (new, counter) {
                old.map(|head| turns.remove(&(before, head, tenant)));
                turns.extend(new.map(|head| (counter, head, tenant)));
            }
        }
        self.lengths.remove(tenant, length, account.weight);
        self.lengths.insert(tenant, length - 1, account.weight);
        if length == 1 {
            if counter > self.present {
                self.ahead.insert((counter, tenant));
            } else {
                self.flows.remove(&tenant);
            }
        }
        true
    }

    fn move_counter(&mut self, flow: Flow, change: impl FnOnce(u64) -> u64) {
        let tenant = flow.tenant;
        let present = self.present;
        let account = self.flows.entry(tenant).or_insert_with(|| Account {
            weight: flow.weight,
            counter: present,
            waiting: [RankedSet::new(), RankedSet::new()],
        });
        let (before, after) = (account.counter, change(account.counter));
        account.counter = after;
        if account.len() == 0 {
            self.ahead.remove(&(before, tenant));
            if after > present {
                self.ahead.insert((after, tenant));
            } else {
                self.flows.remove(&tenant);
            }
            return;
        }
        for (waiting, turns) in account.waiting.iter().zip(&mut self.turns) {
            if let Some(head) = waiting.first() {
                turns.remove(&(before, head, tenant));
                turns.insert((after, head, tenant));
            }
        }
    }

    /// The counter that a flow has at least when it begins to wait.
    fn floor(&self) -> u64 {
        let turns = self.turns.iter().filter_map(BTreeSet::first);
        let smallest = turns.map(|(counter, _, _)| *counter).min();
        self.present.max(smallest.unwrap_or(0))
    }

    /// How many are served before the flow's task that has `own` others of its flow before it. While the flow
    /// is served `own` times, and until its counter is reached, every other one is served as often, in
    /// proportion to the weights, as far as it has tasks.
    fn ahead_in_flow(&self, flow: Flow, own: usize) -> usize {
        let returned: usize = self.returned.values().map(RankedSet::len).sum();
        let account = self.flows.get(&flow.tenant);
        let length = account.map_or(0, Account::len);
        if self.lengths.flows() <= usize::from(length > 0) {
            return returned + own;
        }
        let floor = self.floor();
        let behind = account.map_or(0, |a| a.counter.saturating_sub(floor));
        // Turns of a flow of weight 1, in parts of 256.
        let by_counter = match self.usual {
            0 => 0,
            usual => u128::from(behind) * 256 / u128::from(usual),
        };
        let by_tasks = own as u128 * 256 / u128::from(flow.weight.max(1));
        let turns = u64::try_from(by_counter + by_tasks).unwrap_or(u64::MAX);
        let weight = account.map_or(flow.weight, |a| a.weight);
        returned + own + self.lengths.served_in(turns, (length, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Need = Need {
        strict: false,
        set: None,
    };
    const STRICT: Need = Need {
        strict: true,
        set: None,
    };
    const PRICES: TokenPrices = TokenPrices {
        input: 1,
        output: 2,
    };

    fn flow(tenant: u32) -> Flow {
        let weight = 1;
        Flow {
            tenant: TenantNo(tenant),
            weight,
        }
    }

    fn entry(task: u64, need: Need) -> Entry {
        of_flow(flow(0), task, need)
    }

    fn of_flow(flow: Flow, task: u64, need: Need) -> Entry {
        let task = TaskNo(task);
        Entry { task, flow, need }
    }

    fn tokens(count: u32) -> Cost {
        Cost::new(PRICES, count, 0)
    }

    /// Serves the next task, which costs so many tokens, and tells its number.
    fn serve(order: &mut Order, flow_of: impl Fn(u64) -> Flow, cost: u32) -> u64 {
        let task = order.next(&|_| true).unwrap().0;
        order.serve(&of_flow(flow_of(task), task, ANY), tokens(cost));
        task
    }

    #[test]
    fn a_task_that_cannot_be_placed_does_not_hold_back_the_next() {
        let mut order = Order::default();
        order.push(&entry(1, STRICT));
        order.push(&entry(2, ANY));
        assert_eq!(order.next(&|need| !need.strict), Some(TaskNo(2)));
        assert_eq!(order.next(&|_| true), Some(TaskNo(1)));
        assert_eq!(order.ahead_of(&entry(2, ANY)), 1);
    }

    #[test]
    fn a_returned_task_goes_first_and_is_never_evicted() {
        let mut order = Order::default();
        let returned = Need {
            strict: false,
            set: Some(SetNo(1)),
        };
        order.push(&entry(2, ANY));
        order.push(&of_flow(flow(1), 5, returned));
        assert_eq!(order.next(&|_| true), Some(TaskNo(5)));
        assert_eq!(order.ahead_of(&entry(2, ANY)), 1);
        assert_eq!(order.longest(), Some((TenantNo(0), 1)));
        assert_eq!(order.oldest_fresh(TenantNo(0)), Some(TaskNo(2)));
        assert!(order.remove(&entry(2, ANY)));
        assert_eq!(order.longest(), None);
        assert_eq!(order.newest_fresh(TenantNo(1)), None);
        assert!(!order.remove(&entry(2, ANY)));
        assert_eq!(order.tasks(), vec![TaskNo(5)]);
    }

    #[test]
    fn the_flow_that_was_served_least_goes_next_by_cost_and_weight() {
        let mut order = Order::default();
        let heavy = Flow {
            weight: 3,
            ..flow(1)
        };
        let flow_of = |task: u64| if task < 100 { flow(0) } else { heavy };
        for task in (0..50).chain(100..150) {
            order.push(&of_flow(flow_of(task), task, ANY));
        }
        let mut served = [0; 2];
        for _ in 0..40 {
            let task = serve(&mut order, flow_of, 30);
            served[usize::from(task >= 100)] += 1;
        }
        assert_eq!(served, [10, 30]);
    }

    #[test]
    fn a_flow_that_was_idle_does_not_claim_the_past() {
        let mut order = Order::default();
        for task in 0..100 {
            order.push(&entry(task, ANY));
        }
        for _ in 0..50 {
            serve(&mut order, |_| flow(0), 10);
        }
        let flow_of = |task: u64| flow(u32::from(task >= 100));
        for task in 100..150 {
            order.push(&of_flow(flow(1), task, ANY));
        }
        let served: Vec<u64> = (0..6).map(|_| serve(&mut order, flow_of, 10)).collect();
        assert_eq!(served, [50, 100, 51, 101, 52, 102]);
    }

    #[test]
    fn a_flow_that_runs_ahead_is_remembered_until_the_others_have_caught_up() {
        let mut order = Order::default();
        order.push(&entry(1, ANY));
        serve(&mut order, |_| flow(0), 10);
        order.charge(flow(0), tokens(90));
        for task in 10..30 {
            order.push(&of_flow(flow(1), task, ANY));
        }
        order.push(&entry(40, ANY));
        let flow_of = |task: u64| flow(u32::from(task < 40));
        let served: Vec<u64> = (0..12).map(|_| serve(&mut order, flow_of, 10)).collect();
        assert_eq!(served.iter().position(|task| *task == 40), Some(11));
        for _ in 0..9 {
            serve(&mut order, flow_of, 10);
        }
        assert_eq!(order.len(), 0);
        order.push(&of_flow(flow(2), 99, ANY));
        serve(&mut order, |_| flow(2), 10);
        assert!(order.flows.len() <= 2, "{:?}", order.flows);
    }

    #[test]
    fn a_credit_takes_back_and_never_more_than_all() {
        let mut order = Order::default();
        order.push(&entry(1, ANY));
        order.push(&of_flow(flow(1), 2, ANY));
        order.charge(flow(0), tokens(50));
        assert_eq!(order.next(&|_| true), Some(TaskNo(2)));
        order.credit(flow(0), tokens(90));
        assert_eq!(order.next(&|_| true), Some(TaskNo(1)));
    }

    #[test]
    fn the_position_is_exact_alone_and_fair_among_many() {
        let mut order = Order::default();
        for task in 0..10 {
            order.push(&entry(task, ANY));
            assert_eq!(order.ahead_of(&entry(task, ANY)), task as usize);
        }
        for tenant in 1..5 {
            for task in 0..3 {
                let task = u64::from(tenant) * 100 + task;
                order.push(&of_flow(flow(tenant), task, ANY));
            }
        }
        let quiet = flow(9);
        assert_eq!(order.ahead_of_new(quiet), 0);
        assert_eq!(order.ahead_of(&entry(2, ANY)), 2 + 4 * 2);
        assert_eq!(order.ahead_of(&entry(9, ANY)), 9 + 4 * 3);
    }
}
