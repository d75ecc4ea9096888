//! [`Totals`]: the counters that `/v1/stats` shows, at one time.

use std::collections::BTreeMap;

use wire::ErrorCode;

use super::Metrics;

/// The counters of a moment, or what was counted between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Messages of applications.
    pub envelopes: u64,
    /// Messages to applications that the router delivered.
    pub deliveries: u64,
    /// Refused messages by code.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Requests that ended.
    pub requests: u64,
    /// For each bound in seconds, how many answered requests took at most that, and more than the bound before it.
    pub durations: Vec<(f64, u64)>,
}

impl Metrics {
    /// Returns the counters now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.sum();
        let mut durations: Vec<(f64, u64)> = Vec::new();
        for (_, distribution) in self.request_duration.all() {
            durations.resize(distribution.buckets.len(), (0.0, 0));
            for ((bound, sum), (own, count)) in durations.iter_mut().zip(distribution.buckets) {
                *bound = own;
                *sum += count;
            }
        }
        Totals {
            envelopes: sum(&mut self.traffic.envelopes().map(|(_, count)| count)),
            deliveries: self.traffic.deliveries(),
            refusals: ErrorCode::ALL.iter().map(|code| (code.as_str(), self.refusals.get(*code))).collect(),
            requests: sum(&mut self.requests.all().map(|(_, count)| count)),
            durations,
        }
    }
}

impl Totals {
    /// Returns what was counted since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |code: &str| earlier.refusals.get(code).copied().unwrap_or_default();
        let durations = self.durations.iter().enumerate().map(|(at, (bound, count))| {
            let before = earlier.durations.get(at).map_or(0, |(_, count)| *count);
            (*bound, count.saturating_sub(before))
        });
        Self {
            envelopes: self.envelopes.saturating_sub(earlier.envelopes),
            deliveries: self.deliveries.saturating_sub(earlier.deliveries),
            refusals: self.refusals.iter().map(|(code, it)| (*code, it.saturating_sub(before(code)))).collect(),
            requests: self.requests.saturating_sub(earlier.requests),
            durations: durations.collect(),
        }
    }

    /// Returns the seconds within which this part of the requests was answered, `0.5` for half of them: within its bucket it is
    /// taken to be evenly spread, and never beyond the last bound. `None` without requests.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.durations.iter().map(|(_, count)| count).sum();
        if all == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let (wanted, mut seen, mut lower) = (part * all as f64, 0.0, 0.0);
        for (bound, count) in &self.durations {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let count = *count as f64;
            if count > 0.0 && seen + count >= wanted {
                let inside = (wanted - seen) / count;
                return Some(if bound.is_finite() { lower + (bound - lower) * inside } else { lower });
            }
            seen += count;
            lower = if bound.is_finite() { *bound } else { lower };
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: [u64; 3]) -> Totals {
        let bounds = [0.01, 0.1, f64::INFINITY];
        Totals { durations: bounds.into_iter().zip(counts).collect(), ..Totals::default() }
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_has_it() {
        for (counts, part, expected) in [
            ([0, 0, 0], 0.5, None),
            ([10, 0, 0], 0.5, Some(0.005)),
            ([0, 10, 0], 0.5, Some(0.055)),
            ([5, 5, 0], 0.5, Some(0.01)),
            ([98, 1, 1], 0.99, Some(0.1)),
            ([0, 0, 7], 0.5, Some(0.1)),
        ] {
            let found = of(counts).quantile(part);
            let is_near = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                (found, expected) => found == expected,
            };
            assert!(is_near, "{counts:?} {part}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn what_was_counted_since_is_the_difference() {
        let mut earlier = of([1, 2, 3]);
        earlier.refusals.insert("FORBIDDEN", 2);
        let mut later = of([2, 2, 5]);
        later.refusals.extend([("FORBIDDEN", 5), ("NO_HANDLER", 1)]);
        let since = later.since(&earlier);
        assert_eq!(since.durations.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(since.refusals, [("FORBIDDEN", 3), ("NO_HANDLER", 1)].into());
    }
}
