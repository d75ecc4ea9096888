//! [`Stats`]: counts of what was asked of Salesforce and what came of it, for whoever shows them. Never waits.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::http::BreakerState;

/// Upper ends of the latency's classes, in milliseconds; a last class has no end.
pub const LATENCY_MS: [u64; 10] = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// The counts, as they grow.
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
}

/// The counts at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// HTTP requests sent, repetitions included, logins not.
    pub calls: u64,
    /// How many of them, and of the logins, were repetitions.
    pub repeats: u64,
    /// Tokens asked for.
    pub logins: u64,
    /// How many of them were refused or failed.
    pub logins_failed: u64,
    /// Requests that got an answer, "no such row" included.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that the breaker kept away.
    pub kept_away: u64,
    /// Requests by how long they took, the classes of [`LATENCY_MS`] and one above.
    pub latency: [u64; LATENCY_MS.len() + 1],
    /// How long all of them took, in milliseconds.
    pub latency_sum_ms: u64,
    /// API requests that the org has used in 24 hours, and may use; as Salesforce last said.
    pub api_usage: Option<(u64, u64)>,
    /// How far this computer's clock is ahead of Salesforce's, in seconds; as last seen.
    pub clock_ahead: i64,
    /// Whether requests go through.
    pub breaker: BreakerState,
    /// How old the token is; `None`: there is none.
    pub token_age: Option<Duration>,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    /// Notes how long a request took.
    pub(super) fn took(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let class = LATENCY_MS.partition_point(|end| *end < ms);
        if let Some(counter) = self.latency.get(class) {
            count(counter);
        }
        self.latency_sum_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Notes the usage of the daily limit, and warns once when it passes four fifths.
    pub(super) fn usage(&self, used: u64, limit: u64) {
        self.api_used.store(used, Ordering::Relaxed);
        self.api_limit.store(limit, Ordering::Relaxed);
        let much = limit > 0 && used.saturating_mul(5) >= limit.saturating_mul(4);
        if self.warned.swap(much, Ordering::Relaxed) != much && much {
            tracing::warn!(used, limit, "the org has used four fifths of its API requests of 24 hours");
        }
    }

    /// Notes how far this computer's clock is ahead.
    pub(super) fn clock(&self, ahead: i64) {
        self.skew.store(ahead, Ordering::Relaxed);
    }

    /// All of it.
    pub(super) fn snapshot(&self, breaker: BreakerState, token_age: Option<Duration>) -> Snapshot {
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
            token_age,
        }
    }
}
