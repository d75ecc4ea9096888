//! [`Clock`]: the org's time, which a test may put forward.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The system's time, and how far the org is ahead of it.
#[derive(Default)]
pub(super) struct Clock {
    ahead_ms: AtomicU64,
}

impl Clock {
    /// Now, since 1970.
    #[expect(clippy::disallowed_methods, reason = "the stand-in's only look at the clock; assertions carry wall time")]
    pub(super) fn now(&self) -> Duration {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        system + Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Puts the org's time forward.
    pub(super) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }
}

/// A time as the REST API writes it: `2026-11-24T09:20:00.000+0000`.
pub(super) fn written(time: Duration) -> String {
    // Times after the year 9999 cannot be written.
    let time = UNIX_EPOCH + time.min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_millis(time).to_string().replace('Z', "+0000")
}
