//! A scheduler with a clock that only the story moves, and short words for what comes in and goes out.

#![allow(dead_code, reason = "each suite uses a part of it")]

use orchqueue_core::{
    Action, AttemptEnd, AttemptNo, ClassConfig, ClassNo, Config, EndReason, FullPolicy, Input,
    PoolNo, PoolSpec, PoolState, Refusal, ReplicaNo, ReplicaSpec, Scheduler, SessionKey, SetNo,
    StopReason, TaskNo, TaskSpec, TaskState, TenantNo, Time, Timeouts, TokenPrices,
};

pub const HIGH: ClassNo = ClassNo(0);
pub const LOW: ClassNo = ClassNo(1);
pub const SESSION: SessionKey = SessionKey(TenantNo(0), 7);

/// A scheduler with a clock that only the story moves.
pub struct Story {
    pub scheduler: Scheduler,
    pub now: Time,
}

pub fn class(weight: u32, capacity: usize, full_policy: FullPolicy) -> ClassConfig {
    ClassConfig {
        weight,
        capacity,
        full_policy,
        max_wait_ms: None,
    }
}

pub fn config() -> Config {
    Config {
        classes: vec![
            class(4, 2, FullPolicy::Reject),
            class(1, 2, FullPolicy::DropLru),
        ],
        session_ttl_ms: 60_000,
        session_max_turns: 2,
        max_attempts: 3,
        reclaim_ms: 500,
        prices: TokenPrices::default(),
    }
}

pub fn spec(task: u64) -> TaskSpec {
    TaskSpec {
        task: TaskNo(task),
        tenant: TenantNo(0),
        class: HIGH,
        session: None,
        eligible: vec![PoolNo(0)],
        strict: false,
        strict_explicit: false,
        tokens_in_estimate: 10,
        tokens_out_max: 100,
        tokens_out_expected: None,
        deadline: None,
        resumable: false,
        recovered: false,
    }
}

impl Story {
    pub fn empty(config: Config) -> Self {
        Self {
            scheduler: Scheduler::new(config),
            now: Time(1_000_000),
        }
    }

    /// One ready pool with a ready replica of one slot for each set given.
    pub fn with_sets(config: Config, sets: &[u32]) -> Self {
        let mut story = Self::empty(config);
        story.pool(0, PoolState::Ready);
        for (replica, set) in (1..).zip(sets) {
            story.replica(replica, 0, *set);
        }
        story
    }

    pub fn one_slot() -> Self {
        Self::with_sets(config(), &[0])
    }

    pub fn feed(&mut self, input: Input) -> Vec<Action> {
        self.scheduler.handle(self.now, input)
    }

    pub fn wait(&mut self, ms: u64) -> Vec<Action> {
        self.now = self.now.plus_ms(ms);
        self.feed(Input::Tick)
    }

    pub fn pool(&mut self, pool: u32, state: PoolState) -> Vec<Action> {
        self.feed(Input::PoolSet(PoolSpec {
            pool: PoolNo(pool),
            timeouts: Timeouts {
                first_token_ms: 1000,
                idle_ms: 100,
                wall_ms: 5000,
            },
            state,
        }))
    }

    pub fn replica(&mut self, replica: u32, pool: u32, set: u32) -> Vec<Action> {
        self.feed(Input::ReplicaAdded(ReplicaSpec {
            replica: ReplicaNo(replica),
            pool: PoolNo(pool),
            set: SetNo(set),
            slots: 1,
            reproducible: set == 9,
        }));
        self.feed(Input::ReplicaReady(ReplicaNo(replica)))
    }

    pub fn submit(&mut self, spec: TaskSpec) -> Vec<Action> {
        self.feed(Input::Submit(Box::new(spec)))
    }

    pub fn submit_all(&mut self, tasks: std::ops::RangeInclusive<u64>) {
        for task in tasks {
            self.submit(spec(task));
        }
    }

    pub fn cancel(&mut self, task: u64) -> Vec<Action> {
        self.feed(Input::Cancel(TaskNo(task)))
    }

    pub fn token(&mut self, task: u64, at: Time) -> Vec<Action> {
        self.feed(Input::Progress {
            task: TaskNo(task),
            attempt: AttemptNo(1),
            at,
            tokens_out: 1,
        })
    }

    pub fn ended(&mut self, task: u64, attempt: u32, end: AttemptEnd) -> Vec<Action> {
        self.feed(Input::AttemptEnded {
            task: TaskNo(task),
            attempt: AttemptNo(attempt),
            end,
            tokens_out: 0,
        })
    }

    pub fn finish(&mut self, task: u64) -> Vec<Action> {
        self.ended(
            task,
            1,
            AttemptEnd::Finished {
                tokens_in: 10,
                tokens_out: 100,
            },
        )
    }

    pub fn state(&self, task: u64) -> Option<TaskState> {
        self.scheduler.task(TaskNo(task)).map(|view| view.state)
    }
}

pub fn start(task: u64, attempt: u32, replica: u32) -> Action {
    Action::Start {
        task: TaskNo(task),
        attempt: AttemptNo(attempt),
        replica: ReplicaNo(replica),
    }
}

pub fn stop(task: u64, replica: u32, reason: StopReason) -> Action {
    Action::Stop {
        task: TaskNo(task),
        attempt: AttemptNo(1),
        replica: ReplicaNo(replica),
        reason,
    }
}

pub fn end(task: u64, reason: EndReason) -> Action {
    Action::End {
        task: TaskNo(task),
        reason,
    }
}

pub fn probe(replica: u32) -> Action {
    Action::Probe {
        replica: ReplicaNo(replica),
    }
}

pub fn refusal(actions: &[Action]) -> Option<Refusal> {
    actions.iter().find_map(|action| match action {
        Action::Rejected { refusal, .. } => Some(*refusal),
        _ => None,
    })
}

pub const FAILED: AttemptEnd = AttemptEnd::Failed { resumable: true };

pub fn idle(task: u64, replica: u32) -> Input {
    Input::SlotIdle {
        replica: ReplicaNo(replica),
        task: TaskNo(task),
    }
}
