//! The bounded queue of one pool: one order per class, the bounds, the three policies for a full queue and
//! the choice of the next task (ORCH-3004, ORCH-3005).
//!
//! A full queue stays fair. A tenant that has less than the capacity divided by the tenants that wait is taken in:
//! the newest task of the tenant with the most gives way. With `DropLru` the oldest of that tenant does, and of
//! the new task's own tenant if none has more. With one tenant both are the plain policies.
//!
//! Bounds. A class holds at most its capacity. With `ShedLowPriority` it may hold more, but only in places it
//! took from lower classes: the pool never admits above the sum of the capacities. Tasks that were accepted
//! before (recovered, returned from an attempt, moved from another pool) are always taken in.

use crate::api::{ClassConfig, ClassNo, FullPolicy, TaskNo, TenantNo, Time};
use crate::fairness::{Cost, Entry, Flow, Need, Order};
use crate::stride::Stride;

/// Whether one more task may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// There is room once this task has been ended.
    Evict(TaskNo),
    Full,
}

#[derive(Debug)]
struct ClassQueue {
    config: ClassConfig,
    order: Order,
}

impl ClassQueue {
    /// The task that gives way to one of a tenant that has less than its share of the places.
    fn over_share(&self, tenant: TenantNo) -> Option<TaskNo> {
        let length = self.order.length(tenant);
        let flows = self.order.backlogged() + usize::from(length == 0);
        let (longest, most) = self.order.longest()?;
        let below = length.saturating_mul(flows) < self.config.capacity;
        if below && most > length {
            self.order.newest_fresh(longest)
        } else {
            None
        }
    }

    /// The oldest task of the tenant with the most.
    fn least_recent(&self, tenant: TenantNo) -> Option<TaskNo> {
        let (longest, most) = self.order.longest()?;
        let own = self.order.length(tenant) >= most;
        self.order.oldest_fresh(if own { tenant } else { longest })
    }

    fn shed(&self) -> Option<TaskNo> {
        let (longest, _) = self.order.longest()?;
        self.order.newest_fresh(longest)
    }
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct PoolQueue {
    classes: Vec<ClassQueue>,
    stride: Stride,
}

impl PoolQueue {
    pub fn new(classes: &[ClassConfig]) -> Self {
        Self {
            classes: classes
                .iter()
                .map(|config| ClassQueue {
                    config: config.clone(),
                    order: Order::default(),
                })
                .collect(),
            stride: Stride::new(classes.iter().map(|config| config.weight)),
        }
    }

    pub fn len(&self, class: ClassNo) -> usize {
        self.class(class).map_or(0, |queue| queue.order.len())
    }

    pub fn policy(&self, class: ClassNo) -> FullPolicy {
        self.class(class)
            .map_or(FullPolicy::Reject, |queue| queue.config.full_policy)
    }

    pub fn push(&mut self, class: ClassNo, entry: &Entry) {
        let Some(queue) = self.classes.get_mut(usize::from(class.0)) else {
            return;
        };
        if queue.order.len() == 0 {
            self.stride.wake(class);
        }
        queue.order.push(entry);
    }

    /// Takes a task out without having served it.
    pub fn remove(&mut self, class: ClassNo, entry: &Entry) {
        if let Some(queue) = self.classes.get_mut(usize::from(class.0)) {
            queue.order.remove(entry);
        }
    }

    /// Takes a task out because it is served: its class is charged, and its flow for the input.
    pub fn serve(&mut self, class: ClassNo, entry: &Entry, input: Cost) {
        if let Some(queue) = self.classes.get_mut(usize::from(class.0)) {
            queue.order.serve(entry, input);
        }
        self.stride.charge(class);
    }

    /// The order that keeps the accounts of a class.
    pub fn accounts(&mut self, class: ClassNo) -> Option<&mut Order> {
        self.classes
            .get_mut(usize::from(class.0))
            .map(|queue| &mut queue.order)
    }

    /// Whether a new task of `class` may wait, and who gives way for it.
    pub fn room(&self, class: ClassNo, tenant: TenantNo) -> Room {
        let Some(queue) = self.class(class) else {
            return Room::Full;
        };
        let total: usize = self.waiting().sum();
        let most: usize = self.classes.iter().map(|c| c.config.capacity).sum();
        if queue.order.len() < queue.config.capacity && total < most {
            return Room::Free;
        }
        let evicted = match queue.config.full_policy {
            FullPolicy::Reject => queue.over_share(tenant),
            FullPolicy::DropLru => queue.least_recent(tenant),
            FullPolicy::ShedLowPriority => self.classes[usize::from(class.0) + 1..]
                .iter()
                .rev()
                .find_map(ClassQueue::shed)
                .or_else(|| queue.over_share(tenant)),
        };
        evicted.map_or(Room::Full, Room::Evict)
    }

    /// The next task among those whose need can be met: first a class whose next such task has waited
    /// longer than `max_wait_ms` (the longest overdue one), then by share.
    pub fn pick(
        &self,
        now: Time,
        placeable: &dyn Fn(Need) -> bool,
        queued_at: &dyn Fn(TaskNo) -> Time,
    ) -> Option<TaskNo> {
        let turn = |index: usize, queue: &ClassQueue, task: TaskNo| {
            let due = queue
                .config
                .max_wait_ms
                .map(|ms| queued_at(task).plus_ms(ms));
            match due {
                Some(due) if due <= now => (0, due.0, index),
                _ => (1, self.stride.pass(class_no(index)), index),
            }
        };
        self.classes
            .iter()
            .enumerate()
            .filter(|(_, queue)| queue.order.len() > 0)
            .filter_map(|(index, queue)| {
                let task = queue.order.next(placeable)?;
                Some((turn(index, queue, task), task))
            })
            .min()
            .map(|(_, task)| task)
    }

    /// How many tasks of this pool are dispatched before a waiting one.
    pub fn position(&self, class: ClassNo, entry: &Entry) -> usize {
        let rank = self
            .class(class)
            .map_or(0, |queue| queue.order.ahead_of(entry));
        self.ahead(class, rank)
    }

    /// How many tasks of this pool would be dispatched before a new one.
    pub fn next_position(&self, class: ClassNo, flow: Flow) -> usize {
        let rank = self
            .class(class)
            .map_or(0, |queue| queue.order.ahead_of_new(flow));
        self.ahead(class, rank)
    }

    /// The part of the dispatches that the class gets while the classes that wait now go on waiting, as
    /// (weight of the class, sum of the weights).
    pub fn share(&self, class: ClassNo) -> (u64, u64) {
        let weight = |queue: &ClassQueue| u64::from(queue.config.weight.max(1));
        let own = self.class(class).map_or(1, weight);
        let others: u64 = self
            .classes
            .iter()
            .enumerate()
            .filter(|(index, queue)| class_no(*index) != class && queue.order.len() > 0)
            .map(|(_, queue)| weight(queue))
            .sum();
        (own, own + others)
    }

    /// All waiting tasks, class by class, oldest first.
    pub fn tasks(&self) -> Vec<TaskNo> {
        self.classes
            .iter()
            .flat_map(|queue| queue.order.tasks())
            .collect()
    }

    fn ahead(&self, class: ClassNo, rank: usize) -> usize {
        let waiting: smallvec::SmallVec<[usize; 8]> = self.waiting().collect();
        self.stride.ahead(class, rank, &waiting)
    }

    fn waiting(&self) -> impl Iterator<Item = usize> {
        self.classes.iter().map(|queue| queue.order.len())
    }

    fn class(&self, class: ClassNo) -> Option<&ClassQueue> {
        self.classes.get(usize::from(class.0))
    }
}

/// Classes are numbered by a byte; `Scheduler::new` drops what is beyond.
fn class_no(index: usize) -> ClassNo {
    ClassNo(u8::try_from(index).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantNo = TenantNo(0);

    fn class(capacity: usize, full_policy: FullPolicy) -> ClassConfig {
        ClassConfig {
            weight: 1,
            capacity,
            full_policy,
            max_wait_ms: None,
        }
    }

    fn entry(task: u64) -> Entry {
        Entry {
            task: TaskNo(task),
            flow: Flow {
                tenant: TENANT,
                weight: 1,
            },
            need: Need {
                strict: false,
                set: None,
            },
        }
    }

    const HIGH: ClassNo = ClassNo(0);
    const LOW: ClassNo = ClassNo(1);

    #[test]
    fn a_full_queue_with_reject_has_no_room() {
        let mut queue = PoolQueue::new(&[class(1, FullPolicy::Reject)]);
        assert_eq!(queue.room(HIGH, TENANT), Room::Free);
        queue.push(HIGH, &entry(1));
        assert_eq!(queue.room(HIGH, TENANT), Room::Full);
    }

    #[test]
    fn a_full_queue_with_drop_lru_gives_up_its_oldest() {
        let mut queue = PoolQueue::new(&[class(2, FullPolicy::DropLru)]);
        queue.push(HIGH, &entry(1));
        queue.push(HIGH, &entry(2));
        assert_eq!(queue.room(HIGH, TENANT), Room::Evict(TaskNo(1)));
    }

    fn of_tenant(tenant: u32, task: u64) -> Entry {
        let tenant = TenantNo(tenant);
        let flow = Flow { tenant, weight: 1 };
        Entry {
            flow,
            ..entry(task)
        }
    }

    #[test]
    fn a_flood_gives_way_to_a_tenant_below_its_share() {
        let mut queue = PoolQueue::new(&[class(4, FullPolicy::Reject)]);
        for task in 1..=4 {
            queue.push(HIGH, &of_tenant(0, task));
        }
        assert_eq!(queue.room(HIGH, TenantNo(0)), Room::Full);
        for (task, gives_way) in [(5, 4), (6, 3)] {
            assert_eq!(
                queue.room(HIGH, TenantNo(1)),
                Room::Evict(TaskNo(gives_way))
            );
            queue.remove(HIGH, &of_tenant(0, gives_way));
            queue.push(HIGH, &of_tenant(1, task));
        }
        assert_eq!(queue.room(HIGH, TenantNo(1)), Room::Full, "at its share");
        assert_eq!(queue.room(HIGH, TenantNo(0)), Room::Full, "at its share");
        assert_eq!(queue.room(HIGH, TenantNo(2)), Room::Evict(TaskNo(6)));
    }

    #[test]
    fn drop_lru_takes_the_oldest_of_the_tenant_with_the_most() {
        let mut queue = PoolQueue::new(&[class(4, FullPolicy::DropLru)]);
        for (tenant, task) in [(1, 1), (0, 2), (0, 3), (0, 4)] {
            queue.push(HIGH, &of_tenant(tenant, task));
        }
        assert_eq!(queue.room(HIGH, TenantNo(1)), Room::Evict(TaskNo(2)));
        assert_eq!(queue.room(HIGH, TenantNo(2)), Room::Evict(TaskNo(2)));
        queue.remove(HIGH, &of_tenant(0, 2));
        queue.push(HIGH, &of_tenant(1, 5));
        assert_eq!(queue.room(HIGH, TenantNo(1)), Room::Evict(TaskNo(1)));
    }

    #[test]
    fn a_capacity_of_zero_with_drop_lru_is_full() {
        let queue = PoolQueue::new(&[class(0, FullPolicy::DropLru)]);
        assert_eq!(queue.room(HIGH, TENANT), Room::Full);
    }

    #[test]
    fn shed_takes_the_newest_of_the_lower_class_and_the_pool_stays_bounded() {
        let mut queue = PoolQueue::new(&[
            class(1, FullPolicy::ShedLowPriority),
            class(2, FullPolicy::Reject),
        ]);
        for (class, task) in [(HIGH, 1), (LOW, 2), (LOW, 3)] {
            queue.push(class, &entry(task));
        }
        assert_eq!(queue.room(HIGH, TENANT), Room::Evict(TaskNo(3)));
        queue.remove(LOW, &entry(3));
        queue.push(HIGH, &entry(4));
        assert_eq!(queue.room(LOW, TENANT), Room::Full, "its place was taken");
        queue.remove(LOW, &entry(2));
        queue.push(HIGH, &entry(5));
        assert_eq!(queue.room(HIGH, TENANT), Room::Full, "nobody lower is left");
    }

    #[test]
    fn an_overdue_class_goes_before_every_other() {
        let mut lower = class(9, FullPolicy::Reject);
        lower.max_wait_ms = Some(10);
        let mut upper = class(9, FullPolicy::Reject);
        upper.weight = 1000;
        let mut queue = PoolQueue::new(&[upper, lower]);
        queue.push(HIGH, &entry(1));
        queue.push(LOW, &entry(2));
        let pick = |ms: u64| queue.pick(Time::default().plus_ms(ms), &|_| true, &|_| Time(0));
        assert_eq!(pick(9), Some(TaskNo(1)));
        assert_eq!(pick(10), Some(TaskNo(2)));
    }
}
