//! Limits on what a session sends ([`Rate`]) and on failed registrations of an address ([`FailedLogins`]).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dashmap::DashMap;

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

/// How long a failure counts.
const WINDOW: Duration = Duration::from_mins(1);

/// Addresses that are remembered at most; beyond, those whose failures have all passed are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// Failed registrations by address.
pub struct FailedLogins {
    failures_max: usize,
    by_address: DashMap<IpAddr, VecDeque<Instant>, foldhash::fast::RandomState>,
}

impl FailedLogins {
    /// `failures_max`: failures a minute that an address may have before it is told to slow down.
    #[must_use]
    pub fn new(failures_max: u32) -> Self {
        Self { failures_max: failures_max as usize, by_address: DashMap::default() }
    }

    /// Counts a failure. `true`: the address had its number in the last minute already.
    pub(super) fn fail(&self, now: Instant, address: IpAddr) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        if self.by_address.len() > ADDRESSES_MAX {
            self.by_address.retain(|_, failures| failures.back().is_some_and(recent));
        }
        let mut failures = self.by_address.entry(address).or_default();
        while failures.front().is_some_and(|at| !recent(at)) {
            failures.pop_front();
        }
        if failures.len() >= self.failures_max {
            // The oldest makes room: the queue stays as long as the limit.
            failures.pop_front();
            failures.push_back(now);
            return true;
        }
        failures.push_back(now);
        false
    }
}
