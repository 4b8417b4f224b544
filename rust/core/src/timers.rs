//! What must happen at a moment: one heap of timers with lazy deletion, and the rules of an attempt's watchdog
//! (ORCH-3016).
//!
//! A timer is not taken out when it is void; whoever pops it asks whether its subject still waits for just that
//! moment. The heap is swept once void timers outnumber the subjects, so its size stays within a constant
//! factor of theirs.
//!
//! The watchdog is lazy: tokens do not touch it. When the idle time is over by what is known here, the caller is
//! asked for the true progress and the timer is set from that answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::api::{ReplicaNo, TaskNo, Time, TimeoutKind, Timeouts};
use crate::fleet::Stopped;
use crate::session::SessionSlot;
use crate::state::{Attempt, Awaits};

/// How long the answer to `Action::ReportProgress` may take.
const REPORT_MS: u64 = 1000;

/// Whom a timer is for. A subject has at most one moment at which its timer is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A queued task's deadline or lost set, a started one's watchdog.
    Task(TaskNo),
    /// A stopped attempt's slot that has to come back.
    Reclaim(Stopped),
    /// A resting replica.
    Rest(ReplicaNo),
    Session(SessionSlot),
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Timer)>>,
}

impl Timers {
    pub fn set(&mut self, at: Time, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// The moment of the earliest timer; it may be void.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out the earliest timer that is due.
    pub fn pop_due(&mut self, now: Time) -> Option<(Time, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }

    /// Whether void timers may outnumber the `subjects`.
    pub fn is_crowded(&self, subjects: usize) -> bool {
        self.heap.len() > 64 + 2 * subjects
    }

    /// Drops void timers.
    pub fn retain(&mut self, valid: impl Fn(Time, Timer) -> bool) {
        self.heap.retain(|Reverse((at, timer))| valid(*at, *timer));
    }
}

/// What the watchdog of an attempt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again then.
    Wait(Time),
    /// Ask for the true progress; look again then.
    Ask(Time),
    TimedOut(TimeoutKind),
}

/// Looks at an attempt whose timer is due or whose progress was reported.
pub(crate) fn watch(attempt: &Attempt, timeouts: Timeouts, now: Time) -> Verdict {
    let wall = attempt.started_at.plus_ms(timeouts.wall_ms);
    if now >= wall {
        return Verdict::TimedOut(TimeoutKind::Wall);
    }
    let (due, kind) = match attempt.awaits {
        Awaits::FirstToken => (
            attempt.started_at.plus_ms(timeouts.first_token_ms),
            TimeoutKind::FirstToken,
        ),
        Awaits::Report { by } => (by, TimeoutKind::Idle),
        Awaits::Idle => {
            let due = attempt.last_progress.plus_ms(timeouts.idle_ms);
            if now >= due {
                return Verdict::Ask(now.plus_ms(REPORT_MS).min(wall));
            }
            (due, TimeoutKind::Idle)
        }
    };
    if now >= due {
        Verdict::TimedOut(kind)
    } else {
        Verdict::Wait(due.min(wall))
    }
}

/// Like [`watch`], right after the answer to a request for progress: an idle time that is over by the caller's
/// own word needs no second question.
pub(crate) fn watch_report(attempt: &Attempt, timeouts: Timeouts, now: Time) -> Verdict {
    match watch(attempt, timeouts, now) {
        Verdict::Ask(_) => Verdict::TimedOut(TimeoutKind::Idle),
        verdict => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AttemptNo;
    use crate::fleet::Fleet;

    const TIMEOUTS: Timeouts = Timeouts {
        first_token_ms: 100,
        idle_ms: 10,
        wall_ms: 1000,
    };

    fn ms(ms: u64) -> Time {
        Time(0).plus_ms(ms)
    }

    fn attempt(last_progress: Time, awaits: Awaits) -> Attempt {
        use crate::api::{PoolNo, ReplicaSpec, SetNo};
        let mut fleet = Fleet::default();
        fleet.add(ReplicaSpec {
            replica: ReplicaNo(0),
            pool: PoolNo(0),
            set: SetNo(0),
            slots: 1,
            reproducible: false,
        });
        fleet.ready(ReplicaNo(0));
        Attempt {
            number: AttemptNo(1),
            permit: fleet.take(ReplicaNo(0)).unwrap(),
            started_at: ms(0),
            last_progress,
            awaits,
        }
    }

    #[test]
    fn the_first_token_has_a_time_of_its_own() {
        let waiting = attempt(ms(0), Awaits::FirstToken);
        assert_eq!(watch(&waiting, TIMEOUTS, ms(99)), Verdict::Wait(ms(100)));
        assert_eq!(
            watch(&waiting, TIMEOUTS, ms(100)),
            Verdict::TimedOut(TimeoutKind::FirstToken)
        );
    }

    #[test]
    fn an_idle_attempt_is_asked_before_it_is_ended() {
        let idle = attempt(ms(50), Awaits::Idle);
        assert_eq!(watch(&idle, TIMEOUTS, ms(59)), Verdict::Wait(ms(60)));
        assert_eq!(watch(&idle, TIMEOUTS, ms(60)), Verdict::Ask(ms(1000)));
        assert_eq!(
            watch_report(&idle, TIMEOUTS, ms(60)),
            Verdict::TimedOut(TimeoutKind::Idle)
        );
        let asked = attempt(ms(50), Awaits::Report { by: ms(70) });
        assert_eq!(watch(&asked, TIMEOUTS, ms(69)), Verdict::Wait(ms(70)));
        assert_eq!(
            watch(&asked, TIMEOUTS, ms(70)),
            Verdict::TimedOut(TimeoutKind::Idle)
        );
    }

    #[test]
    fn the_wall_time_ends_an_attempt_that_makes_progress() {
        let busy = attempt(ms(999), Awaits::Idle);
        assert_eq!(watch(&busy, TIMEOUTS, ms(999)), Verdict::Wait(ms(1000)));
        assert_eq!(
            watch(&busy, TIMEOUTS, ms(1000)),
            Verdict::TimedOut(TimeoutKind::Wall)
        );
    }

    #[test]
    fn due_timers_come_in_order_and_void_ones_do_not_pile_up() {
        let mut timers = Timers::default();
        for n in (0..1000u64).rev() {
            timers.set(ms(n), Timer::Task(TaskNo(n)));
            if timers.is_crowded(1) {
                timers.retain(|_, timer| timer == Timer::Task(TaskNo(7)));
            }
        }
        assert!(timers.heap.len() <= 66, "{}", timers.heap.len());
        assert_eq!(timers.pop_due(ms(0)).map(|(at, _)| at), Some(ms(0)));
        assert_eq!(timers.pop_due(ms(0)), None);
    }
}
