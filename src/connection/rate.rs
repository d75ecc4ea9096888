//! [`Rate`]: how many frames, or bytes, a second a connection, or an application that calls over HTTP, may send.

use std::time::{Duration, Instant};

use crate::config::Limits;

/// A token bucket. A session over its rate is not refused: its socket is read more slowly.
pub struct Rate {
    /// Frames or bytes a second; `None`: no limit.
    per_second: Option<f64>,
    burst: f64,
    /// Below zero: the session has to wait until this number is earned.
    tokens: f64,
    counted: Instant,
}

impl Rate {
    /// A rate of which the whole burst may be used. 0: no limit.
    #[must_use]
    pub fn new(now: Instant, rate: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: (rate > 0).then(|| f64::from(rate)), burst, tokens: burst, counted: now }
    }

    /// The rate of bytes. A largest message may be read as a whole. `None`: no limit.
    #[must_use]
    pub fn of_bytes(now: Instant, limits: &Limits) -> Option<Box<Self>> {
        let message = u32::try_from(limits.message_bytes).unwrap_or(u32::MAX);
        (limits.rate_bytes > 0).then(|| Box::new(Self::new(now, limits.rate_bytes, limits.rate_bytes.max(message))))
    }

    /// How much is used when this number of frames or bytes is counted now.
    pub(super) fn used(&self, now: Instant, read: u32) -> (f64, Instant) {
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * self.per_second.unwrap_or_default();
        ((self.tokens + earned).min(self.burst) - f64::from(read), now)
    }

    /// Goes on with what was used on another connection.
    pub(super) fn go_on(&mut self, (tokens, counted): (f64, Instant)) {
        (self.tokens, self.counted) = (tokens.min(self.burst), counted);
    }

    /// Returns after what time this number can be counted without waiting; `None` if it can be now.
    #[must_use]
    pub fn lacks(&self, now: Instant, count: u32) -> Option<Duration> {
        let per_second = self.per_second?;
        let (tokens, _) = self.used(now, count);
        (tokens < 0.0).then(|| Duration::from_secs_f64(-tokens / per_second))
    }

    /// Counts a number of frames or bytes that were read. Returns when the next may be read, if not at once.
    pub fn count(&mut self, now: Instant, read: u32) -> Option<Instant> {
        let per_second = self.per_second?;
        (self.tokens, self.counted) = self.used(now, read);
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64(-self.tokens / per_second))
    }
}
