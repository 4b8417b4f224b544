//! What tenants may count on, one small story per rule.

mod story;

use orchqueue_core::{
    Action, AttemptEnd, AttemptNo, Config, EndReason, FullPolicy, Input, Refusal, ReplicaNo,
    TaskNo, TaskSpec, TenantNo,
};

use story::*;

fn roomy(capacity: usize) -> Config {
    Config {
        classes: vec![class(1, capacity, FullPolicy::Reject)],
        ..config()
    }
}

fn of_tenant(tenant: u32, task: u64) -> TaskSpec {
    TaskSpec {
        tenant: TenantNo(tenant),
        ..spec(task)
    }
}

#[test]
fn a_quiet_tenant_takes_the_next_free_slot_under_a_flood() {
    let mut story = Story::with_sets(roomy(1000), &[0]);
    story.submit_all(1..=500);
    let Action::Admitted { forecast, .. } = story.submit(of_tenant(1, 501))[0] else {
        panic!("not admitted");
    };
    assert_eq!(forecast.position, 0);
    assert_eq!(story.finish(1).last(), Some(&start(501, 1, 1)));
    assert_eq!(story.finish(501).last(), Some(&start(2, 1, 1)));
}

#[test]
fn tenants_share_by_the_tokens_they_cost_and_by_their_weight() {
    let mut story = Story::with_sets(roomy(1000), &[0]);
    for (tenant, weight) in [(0, 1), (1, 2)] {
        let tenant = TenantNo(tenant);
        story.feed(Input::TenantSet { tenant, weight });
    }
    for task in 1..=100 {
        story.submit(of_tenant(0, task));
        story.submit(of_tenant(1, 100 + task));
    }
    // A task of tenant 0 costs 10 + 2 x 100, one of tenant 1 10 + 2 x 20, at twice the weight.
    let (mut running, mut served) = (1, [0, 0]);
    for _ in 0..101 {
        let tokens_out = if running <= 100 { 100 } else { 20 };
        let finished = AttemptEnd::Finished {
            tokens_in: 10,
            tokens_out,
        };
        let Some(Action::Start { task, .. }) = story.ended(running, 1, finished).pop() else {
            panic!("a slot was left free");
        };
        running = task.0;
        served[usize::from(running > 100)] += 1;
    }
    assert_eq!(served, [10, 91]);
}

#[test]
fn a_canceled_attempt_is_charged_for_what_it_decoded() {
    let mut story = Story::with_sets(roomy(1000), &[0]);
    story.submit(of_tenant(0, 1));
    story.submit(of_tenant(0, 2));
    story.submit(of_tenant(1, 3));
    story.submit(of_tenant(1, 4));
    story.cancel(1);
    story.feed(Input::AttemptEnded {
        task: TaskNo(1),
        attempt: AttemptNo(1),
        end: AttemptEnd::Stopped,
        tokens_out: 50,
    });
    assert_eq!(story.feed(idle(1, 1)), [start(3, 1, 1)]);
    assert_eq!(story.ended(3, 1, AttemptEnd::Refused)[1], start(4, 1, 1));
}

#[test]
fn what_is_decoded_again_is_not_charged() {
    let mut story = Story::with_sets(roomy(1000), &[0]);
    story.submit(of_tenant(0, 1));
    story.submit(of_tenant(0, 2));
    story.submit(of_tenant(1, 3));
    let lost = |attempt, tokens_out| Input::AttemptEnded {
        task: TaskNo(1),
        attempt: AttemptNo(attempt),
        end: AttemptEnd::Failed { resumable: true },
        tokens_out,
    };
    for attempt in 1..=2 {
        story.feed(lost(attempt, 5));
        let ready = Input::ReplicaReady(ReplicaNo(1));
        assert_eq!(story.feed(ready), [start(1, attempt + 1, 1)]);
    }
    // Tenant 0 has paid 10 + 2 x 5, and not 10 + 3 x 2 x 5; tenant 1 began at 10 and pays 10 + 2 x 4.
    story.submit(of_tenant(1, 4));
    let finished = AttemptEnd::Finished {
        tokens_in: 10,
        tokens_out: 5,
    };
    let starts = |actions: Vec<Action>| actions.last().cloned();
    assert_eq!(starts(story.ended(1, 3, finished)), Some(start(3, 1, 1)));
    let shorter = AttemptEnd::Finished {
        tokens_in: 10,
        tokens_out: 4,
    };
    assert_eq!(starts(story.ended(3, 1, shorter)), Some(start(2, 1, 1)));
}

// req: ORCH-3005
#[test]
fn a_flood_cannot_lock_a_quiet_tenant_out_of_a_full_queue() {
    let mut story = Story::with_sets(roomy(4), &[0]);
    story.submit_all(1..=5);
    let full = Some(Refusal::QueueFull(FullPolicy::Reject));
    assert_eq!(refusal(&story.submit(spec(6))), full);
    let evicted = EndReason::Refused(Refusal::Evicted(FullPolicy::Reject));
    assert_eq!(story.submit(of_tenant(1, 7))[0], end(5, evicted));
    assert_eq!(story.submit(of_tenant(1, 8))[0], end(4, evicted));
    assert_eq!(refusal(&story.submit(of_tenant(1, 9))), full);
    assert_eq!(story.submit(of_tenant(2, 10))[0], end(8, evicted));
}
