//! [`Tally`]: what arrived, what is missing, and how late each message was.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::progress::Progress;

/// How long to wait for the last messages after the end.
const LAST: Duration = Duration::from_secs(5);

/// How long after the end messages are still sent that were due before it.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The longest latency that is recorded as it is, in microseconds.
const LATENCY_MAX: u64 = 60_000_000;

/// How many values stand in for the latencies of the messages that a publisher could not send.
const UNSENT_STEPS: u64 = 1000;

/// The result.
pub(super) struct Outcome {
    /// In microseconds, of the messages that were due during the measurement.
    pub(super) latencies: Histogram<u32>,
    /// How many messages were missing, repeated or out of order.
    pub(super) lost: u64,
    /// How many messages were sent in all, also before the measurement.
    pub(super) sent: u64,
    /// How many deliveries or answers of these arrived.
    pub(super) received: u64,
}

impl Outcome {
    pub(super) fn empty() -> anyhow::Result<Self> {
        Ok(Self { latencies: Histogram::new_with_max(LATENCY_MAX, 2)?, lost: 0, sent: 0, received: 0 })
    }
}

/// The time of the measurement.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

impl Times {
    /// Returns a time as it is written on the wire: microseconds since a moment before the warm-up.
    pub(super) fn write(self, at: Instant) -> u64 {
        let origin = self.start.checked_sub(LAST).unwrap_or(self.start);
        u64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns when to stop sending what was due before.
    pub(super) fn send_until(self) -> Instant {
        self.end + CATCH_UP
    }

    /// Returns when to stop waiting for messages.
    pub(super) fn last(self) -> Instant {
        self.end + LAST
    }
}

/// The counters that all tasks share. One histogram stays in the processor's cache; a thousand would not.
#[derive(Clone)]
pub(super) struct Tally {
    pub(super) outcome: Arc<Mutex<Outcome>>,
    progress: Progress,
    pub(super) times: Times,
    /// The beginning and the end of the measurement, as written on the wire.
    measured: (u64, u64),
}

impl Tally {
    pub(super) fn new(progress: Progress, times: Times) -> anyhow::Result<Self> {
        let measured = (times.write(times.start), times.write(times.end));
        Ok(Self { outcome: Arc::new(Mutex::new(Outcome::empty()?)), progress, times, measured })
    }

    /// Counts the messages of one read, by the time at which each was due.
    pub(super) fn received(&self, lost: u64, dues: &[u64]) {
        let now = self.times.write(Instant::now());
        let mut outcome = self.outcome.lock();
        outcome.lost += lost;
        outcome.received += u64::try_from(dues.len()).unwrap_or(u64::MAX);
        for due in dues.iter().filter(|due| (self.measured.0..self.measured.1).contains(*due)) {
            outcome.latencies.saturating_record(now.saturating_sub(*due).min(LATENCY_MAX));
        }
        // Not the last message of a publisher, which only marks the end.
        let counted = dues.iter().filter(|due| **due < self.measured.1).count();
        self.progress.delivered(u64::try_from(counted).unwrap_or(u64::MAX));
    }

    /// Counts messages that were due every `every` from `due` to the end of the measurement, and were not sent. Each is
    /// lost for all `receivers`, and as late as it is now.
    pub(super) fn unsent(&self, now: Instant, due: Instant, every: Duration, receivers: u32) {
        let left = self.times.end.saturating_duration_since(due).as_nanos();
        let messages = u64::try_from(left.div_ceil(every.as_nanos().max(1))).unwrap_or(u64::MAX);
        let mut outcome = self.outcome.lock();
        outcome.lost += messages.saturating_mul(u64::from(receivers));
        let (first, now, end) = (self.times.write(due), self.times.write(now), self.measured.1);
        let steps = messages.min(UNSENT_STEPS);
        for step in 0..steps {
            let due = first + (end - first.min(end)) * step / steps;
            let count = (messages * (step + 1) / steps - messages * step / steps).saturating_mul(u64::from(receivers));
            if (self.measured.0..end).contains(&due) {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                outcome.latencies.saturating_record_n(now.saturating_sub(due).min(LATENCY_MAX), count);
            }
        }
    }

    pub(super) fn sent(&self, messages: u64) {
        self.outcome.lock().sent += messages;
    }

    pub(super) fn lost(&self, messages: u64) {
        self.outcome.lock().lost += messages;
    }
}
