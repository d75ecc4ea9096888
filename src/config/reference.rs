//! The one table of keys: what each is called, takes and means, and where its value goes. The loader reads by it, and
//! docs/configuration.md is printed from it, so the three cannot part.

use std::time::Duration;

use super::slot::{Slot, Word};
use super::text;
use super::{
    AuthMode, Channel, Config, ForwardedHeader, Overflow, Publish, Scope, Store, admin, cluster, history, recorder,
    resume, salesforce, same_user, tls,
};

/// The shortest duration that a timer keeps.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// One key of a table that becomes a `T`.
pub(crate) struct Key<T: 'static> {
    /// As written in TOML, with its table: `limits.rate`. In the tables of applications and channels: without.
    pub(crate) name: &'static str,
    /// What it takes and where that goes.
    pub(crate) slot: Slot<T>,
    /// The default in TOML syntax, or a description if it is not a fixed value.
    pub(crate) default: &'static str,
    /// The unit of a number.
    pub(crate) unit: &'static str,
    /// What it decides.
    pub(crate) meaning: &'static str,
}

/// The flags of `serve` that stand for keys.
pub(crate) const FLAGS: &[(&str, &str)] = &[("listen", "--listen"), ("data_dir", "--data-dir")];

/// The environment variable of a key: `SWITCHBOARD__LIMITS__RATE`.
pub(crate) fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// What the variables of keys begin with, and nothing else does.
pub(crate) const VARIABLE_PREFIX: &str = "SWITCHBOARD__";

/// The keys that stand once.
pub(crate) fn keys() -> impl Iterator<Item = &'static Key<Config>> {
    KEYS.iter()
        .chain(history::HISTORY_KEYS)
        .chain(tls::TLS_KEYS)
        .chain(admin::ADMIN_KEYS)
        .chain(same_user::SAME_USER_KEYS)
        .chain(recorder::RECORDER_KEYS)
        .chain(resume::RESUME_KEYS)
        .chain(cluster::CLUSTER_KEYS)
        .chain(salesforce::all_keys())
}

static KEYS: &[Key<Config>] = &[
    Key {
        name: "listen",
        slot: Slot::Addresses(|it| &mut it.listen),
        default: r#"["127.0.0.1:7420", "[::1]:7420"]"#,
        unit: "",
        meaning: "Where to listen; port 0 asks the system for a free one. `unix:PATH` is a Unix socket, which clients reach \
                  with `ws+unix://PATH:/ws`. If an address of this list cannot be used, \
                  `serve` ends with an error; the default `[::1]` gives only a warning.",
    },
    Key {
        name: "data_dir",
        slot: Slot::Path(|it, path| it.data_dir = path),
        default: "the platform's data folder",
        unit: "",
        meaning: "The folder of the credential store, its key, the audit log and the history of durable channels. Only one \
                  broker can use a folder.",
    },
    Key {
        name: "applications_dir",
        slot: Slot::Path(|it, path| it.applications_dir = Some(path)),
        default: "none",
        unit: "",
        meaning: "A folder of `*.toml` files, each with one or many `[[applications]]` and nothing else. They add to those \
                  of the configuration file.",
    },
    Key {
        name: "auth.mode",
        slot: Slot::Word(&[
            Word { word: "open", put: |it| it.auth = AuthMode::Open },
            Word { word: "tokens", put: |it| it.auth = AuthMode::Tokens },
        ]),
        default: r#""open""#,
        unit: "",
        meaning: "How sessions prove who they are. `\"tokens\"`: by a token of `[[applications]]`, by a JWT of an \
                  issuer (`[auth.jwt.NAME]`), or by Salesforce, with a table `[auth.salesforce_*]`; the default with a \
                  file. `\"open\"`: not at all, for development, on loopback only; the default without a file.",
    },
    Key {
        name: "http.allowed_origins",
        slot: Slot::Texts(text::origin, |it| &mut it.http.allowed_origins),
        default: "[]",
        unit: "",
        meaning: "Origins whose pages may connect, beside loopback ones, as browsers write them: scheme, host, and \
                  the port if it is not the scheme's own; or a scheme without a host (`\"file://\"`, `\"app://\"`). \
                  `\"null\"` (sandboxed frames, file pages) must be listed, in open mode too.",
    },
    Key {
        name: "http.allowed_hosts",
        slot: Slot::Texts(text::host, |it| &mut it.http.allowed_hosts),
        default: "[]",
        unit: "",
        meaning: "Names, without a port, that a request may have as its `Host`, beside `localhost` and any IP address. \
                  Other names are refused with 421: they are how a foreign page reaches a local server (DNS \
                  rebinding).",
    },
    Key {
        name: "http.insecure",
        slot: Slot::Switch(|it| &mut it.http.insecure),
        default: "false",
        unit: "",
        meaning: "Whether `listen` may name addresses beyond loopback, where tokens and passwords are sent in the clear: in a \
                  pod's network, or behind a proxy that ends TLS. Otherwise use `tls.listen`.",
    },
    Key {
        name: "http.trusted_proxies",
        slot: Slot::Networks(|it| &mut it.http.trusted_proxies),
        default: "[]",
        unit: "",
        meaning: "Proxies, by address or network, whose `forwarded_header` names the client. Limits per address and the \
                  logs then use the client's address.",
    },
    Key {
        name: "http.forwarded_header",
        slot: Slot::Word(&[
            Word { word: "x-forwarded-for", put: |it| it.http.forwarded_header = ForwardedHeader::XForwardedFor },
            Word { word: "forwarded", put: |it| it.http.forwarded_header = ForwardedHeader::Forwarded },
        ]),
        default: r#""x-forwarded-for""#,
        unit: "",
        meaning: "The one header that is read for that, from the right, past the addresses of trusted proxies.",
    },
    Key {
        name: "protected.patterns",
        slot: Slot::Patterns(|it, patterns| it.protected = patterns),
        default: r#"["*/User/FetchCredentials", "*/Agent/SetUserInfo", "*/Connection/ReInit", "*/Agent/Login"]"#,
        unit: "",
        meaning: "Triples whose requests carry passwords: requests only. Their envelopes are never events, retained \
                  or observed, and their payloads are never logged. Compared without regard to case.",
    },
    Key {
        name: "credentials.store",
        slot: Slot::Word(&[
            Word { word: "directory", put: |it| it.credentials.store = Store::Directory },
            Word { word: "salesforce", put: |it| it.credentials.store = Store::Salesforce },
        ]),
        default: r#""directory""#,
        unit: "",
        meaning: "Where credentials come from. `\"directory\"`: the encrypted store in `data_dir`. `\"salesforce\"`: the org of \
                  `[salesforce]`; docs/salesforce.md says what it needs.",
    },
    Key {
        name: "credentials.key_file",
        slot: Slot::Path(|it, path| it.credentials.key_file = Some(path)),
        default: "`credentials.key` in `data_dir`",
        unit: "",
        meaning: "The file of the store's key, 64 hex digits; made with mode 0600 if it does not exist. It also seals \
                  `history.redb`. The variable `SWITCHBOARD_CREDENTIALS_KEY` (one underscore) holds the key itself \
                  instead.",
    },
    Key {
        name: "credentials.audit_required",
        slot: Slot::Switch(|it| &mut it.credentials.audit_required),
        default: "true",
        unit: "",
        meaning: "Whether a fetch whose audit record cannot be written is refused (`STORAGE_UNAVAILABLE`), and a broker that \
                  cannot open the audit log does not start. `false`: credentials are sent without a record; the log says so.",
    },
    Key {
        name: "requests.timeout",
        slot: Slot::Span(TICK, |it| &mut it.requests.timeout),
        default: r#""10s""#,
        unit: "",
        meaning: "How long a requester waits for its handler: the default, and the most that a request may ask for.",
    },
    Key {
        name: "requests.only",
        slot: Slot::Patterns(|it, patterns| it.requests.only = patterns),
        default: "[]",
        unit: "",
        meaning: "Triples that are always requests, never events: without a handler, the sender gets `NO_HANDLER`.",
    },
    Key {
        name: "requests.more_max",
        slot: Slot::Span(TICK, |it| &mut it.requests.more_max),
        default: r#""10m""#,
        unit: "",
        meaning: "How long replies with `more` can keep one request open, in all.",
    },
    Key {
        name: "requests.blocked",
        slot: Slot::Span(TICK, |it| &mut it.requests.blocked),
        default: r#""60s""#,
        unit: "",
        meaning: "How long a late reply can block an ordered handler while requests wait for it. Then its session is \
                  closed with 1008.",
    },
    Key {
        name: "requests.adapter_in_flight",
        slot: Slot::Size(1, |it| &mut it.requests.adapter_in_flight),
        default: "4",
        unit: "an asker",
        meaning: "Requests of one asker on which an adapter works at once. An asker is a user; for a service, it is the \
                  user that the service names.",
    },
    Key {
        name: "requests.adapter_waiting",
        slot: Slot::Size(1, |it| &mut it.requests.adapter_waiting),
        default: "64",
        unit: "an asker",
        meaning: "Requests of one asker that can wait for an adapter. Further ones are refused with \
                  `TOO_MANY_REQUESTS`.",
    },
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

/// The keys of `[channels.NAME]`.
pub(crate) static CHANNEL_KEYS: &[Key<Channel>] = &[
    Key {
        name: "scope",
        slot: Slot::Word(&[
            Word { word: "user", put: |it| it.scope = Scope::User },
            Word { word: "shared", put: |it| it.scope = Scope::Shared },
        ]),
        default: r#""user""#,
        unit: "",
        meaning: "`\"user\"`: an envelope stays among the sessions of one user, and services. `\"shared\"`: it goes to \
                  every session.",
    },
    Key {
        name: "publish",
        slot: Slot::Word(&[
            Word { word: "all", put: |it| it.publish = Publish::All },
            Word { word: "services", put: |it| it.publish = Publish::Services },
        ]),
        default: r#""all""#,
        unit: "",
        meaning: "Who may publish events on a shared channel: every session, or services only. Requests are not \
                  concerned.",
    },
    Key {
        name: "overflow",
        slot: Slot::Word(&[
            Word { word: "close", put: |it| it.overflow = Overflow::Close },
            Word { word: "drop-oldest", put: |it| it.overflow = Overflow::DropOldest },
        ]),
        default: r#""close""#,
        unit: "",
        meaning: "What a receiver's full queue does: close the receiver with 4413, or lose its oldest events of such \
                  channels, counted and told.",
    },
    Key {
        name: "fold_case",
        slot: Slot::Switch(|it| &mut it.fold_case),
        default: "false",
        unit: "",
        meaning: "Whether topic and subtopic are compared without regard to ASCII case.",
    },
    history::LOG_KEY,
    history::DURABLE_KEY,
    history::RETAIN_KEY,
];
