//! [`Session`]: what the broker knows of the client's session: its source, its subscriptions, and both counts.

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::peer::Received;
use super::player::{extend, serves};
use super::script::{Failure, Outcome, Suite};
use wire::Pattern;
use wire::command::{Command, Recover, Resume, Role, Subscribe};

/// The longest list of subscriptions of a client that is judged.
const SUBSCRIPTIONS_MAX: usize = 1_000;

/// How many events of a client are remembered.
const EVENTS_MAX: usize = 1_000;

/// A Register of the client.
pub(super) struct Registration {
    source: String,
    id: Option<String>,
    /// The proof, to compare it with another one. Never printed.
    pub(super) token: Option<String>,
    pub(super) resume: Asked,
}

/// What a Register says of `resume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    No,
    Begin,
    Continue { token: String, received: u64 },
}

impl Registration {
    /// Returns what a message registers. `None`: it is not a Register.
    pub(super) fn read(received: &Received) -> Option<Self> {
        let Some(Command::Register(register)) = &received.command else { return None };
        let resume = match &register.resume {
            Resume::No => Asked::No,
            Resume::Begin => Asked::Begin,
            Resume::Continue { token, received } => {
                Asked::Continue { token: token.expose_secret().to_owned(), received: *received }
            }
        };
        Some(Self {
            source: received.text("source").unwrap_or_default().to_owned(),
            id: received.text("id").map(str::to_owned),
            token: register.token.as_ref().map(|it| it.expose_secret().to_owned()),
            resume,
        })
    }

    /// Returns what the reply adds if the session that the client asks for does not continue.
    pub(super) fn not_resumed(&self, reason: &str) -> Value {
        match self.resume {
            Asked::Continue { .. } => json!({ "ResumeReason": reason }),
            Asked::No | Asked::Begin => json!({}),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Session {
    source: Option<String>,
    register_id: Option<String>,
    is_resumable: bool,
    /// The number of sessions that have begun.
    begun: u32,
    /// The number of tokens that were made. The last one is that of this session.
    tokens: u32,
    /// Every message to the client that both count, as it was sent.
    pub(super) sent: Vec<String>,
    /// How many of them the client has acknowledged.
    pub(super) acknowledged: usize,
    /// How many messages of the client were taken in.
    pub(super) taken: usize,
    pub(super) is_unregistered: bool,
    subscriptions: Vec<(Pattern, Role)>,
    /// How many Subscribes and Acknowledges have arrived, over all sessions.
    pub(super) subscribes: usize,
    pub(super) acknowledgements: usize,
    /// Where the last Subscribe wanted to recover.
    recover: Option<Recover>,
    /// The value of `taken` after each event.
    events: Vec<usize>,
}

impl Session {
    /// Takes a Register. The source stays the same over all connections.
    pub(super) fn register(&mut self, registration: &Registration) -> Outcome {
        let Registration { source, id, resume, .. } = registration;
        if source.is_empty() {
            return Err(Failure::new("a Register with a source", "one without")
                .mend("Register names the application in `source`, beside channel, topic and subtopic"));
        }
        self.check_source(source)?;
        self.source = Some(source.clone());
        self.register_id.clone_from(id);
        self.is_resumable = *resume != Asked::No;
        Ok(())
    }

    pub(super) fn register_id(&self) -> Option<&str> {
        self.register_id.as_deref()
    }

    /// The token that the last reply gave.
    pub(super) fn token(&self) -> String {
        format!("resume-token-{}", self.tokens)
    }

    /// Begins a session, or goes on with this one if `more` has `"Resumed":true`. Returns `data` of the reply.
    pub(super) fn accept(&mut self, message_bytes_max: usize, more: &Value) -> Value {
        if more.get("Resumed") != Some(&Value::Bool(true)) {
            self.sent.clear();
            self.subscriptions.clear();
            self.events.clear();
            (self.acknowledged, self.taken, self.is_unregistered) = (0, 0, false);
            self.begun += 1;
        }
        let mut data = json!({
            "SessionId": format!("00000000-0000-4000-8000-{:012}", self.begun), "User": "local", "Protocol": 1,
            "Server": concat!("switchboard/", env!("CARGO_PKG_VERSION")), "HeartbeatSeconds": 25,
            "MaxMessageBytes": message_bytes_max, "ExpiresInSeconds": null,
        });
        if self.is_resumable {
            self.tokens += 1;
            extend(&mut data, &json!({ "Resumed": false, "ResumeToken": self.token(), "GraceSeconds": 30 }));
        }
        extend(&mut data, more);
        data
    }

    pub(super) fn check_source(&self, source: &str) -> Outcome {
        match &self.source {
            Some(own) if own != source => {
                Err(Failure::new(format!("the source '{own}' in every message"), "another one")
                    .mend("send under the name that was registered, or leave `source` out"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Adds a subscription. Returns its id.
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe) -> String {
        self.subscribes += 1;
        self.recover.clone_from(&subscribe.recover);
        let held = (subscribe.pattern.clone(), subscribe.role.clone());
        let end = self.subscriptions.len();
        let at = self.subscriptions.iter().position(|it| *it == held).unwrap_or(end);
        if at == end && end < SUBSCRIPTIONS_MAX {
            self.subscriptions.push(held);
        }
        format!("subscription-{at}")
    }

    /// Returns whether the client has the subscription that a suite needs.
    pub(super) fn is_subscribed(&self, suite: Suite) -> bool {
        self.subscriptions.iter().any(|(pattern, role)| serves(role, suite).is_some_and(|it| pattern.matches(&it)))
    }

    /// Takes an acknowledgement.
    pub(super) fn acknowledge(&mut self, count: u64) -> Outcome {
        let sent = self.sent.len();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if !self.is_resumable || count < self.acknowledged || count > sent {
            let expected = match self.is_resumable {
                true => format!("an Acknowledge between {} and {sent}", self.acknowledged),
                false => "no Acknowledge in a session that is not resumable".to_owned(),
            };
            return Err(Failure::new(expected, format!("an Acknowledge of {count}")).mend(
                "count every text message since the reply to the Register that began the session, but no message on \
                 Broker/Application/Register and no Broker/Connection/Replaced",
            ));
        }
        self.acknowledged = count;
        self.acknowledgements += 1;
        Ok(())
    }

    /// Returns where the last Subscribe wanted to recover.
    pub(super) fn recovers(&self) -> Option<(&str, u64)> {
        match &self.recover {
            Some(Recover::After { epoch, offset }) => Some((epoch, *offset)),
            Some(Recover::Last(_)) | None => None,
        }
    }

    /// Takes in a message that is not a command.
    pub(super) fn take(&mut self) {
        self.taken += 1;
        if self.events.len() < EVENTS_MAX {
            self.events.push(self.taken);
        }
    }

    /// Returns how many messages were taken in when the first event after a number of messages was.
    pub(super) fn taken_at_event_after(&self, taken: usize) -> Option<usize> {
        self.events.iter().copied().find(|at| *at > taken)
    }
}
