//! The life of a task: its states, the table of transitions and the attempt that two of them hold.
//!
//! An event that the table does not list is an [`Unexpected`] value; nothing changes then.

use crate::api::{AttemptNo, TaskState, Time};
use crate::fleet::Permit;

/// Where a task stands, without what the state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for a slot.
    Queued,
    /// Holds a slot; no token so far in this attempt.
    Started,
    /// Holds a slot; at least one token in this attempt.
    Streaming,
    /// Over. The record is dropped as soon as this is entered.
    Ended,
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A replica with a free slot was found.
    Placed,
    /// The attempt brought its first token.
    FirstToken,
    /// The attempt was lost or met a busy engine; another one may go on.
    Returned,
    /// The engine said that it was done.
    Finished,
    /// The attempt ended and no other will follow.
    Failed,
    Canceled,
    TimedOut,
    /// The task gave up its place in the queue: evicted, too late, or its pool or set went away.
    Dropped,
}

/// An event met a phase in which it cannot happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unexpected {
    pub from: Phase,
    pub event: Event,
}

const TABLE: [(Phase, Event, Phase); 14] = {
    use {Event as E, Phase as P};
    [
        (P::Queued, E::Placed, P::Started),
        (P::Queued, E::Canceled, P::Ended),
        (P::Queued, E::Dropped, P::Ended),
        (P::Started, E::FirstToken, P::Streaming),
        (P::Started, E::Returned, P::Queued),
        (P::Started, E::Finished, P::Ended),
        (P::Started, E::Failed, P::Ended),
        (P::Started, E::Canceled, P::Ended),
        (P::Started, E::TimedOut, P::Ended),
        (P::Streaming, E::Returned, P::Queued),
        (P::Streaming, E::Finished, P::Ended),
        (P::Streaming, E::Failed, P::Ended),
        (P::Streaming, E::Canceled, P::Ended),
        (P::Streaming, E::TimedOut, P::Ended),
    ]
};

/// The one function that knows which phase follows.
pub(crate) fn transition(from: Phase, event: Event) -> Result<Phase, Unexpected> {
    TABLE
        .iter()
        .find(|(phase, on, _)| (*phase, *on) == (from, event))
        .map(|(_, _, to)| *to)
        .ok_or(Unexpected { from, event })
}

/// What the watchdog of an attempt waits for; the wall time limits all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaits {
    FirstToken,
    /// The idle time counts from the last progress that was reported.
    Idle,
    /// The idle time was over by what is known here; a report was asked for and is due at this moment.
    Report {
        by: Time,
    },
}

/// One open upstream exchange. It owns the permit of its slot.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub number: AttemptNo,
    pub permit: Permit,
    pub started_at: Time,
    /// The last token that was reported; the start before the first.
    pub last_progress: Time,
    pub awaits: Awaits,
}

impl Attempt {
    pub fn new(number: AttemptNo, permit: Permit, now: Time) -> Self {
        Self {
            number,
            permit,
            started_at: now,
            last_progress: now,
            awaits: Awaits::FirstToken,
        }
    }
}

/// Where a task stands, with what the state holds.
#[derive(Debug)]
pub(crate) enum State {
    Queued,
    Started(Attempt),
    Streaming(Attempt),
    Ended,
}

impl State {
    pub fn phase(&self) -> Phase {
        match self {
            Self::Queued => Phase::Queued,
            Self::Started(_) => Phase::Started,
            Self::Streaming(_) => Phase::Streaming,
            Self::Ended => Phase::Ended,
        }
    }

    /// The state as clients see it; `None` once ended.
    pub fn shown(&self) -> Option<TaskState> {
        match self {
            Self::Queued => Some(TaskState::Queued),
            Self::Started(_) => Some(TaskState::Started),
            Self::Streaming(_) => Some(TaskState::Streaming),
            Self::Ended => None,
        }
    }

    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Started(attempt) | Self::Streaming(attempt) => Some(attempt),
            Self::Queued | Self::Ended => None,
        }
    }

    pub fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match self {
            Self::Started(attempt) | Self::Streaming(attempt) => Some(attempt),
            Self::Queued | Self::Ended => None,
        }
    }

    /// Moves on `event`. The attempt that the old state held and the new one does not is given out: its
    /// permit has to be given back or reclaimed by the caller.
    pub fn leave(&mut self, event: Event) -> Result<Option<Attempt>, Unexpected> {
        let to = transition(self.phase(), event)?;
        let attempt = match std::mem::replace(self, Self::Ended) {
            Self::Started(attempt) | Self::Streaming(attempt) => Some(attempt),
            Self::Queued | Self::Ended => None,
        };
        match (to, attempt) {
            (Phase::Started, Some(attempt)) => *self = Self::Started(attempt),
            (Phase::Streaming, Some(attempt)) => *self = Self::Streaming(attempt),
            (Phase::Queued, lost) => {
                *self = Self::Queued;
                return Ok(lost);
            }
            (_, lost) => return Ok(lost),
        }
        Ok(None)
    }

    /// Queued to started. The attempt is made only if the table allows the step, so that no permit is taken
    /// in vain; false if none could be made.
    pub fn place(&mut self, attempt: impl FnOnce() -> Option<Attempt>) -> Result<bool, Unexpected> {
        transition(self.phase(), Event::Placed)?;
        let Some(attempt) = attempt() else {
            return Ok(false);
        };
        *self = Self::Started(attempt);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 4] = [
        Phase::Queued,
        Phase::Started,
        Phase::Streaming,
        Phase::Ended,
    ];
    const EVENTS: [Event; 8] = [
        Event::Placed,
        Event::FirstToken,
        Event::Returned,
        Event::Finished,
        Event::Failed,
        Event::Canceled,
        Event::TimedOut,
        Event::Dropped,
    ];

    #[test]
    fn an_event_the_table_lacks_is_a_typed_error() {
        let known = PHASES
            .iter()
            .flat_map(|phase| EVENTS.iter().map(|event| transition(*phase, *event)))
            .filter(Result::is_ok)
            .count();
        assert_eq!(known, TABLE.len(), "the table lists no step twice");
        assert_eq!(
            transition(Phase::Queued, Event::Finished),
            Err(Unexpected {
                from: Phase::Queued,
                event: Event::Finished
            })
        );
    }

    #[test]
    fn nothing_follows_the_end() {
        for event in EVENTS {
            assert!(transition(Phase::Ended, event).is_err(), "{event:?}");
        }
    }

    #[test]
    fn a_cancel_ends_a_task_in_every_live_phase() {
        for phase in [Phase::Queued, Phase::Started, Phase::Streaming] {
            assert_eq!(transition(phase, Event::Canceled), Ok(Phase::Ended));
        }
    }

    #[test]
    fn a_refused_step_keeps_the_state() {
        let mut state = State::Queued;
        assert!(state.leave(Event::TimedOut).is_err());
        assert_eq!(state.phase(), Phase::Queued);
    }
}
