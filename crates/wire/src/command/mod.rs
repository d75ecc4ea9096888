//! [`Command`]: the requests that an application can send to the broker itself, on the channel `Broker`.
//!
//! Options are read one by one from raw JSON, so that a refusal can name the option and never contains a token. Commands
//! use camelCase, the broker's notices ([`notice`]) `PascalCase`.

mod acknowledge;
mod explain;
mod options;
mod recover;
mod register;
mod renew;
mod subscribe;

pub use explain::{Explain, ExplainTo};
pub use recover::Recover;
pub use register::{Register, Resume, WillOption};
pub use renew::Renew;
pub use subscribe::{REPLIES_MAX, Retained, Role, RoleName, Subscribe, SubscriptionFilter, Unsubscribe};

use std::borrow::Cow;

use super::{Envelope, Triple, notice};
use crate::error::{ErrorCode, Refusal};
use options::{Options, invalid, nearest, options};

/// A command of the channel `Broker`, with its options.
pub enum Command {
    /// `Application/Register`
    Register(Box<Register>),
    /// `Application/Renew`
    Renew(Renew),
    /// `Application/Unregister`
    Unregister,
    /// `Application/List`
    ListApplications,
    /// `Application/SetState`
    SetState(State),
    /// `Subscription/Subscribe`
    Subscribe(Box<Subscribe>),
    /// `Subscription/Unsubscribe`
    Unsubscribe(Unsubscribe),
    /// `Subscription/List`
    ListSubscriptions,
    /// `Message/Explain`
    Explain(Box<Explain>),
    /// `Request/Cancel`, with the requester's own id.
    Cancel(String),
    /// `Connection/Ping`
    Ping,
    /// `Connection/Acknowledge`, with the number of messages that the client has received.
    Acknowledge(u64),
}

/// Reads one command. The envelope has its topic and subtopic.
type Read = fn(&Envelope<'_>) -> Result<Command, Refusal>;

/// The topic and subtopic of every command.
const COMMANDS: &[(&str, &str, Read)] = &[
    ("Application", "Register", |it| Register::read(it).map(|it| Command::Register(Box::new(it)))),
    ("Application", "Renew", |it| Renew::read(it).map(Command::Renew)),
    ("Application", "Unregister", |it| <()>::read(it).map(|()| Command::Unregister)),
    ("Application", "List", |it| <()>::read(it).map(|()| Command::ListApplications)),
    ("Application", "SetState", |it| State::read(it).map(Command::SetState)),
    ("Subscription", "Subscribe", |it| Subscribe::read(it).map(|it| Command::Subscribe(Box::new(it)))),
    ("Subscription", "Unsubscribe", |it| Unsubscribe::read(it).map(Command::Unsubscribe)),
    ("Subscription", "List", |it| <()>::read(it).map(|()| Command::ListSubscriptions)),
    ("Message", "Explain", |it| Explain::read(it).map(|it| Command::Explain(Box::new(it)))),
    ("Request", "Cancel", |it| read_cancel(it).map(Command::Cancel)),
    // Its data is ignored.
    ("Connection", "Ping", |_| Ok(Command::Ping)),
    ("Connection", "Acknowledge", |it| acknowledge::read(it).map(Command::Acknowledge)),
];

impl Command {
    /// Returns the topic and subtopic of every command.
    pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
        COMMANDS.iter().map(|(topic, subtopic, _)| (*topic, *subtopic))
    }

    /// Reads an envelope on the channel `Broker`.
    ///
    /// # Errors
    /// `UNKNOWN_COMMAND`, `RESERVED_CHANNEL` for a notice, or `INVALID_ENVELOPE` with the option.
    pub fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let Triple { topic, subtopic, .. } = envelope.triple();
        let Some((.., read)) = COMMANDS.iter().find(|(own, sub, _)| topic == own && subtopic == sub) else {
            return Err(unknown_command(topic, subtopic));
        };
        if envelope.user().is_some() {
            return Err(invalid("the field 'user' does not apply to a command; name the user in data.user"));
        }
        read(envelope)
    }
}

fn unknown_command(topic: &str, subtopic: &str) -> Refusal {
    if notice::is_notice(topic, subtopic) {
        return Refusal::new(
            ErrorCode::ReservedChannel,
            format!("only the broker sends Broker/{topic}/{subtopic}; publish on a channel of your own"),
        );
    }
    let words = match similar(topic, subtopic) {
        Some(similar) => format!("Broker/{topic}/{subtopic} is not a command; did you mean Broker/{similar}?").into(),
        None => Cow::Borrowed("the broker has no command with this topic and subtopic; docs/protocol.md lists them"),
    };
    Refusal::new(ErrorCode::UnknownCommand, words)
}

/// The longest topic and subtopic that are compared with those of the commands, in bytes.
const COMPARED_BYTES_MAX: usize = 40;

/// Returns the topic and subtopic of the command that a typing error, or another letter case, turns into these.
#[must_use]
pub fn similar(topic: &str, subtopic: &str) -> Option<String> {
    if topic.len() + subtopic.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let written = format!("{topic}/{subtopic}");
    let commands: Vec<String> = Command::all().map(|(topic, subtopic)| format!("{topic}/{subtopic}")).collect();
    let names: Vec<&str> = commands.iter().map(String::as_str).collect();
    nearest(&written, &names).map(str::to_owned).filter(|nearest| *nearest != written)
}

/// Returns whether the triple is the command with this topic and subtopic.
#[must_use]
pub fn is(triple: &Triple<'_>, topic: &str, subtopic: &str) -> bool {
    triple.is_broker() && triple.topic == topic && triple.subtopic == subtopic
}

/// Returns whether the triple is a command of the broker.
#[must_use]
pub fn is_command(triple: &Triple<'_>) -> bool {
    Command::all().any(|(topic, subtopic)| is(triple, topic, subtopic))
}

/// `data.state` of `SetState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The application works.
    Active,
    /// The application is a browser tab that is being frozen.
    Asleep,
}

options!(StateOptions {
    state = "state",
});

impl State {
    /// Returns the state as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Asleep => "asleep",
        }
    }

    fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        match StateOptions::read(envelope)?.state.text()?.as_deref() {
            Some("active") => Ok(Self::Active),
            Some("asleep") => Ok(Self::Asleep),
            Some(_) | None => Err(invalid("data.state must be \"active\" or \"asleep\"")),
        }
    }
}

options!(CancelOptions {
    id = "id",
});

fn read_cancel(envelope: &Envelope<'_>) -> Result<String, Refusal> {
    match CancelOptions::read(envelope)?.id.text()? {
        Some(id) => Ok(id.into_owned()),
        None => Err(invalid("data.id is missing: it is the id that you gave the request")),
    }
}
