//! [`Heartbeat`]: a ping every interval, dead after some were missed; any inbound frame counts as life.

use std::time::{Duration, Instant};

/// When to ping next, and what was heard.
pub(super) struct Heartbeat {
    every: Duration,
    missed_max: u32,
    pinged: Instant,
    /// Something was heard since the last ping.
    heard: bool,
    missed: u32,
    /// Until when the broker itself does not read, at most: that time does not count.
    paused_until: Option<Instant>,
}

/// What a heartbeat that is due asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing is due.
    Rest,
    /// Send a ping.
    Ping,
    /// The peer is dead.
    Dead,
}

impl Heartbeat {
    pub(super) fn new(now: Instant, every: Duration, missed_max: u32) -> Self {
        Self { every, missed_max, pinged: now, heard: true, missed: 0, paused_until: None }
    }

    /// A frame came in.
    pub(super) fn hear(&mut self) {
        self.heard = true;
        self.missed = 0;
        // Who hears reads again.
        self.paused_until = None;
    }

    /// The broker will not read until then, or until sooner.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = Some(until);
    }

    pub(super) fn deadline(&self) -> Instant {
        self.pinged + self.every
    }

    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        if now < self.deadline() {
            return Beat::Rest;
        }
        // Kept until something is heard: a pause may outlast several beats.
        let paused = self.paused_until.is_some_and(|until| until >= self.pinged);
        if !self.heard && !paused {
            self.missed += 1;
            if self.missed >= self.missed_max {
                return Beat::Dead;
            }
        }
        self.pinged = now;
        self.heard = false;
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Beat, Heartbeat};

    const EVERY: Duration = Duration::from_secs(2);

    #[expect(clippy::disallowed_methods, reason = "where the clock begins is no matter: it is only added to")]
    fn start() -> (Instant, Heartbeat) {
        let now = Instant::now();
        (now, Heartbeat::new(now, EVERY, 2))
    }

    #[test]
    fn a_pause_that_outlasts_several_beats_does_not_count() {
        let (now, mut heartbeat) = start();
        heartbeat.pause(now + EVERY * 3);
        for beat in 1..=4 {
            assert_eq!(heartbeat.beat(now + EVERY * beat), Beat::Ping, "beat {beat}");
        }
        assert_eq!(heartbeat.beat(now + EVERY * 5), Beat::Ping, "the first that is missed");
        assert_eq!(heartbeat.beat(now + EVERY * 6), Beat::Dead);
    }

    #[test]
    fn whoever_is_heard_is_read_again() {
        let (now, mut heartbeat) = start();
        heartbeat.pause(now + EVERY * 100);
        heartbeat.hear();
        let beats = [1, 2, 3].map(|beat| heartbeat.beat(now + EVERY * beat));
        assert_eq!(beats, [Beat::Ping, Beat::Ping, Beat::Dead]);
    }
}
