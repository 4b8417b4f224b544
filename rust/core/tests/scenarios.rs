//! The scheduler's behaviour, one small story per rule.

mod story;

use orchqueue_core::{
    Action, AttemptEnd, AttemptNo, Config, EndReason, Forecast, FullPolicy, Input, PoolNo,
    PoolState, Refusal, ReplicaNo, StopReason, TaskNo, TaskSpec, TaskState, Time, TimeoutKind,
};

use story::*;

// req: ORCH-3008
#[test]
fn a_free_slot_takes_the_task_at_once() {
    let mut story = Story::one_slot();
    let forecast = Forecast {
        position: 0,
        start_ms: Some(0),
    };
    let admitted = Action::Admitted {
        task: TaskNo(1),
        pool: PoolNo(0),
        forecast,
    };
    assert_eq!(story.submit(spec(1)), [admitted, start(1, 1, 1)]);
    assert_eq!(story.finish(1), [end(1, EndReason::Finished)]);
    assert!(story.scheduler.is_idle());
}

// req: ORCH-2007, ORCH-3004, ORCH-3005
/// ORCH-3004, ORCH-3005, ORCH-2007.
#[test]
fn a_full_queue_rejects_with_position_and_measured_retry_after() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    story.wait(800);
    story.finish(1);
    story.submit_all(2..=4);
    let rejected = Action::Rejected {
        task: TaskNo(5),
        refusal: Refusal::QueueFull(FullPolicy::Reject),
        retry_after_ms: Some(800),
        forecast: Forecast {
            position: 2,
            start_ms: Some(2000),
        },
    };
    assert_eq!(story.submit(spec(5)), [rejected]);
    assert_eq!(story.scheduler.queue_depth(PoolNo(0), HIGH), 2);
}

// req: ORCH-3005
/// ORCH-3005.
#[test]
fn drop_lru_ends_the_oldest_but_never_one_that_was_started() {
    let mut story = Story::one_slot();
    let low = |task| TaskSpec {
        class: LOW,
        ..spec(task)
    };
    story.submit(low(1));
    story.submit(low(2));
    story.submit(low(3));
    let evicted = EndReason::Refused(Refusal::Evicted(FullPolicy::DropLru));
    assert_eq!(story.submit(low(4))[0], end(2, evicted));
    // Task 1 comes back from a lost attempt: it is older than 3, yet 3 gives way.
    story.ended(1, 1, FAILED);
    assert_eq!(story.submit(low(5))[0], end(3, evicted));
    assert_eq!(story.state(1), Some(TaskState::Queued));
}

// req: ORCH-3005
/// ORCH-3005.
#[test]
fn shed_low_priority_ends_the_newest_of_the_lower_class() {
    let mut high = class(4, 1, FullPolicy::ShedLowPriority);
    high.max_wait_ms = None;
    let classes = vec![high, class(1, 2, FullPolicy::Reject)];
    let mut story = Story::with_sets(
        Config {
            classes,
            ..config()
        },
        &[0],
    );
    story.submit_all(1..=2);
    for task in 3..=4 {
        story.submit(TaskSpec {
            class: LOW,
            ..spec(task)
        });
    }
    let evicted = EndReason::Refused(Refusal::Evicted(FullPolicy::ShedLowPriority));
    assert_eq!(story.submit(spec(5))[0], end(4, evicted));
    assert_eq!(story.submit(spec(6))[0], end(3, evicted));
    let full = Refusal::QueueFull(FullPolicy::ShedLowPriority);
    assert_eq!(refusal(&story.submit(spec(7))), Some(full));
}

// req: ORCH-2003
#[test]
fn cancel_of_a_queued_task_is_an_end_and_nothing_else() {
    let mut story = Story::one_slot();
    story.submit_all(1..=2);
    assert_eq!(story.cancel(2), [end(2, EndReason::Canceled)]);
    assert_eq!(story.cancel(2), []);
}

// req: ORCH-3026, ORCH-4061
/// ORCH-3026.
#[test]
fn cancel_of_a_started_task_keeps_the_slot_until_the_engine_is_idle() {
    let mut story = Story::one_slot();
    story.submit_all(1..=2);
    let stopped = stop(1, 1, StopReason::Canceled);
    assert_eq!(story.cancel(1), [stopped, end(1, EndReason::Canceled)]);
    assert_eq!(story.ended(1, 1, AttemptEnd::Stopped), []);
    assert_eq!(story.scheduler.replica(ReplicaNo(1)).unwrap().reclaiming, 1);
    let idle = Input::SlotIdle {
        replica: ReplicaNo(1),
        task: TaskNo(1),
    };
    assert_eq!(story.feed(idle.clone()), [start(2, 1, 1)]);
    assert_eq!(story.feed(idle), [], "a second report frees nothing");
}

#[test]
fn an_engine_that_finished_before_the_stop_reached_it_is_free() {
    let mut story = Story::one_slot();
    story.submit_all(1..=2);
    story.cancel(1);
    assert_eq!(story.finish(1), [start(2, 1, 1)]);
}

#[test]
fn late_news_of_an_ended_task_tells_nothing() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    story.cancel(1);
    let now = story.now;
    assert_eq!(story.token(1, now), []);
    assert_eq!(story.wait(10_000).len(), 1, "the probe of its slot only");
}

// req: ORCH-4061
#[test]
fn a_slot_that_does_not_come_back_has_its_replica_probed() {
    let mut story = Story::one_slot();
    story.submit_all(1..=2);
    story.cancel(1);
    assert_eq!(story.wait(499), []);
    assert_eq!(story.wait(1), [probe(1)]);
    assert_eq!(story.wait(10_000), [], "asked for once");
    let ready = Input::ReplicaReady(ReplicaNo(1));
    assert_eq!(story.feed(ready), [start(2, 1, 1)]);
    assert_eq!(story.scheduler.replica(ReplicaNo(1)).unwrap().reclaiming, 0);
}

// req: ORCH-3046
/// ORCH-3046.
#[test]
fn a_resumable_failure_goes_on_elsewhere_in_the_same_set() {
    let mut story = Story::with_sets(config(), &[0, 1, 0]);
    story.submit(spec(1));
    assert_eq!(story.ended(1, 1, FAILED), [probe(1), start(1, 2, 3)]);
    let failed_again = story.ended(1, 2, FAILED);
    assert_eq!(
        failed_again,
        [probe(3)],
        "the free replica is of another set"
    );
    story.feed(Input::ReplicaReady(ReplicaNo(1)));
    assert_eq!(story.state(1), Some(TaskState::Started));
    let exhausted = [probe(1), end(1, EndReason::ReplicaExhausted)];
    assert_eq!(story.ended(1, 3, FAILED), exhausted);
}

#[test]
fn a_task_that_comes_back_goes_before_all_that_wait() {
    let mut story = Story::one_slot();
    story.submit_all(1..=3);
    assert_eq!(story.ended(1, 1, FAILED), [probe(1)]);
    let ready = Input::ReplicaReady(ReplicaNo(1));
    assert_eq!(story.feed(ready), [start(1, 2, 1)]);
}

#[test]
fn a_failure_that_cannot_be_resumed_resets_the_worker() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    let failed = AttemptEnd::Failed { resumable: false };
    let reset = [probe(1), end(1, EndReason::WorkerReset)];
    assert_eq!(story.ended(1, 1, failed), reset);
}

#[test]
fn a_refused_request_does_not_hurt_the_replica() {
    let mut story = Story::one_slot();
    story.submit_all(1..=2);
    let next = [end(1, EndReason::EngineRefused), start(2, 1, 1)];
    assert_eq!(story.ended(1, 1, AttemptEnd::Refused), next);
}

#[test]
fn a_busy_replica_rests_and_its_task_goes_elsewhere_or_waits() {
    let mut story = Story::with_sets(config(), &[0, 0]);
    story.submit(spec(1));
    let busy = |retry_after_ms| AttemptEnd::Busy { retry_after_ms };
    assert_eq!(story.ended(1, 1, busy(Some(300))), [start(1, 2, 2)]);
    let view = story.scheduler.replica(ReplicaNo(1)).unwrap();
    assert!(view.ready && view.resting);
    assert_eq!(story.ended(1, 2, busy(None)), []);
    assert_eq!(story.wait(299), []);
    assert_eq!(story.wait(1), [start(1, 3, 1)]);
}

// req: ORCH-3016
/// ORCH-3016.
#[test]
fn the_first_token_is_waited_for_no_longer_than_its_time() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    assert_eq!(story.wait(999), []);
    let kind = TimeoutKind::FirstToken;
    let timed_out = [
        stop(1, 1, StopReason::TimedOut(kind)),
        end(1, EndReason::TimedOut(kind)),
    ];
    assert_eq!(story.wait(1), timed_out);
}

// req: ORCH-3016
/// ORCH-3016.
#[test]
fn an_idle_stream_is_asked_and_then_ended() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    let first = story.now;
    story.token(1, first);
    assert_eq!(story.state(1), Some(TaskState::Streaming));
    let asked = [Action::ReportProgress {
        task: TaskNo(1),
        attempt: AttemptNo(1),
    }];
    assert_eq!(story.wait(100), asked);
    let later = Time(story.now.0 - 30_000);
    assert_eq!(story.token(1, later), []);
    assert_eq!(story.wait(69), []);
    assert_eq!(story.scheduler.next_wakeup(), Some(story.now.plus_ms(1)));
    assert_eq!(story.wait(1), asked);
    let kind = TimeoutKind::Idle;
    let timed_out = [
        stop(1, 1, StopReason::TimedOut(kind)),
        end(1, EndReason::TimedOut(kind)),
    ];
    assert_eq!(story.token(1, later), timed_out);
}

fn resumable(task: u64) -> TaskSpec {
    TaskSpec {
        resumable: true,
        ..spec(task)
    }
}

// req: ORCH-4005
#[test]
fn a_silent_replica_hands_a_resumable_task_to_another_of_its_set() {
    let mut story = Story::with_sets(config(), &[9, 9]);
    story.submit(resumable(1));
    story.submit_all(2..=3);
    let stopped = stop(1, 1, StopReason::TimedOut(TimeoutKind::FirstToken));
    let second_stops = story.wait(1000);
    assert_eq!(second_stops[..2], [stopped, probe(1)]);
    // Task 2 was not resumable: its end leaves a slot that is being reclaimed, so both wait.
    assert_eq!(story.state(1), Some(TaskState::Queued));
    assert_eq!(story.state(2), None);
    assert_eq!(story.feed(idle(2, 2)), [start(1, 2, 2)]);
    // News of the first attempt does not disturb the second one.
    assert_eq!(story.ended(1, 1, AttemptEnd::Stopped), []);
    assert_eq!(story.finish(1), []);
    assert_eq!(story.feed(idle(1, 1)), []);
    assert_eq!(story.scheduler.task(TaskNo(1)).unwrap().attempt.0, 2);
    assert_eq!(story.scheduler.replica(ReplicaNo(1)).unwrap().reclaiming, 0);
    let finished = AttemptEnd::Finished {
        tokens_in: 1,
        tokens_out: 1,
    };
    let next = [end(1, EndReason::Finished), start(3, 1, 2)];
    assert_eq!(story.ended(1, 2, finished), next);
}

#[test]
fn several_slots_of_one_task_are_reclaimed_side_by_side() {
    let mut story = Story::with_sets(config(), &[9, 9, 9]);
    story.submit(resumable(1));
    let kind = TimeoutKind::FirstToken;
    for replica in 1..=2 {
        let stopped = Action::Stop {
            task: TaskNo(1),
            attempt: AttemptNo(replica),
            replica: ReplicaNo(replica),
            reason: StopReason::TimedOut(kind),
        };
        let goes_on = [stopped, probe(replica), start(1, replica + 1, replica + 1)];
        assert_eq!(story.wait(1000), goes_on);
    }
    let reclaiming = |story: &Story, replica| {
        let view = story.scheduler.replica(ReplicaNo(replica)).unwrap();
        (view.in_flight, view.reclaiming)
    };
    assert_eq!(reclaiming(&story, 1), (0, 1));
    assert_eq!(reclaiming(&story, 2), (0, 1));
    story.feed(idle(1, 2));
    assert_eq!(reclaiming(&story, 1), (0, 1));
    assert_eq!(reclaiming(&story, 2), (0, 0));
    // The third attempt is the last one.
    let over = story.wait(1000);
    assert_eq!(over[1..], [end(1, EndReason::TimedOut(kind))]);
    story.feed(idle(1, 1));
    story.feed(idle(1, 3));
    assert!(story.scheduler.is_idle());
}

#[test]
fn a_resumable_task_ends_where_the_promise_is_not_kept_and_at_the_wall_time() {
    let mut story = Story::one_slot();
    story.submit(resumable(1));
    let timed_out = |kind| end(1, EndReason::TimedOut(kind));
    let first = timed_out(TimeoutKind::FirstToken);
    assert_eq!(story.wait(1000).last(), Some(&first));

    let mut story = Story::with_sets(config(), &[9, 9]);
    story.submit(resumable(1));
    let mut actions = Vec::new();
    for _ in 0..100 {
        let now = story.now;
        story.token(1, now);
        actions = story.wait(50);
    }
    assert_eq!(actions.last(), Some(&timed_out(TimeoutKind::Wall)));
}

#[test]
fn a_cancel_ends_a_task_that_waits_for_another_replica() {
    let mut story = Story::with_sets(config(), &[9]);
    story.submit(resumable(1));
    story.wait(1000);
    assert_eq!(story.state(1), Some(TaskState::Queued));
    assert_eq!(story.cancel(1), [end(1, EndReason::Canceled)]);
    let ready = Input::ReplicaReady(ReplicaNo(1));
    assert_eq!(story.feed(ready), []);
    assert!(story.scheduler.is_idle());
}

#[test]
fn an_unanswered_question_counts_as_idle() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    let first = story.now;
    story.token(1, first);
    story.wait(100);
    let ended = end(1, EndReason::TimedOut(TimeoutKind::Idle));
    assert_eq!(story.wait(1000).last(), Some(&ended));
}

// req: ORCH-3016
/// ORCH-3016.
#[test]
fn a_stream_that_goes_on_is_ended_by_the_wall_time() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    let mut actions = Vec::new();
    for _ in 0..100 {
        let now = story.now;
        story.token(1, now);
        actions = story.wait(50);
    }
    let ended = end(1, EndReason::TimedOut(TimeoutKind::Wall));
    assert_eq!(actions.last(), Some(&ended));
}

#[test]
fn a_deadline_that_the_forecast_misses_is_refused_before_the_queue() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    story.wait(800);
    story.finish(1);
    let within = |story: &Story, task, ms| TaskSpec {
        deadline: Some(story.now.plus_ms(ms)),
        ..spec(task)
    };
    let late = within(&story, 2, 799);
    assert_eq!(refusal(&story.submit(late)), Some(Refusal::DeadlineUnmet));
    let short = TaskSpec {
        tokens_out_expected: Some(10),
        ..within(&story, 3, 799)
    };
    assert_eq!(refusal(&story.submit(short)), None);
    let recovered = TaskSpec {
        recovered: true,
        ..within(&story, 4, 0)
    };
    assert_eq!(refusal(&story.submit(recovered)), None);
}

#[test]
fn a_queued_task_ends_when_its_deadline_cannot_be_met_and_a_started_one_does_not() {
    let mut story = Story::one_slot();
    let soon = |story: &Story, task| TaskSpec {
        deadline: Some(story.now.plus_ms(200)),
        ..spec(task)
    };
    let (first, second) = (soon(&story, 1), soon(&story, 2));
    story.submit(first);
    story.submit(second);
    let unmet = end(2, EndReason::Refused(Refusal::DeadlineUnmet));
    assert_eq!(story.wait(199), []);
    assert_eq!(story.wait(2), [unmet]);
    story.ended(1, 1, FAILED);
    assert_eq!(story.wait(500), []);
    assert_eq!(story.state(1), Some(TaskState::Queued));
}

// req: ORCH-3009, ORCH-3021
/// ORCH-3009, ORCH-3021.
#[test]
fn a_session_returns_to_its_replica_and_runs_out_of_turns() {
    let mut story = Story::with_sets(config(), &[0, 0]);
    let turn = |task| TaskSpec {
        session: Some(SESSION),
        ..spec(task)
    };
    story.submit(spec(1));
    assert_eq!(story.submit(turn(2))[1], start(2, 1, 2));
    story.finish(1);
    story.finish(2);
    assert_eq!(story.submit(turn(3))[1], start(3, 1, 2));
    let exhausted = Some(Refusal::SessionTurnsExhausted);
    assert_eq!(refusal(&story.submit(turn(4))), exhausted);
    story.finish(3);
    let view = story.scheduler.session(story.now, SESSION).unwrap();
    assert_eq!((view.turns, view.ttl_ms_remaining), (2, 60_000));
    story.wait(60_000);
    assert!(story.scheduler.session(story.now, SESSION).is_none());
    assert_eq!(refusal(&story.submit(turn(5))), None);
}

// req: ORCH-4011
#[test]
fn an_explicit_strict_task_is_refused_where_nobody_keeps_the_promise() {
    let mut story = Story::one_slot();
    let strict = |task, strict_explicit| TaskSpec {
        strict: true,
        strict_explicit,
        ..spec(task)
    };
    let refused = refusal(&story.submit(strict(1, true)));
    assert_eq!(refused, Some(Refusal::NoReproducibleReplica));
    // An inherited one waits for such a replica and does not hold back the others.
    story.submit(strict(2, false));
    assert_eq!(story.submit(spec(3))[1], start(3, 1, 1));
    assert_eq!(story.replica(2, 0, 9), [start(2, 1, 2)]);
}

#[test]
fn a_task_is_bound_to_the_pool_that_starts_it_first() {
    let mut story = Story::one_slot();
    story.pool(1, PoolState::Ready);
    story.replica(2, 1, 0);
    let either = |task| TaskSpec {
        eligible: vec![PoolNo(0), PoolNo(1)],
        ..spec(task)
    };
    assert_eq!(story.submit(either(1))[1], start(1, 1, 1));
    assert_eq!(story.submit(either(2))[1], start(2, 1, 2));
    story.submit(either(3));
    assert_eq!(story.scheduler.task(TaskNo(3)).unwrap().pool, PoolNo(0));
    story.submit(either(4));
    assert_eq!(story.scheduler.task(TaskNo(4)).unwrap().pool, PoolNo(1));
}

#[test]
fn a_draining_pool_hands_over_what_it_can_and_finishes_the_rest() {
    let mut story = Story::one_slot();
    story.pool(1, PoolState::Ready);
    story.submit_all(1..=2);
    let either = TaskSpec {
        class: LOW,
        eligible: vec![PoolNo(0), PoolNo(1)],
        ..spec(3)
    };
    story.submit(either);
    assert_eq!(story.scheduler.task(TaskNo(3)).unwrap().pool, PoolNo(0));
    story.pool(0, PoolState::Draining);
    assert_eq!(story.scheduler.task(TaskNo(3)).unwrap().pool, PoolNo(1));
    assert_eq!(refusal(&story.submit(spec(4))), Some(Refusal::PoolUnready));
    let next = [end(1, EndReason::Finished), start(2, 1, 1)];
    assert_eq!(story.finish(1), next);
}

#[test]
fn a_failed_or_removed_pool_ends_what_waits_and_lets_finish_what_runs() {
    for gone in [None, Some(PoolState::Failed)] {
        let mut story = Story::one_slot();
        story.submit_all(1..=2);
        let actions = match gone {
            Some(state) => story.pool(0, state),
            None => story.feed(Input::PoolRemoved(PoolNo(0))),
        };
        let unavailable = EndReason::Refused(Refusal::PoolUnavailable);
        assert_eq!(actions, [end(2, unavailable)]);
        assert_eq!(story.finish(1), [end(1, EndReason::Finished)]);
        let refused = match gone {
            Some(_) => Refusal::PoolUnready,
            None => Refusal::PoolUnavailable,
        };
        assert_eq!(refusal(&story.submit(spec(3))), Some(refused));
    }
}

#[test]
fn a_task_whose_set_is_gone_for_good_does_not_wait_for_ever() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    story.feed(Input::ReplicaRemoved(ReplicaNo(1)));
    assert_eq!(story.ended(1, 1, FAILED), []);
    story.replica(2, 0, 5);
    assert_eq!(story.wait(4999), []);
    assert_eq!(story.wait(1), [end(1, EndReason::WorkerReset)]);
    assert!(story.scheduler.replica(ReplicaNo(1)).is_none());
}

#[test]
fn a_starting_pool_queues_and_recovered_tasks_know_no_bounds() {
    let mut story = Story::empty(config());
    story.pool(0, PoolState::Starting);
    for task in 1..=5 {
        let recovered = TaskSpec {
            recovered: true,
            ..spec(task)
        };
        assert_eq!(refusal(&story.submit(recovered)), None);
    }
    let full = Refusal::QueueFull(FullPolicy::Reject);
    assert_eq!(refusal(&story.submit(spec(6))), Some(full));
    assert_eq!(story.scheduler.queue_depth(PoolNo(0), HIGH), 5);
    let forecast = story.scheduler.task(TaskNo(4)).unwrap().forecast;
    assert_eq!((forecast.position, forecast.start_ms), (3, None));
}

#[test]
fn under_contention_the_classes_share_by_weight() {
    let classes = vec![
        class(4, 100, FullPolicy::Reject),
        class(1, 100, FullPolicy::Reject),
    ];
    let mut story = Story::with_sets(
        Config {
            classes,
            ..config()
        },
        &[0],
    );
    let mut next = 1;
    for class in [LOW, HIGH] {
        for _ in 0..50 {
            story.submit(TaskSpec {
                class,
                ..spec(next)
            });
            next += 1;
        }
    }
    // Task 1 runs; the next fifty dispatches are shared.
    let (mut running, mut high) = (1, 0);
    for _ in 0..50 {
        let actions = story.finish(running);
        let Some(Action::Start { task, .. }) = actions.last() else {
            panic!("a slot was left free: {actions:?}");
        };
        running = task.0;
        high += u32::from(running > 50);
    }
    assert!((40..=41).contains(&high), "{high} of 50");
}

// req: ORCH-4053
#[test]
fn after_stop_admitting_only_what_was_accepted_goes_on() {
    let mut story = Story::one_slot();
    story.submit_all(1..=2);
    story.feed(Input::StopAdmitting);
    assert_eq!(refusal(&story.submit(spec(3))), Some(Refusal::ShuttingDown));
    assert_eq!(story.finish(1).last(), Some(&start(2, 1, 1)));
}

#[test]
fn a_number_that_is_alive_is_refused_and_stays_as_it_was() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    let refused = refusal(&story.submit(spec(1)));
    assert_eq!(refused, Some(Refusal::DuplicateTask));
    assert_eq!(story.finish(1), [end(1, EndReason::Finished)]);
    let unknown = TaskSpec {
        eligible: vec![],
        ..spec(2)
    };
    let refused = refusal(&story.submit(unknown));
    assert_eq!(refused, Some(Refusal::PoolUnavailable));
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let mut story = Story::one_slot();
    story.submit(spec(1));
    story.now = Time(0);
    assert_eq!(story.wait(500), []);
    assert_eq!(story.finish(1), [end(1, EndReason::Finished)]);
}
