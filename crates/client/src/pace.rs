//! [`Pace`]: the deadlines of one connection.

use std::time::Duration;

use tokio::time::Instant;

/// The longest time that a write may take. After that, the connection is given up.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Pace {
    /// When a frame last arrived, or reading was paused.
    last_read: Instant,
    silence_max: Duration,
    /// Since when a message has been waiting to be written.
    writing: Option<Instant>,
    /// When all subscriptions have to be confirmed.
    subscribed_by: Option<Instant>,
}

impl Pace {
    /// Returns the deadlines of a new connection.
    pub(super) fn new(now: Instant, heartbeat: Duration, command_max: Duration) -> Self {
        // The broker pings once per heartbeat. Three missing pings mean that the connection is dead.
        Self { last_read: now, silence_max: heartbeat * 3, writing: None, subscribed_by: Some(now + command_max) }
    }

    /// Notes what the connection is about to do.
    pub(super) fn note(&mut self, now: Instant, may_read: bool, has_output: bool) {
        if !may_read {
            self.last_read = now;
        }
        if has_output && self.writing.is_none() {
            self.writing = Some(now);
        }
    }

    /// Notes that a frame arrived.
    pub(super) fn read(&mut self, now: Instant) {
        self.last_read = now;
    }

    /// Returns when a frame last arrived, or reading was paused.
    pub(super) fn last_read(&self) -> Instant {
        self.last_read
    }

    /// Notes that everything was written.
    pub(super) fn written(&mut self) {
        self.writing = None;
    }

    /// Notes that all subscriptions are confirmed.
    pub(super) fn subscribed(&mut self) {
        self.subscribed_by = None;
    }

    /// Returns whether a message is waiting to be written.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Returns when the connection is given up.
    pub(super) fn deadline(&self) -> Instant {
        let silence = self.last_read + self.silence_max;
        let writing = self.writing.map(|since| since + WRITE_MAX);
        [writing, self.subscribed_by].into_iter().flatten().fold(silence, Instant::min)
    }
}
