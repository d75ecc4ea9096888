//! [`Logins`]: how the logins of one org went. After a failed one the next is tried only after a wait, which everything
//! that needs a session shares: fetches, writes and every topic of events.

use std::time::{Duration, Instant};

use super::fault::Fault;

/// The wait after the first failed login; it doubles with each further one.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest wait.
const AGAIN_MAX: Duration = Duration::from_mins(1);

/// The logins so far.
#[derive(Default)]
pub(super) struct Logins {
    ended: u64,
    /// Failed ones since the last that succeeded.
    failures: u32,
    /// Until when the last failure stands, and its cause.
    refused: Option<(Instant, Fault)>,
}

impl Logins {
    /// Returns why no login is tried now.
    pub(super) fn refused(&self, now: Instant) -> Option<Fault> {
        self.refused.as_ref().filter(|(until, _)| now < *until).map(|(_, fault)| fault.clone().while_open())
    }

    /// Records a login that succeeded, and returns its number, which grows with each login.
    pub(super) fn succeeded(&mut self) -> u64 {
        self.ended += 1;
        (self.failures, self.refused) = (0, None);
        self.ended
    }

    /// Records a login that failed.
    pub(super) fn failed(&mut self, now: Instant, fault: &Fault) {
        self.ended += 1;
        let doubled = AGAIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let wait = doubled.max(fault.pause().unwrap_or_default()).min(AGAIN_MAX);
        self.failures = self.failures.saturating_add(1);
        self.refused = Some((now + wait, fault.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_after_failed_logins_doubles_up_to_a_minute() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let mut now = Instant::now();
        let mut logins = Logins::default();
        let fault = Fault::barred("a", "o");
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            logins.failed(now, &fault);
            now += Duration::from_secs(seconds);
            assert!(logins.refused(now.checked_sub(Duration::from_millis(1)).unwrap()).is_some(), "{seconds}");
            assert_eq!(logins.refused(now), None, "{seconds}");
        }
        assert_eq!(logins.succeeded(), 9);
        logins.failed(now, &fault.with_pause(Duration::from_secs(5)));
        assert!(logins.refused(now + Duration::from_secs(4)).is_some(), "Salesforce asked for more");
        assert_eq!(logins.refused(now + Duration::from_secs(5)), None);
    }
}
