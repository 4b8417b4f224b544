//! An auditor of traces. It keeps a plain model of its own (who waits, who runs where, which replica is open)
//! from the inputs and actions alone, and says what the scheduler did that it must not do.

use std::collections::{BTreeMap, BTreeSet};

use orchqueue_core::{
    Action, AttemptEnd, AttemptNo, ClassNo, Config, EndReason, FullPolicy, Input, PoolNo,
    PoolState, Refusal, ReplicaNo, ReplicaSpec, SetNo, StopReason, TaskNo, TaskSpec, TenantNo,
    Time, TimeoutKind,
};

use crate::world::Step;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A task was started before an older one of its tenant, or one that had come back, that could have been.
    Fifo,
    /// More tasks wait than the bounds allow.
    Bounds,
    /// An admitted task has not ended although the world came to rest.
    Lost,
    /// A task ended twice, or ended without having been admitted.
    EndedTwice,
    /// A task was started, stopped or asked after its end.
    AfterEnd,
    /// A free slot while a placeable task waits.
    Idle,
    /// A start without a free slot of an open replica, or a slot count that differs from the model.
    Slots,
    /// Attempts of one task in two sets, or a strict task where the promise is not kept.
    MixedSets,
    /// A start on a replica although a less loaded one was free.
    NotLeastLoaded,
    /// A submitted task got no answer or more than one, or an unknown attempt number.
    Protocol,
    /// A task was given up for a silent replica although another could go on, or a stopped one goes on that
    /// must not.
    Failover,
    /// A tenant below its share of a full queue was refused, or the wrong task gave way.
    Share,
    /// A cancel of a live task that was not answered by its end at once.
    CancelIgnored,
}

#[derive(Clone, Debug)]
struct Known {
    spec: TaskSpec,
    pool: PoolNo,
    attempts: u32,
    set: Option<SetNo>,
    waits: bool,
}

#[derive(Clone, Debug)]
struct Replica {
    spec: ReplicaSpec,
    ready: bool,
    rests_until: Option<Time>,
}

/// See the module's header.
pub struct Auditor<'a> {
    config: &'a Config,
    tasks: BTreeMap<TaskNo, Known>,
    ended: BTreeSet<TaskNo>,
    /// Every replica that was ever added; the removed ones keep their open attempts.
    specs: BTreeMap<ReplicaNo, ReplicaSpec>,
    replicas: BTreeMap<ReplicaNo, Replica>,
    running: BTreeMap<TaskNo, (AttemptNo, ReplicaNo)>,
    reclaiming: BTreeMap<(TaskNo, AttemptNo), ReplicaNo>,
    places: BTreeMap<PoolNo, bool>,
    found: BTreeSet<Violation>,
}

/// All that is wrong with a trace.
pub fn audit(config: &Config, trace: &[Step]) -> BTreeSet<Violation> {
    let mut auditor = Auditor {
        config,
        tasks: BTreeMap::new(),
        ended: BTreeSet::new(),
        specs: BTreeMap::new(),
        replicas: BTreeMap::new(),
        running: BTreeMap::new(),
        reclaiming: BTreeMap::new(),
        places: BTreeMap::new(),
        found: BTreeSet::new(),
    };
    for step in trace {
        auditor.step(step);
    }
    auditor.require(auditor.tasks.is_empty(), Violation::Lost);
    auditor.found
}

impl Auditor<'_> {
    fn step(&mut self, step: &Step) {
        let waiting_before = self.waiting_by_class();
        self.input(&step.input, step.now);
        self.wake(step.now);
        for action in &step.actions {
            self.action(action, step);
        }
        self.answers(step);
        self.bounds(step, &waiting_before);
        for (no, view) in &step.tasks {
            if let Some(task) = self.tasks.get_mut(no) {
                task.pool = view.pool;
            }
        }
        self.slot_counts(step);
        self.idle_slots();
        let adrift = |(no, task): (&TaskNo, &Known)| !task.waits && !self.running.contains_key(no);
        let adrift = self.tasks.iter().any(adrift);
        self.require(!adrift, Violation::Failover);
    }

    fn input(&mut self, input: &Input, now: Time) {
        match input {
            Input::PoolSet(spec) => {
                self.places
                    .insert(spec.pool, spec.state != PoolState::Failed);
            }
            Input::PoolRemoved(pool) => {
                self.places.insert(*pool, false);
            }
            Input::ReplicaAdded(spec) => {
                self.specs.insert(spec.replica, spec.clone());
                self.replicas.insert(
                    spec.replica,
                    Replica {
                        spec: spec.clone(),
                        ready: false,
                        rests_until: None,
                    },
                );
            }
            Input::ReplicaReady(no) => self.ready(*no),
            Input::ReplicaUnready(no) => self.unready(*no),
            Input::ReplicaRemoved(no) => {
                self.replicas.remove(no);
                self.reclaiming.retain(|_, at| at != no);
            }
            Input::AttemptEnded {
                task, attempt, end, ..
            } => {
                self.attempt_ended((*task, *attempt), end, now);
            }
            Input::SlotIdle { replica, task } => {
                self.reclaiming
                    .retain(|(t, _), at| (t, &*at) != (task, replica));
            }
            _ => {}
        }
    }

    fn ready(&mut self, no: ReplicaNo) {
        if let Some(replica) = self.replicas.get_mut(&no)
            && !replica.ready
        {
            replica.ready = true;
            replica.rests_until = None;
            self.reclaiming.retain(|_, at| *at != no);
        }
    }

    fn unready(&mut self, no: ReplicaNo) {
        if let Some(replica) = self.replicas.get_mut(&no) {
            replica.ready = false;
        }
    }

    fn attempt_ended(&mut self, (task, attempt): (TaskNo, AttemptNo), end: &AttemptEnd, now: Time) {
        let held = |(number, at): &(AttemptNo, ReplicaNo)| (*number == attempt).then_some(*at);
        let live = self.running.get(&task).and_then(held);
        let late = self.reclaiming.get(&(task, attempt)).copied();
        if live.is_some() {
            self.running.remove(&task);
            let returned = matches!(
                end,
                AttemptEnd::Busy { .. } | AttemptEnd::Failed { resumable: true }
            );
            if let Some(known) = self.tasks.get_mut(&task) {
                known.waits = returned;
            }
        }
        let stopped = *end == AttemptEnd::Stopped;
        let failed = matches!(end, AttemptEnd::Failed { .. });
        if late.is_some() && !stopped && !failed {
            self.reclaiming.remove(&(task, attempt));
        }
        let Some(at) = live.or(late) else {
            return;
        };
        if failed || (stopped && live.is_some()) {
            self.unready(at);
        }
        if let (AttemptEnd::Busy { retry_after_ms }, Some(replica)) =
            (end, self.replicas.get_mut(&at))
        {
            let until = now.plus_ms(retry_after_ms.unwrap_or(1000));
            replica.rests_until = replica.rests_until.max(Some(until));
        }
    }

    /// A replica that has rested long enough is back before anything is placed.
    fn wake(&mut self, now: Time) {
        for replica in self.replicas.values_mut() {
            replica.rests_until = replica.rests_until.filter(|until| *until > now);
        }
    }

    fn action(&mut self, action: &Action, step: &Step) {
        match *action {
            Action::Admitted { task, pool, .. } => self.admitted(task, pool, step),
            Action::Start {
                task,
                attempt,
                replica,
            } => self.started(task, (attempt, replica), step),
            Action::Stop {
                task,
                attempt,
                replica,
                reason,
            } => self.stopped(task, (attempt, replica), reason),
            Action::ReportProgress { task, attempt } => {
                let asked = self.running.get(&task).map(|(number, _)| *number);
                self.require(asked == Some(attempt), Violation::AfterEnd);
            }
            Action::End { task, reason } => {
                if let EndReason::Refused(Refusal::Evicted(policy)) = reason {
                    self.gave_way(task, policy);
                }
                self.ended(task, reason);
            }
            Action::Probe { replica } => self.unready(replica),
            Action::Rejected {
                refusal: Refusal::QueueFull(policy),
                ..
            } => self.refused(policy, step),
            Action::Rejected { .. } => {}
        }
    }

    fn stopped(&mut self, task: TaskNo, held: (AttemptNo, ReplicaNo), reason: StopReason) {
        let running = self.running.remove(&task);
        self.require(running == Some(held), Violation::AfterEnd);
        let (attempt, replica) = held;
        if self.replicas.contains_key(&replica) {
            self.reclaiming.insert((task, attempt), replica);
        }
        let promises = self.specs.get(&replica).is_some_and(|r| r.reproducible);
        let silent = matches!(
            reason,
            StopReason::TimedOut(TimeoutKind::FirstToken | TimeoutKind::Idle)
        );
        let attempts_left = attempt.0 < self.config.max_attempts;
        if let Some(known) = self.tasks.get_mut(&task) {
            known.waits = silent && promises && attempts_left && known.spec.resumable;
        }
    }

    fn admitted(&mut self, task: TaskNo, pool: PoolNo, step: &Step) {
        let Input::Submit(spec) = &step.input else {
            return self.require(false, Violation::Protocol);
        };
        let fresh = spec.task == task && !self.ended.contains(&task);
        self.require(fresh, Violation::Protocol);
        self.tasks.insert(
            task,
            Known {
                spec: (**spec).clone(),
                pool,
                attempts: 0,
                set: None,
                waits: true,
            },
        );
    }

    fn started(&mut self, no: TaskNo, (attempt, at): (AttemptNo, ReplicaNo), step: &Step) {
        let (Some(task), Some(spec)) = (self.tasks.get(&no).cloned(), self.specs.get(&at).cloned())
        else {
            return self.require(false, Violation::AfterEnd);
        };
        self.require(task.waits, Violation::AfterEnd);
        self.require(attempt.0 == task.attempts + 1, Violation::Protocol);
        self.require(self.is_open(at), Violation::Slots);
        self.require(Self::meets(&task, &spec), Violation::MixedSets);
        self.fifo(no, &task, &spec, step);
        if task.spec.session.is_none() && self.is_open(at) {
            let loads = |r: &ReplicaSpec| (self.held(r.replica) << 16) / r.slots as usize;
            let better = self
                .open_replicas(spec.pool)
                .filter(|other| Self::meets(&task, other))
                .any(|other| loads(other) < loads(&spec));
            self.require(!better, Violation::NotLeastLoaded);
        }
        if let Some(known) = self.tasks.get_mut(&no) {
            known.waits = false;
            known.attempts = attempt.0;
            known.set = Some(spec.set);
            known.pool = spec.pool;
        }
        self.running.insert(no, (attempt, at));
    }

    fn fifo(&mut self, no: TaskNo, task: &Known, spec: &ReplicaSpec, step: &Step) {
        let passed_over = self.tasks.iter().any(|(other, known)| {
            let stayed = |views: &Step| {
                views
                    .tasks
                    .get(other)
                    .is_none_or(|view| view.pool == spec.pool)
            };
            // A task that comes back goes before all new ones; else a tenant's tasks keep their order.
            let (returned, fresh) = (known.attempts > 0, task.attempts == 0);
            let earlier = *other < no && (known.spec.tenant == task.spec.tenant || returned);
            (if fresh {
                returned || earlier
            } else {
                returned && earlier
            }) && known.waits
                && known.spec.class == task.spec.class
                && known.pool == spec.pool
                && task.pool == spec.pool
                && stayed(step)
                && self
                    .open_replicas(spec.pool)
                    .any(|replica| Self::meets(known, replica))
        });
        self.require(!passed_over, Violation::Fifo);
    }

    fn ended(&mut self, task: TaskNo, reason: EndReason) {
        let known = self.tasks.remove(&task);
        self.require(known.is_some(), Violation::EndedTwice);
        let first = self.ended.insert(task);
        self.require(first, Violation::EndedTwice);
        let open = self.running.contains_key(&task);
        self.require(!open, Violation::Protocol);
        let timed_out = matches!(reason, EndReason::TimedOut(_));
        let given_up = timed_out && known.as_ref().is_some_and(|k| k.waits);
        self.require(!given_up, Violation::Failover);
        let finished_waiting = known.is_some_and(|k| k.waits) && reason == EndReason::Finished;
        self.require(!finished_waiting, Violation::Protocol);
    }

    /// The tasks that may give way, by tenant, oldest first.
    fn fresh(&self, pool: PoolNo, class: ClassNo) -> BTreeMap<TenantNo, Vec<TaskNo>> {
        let mut fresh: BTreeMap<TenantNo, Vec<TaskNo>> = BTreeMap::new();
        for (no, task) in &self.tasks {
            if task.waits && task.attempts == 0 && task.pool == pool && task.spec.class == class {
                fresh.entry(task.spec.tenant).or_default().push(*no);
            }
        }
        fresh
    }

    fn refused(&mut self, policy: FullPolicy, step: &Step) {
        let Input::Submit(spec) = &step.input else {
            return self.require(false, Violation::Protocol);
        };
        let [pool] = spec.eligible[..] else {
            return;
        };
        let mut fresh = self.fresh(pool, spec.class);
        let most = fresh.values().map(Vec::len).max().unwrap_or(0);
        let own = fresh.entry(spec.tenant).or_default().len();
        let capacity = self.config.classes[usize::from(spec.class.0)].capacity;
        let fair = match policy {
            FullPolicy::DropLru => most == 0,
            FullPolicy::Reject | FullPolicy::ShedLowPriority => {
                own * fresh.len() >= capacity || most <= own
            }
        };
        self.require(fair, Violation::Share);
    }

    fn gave_way(&mut self, no: TaskNo, policy: FullPolicy) {
        let Some(task) = self.tasks.get(&no) else {
            return;
        };
        let fresh = self.fresh(task.pool, task.spec.class);
        let own = fresh.get(&task.spec.tenant).cloned().unwrap_or_default();
        let most = fresh.values().map(Vec::len).max();
        let right = match policy {
            FullPolicy::DropLru => own.first(),
            FullPolicy::Reject | FullPolicy::ShedLowPriority => own.last(),
        };
        let fair = most == Some(own.len()) && right == Some(&no);
        self.require(fair, Violation::Share);
    }

    /// Every new task is answered once, every cancel of a live one ends it.
    fn answers(&mut self, step: &Step) {
        match &step.input {
            Input::Submit(spec) => {
                let answers = step.actions.iter().filter(|action| {
                    matches!(action, Action::Admitted { task, .. } | Action::Rejected { task, .. }
                        if *task == spec.task)
                });
                self.require(answers.count() == 1, Violation::Protocol);
            }
            Input::Cancel(task) => {
                self.require(!self.tasks.contains_key(task), Violation::CancelIgnored);
            }
            _ => {}
        }
    }

    fn bounds(&mut self, step: &Step, before: &BTreeMap<(PoolNo, usize), usize>) {
        let Input::Submit(spec) = &step.input else {
            return;
        };
        let Some(task) = self.tasks.get(&spec.task) else {
            return;
        };
        if spec.recovered || !task.waits {
            return;
        }
        let (pool, class) = (task.pool, usize::from(spec.class.0));
        let after = self.waiting_by_class();
        let count = |of: &BTreeMap<(PoolNo, usize), usize>| of.get(&(pool, class)).copied();
        let total = |of: &BTreeMap<(PoolNo, usize), usize>| {
            let of_pool = of.iter().filter(|((p, _), _)| *p == pool);
            of_pool.map(|(_, count)| *count).sum::<usize>()
        };
        let config = &self.config.classes[class];
        let most: usize = self.config.classes.iter().map(|c| c.capacity).sum();
        let own = count(&after) <= count(before).max(Some(config.capacity));
        let lent = config.full_policy == FullPolicy::ShedLowPriority;
        let all = total(&after) <= total(before).max(most);
        self.require(all && (own || lent), Violation::Bounds);
    }

    fn slot_counts(&mut self, step: &Step) {
        for (no, view) in &step.replicas {
            let held = usize::try_from(view.in_flight + view.reclaiming).unwrap_or(usize::MAX);
            let within = view.in_flight + view.reclaiming <= view.slots;
            self.require(within && held == self.held(*no), Violation::Slots);
        }
    }

    fn idle_slots(&mut self) {
        let idle = self.tasks.values().filter(|task| task.waits).any(|task| {
            self.places.get(&task.pool) == Some(&true)
                && self
                    .open_replicas(task.pool)
                    .any(|replica| Self::meets(task, replica))
        });
        self.require(!idle, Violation::Idle);
    }

    fn waiting_by_class(&self) -> BTreeMap<(PoolNo, usize), usize> {
        let mut counts = BTreeMap::new();
        for task in self.tasks.values().filter(|task| task.waits) {
            let class = usize::from(task.spec.class.0);
            *counts.entry((task.pool, class)).or_default() += 1;
        }
        counts
    }

    fn meets(task: &Known, replica: &ReplicaSpec) -> bool {
        let strict = task.spec.strict || task.spec.strict_explicit;
        (replica.reproducible || !strict) && task.set.is_none_or(|set| set == replica.set)
    }

    fn open_replicas(&self, pool: PoolNo) -> impl Iterator<Item = &ReplicaSpec> {
        self.replicas
            .values()
            .map(|replica| &replica.spec)
            .filter(move |spec| spec.pool == pool && self.is_open(spec.replica))
    }

    fn is_open(&self, no: ReplicaNo) -> bool {
        self.replicas.get(&no).is_some_and(|replica| {
            replica.ready
                && replica.rests_until.is_none()
                && self.held(no) < replica.spec.slots as usize
        })
    }

    fn held(&self, no: ReplicaNo) -> usize {
        let running = self.running.values().map(|(_, at)| at);
        let held = running.chain(self.reclaiming.values());
        held.filter(|at| **at == no).count()
    }

    fn require(&mut self, holds: bool, violation: Violation) {
        if !holds {
            self.found.insert(violation);
        }
    }
}
