//! [`LogLimit`]: at most one log line a minute for each cause and address, so that nobody can fill the log.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time between two lines about one cause and address.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Causes and addresses that are remembered. If there are more within a minute, further addresses share one entry for
/// each cause.
const REMEMBERED_MAX: usize = 1_000;

/// The address of the entry that is shared.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Limits log lines to one a minute for each cause and address.
pub struct LogLimit<C> {
    entries: Mutex<HashMap<(C, IpAddr), Entry>>,
}

struct Entry {
    logged: Instant,
    /// Lines that were left out since then.
    omitted: u64,
}

impl<C: Copy + Eq + Hash> LogLimit<C> {
    /// Counts something that may deserve a line. Returns the number of lines that were left out since the last one if this
    /// one is to be logged.
    pub fn count(&self, now: Instant, cause: C, address: IpAddr) -> Option<u64> {
        let is_recent = |entry: &Entry| now.saturating_duration_since(entry.logged) < LOG_EVERY;
        let mut entries = self.entries.lock();
        let mut key = (cause, address);
        if entries.len() >= REMEMBERED_MAX && !entries.contains_key(&key) {
            entries.retain(|_, entry| is_recent(entry));
            if entries.len() >= REMEMBERED_MAX {
                key.1 = OTHERS;
            }
        }
        match entries.get_mut(&key) {
            Some(entry) if is_recent(entry) => {
                entry.omitted += 1;
                None
            }
            known => {
                let omitted = known.map_or(0, |entry| entry.omitted);
                entries.insert(key, Entry { logged: now, omitted: 0 });
                Some(omitted)
            }
        }
    }
}

impl<C> Default for LogLimit<C> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it is only added to")]
    fn start() -> Instant {
        Instant::now()
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_cause_and_address_is_logged_once_a_minute_with_the_number_of_omitted_lines() {
        let (now, limit) = (start(), LogLimit::default());
        let counted: Vec<_> = (0..4).map(|_| limit.count(now, "host", v4(1))).collect();
        assert_eq!(counted, [Some(0), None, None, None]);
        assert_eq!(limit.count(now, "origin", v4(1)), Some(0));
        assert_eq!(limit.count(now, "host", v4(2)), Some(0));
        assert_eq!(limit.count(now + LOG_EVERY, "host", v4(1)), Some(3));
        assert_eq!(limit.count(now + LOG_EVERY * 2, "host", v4(1)), Some(0));
    }

    #[test]
    fn memory_is_bounded_and_freed() {
        let (now, limit) = (start(), LogLimit::default());
        let lines = (0..10_000).filter(|number| limit.count(now, (), v4(*number)).is_some()).count();
        assert_eq!(lines, REMEMBERED_MAX + 1, "further addresses share one entry");
        assert_eq!(limit.entries.lock().len(), REMEMBERED_MAX + 1);
        assert_eq!(limit.count(now + LOG_EVERY, (), v4(20_000)), Some(0));
        assert_eq!(limit.entries.lock().len(), 1);
    }
}
