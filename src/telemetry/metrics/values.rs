//! The fixed values that labels can have. `codes` has those that are codes of the wire.

use wire::ErrorCode;

use super::label::{Label, Labels};

macro_rules! labels {
    ($($(#[$doc:meta])* $label:ident $name:literal { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $label { $($(#[$value_doc])* $value,)+ }

            impl $label {
                /// All values.
                pub const ALL: &'static [Self] = &[$(Self::$value,)+];

                /// Returns the value as it is written.
                pub const fn as_str(self) -> &'static str {
                    match self { $(Self::$value => $text,)+ }
                }
            }

            impl Label for $label {
                const COUNT: usize = Self::ALL.len();

                #[inline]
                fn index(self) -> usize {
                    self as usize
                }

                fn labels(index: usize) -> Labels {
                    Self::ALL.get(index).map(|it| ($name, it.as_str().to_owned())).into_iter().collect()
                }
            }
        )+
    };
}

labels! {
    /// What a readiness check looks at.
    Check "check" {
        /// The start is not complete.
        Starting = "starting",
        /// The broker drains.
        Draining = "draining",
        /// A listener accepts connections.
        Listener = "listener",
        /// The stores can be read.
        Store = "store",
        /// The history can be written.
        History = "history",
        /// The audit log can be written.
        Audit = "audit",
        /// NATS is connected.
        Nats = "nats",
        /// The certificate is valid for long enough and fits its key.
        Certificate = "certificate",
        /// Salesforce is not kept away by a breaker.
        Salesforce = "salesforce",
    }
    /// Where messages between nodes go.
    Direction "direction" {
        /// To this node.
        In = "in",
        /// From this node.
        Out = "out",
    }
    /// How far a connection is.
    ConnectionState "state" {
        /// It has not been upgraded.
        Handshake = "handshake",
        /// It has not registered.
        Unregistered = "unregistered",
        /// It has a session.
        Registered = "registered",
    }
    /// The kind of a listener.
    ListenerKind "listener" {
        /// TCP.
        Plain = "plain",
        /// TLS over TCP.
        Tls = "tls",
        /// A Unix socket.
        Unix = "unix",
    }
    /// Why a connection was refused.
    RefusedFor "reason" {
        /// There is nothing at the path.
        Path = "path",
        /// The method is not GET.
        Method = "method",
        /// The head is not a WebSocket handshake, or its token cannot be read.
        Head = "head",
        /// The host is not allowed.
        Host = "host",
        /// The origin is not allowed.
        Origin = "origin",
        /// The peer belongs to another operating-system user.
        Neighbour = "neighbour",
        /// The request has a query.
        Query = "query",
        /// There are too many connections.
        Cap = "cap",
        /// There are too many connections from the address.
        AddressCap = "address_cap",
        /// TLS failed, or was sent where it is not spoken.
        Tls = "tls",
        /// The broker drains.
        Draining = "draining",
        /// The broker has no file descriptor left.
        Files = "files",
    }
    /// The kind of a session.
    SessionKind "kind" {
        /// Of a user.
        User = "user",
        /// Of a service.
        Service = "service",
    }
    /// The state of a session.
    SessionState "state" {
        /// It works.
        Active = "active",
        /// It says that it is asleep.
        Asleep = "asleep",
        /// It has no connection.
        Away = "away",
    }
    /// Who closed a connection.
    ClosedBy "by" {
        /// A rule of the broker.
        Broker = "broker",
        /// The client, or a lost connection.
        Peer = "peer",
        /// An operator.
        Operator = "operator",
    }
    /// The role of a subscription.
    SubscriptionRole "role" {
        /// It receives events.
        Subscriber = "subscriber",
        /// It handles requests.
        Handler = "handler",
    }
    /// What an envelope is.
    EnvelopeKind "kind" {
        /// An event.
        Event = "event",
        /// A request to one handler.
        Request = "request",
        /// A request to all handlers.
        Gather = "gather",
        /// A reply.
        Reply = "reply",
        /// A command to the broker.
        Command = "command",
        /// It could not be read.
        Unreadable = "unreadable",
    }
    /// How a request ended.
    RequestOutcome "outcome" {
        /// By the last reply of its handler.
        Answered = "answered",
        /// By its delivery to a handler that never replies.
        Delivered = "delivered",
        /// By its time limit.
        Timeout = "timeout",
        /// By its requester, or by a drain.
        Cancelled = "cancelled",
        /// Nothing handles it.
        NoHandler = "no_handler",
        /// Its handler left.
        HandlerGone = "handler_gone",
        /// It was refused for another reason.
        Refused = "refused",
    }
    /// The kind of a handler.
    HandlerKind "handler" {
        /// A session of a user.
        User = "user",
        /// A handler inside the broker.
        Adapter = "adapter",
        /// A session of a service.
        Service = "service",
    }
    /// Why a connection was not read for a while.
    PauseReason "reason" {
        /// It was over its rate.
        Rate = "rate",
        /// A queue was over half full: of a receiver, or its own.
        Pressure = "pressure",
    }
    /// Why a slow consumer was closed.
    SlowFor "reason" {
        /// Its queue overflowed.
        Overflow = "overflow",
        /// It took nothing for too long.
        Stalled = "stalled",
        /// All queues together were too large, and this was the longest.
        Memory = "memory",
    }
    /// Whether logs are on disk.
    Durable "durable" {
        /// They are.
        Yes = "true",
        /// They are in memory.
        No = "false",
    }
    /// What became of a subscription that wanted earlier events.
    RecoveryOutcome "outcome" {
        /// It got all of them.
        Recovered = "recovered",
        /// Its position is of another epoch.
        Epoch = "epoch",
        /// Its position is no longer kept.
        TooOld = "too_old",
        /// Its position is in the future.
        Ahead = "ahead",
    }
    /// A file, or a store.
    StoredFile "file" {
        /// The history of durable channels.
        History = "history",
        /// Retained values of durable channels.
        Retained = "retained",
        /// The credential store.
        Credentials = "credentials",
        /// The audit log.
        Audit = "audit",
        /// `JetStream`.
        JetStream = "jetstream",
    }
    /// What became of a session that was to go on.
    ResumeOutcome "outcome" {
        /// It goes on.
        Resumed = "resumed",
        /// The broker does not know it.
        Unknown = "unknown",
        /// Another connection has it.
        Replaced = "replaced",
        /// More was missed than is kept.
        TooFar = "too_far",
        /// The client counts more messages than it was sent.
        Ahead = "ahead",
        /// The identity is another.
        Identity = "identity",
        /// What was kept for it has overflowed.
        Overflowed = "overflowed",
    }
    /// Why a session that was away ended early.
    EvictedFor "reason" {
        /// A session that registered needed its place.
        Sessions = "sessions",
        /// What is kept for all such sessions was too large.
        TotalBytes = "total_bytes",
    }
    /// The outcome of checking a proof of identity.
    AuthOutcome "outcome" {
        /// It proves the claim.
        Ok = "ok",
        /// It has expired, or is not valid yet.
        Expired = "expired",
        /// Its signature is wrong, or the token is not known.
        Signature = "signature",
        /// What it says does not fit: issuer, audience, source, user.
        Claims = "claims",
        /// The key that signed it is not known.
        Key = "key",
        /// The keys, or the system that verifies it, could not be reached.
        Unavailable = "unavailable",
    }
    /// The outcome of a TLS handshake.
    TlsOutcome "outcome" {
        /// It succeeded.
        Ok = "ok",
        /// It failed.
        Failed = "failed",
        /// It took too long.
        Timeout = "timeout",
    }
    /// A certificate.
    CertificateOf "certificate" {
        /// The broker's own.
        Server = "server",
        /// The authority of clients that ends first.
        ClientCa = "client_ca",
    }
    /// What Salesforce is asked to do.
    SalesforceOperation "operation" {
        /// Give out an access token.
        Token = "token",
        /// Answer a query.
        Query = "query",
        /// Create records.
        Create = "create",
        /// Change a record.
        Update = "update",
        /// Say who a token belongs to.
        Introspect = "introspect",
        /// Send events.
        Events = "events",
    }
    /// The outcome of a call of Salesforce.
    SalesforceOutcome "outcome" {
        /// It was answered.
        Ok = "ok",
        /// It was refused.
        Rejected = "rejected",
        /// A limit of the org was reached.
        Limit = "limit",
        /// The org failed.
        ServerError = "server_error",
        /// It took too long.
        Timeout = "timeout",
        /// The org could not be reached.
        Network = "network",
        /// It was not sent: a breaker is open, or too many wait.
        Shed = "shed",
    }
    /// The outcome of a reload.
    ReloadOutcome "outcome" {
        /// Another configuration is in force.
        Applied = "applied",
        /// Nothing differed.
        Unchanged = "unchanged",
        /// The new configuration cannot be used.
        Refused = "refused",
    }
    /// The class of an HTTP status.
    StatusClass "status" {
        /// Success, and redirection.
        Success = "2xx",
        /// The request was refused.
        ClientError = "4xx",
        /// The broker failed, or is not ready.
        ServerError = "5xx",
    }
}

impl RequestOutcome {
    /// Returns how a request ended whose requester was told this code by the broker.
    pub fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::RequestTimeout => Self::Timeout,
            ErrorCode::RequestCancelled => Self::Cancelled,
            ErrorCode::NoHandler => Self::NoHandler,
            ErrorCode::HandlerGone => Self::HandlerGone,
            _ => Self::Refused,
        }
    }
}
