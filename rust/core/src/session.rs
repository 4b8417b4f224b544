//! Sessions: affinity (ORCH-3009) and counters with a time to live (ORCH-3021). A session holds no text.
//!
//! A session lives while one of its tasks does, and for the time to live after that. Its turns count the tasks
//! that were admitted in that life.

use std::collections::BTreeMap;

use crate::api::{ReplicaNo, SessionKey, SessionView, Time};

/// The place of a session in the table; small enough to be kept with every task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionSlot(u32);

#[derive(Debug)]
struct Session {
    key: SessionKey,
    /// Tasks admitted in this life.
    turns: u32,
    last_replica: Option<ReplicaNo>,
    /// Its tasks that have not ended.
    live_tasks: u32,
    /// When it is forgotten; counts only while no task lives.
    expires: Time,
    /// Ended by its owner while a task lived: unknown outside, forgotten with that task.
    closed: bool,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Sessions {
    ttl_ms: u64,
    max_turns: u32,
    by_key: BTreeMap<SessionKey, SessionSlot>,
    slots: Vec<Option<Session>>,
    unused: Vec<SessionSlot>,
}

impl Sessions {
    pub fn new(ttl_ms: u64, max_turns: u32) -> Self {
        Self {
            ttl_ms,
            max_turns,
            by_key: BTreeMap::new(),
            slots: Vec::new(),
            unused: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether one more task may be admitted in the session.
    pub fn has_turn(&self, now: Time, key: SessionKey) -> bool {
        self.view(now, key).map_or(0, |session| session.turns) < self.max_turns
    }

    /// A task of the session was admitted; a session that is unknown or over begins anew.
    pub fn admit(&mut self, now: Time, key: SessionKey) -> SessionSlot {
        let slot = self.slot(key);
        if let Some(session) = self.at_mut(slot) {
            if session.closed || (session.live_tasks == 0 && session.expires <= now) {
                session.turns = 0;
                session.last_replica = None;
                session.closed = false;
            }
            session.turns = session.turns.saturating_add(1);
            session.live_tasks += 1;
        }
        slot
    }

    /// A task of the session was placed.
    pub fn placed(&mut self, slot: SessionSlot, replica: ReplicaNo) {
        if let Some(session) = self.at_mut(slot) {
            session.last_replica = Some(replica);
        }
    }

    pub fn last_replica(&self, slot: SessionSlot) -> Option<ReplicaNo> {
        self.at(slot)
            .filter(|session| !session.closed)
            .and_then(|session| session.last_replica)
    }

    /// A task of the session ended. Returns when the session is to be looked at again, if that was its last.
    pub fn task_ended(&mut self, now: Time, slot: SessionSlot) -> Option<Time> {
        let expires = now.plus_ms(self.ttl_ms);
        let session = self.at_mut(slot)?;
        session.live_tasks = session.live_tasks.saturating_sub(1);
        if session.live_tasks > 0 {
            return None;
        }
        session.expires = if session.closed { now } else { expires };
        Some(session.expires)
    }

    /// Whether the session is to be looked at at that moment.
    pub fn expires_at(&self, slot: SessionSlot, at: Time) -> bool {
        self.at(slot)
            .is_some_and(|session| session.live_tasks == 0 && session.expires == at)
    }

    pub fn forget(&mut self, slot: SessionSlot) {
        let place = self.slots.get_mut(slot.0 as usize);
        if let Some(session) = place.and_then(Option::take) {
            self.by_key.remove(&session.key);
            self.unused.push(slot);
        }
    }

    /// The owner ended the session; its tasks go on without it.
    pub fn close(&mut self, key: SessionKey) {
        let Some(slot) = self.by_key.get(&key).copied() else {
            return;
        };
        match self.at_mut(slot) {
            Some(session) if session.live_tasks > 0 => session.closed = true,
            _ => self.forget(slot),
        }
    }

    pub fn view(&self, now: Time, key: SessionKey) -> Option<SessionView> {
        let session = self.at(*self.by_key.get(&key)?)?;
        let ttl_ms_remaining = if session.live_tasks > 0 {
            self.ttl_ms
        } else {
            session.expires.ms_since(now)
        };
        let over = session.live_tasks == 0 && session.expires <= now;
        (!session.closed && !over).then_some(SessionView {
            ttl_ms_remaining,
            turns: session.turns,
            last_replica: session.last_replica,
        })
    }

    fn slot(&mut self, key: SessionKey) -> SessionSlot {
        if let Some(slot) = self.by_key.get(&key) {
            return *slot;
        }
        let slot = self.unused.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Four thousand million sessions do not fit in memory.
            SessionSlot(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(place) = self.slots.get_mut(slot.0 as usize) {
            *place = Some(Session {
                key,
                turns: 0,
                last_replica: None,
                live_tasks: 0,
                expires: Time(0),
                closed: false,
            });
        }
        self.by_key.insert(key, slot);
        slot
    }

    fn at(&self, slot: SessionSlot) -> Option<&Session> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    fn at_mut(&mut self, slot: SessionSlot) -> Option<&mut Session> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TenantNo;

    const KEY: SessionKey = SessionKey(TenantNo(1), 42);

    fn ms(ms: u64) -> Time {
        Time(0).plus_ms(ms)
    }

    #[test]
    fn turns_run_out_and_come_back_after_the_time_to_live() {
        let mut sessions = Sessions::new(100, 2);
        let slot = sessions.admit(ms(0), KEY);
        sessions.admit(ms(0), KEY);
        assert!(!sessions.has_turn(ms(0), KEY));
        assert_eq!(sessions.task_ended(ms(5), slot), None);
        assert_eq!(sessions.task_ended(ms(10), slot), Some(ms(110)));
        assert!(!sessions.has_turn(ms(109), KEY));
        assert!(sessions.has_turn(ms(110), KEY));
        assert!(sessions.view(ms(110), KEY).is_none());
    }

    #[test]
    fn a_session_does_not_expire_while_its_task_lives() {
        let mut sessions = Sessions::new(100, 8);
        let slot = sessions.admit(ms(0), KEY);
        sessions.placed(slot, ReplicaNo(3));
        let view = sessions.view(ms(5000), KEY).unwrap();
        assert_eq!(
            view,
            SessionView {
                ttl_ms_remaining: 100,
                turns: 1,
                last_replica: Some(ReplicaNo(3))
            }
        );
        sessions.task_ended(ms(5000), slot);
        assert!(sessions.expires_at(slot, ms(5100)));
        sessions.forget(slot);
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn a_closed_session_is_gone_at_once_and_begins_anew() {
        let mut sessions = Sessions::new(100, 8);
        let slot = sessions.admit(ms(0), KEY);
        sessions.placed(slot, ReplicaNo(3));
        sessions.close(KEY);
        assert!(sessions.view(ms(1), KEY).is_none());
        assert_eq!(sessions.last_replica(slot), None);
        assert_eq!(sessions.admit(ms(2), KEY), slot);
        assert_eq!(sessions.view(ms(2), KEY).unwrap().turns, 1);
        sessions.task_ended(ms(3), slot);
        sessions.task_ended(ms(3), slot);
        sessions.close(KEY);
        assert_eq!(sessions.len(), 0);
    }
}
