//! How the returns of clients are spread over time, when the broker closes many of their connections at one time.

use std::time::Duration;

/// The clients' way back is spread over this time for each session, within the two bounds.
const SPREAD_EACH: Duration = Duration::from_millis(1);
const SPREAD_MIN: Duration = Duration::from_millis(200);
/// No client is told to wait longer.
pub const SPREAD_MAX: Duration = Duration::from_secs(30);

/// The time between the returns of two of this many sessions.
#[must_use]
pub fn step(sessions: usize) -> Duration {
    let sessions = u32::try_from(sessions).unwrap_or(u32::MAX).max(1);
    SPREAD_EACH.saturating_mul(sessions).clamp(SPREAD_MIN, SPREAD_MAX) / sessions
}

/// When each of this many sessions should return, if they are closed at one time.
#[must_use]
pub fn spread(sessions: usize) -> Vec<Duration> {
    let step = step(sessions);
    (0..sessions).map(|place| step.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX)).min(SPREAD_MAX)).collect()
}
