//! [`FailedLogins`]: registrations that failed, by the address that they came from.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;

/// How long a failure counts.
const WINDOW: Duration = Duration::from_mins(1);

/// The addresses that are remembered. When all are taken by failures of the last minute, further addresses share one
/// record, so that neither memory nor the work of one failure grows with the number of attackers.
const ADDRESSES_MAX: usize = 10_000;

/// How often old addresses are looked for, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The record that addresses share for which there is no room.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Failed registrations by address. An IPv6 host has a whole /64 to choose addresses from, so that is what counts.
pub struct FailedLogins {
    failures_max: AtomicUsize,
    by_address: DashMap<IpAddr, VecDeque<Instant>, foldhash::fast::RandomState>,
    swept: Mutex<Option<Instant>>,
}

impl FailedLogins {
    /// `failures_max`: failures a minute after which an address is slowed down.
    #[must_use]
    pub fn new(failures_max: u32) -> Self {
        Self {
            failures_max: AtomicUsize::new(failures_max as usize),
            by_address: DashMap::default(),
            swept: Mutex::default(),
        }
    }

    /// Puts another limit in force.
    pub fn set_failures_max(&self, failures_max: u32) {
        self.failures_max.store(failures_max as usize, Ordering::Relaxed);
    }

    /// Counts a failure. Returns whether the address has reached its limit for the last minute already.
    pub fn fail(&self, now: Instant, address: IpAddr) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        let mut address = network_of(address);
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&address) {
            if self.may_sweep(now) {
                self.by_address.retain(|_, failures| failures.back().is_some_and(recent));
            }
            if self.by_address.len() >= ADDRESSES_MAX {
                address = OTHERS;
            }
        }
        let mut failures = self.by_address.entry(address).or_default();
        while failures.front().is_some_and(|at| !recent(at)) {
            failures.pop_front();
        }
        let most = self.failures_max.load(Ordering::Relaxed);
        let reached = failures.len() >= most;
        // The oldest make room: the queue stays as long as the limit.
        while failures.len() >= most.max(1) {
            failures.pop_front();
        }
        failures.push_back(now);
        reached
    }

    fn may_sweep(&self, now: Instant) -> bool {
        let mut swept = self.swept.lock();
        let due = swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY);
        if due {
            *swept = Some(now);
        }
        due
    }
}

/// What an address counts as: itself, or the /64 of an IPv6 address.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
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
    fn an_address_is_slowed_from_the_next_failure_on() {
        let (now, logins) = (start(), FailedLogins::new(3));
        let failed: Vec<bool> = (0..5).map(|_| logins.fail(now, v4(1))).collect();
        assert_eq!(failed, [false, false, false, true, true]);
        assert!(!logins.fail(now, v4(2)));
        assert!(!logins.fail(now + WINDOW, v4(1)));
    }

    #[test]
    fn a_host_does_not_escape_by_another_address_of_its_network() {
        let (now, logins) = (start(), FailedLogins::new(3));
        let host = |last: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, last));
        let failed: Vec<bool> = (0..4).map(|last| logins.fail(now, host(last))).collect();
        assert_eq!(failed, [false, false, false, true]);
        assert!(!logins.fail(now, IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 8, 0, 0, 0, 1))));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let (now, logins) = (start(), FailedLogins::new(3));
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() * 2 {
            logins.fail(now, v4(number));
        }
        assert!(logins.by_address.len() <= ADDRESSES_MAX + 1, "{}", logins.by_address.len());
        logins.fail(now + WINDOW, v4(u32::MAX));
        assert_eq!(logins.by_address.len(), 1);
    }

    #[test]
    fn threads_count_exactly() {
        let (now, logins, slowed) = (start(), FailedLogins::new(100), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        slowed.fetch_add(usize::from(logins.fail(now, v4(1))), Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(slowed.into_inner(), 8 * 50 - 100);
    }
}
