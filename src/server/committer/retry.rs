//! [`Retry`]: when a disk that has failed is tried again.

use std::time::{Duration, Instant};

use rand::Rng;

use crate::backoff::Backoff;

/// The waits between attempts. The file itself allows one a second.
const BACKOFF: Backoff =
    Backoff { least: Duration::from_secs(1), first: Duration::from_secs(2), most: Duration::from_secs(30) };

/// The next attempt, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Retry {
    at: Option<Instant>,
    attempts: u32,
}

impl Retry {
    /// The disk has failed. If an attempt is planned already, it stays: events that fail meanwhile must not put it off.
    pub(super) fn failed(&mut self, now: Instant, chance: &mut impl Rng) {
        if self.at.is_none() {
            self.at = Some(now + BACKOFF.wait(self.attempts, chance));
            self.attempts = self.attempts.saturating_add(1);
        }
    }

    /// The disk works again.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// How long to wait for the next attempt, if there is to be one.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(now))
    }

    /// Whether it is time for an attempt, which begins.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.at.is_some_and(|at| now >= at);
        if is_due {
            self.at = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn attempts_get_rarer_and_failures_between_them_do_not_put_them_off() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let mut now = Instant::now();
        let (mut retry, mut chance) = (Retry::default(), StdRng::seed_from_u64(1));
        assert!(!retry.is_due(now), "nothing has failed");
        let mut waits = Vec::new();
        for _ in 0..100 {
            retry.failed(now, &mut chance);
            let wait = retry.wait(now).unwrap();
            retry.failed(now + wait / 2, &mut chance);
            assert_eq!(retry.wait(now), Some(wait));
            assert!(!retry.is_due(now));
            now += wait;
            assert!(retry.is_due(now) && !retry.is_due(now));
            waits.push(wait);
        }
        assert!(waits[0] <= Duration::from_secs(2), "{waits:?}");
        assert!(waits.iter().all(|wait| (BACKOFF.least..=BACKOFF.most).contains(wait)), "{waits:?}");
        assert!(waits[10..].iter().max().unwrap() > &Duration::from_secs(20), "{waits:?}");
        retry.failed(now, &mut chance);
        retry.succeeded();
        assert_eq!(retry.wait(now), None);
        retry.failed(now, &mut chance);
        assert!(retry.wait(now).unwrap() <= Duration::from_secs(2));
    }
}
