//! `[cluster]`: several brokers that behave as one, over NATS.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::mistake::{Place, Report};
use super::reference::Key;
use super::rules::Places;
use super::slot::{Slot, Word};
use super::value::Fault;

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `name`; empty: there is no cluster.
    pub name: String,
    /// `servers`, tried in this order.
    pub servers: Vec<String>,
    /// `key_file`
    pub key_file: Option<PathBuf>,
    /// `node`; empty: the host's name and a random part.
    pub node: String,
    /// `link_bytes`: what a peer has not acknowledged.
    pub link_bytes: usize,
    /// `seal_subjects`: whether subjects in `JetStream` hide the names of users.
    pub seal_subjects: bool,
    /// `storage_wait`: how long something may wait for `JetStream`.
    pub storage_wait: Duration,
    /// `monitor`: monitoring addresses of the servers, for `check --cluster`.
    pub monitor: Vec<String>,
    /// `credentials_file`
    pub credentials_file: Option<PathBuf>,
    /// `user_file`
    pub user_file: Option<PathBuf>,
    /// `token_file`
    pub token_file: Option<PathBuf>,
    /// `nkey_seed_file`
    pub nkey_seed_file: Option<PathBuf>,
    /// `ca_file`
    pub ca_file: Option<PathBuf>,
    /// `certificate_file`
    pub certificate_file: Option<PathBuf>,
    /// `certificate_key_file`
    pub certificate_key_file: Option<PathBuf>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: String::new(),
            servers: Vec::new(),
            key_file: None,
            node: String::new(),
            link_bytes: 64 << 20,
            seal_subjects: false,
            storage_wait: Duration::from_secs(10),
            monitor: Vec::new(),
            credentials_file: None,
            user_file: None,
            token_file: None,
            nkey_seed_file: None,
            ca_file: None,
            certificate_file: None,
            certificate_key_file: None,
        }
    }
}

impl Cluster {
    /// Whether the broker is a node of a cluster.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.name.is_empty()
    }

    /// The files that prove to NATS who the node is, with their keys.
    fn proofs(&self) -> [(&'static str, &Option<PathBuf>); 4] {
        [
            ("cluster.credentials_file", &self.credentials_file),
            ("cluster.user_file", &self.user_file),
            ("cluster.token_file", &self.token_file),
            ("cluster.nkey_seed_file", &self.nkey_seed_file),
        ]
    }
}

/// How much longer a drain may take than `resume.grace`.
const DRAIN_ROOM: Duration = Duration::from_secs(10);

/// Warnings about settings that are valid but probably a mistake.
pub(crate) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let grace = config.resume.grace;
    let short = config.cluster.is_on() && !grace.is_zero() && grace + DRAIN_ROOM > config.limits.drain;
    short
        .then(|| {
            "limits.drain is below resume.grace and 10 s: a node that restarts may end sessions before their clients have \
             returned to another one"
                .to_owned()
        })
        .into_iter()
}

const NAME: &str = "cluster.name";
const SERVERS: &str = "cluster.servers";
const KEY_FILE: &str = "cluster.key_file";
const CERTIFICATE: &str = "cluster.certificate_file";
const CERTIFICATE_KEY: &str = "cluster.certificate_key_file";

const DRAIN: &str = "limits.drain";

/// The default of `limits.drain` in a cluster.
const DRAIN_TIME: Duration = Duration::from_secs(45);

/// The least time for `JetStream`.
const STORAGE_WAIT_MIN: Duration = Duration::from_secs(1);

/// How much longer than its `ttl` an event is kept at least.
const KEPT_LONGER_MIN: Duration = Duration::from_hours(1);

const RETRY: &str = "history.retry";

/// The longest name of a cluster or a node.
const NAME_MAX: usize = 64;

/// The keys.
pub(crate) static CLUSTER_KEYS: &[Key<Config>] = &[
    Key {
        name: NAME,
        slot: Slot::Text(plain, |it, name| it.cluster.name = name),
        default: "none",
        unit: "",
        meaning: "The name of the cluster, which is part of every subject, so that clusters can share a NATS: 1 to 64 letters, \
                  digits, `_` and `-`. Required with any other key of `[cluster]`. See docs/cluster.md.",
    },
    Key {
        name: SERVERS,
        slot: Slot::Texts(server, |it| &mut it.cluster.servers),
        default: "required with `cluster.name`",
        unit: "",
        meaning: "The NATS servers, `nats://HOST:PORT` or `tls://HOST:PORT`, tried in this order.",
    },
    Key {
        name: KEY_FILE,
        slot: Slot::Path(|it, path| it.cluster.key_file = Some(path)),
        default: "required with `cluster.name`",
        unit: "",
        meaning: "One or two keys of 64 hex digits, one on a line. The first seals everything that crosses NATS, both open it; \
                  all nodes have the same. None but its owner and group may be able to read the file.",
    },
    Key {
        name: "cluster.node",
        slot: Slot::Text(plain, |it, node| it.cluster.node = node),
        default: "the host's name up to a dot, and a random part",
        unit: "",
        meaning: "The name of this node, which no other node has: 1 to 64 letters, digits, `_` and `-`.",
    },
    Key {
        name: "cluster.seal",
        slot: Slot::Word(&[Word { word: "all", put: |_| () }]),
        default: r#""all""#,
        unit: "",
        meaning: "What is sealed on its way between nodes: everything.",
    },
    Key {
        name: "cluster.link_bytes",
        slot: Slot::Size(1 << 20, |it| &mut it.cluster.link_bytes),
        default: "67108864",
        unit: "bytes",
        meaning: "What one other node has been sent and has not acknowledged. Beyond that, the link to it breaks and begins \
                  anew, and what was under way is lost: subscribers of `Broker/Cluster/Gap` are told.",
    },
    Key {
        name: "cluster.seal_subjects",
        slot: Slot::Switch(|it| &mut it.cluster.seal_subjects),
        default: "false",
        unit: "",
        meaning: "Whether users are keyed hashes in the subjects of JetStream, where they are names otherwise. All nodes have the \
                  same; what was kept under the other names is not found again.",
    },
    Key {
        name: "cluster.storage_wait",
        slot: Slot::Span(STORAGE_WAIT_MIN, |it| &mut it.cluster.storage_wait),
        default: r#""10s""#,
        unit: "",
        meaning: "How long an event, a retained value or an exclusive source may wait for JetStream. A leader that is killed is \
                  replaced after 4 to 7 s.",
    },
    Key {
        name: "cluster.monitor",
        slot: Slot::Texts(monitor, |it| &mut it.cluster.monitor),
        default: "[]",
        unit: "",
        meaning: "The monitoring addresses of the NATS servers, `http://HOST:PORT`, which `check --cluster` reads.",
    },
    Key {
        name: "cluster.credentials_file",
        slot: Slot::Path(|it, path| it.cluster.credentials_file = Some(path)),
        default: "none",
        unit: "",
        meaning: "A `.creds` file, with which the node proves to NATS who it is.",
    },
    Key {
        name: "cluster.user_file",
        slot: Slot::Path(|it, path| it.cluster.user_file = Some(path)),
        default: "none",
        unit: "",
        meaning: "The same with a file of two lines, user and password.",
    },
    Key {
        name: "cluster.token_file",
        slot: Slot::Path(|it, path| it.cluster.token_file = Some(path)),
        default: "none",
        unit: "",
        meaning: "The same with a file that holds a token.",
    },
    Key {
        name: "cluster.nkey_seed_file",
        slot: Slot::Path(|it, path| it.cluster.nkey_seed_file = Some(path)),
        default: "none",
        unit: "",
        meaning: "The same with a file that holds the seed of an NKey.",
    },
    Key {
        name: "cluster.ca_file",
        slot: Slot::Path(|it, path| it.cluster.ca_file = Some(path)),
        default: "the system's authorities",
        unit: "",
        meaning: "The authorities (PEM) whose certificates are accepted of NATS servers with `tls://`.",
    },
    Key {
        name: CERTIFICATE,
        slot: Slot::Path(|it, path| it.cluster.certificate_file = Some(path)),
        default: "none",
        unit: "",
        meaning: "The certificate (PEM) of this node towards NATS servers with `tls://` that ask for one.",
    },
    Key {
        name: CERTIFICATE_KEY,
        slot: Slot::Path(|it, path| it.cluster.certificate_key_file = Some(path)),
        default: "required with `cluster.certificate_file`",
        unit: "",
        meaning: "The private key of that certificate (PEM).",
    },
];

/// 1 to 64 letters, digits, `_` and `-`.
fn plain(text: &str) -> Result<String, Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 64 letters, digits, '_' and '-'".into()),
    }
}

/// `nats://HOST:PORT` or `tls://HOST:PORT`.
fn server(text: &str) -> Result<String, Fault> {
    let Some(rest) = text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://")) else {
        return Err("must begin with nats:// or tls://".into());
    };
    if rest.contains('@') {
        return Err("must not hold a user or a password: cluster.user_file, cluster.token_file, \
                    cluster.credentials_file or cluster.nkey_seed_file name a file with them"
            .into());
    }
    let has_port = rest.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', '?', '#', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if has_port { Ok(text.to_owned()) } else { Err("must be nats://HOST:PORT or tls://HOST:PORT".into()) }
}

/// `http://HOST:PORT`
fn monitor(text: &str) -> Result<String, Fault> {
    match text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
        Some(rest) if !rest.is_empty() && !rest.contains('@') => Ok(text.to_owned()),
        _ => Err("must be an address of NATS's monitoring, such as http://10.0.0.1:8222".into()),
    }
}

/// Checks what the keys of `[cluster]` say to each other, and to the rest.
pub(crate) fn check(config: &mut Config, places: &Places, report: &mut Report) {
    let cluster = &config.cluster;
    let keys = || CLUSTER_KEYS.iter().map(|key| key.name);
    let Some(place) = keys().find_map(|key| places.written(key)) else { return };
    let missing = [
        (NAME, cluster.name.is_empty()),
        (SERVERS, cluster.servers.is_empty()),
        (KEY_FILE, cluster.key_file.is_none()),
    ];
    for (key, is_missing) in missing {
        // What cannot be read is not missing too.
        if is_missing && !report.has_within(key) {
            report.add(place, key, "is required with [cluster]");
        }
    }
    let mut proofs = cluster.proofs().into_iter().filter(|(_, file)| file.is_some()).map(|(key, _)| key);
    if let (Some(first), Some(second)) = (proofs.next(), proofs.next())
        && let Some(place) = places.written(second)
    {
        report.add(place, second, format!("cannot be used with {first}: a node proves itself in one way"));
    }
    drop(proofs);
    for (written, other, missing) in [
        (CERTIFICATE, CERTIFICATE_KEY, cluster.certificate_key_file.is_none()),
        (CERTIFICATE_KEY, CERTIFICATE, cluster.certificate_file.is_none()),
    ] {
        if let (Some(place), true) = (places.written(written), missing) {
            report.add(place, written, format!("needs {other} beside it"));
        }
    }
    if !cluster.is_on() {
        return;
    }
    if places.written(DRAIN).is_none() {
        config.limits.drain = DRAIN_TIME;
    }
    check_history(config, places, place, report);
}

/// Checks channels with history, all of whose logs are in JetStream.
fn check_history(config: &mut Config, places: &Places, place: &Place, report: &mut Report) {
    let retry = config.history.retry;
    let mut short = Vec::new();
    #[expect(clippy::iter_over_hash_type, reason = "each is changed alone, and mistakes are sorted")]
    for (name, channel) in &mut config.channels {
        // Each event is kept before it is delivered.
        channel.durable = channel.history.is_some();
        short.extend(channel.history.filter(|bounds| retry > kept_for(bounds.ttl)).map(|_| name.clone()));
    }
    short.sort_unstable();
    if let Some(name) = short.first() {
        let place = places.written(RETRY).unwrap_or(place);
        let words =
            format!("is longer than the channel {name} keeps its events in a cluster: ttl and at least an hour more");
        report.add(place, RETRY, words);
    }
}

/// How long JetStream keeps an event whose time is over after this: so long a reader is told that it is too old.
#[must_use]
pub fn kept_for(ttl: Duration) -> Duration {
    ttl.saturating_add(ttl.max(KEPT_LONGER_MIN))
}
