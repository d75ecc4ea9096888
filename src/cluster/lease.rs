//! [`Lease`]: when the lease of an exclusive source is renewed, and when it is lost.
//!
//! A lease is a value that its storage drops after [`LeaseTimes::ttl`]. Its holder counts from the moment at which it *sent* the
//! last renewal that was acknowledged, and gives up [`LeaseTimes::lost`] later, which is before the storage can drop the value.
//! So two nodes never hold one lease, whatever is delayed in between.

use std::time::{Duration, Instant};

/// The times of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// After this time without a renewal, the storage drops it. Whole seconds.
    pub ttl: Duration,
    /// After this time without a renewal, its holder gives it up.
    pub lost: Duration,
    /// How long after a renewal the next one is sent.
    pub renew: Duration,
    /// How long after an attempt that failed the next one is sent.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(20),
            lost: Duration::from_secs(18),
            renew: Duration::from_secs(5),
            retry: Duration::from_secs(1),
        }
    }
}

/// What the holder of a lease does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// Nothing before this time.
    Wait(Instant),
    /// It renews the lease, which has this revision.
    Renew(u64),
    /// The lease is lost. What it was for has to end.
    Lost,
}

/// A lease that is held.
#[derive(Clone, Debug)]
pub struct Lease {
    times: LeaseTimes,
    revision: u64,
    /// When the last renewal was sent that was acknowledged.
    renewed: Instant,
    /// When the renewal was sent that is under way.
    under_way: Option<Instant>,
    /// When the next renewal is sent.
    next: Instant,
    is_taken: bool,
}

impl Lease {
    /// A lease that was taken with a message that was sent at this time, and has this revision.
    #[must_use]
    pub fn new(times: LeaseTimes, sent: Instant, revision: u64) -> Self {
        Self { times, revision, renewed: sent, under_way: None, next: sent + times.renew, is_taken: false }
    }

    /// What is to be done now. [`LeaseStep::Renew`] is said once; one of the methods below has to follow.
    pub fn step(&mut self, now: Instant) -> LeaseStep {
        let lost = self.lost_at();
        if self.is_taken || now >= lost {
            return LeaseStep::Lost;
        }
        if self.under_way.is_some() {
            return LeaseStep::Wait(lost);
        }
        if now >= self.next {
            self.under_way = Some(now);
            return LeaseStep::Renew(self.revision);
        }
        LeaseStep::Wait(self.next.min(lost))
    }

    /// The renewal was acknowledged, with this revision.
    pub fn renewed(&mut self, revision: u64) {
        let Some(sent) = self.under_way.take() else { return };
        (self.revision, self.renewed, self.next) = (revision, sent, sent + self.times.renew);
    }

    /// The renewal has failed, or nobody knows.
    pub fn failed(&mut self, now: Instant) {
        self.under_way = None;
        self.next = now + self.times.retry;
    }

    /// The storage has this revision, which is of an earlier message of this holder: it was not acknowledged, so nobody knows
    /// when it was sent. The next renewal follows at once.
    pub fn found(&mut self, now: Instant, revision: u64) {
        self.under_way = None;
        (self.revision, self.next) = (revision, now);
    }

    /// Somebody else has the lease, or the storage has dropped it.
    pub fn taken(&mut self) {
        self.is_taken = true;
    }

    /// When it is lost, unless it is renewed.
    #[must_use]
    pub fn lost_at(&self) -> Instant {
        self.renewed + self.times.lost
    }

    /// The revision with which it is removed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: LeaseTimes = LeaseTimes {
        ttl: Duration::from_secs(20),
        lost: Duration::from_secs(18),
        renew: Duration::from_secs(5),
        retry: Duration::from_secs(1),
    };

    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_renewed_every_five_seconds_with_its_last_revision() {
        let start = start();
        let mut lease = Lease::new(TIMES, start, 7);
        assert_eq!(lease.step(start), LeaseStep::Wait(start + after(5)));
        assert_eq!(lease.step(start + after(5)), LeaseStep::Renew(7));
        assert_eq!(lease.step(start + after(5)), LeaseStep::Wait(start + after(18)), "one is under way");
        lease.renewed(9);
        assert_eq!(lease.step(start + after(9)), LeaseStep::Wait(start + after(10)));
        assert_eq!(lease.step(start + after(10)), LeaseStep::Renew(9));
        assert_eq!(lease.revision(), 9);
    }

    #[test]
    fn a_renewal_that_failed_is_repeated_every_second_until_the_lease_is_lost() {
        let start = start();
        let mut lease = Lease::new(TIMES, start, 7);
        for second in 5..18 {
            assert_eq!(lease.step(start + after(second)), LeaseStep::Renew(7), "{second}");
            lease.failed(start + after(second));
        }
        assert_eq!(lease.step(start + after(18)), LeaseStep::Lost);
    }

    #[test]
    fn time_counts_from_sending_the_last_renewal_that_was_acknowledged() {
        let start = start();
        let mut lease = Lease::new(TIMES, start, 7);
        assert_eq!(lease.step(start + after(5)), LeaseStep::Renew(7));
        // Its acknowledgement took two seconds.
        assert_eq!(lease.step(start + after(7)), LeaseStep::Wait(start + after(18)));
        lease.renewed(8);
        assert_eq!(lease.step(start + after(10)), LeaseStep::Renew(8));
        assert_eq!(lease.step(start + after(22)), LeaseStep::Wait(start + after(23)));
        assert_eq!(lease.lost_at(), start + after(23));
        assert_eq!(lease.step(start + after(23)), LeaseStep::Lost);
    }

    #[test]
    fn what_was_found_is_renewed_at_once_but_does_not_make_it_last_longer() {
        let start = start();
        let mut lease = Lease::new(TIMES, start, 7);
        assert_eq!(lease.step(start + after(5)), LeaseStep::Renew(7));
        lease.found(start + after(8), 9);
        assert_eq!(lease.step(start + after(8)), LeaseStep::Renew(9));
        lease.failed(start + after(10));
        assert_eq!(lease.step(start + after(18)), LeaseStep::Lost);
    }

    #[test]
    fn a_lease_of_somebody_else_is_lost_at_once() {
        let start = start();
        let mut lease = Lease::new(TIMES, start, 7);
        lease.taken();
        assert_eq!(lease.step(start), LeaseStep::Lost);
    }

    #[test]
    fn a_holder_gives_up_before_the_storage_can_drop_the_lease() {
        let LeaseTimes { ttl, lost, renew, retry } = LeaseTimes::default();
        assert!(lost < ttl && renew + retry < lost);
    }
}
