//! Which replica takes the next task: the index of all replicas with a free slot, least loaded first
//! (ORCH-3007, ORCH-3046).
//!
//! The index is kept per pool and per group of equal replicas (same set, same promise), so that a task that is
//! bound to a set, or needs a reproducible replica, finds the best one without looking at the others. Ties are
//! broken by number. The load is our own credit of held slots, never a number scraped from an engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{PoolNo, ReplicaNo, SetNo};
use crate::fairness::Need;

/// A replica that can take one more task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub pool: PoolNo,
    pub set: SetNo,
    pub reproducible: bool,
    /// Held part of its slots.
    pub load: u32,
    pub replica: ReplicaNo,
}

impl Candidate {
    pub fn meets(&self, need: Need) -> bool {
        self.group().meets(need)
    }

    fn group(&self) -> Group {
        Group {
            set: self.set,
            reproducible: self.reproducible,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    set: SetNo,
    reproducible: bool,
}

impl Group {
    fn meets(self, need: Need) -> bool {
        (self.reproducible || !need.strict) && need.set.is_none_or(|set| set == self.set)
    }
}

type ByLoad = BTreeSet<(u32, ReplicaNo)>;

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct FreeSlots {
    pools: BTreeMap<PoolNo, BTreeMap<Group, ByLoad>>,
}

impl FreeSlots {
    /// A replica changed from `before` to `after`; `None` where it could or can take nothing.
    pub fn update(&mut self, before: Option<Candidate>, after: Option<Candidate>) {
        if before == after {
            return;
        }
        if let Some(old) = before {
            self.forget(&old);
        }
        if let Some(new) = after {
            self.pools
                .entry(new.pool)
                .or_default()
                .entry(new.group())
                .or_default()
                .insert((new.load, new.replica));
        }
    }

    pub fn least_loaded(&self, pool: PoolNo, need: Need) -> Option<ReplicaNo> {
        self.pools
            .get(&pool)?
            .iter()
            .filter(|(group, _)| group.meets(need))
            .filter_map(|(_, replicas)| replicas.first())
            .min()
            .map(|(_, replica)| *replica)
    }

    fn forget(&mut self, old: &Candidate) {
        let Some(groups) = self.pools.get_mut(&old.pool) else {
            return;
        };
        if let Some(replicas) = groups.get_mut(&old.group()) {
            replicas.remove(&(old.load, old.replica));
            if replicas.is_empty() {
                groups.remove(&old.group());
            }
        }
        if groups.is_empty() {
            self.pools.remove(&old.pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolNo = PoolNo(0);

    fn candidate(set: u32, reproducible: bool, load: u32, replica: u32) -> Candidate {
        Candidate {
            pool: POOL,
            set: SetNo(set),
            reproducible,
            load,
            replica: ReplicaNo(replica),
        }
    }

    fn need(strict: bool, set: Option<u32>) -> Need {
        Need {
            strict,
            set: set.map(SetNo),
        }
    }

    #[test]
    fn the_least_loaded_that_meets_the_need_is_found() {
        let mut free = FreeSlots::default();
        free.update(None, Some(candidate(1, false, 0, 4)));
        free.update(None, Some(candidate(1, false, 9, 3)));
        free.update(None, Some(candidate(2, true, 5, 2)));
        let found = |strict, set| free.least_loaded(POOL, need(strict, set)).map(|r| r.0);
        assert_eq!(found(false, None), Some(4));
        assert_eq!(found(true, None), Some(2));
        assert_eq!(found(false, Some(2)), Some(2));
        assert_eq!(found(true, Some(1)), None);
        assert_eq!(free.least_loaded(PoolNo(9), need(false, None)), None);
    }

    #[test]
    fn nothing_is_left_of_a_replica_that_filled_up() {
        let mut free = FreeSlots::default();
        let one = candidate(1, false, 0, 1);
        free.update(None, Some(one));
        free.update(Some(one), None);
        assert_eq!(free.least_loaded(POOL, need(false, None)), None);
        assert!(free.pools.is_empty());
    }
}
