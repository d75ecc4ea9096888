//! Who may take part in a simulated world, and the broker's configuration for them.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use secrecy::SecretString;
use switchboard::auth::{Permission, Permissions, Users, hash_token};
use switchboard::config::{Application, AuthMode, Channel, Config, LogBounds, Overflow, ProvedBy, Publish, Scope};

/// How an application behaves as a handler. One way each, so that it is known which subscription got a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Answers by `inReplyTo`, in any order, perhaps late, perhaps never.
    Answers,
    /// Does not use ids.
    Ordered,
    /// Takes commands.
    Commands,
}

/// A part in the play. Each is one seat: a program that connects, dies and returns.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "as in [[applications]]: any of it with any")]
pub(super) struct Part {
    /// Its name in transcripts.
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    /// `None`: a service.
    pub(super) user: Option<&'static str>,
    pub(super) style: Style,
    /// It is a handler only as a member of this group.
    pub(super) pool: Option<&'static str>,
    pub(super) observe: bool,
    pub(super) exclusive: bool,
    pub(super) echo: bool,
    /// May answer protected triples.
    pub(super) handles: bool,
    /// May ask protected triples.
    pub(super) requests: bool,
}

const ALICE: Part = Part {
    name: "alice",
    source: "gadget",
    user: Some("alice"),
    style: Style::Answers,
    pool: None,
    observe: false,
    exclusive: false,
    echo: false,
    handles: false,
    requests: true,
};

const SERVICE: Part = Part { name: "service", source: "recorder", user: None, requests: false, handles: true, ..ALICE };

/// Everyone who may come.
pub(super) const CAST: &[Part] = &[
    ALICE,
    Part { name: "alice-tab", echo: true, ..ALICE },
    Part { name: "alice-phone", source: "softphone", handles: true, ..ALICE },
    Part { name: "alice-legacy", source: "legacy", style: Style::Ordered, ..ALICE },
    Part { name: "bob", user: Some("bob"), ..ALICE },
    Part { name: "bob-crm", source: "crm", user: Some("bob"), exclusive: true, requests: false, ..ALICE },
    Part { name: "bob-crm-again", source: "crm", user: Some("bob"), exclusive: true, requests: false, ..ALICE },
    Part { name: "bob-legacy", source: "legacy", user: Some("bob"), style: Style::Ordered, handles: true, ..ALICE },
    Part { name: "carol", source: "wallboard", user: Some("carol"), observe: true, ..ALICE },
    SERVICE,
    Part { name: "backend", source: "backend", requests: true, ..SERVICE },
    Part { name: "pool-1", source: "pool", pool: Some("pool"), ..SERVICE },
    Part { name: "pool-2", source: "pool", pool: Some("pool"), ..SERVICE },
    Part { name: "mainframe", source: "mainframe", style: Style::Ordered, ..SERVICE },
    Part { name: "lamps", source: "lamps", style: Style::Commands, ..SERVICE },
];

/// The shortest time: nothing else is due in it.
pub(super) const MOMENT: Duration = Duration::from_nanos(1);

/// Where else an ordered handler answers.
pub(super) const ORDERED_REPLY: (&str, &str) = ("Call", "Done");

/// `Vault/User/FetchCredentials` is served in the process; `*/User/FetchCredentials` is protected.
/// Queues that lose events are the rarest sight, so `Ticker` is named twice.
pub(super) const CHANNELS: &[&str] = &["Phone", "Queue", "Ticker", "Ticker", "Memo", "Vault"];
pub(super) const TOPICS: &[&str] = &["Call", "User"];
pub(super) const SUBTOPICS: &[&str] = &["Ring", "Done", "FetchCredentials"];

impl Part {
    pub(super) fn token(&self) -> String {
        format!("token-{}", self.name)
    }

    fn application(&self) -> Application {
        let granted = |all: bool| if all { Permission::All } else { Permission::none() };
        let permissions = Permissions {
            observe: if self.observe { Users::All } else { Users::nobody() },
            handle: granted(self.handles),
            request: granted(self.requests),
            ..Permissions::default()
        };
        Application {
            source: self.source.to_owned(),
            user: self.user.map(str::to_owned),
            proved_by: ProvedBy::Token(hash_token(&SecretString::from(self.token()))),
            exclusive: self.exclusive,
            role: None,
            permissions,
            handle: Vec::new(),
            request: None,
            over_http: false,
        }
    }
}

/// A broker's configuration: narrow, so that its bounds are met.
pub(super) fn config(chance: &mut StdRng) -> Config {
    let mut config = Config::default();
    if chance.random_ratio(3, 4) {
        config.auth = AuthMode::Tokens;
        config.applications = CAST.iter().map(Part::application).collect();
    }
    let shared = Channel { scope: Scope::Shared, ..Channel::default() };
    let publish = if chance.random_ratio(1, 4) { Publish::Services } else { Publish::All };
    config.channels.insert("Queue".into(), Channel { publish, ..shared });
    config.channels.insert("Ticker".into(), Channel { overflow: Overflow::DropOldest, ..shared });
    config.channels.insert("Memo".into(), Channel { fold_case: true, ..Channel::default() });
    for name in ["Phone", "Queue", "Memo"] {
        let bounds =
            LogBounds { size: chance.random_range(1..10), ttl: Duration::from_secs(chance.random_range(1..40)) };
        if chance.random_bool(0.5) {
            config.channels.entry(name.into()).or_default().history = Some(bounds);
        }
    }
    if chance.random_ratio(1, 3) {
        config.requests.only = vec!["Phone/Call/Done".parse().unwrap(), "Memo/call/*".parse().unwrap()];
    }
    // A session that is away ends as soon as time passes.
    config.resume.grace = MOMENT;
    let limits = &mut config.limits;
    limits.outbound_messages = chance.random_range(8..40);
    limits.outbound_bytes = chance.random_range(3_000..12_000);
    limits.rate = if chance.random_bool(0.5) { 0 } else { 20 };
    limits.burst = 10;
    limits.heartbeat = Duration::from_secs(if chance.random_bool(0.5) { 25 } else { 2 });
    limits.subscriptions = 6;
    limits.retained_values = 3;
    // No answer to a guessed token is delayed.
    limits.failed_registrations = u32::MAX;
    config
}
