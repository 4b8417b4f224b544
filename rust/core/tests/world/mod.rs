//! A small world around the scheduler: it turns random moves into inputs that make sense (and some that do
//! not), performs the actions, and records everything as a trace.

use std::collections::BTreeMap;

use orchqueue_core::{
    Action, AttemptEnd, AttemptNo, ClassConfig, ClassNo, Config, FullPolicy, Input, PoolNo,
    PoolSpec, PoolState, ReplicaNo, ReplicaSpec, ReplicaView, Scheduler, SessionKey, SetNo, TaskNo,
    TaskSpec, TaskView, TenantNo, Time, Timeouts, TokenPrices,
};
use proptest::prelude::*;

pub const POOLS: u32 = 2;
pub const SETS: u32 = 3;
pub const START: Time = Time(1_000_000_000);
const TIMEOUTS: Timeouts = Timeouts {
    first_token_ms: 100,
    idle_ms: 20,
    wall_ms: 400,
};

/// One thing that happens. Numbers choose among what exists, modulo its count.
#[derive(Clone, Debug)]
pub enum Move {
    Submit(Wish),
    SubmitAgain(usize),
    Cancel(usize),
    Token(usize),
    Finish(usize),
    Refuse(usize),
    Busy(usize, Option<u64>),
    Fail(usize, bool),
    /// The stopped exchange ends: as told, or by what happened just before it was told.
    StopClosed(usize, u8),
    SlotIdle(usize),
    AddReplica {
        pool: u32,
        set: u32,
        slots: u32,
    },
    Ready(usize),
    Unready(usize),
    Remove(usize),
    Pool(u32, PoolState),
    RemovePool(u32),
    CloseSession(u128),
    Advance(u64),
    /// Inputs that name what does not exist any more, or never did.
    Junk(u8, usize),
}

/// What a random task asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    class: u8,
    tenant: u32,
    session: Option<u128>,
    pools: u8,
    strict: bool,
    resumable: bool,
    deadline_ms: Option<u64>,
    recovered: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    (
        (0..3u8, prop_oneof![3 => Just(0), 1 => 1..4u32]),
        prop::option::weighted(0.3, 0..4u128),
        0..8u8,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.5),
        prop::option::weighted(0.2, 0..300u64),
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |((class, tenant), session, pools, strict, resumable, deadline_ms, recovered)| Wish {
                class,
                tenant,
                session,
                pools,
                strict,
                resumable,
                deadline_ms,
                recovered,
            },
        )
}

fn one_move() -> impl Strategy<Value = Move> {
    let pool_state = prop_oneof![
        2 => Just(PoolState::Starting),
        6 => Just(PoolState::Ready),
        1 => Just(PoolState::Draining),
        1 => Just(PoolState::Failed),
    ];
    prop_oneof![
        30 => wish().prop_map(Move::Submit),
        1 => any::<usize>().prop_map(Move::SubmitAgain),
        5 => any::<usize>().prop_map(Move::Cancel),
        8 => any::<usize>().prop_map(Move::Token),
        15 => any::<usize>().prop_map(Move::Finish),
        2 => any::<usize>().prop_map(Move::Refuse),
        3 => (any::<usize>(), prop::option::of(0..60u64)).prop_map(|(i, ms)| Move::Busy(i, ms)),
        5 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(i, r)| Move::Fail(i, r)),
        4 => (any::<usize>(), 0..5u8).prop_map(|(i, how)| Move::StopClosed(i, how)),
        5 => any::<usize>().prop_map(Move::SlotIdle),
        2 => (0..POOLS, 0..SETS, 1..4u32)
            .prop_map(|(pool, set, slots)| Move::AddReplica { pool, set, slots }),
        10 => any::<usize>().prop_map(Move::Ready),
        2 => any::<usize>().prop_map(Move::Unready),
        1 => any::<usize>().prop_map(Move::Remove),
        2 => (0..POOLS, pool_state).prop_map(|(pool, state)| Move::Pool(pool, state)),
        1 => (0..POOLS).prop_map(Move::RemovePool),
        1 => (0..4u128).prop_map(Move::CloseSession),
        12 => (0..120u64).prop_map(Move::Advance),
        2 => (any::<u8>(), any::<usize>()).prop_map(|(kind, i)| Move::Junk(kind, i)),
    ]
}

pub fn moves() -> impl Strategy<Value = Vec<Move>> {
    prop::collection::vec(one_move(), 1..250)
}

fn class() -> impl Strategy<Value = ClassConfig> {
    (
        1..6u32,
        0..5usize,
        prop_oneof![
            Just(FullPolicy::Reject),
            Just(FullPolicy::DropLru),
            Just(FullPolicy::ShedLowPriority)
        ],
        prop::option::of(0..200u64),
    )
        .prop_map(|(weight, capacity, full_policy, max_wait_ms)| ClassConfig {
            weight,
            capacity,
            full_policy,
            max_wait_ms,
        })
}

pub fn config() -> impl Strategy<Value = Config> {
    (prop::collection::vec(class(), 3), 1..5u32).prop_map(|(classes, max_attempts)| Config {
        classes,
        session_ttl_ms: 100,
        session_max_turns: 3,
        max_attempts,
        reclaim_ms: 50,
        prices: TokenPrices::default(),
    })
}

/// One call of `handle` and what could be seen after it.
#[derive(Clone, Debug)]
pub struct Step {
    pub now: Time,
    pub input: Input,
    pub actions: Vec<Action>,
    pub tasks: BTreeMap<TaskNo, TaskView>,
    pub replicas: BTreeMap<ReplicaNo, ReplicaView>,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    task: TaskNo,
    attempt: AttemptNo,
    replica: ReplicaNo,
}

/// The world and its scheduler.
pub struct World {
    pub scheduler: Scheduler,
    pub trace: Vec<Step>,
    now: Time,
    next_task: u64,
    next_replica: u32,
    live: Vec<TaskNo>,
    running: Vec<Exchange>,
    stopped: Vec<Exchange>,
    asked: Vec<TaskNo>,
    replicas: Vec<ReplicaNo>,
}

impl World {
    pub fn new(config: Config) -> Self {
        let mut world = Self {
            scheduler: Scheduler::new(config),
            trace: Vec::new(),
            now: START,
            next_task: 1,
            next_replica: 1,
            live: Vec::new(),
            running: Vec::new(),
            stopped: Vec::new(),
            asked: Vec::new(),
            replicas: Vec::new(),
        };
        for tenant in (0..4).map(TenantNo) {
            let weight = tenant.0 % 3;
            world.feed(Input::TenantSet { tenant, weight });
        }
        for pool in 0..POOLS {
            world.pool(pool, PoolState::Ready);
            for set in 0..2 {
                let replica = world.add_replica(pool, set, 2);
                world.feed(Input::ReplicaReady(replica));
            }
        }
        world
    }

    /// Runs the moves, then lets everything come to rest.
    pub fn run(config: Config, moves: &[Move]) -> Self {
        let mut world = Self::new(config);
        for one in moves {
            world.perform(one);
        }
        world.drain();
        world
    }

    fn perform(&mut self, one: &Move) {
        match *one {
            Move::Submit(ref wish) => self.submit(wish),
            Move::Advance(ms) => self.advance(ms),
            Move::Pool(pool, state) => self.pool(pool, state),
            Move::RemovePool(pool) => self.feed(Input::PoolRemoved(PoolNo(pool))),
            Move::CloseSession(id) => self.feed(Input::SessionClosed(session(id))),
            Move::AddReplica { pool, set, slots } => {
                self.add_replica(pool, set, slots);
            }
            Move::Junk(kind, i) => self.junk(kind, i),
            Move::SubmitAgain(i) => {
                if let Some(task) = pick(&self.live, i) {
                    let again = self.spec(task, &plain_wish());
                    self.feed(Input::Submit(Box::new(again)));
                }
            }
            Move::Cancel(i) => {
                if let Some(task) = pick(&self.live, i) {
                    self.feed(Input::Cancel(task));
                }
            }
            Move::Ready(i) | Move::Unready(i) | Move::Remove(i) => self.replica_move(one, i),
            Move::StopClosed(i, how) => {
                if let Some(exchange) = pick(&self.stopped, i) {
                    self.stop_closed(exchange, how);
                }
            }
            Move::SlotIdle(i) => {
                if let Some(exchange) = pick(&self.stopped, i) {
                    self.slot_idle(exchange);
                }
            }
            Move::Token(i)
            | Move::Finish(i)
            | Move::Refuse(i)
            | Move::Busy(i, _)
            | Move::Fail(i, _) => {
                if let Some(exchange) = pick(&self.running, i) {
                    self.exchange_move(one, exchange);
                }
            }
        }
    }

    fn exchange_move(&mut self, one: &Move, exchange: Exchange) {
        let end = match *one {
            Move::Finish(_) => AttemptEnd::Finished {
                tokens_in: 3,
                tokens_out: 5,
            },
            Move::Refuse(_) => AttemptEnd::Refused,
            Move::Busy(_, retry_after_ms) => AttemptEnd::Busy { retry_after_ms },
            Move::Fail(_, resumable) => AttemptEnd::Failed { resumable },
            _ => return self.token(exchange),
        };
        self.attempt_ended(exchange, end);
    }

    fn stop_closed(&mut self, exchange: Exchange, how: u8) {
        match how {
            0 => self.exchange_move(&Move::Finish(0), exchange),
            1 => self.exchange_move(&Move::Busy(0, None), exchange),
            2 => self.exchange_move(&Move::Fail(0, true), exchange),
            _ => self.attempt_ended(exchange, AttemptEnd::Stopped),
        }
    }

    fn replica_move(&mut self, one: &Move, i: usize) {
        let Some(replica) = pick(&self.replicas, i) else {
            return;
        };
        if matches!(one, Move::Remove(_)) {
            self.replicas.retain(|r| *r != replica);
        }
        self.feed(match one {
            Move::Ready(_) => Input::ReplicaReady(replica),
            Move::Unready(_) => Input::ReplicaUnready(replica),
            _ => Input::ReplicaRemoved(replica),
        });
    }

    fn junk(&mut self, kind: u8, i: usize) {
        let task = TaskNo(i as u64 % (self.next_task + 3));
        let attempt = AttemptNo(u32::from(kind) % 4 + 7);
        let replica = ReplicaNo(u32::from(kind) + 1_000);
        self.feed(match kind % 8 {
            0 => Input::Cancel(TaskNo(self.next_task + 5)),
            1 => Input::SlotIdle { replica, task },
            2 => Input::ReplicaReady(replica),
            3 => Input::ReplicaRemoved(replica),
            4 => Input::PoolRemoved(PoolNo(77)),
            5 => Input::Progress {
                task,
                attempt,
                at: self.now,
                tokens_out: 3,
            },
            6 => Input::AttemptEnded {
                task,
                attempt,
                end: AttemptEnd::Failed { resumable: true },
                tokens_out: 9,
            },
            _ => Input::Tick,
        });
    }

    fn submit(&mut self, wish: &Wish) {
        let task = TaskNo(self.next_task);
        self.next_task += 1;
        let spec = self.spec(task, wish);
        self.feed(Input::Submit(Box::new(spec)));
    }

    fn spec(&self, task: TaskNo, wish: &Wish) -> TaskSpec {
        let eligible = match wish.pools {
            0..=2 => vec![PoolNo(0)],
            3..=4 => vec![PoolNo(1)],
            5 => vec![PoolNo(1), PoolNo(0)],
            6 => vec![PoolNo(0), PoolNo(1), PoolNo(9)],
            _ => vec![PoolNo(9)],
        };
        TaskSpec {
            task,
            tenant: TenantNo(wish.tenant),
            class: ClassNo(wish.class),
            session: wish.session.map(|id| SessionKey(TenantNo(wish.tenant), id)),
            eligible,
            strict: wish.strict,
            strict_explicit: wish.strict && wish.class == 0,
            tokens_in_estimate: 4,
            tokens_out_max: 8,
            tokens_out_expected: None,
            deadline: wish.deadline_ms.map(|ms| self.now.plus_ms(ms)),
            resumable: wish.resumable,
            recovered: wish.recovered,
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.feed(Input::Tick);
        // Half of the questions are answered with progress, half with the bad news that there is none.
        for task in std::mem::take(&mut self.asked) {
            let exchange = self.running.iter().find(|e| e.task == task).copied();
            if let Some(exchange) = exchange {
                let idle_ms = if task.0 % 2 == 0 { 1 } else { 1_000 };
                self.progress(exchange, Time(self.now.0.saturating_sub(idle_ms * 1000)));
            }
        }
    }

    fn pool(&mut self, pool: u32, state: PoolState) {
        self.feed(Input::PoolSet(PoolSpec {
            pool: PoolNo(pool),
            timeouts: TIMEOUTS,
            state,
        }));
    }

    fn add_replica(&mut self, pool: u32, set: u32, slots: u32) -> ReplicaNo {
        let replica = ReplicaNo(self.next_replica);
        self.next_replica += 1;
        self.replicas.push(replica);
        self.feed(Input::ReplicaAdded(ReplicaSpec {
            replica,
            pool: PoolNo(pool),
            set: SetNo(set),
            slots,
            reproducible: set == 0,
        }));
        replica
    }

    fn token(&mut self, exchange: Exchange) {
        self.progress(exchange, self.now);
    }

    fn progress(&mut self, exchange: Exchange, at: Time) {
        self.feed(Input::Progress {
            task: exchange.task,
            attempt: exchange.attempt,
            at,
            tokens_out: 1,
        });
    }

    fn attempt_ended(&mut self, exchange: Exchange, end: AttemptEnd) {
        let same = |e: &Exchange| (e.task, e.attempt) == (exchange.task, exchange.attempt);
        self.running.retain(|e| !same(e));
        self.feed(Input::AttemptEnded {
            task: exchange.task,
            attempt: exchange.attempt,
            end,
            tokens_out: 2,
        });
    }

    fn slot_idle(&mut self, exchange: Exchange) {
        let same = |e: &Exchange| (e.task, e.attempt) == (exchange.task, exchange.attempt);
        self.stopped.retain(|e| !same(e));
        self.feed(Input::SlotIdle {
            replica: exchange.replica,
            task: exchange.task,
        });
    }

    /// Every pool gets a replica of every set, all get well, everything finishes.
    fn drain(&mut self) {
        for pool in 0..POOLS {
            self.pool(pool, PoolState::Ready);
            for set in 0..SETS {
                self.add_replica(pool, set, 2);
            }
        }
        for _ in 0..1000 {
            if self.scheduler.is_idle() {
                break;
            }
            for replica in self.replicas.clone() {
                self.feed(Input::ReplicaReady(replica));
            }
            for exchange in self.stopped.clone() {
                self.slot_idle(exchange);
            }
            for exchange in self.running.clone() {
                self.exchange_move(&Move::Finish(0), exchange);
            }
            self.advance(10);
        }
    }

    fn feed(&mut self, input: Input) {
        let actions = self.scheduler.handle(self.now, input.clone());
        for action in &actions {
            self.execute(action);
        }
        let task_views = (1..self.next_task).map(TaskNo);
        let replica_views = (1..self.next_replica).map(ReplicaNo);
        self.trace.push(Step {
            now: self.now,
            input,
            actions,
            tasks: task_views
                .filter_map(|no| Some((no, self.scheduler.task(no)?)))
                .collect(),
            replicas: replica_views
                .filter_map(|no| Some((no, self.scheduler.replica(no)?)))
                .collect(),
        });
    }

    fn execute(&mut self, action: &Action) {
        match *action {
            Action::Admitted { task, .. } => self.live.push(task),
            Action::End { task, .. } => self.live.retain(|t| *t != task),
            Action::Start {
                task,
                attempt,
                replica,
            } => self.running.push(Exchange {
                task,
                attempt,
                replica,
            }),
            Action::Stop { task, attempt, .. } => {
                let (stopped, running) =
                    (self.running.iter()).partition(|e| (e.task, e.attempt) == (task, attempt));
                self.running = running;
                let stopped: Vec<Exchange> = stopped;
                self.stopped.extend(stopped);
            }
            Action::ReportProgress { task, .. } => self.asked.push(task),
            Action::Rejected { .. } | Action::Probe { .. } => {}
        }
    }
}

fn plain_wish() -> Wish {
    Wish {
        class: 0,
        tenant: 0,
        session: None,
        pools: 0,
        strict: false,
        resumable: false,
        deadline_ms: None,
        recovered: false,
    }
}

fn session(id: u128) -> SessionKey {
    SessionKey(TenantNo(0), id)
}

fn pick<T: Copy>(from: &[T], i: usize) -> Option<T> {
    from.get(i.checked_rem(from.len())?).copied()
}
