//! The replicas, their slots and the permits that stand for held slots (ORCH-3008).
//!
//! A slot is taken and given back here and nowhere else. A [`Permit`] cannot be copied: it goes from
//! [`Fleet::take`] into an attempt, from there back by [`Fleet::give_back`], or by [`Fleet::reclaim`] into the
//! list of slots whose engine may still be busy.

use std::collections::BTreeMap;

use crate::accounts::Debt;
use crate::api::{AttemptNo, PoolNo, ReplicaNo, ReplicaSpec, ReplicaView, SetNo, TaskNo, Time};
use crate::fairness::Need;
use crate::placement::{Candidate, FreeSlots};

/// The held right to occupy one slot of one replica.
#[derive(Debug)]
#[must_use = "a slot is lost when its permit is dropped"]
pub(crate) struct Permit {
    replica: ReplicaNo,
}

impl Permit {
    pub fn replica(&self) -> ReplicaNo {
        self.replica
    }
}

/// Whether a replica may be placed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Known, never ready so far.
    Joining,
    Ready,
    /// Its owner said so.
    Unready,
    /// An attempt failed on it or a slot did not come back; a probe was asked for.
    Suspect,
    /// Removed, with slots still held; forgotten with the last of them.
    Gone,
}

#[derive(Debug)]
struct Replica {
    spec: ReplicaSpec,
    health: Health,
    /// Busy by its own word; back at this moment.
    resting_until: Option<Time>,
    in_flight: u32,
    reclaiming: u32,
}

impl Replica {
    fn candidate(&self) -> Option<Candidate> {
        let held = self.in_flight + self.reclaiming;
        let open = self.health == Health::Ready && self.resting_until.is_none();
        (open && held < self.spec.slots).then(|| Candidate {
            pool: self.spec.pool,
            set: self.spec.set,
            reproducible: self.spec.reproducible,
            load: load(held, self.spec.slots),
            replica: self.spec.replica,
        })
    }

    fn ready_slots(&self) -> u32 {
        if self.health == Health::Ready {
            self.spec.slots
        } else {
            0
        }
    }
}

/// The held part of the slots, in units of 2^-16, so that replicas of different size compare.
fn load(held: u32, slots: u32) -> u32 {
    let part = (u64::from(held) << 16) / u64::from(slots.max(1));
    u32::try_from(part).unwrap_or(u32::MAX)
}

/// A slot whose attempt was stopped: the engine may still be decoding.
#[derive(Debug)]
struct Reclaim {
    permit: Permit,
    until: Time,
    debt: Option<Debt>,
}

/// An attempt that was stopped. A task may have several: it goes on while the slots of earlier attempts are
/// still being reclaimed.
pub(crate) type Stopped = (TaskNo, AttemptNo);

/// What is known of the replicas of one pool, whatever their health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// There is no replica at all.
    None,
    /// There are replicas, none of which meets the need.
    Others,
    Fitting,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    replicas: BTreeMap<ReplicaNo, Replica>,
    reclaims: BTreeMap<Stopped, Reclaim>,
    free: FreeSlots,
    /// Slots of the ready replicas per pool, held or not.
    ready_slots: BTreeMap<PoolNo, u32>,
}

impl Fleet {
    /// A number that is known already keeps its replica.
    pub fn add(&mut self, mut spec: ReplicaSpec) {
        spec.slots = spec.slots.max(1);
        self.replicas.entry(spec.replica).or_insert(Replica {
            spec,
            health: Health::Joining,
            resting_until: None,
            in_flight: 0,
            reclaiming: 0,
        });
    }

    /// The replica is healthy and, unless it was so before, its stopped slots are free.
    pub fn ready(&mut self, replica: ReplicaNo) {
        if matches!(
            self.health(replica),
            None | Some(Health::Ready | Health::Gone)
        ) {
            return;
        }
        self.free_reclaims(replica);
        self.change(replica, |r| {
            r.health = Health::Ready;
            r.resting_until = None;
        });
    }

    pub fn unready(&mut self, replica: ReplicaNo) {
        if self.health(replica) != Some(Health::Gone) {
            self.change(replica, |r| r.health = Health::Unready);
        }
    }

    pub fn remove(&mut self, replica: ReplicaNo) {
        self.free_reclaims(replica);
        self.change(replica, |r| r.health = Health::Gone);
        self.forget_if_gone(replica);
    }

    /// Not placed upon until it is ready again. True if a probe has to be asked for, that is once.
    pub fn suspect(&mut self, replica: ReplicaNo) -> bool {
        let was_ready = self.health(replica) == Some(Health::Ready);
        if was_ready {
            self.change(replica, |r| r.health = Health::Suspect);
        }
        was_ready
    }

    /// Not placed upon until that moment, unless it rests longer already. True if the caller has to wake it.
    pub fn rest(&mut self, replica: ReplicaNo, until: Time) -> bool {
        let longer = self
            .replicas
            .get(&replica)
            .is_some_and(|r| r.health != Health::Gone && r.resting_until < Some(until));
        if longer {
            self.change(replica, |r| r.resting_until = Some(until));
        }
        longer
    }

    pub fn rests_until(&self, replica: ReplicaNo) -> Option<Time> {
        self.replicas.get(&replica)?.resting_until
    }

    pub fn wake(&mut self, replica: ReplicaNo) {
        self.change(replica, |r| r.resting_until = None);
    }

    /// The least loaded replica of the pool that meets the need; `preferred` if it is one of those that do.
    pub fn choose(
        &self,
        pool: PoolNo,
        need: Need,
        preferred: Option<ReplicaNo>,
    ) -> Option<ReplicaNo> {
        let liked = preferred
            .and_then(|replica| self.replicas.get(&replica)?.candidate())
            .filter(|candidate| candidate.pool == pool && candidate.meets(need));
        match liked {
            Some(candidate) => Some(candidate.replica),
            None => self.free.least_loaded(pool, need),
        }
    }

    pub fn can_place(&self, pool: PoolNo, need: Need) -> bool {
        self.free.least_loaded(pool, need).is_some()
    }

    /// The permit of one slot; `None` if the replica is not open or full.
    pub fn take(&mut self, replica: ReplicaNo) -> Option<Permit> {
        self.replicas.get(&replica)?.candidate()?;
        self.change(replica, |r| r.in_flight += 1);
        Some(Permit { replica })
    }

    /// The slot is free at once: the engine is done with it.
    pub fn give_back(&mut self, permit: Permit) {
        let Permit { replica } = permit;
        self.change(replica, |r| r.in_flight -= 1);
        self.forget_if_gone(replica);
    }

    /// The slot is free once the engine is idle. False if there is nothing to wait for, the replica being gone.
    pub fn reclaim(
        &mut self,
        permit: Permit,
        stopped: Stopped,
        (until, debt): (Time, Option<Debt>),
    ) -> bool {
        if self.health(permit.replica) == Some(Health::Gone) {
            self.give_back(permit);
            return false;
        }
        self.change(permit.replica, |r| {
            r.in_flight -= 1;
            r.reclaiming += 1;
        });
        let reclaim = Reclaim {
            permit,
            until,
            debt,
        };
        self.reclaims.insert(stopped, reclaim);
        true
    }

    /// Where the stopped attempt's slot is being reclaimed and until when that may take.
    pub fn reclaim_of(&self, stopped: Stopped) -> Option<(ReplicaNo, Time)> {
        self.reclaims
            .get(&stopped)
            .map(|reclaim| (reclaim.permit.replica, reclaim.until))
    }

    /// What is still to be charged for the stopped attempt of a task that has ended; taken, so that it is
    /// charged once.
    pub fn take_debt(&mut self, stopped: Stopped) -> Option<Debt> {
        self.reclaims.get_mut(&stopped)?.debt.take()
    }

    /// The task's stopped attempt whose slot on this replica is being reclaimed, the earliest if there are more.
    pub fn stopped_at(&self, replica: ReplicaNo, task: TaskNo) -> Option<Stopped> {
        self.reclaims
            .range((task, AttemptNo(0))..=(task, AttemptNo(u32::MAX)))
            .find(|(_, reclaim)| reclaim.permit.replica == replica)
            .map(|(stopped, _)| *stopped)
    }

    /// The engine has nothing to do with the attempt any more.
    pub fn reclaimed(&mut self, stopped: Stopped) {
        if let Some(Reclaim { permit, .. }) = self.reclaims.remove(&stopped) {
            let Permit { replica } = permit;
            self.change(replica, |r| r.reclaiming -= 1);
            self.forget_if_gone(replica);
        }
    }

    pub fn reclaiming(&self) -> usize {
        self.reclaims.len()
    }

    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    pub fn pool_of(&self, replica: ReplicaNo) -> Option<PoolNo> {
        self.replicas.get(&replica).map(|r| r.spec.pool)
    }

    /// Whether the replica keeps the promise of determinism.md.
    pub fn is_reproducible(&self, replica: ReplicaNo) -> bool {
        self.replicas
            .get(&replica)
            .is_some_and(|r| r.spec.reproducible)
    }

    pub fn set_of(&self, replica: ReplicaNo) -> Option<SetNo> {
        self.replicas.get(&replica).map(|r| r.spec.set)
    }

    /// Slots of the ready replicas of a pool, held or not.
    pub fn ready_slots(&self, pool: PoolNo) -> u32 {
        self.ready_slots.get(&pool).copied().unwrap_or(0)
    }

    /// Whether the pool has a replica, ready or not, that meets the need.
    pub fn knows(&self, pool: PoolNo, need: Need) -> Known {
        let mut known = Known::None;
        for r in self.of_pool(pool) {
            let strict_met = !need.strict || r.spec.reproducible;
            let set_met = need.set.is_none_or(|set| set == r.spec.set);
            if strict_met && set_met {
                return Known::Fitting;
            }
            known = Known::Others;
        }
        known
    }

    pub fn view(&self, replica: ReplicaNo) -> Option<ReplicaView> {
        self.replicas.get(&replica).map(|r| ReplicaView {
            pool: r.spec.pool,
            set: r.spec.set,
            slots: r.spec.slots,
            in_flight: r.in_flight,
            reclaiming: r.reclaiming,
            ready: r.health == Health::Ready,
            resting: r.resting_until.is_some(),
        })
    }

    fn of_pool(&self, pool: PoolNo) -> impl Iterator<Item = &Replica> {
        self.replicas
            .values()
            .filter(move |r| r.spec.pool == pool && r.health != Health::Gone)
    }

    fn health(&self, replica: ReplicaNo) -> Option<Health> {
        self.replicas.get(&replica).map(|r| r.health)
    }

    /// Every change goes through here, so that the index of free slots cannot fall behind.
    fn change(&mut self, replica: ReplicaNo, change: impl FnOnce(&mut Replica)) {
        let Some(r) = self.replicas.get_mut(&replica) else {
            return;
        };
        let (before, slots_before) = (r.candidate(), r.ready_slots());
        change(r);
        self.free.update(before, r.candidate());
        let slots = self.ready_slots.entry(r.spec.pool).or_default();
        *slots = slots.saturating_add(r.ready_slots()) - slots_before;
    }

    fn free_reclaims(&mut self, replica: ReplicaNo) {
        let of_replica: Vec<Stopped> = self
            .reclaims
            .iter()
            .filter(|(_, reclaim)| reclaim.permit.replica == replica)
            .map(|(stopped, _)| *stopped)
            .collect();
        for stopped in of_replica {
            self.reclaimed(stopped);
        }
    }

    fn forget_if_gone(&mut self, replica: ReplicaNo) {
        if let Some(r) = self.replicas.get(&replica)
            && r.health == Health::Gone
            && r.in_flight + r.reclaiming == 0
        {
            self.replicas.remove(&replica);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolNo = PoolNo(1);
    const ANY: Need = Need {
        strict: false,
        set: None,
    };

    fn spec(replica: u32, slots: u32) -> ReplicaSpec {
        ReplicaSpec {
            replica: ReplicaNo(replica),
            pool: POOL,
            set: SetNo(replica),
            slots,
            reproducible: replica == 1,
        }
    }

    fn fleet(slots: &[u32]) -> Fleet {
        let mut fleet = Fleet::default();
        for (replica, slots) in (1u32..).zip(slots) {
            fleet.add(spec(replica, *slots));
            fleet.ready(ReplicaNo(replica));
        }
        fleet
    }

    #[test]
    fn a_joining_replica_is_not_placed_upon() {
        let mut fleet = Fleet::default();
        fleet.add(spec(1, 1));
        assert!(!fleet.can_place(POOL, ANY));
        assert!(fleet.take(ReplicaNo(1)).is_none());
        assert_eq!(fleet.ready_slots(POOL), 0);
    }

    #[test]
    fn the_least_loaded_goes_first_and_ties_go_to_the_lower_number() {
        let mut fleet = fleet(&[2, 2]);
        let mut order = Vec::new();
        let mut permits = Vec::new();
        while let Some(replica) = fleet.choose(POOL, ANY, None) {
            order.push(replica.0);
            permits.push(fleet.take(replica).unwrap());
        }
        assert_eq!(order, [1, 2, 1, 2]);
        permits.into_iter().for_each(|p| fleet.give_back(p));
        assert!(fleet.can_place(POOL, ANY));
    }

    #[test]
    fn the_preferred_replica_wins_only_with_a_free_slot() {
        let mut fleet = fleet(&[1, 1]);
        assert_eq!(
            fleet.choose(POOL, ANY, Some(ReplicaNo(2))),
            Some(ReplicaNo(2))
        );
        let permit = fleet.take(ReplicaNo(2)).unwrap();
        assert_eq!(
            fleet.choose(POOL, ANY, Some(ReplicaNo(2))),
            Some(ReplicaNo(1))
        );
        fleet.give_back(permit);
    }

    #[test]
    fn a_stopped_slot_is_held_until_the_engine_is_idle() {
        let mut fleet = fleet(&[1]);
        let permit = fleet.take(ReplicaNo(1)).unwrap();
        assert!(fleet.reclaim(permit, (TaskNo(9), AttemptNo(1)), (Time(5), None)));
        assert!(!fleet.can_place(POOL, ANY));
        assert_eq!(fleet.view(ReplicaNo(1)).unwrap().reclaiming, 1);
        assert_eq!(fleet.stopped_at(ReplicaNo(2), TaskNo(9)), None);
        let stopped = fleet.stopped_at(ReplicaNo(1), TaskNo(9)).unwrap();
        fleet.reclaimed(stopped);
        fleet.reclaimed(stopped);
        assert!(fleet.can_place(POOL, ANY));
        assert_eq!(fleet.view(ReplicaNo(1)).unwrap().reclaiming, 0);
    }

    #[test]
    fn a_probe_is_asked_for_once_and_ready_frees_stopped_slots() {
        let mut fleet = fleet(&[1]);
        let permit = fleet.take(ReplicaNo(1)).unwrap();
        fleet.reclaim(permit, (TaskNo(9), AttemptNo(1)), (Time(5), None));
        fleet.ready(ReplicaNo(1));
        assert_eq!(fleet.reclaiming(), 1, "it was ready all the time");
        assert!(fleet.suspect(ReplicaNo(1)));
        assert!(!fleet.suspect(ReplicaNo(1)));
        fleet.ready(ReplicaNo(1));
        assert_eq!(fleet.reclaiming(), 0);
        assert!(fleet.can_place(POOL, ANY));
    }

    #[test]
    fn a_removed_replica_is_forgotten_with_its_last_slot() {
        let mut fleet = fleet(&[2]);
        let permit = fleet.take(ReplicaNo(1)).unwrap();
        fleet.remove(ReplicaNo(1));
        assert_eq!(fleet.knows(POOL, ANY), Known::None);
        fleet.ready(ReplicaNo(1));
        assert!(!fleet.can_place(POOL, ANY));
        fleet.give_back(permit);
        assert!(fleet.view(ReplicaNo(1)).is_none());
        assert_eq!(fleet.len(), 0);
    }

    #[test]
    fn what_is_known_tells_missing_from_unfit() {
        let fleet = fleet(&[1, 1]);
        let strict = |set| Need { strict: true, set };
        assert_eq!(fleet.knows(POOL, strict(None)), Known::Fitting);
        assert_eq!(fleet.knows(POOL, strict(Some(SetNo(2)))), Known::Others);
        assert_eq!(fleet.knows(PoolNo(7), ANY), Known::None);
    }
}
