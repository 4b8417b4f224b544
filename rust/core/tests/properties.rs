//! The promises of the scheduler, checked on traces of random worlds. Every property has a negative control:
//! the same traces, changed as a broken scheduler would have made them, must be found out. They cover ORCH-3004,
//! ORCH-3005, ORCH-3007, ORCH-3008, ORCH-3026 and ORCH-3046.

mod audit;
mod sabotage;
mod world;

use audit::{Violation, audit};
use orchqueue_core::{Action, Config, Scheduler, Time};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, TestRunner};
use sabotage::Sabotage;
use world::{Move, Step, World};

const CASES: u32 = 500;

/// The world comes to rest and the auditor does not find this violation, in any case.
fn never(violation: Violation) {
    let mut runner = TestRunner::new(Runs {
        cases: CASES,
        failure_persistence: None,
        ..Runs::default()
    });
    let outcome = runner.run(&(world::config(), world::moves()), |(config, moves)| {
        let world = World::run(config.clone(), &moves);
        let found = audit(&config, &world.trace);
        prop_assert!(!found.contains(&violation), "{violation:?} among {found:?}");
        prop_assert!(world.scheduler.is_idle());
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// The auditor finds this violation in every trace that could be changed in this way.
fn caught(violation: Violation, sabotage: Sabotage) {
    let mut changed = 0;
    for (config, moves) in samples(200) {
        let mut trace = World::run(config.clone(), &moves).trace;
        if sabotage(&config, &mut trace) {
            changed += 1;
            let found = audit(&config, &trace);
            assert!(found.contains(&violation), "{found:?}");
        }
    }
    assert!(changed >= 10, "only {changed} traces could be changed");
}

/// Always the same random worlds.
fn samples(count: usize) -> Vec<(Config, Vec<Move>)> {
    let mut runner = TestRunner::deterministic();
    let strategy = (world::config(), world::moves());
    (0..count)
        .filter_map(|_| Some(strategy.new_tree(&mut runner).ok()?.current()))
        .collect()
}

macro_rules! property {
    ($name:ident, $control:ident, $violation:expr, $sabotage:expr) => {
        #[test]
        fn $name() {
            never($violation);
        }

        #[test]
        fn $control() {
            caught($violation, $sabotage);
        }
    };
}

property!(
    tasks_of_a_class_start_in_order_of_arrival,
    control_a_younger_task_that_starts_first_is_found,
    Violation::Fifo,
    sabotage::swap_two_starts
);
property!(
    queues_stay_within_their_bounds,
    control_a_task_admitted_to_a_full_queue_is_found,
    Violation::Bounds,
    sabotage::admit_a_refused_task
);
property!(
    no_admitted_task_is_lost,
    control_a_missing_end_is_found,
    Violation::Lost,
    sabotage::lose_an_end
);
property!(
    no_task_ends_twice,
    control_a_second_end_is_found,
    Violation::EndedTwice,
    sabotage::end_twice
);
property!(
    nothing_starts_or_is_asked_after_the_end,
    control_a_start_after_a_cancel_is_found,
    Violation::AfterEnd,
    sabotage::start_after_cancel
);
property!(
    no_slot_is_free_while_a_placeable_task_waits,
    control_a_withheld_start_is_found,
    Violation::Idle,
    sabotage::withhold_a_start
);
property!(
    no_replica_holds_more_than_its_slots,
    control_a_start_on_a_closed_replica_is_found,
    Violation::Slots,
    sabotage::start_on_a_closed_replica
);
property!(
    attempts_of_a_task_stay_in_one_set,
    control_a_second_attempt_in_another_set_is_found,
    Violation::MixedSets,
    sabotage::change_the_set
);
property!(
    the_least_loaded_replica_is_chosen,
    control_a_start_on_a_busier_replica_is_found,
    Violation::NotLeastLoaded,
    sabotage::start_on_a_busier_replica
);
property!(
    a_tenant_below_its_share_of_a_full_queue_is_admitted,
    control_a_refusal_below_the_share_is_found,
    Violation::Share,
    sabotage::refuse_below_the_share
);
property!(
    the_right_task_gives_way,
    control_another_task_that_gives_way_is_found,
    Violation::Share,
    sabotage::evict_another
);
property!(
    every_new_task_is_answered_once,
    control_a_missing_answer_is_found,
    Violation::Protocol,
    sabotage::forget_an_answer
);
property!(
    a_silent_replica_costs_a_resumable_task_an_attempt_and_not_its_life,
    control_a_resumable_task_that_is_given_up_is_found,
    Violation::Failover,
    sabotage::give_up
);
property!(
    a_timeout_without_another_attempt_ends_the_task,
    control_a_stopped_task_that_never_ends_is_found,
    Violation::Failover,
    sabotage::never_give_up
);
property!(
    a_cancel_ends_a_live_task_at_once,
    control_an_ignored_cancel_is_found,
    Violation::CancelIgnored,
    sabotage::ignore_a_cancel
);

/// The actions of a fresh scheduler for the inputs of a trace; `clock` may lie about the time.
fn replay(
    config: &Config,
    trace: &[Step],
    clock: &mut dyn FnMut(Time) -> Time,
) -> Vec<Vec<Action>> {
    let mut scheduler = Scheduler::new(config.clone());
    trace
        .iter()
        .map(|step| scheduler.handle(clock(step.now), step.input.clone()))
        .collect()
}

fn recorded(trace: &[Step]) -> Vec<Vec<Action>> {
    trace.iter().map(|step| step.actions.clone()).collect()
}

proptest! {
    #![proptest_config(Runs { cases: CASES, failure_persistence: None, ..Runs::default() })]

    #[test]
    fn the_same_inputs_give_the_same_actions(config in world::config(), moves in world::moves()) {
        let trace = World::run(config.clone(), &moves).trace;
        prop_assert_eq!(replay(&config, &trace, &mut |now| now), recorded(&trace));
    }
}

#[test]
fn control_a_hidden_clock_is_found() {
    let mut hidden_ms = 0;
    let differing = samples(50)
        .into_iter()
        .filter(|(config, moves)| {
            let trace = World::run(config.clone(), moves).trace;
            let mut clock = |now: Time| {
                hidden_ms += 1;
                now.plus_ms(hidden_ms)
            };
            replay(config, &trace, &mut clock) != recorded(&trace)
        })
        .count();
    assert!(differing >= 10, "only {differing} of 50 runs differed");
}
