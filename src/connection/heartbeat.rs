//! [`Heartbeat`]: one ping each interval. Any inbound frame is a sign of life; the peer is dead after some missed pings.

use std::time::{Duration, Instant};

/// An interval is up to a tenth shorter than configured, so that connections which were opened together do not ping
/// together. Never longer: clients are told how long a dead session can hold its place.
const JITTER_PERCENT: u64 = 10;

/// When to ping next, and whether a frame has arrived since the last ping.
pub(super) struct Heartbeat {
    every: Duration,
    missed_max: u32,
    missed: u32,
    heard: bool,
    /// For some of the time since the last ping the broker did not read. That time does not count.
    unread: bool,
    /// The state of the generator of jitter: xorshift64, which never becomes 0.
    jitter: u64,
}

/// The outcome of a heartbeat that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a ping.
    Ping,
    /// The peer is dead.
    Dead,
}

impl Heartbeat {
    /// `seed` decides the jitter.
    pub(super) fn new(every: Duration, missed_max: u32, seed: u64) -> Self {
        Self { every, missed_max, missed: 0, heard: true, unread: false, jitter: seed | 1 }
    }

    /// Changes the interval, from the next ping on, and how many pings may be missed.
    pub(super) fn set(&mut self, every: Duration, missed_max: u32) {
        (self.every, self.missed_max) = (every, missed_max);
    }

    /// A frame, or a part of one, has arrived. It also ends a pause: the broker reads again.
    pub(super) fn hear(&mut self) {
        self.heard = true;
        self.missed = 0;
        self.unread = false;
    }

    /// The broker stops reading, or does not read yet.
    pub(super) fn not_read(&mut self) {
        self.unread = true;
    }

    /// The time of the next heartbeat.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        // The upper half of a xorshift is the better one.
        let per_mille = 1000 - (self.jitter >> 32) % (10 * JITTER_PERCENT + 1);
        let nanos = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        now + Duration::from_nanos((u128::from(nanos) * u128::from(per_mille) / 1000).try_into().unwrap_or(u64::MAX))
    }

    /// A heartbeat is due. `reads`: the broker is reading now.
    pub(super) fn beat(&mut self, reads: bool) -> Beat {
        if !self.heard && !self.unread && reads {
            self.missed += 1;
            if self.missed >= self.missed_max {
                return Beat::Dead;
            }
        }
        self.heard = false;
        self.unread = !reads;
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(20);

    #[test]
    fn a_silent_peer_is_dead_after_the_missed_pings() {
        let mut heartbeat = Heartbeat::new(EVERY, 2, 7);
        let beats = [(); 3].map(|()| heartbeat.beat(true));
        assert_eq!(beats, [Beat::Ping, Beat::Ping, Beat::Dead]);
    }

    #[test]
    fn any_frame_is_a_sign_of_life() {
        let mut heartbeat = Heartbeat::new(EVERY, 2, 7);
        for _ in 0..5 {
            assert_eq!(heartbeat.beat(true), Beat::Ping);
            assert_eq!(heartbeat.beat(true), Beat::Ping);
            heartbeat.hear();
        }
    }

    #[test]
    fn time_without_reading_does_not_count() {
        let mut heartbeat = Heartbeat::new(EVERY, 2, 7);
        heartbeat.not_read();
        for beat in 1..=4 {
            assert_eq!(heartbeat.beat(false), Beat::Ping, "beat {beat}");
        }
        // The broker reads again in the middle of an interval, which does not count either.
        let beats = [(); 3].map(|()| heartbeat.beat(true));
        assert_eq!(beats, [Beat::Ping, Beat::Ping, Beat::Dead]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it is only added to")]
    fn intervals_are_up_to_a_tenth_shorter() {
        let now = Instant::now();
        let mut heartbeat = Heartbeat::new(EVERY, 2, 7);
        let mut intervals: Vec<Duration> = (0..1000).map(|_| heartbeat.next(now) - now).collect();
        intervals.sort_unstable();
        assert!(intervals[0] >= EVERY * 9 / 10 && intervals[0] < EVERY * 91 / 100, "{:?}", intervals[0]);
        assert!(intervals[999] <= EVERY && intervals[999] > EVERY * 99 / 100, "{:?}", intervals[999]);
    }
}
