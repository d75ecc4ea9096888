//! [`Limits`]: `[limits]`, and its keys.

use std::time::Duration;

use super::reference::{Key, TICK};
use super::slot::Slot;
use super::{AuthMode, Config};

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

/// The keys.
pub(super) static LIMITS_KEYS: &[Key<Config>] = &[
    Key {
        name: "limits.message_bytes",
        slot: Slot::Size(1, |it| &mut it.limits.message_bytes),
        default: "1048576",
        unit: "bytes",
        meaning: "The size of a message.",
    },
    Key {
        name: "limits.registration_bytes",
        slot: Slot::Size(1, |it| &mut it.limits.registration_bytes),
        default: "16384",
        unit: "bytes",
        meaning: "The size of a message before registration; at most `message_bytes`, the default is lowered to it.",
    },
    Key {
        name: "limits.subscriptions",
        slot: Slot::Size(1, |it| &mut it.limits.subscriptions),
        default: "1000",
        unit: "a session",
        meaning: "Subscriptions that a session may hold.",
    },
    Key {
        name: "limits.pending_requests",
        slot: Slot::Size(1, |it| &mut it.limits.pending_requests),
        default: "1000",
        unit: "a session",
        meaning: "Requests of a session that may wait for their reply.",
    },
    Key {
        name: "limits.pending_bytes",
        slot: Slot::Size(1, |it| &mut it.limits.pending_bytes),
        default: "8388608",
        unit: "bytes a session",
        meaning: "Texts of a session's pending requests that the broker keeps: of `idempotent` requests, and of those \
                  that wait for an ordered handler.",
    },
    Key {
        name: "limits.outbound_messages",
        slot: Slot::Size(1, |it| &mut it.limits.outbound_messages),
        default: "1024",
        unit: "a session",
        meaning: "Messages that may wait for a receiver to take them.",
    },
    Key {
        name: "limits.outbound_bytes",
        slot: Slot::Size(1, |it| &mut it.limits.outbound_bytes),
        default: "8388608",
        unit: "bytes a session",
        meaning: "Bytes that may wait for a receiver to take them.",
    },
    Key {
        name: "limits.outbound_total_bytes",
        slot: Slot::Size(1, |it| &mut it.limits.outbound_total_bytes),
        default: "1073741824",
        unit: "bytes",
        meaning: "Memory of the messages that wait for all receivers together. One that waits for many counts once. If it \
                  is exceeded, the session with the longest queue is closed with 4413.",
    },
    Key {
        name: "limits.slow_consumer",
        slot: Slot::Span(TICK, |it| &mut it.limits.slow_consumer),
        default: r#""5s""#,
        unit: "",
        meaning: "How long a receiver may read nothing while messages wait for it. Then it is closed with 4413.",
    },
    Key {
        name: "limits.sessions_per_user",
        slot: Slot::Size(0, |it| &mut it.limits.sessions_per_user),
        default: "100; 0 in open mode",
        unit: "sessions a user",
        meaning: "Sessions that a user may have at once, of all sources. Further ones get `TOO_MANY_SESSIONS`. Services have \
                  no such limit. 0: no limit.",
    },
    Key {
        name: "limits.sessions_per_source",
        slot: Slot::Size(0, |it| &mut it.limits.sessions_per_source),
        default: "0",
        unit: "sessions a source",
        meaning: "Sessions that a source may have at once, of all users and services together. Further ones get \
                  `TOO_MANY_SESSIONS`. 0: no limit.",
    },
    Key {
        name: "limits.ended_sessions",
        slot: Slot::Size(0, |it| &mut it.limits.ended_sessions),
        default: "10000",
        unit: "applications",
        meaning: "Of how many applications (a source of a user, or a service) the broker remembers when their last session ended \
                  and why. `switchboard explain` says so of one that is not there. The oldest are forgotten first.",
    },
    Key {
        name: "limits.rate",
        slot: Slot::Count(0, |it| &mut it.limits.rate),
        default: "1000",
        unit: "messages a second a session",
        meaning: "How fast a session is read; one that is faster is read more slowly, not refused. 0: no limit.",
    },
    Key {
        name: "limits.burst",
        slot: Slot::Count(1, |it| &mut it.limits.burst),
        default: "2000",
        unit: "messages a session",
        meaning: "How many messages a session may send at once before the rate counts.",
    },
    Key {
        name: "limits.rate_bytes",
        slot: Slot::Count(0, |it| &mut it.limits.rate_bytes),
        default: "0",
        unit: "bytes a second a session",
        meaning: "How many bytes a session may send; one that sends more is read more slowly, not refused. A second's \
                  bytes, or one largest message (`message_bytes`), may be sent at once. 0: no limit.",
    },
    Key {
        name: "limits.registration",
        slot: Slot::Span(TICK, |it| &mut it.limits.registration),
        default: r#""10s""#,
        unit: "",
        meaning: "How long a connection may stay unregistered before it is closed with 4406.",
    },
    Key {
        name: "limits.heartbeat",
        slot: Slot::Span(TICK, |it| &mut it.limits.heartbeat),
        default: r#""25s""#,
        unit: "",
        meaning: "The time between two pings.",
    },
    Key {
        name: "limits.missed_pings",
        slot: Slot::Count(1, |it| &mut it.limits.missed_pings),
        default: "2",
        unit: "pings",
        meaning: "Pings in a row that may go unanswered. When the next one is due, the session is closed with 4408: after \
            at most 75 s, with the default `limits.heartbeat`.",
    },
    Key {
        name: "limits.connections",
        slot: Slot::Size(1, |it| &mut it.limits.connections),
        default: "10000",
        unit: "connections",
        meaning: "Connections in all. Further ones get 503.",
    },
    Key {
        name: "limits.unregistered",
        slot: Slot::Size(1, |it| &mut it.limits.unregistered),
        default: "1000",
        unit: "connections",
        meaning: "Connections that have not registered, counted from accept. Further ones are answered 503.",
    },
    Key {
        name: "limits.connections_per_address",
        slot: Slot::Size(0, |it| &mut it.limits.connections_per_address),
        default: "0",
        unit: "connections an address",
        meaning: "Connections from one address, or one IPv6 network (/64). 0: no limit, since a whole call centre may \
                  share one.",
    },
    Key {
        name: "limits.json_depth",
        slot: Slot::Size(1, |it| &mut it.limits.json_depth),
        default: "128",
        unit: "levels",
        meaning: "How deep the JSON of a message may nest.",
    },
    Key {
        name: "limits.malformed",
        slot: Slot::Count(1, |it| &mut it.limits.malformed),
        default: "10",
        unit: "messages in a row",
        meaning: "Unreadable messages in a row that close a session with 1008.",
    },
    Key {
        name: "limits.failed_registrations",
        slot: Slot::Count(1, |it| &mut it.limits.failed_registrations),
        default: "10",
        unit: "a minute an address",
        meaning: "Failed registrations after which further failures of the address are answered `RATE_LIMITED`.",
    },
    Key {
        name: "limits.retained_values",
        slot: Slot::Size(0, |it| &mut it.limits.retained_values),
        default: "10000",
        unit: "values a user",
        meaning: "Retained values that are kept for a user. In shared channels they count for the user or service \
                  that sent them last. 0: none.",
    },
    Key {
        name: "limits.retained_bytes",
        slot: Slot::Size(0, |it| &mut it.limits.retained_bytes),
        default: "67108864",
        unit: "bytes a user",
        meaning: "Memory of the retained values that are kept for a user or service; each counts at least 256 bytes.",
    },
    Key {
        name: "limits.retained_total_bytes",
        slot: Slot::Size(0, |it| &mut it.limits.retained_total_bytes),
        default: "268435456",
        unit: "bytes",
        meaning: "Memory of all retained values.",
    },
    Key {
        name: "limits.drain",
        slot: Slot::Span(Duration::ZERO, |it| &mut it.limits.drain),
        default: r#""30s""#,
        unit: "",
        meaning: "How long a drain waits for the requests that were pending when it began. The default is `\"45s\"` with `[cluster]`.",
    },
];
