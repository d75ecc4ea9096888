//! [`LogLimit`]: a bounded number of log lines a minute for each cause and address, so that nobody can fill the log.

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

/// The address of the entry that is shared, and of the lines that were left out about addresses that are forgotten.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Limits the log lines of a minute for each cause and address.
pub struct LogLimit<C> {
    entries: Mutex<HashMap<(C, IpAddr), Entry>>,
}

struct Entry {
    /// When the first line of a minute was logged.
    logged: Instant,
    /// Lines since then.
    lines: u32,
    /// Lines that were left out since then.
    omitted: u64,
}

impl<C: Copy + Eq + Hash> LogLimit<C> {
    /// Counts something that may deserve a line, of which there is one a minute.
    pub fn count(&self, now: Instant, cause: C, address: IpAddr) -> Option<u64> {
        self.count_up_to(1, now, cause, address)
    }

    /// Counts something that may deserve a line, of which there are up to `lines_max` in a minute. Returns the number of
    /// lines that were left out since the last one if this one is to be logged, and of those about addresses that have been
    /// forgotten since.
    pub fn count_up_to(&self, lines_max: u32, now: Instant, cause: C, address: IpAddr) -> Option<u64> {
        let mut entries = self.entries.lock();
        let mut key = (cause, address);
        if entries.len() >= REMEMBERED_MAX && !entries.contains_key(&key) {
            forget_old(&mut entries, now);
            if entries.len() >= REMEMBERED_MAX {
                key.1 = OTHERS;
            }
        }
        match entries.get_mut(&key) {
            Some(entry) if entry.is_recent(now) && entry.lines < lines_max => {
                entry.lines += 1;
                Some(0)
            }
            Some(entry) if entry.is_recent(now) => {
                entry.omitted += 1;
                None
            }
            known => {
                let omitted = known.map_or(0, |entry| entry.omitted);
                entries.insert(key, Entry { logged: now, lines: 1, omitted: 0 });
                let others = entries.get(&(cause, OTHERS)).is_some_and(|entry| !entry.is_recent(now));
                let others = if others { entries.remove(&(cause, OTHERS)) } else { None };
                Some(omitted + others.map_or(0, |entry| entry.omitted))
            }
        }
    }
}

impl Entry {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.logged) < LOG_EVERY
    }
}

/// Forgets the addresses about which nothing was logged for a while. The lines that were left out are kept for their causes.
fn forget_old<C: Copy + Eq + Hash>(entries: &mut HashMap<(C, IpAddr), Entry>, now: Instant) {
    let mut omitted = Vec::new();
    entries.retain(|(cause, _), entry| {
        if !entry.is_recent(now) && entry.omitted > 0 {
            omitted.push((*cause, entry.logged, entry.omitted));
        }
        entry.is_recent(now)
    });
    for (cause, logged, omitted) in omitted {
        entries.entry((cause, OTHERS)).or_insert(Entry { logged, lines: 1, omitted: 0 }).omitted += omitted;
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
    use std::thread;

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
    fn some_causes_have_more_lines_a_minute() {
        let (now, limit) = (start(), LogLimit::default());
        let counted: Vec<_> = (0..5).map(|_| limit.count_up_to(3, now, "again", v4(1))).collect();
        assert_eq!(counted, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(limit.count_up_to(3, now + LOG_EVERY, "again", v4(1)), Some(2));
        assert_eq!(limit.count_up_to(3, now + LOG_EVERY, "again", v4(1)), Some(0));
    }

    #[test]
    fn counts_from_many_threads_are_exact() {
        let (now, limit) = (start(), LogLimit::default());
        let first = || (0..50).filter_map(|_| limit.count_up_to(3, now, "again", v4(1))).collect::<Vec<_>>();
        let logged = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(first)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(logged, [0, 0, 0]);
        assert_eq!(limit.count(now + LOG_EVERY, "again", v4(1)), Some(8 * 50 - 3));
    }

    #[test]
    fn memory_is_bounded_and_freed() {
        let (now, limit) = (start(), LogLimit::default());
        let lines = (0..10_000).filter(|number| limit.count(now, (), v4(*number)).is_some()).count();
        assert_eq!(lines, REMEMBERED_MAX + 1, "further addresses share one entry");
        assert_eq!(limit.entries.lock().len(), REMEMBERED_MAX + 1);
        assert_eq!(limit.count(now + LOG_EVERY, (), v4(20_000)), Some(8_999), "those of the shared entry");
        assert_eq!(limit.entries.lock().len(), 1);
    }

    #[test]
    fn a_line_that_was_left_out_is_counted_by_a_later_one_also_if_its_address_is_forgotten() {
        let (now, limit) = (start(), LogLimit::default());
        for cause in ["host", "origin"] {
            assert_eq!(limit.count(now, cause, v4(1)), Some(0));
            assert_eq!(limit.count(now, cause, v4(1)), None);
        }
        let mut number = 1;
        while limit.entries.lock().len() < REMEMBERED_MAX {
            number += 1;
            limit.count(now, "other", v4(number));
        }
        let later = now + LOG_EVERY;
        assert_eq!(limit.count(later, "host", v4(number + 1)), Some(1));
        assert_eq!(limit.count(later, "host", v4(number + 2)), Some(0));
        assert_eq!(limit.count(later, "origin", v4(number + 1)), Some(1));
        assert_eq!(limit.entries.lock().len(), 3);
    }
}
