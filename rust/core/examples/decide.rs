//! Prints what a decision costs: nanoseconds per task that is submitted, placed and finished, and the cost of
//! a cancel and of a position, with short and long queues.
//!
//! `cargo run --release -p orchqueue-core --example decide`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures time and prints it, outside the scheduler"
)]

use std::time::Instant;

use orchqueue_core::{
    Action, AttemptEnd, ClassConfig, ClassNo, Config, FullPolicy, Input, PoolNo, PoolSpec,
    PoolState, ReplicaNo, ReplicaSpec, Scheduler, SetNo, TaskNo, TaskSpec, TenantNo, Time,
    Timeouts, TokenPrices,
};

const POOL: PoolNo = PoolNo(0);
const ROUNDS: u64 = 200_000;

fn scheduler(replicas: u32, slots: u32) -> Scheduler {
    let class = |weight| ClassConfig {
        weight,
        capacity: 2_000_000,
        full_policy: FullPolicy::Reject,
        max_wait_ms: Some(30_000),
    };
    let mut scheduler = Scheduler::new(Config {
        classes: vec![class(4), class(1)],
        session_ttl_ms: 600_000,
        session_max_turns: 8,
        max_attempts: 3,
        reclaim_ms: 10_000,
        prices: TokenPrices::default(),
    });
    let timeouts = Timeouts {
        first_token_ms: 120_000,
        idle_ms: 5_000,
        wall_ms: 600_000,
    };
    let pool = PoolSpec {
        pool: POOL,
        timeouts,
        state: PoolState::Ready,
    };
    scheduler.handle(Time(1), Input::PoolSet(pool));
    for replica in (0..replicas).map(ReplicaNo) {
        let spec = ReplicaSpec {
            replica,
            pool: POOL,
            set: SetNo(0),
            slots,
            reproducible: true,
        };
        scheduler.handle(Time(1), Input::ReplicaAdded(spec));
        scheduler.handle(Time(1), Input::ReplicaReady(replica));
    }
    scheduler
}

fn submit(no: u64, tenants: u64) -> Input {
    Input::Submit(Box::new(TaskSpec {
        task: TaskNo(no),
        tenant: TenantNo((no * 7919 % tenants) as u32),
        class: ClassNo((no % 2) as u8),
        session: None,
        eligible: vec![POOL],
        strict: false,
        strict_explicit: false,
        tokens_in_estimate: 100,
        tokens_out_max: 256,
        tokens_out_expected: None,
        deadline: Some(Time(u64::MAX / 2)),
        resumable: false,
        recovered: false,
    }))
}

fn finish(start: &Action) -> Option<Input> {
    let Action::Start { task, attempt, .. } = *start else {
        return None;
    };
    let end = AttemptEnd::Finished {
        tokens_in: 100,
        tokens_out: 256,
    };
    Some(Input::AttemptEnded {
        task,
        attempt,
        end,
        tokens_out: 256,
    })
}

fn ns_each(since: Instant, count: u64) -> u128 {
    since.elapsed().as_nanos() / u128::from(count)
}

/// Free slots: every task is admitted and placed at once, and finishes right after.
fn unloaded(replicas: u32) {
    let mut scheduler = scheduler(replicas, 4);
    let (mut deciding, mut finishing) = (0, 0);
    for no in 0..ROUNDS {
        let input = submit(no, 100);
        let started = Instant::now();
        let actions = scheduler.handle(Time(2 + no), input);
        deciding += started.elapsed().as_nanos();
        let ends: Vec<Input> = actions.iter().filter_map(finish).collect();
        let started = Instant::now();
        for end in ends {
            scheduler.handle(Time(2 + no), end);
        }
        finishing += started.elapsed().as_nanos();
    }
    let (deciding, finishing) = (
        deciding / u128::from(ROUNDS),
        finishing / u128::from(ROUNDS),
    );
    println!(
        "{replicas:>3} replicas, no queue: submit and place {deciding} ns, finish {finishing} ns"
    );
}

/// A queue of constant length: every finish places the next task, every submit queues one.
fn loaded(queued: u64, tenants: u64) {
    let mut scheduler = scheduler(16, 4);
    let mut starts = Vec::new();
    let filling = Instant::now();
    for no in 0..queued + 64 {
        starts.extend(scheduler.handle(Time(2), submit(no, tenants)));
    }
    let filled = ns_each(filling, queued + 64);
    let mut running: std::collections::VecDeque<Input> = starts.iter().filter_map(finish).collect();
    let cycling = Instant::now();
    for no in 0..ROUNDS {
        scheduler.handle(Time(3 + no), submit(queued + 64 + no, tenants));
        if let Some(end) = running.pop_front() {
            let actions = scheduler.handle(Time(3 + no), end);
            running.extend(actions.iter().filter_map(finish));
        }
    }
    let cycled = ns_each(cycling, ROUNDS);
    let total = queued + 64 + ROUNDS;
    let spread = |i: u64| TaskNo(total - 1 - (i * 7919) % queued.min(total));
    let asking = Instant::now();
    let known = (0..ROUNDS)
        .filter(|i| scheduler.task(spread(*i)).is_some())
        .count();
    let asked = ns_each(asking, ROUNDS);
    let canceling = Instant::now();
    for i in 0..ROUNDS.min(queued) {
        scheduler.handle(Time(3 + ROUNDS), Input::Cancel(spread(i)));
    }
    let canceled = ns_each(canceling, ROUNDS.min(queued));
    println!(
        "{queued:>8} queued, {tenants:>5} tenants: fill {filled} ns, submit and finish and place the next {cycled} ns, \
         position {asked} ns ({known} known), cancel {canceled} ns"
    );
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn memory() {
    let mut scheduler = scheduler(1, 1);
    let before = resident_mib();
    for no in 0..1_000_000 {
        scheduler.handle(Time(2), submit(no, 10_000));
    }
    println!(
        "1000000 queued with a deadline: {} MiB",
        resident_mib() - before
    );
}

fn main() {
    memory();
    unloaded(1);
    unloaded(64);
    for (queued, tenants) in [
        (1_000, 1),
        (1_000, 100),
        (100_000, 100),
        (1_000_000, 100),
        (1_000_000, 10_000),
    ] {
        loaded(queued, tenants);
    }
}
