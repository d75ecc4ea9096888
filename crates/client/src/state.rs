//! [`State`] of a client's connection, and the [`Session`] that it has.

use std::time::Duration;

/// The session, as the broker described it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// `SessionId`. A session that continues on another connection keeps it.
    pub id: String,
    /// The user of the session; `None` for a service.
    pub user: Option<String>,
    /// Name and version of the broker.
    pub server: String,
    /// Time between two pings of the broker.
    pub heartbeat: Duration,
    /// The size of the largest message that the broker takes, in bytes.
    pub message_bytes_max: usize,
}

/// The state of a client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Connecting and registering.
    Connecting,
    /// Registered, with all subscriptions confirmed.
    Connected(Session),
    /// The connection was lost, or an attempt to make a new one failed.
    Disconnected {
        /// The reason.
        reason: String,
        /// The time until the next attempt.
        retry_in: Duration,
    },
    /// The client has ended, and does not reconnect.
    Closed {
        /// The code of the broker's Close frame, if that ended the connection.
        code: Option<u16>,
        /// The reason.
        reason: String,
    },
}
