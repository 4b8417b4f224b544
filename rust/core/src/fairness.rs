//! Who goes next: the order inside a class ([`Order`]) and the shares between classes ([`Stride`]).
//!
//! Inside a class the order is first come, first served. The type is told the flow (tenant) of every task, so
//! that an order by token cost can take its place without a change elsewhere.
//!
//! Tasks that need different things of a replica (`strict`, a given set) wait side by side, so that one that
//! cannot be placed does not hold back one that can.

use std::collections::BTreeMap;

use crate::api::{ClassNo, SetNo, TaskNo, TenantNo};
use crate::ranked::RankedSet;

/// What a task asks of the replica that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    /// Only a reproducible replica will do.
    pub strict: bool,
    /// The set of the earlier attempts; `None` for a task that has not been started.
    pub set: Option<SetNo>,
}

/// A waiting task as the order sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub task: TaskNo,
    /// The fairness key.
    #[expect(
        dead_code,
        reason = "first come, first served looks at the number alone; an order by token cost does not"
    )]
    pub flow: TenantNo,
    pub need: Need,
}

/// The order of the waiting tasks of one class in one pool.
#[derive(Debug, Default)]
pub(crate) struct Order {
    by_need: BTreeMap<Need, RankedSet>,
    len: usize,
}

impl Order {
    pub fn len(&self) -> usize {
        self.len
    }

    /// A task that comes back takes the place that its arrival gave it, that is before all later ones.
    pub fn push(&mut self, entry: &Entry) {
        let waiting = self
            .by_need
            .entry(entry.need)
            .or_insert_with(RankedSet::new);
        self.len += usize::from(waiting.insert(entry.task.0));
    }

    /// False when the task does not wait here.
    pub fn remove(&mut self, entry: &Entry) -> bool {
        let Some(waiting) = self.by_need.get_mut(&entry.need) else {
            return false;
        };
        let removed = waiting.remove(entry.task.0);
        self.len -= usize::from(removed);
        // The two needs without a set stay: they come back with the next task.
        if waiting.is_empty() && entry.need.set.is_some() {
            self.by_need.remove(&entry.need);
        }
        removed
    }

    /// The task to be served next among those whose need can be met.
    pub fn next(&self, placeable: &dyn Fn(Need) -> bool) -> Option<TaskNo> {
        self.by_need
            .iter()
            .filter(|(need, waiting)| !waiting.is_empty() && placeable(**need))
            .filter_map(|(_, waiting)| waiting.first())
            .min()
            .map(TaskNo)
    }

    /// How many tasks of this order are served before `entry`.
    pub fn ahead_of(&self, entry: &Entry) -> usize {
        self.by_need
            .values()
            .map(|waiting| waiting.rank(entry.task.0))
            .sum()
    }

    /// The oldest task that has never been started. One that has been is not evicted: its client has seen
    /// it start.
    pub fn oldest_fresh(&self) -> Option<TaskNo> {
        self.fresh().filter_map(RankedSet::first).min().map(TaskNo)
    }

    /// The newest task that has never been started.
    pub fn newest_fresh(&self) -> Option<TaskNo> {
        self.fresh().filter_map(RankedSet::last).max().map(TaskNo)
    }

    /// All waiting tasks, oldest first.
    pub fn tasks(&self) -> Vec<TaskNo> {
        let mut keys: Vec<u64> = self.by_need.values().flat_map(RankedSet::to_vec).collect();
        keys.sort_unstable();
        keys.into_iter().map(TaskNo).collect()
    }

    fn fresh(&self) -> impl Iterator<Item = &RankedSet> {
        self.by_need
            .iter()
            .filter(|(need, _)| need.set.is_none())
            .map(|(_, waiting)| waiting)
    }
}

/// A class of weight 1 advances by this much per dispatch.
const UNIT: u64 = 1 << 24;

/// Stride scheduling between the classes of one pool.
///
/// Every class has a pass; the class with the smallest pass among those that can be served goes next and
/// advances by `UNIT / weight`. Nothing is ever reserved, so a share that is not used is lent at once, and a
/// class that was empty returns at the present pass: it neither claims the past nor waits for the others.
#[derive(Debug)]
pub(crate) struct Stride {
    strides: Vec<u64>,
    passes: Vec<u64>,
    /// The pass of the last dispatch.
    present: u64,
}

impl Stride {
    pub fn new(weights: impl Iterator<Item = u32>) -> Self {
        let strides: Vec<u64> = weights
            .map(|weight| (UNIT / u64::from(weight.max(1))).max(1))
            .collect();
        let passes = vec![0; strides.len()];
        Self {
            strides,
            passes,
            present: 0,
        }
    }

    /// The class was empty and has a waiting task now.
    pub fn wake(&mut self, class: ClassNo) {
        if let Some(pass) = self.passes.get_mut(usize::from(class.0)) {
            *pass = (*pass).max(self.present);
        }
    }

    /// Smaller goes first; equal passes go to the higher class.
    pub fn pass(&self, class: ClassNo) -> u64 {
        self.passes
            .get(usize::from(class.0))
            .copied()
            .unwrap_or(u64::MAX)
    }

    /// A task of the class was dispatched.
    pub fn charge(&mut self, class: ClassNo) {
        let index = usize::from(class.0);
        if let (Some(pass), Some(stride)) = (self.passes.get_mut(index), self.strides.get(index)) {
            self.present = self.present.max(*pass);
            *pass = pass.saturating_add(*stride);
        }
    }

    /// How many tasks of all classes are dispatched before the one with `rank` in `class`, with no arrivals
    /// and none that must wait for a special replica. `waiting` is the number of tasks per class.
    pub fn ahead(&self, class: ClassNo, rank: usize, waiting: &[usize]) -> usize {
        let own = usize::from(class.0);
        let Some(stride) = self.strides.get(own) else {
            return rank;
        };
        let start = match waiting.get(own) {
            Some(0) | None => self.pass(class).max(self.present),
            Some(_) => self.pass(class),
        };
        let turn = start.saturating_add((rank as u64).saturating_mul(*stride));
        let others: usize = waiting
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != own)
            .map(|(other, count)| self.served_before(other, turn, other < own).min(*count))
            .sum();
        rank + others
    }

    /// How often `other` is served before the pass reaches `turn`; at equal passes too if it `wins_ties`.
    fn served_before(&self, other: usize, turn: u64, wins_ties: bool) -> usize {
        let (pass, stride) = (self.passes[other], self.strides[other]);
        let Some(gap) = turn.checked_sub(pass) else {
            return 0;
        };
        let served = if wins_ties {
            gap / stride + 1
        } else {
            gap.div_ceil(stride)
        };
        usize::try_from(served).unwrap_or(usize::MAX)
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

    fn entry(task: u64, need: Need) -> Entry {
        Entry {
            task: TaskNo(task),
            flow: TenantNo(0),
            need,
        }
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
        order.push(&entry(5, ANY));
        order.push(&entry(2, returned));
        assert_eq!(order.next(&|_| true), Some(TaskNo(2)));
        assert_eq!(order.oldest_fresh(), Some(TaskNo(5)));
        assert!(order.remove(&entry(5, ANY)));
        assert_eq!(order.oldest_fresh(), None);
        assert_eq!(order.newest_fresh(), None);
        assert!(!order.remove(&entry(5, ANY)));
        assert_eq!(order.tasks(), vec![TaskNo(2)]);
    }

    fn choose(stride: &Stride, waiting: &[usize]) -> ClassNo {
        (0..2u8)
            .map(ClassNo)
            .filter(|class| waiting[usize::from(class.0)] > 0)
            .min_by_key(|class| stride.pass(*class))
            .unwrap()
    }

    #[test]
    fn classes_share_by_weight_while_both_wait() {
        let mut stride = Stride::new([4, 1].into_iter());
        let mut served = [0usize; 2];
        for _ in 0..1000 {
            let class = choose(&stride, &[1, 1]);
            stride.charge(class);
            served[usize::from(class.0)] += 1;
        }
        assert_eq!(served, [800, 200]);
    }

    #[test]
    fn a_class_that_was_idle_does_not_claim_the_past() {
        let mut stride = Stride::new([1, 1].into_iter());
        for _ in 0..100 {
            stride.charge(ClassNo(1));
        }
        stride.wake(ClassNo(0));
        let mut served = [0usize; 2];
        for _ in 0..10 {
            let class = choose(&stride, &[1, 1]);
            stride.charge(class);
            served[usize::from(class.0)] += 1;
        }
        assert_eq!(served, [6, 4], "one dispatch ahead, not a hundred");
    }

    #[test]
    fn the_position_is_the_number_of_dispatches_before_it() {
        let mut stride = Stride::new([3, 1].into_iter());
        stride.charge(ClassNo(0));
        let mut waiting = [7usize, 5];
        let promised: Vec<Vec<usize>> = (0..2u8)
            .map(|class| {
                (0..waiting[usize::from(class)])
                    .map(|rank| stride.ahead(ClassNo(class), rank, &waiting))
                    .collect()
            })
            .collect();
        let mut seen = [Vec::new(), Vec::new()];
        for dispatched in 0..12 {
            let class = choose(&stride, &waiting);
            stride.charge(class);
            waiting[usize::from(class.0)] -= 1;
            seen[usize::from(class.0)].push(dispatched);
        }
        assert_eq!(promised[0], seen[0]);
        assert_eq!(promised[1], seen[1]);
    }
}
