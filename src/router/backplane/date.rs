//! Dates as nodes tell them: in milliseconds since 1970.

use std::time::{Duration, SystemTime};

/// The latest date that is taken over, in the year 3084: beyond the year 9999, dates cannot be written.
const LATEST: u64 = 1 << 45;

/// A date that another node has told.
pub(super) fn from_ms(since_1970: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(since_1970.min(LATEST))
}

/// A date that other nodes are told.
pub(super) fn to_ms(date: SystemTime) -> u64 {
    let since_1970 = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
