//! The shares between the classes of one pool.

use crate::api::ClassNo;

/// A class of weight 1 advances by this much per dispatch.
const UNIT: u64 = 1 << 24;

/// Stride scheduling between the classes of one pool.
///
/// Every class has a pass; the class with the smallest pass among those that can be served goes next and
/// advances by `UNIT / weight`. Nothing is ever reserved, so a share that is not used is lent at once, and a
/// class that was empty returns at the present pass: it neither claims the past nor waits for the others.
#[derive(Debug)]
pub(crate) struct Stride {
    strides: Vec<u64>,
    passes: Vec<u64>,
    /// The pass of the last dispatch.
    present: u64,
}

impl Stride {
    pub fn new(weights: impl Iterator<Item = u32>) -> Self {
        let strides: Vec<u64> = weights
            .map(|weight| (UNIT / u64::from(weight.max(1))).max(1))
            .collect();
        let passes = vec![0; strides.len()];
        Self {
            strides,
            passes,
            present: 0,
        }
    }

    /// The class was empty and has a waiting task now.
    pub fn wake(&mut self, class: ClassNo) {
        if let Some(pass) = self.passes.get_mut(usize::from(class.0)) {
            *pass = (*pass).max(self.present);
        }
    }

    /// Smaller goes first; equal passes go to the higher class.
    pub fn pass(&self, class: ClassNo) -> u64 {
        self.passes
            .get(usize::from(class.0))
            .copied()
            .unwrap_or(u64::MAX)
    }

    /// A task of the class was dispatched.
    pub fn charge(&mut self, class: ClassNo) {
        let index = usize::from(class.0);
        if let (Some(pass), Some(stride)) = (self.passes.get_mut(index), self.strides.get(index)) {
            self.present = self.present.max(*pass);
            *pass = pass.saturating_add(*stride);
        }
    }

    /// How many tasks of all classes are dispatched before the one with `rank` in `class`, with no arrivals
    /// and none that must wait for a special replica. `waiting` is the number of tasks per class.
    pub fn ahead(&self, class: ClassNo, rank: usize, waiting: &[usize]) -> usize {
        let own = usize::from(class.0);
        let Some(stride) = self.strides.get(own) else {
            return rank;
        };
        let start = match waiting.get(own) {
            Some(0) | None => self.pass(class).max(self.present),
            Some(_) => self.pass(class),
        };
        let turn = start.saturating_add((rank as u64).saturating_mul(*stride));
        let others: usize = waiting
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != own)
            .map(|(other, count)| self.served_before(other, turn, other < own).min(*count))
            .sum();
        rank + others
    }

    /// How often `other` is served before the pass reaches `turn`; at equal passes too if it `wins_ties`.
    fn served_before(&self, other: usize, turn: u64, wins_ties: bool) -> usize {
        let (pass, stride) = (self.passes[other], self.strides[other]);
        let Some(gap) = turn.checked_sub(pass) else {
            return 0;
        };
        let served = if wins_ties {
            gap / stride + 1
        } else {
            gap.div_ceil(stride)
        };
        usize::try_from(served).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(stride: &Stride, waiting: &[usize]) -> ClassNo {
        (0..2u8)
            .map(ClassNo)
            .filter(|class| waiting[usize::from(class.0)] > 0)
            .min_by_key(|class| stride.pass(*class))
            .unwrap()
    }

    #[test]
    fn classes_share_by_weight_while_both_wait() {
        let mut stride = Stride::new([4, 1].into_iter());
        let mut served = [0usize; 2];
        for _ in 0..1000 {
            let class = choose(&stride, &[1, 1]);
            stride.charge(class);
            served[usize::from(class.0)] += 1;
        }
        assert_eq!(served, [800, 200]);
    }

    #[test]
    fn a_class_that_was_idle_does_not_claim_the_past() {
        let mut stride = Stride::new([1, 1].into_iter());
        for _ in 0..100 {
            stride.charge(ClassNo(1));
        }
        stride.wake(ClassNo(0));
        let mut served = [0usize; 2];
        for _ in 0..10 {
            let class = choose(&stride, &[1, 1]);
            stride.charge(class);
            served[usize::from(class.0)] += 1;
        }
        assert_eq!(served, [6, 4], "one dispatch ahead, not a hundred");
    }

    #[test]
    fn the_position_is_the_number_of_dispatches_before_it() {
        let mut stride = Stride::new([3, 1].into_iter());
        stride.charge(ClassNo(0));
        let mut waiting = [7usize, 5];
        let promised: Vec<Vec<usize>> = (0..2u8)
            .map(|class| {
                (0..waiting[usize::from(class)])
                    .map(|rank| stride.ahead(ClassNo(class), rank, &waiting))
                    .collect()
            })
            .collect();
        let mut seen = [Vec::new(), Vec::new()];
        for dispatched in 0..12 {
            let class = choose(&stride, &waiting);
            stride.charge(class);
            waiting[usize::from(class.0)] -= 1;
            seen[usize::from(class.0)].push(dispatched);
        }
        assert_eq!(promised[0], seen[0]);
        assert_eq!(promised[1], seen[1]);
    }
}
