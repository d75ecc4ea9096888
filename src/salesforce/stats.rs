//! [`Stats`]: counts of requests to Salesforce and their outcomes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::http::BreakerState;
use crate::telemetry::metrics::SalesforceCalls;

/// Upper bounds of the latency classes, in milliseconds; one more class has no bound.
pub const LATENCY_MS: [u64; 10] = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// The counters.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) calls: AtomicU64,
    pub(super) repeats: AtomicU64,
    pub(super) logins: AtomicU64,
    pub(super) logins_failed: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) kept_away: AtomicU64,
    latency: [AtomicU64; LATENCY_MS.len() + 1],
    latency_sum_ms: AtomicU64,
    api_used: AtomicU64,
    api_limit: AtomicU64,
    warned: AtomicBool,
    skew: AtomicI64,
    /// Calls by what they were for.
    pub(super) by_operation: Arc<SalesforceCalls>,
}

/// The counts at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// HTTP requests sent, including repetitions, without logins.
    pub calls: u64,
    /// Repetitions of requests and of logins.
    pub repeats: u64,
    /// Logins.
    pub logins: u64,
    /// Logins that failed.
    pub logins_failed: u64,
    /// Requests that got an answer; "no such row" is one.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that a breaker refused.
    pub kept_away: u64,
    /// Requests by latency, in the classes of [`LATENCY_MS`] and one above.
    pub latency: [u64; LATENCY_MS.len() + 1],
    /// The sum of all latencies, in milliseconds.
    pub latency_sum_ms: u64,
    /// The used and allowed API requests of 24 hours, from the last answer that mentioned them.
    pub api_usage: Option<(u64, u64)>,
    /// How far this computer's clock was last ahead of Salesforce's, in seconds.
    pub clock_ahead: i64,
    /// The state of the breaker for Salesforce as a whole.
    pub breaker: BreakerState,
    /// The state of the breaker of each purpose: `credentials`, and the API name of each object that was used.
    pub breakers: BTreeMap<String, BreakerState>,
    /// The age of the token; `None` if there is none.
    pub token_age: Option<Duration>,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    /// Records the latency of a request.
    pub(super) fn took(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let class = LATENCY_MS.partition_point(|end| *end < ms);
        if let Some(counter) = self.latency.get(class) {
            count(counter);
        }
        self.latency_sum_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Records the usage of the daily limit, and warns once when it passes four fifths.
    pub(super) fn usage(&self, used: u64, limit: u64) {
        self.api_used.store(used, Ordering::Relaxed);
        self.api_limit.store(limit, Ordering::Relaxed);
        let much = limit > 0 && used.saturating_mul(5) >= limit.saturating_mul(4);
        if self.warned.swap(much, Ordering::Relaxed) != much && much {
            tracing::warn!(used, limit, "the org has used four fifths of its API requests of 24 hours");
        }
    }

    /// Records how far this computer's clock is ahead.
    pub(super) fn clock(&self, ahead: i64) {
        self.skew.store(ahead, Ordering::Relaxed);
    }

    /// The present counts.
    pub(super) fn snapshot(
        &self,
        breaker: BreakerState,
        breakers: BTreeMap<String, BreakerState>,
        token_age: Option<Duration>,
    ) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let limit = read(&self.api_limit);
        Snapshot {
            calls: read(&self.calls),
            repeats: read(&self.repeats),
            logins: read(&self.logins),
            logins_failed: read(&self.logins_failed),
            answered: read(&self.answered),
            failed: read(&self.failed),
            kept_away: read(&self.kept_away),
            latency: std::array::from_fn(|at| self.latency.get(at).map_or(0, read)),
            latency_sum_ms: read(&self.latency_sum_ms),
            api_usage: (limit > 0).then(|| (read(&self.api_used), limit)),
            clock_ahead: self.skew.load(Ordering::Relaxed),
            breaker,
            breakers,
            token_age,
        }
    }
}
