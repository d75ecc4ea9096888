//! Who waits for whom: how long publishers wait for a slow receiver (docs/protocol.md, Pressure).
//!
//! Both sides have an allowance. A receiver can make publishers wait for at most 1 s in any 10 s, and a publisher waits
//! for at most 2 s in any 10 s, so slow readers cannot slow down everybody's publishers.

use std::time::{Duration, Instant};

/// How long a publisher waits for one receiver's queue.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(250);

/// The allowance of a receiver.
const RECEIVER_MAX: Duration = Duration::from_secs(1);

/// The allowance of a publisher.
const PUBLISHER_MAX: Duration = Duration::from_secs(2);

/// How long a queue has to be under half before publishers wait for it again, once its allowance is used up.
const RECOVERED_AFTER: Duration = Duration::from_secs(1);

/// The window of an allowance is ten slices of this length and the one that is being filled.
const SLICE: Duration = Duration::from_secs(1);
const SLICES: usize = 11;

/// Time that may be spent in any 10 s.
pub struct Allowance {
    most: Duration,
    started: Instant,
    /// Milliseconds spent in each slice, by the number of the slice modulo [`SLICES`].
    spent_ms: [u16; SLICES],
    newest: u64,
}

impl Allowance {
    /// The allowance of a publisher, unspent.
    #[must_use]
    pub fn publisher(now: Instant) -> Self {
        Self::new(now, PUBLISHER_MAX)
    }

    fn new(now: Instant, most: Duration) -> Self {
        Self { most, started: now, spent_ms: [0; SLICES], newest: 0 }
    }

    /// What may still be spent now.
    pub fn left(&mut self, now: Instant) -> Duration {
        self.advance(now);
        let spent: u64 = self.spent_ms.iter().copied().map(u64::from).sum();
        self.most.saturating_sub(Duration::from_millis(spent))
    }

    /// Spends the time from `from` until `now`. Fractions of a millisecond count as a whole one.
    pub fn spend(&mut self, from: Instant, now: Instant) {
        self.advance(now);
        let spent = now.saturating_duration_since(from).as_micros().div_ceil(1000);
        let spent = u16::try_from(spent).unwrap_or(u16::MAX);
        if let Some(slice) = self.slice(self.newest) {
            *slice = slice.saturating_add(spent);
        }
    }

    fn advance(&mut self, now: Instant) {
        let slices = now.saturating_duration_since(self.started).as_millis() / SLICE.as_millis();
        let newest = u64::try_from(slices).unwrap_or(u64::MAX);
        // After a long time all slices are old; clearing each once is enough.
        let first = (self.newest + 1).max(newest.saturating_sub(SLICES as u64 - 1));
        for number in first..=newest {
            if let Some(slice) = self.slice(number) {
                *slice = 0;
            }
        }
        self.newest = self.newest.max(newest);
    }

    fn slice(&mut self, number: u64) -> Option<&mut u16> {
        let place = usize::try_from(number % SLICES as u64).unwrap_or_default();
        self.spent_ms.get_mut(place)
    }
}

/// What a receiver's queue knows of the publishers that wait for it.
pub(super) struct Holdup {
    allowance: Allowance,
    /// Since when some publisher waits.
    waited_since: Option<Instant>,
    /// A publisher waited until its time was over. Nobody waits until the queue is under half.
    in_vain: bool,
    /// The allowance is used up. Nobody waits until the queue has been under half for [`RECOVERED_AFTER`].
    used_up: bool,
    under_half_since: Option<Instant>,
}

impl Holdup {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            allowance: Allowance::new(now, RECEIVER_MAX),
            waited_since: None,
            in_vain: false,
            used_up: false,
            under_half_since: None,
        }
    }

    /// Whether publishers wait for this queue, which is over half now.
    pub(super) fn holds_publishers(&mut self, now: Instant) -> bool {
        let recovered = self.under_half_since.take();
        if recovered.is_some_and(|since| now.saturating_duration_since(since) >= RECOVERED_AFTER) {
            self.used_up = false;
        }
        self.used_up |= self.left(now).is_zero();
        !self.in_vain && !self.used_up
    }

    /// A publisher begins to wait. Returns how long it may.
    pub(super) fn begin(&mut self, now: Instant) -> Duration {
        let left = self.left(now);
        self.waited_since.get_or_insert(now);
        left.min(WAIT_MAX)
    }

    fn left(&mut self, now: Instant) -> Duration {
        let waiting = self.waited_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.allowance.left(now).saturating_sub(waiting)
    }

    /// The queue is under half.
    pub(super) fn relieved(&mut self, now: Instant) {
        self.settle(now);
        self.in_vain = false;
        self.under_half_since.get_or_insert(now);
    }

    /// The time of a publisher is over and the queue is still over half: no publisher waits any longer.
    pub(super) fn waited_in_vain(&mut self, now: Instant) {
        self.settle(now);
        self.in_vain = true;
    }

    /// Whether publishers no longer wait, although the queue is over half.
    pub(super) fn is_in_vain(&self) -> bool {
        self.in_vain
    }

    fn settle(&mut self, now: Instant) {
        if let Some(since) = self.waited_since.take() {
            self.allowance.spend(since, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it is only added to")]
    fn start() -> Instant {
        Instant::now()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_allowance_comes_back_after_ten_seconds() {
        let now = start();
        let mut allowance = Allowance::new(now, RECEIVER_MAX);
        allowance.spend(now, now + ms(400));
        allowance.spend(now + ms(2_000), now + ms(2_600));
        assert_eq!(allowance.left(now + ms(2_600)), Duration::ZERO);
        assert_eq!(allowance.left(now + ms(9_999)), Duration::ZERO);
        assert_eq!(allowance.left(now + ms(11_000)), ms(400));
        assert_eq!(allowance.left(now + ms(60_000)), RECEIVER_MAX);
    }

    #[test]
    fn a_receiver_that_drains_just_in_time_uses_its_allowance_up() {
        let now = start();
        let mut holdup = Holdup::new(now);
        let (mut at, mut waited) = (now, Duration::ZERO);
        while at < now + ms(9_000) {
            if holdup.holds_publishers(at) {
                assert!(holdup.begin(at) <= WAIT_MAX);
                at += ms(200);
                waited += ms(200);
            }
            holdup.relieved(at);
            at += ms(10);
        }
        assert_eq!(waited, RECEIVER_MAX);
    }

    #[test]
    fn nobody_waits_after_a_wait_in_vain_until_the_queue_was_under_half() {
        let now = start();
        let mut holdup = Holdup::new(now);
        assert!(holdup.holds_publishers(now));
        assert_eq!(holdup.begin(now), WAIT_MAX);
        holdup.waited_in_vain(now + WAIT_MAX);
        assert!(!holdup.holds_publishers(now + ms(300)));
        holdup.relieved(now + ms(400));
        assert!(holdup.holds_publishers(now + ms(500)));
    }

    #[test]
    fn a_used_up_allowance_needs_a_second_under_half() {
        let now = start();
        let mut holdup = Holdup::new(now);
        for round in 0..4 {
            let at = now + ms(250) * round;
            assert!(holdup.holds_publishers(at));
            holdup.begin(at);
            holdup.waited_in_vain(at + ms(250));
            holdup.relieved(at + ms(250));
        }
        let mut at = now + ms(1_000);
        assert!(!holdup.holds_publishers(at));
        // Ten seconds later the window is empty, but the queue was never under half for a second.
        while at < now + ms(15_000) {
            holdup.relieved(at);
            at += ms(900);
            assert!(!holdup.holds_publishers(at), "{:?}", at - now);
        }
        holdup.relieved(at);
        assert!(holdup.holds_publishers(at + ms(1_000)));
    }
}
