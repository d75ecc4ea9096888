//! Drain: every session is told when to come back, and has time to finish what is in flight.
//!
//! One [`Drain`] a broker, which every session waits for.

use std::sync::OnceLock;
use std::time::Duration;

use super::signal::Signal;

/// The least time after which an application comes back.
const SPREAD_FROM: Duration = Duration::from_millis(100);

/// Over this time the reconnects of a small broker are spread.
const SPREAD_LEAST: Duration = Duration::from_secs(5);

/// What each session adds to it.
const SPREAD_EACH: Duration = Duration::from_millis(1);

/// Over more time they are never spread.
const SPREAD_MOST: Duration = Duration::from_secs(30);

/// Says once that the broker drains.
pub(super) struct Drain {
    /// Over which time the reconnects are spread.
    spread: OnceLock<Duration>,
    signal: Signal,
}

impl Drain {
    pub(super) fn new() -> Self {
        Self { spread: OnceLock::new(), signal: Signal::new() }
    }

    /// Begins, with so many sessions.
    pub(super) fn begin(&self, sessions: usize) {
        self.spread.get_or_init(|| spread(sessions));
        self.signal.raise();
    }

    /// Ready when the broker drains, with this session's time to come back, in milliseconds: drawn evenly, so that they
    /// do not all come at once.
    pub(super) async fn begun(&self) -> u64 {
        self.signal.raised().await;
        let drawn = rand::random_range(SPREAD_FROM..=*self.spread.get().unwrap_or(&SPREAD_LEAST));
        u64::try_from(drawn.as_millis()).unwrap_or(u64::MAX)
    }
}

fn spread(sessions: usize) -> Duration {
    let each = u32::try_from(sessions).map_or(SPREAD_MOST, |sessions| SPREAD_EACH.saturating_mul(sessions));
    SPREAD_LEAST.saturating_add(each).min(SPREAD_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_grows_with_the_sessions_and_has_a_bound() {
        assert_eq!(spread(0), Duration::from_secs(5));
        assert_eq!(spread(10_000), Duration::from_secs(15));
        assert_eq!(spread(usize::MAX), SPREAD_MOST);
    }

    #[tokio::test]
    async fn every_session_draws_its_own_time() {
        let drain = Drain::new();
        let early = drain.begun();
        drain.begin(1);
        let mut times = vec![early.await];
        for _ in 0..30 {
            times.push(drain.begun().await);
        }
        assert!(times.iter().all(|ms| (100..=5001).contains(ms)));
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 10, "{times:?}");
    }
}
