//! [`Command`]: what an application may ask of the broker itself, on the channel `Broker`.
//!
//! Commands are read field by field from raw values, so that a mistake is answered with the field's name and a token is
//! never part of an error. What commands say is in camelCase; what the broker says (`notice`) in `PascalCase`.

use std::borrow::Cow;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::decode::kind;
use super::{Envelope, Pattern, Triple, check_name};
use crate::error::{ErrorCode, Refusal};

/// A command of the channel `Broker`, with its options.
pub enum Command {
    /// `Application/Register`
    Register(Box<Register>),
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
    /// `Request/Cancel`: the requester's own id.
    Cancel(String),
    /// `Connection/Ping`
    Ping,
}

/// `data` of Register.
pub struct Register {
    /// What proves the identity.
    pub token: Option<SecretString>,
    /// Believed in open mode only.
    pub user: Option<String>,
    /// Whether the session hears its own events.
    pub echo: bool,
    /// Whether the session asked to resume or to be resumable, in any form.
    pub resume: bool,
    /// Whether a will was left.
    pub will: bool,
}

/// `data` of Subscribe.
pub struct Subscribe {
    /// What to hear or to answer.
    pub pattern: Pattern,
    /// Subscriber, or handler with its options.
    pub role: Role,
    /// The group that shares the messages.
    pub group: Option<String>,
    /// Whose envelopes an observer wants: a user, or `*`.
    pub user: Option<String>,
    /// Whether a replay of history was asked for.
    pub recover: bool,
}

/// What a subscription is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Hears events.
    Subscriber,
    /// Answers requests.
    Handler {
        /// `false`: takes commands that are never answered.
        answers: bool,
        /// Knows no ids: one request at a time, its next envelope is the reply.
        ordered: bool,
        /// Where else than on the request's triple an ordered handler answers: topic and subtopic.
        replies: Vec<(String, String)>,
    },
}

impl Role {
    /// The role's name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Subscriber => "subscriber",
            Self::Handler { .. } => "handler",
        }
    }
}

/// `data` of Unsubscribe.
pub enum Unsubscribe {
    /// By `SubscriptionId`.
    Id(String),
    /// By what was subscribed to.
    Same(Box<Subscribe>),
}

/// `data.state` of `SetState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Works.
    Active,
    /// A browser tab that is being frozen.
    Asleep,
}

impl State {
    /// The state's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Asleep => "asleep",
        }
    }
}

/// The topic and subtopic of every command, in the order of protocol.md.
pub const COMMANDS: &[(&str, &str)] = &[
    ("Application", "Register"),
    ("Application", "Unregister"),
    ("Application", "List"),
    ("Application", "SetState"),
    ("Subscription", "Subscribe"),
    ("Subscription", "Unsubscribe"),
    ("Subscription", "List"),
    ("Request", "Cancel"),
    ("Connection", "Ping"),
];

/// Whether the triple is the command with this topic and subtopic.
#[must_use]
pub fn is(triple: &Triple<'_>, topic: &str, subtopic: &str) -> bool {
    triple.is_broker() && triple.topic == topic && triple.subtopic == subtopic
}

/// Whether the triple is a command of the broker.
#[must_use]
pub fn is_command(triple: &Triple<'_>) -> bool {
    COMMANDS.iter().any(|(topic, subtopic)| is(triple, topic, subtopic))
}

impl Command {
    /// Reads the command that an envelope on the channel `Broker` is.
    ///
    /// # Errors
    /// `UNKNOWN_COMMAND`, `RESERVED_CHANNEL` for what only the broker says, `INVALID_ENVELOPE` with the option.
    pub fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let triple = envelope.triple();
        match (&*triple.topic, &*triple.subtopic) {
            ("Application", "Register") => {
                Register::read(&Options::of(envelope)?).map(|it| Self::Register(Box::new(it)))
            }
            ("Application", "Unregister") => Ok(Self::Unregister),
            ("Application", "List") => Ok(Self::ListApplications),
            ("Application", "SetState") => read_state(&Options::of(envelope)?).map(Self::SetState),
            ("Subscription", "Subscribe") => {
                Subscribe::read(&Options::of(envelope)?).map(|it| Self::Subscribe(Box::new(it)))
            }
            ("Subscription", "Unsubscribe") => read_unsubscribe(&Options::of(envelope)?).map(Self::Unsubscribe),
            ("Subscription", "List") => Ok(Self::ListSubscriptions),
            ("Request", "Cancel") => match Options::of(envelope)?.id {
                Some(id) => text("id", id)?.map(|id| Self::Cancel(id.into_owned())),
                None => None,
            }
            .ok_or_else(|| invalid("data.id is missing: name the request to cancel by the id you gave it")),
            ("Connection", "Ping") => Ok(Self::Ping),
            (topic, subtopic) if super::notice::is_notice(topic, subtopic) => Err(Refusal::new(
                ErrorCode::ReservedChannel,
                format!("only the broker itself sends Broker/{topic}/{subtopic}; publish on a channel of your own"),
            )),
            _ => Err(Refusal::new(
                ErrorCode::UnknownCommand,
                "no command of the broker has this topic and subtopic; letter case counts, docs/protocol.md lists them",
            )),
        }
    }
}

/// The options of all commands, raw: reading them never fails on a value, so each mistake can be named.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options<'a> {
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow)]
    echo: Option<&'a RawValue>,
    #[serde(borrow)]
    resume: Option<&'a RawValue>,
    #[serde(borrow)]
    will: Option<&'a RawValue>,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, alias = "SubscriptionId")]
    subscription_id: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(borrow)]
    subtopic: Option<&'a RawValue>,
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    group: Option<&'a RawValue>,
    #[serde(borrow)]
    recover: Option<&'a RawValue>,
    #[serde(borrow)]
    answers: Option<&'a RawValue>,
    #[serde(borrow)]
    ordered: Option<&'a RawValue>,
    #[serde(borrow)]
    replies: Option<&'a RawValue>,
}

impl<'a> Options<'a> {
    fn of(envelope: &Envelope<'a>) -> Result<Self, Refusal> {
        match envelope.payload() {
            None | Some("null") => Ok(Self::default()),
            Some(raw) if !raw.starts_with('{') => {
                Err(invalid(format!("the field 'data' of a command has to be an object, not {}", kind(raw))))
            }
            // All fields are raw values, so what is left to fail is a key that stands twice.
            Some(raw) => serde_json::from_str(raw).map_err(|_| invalid("an option stands twice in 'data'")),
        }
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, message)
}

/// A string option; `null` is an absent one.
fn text<'a>(option: &str, raw: &'a RawValue) -> Result<Option<Cow<'a, str>>, Refusal> {
    match raw.get() {
        "null" => Ok(None),
        raw if raw.starts_with('"') => serde_json::from_str::<String>(raw)
            .map(|text| Some(Cow::Owned(text)))
            .map_err(|_| invalid(format!("data.{option} has an escape that is no character (a lone surrogate)"))),
        raw => Err(invalid(format!("data.{option} has to be a string, not {}", kind(raw)))),
    }
}

/// A string option that is a name: 1..=128 bytes, no control characters.
fn name(option: &str, raw: Option<&RawValue>) -> Result<Option<String>, Refusal> {
    let Some(text) = raw.map(|raw| text(option, raw)).transpose()?.flatten() else { return Ok(None) };
    check_name(&text).map_err(|fault| invalid(format!("data.{option} {fault}")))?;
    Ok(Some(text.into_owned()))
}

fn flag(option: &str, raw: Option<&RawValue>) -> Result<Option<bool>, Refusal> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(raw) => Err(invalid(format!("data.{option} has to be true or false, not {}", kind(raw)))),
    }
}

/// An option that is an object when it is there.
fn object(option: &str, raw: Option<&RawValue>) -> Result<bool, Refusal> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(false),
        Some(raw) if raw.starts_with('{') => Ok(true),
        Some(raw) => Err(invalid(format!("data.{option} has to be an object, not {}", kind(raw)))),
    }
}

impl Register {
    fn read(options: &Options<'_>) -> Result<Self, Refusal> {
        let resume = match options.resume.map(RawValue::get) {
            None | Some("null" | "false") => false,
            Some("true") => true,
            Some(raw) if raw.starts_with('{') => true,
            Some(raw) => {
                return Err(invalid(format!(
                    "data.resume has to be true or an object with token and seq, not {}",
                    kind(raw)
                )));
            }
        };
        Ok(Self {
            token: match options.token {
                Some(raw) => text("token", raw)?.map(|token| SecretString::from(token.into_owned())),
                None => None,
            },
            user: name("user", options.user)?,
            echo: flag("echo", options.echo)?.unwrap_or(false),
            resume,
            will: object("will", options.will)?,
        })
    }
}

impl Subscribe {
    fn read(options: &Options<'_>) -> Result<Self, Refusal> {
        let part = |option, raw: Option<&'_ RawValue>| -> Result<Option<String>, Refusal> {
            Ok(raw.map(|raw| text(option, raw)).transpose()?.flatten().map(Cow::into_owned))
        };
        let (channel, topic, subtopic) =
            (part("channel", options.channel)?, part("topic", options.topic)?, part("subtopic", options.subtopic)?);
        let pattern = Pattern::from_parts(channel.as_deref(), topic.as_deref(), subtopic.as_deref())
            .map_err(|(part, fault)| invalid(format!("data.{part} {fault}")))?;
        Ok(Self {
            pattern,
            role: read_role(options)?,
            group: name("group", options.group)?,
            user: name("user", options.user)?,
            recover: object("recover", options.recover)?,
        })
    }
}

fn read_role(options: &Options<'_>) -> Result<Role, Refusal> {
    let role = options.role.map(|raw| text("role", raw)).transpose()?.flatten();
    let answers = flag("answers", options.answers)?;
    let ordered = flag("ordered", options.ordered)?.unwrap_or(false);
    let replies = read_replies(options.replies)?;
    match role.as_deref() {
        None | Some("subscriber") if answers.is_some() || ordered || !replies.is_empty() => {
            Err(invalid("data.answers, ordered and replies are options of a handler: add \"role\":\"handler\""))
        }
        None | Some("subscriber") => Ok(Role::Subscriber),
        Some("handler") if !replies.is_empty() && !ordered => {
            Err(invalid("data.replies is an option of an ordered handler: add \"ordered\":true"))
        }
        Some("handler") if ordered && answers == Some(false) => {
            Err(invalid("data.ordered and \"answers\":false exclude each other: one answers in order, one never"))
        }
        Some("handler") => Ok(Role::Handler { answers: answers.unwrap_or(true), ordered, replies }),
        Some(_) => Err(invalid("data.role has to be \"subscriber\" or \"handler\"")),
    }
}

fn read_replies(raw: Option<&RawValue>) -> Result<Vec<(String, String)>, Refusal> {
    let wrong = || invalid("data.replies has to be an array of strings \"Topic/Subtopic\"");
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(Vec::new()),
        Some(raw) => serde_json::from_str::<Vec<String>>(raw)
            .map_err(|_| wrong())?
            .iter()
            .map(|reply| match reply.split_once('/') {
                Some((topic, subtopic)) if super::check_part(topic).is_ok() && super::check_part(subtopic).is_ok() => {
                    Ok((topic.to_owned(), subtopic.to_owned()))
                }
                _ => Err(wrong()),
            })
            .collect(),
    }
}

fn read_unsubscribe(options: &Options<'_>) -> Result<Unsubscribe, Refusal> {
    match options.subscription_id.map(|raw| text("subscriptionId", raw)).transpose()?.flatten() {
        Some(id) => Ok(Unsubscribe::Id(id.into_owned())),
        None => Subscribe::read(options).map(|it| Unsubscribe::Same(Box::new(it))),
    }
}

fn read_state(options: &Options<'_>) -> Result<State, Refusal> {
    match options.state.map(|raw| text("state", raw)).transpose()?.flatten().as_deref() {
        Some("active") => Ok(State::Active),
        Some("asleep") => Ok(State::Asleep),
        _ => Err(invalid("data.state has to be \"active\" or \"asleep\"")),
    }
}
