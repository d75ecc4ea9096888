//! [`Clock`]: the org's time, which a test can move forward and back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that can be written: the end of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// The system's time, and how far the org is ahead of it.
#[derive(Default)]
pub(super) struct Clock {
    ahead_seconds: AtomicI64,
}

impl Clock {
    /// Now, since 1970.
    #[expect(clippy::disallowed_methods, reason = "the stand-in's only look at the clock; assertions carry wall time")]
    pub(super) fn now(&self) -> Duration {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ahead = self.ahead_seconds.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { system.saturating_sub(by) } else { system.saturating_add(by).min(LAST) }
    }

    /// Moves the org's time forward, or back by a negative number.
    pub(super) fn shift(&self, seconds: i32) {
        self.ahead_seconds.fetch_add(seconds.into(), Ordering::Relaxed);
    }
}

/// A time as the REST API writes it: `2026-11-24T09:20:00.000+0000`.
pub(super) fn written(time: Duration) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + time.min(LAST)).to_string().replace('Z', "+0000")
}

/// A time as the header Date has it: `Tue, 24 Nov 2026 09:20:00 GMT`.
pub(super) fn http_date(time: Duration) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time = time.min(LAST);
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + time).to_string();
    let part = |range| text.get(range).unwrap_or_default();
    // The first day of 1970 was a Thursday.
    let day = usize::try_from(time.as_secs() / 86_400 % 7).ok().and_then(|it| DAYS.get(it)).unwrap_or(&"Thu");
    let month = part(5..7).parse::<usize>().ok().and_then(|it| MONTHS.get(it.checked_sub(1)?)).unwrap_or(&"Jan");
    format!("{day}, {} {month} {} {} GMT", part(8..10), part(0..4), part(11..19))
}
