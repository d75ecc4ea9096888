//! The rows of the lists, as JSON has them.

use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use serde::Serialize;
use utoipa::ToSchema;

use crate::router;

/// A time as RFC 3339 writes it.
fn date(time: SystemTime) -> String {
    format_rfc3339_millis(time).to_string()
}

/// One application: all sessions of one source and user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::admin) struct Application {
    /// The registered name.
    source: String,
    /// Null for a service.
    user: Option<String>,
    /// `user` or `service`.
    kind: &'static str,
    /// `active` if any of its sessions is; else `asleep`, or `away`.
    state: &'static str,
    /// How many sessions it has.
    sessions: usize,
    /// When the earliest of its sessions registered.
    since: String,
}

impl From<router::ApplicationRow> for Application {
    fn from(row: router::ApplicationRow) -> Self {
        Self {
            kind: kind(row.user.as_deref()),
            source: row.source,
            user: row.user,
            state: row.state,
            sessions: row.sessions,
            since: date(row.since),
        }
    }
}

/// One registered session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::admin) struct Session {
    /// The session id, as the application knows it.
    id: String,
    /// The registered name.
    source: String,
    /// Null for a service.
    user: Option<String>,
    /// `user` or `service`.
    kind: &'static str,
    /// `active`, `asleep` or `away`.
    state: &'static str,
    /// When it registered.
    since: String,
    /// Since when it has had no connection.
    away_since: Option<String>,
    /// The address of its connection, or of the last one.
    address: Option<String>,
    /// What proved its identity: `token`, `certificate`, `open`, or a table of the configuration.
    proof: String,
    /// Whether it can outlive its connection.
    resumable: bool,
    /// Subscriptions that receive events.
    subscriptions: usize,
    /// Subscriptions that handle requests.
    handlers: usize,
    /// What waits to be sent to it.
    queue: Queue,
    /// How many messages it has sent.
    received: u64,
    /// How many messages a second it has sent in the last seconds.
    rate: f64,
    /// How many events its full queue has lost.
    dropped: u64,
    /// Requests that it sent and that are not answered.
    requests_sent: usize,
    /// Requests that it was given and has not answered.
    requests_given: usize,
}

/// What waits to be sent to a session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::admin) struct Queue {
    /// Messages.
    messages: usize,
    /// Bytes of their texts.
    bytes: usize,
}

impl From<router::SessionRow> for Session {
    fn from(row: router::SessionRow) -> Self {
        Self {
            id: row.id.to_string(),
            kind: kind(row.user.as_deref()),
            source: row.source,
            user: row.user,
            state: row.state.as_str(),
            since: date(row.since),
            away_since: row.away_since.map(date),
            address: row.address.map(|address| address.to_string()),
            proof: row.proof,
            resumable: row.resumable,
            subscriptions: row.subscriptions,
            handlers: row.handlers,
            queue: Queue { messages: row.queue.messages, bytes: row.queue.bytes },
            received: row.received,
            rate: row.rate,
            dropped: row.dropped,
            requests_sent: row.asked,
            requests_given: row.given,
        }
    }
}

fn kind(user: Option<&str>) -> &'static str {
    if user.is_some() { "user" } else { "service" }
}

/// One subscription.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::admin) struct Subscription {
    /// The subscription id, as the application knows it.
    id: String,
    /// The id of its session.
    session: String,
    /// The source of that session.
    source: String,
    /// Its user; null for a service.
    user: Option<String>,
    /// `subscriber` or `handler`.
    role: &'static str,
    /// The first part of its pattern; `*` for any.
    channel: String,
    /// The second part.
    topic: String,
    /// The third part.
    subtopic: String,
    /// Its group: one member of it receives an event.
    group: Option<String>,
    /// The user whose events it receives besides, `*` for all.
    observes: Option<String>,
    /// It handles one request after the other.
    ordered: bool,
    /// The permissions of its session allow less than its pattern says.
    narrowed: bool,
}

impl From<router::SubscriptionRow> for Subscription {
    fn from(row: router::SubscriptionRow) -> Self {
        Self {
            id: row.id.to_string(),
            session: row.session.to_string(),
            source: row.source,
            user: row.user,
            role: row.role,
            channel: row.channel,
            topic: row.topic,
            subtopic: row.subtopic,
            group: row.group,
            observes: row.observes,
            ordered: row.ordered,
            narrowed: row.narrowed,
        }
    }
}

/// One pending request, or one handler's part of a gather.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are those of the answer")]
pub(in crate::server::admin) struct Request {
    /// The id with which its handler knows it. The parts of a gather share one.
    id: String,
    /// The requester's own id.
    request_id: Option<String>,
    /// The first part of its triple.
    channel: String,
    /// The second part.
    topic: String,
    /// The third part.
    subtopic: String,
    /// The source of the requester.
    source: String,
    /// For which user it is.
    user: Option<String>,
    /// The session of the requester.
    session: String,
    /// `seeking` a handler, `waiting` for the turn of an ordered one, or `given` to one.
    state: &'static str,
    /// The source of the handler that has it.
    handler: Option<String>,
    /// The session of that handler.
    handler_session: Option<String>,
    /// When it was sent.
    since: String,
    /// How much of its time is left, in milliseconds.
    remaining_ms: u64,
    /// It is a part of a gather.
    gather: bool,
}

impl From<router::RequestRow> for Request {
    fn from(row: router::RequestRow) -> Self {
        let (handler, handler_session) = row.handler.unzip();
        Self {
            id: row.id.to_string(),
            request_id: row.request_id,
            channel: row.channel,
            topic: row.topic,
            subtopic: row.subtopic,
            source: row.source,
            user: row.user,
            session: row.session.to_string(),
            state: row.state.as_str(),
            handler,
            handler_session: handler_session.map(|id| id.to_string()),
            since: date(row.since),
            remaining_ms: u64::try_from(row.remaining.as_millis()).unwrap_or(u64::MAX),
            gather: row.gather,
        }
    }
}

/// One channel.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are those of the answer")]
pub(in crate::server::admin) struct Channel {
    /// Its name.
    channel: String,
    /// Whether the configuration has a table of it.
    configured: bool,
    /// `user` or `shared`.
    scope: &'static str,
    /// Who publishes events: `all` or `services`.
    publish: &'static str,
    /// What a full queue does: `close` or `drop-oldest`.
    overflow: &'static str,
    /// Topics and subtopics are compared without regard to case.
    fold_case: bool,
    /// Retained values are on disk.
    retain_durable: bool,
    /// What its logs keep; null without history.
    history: Option<History>,
    /// Subscriptions that name it and receive events.
    subscriptions: usize,
    /// Subscriptions that name it and handle requests.
    handlers: usize,
}

/// What the logs of a channel keep.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::admin) struct History {
    /// The most events of a log.
    size: usize,
    /// For how long, in seconds.
    ttl_seconds: f64,
    /// They are on disk.
    durable: bool,
}

impl From<router::ChannelRow> for Channel {
    fn from(row: router::ChannelRow) -> Self {
        Self {
            channel: row.name,
            configured: row.configured,
            scope: row.scope,
            publish: row.publish,
            overflow: row.overflow,
            fold_case: row.fold_case,
            retain_durable: row.retain_durable,
            history: row.history.map(|it| History {
                size: it.size,
                ttl_seconds: it.ttl.as_secs_f64(),
                durable: it.durable,
            }),
            subscriptions: row.subscriptions,
            handlers: row.handlers,
        }
    }
}

/// One retained value, without its payload.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::admin) struct Retained {
    /// `user` or `shared`.
    scope: &'static str,
    /// The user to whom it belongs; null on a shared channel.
    user: Option<String>,
    /// The first part of its triple, as the channel compares it.
    channel: String,
    /// The second part.
    topic: String,
    /// The third part.
    subtopic: String,
    /// The source that sent it.
    source: Option<String>,
    /// The source for which it is kept, if it was sent to one.
    target: Option<String>,
    /// The memory that it uses.
    bytes: usize,
    /// When it was published, or read from the disk.
    since: String,
}

impl From<router::RetainedRow> for Retained {
    fn from(row: router::RetainedRow) -> Self {
        let [channel, topic, subtopic] = row.triple;
        Self {
            scope: row.scope,
            user: row.user,
            channel,
            topic,
            subtopic,
            source: row.source,
            target: row.target,
            bytes: row.bytes,
            since: date(row.since),
        }
    }
}

/// One log of a channel with history.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::admin) struct Log {
    /// Its channel.
    channel: String,
    /// The user to whom it belongs; null on a shared channel.
    user: Option<String>,
    /// The name of its present life.
    epoch: String,
    /// The offset of the first event that is kept; null if none is.
    first_offset: Option<u64>,
    /// The offset of the last event that it had; 0 if it never had one.
    last_offset: u64,
    /// How many events are kept.
    entries: usize,
    /// The memory that they use.
    bytes: usize,
    /// It is on disk.
    durable: bool,
}

impl From<router::LogRow> for Log {
    fn from(row: router::LogRow) -> Self {
        Self {
            channel: row.channel,
            user: row.user,
            epoch: row.epoch,
            first_offset: row.first,
            last_offset: row.last,
            entries: row.entries,
            bytes: row.bytes,
            durable: row.durable,
        }
    }
}
