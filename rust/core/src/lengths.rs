//! How long the flows of an order are: which is the longest, and how many tasks are served in so many turns.
//!
//! Flows are counted in classes of length by powers of two, so that the second question costs a walk over those
//! few and not over the flows.

use std::collections::BTreeSet;

use crate::api::TenantNo;

const CLASSES: usize = 48;

/// Flows of about the same length, for their weight.
#[derive(Clone, Copy, Debug, Default)]
struct Similar {
    tasks: u64,
    weights: u64,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Lengths {
    by_length: BTreeSet<(usize, TenantNo)>,
    classes: [Similar; CLASSES],
}

impl Default for Lengths {
    fn default() -> Self {
        Self {
            by_length: BTreeSet::new(),
            classes: [Similar::default(); CLASSES],
        }
    }
}

/// The class of a flow: the turns that it takes, in parts of 256, as a power of two.
fn class(length: usize, weight: u32) -> usize {
    let turns = (length as u64).saturating_mul(256) / u64::from(weight.max(1));
    (turns.max(1).ilog2() as usize).min(CLASSES - 1)
}

impl Lengths {
    pub fn insert(&mut self, tenant: TenantNo, length: usize, weight: u32) {
        if length > 0 {
            self.by_length.insert((length, tenant));
            let similar = &mut self.classes[class(length, weight)];
            similar.tasks += length as u64;
            similar.weights += u64::from(weight);
        }
    }

    pub fn remove(&mut self, tenant: TenantNo, length: usize, weight: u32) {
        if length > 0 {
            self.by_length.remove(&(length, tenant));
            let similar = &mut self.classes[class(length, weight)];
            similar.tasks -= length as u64;
            similar.weights -= u64::from(weight);
        }
    }

    pub fn flows(&self) -> usize {
        self.by_length.len()
    }

    /// Equal lengths: the tenant with the larger number.
    pub fn longest(&self) -> Option<(TenantNo, usize)> {
        let (length, tenant) = self.by_length.last()?;
        Some((*tenant, *length))
    }

    /// Tasks served by all flows but one, given by length and weight, while a flow of weight 1 has so many
    /// turns, in parts of 256.
    pub fn served_in(&self, turns: u64, but: (usize, u32)) -> usize {
        let (length, weight) = but;
        let own = (length > 0).then(|| class(length, weight));
        let served = self.classes.iter().enumerate().map(|(index, similar)| {
            let (mut tasks, mut weights) = (similar.tasks, similar.weights);
            if own == Some(index) {
                tasks = tasks.saturating_sub(length as u64);
                weights = weights.saturating_sub(u64::from(weight));
            }
            tasks.min(turns.saturating_mul(weights) / 256)
        });
        usize::try_from(served.sum::<u64>()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_flows_are_served_whole_and_long_ones_by_turns() {
        let mut lengths = Lengths::default();
        lengths.insert(TenantNo(1), 2, 1);
        lengths.insert(TenantNo(2), 100, 1);
        lengths.insert(TenantNo(3), 100, 3);
        assert_eq!(lengths.served_in(10 * 256, (0, 1)), 2 + 10 + 30);
        assert_eq!(lengths.served_in(10 * 256, (100, 3)), 2 + 10);
        assert_eq!(lengths.longest(), Some((TenantNo(3), 100)));
        lengths.remove(TenantNo(3), 100, 3);
        lengths.remove(TenantNo(2), 100, 1);
        lengths.remove(TenantNo(1), 2, 1);
        assert_eq!(lengths.flows(), 0);
        assert_eq!(lengths.served_in(u64::MAX, (0, 1)), 0);
    }
}
