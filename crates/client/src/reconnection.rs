//! [`Reconnection`]: what a reconnection means for what the application receives.

use std::time::{Duration, SystemTime};

/// What a reconnection means for the application. [`Client::reconnections`](super::Client::reconnections) reports each one.
/// A client never reports more than it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnection {
    /// The session continues. Nothing was missed or received twice, in both directions.
    Resumed,
    /// The session is a new one. Every subscription continues after the last event that the application has handled. The
    /// events that arrive before the live ones include those that this application has published.
    Recovered,
    /// The session is a new one. Events can have been missed, or events that were published without a receipt can be lost.
    Lost {
        /// When the client last received anything before that.
        since: SystemTime,
    },
}

/// Returns the time of day.
pub(super) fn system_now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "for people; nothing is decided by it")]
    SystemTime::now()
}

/// A time without a connection, until it is reported.
#[derive(Clone, Copy)]
pub(super) struct Outage {
    since: SystemTime,
    /// Whether the session has continued.
    is_resumed: bool,
    /// Whether something is lost for sure, or may be.
    is_lossy: bool,
}

impl Outage {
    /// Begins an outage, for a connection on which nothing has arrived for this long.
    pub(super) fn after(silence: Duration) -> Self {
        let now = system_now();
        Self { since: now.checked_sub(silence).unwrap_or(now), is_resumed: true, is_lossy: false }
    }

    /// Notes that the session has ended. `is_lossy`: it is unknown whether what was published arrived.
    pub(super) fn end_session(&mut self, is_lossy: bool) {
        self.is_resumed = false;
        self.is_lossy |= is_lossy;
    }

    /// Notes that the broker's count does not fit.
    pub(super) fn lose(&mut self) {
        self.is_lossy = true;
    }

    /// Returns the report. `has_missed`: a subscription may have missed events.
    pub(super) fn report(self, has_missed: bool) -> Reconnection {
        if self.is_lossy || (has_missed && !self.is_resumed) {
            Reconnection::Lost { since: self.since }
        } else if self.is_resumed {
            Reconnection::Resumed
        } else {
            Reconnection::Recovered
        }
    }
}
