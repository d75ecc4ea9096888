//! [`Limits`]: `[limits]`.

use std::time::Duration;

use super::AuthMode;

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A message's size, in bytes.
    pub message_bytes: usize,
    /// A message's size before registration, in bytes.
    pub registration_bytes: usize,
    /// Subscriptions a session.
    pub subscriptions: usize,
    /// Requests a session may have pending.
    pub pending_requests: usize,
    /// Bytes of the texts that the broker keeps for a session's pending requests.
    pub pending_bytes: usize,
    /// Messages an outbound queue holds.
    pub outbound_messages: usize,
    /// Bytes an outbound queue holds.
    pub outbound_bytes: usize,
    /// Bytes of memory that all outbound queues use together.
    pub outbound_total_bytes: usize,
    /// How long a receiver may take nothing while it has something to take.
    pub slow_consumer: Duration,
    /// Sessions of a user; 0: no limit. Services have none.
    pub sessions_per_user: usize,
    /// Sessions of a source, of all users together; 0: no limit.
    pub sessions_per_source: usize,
    /// Applications of which the broker remembers how the last session ended.
    pub ended_sessions: usize,
    /// Messages a second a session; 0: no limit.
    pub rate: u32,
    /// Messages at once beyond the rate.
    pub burst: u32,
    /// Bytes received a second a session; 0: no limit.
    pub rate_bytes: u32,
    /// How long a connection may stay unregistered.
    pub registration: Duration,
    /// Time between two pings.
    pub heartbeat: Duration,
    /// Pings that may go unanswered before the session is dead.
    pub missed_pings: u32,
    /// Connections in all.
    pub connections: usize,
    /// Connections an address; 0: no limit.
    pub connections_per_address: usize,
    /// Connections that have not registered, counted from accept.
    pub unregistered: usize,
    /// How deep JSON may nest.
    pub json_depth: usize,
    /// Malformed messages in a row that close the session.
    pub malformed: u32,
    /// Failed registrations a minute an address.
    pub failed_registrations: u32,
    /// Retained values of a user or service.
    pub retained_values: usize,
    /// Bytes of the retained values of a user or service.
    pub retained_bytes: usize,
    /// Bytes of all retained values.
    pub retained_total_bytes: usize,
    /// How long requests in flight may take to finish when the broker drains.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            registration_bytes: 16 << 10,
            subscriptions: 1000,
            pending_requests: 1000,
            pending_bytes: 8 << 20,
            outbound_messages: 1024,
            outbound_bytes: 8 << 20,
            outbound_total_bytes: 1 << 30,
            slow_consumer: Duration::from_secs(5),
            sessions_per_user: Self::sessions_per_user_by(AuthMode::Open),
            sessions_per_source: 0,
            ended_sessions: 10_000,
            rate: 1000,
            burst: 2000,
            rate_bytes: 0,
            registration: Duration::from_secs(10),
            heartbeat: Duration::from_secs(25),
            missed_pings: 2,
            connections: 10_000,
            connections_per_address: 0,
            unregistered: 1000,
            json_depth: 128,
            malformed: 10,
            failed_registrations: 10,
            retained_values: 10_000,
            retained_bytes: 64 << 20,
            retained_total_bytes: 256 << 20,
            drain: Duration::from_secs(30),
        }
    }
}

/// The key of [`Limits::sessions_per_user`], whose default depends on `auth.mode`.
pub(super) const SESSIONS_PER_USER: &str = "limits.sessions_per_user";

impl Limits {
    /// Returns the default of `sessions_per_user`. In open mode a session can name any user, so a limit would not help.
    #[must_use]
    pub fn sessions_per_user_by(auth: AuthMode) -> usize {
        match auth {
            AuthMode::Open => 0,
            AuthMode::Tokens => 100,
        }
    }
}
