//! [`Rate`]: how many frames a second a connection may send.

use std::time::{Duration, Instant};

/// A token bucket. A session over its rate is not refused: its socket is read more slowly.
pub(super) struct Rate {
    /// Messages a second; `None`: no limit.
    per_second: Option<f64>,
    burst: f64,
    /// Below zero: the session has to wait for that many.
    tokens: f64,
    counted: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant, rate: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: (rate > 0).then(|| f64::from(rate)), burst, tokens: burst, counted: now }
    }

    /// Counts a message that was read; when the next one may be, if not at once.
    pub(super) fn count(&mut self, now: Instant) -> Option<Instant> {
        let per_second = self.per_second?;
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * per_second;
        self.tokens = (self.tokens + earned).min(self.burst) - 1.0;
        self.counted = now;
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64(-self.tokens / per_second))
    }
}
