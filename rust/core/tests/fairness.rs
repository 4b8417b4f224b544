//! Fairness between the tenants of a class, measured in a world where every token is counted: the bound that
//! `src/fairness.rs` derives holds in random worlds, and an order by arrival breaks it under a flood.

use std::collections::BTreeMap;

use orchqueue_core::{
    Action, AttemptEnd, AttemptNo, ClassConfig, ClassNo, Config, FullPolicy, Input, PoolNo,
    PoolSpec, PoolState, ReplicaNo, ReplicaSpec, Scheduler, SetNo, TaskNo, TaskSpec, TenantNo,
    Time, Timeouts, TokenPrices,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, TestRunner};

const POOL: PoolNo = PoolNo(0);
const HOUR_MS: u64 = 3_600_000;

/// What a tenant does: it keeps so many tasks waiting, of this size, and may fall silent for a while.
#[derive(Clone, Debug)]
struct Habit {
    weight: u32,
    waiting: usize,
    tokens_in: u32,
    tokens_out: u32,
    /// Ticks between two times of silence; 0: never silent.
    silent_every: u64,
}

#[derive(Clone, Debug)]
struct Setting {
    prices: TokenPrices,
    /// Slots of each replica.
    slots: Vec<u32>,
    habits: Vec<Habit>,
    /// An attempt that is stopped, one that fails, and a report of progress, once in so many tokens.
    cancel_every: u64,
    fail_every: u64,
    report_every: u64,
    /// By how many tokens an estimate of the input may be wrong.
    estimate_off: u32,
    seed: u64,
}

fn habit() -> impl Strategy<Value = Habit> {
    (
        1..5u32,
        1..4usize,
        1..60u32,
        1..25u32,
        prop_oneof![Just(0u64), 20..90u64],
    )
        .prop_map(
            |(weight, waiting, tokens_in, tokens_out, silent_every)| Habit {
                weight,
                waiting,
                tokens_in,
                tokens_out,
                silent_every,
            },
        )
}

fn setting() -> impl Strategy<Value = Setting> {
    let rare = || prop_oneof![Just(u64::MAX), 15..200u64];
    (
        (0..4u32, 1..4u32),
        prop::collection::vec(1..4u32, 1..3),
        prop::collection::vec(habit(), 2..6),
        (rare(), rare(), prop_oneof![Just(u64::MAX), 1..8u64]),
        prop_oneof![Just(0u32), 1..20u32],
        any::<u64>(),
    )
        .prop_map(|(prices, slots, mut habits, every, estimate_off, seed)| {
            // One tenant floods, and never stops.
            habits[0].waiting = 40;
            habits[0].silent_every = 0;
            let (cancel_every, fail_every, report_every) = every;
            Setting {
                prices: TokenPrices {
                    input: prices.0,
                    output: prices.1,
                },
                slots,
                habits,
                cancel_every,
                fail_every,
                report_every,
                estimate_off,
                seed,
            }
        })
}

/// A task as the world knows it.
#[derive(Clone, Debug)]
struct Work {
    tenant: usize,
    tokens_in: u32,
    tokens_out: u32,
    /// Output that the client has; an attempt that repeats it serves nothing.
    shown: u32,
    started: bool,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    task: TaskNo,
    attempt: AttemptNo,
    replica: ReplicaNo,
    decoded: u32,
}

/// Smallest and largest difference of service since both tenants wait.
type Spread = (i128, i128);

struct World {
    setting: Setting,
    /// Whether the scheduler is told who the tenants are; without it, it serves in order of arrival.
    told: bool,
    scheduler: Scheduler,
    now: Time,
    next: u64,
    works: BTreeMap<TaskNo, Work>,
    runs: Vec<Run>,
    waiting: Vec<usize>,
    served: Vec<i128>,
    most_in_flight: usize,
    spreads: BTreeMap<(usize, usize), Spread>,
    /// Largest spread, in parts of 1000 of the bound's numerator: spread / (2 max weight).
    widest: i128,
    events: u64,
}

impl World {
    fn new(setting: Setting, told: bool) -> Self {
        let class = ClassConfig {
            weight: 1,
            capacity: 10_000,
            full_policy: FullPolicy::Reject,
            max_wait_ms: None,
        };
        let tenants = setting.habits.len();
        let mut world = Self {
            told,
            scheduler: Scheduler::new(Config {
                classes: vec![class],
                session_ttl_ms: 0,
                session_max_turns: 8,
                max_attempts: 1_000,
                reclaim_ms: HOUR_MS,
                prices: setting.prices,
            }),
            now: Time(1),
            next: 1,
            works: BTreeMap::new(),
            runs: Vec::new(),
            waiting: vec![0; tenants],
            served: vec![0; tenants],
            most_in_flight: 0,
            spreads: BTreeMap::new(),
            widest: 0,
            events: setting.seed % 1_000,
            setting,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let timeouts = Timeouts {
            first_token_ms: HOUR_MS,
            idle_ms: HOUR_MS,
            wall_ms: HOUR_MS,
        };
        self.feed(Input::PoolSet(PoolSpec {
            pool: POOL,
            timeouts,
            state: PoolState::Ready,
        }));
        for (replica, slots) in (0..).map(ReplicaNo).zip(self.setting.slots.clone()) {
            self.feed(Input::ReplicaAdded(ReplicaSpec {
                replica,
                pool: POOL,
                set: SetNo(0),
                slots,
                reproducible: true,
            }));
            self.feed(Input::ReplicaReady(replica));
        }
        for (tenant, habit) in (0..).map(TenantNo).zip(self.setting.habits.clone()) {
            let weight = habit.weight;
            self.feed(Input::TenantSet { tenant, weight });
        }
    }

    /// Runs for some ticks and tells how wide the service of two waiting tenants came apart, and the bound.
    fn run(mut self, ticks: u64) -> (i128, i128) {
        for tick in 0..ticks {
            self.now = self.now.plus_ms(10);
            self.submit(tick);
            self.compare();
            for run in self.runs.clone() {
                self.decode(run);
                self.compare();
            }
        }
        (self.widest, self.bound())
    }

    /// `2 B`, with `B` as in the header of `src/fairness.rs`.
    fn bound(&self) -> i128 {
        let longest = |of: fn(&Habit) -> u32| self.setting.habits.iter().map(of).max().unwrap_or(0);
        let (input, output) = (longest(|h| h.tokens_in), longest(|h| h.tokens_out));
        let n = self.most_in_flight as i128;
        let prices = self.setting.prices;
        let off = i128::from(prices.input) * n * i128::from(self.setting.estimate_off);
        let b = i128::from(prices.input) * i128::from(input)
            + i128::from(prices.output) * n * i128::from(output);
        2 * (b + off)
    }

    fn submit(&mut self, tick: u64) {
        for tenant in 0..self.setting.habits.len() {
            let habit = self.setting.habits[tenant].clone();
            let silent = habit.silent_every > 0 && tick / habit.silent_every % 2 == 1;
            while !silent && self.waiting[tenant] < habit.waiting {
                let before = self.waiting[tenant];
                self.submit_one(tenant, &habit);
                if self.waiting[tenant] == before {
                    break;
                }
            }
        }
    }

    fn submit_one(&mut self, tenant: usize, habit: &Habit) {
        let (task, chance) = (TaskNo(self.next), self.chance());
        self.next += 1;
        let tokens_in = 1 + chance % habit.tokens_in;
        let tokens_out = 1 + (chance >> 8) % habit.tokens_out;
        let off = (chance >> 16) % (2 * self.setting.estimate_off + 1);
        let work = Work {
            tenant,
            tokens_in,
            tokens_out,
            shown: 0,
            started: false,
        };
        self.works.insert(task, work);
        let told = if self.told { tenant as u32 } else { 0 };
        self.feed(Input::Submit(Box::new(TaskSpec {
            task,
            tenant: TenantNo(told),
            class: ClassNo(0),
            session: None,
            eligible: vec![POOL],
            strict: false,
            strict_explicit: false,
            tokens_in_estimate: (tokens_in + off).saturating_sub(self.setting.estimate_off),
            tokens_out_max: tokens_out,
            tokens_out_expected: None,
            deadline: None,
            resumable: true,
            recovered: false,
        })));
    }

    /// The attempt brings one token, and ends if that was the last, or if it is stopped or fails.
    fn decode(&mut self, mut run: Run) {
        if !self.runs.iter().any(|other| other.task == run.task) {
            return;
        }
        run.decoded += 1;
        self.runs
            .iter_mut()
            .filter(|other| other.task == run.task)
            .for_each(|other| other.decoded += 1);
        let Some(work) = self.works.get_mut(&run.task) else {
            return;
        };
        if run.decoded > work.shown {
            work.shown = run.decoded;
            self.served[work.tenant] += i128::from(self.setting.prices.output);
        }
        let work = work.clone();
        self.events += 1;
        if run.decoded >= work.tokens_out {
            let (tokens_in, tokens_out) = (work.tokens_in, run.decoded);
            self.end(
                run,
                AttemptEnd::Finished {
                    tokens_in,
                    tokens_out,
                },
            );
        } else if self.events.is_multiple_of(self.setting.cancel_every) {
            self.feed(Input::Cancel(run.task));
            self.end(run, AttemptEnd::Stopped);
            let (replica, task) = (run.replica, run.task);
            self.feed(Input::SlotIdle { replica, task });
        } else if self.events.is_multiple_of(self.setting.fail_every) {
            self.end(run, AttemptEnd::Failed { resumable: true });
            self.feed(Input::ReplicaReady(run.replica));
        } else if run.decoded == 1 || self.events.is_multiple_of(self.setting.report_every) {
            self.feed(Input::Progress {
                task: run.task,
                attempt: run.attempt,
                at: self.now,
                tokens_out: run.decoded,
            });
        }
    }

    fn end(&mut self, run: Run, end: AttemptEnd) {
        self.runs.retain(|other| other.task != run.task);
        self.feed(Input::AttemptEnded {
            task: run.task,
            attempt: run.attempt,
            end,
            tokens_out: run.decoded,
        });
    }

    fn feed(&mut self, input: Input) {
        for action in self.scheduler.handle(self.now, input) {
            match action {
                Action::Admitted { task, .. } => self.waiting[self.works[&task].tenant] += 1,
                Action::Start {
                    task,
                    attempt,
                    replica,
                } => self.started(task, attempt, replica),
                Action::End { task, .. } => self.ended(task),
                Action::Rejected { .. } => unreachable!("the queue is long enough"),
                Action::Stop { .. } | Action::Probe { .. } | Action::ReportProgress { .. } => {}
            }
        }
    }

    fn started(&mut self, task: TaskNo, attempt: AttemptNo, replica: ReplicaNo) {
        let decoded = 0;
        self.runs.push(Run {
            task,
            attempt,
            replica,
            decoded,
        });
        if let Some(work) = self.works.get_mut(&task)
            && !work.started
        {
            work.started = true;
            let tenant = work.tenant;
            self.served[tenant] +=
                i128::from(self.setting.prices.input) * i128::from(work.tokens_in);
            self.left_the_queue(tenant);
        }
        let in_flight = self.works.values().filter(|work| work.started).count();
        self.most_in_flight = self.most_in_flight.max(in_flight);
    }

    fn ended(&mut self, task: TaskNo) {
        if let Some(work) = self.works.remove(&task)
            && !work.started
        {
            self.left_the_queue(work.tenant);
        }
    }

    /// A tenant with nothing left in the queue does not wait: what is compared begins anew.
    fn left_the_queue(&mut self, tenant: usize) {
        self.waiting[tenant] -= 1;
        if self.waiting[tenant] == 0 {
            self.spreads
                .retain(|(one, two), _| *one != tenant && *two != tenant);
        }
    }

    fn compare(&mut self) {
        let waits: Vec<usize> = (0..self.waiting.len())
            .filter(|tenant| self.waiting[*tenant] > 0)
            .collect();
        for (i, one) in waits.iter().enumerate() {
            for two in &waits[i + 1..] {
                let weight = |tenant: usize| i128::from(self.setting.habits[tenant].weight);
                let difference =
                    self.served[*one] * weight(*two) - self.served[*two] * weight(*one);
                let spread = self
                    .spreads
                    .entry((*one, *two))
                    .or_insert((difference, difference));
                *spread = (spread.0.min(difference), spread.1.max(difference));
                let normal = weight(*one).max(weight(*two));
                let wide = (spread.1 - spread.0).div_euclid(normal);
                self.widest = self.widest.max(wide);
            }
        }
    }

    /// A number that depends on the setting alone.
    fn chance(&self) -> u32 {
        let mut x = self.setting.seed ^ self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (x >> 32) as u32
    }
}

proptest! {
    #![proptest_config(Runs { cases: 400, failure_persistence: None, ..Runs::default() })]

    #[test]
    fn the_service_of_two_waiting_tenants_stays_within_the_bound(setting in setting()) {
        let (widest, bound) = World::new(setting, true).run(600);
        prop_assert!(widest <= bound, "{widest} > {bound}");
    }
}

#[test]
fn control_an_order_by_arrival_breaks_the_bound_under_a_flood() {
    let mut runner = TestRunner::deterministic();
    let broken = (0..60)
        .filter_map(|_| Some(setting().new_tree(&mut runner).ok()?.current()))
        .filter(|setting| {
            let (widest, bound) = World::new(setting.clone(), false).run(600);
            widest > bound
        })
        .count();
    assert!(
        broken >= 30,
        "the bound was broken in only {broken} of 60 worlds"
    );
}
