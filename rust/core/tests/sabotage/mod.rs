//! Traces as broken schedulers would have made them. Each function changes the first fitting place of a trace
//! and says whether there was one.

use std::collections::BTreeMap;

use orchqueue_core::{
    Action, AttemptNo, Config, EndReason, Forecast, FullPolicy, Input, Refusal, ReplicaNo,
    ReplicaSpec, ReplicaView, StopReason, TaskNo, TaskSpec, TaskState,
};

use crate::world::Step;

pub type Sabotage = fn(&Config, &mut [Step]) -> bool;

/// Where an action stands in a trace.
type Place = (usize, usize);

fn places(trace: &[Step]) -> impl Iterator<Item = (Place, &Action)> {
    trace.iter().enumerate().flat_map(|(s, step)| {
        let actions = step.actions.iter().enumerate();
        actions.map(move |(a, action)| ((s, a), action))
    })
}

fn remove(trace: &mut [Step], place: Option<Place>) -> bool {
    if let Some((s, a)) = place {
        trace[s].actions.remove(a);
    }
    place.is_some()
}

fn insert(trace: &mut [Step], found: Option<(Place, Action)>) -> bool {
    let Some(((s, a), action)) = found else {
        return false;
    };
    trace[s].actions.insert(a, action);
    true
}

fn replace(trace: &mut [Step], found: Option<(Place, Action)>) -> bool {
    let Some(((s, a), action)) = found else {
        return false;
    };
    trace[s].actions[a] = action;
    true
}

/// What was asked for under each number; a number may be submitted again, in vain.
fn specs(trace: &[Step]) -> BTreeMap<TaskNo, TaskSpec> {
    let mut specs = BTreeMap::new();
    for step in trace {
        if let Input::Submit(spec) = &step.input {
            specs.entry(spec.task).or_insert_with(|| (**spec).clone());
        }
    }
    specs
}

fn replicas(trace: &[Step]) -> BTreeMap<ReplicaNo, ReplicaSpec> {
    let added = trace.iter().filter_map(|step| match &step.input {
        Input::ReplicaAdded(spec) => Some((spec.replica, spec.clone())),
        _ => None,
    });
    added.collect()
}

/// From a start on, two tasks that waited for the same thing change names.
pub fn swap_two_starts(_: &Config, trace: &mut [Step]) -> bool {
    let specs = specs(trace);
    let found = places(trace).find_map(|((s, a), action)| {
        let Action::Start {
            task,
            attempt: AttemptNo(1),
            replica,
        } = *action
        else {
            return None;
        };
        let before = &trace[s.checked_sub(1)?].tasks;
        let pool = before.get(&task)?.pool;
        if trace[s].replicas.get(&replica)?.pool != pool {
            return None;
        }
        let same_wish = |other: &TaskNo| {
            let (one, two) = (&specs[&task], &specs[other]);
            one.class == two.class && one.strict == two.strict && one.tenant == two.tenant
        };
        let younger = trace[s].tasks.iter().find(|(other, view)| {
            let waited = before.get(other).is_some_and(|v| v.pool == pool);
            let waits = view.state == TaskState::Queued && view.attempt.0 == 0;
            **other > task && waited && waits && view.pool == pool && same_wish(other)
        });
        Some(((s, a), task, *younger?.0))
    });
    let Some(((s, a), one, two)) = found else {
        return false;
    };
    let swap = |task: &mut TaskNo| {
        if *task == one {
            *task = two;
        } else if *task == two {
            *task = one;
        }
    };
    for (at, step) in trace.iter_mut().enumerate().skip(s) {
        if at > s {
            input_task(&mut step.input).map(swap);
        }
        let first = if at == s { a } else { 0 };
        for action in &mut step.actions[first..] {
            action_task(action).map(swap);
        }
        let views = std::mem::take(&mut step.tasks).into_iter();
        step.tasks = views
            .map(|(mut task, view)| {
                swap(&mut task);
                (task, view)
            })
            .collect();
    }
    true
}

fn input_task(input: &mut Input) -> Option<&mut TaskNo> {
    match input {
        Input::Cancel(task)
        | Input::Progress { task, .. }
        | Input::AttemptEnded { task, .. }
        | Input::SlotIdle { task, .. } => Some(task),
        _ => None,
    }
}

fn action_task(action: &mut Action) -> Option<&mut TaskNo> {
    match action {
        Action::Admitted { task, .. }
        | Action::Rejected { task, .. }
        | Action::Start { task, .. }
        | Action::Stop { task, .. }
        | Action::ReportProgress { task, .. }
        | Action::End { task, .. } => Some(task),
        Action::Probe { .. } => None,
    }
}

pub fn admit_a_refused_task(_: &Config, trace: &mut [Step]) -> bool {
    let specs = specs(trace);
    let found = places(trace).find_map(|(place, action)| {
        let Action::Rejected {
            task,
            refusal: Refusal::QueueFull(policy),
            ..
        } = *action
        else {
            return None;
        };
        let [pool] = specs[&task].eligible[..] else {
            return None;
        };
        let admitted = Action::Admitted {
            task,
            pool,
            forecast: Forecast::default(),
        };
        (policy != FullPolicy::ShedLowPriority).then_some((place, admitted))
    });
    replace(trace, found)
}

pub fn lose_an_end(_: &Config, trace: &mut [Step]) -> bool {
    let found = places(trace).find(|(_, action)| matches!(action, Action::End { .. }));
    let place = found.map(|(place, _)| place);
    remove(trace, place)
}

/// A task that would go on after a timeout ends with it.
pub fn give_up(_: &Config, trace: &mut [Step]) -> bool {
    let found = places(trace).find_map(|((s, a), action)| {
        let Action::Stop {
            task,
            reason: StopReason::TimedOut(kind),
            ..
        } = *action
        else {
            return None;
        };
        let reason = EndReason::TimedOut(kind);
        let mut later = trace[s].actions[a..].iter();
        let ends = later.any(|x| matches!(x, Action::End { task: other, .. } if *other == task));
        (!ends).then_some(((s, a + 1), Action::End { task, reason }))
    });
    insert(trace, found)
}

/// A task that ends with a timeout goes on instead.
pub fn never_give_up(_: &Config, trace: &mut [Step]) -> bool {
    let timed_out = |action: &Action| {
        matches!(
            action,
            Action::End {
                reason: EndReason::TimedOut(_),
                ..
            }
        )
    };
    let found = places(trace).find(|(_, action)| timed_out(action));
    let place = found.map(|(place, _)| place);
    remove(trace, place)
}

pub fn end_twice(_: &Config, trace: &mut [Step]) -> bool {
    let found = places(trace).find(|(_, action)| matches!(action, Action::End { .. }));
    let found = found.map(|(place, action)| (place, action.clone()));
    insert(trace, found)
}

pub fn start_after_cancel(_: &Config, trace: &mut [Step]) -> bool {
    let found = places(trace).find_map(|((s, a), action)| {
        let Action::End {
            task,
            reason: EndReason::Canceled,
        } = *action
        else {
            return None;
        };
        let (attempt, replica) = (AttemptNo(1), ReplicaNo(1));
        Some((
            (s, a + 1),
            Action::Start {
                task,
                attempt,
                replica,
            },
        ))
    });
    insert(trace, found)
}

pub fn withhold_a_start(_: &Config, trace: &mut [Step]) -> bool {
    let found = places(trace).find(|(_, action)| matches!(action, Action::Start { .. }));
    let place = found.map(|(place, _)| place);
    remove(trace, place)
}

/// The step's only start goes to another replica, chosen by what was seen before and after the step.
fn redirect(
    trace: &mut [Step],
    wanted: impl Fn(&Action, &Step, (ReplicaNo, &ReplicaView)) -> bool,
) -> bool {
    let found = places(trace).find_map(|((s, a), action)| {
        let Action::Start {
            task,
            attempt,
            replica: chosen,
        } = *action
        else {
            return None;
        };
        let (before, step) = (&trace[s.checked_sub(1)?], &trace[s]);
        let starts = step
            .actions
            .iter()
            .filter(|x| matches!(x, Action::Start { .. }));
        if starts.count() > 1 {
            return None;
        }
        let other = step.replicas.iter().find(|(no, view)| {
            **no != chosen
                && before.replicas.get(no) == Some(*view)
                && wanted(action, before, (**no, *view))
        });
        let replica = *other?.0;
        Some((
            (s, a),
            Action::Start {
                task,
                attempt,
                replica,
            },
        ))
    });
    replace(trace, found)
}

pub fn start_on_a_closed_replica(_: &Config, trace: &mut [Step]) -> bool {
    redirect(trace, |_, _, (_, view)| {
        !view.ready || view.in_flight + view.reclaiming == view.slots
    })
}

pub fn change_the_set(_: &Config, trace: &mut [Step]) -> bool {
    let replicas = replicas(trace);
    redirect(trace, |action, _, (_, view)| match action {
        Action::Start {
            attempt, replica, ..
        } => attempt.0 > 1 && view.set != replicas[replica].set,
        _ => false,
    })
}

pub fn start_on_a_busier_replica(_: &Config, trace: &mut [Step]) -> bool {
    let (specs, replicas) = (specs(trace), replicas(trace));
    redirect(trace, |action, before, (no, view)| {
        let Action::Start { task, replica, .. } = action else {
            return false;
        };
        let Some(chosen) = before.replicas.get(replica) else {
            return false;
        };
        let held = |view: &ReplicaView| view.in_flight + view.reclaiming;
        let (one, two) = (&replicas[replica], &replicas[&no]);
        let equals = one.pool == two.pool && one.set == two.set;
        let open = |v: &ReplicaView| v.ready && !v.resting && held(v) < v.slots;
        let busier = held(view) * chosen.slots > held(chosen) * view.slots;
        specs[task].session.is_none() && equals && open(view) && open(chosen) && busier
    })
}

/// A tenant below its share is refused instead of another's task giving way.
pub fn refuse_below_the_share(_: &Config, trace: &mut [Step]) -> bool {
    let reason = EndReason::Refused(Refusal::Evicted(FullPolicy::Reject));
    let evicts = |x: &Action| matches!(x, Action::End { reason: given, .. } if *given == reason);
    let single = |input: &Input| matches!(input, Input::Submit(s) if s.eligible.len() == 1);
    let mut steps = trace.iter_mut();
    let Some(step) = steps.find(|s| single(&s.input) && s.actions.iter().any(evicts)) else {
        return false;
    };
    step.actions.retain(|action| !evicts(action));
    for action in &mut step.actions {
        if let Action::Admitted { task, .. } = *action {
            *action = Action::Rejected {
                task,
                refusal: Refusal::QueueFull(FullPolicy::Reject),
                retry_after_ms: None,
                forecast: Forecast::default(),
            };
        }
    }
    true
}

/// Another task of the class gives way than the one that must.
pub fn evict_another(_: &Config, trace: &mut [Step]) -> bool {
    let specs = specs(trace);
    let found = places(trace).find_map(|((s, a), action)| {
        let Action::End {
            task,
            reason: reason @ EndReason::Refused(Refusal::Evicted(_)),
        } = *action
        else {
            return None;
        };
        let before = &trace[s.checked_sub(1)?].tasks;
        let pool = before.get(&task)?.pool;
        let (other, _) = before.iter().find(|(other, view)| {
            let waits = view.state == TaskState::Queued && view.attempt.0 == 0;
            let same = specs[other].class == specs[&task].class && view.pool == pool;
            let still = trace[s].tasks.get(other).map(|v| v.state) == Some(TaskState::Queued);
            **other != task && specs[other].tenant == specs[&task].tenant && waits && same && still
        })?;
        let task = *other;
        Some(((s, a), Action::End { task, reason }))
    });
    replace(trace, found)
}

pub fn forget_an_answer(_: &Config, trace: &mut [Step]) -> bool {
    let found = places(trace).find(|(_, action)| matches!(action, Action::Rejected { .. }));
    let place = found.map(|(place, _)| place);
    remove(trace, place)
}

pub fn ignore_a_cancel(_: &Config, trace: &mut [Step]) -> bool {
    let canceled = trace.iter_mut().find(|step| {
        let ends = step.actions.iter().any(|x| matches!(x, Action::End { .. }));
        matches!(step.input, Input::Cancel(_)) && ends
    });
    canceled.map(|step| step.actions.clear()).is_some()
}
