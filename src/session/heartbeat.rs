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
    /// Until when the broker itself did not read: that time does not count.
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
        let paused = self.paused_until.take_if(|until| *until >= self.pinged).is_some();
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
