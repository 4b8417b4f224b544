//! The forecast: how long a pool takes for a task, learned from the attempts that finished.
//!
//! One smoothed mean of the service time and one of the output length per pool, in whole numbers. From them
//! follow the predicted start, the time until a place is free again, and whether a deadline can be met.

use crate::api::Time;

/// New observations count one part in `2^SMOOTHING`.
const SMOOTHING: u32 = 3;

/// What one pool has shown so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Service {
    /// Mean microseconds that a finished attempt held its slot; 0 while nothing has finished.
    busy_us: u64,
    /// Mean output tokens of a finished attempt, times 256.
    tokens_256: u64,
}

impl Service {
    /// An attempt finished after `busy_us` microseconds with so many output tokens.
    pub fn observe(&mut self, busy_us: u64, tokens_out: u32) {
        let tokens_256 = u64::from(tokens_out.max(1)) << 8;
        if self.busy_us == 0 {
            self.busy_us = busy_us.max(1);
            self.tokens_256 = tokens_256;
        } else {
            self.busy_us = smooth(self.busy_us, busy_us).max(1);
            self.tokens_256 = smooth(self.tokens_256, tokens_256).max(1);
        }
    }

    /// Microseconds until a task starts that waits for a slot behind `ahead` others. The tasks that hold the
    /// slots now are taken to be half done.
    pub fn start_us(&self, ahead: usize, slots: u32) -> Option<u64> {
        if self.busy_us == 0 || slots == 0 {
            return None;
        }
        let halves = (ahead as u64).saturating_mul(2).saturating_add(1);
        Some(self.busy_us.saturating_mul(halves) / (2 * u64::from(slots)))
    }

    /// Microseconds that a task with so many output tokens holds a slot. The mean, and less in proportion
    /// for one that asks for less than the mean; nobody is reckoned with more than that, because
    /// `max_tokens` is a limit and not a wish.
    pub fn busy_us(&self, tokens_expected: u32) -> Option<u64> {
        if self.busy_us == 0 {
            return None;
        }
        let asked_256 = u64::from(tokens_expected) << 8;
        let part_256 = asked_256.min(self.tokens_256);
        Some(mul_div(self.busy_us, part_256, self.tokens_256))
    }

    /// Milliseconds until the pool takes one more task of a class with this share (weight, sum of weights)
    /// out of its queue, at the rate measured.
    pub fn retry_after_ms(&self, slots: u32, share: (u64, u64)) -> Option<u64> {
        if self.busy_us == 0 || slots == 0 {
            return None;
        }
        let (own, all) = share;
        let interval_us = mul_div(self.busy_us, all, own.max(1)) / u64::from(slots);
        Some(interval_us.div_ceil(1000).max(1))
    }

    /// The last moment at which the task can start and meet its deadline; the deadline itself while nothing
    /// is known.
    pub fn latest_start(&self, deadline: Time, tokens_expected: u32) -> Time {
        let busy_us = self.busy_us(tokens_expected).unwrap_or(0);
        Time(deadline.0.saturating_sub(busy_us))
    }
}

fn smooth(mean: u64, new: u64) -> u64 {
    if new >= mean {
        mean + ((new - mean) >> SMOOTHING)
    } else {
        mean - ((mean - new) >> SMOOTHING)
    }
}

fn mul_div(value: u64, by: u64, over: u64) -> u64 {
    let wide = u128::from(value) * u128::from(by) / u128::from(over.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(busy_us: u64, tokens: u32) -> Service {
        let mut service = Service::default();
        service.observe(busy_us, tokens);
        service
    }

    #[test]
    fn nothing_is_promised_before_anything_was_served() {
        let service = Service::default();
        assert_eq!(service.start_us(3, 2), None);
        assert_eq!(service.busy_us(10), None);
        assert_eq!(service.retry_after_ms(1, (1, 1)), None);
        assert_eq!(service.latest_start(Time(77), 10), Time(77));
    }

    #[test]
    fn the_start_grows_with_the_tasks_ahead_and_shrinks_with_slots() {
        let service = served(1_000_000, 10);
        assert_eq!(service.start_us(0, 1), Some(500_000));
        assert_eq!(service.start_us(3, 1), Some(3_500_000));
        assert_eq!(service.start_us(3, 4), Some(875_000));
        assert_eq!(service.start_us(3, 0), None);
    }

    #[test]
    fn a_short_task_is_reckoned_short_and_a_long_limit_is_not_held_against_anyone() {
        let service = served(1_000_000, 100);
        assert_eq!(service.busy_us(10), Some(100_000));
        assert_eq!(service.busy_us(100_000), Some(1_000_000));
        assert_eq!(service.latest_start(Time(2_000_000), 10), Time(1_900_000));
    }

    #[test]
    fn the_mean_follows_what_is_seen() {
        let mut service = served(8_000, 8);
        for _ in 0..100 {
            service.observe(16_000, 8);
        }
        let mean = service.busy_us(u32::MAX).unwrap();
        assert!((15_900..=16_000).contains(&mean), "{mean}");
    }

    #[test]
    fn retry_after_follows_rate_and_share() {
        let service = served(1_000_000, 10);
        assert_eq!(service.retry_after_ms(4, (1, 1)), Some(250));
        assert_eq!(service.retry_after_ms(4, (1, 5)), Some(1250));
    }
}
