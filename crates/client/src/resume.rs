//! [`Resume`]: what continues a session on another connection: its token, and the count of what it has received.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

/// How many messages are received before they are acknowledged.
const ACKNOWLEDGE_AFTER: u64 = 64;
/// How long a message waits for others that are acknowledged with it.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone)]
pub(super) struct Resume {
    /// Whether the application wants its sessions to be resumable.
    is_wanted: bool,
    /// The token of the session, if that is resumable.
    token: Option<SecretString>,
    /// How many messages of the session have arrived, over all its connections.
    received: u64,
    acknowledged: u64,
    /// When the first message arrived that is not acknowledged.
    unacknowledged_since: Option<Instant>,
}

impl Resume {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, token: None, received: 0, acknowledged: 0, unacknowledged_since: None }
    }

    /// Returns whether the session can continue on another connection.
    pub(super) fn is_possible(&self) -> bool {
        self.token.is_some()
    }

    /// Notes that a new session has begun, with this token if it is resumable.
    pub(super) fn begin(&mut self, token: Option<SecretString>) {
        *self = Self { token: token.filter(|_| self.is_wanted), ..Self::new(self.is_wanted) };
    }

    /// Notes that the session continues, with a new token. The reply's request has acknowledged what was received.
    pub(super) fn go_on(&mut self, token: Option<SecretString>) {
        self.token = token;
        self.acknowledge();
    }

    /// Notes that the session has ended.
    pub(super) fn end(&mut self) {
        self.begin(None);
    }

    /// Counts a message of the session.
    pub(super) fn count(&mut self, now: Instant) {
        if self.token.is_some() {
            self.received += 1;
            self.unacknowledged_since.get_or_insert(now);
        }
    }

    /// Returns the count to acknowledge, if it is time to.
    pub(super) fn due(&self, now: Instant) -> bool {
        self.received - self.acknowledged >= ACKNOWLEDGE_AFTER || self.deadline().is_some_and(|at| at <= now)
    }

    /// Returns when to acknowledge what has arrived.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unacknowledged_since.map(|since| since + ACKNOWLEDGE_WITHIN)
    }

    /// Notes that all messages are acknowledged, and returns how many there were.
    pub(super) fn acknowledge(&mut self) -> u64 {
        self.acknowledged = self.received;
        self.unacknowledged_since = None;
        self.received
    }

    /// The bytes of the token, for the size of a buffer.
    pub(super) fn token(&self) -> &str {
        self.token.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default()
    }

    /// Returns whether Register has no option `resume`.
    pub(super) fn is_unwanted(&self) -> bool {
        !self.is_wanted
    }
}

/// The option `resume` of Register.
impl Serialize for Resume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(token) = &self.token else { return serializer.serialize_bool(self.is_wanted) };
        let mut option = serializer.serialize_struct("resume", 2)?;
        option.serialize_field("token", token.expose_secret())?;
        option.serialize_field("received", &self.received)?;
        option.end()
    }
}
