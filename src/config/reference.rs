//! The one table of keys: what each is called, takes and means, and where its value goes. The loader reads by it, and
//! docs/configuration.md is printed from it, so the three cannot part. The keys of a table that has a file are there.

use std::time::Duration;

use super::slot::{Slot, Word};
use super::text;
use super::{
    AuthMode, Config, ForwardedHeader, Store, admin, cluster, history, limits, recorder, resume, salesforce, same_user,
    tls,
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
        .chain(limits::LIMITS_KEYS)
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
];
