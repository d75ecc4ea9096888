//! [`Backoff`]: how long to wait before trying something again.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Random waits below a limit that doubles with each attempt, so that clients that failed together do not all retry at the
/// same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// No wait is shorter than this.
    pub(crate) least: Duration,
    /// The limit of the first wait.
    pub(crate) first: Duration,
    /// The limit grows no further than this.
    pub(crate) most: Duration,
}

impl Backoff {
    /// Draws the wait before attempt number `attempt` of those that follow the first failure, counted from 0.
    pub(crate) fn wait(self, attempt: u32, chance: &mut impl Rng) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
        let limit = doubled.min(self.most).max(self.least);
        chance.random_range(self.least..=limit)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The shortest and the longest of many waits.
    fn bounds(backoff: Backoff, attempt: u32) -> (Duration, Duration) {
        let mut chance = StdRng::seed_from_u64(7);
        let drawn = || backoff.wait(attempt, &mut chance);
        let waits: Vec<_> = std::iter::repeat_with(drawn).take(1000).collect();
        (*waits.iter().min().unwrap(), *waits.iter().max().unwrap())
    }

    #[test]
    fn waits_are_spread_between_the_least_and_a_limit_that_doubles() {
        let backoff = Backoff { least: Duration::ZERO, first: 200 * MS, most: 1000 * MS };
        for (attempt, limit) in [(0, 200), (1, 400), (2, 800), (3, 1000), (31, 1000), (32, 1000), (u32::MAX, 1000)] {
            let (shortest, longest) = bounds(backoff, attempt);
            assert!(shortest < limit * MS / 50, "attempt {attempt}: {shortest:?}");
            assert!(longest <= limit * MS && longest > limit * MS * 49 / 50, "attempt {attempt}: {longest:?}");
        }
        let (shortest, longest) = bounds(Backoff { least: 150 * MS, ..backoff }, 0);
        assert!(shortest >= 150 * MS && longest <= 200 * MS && longest > 198 * MS, "{shortest:?} {longest:?}");
        let never_below = Backoff { least: 500 * MS, ..backoff };
        assert_eq!(bounds(never_below, 0), (500 * MS, 500 * MS), "the least wait counts even above the limit");
    }

    #[test]
    fn the_same_seed_draws_the_same_waits() {
        let backoff = Backoff { least: Duration::ZERO, first: 200 * MS, most: 1000 * MS };
        let draw = || {
            let mut chance = StdRng::seed_from_u64(1);
            (0..20).map(|attempt| backoff.wait(attempt, &mut chance)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
