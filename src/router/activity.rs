//! [`Activity`]: what a session has sent, for the operator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::router::Router;
use crate::router::session::Session;

/// Counts of one session. Only its own connection counts, so a load and a store do, without a locked instruction.
#[derive(Default)]
pub(super) struct Activity {
    /// Messages that it has sent.
    received: AtomicU64,
    /// `received` at the last sample.
    sampled: AtomicU64,
    /// Thousandths of a message a second, between the last two samples.
    rate_millis: AtomicU64,
}

impl Activity {
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn rate_millis(&self) -> u64 {
        self.rate_millis.load(Ordering::Relaxed)
    }

    /// Takes a sample. `elapsed`: since the last one.
    fn sample(&self, elapsed: Duration) {
        let received = self.received();
        let sent = received.saturating_sub(self.sampled.swap(received, Ordering::Relaxed));
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        self.rate_millis.store(sent.saturating_mul(1_000_000) / millis, Ordering::Relaxed);
    }
}

impl Session {
    /// Counts a message that it sent. Called by its connection alone.
    #[inline]
    pub fn count_received(&self) {
        let received = self.activity.received.load(Ordering::Relaxed);
        self.activity.received.store(received + 1, Ordering::Relaxed);
    }
}

/// The queues of all sessions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSample {
    /// Registered sessions.
    pub sessions: usize,
    /// The messages that wait for any of them.
    pub sum: usize,
    /// The messages that wait for the one with the longest queue.
    pub max: usize,
}

impl Router {
    /// What waits for all sessions.
    pub fn queues(&self) -> QueueSample {
        self.look_at_queues(|_| {})
    }

    /// Takes a sample of every session, so that [`Router::session_row`] knows their rates. `elapsed`: since the last one.
    pub fn sample_sessions(&self, elapsed: Duration) -> QueueSample {
        self.look_at_queues(|session| session.activity.sample(elapsed))
    }

    /// Looks at the queue of every session, one shard of them after the other, and calls `each`.
    fn look_at_queues(&self, each: impl Fn(&Session)) -> QueueSample {
        let mut sample = QueueSample::default();
        self.presence.each(|session| {
            each(session);
            let waiting = session.outbox().depth().messages;
            sample.sessions += 1;
            sample.sum += waiting;
            sample.max = sample.max.max(waiting);
        });
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_interval() {
        let activity = Activity::default();
        activity.received.store(50, Ordering::Relaxed);
        activity.sample(Duration::from_secs(5));
        assert_eq!(activity.rate_millis(), 10_000);
        activity.received.store(51, Ordering::Relaxed);
        activity.sample(Duration::from_secs(4));
        assert_eq!(activity.rate_millis(), 250);
        activity.sample(Duration::from_secs(5));
        assert_eq!(activity.rate_millis(), 0);
    }
}
