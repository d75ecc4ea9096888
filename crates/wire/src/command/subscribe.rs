//! `Subscription/Subscribe` and `Subscription/Unsubscribe`.

use serde_json::value::RawValue;

use super::options::{Options, invalid};
use crate::error::{ErrorCode, Refusal};
use crate::triple::{BROKER, check_part, resembles_broker};
use crate::{Envelope, Pattern};

/// The number of triples that `data.replies` can list.
pub const REPLIES_MAX: usize = 16;

/// `data` of Subscribe. Every text in it is at most 128 bytes long.
pub struct Subscribe {
    /// The triples to receive.
    pub pattern: Pattern,
    /// Subscriber, or handler with its options.
    pub role: Role,
    /// The group whose members share the messages.
    pub group: Option<String>,
    /// The user whose events an observer or a service wants, or `*` for all users.
    pub user: Option<String>,
    /// When retained values are sent.
    pub retained: Retained,
    /// Whether a replay of history is wanted.
    pub recover: bool,
}

/// `data.retained` of Subscribe: when the retained values of the matching triples are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retained {
    /// Absent: if the subscription is new.
    #[default]
    WhenNew,
    /// `false`: never.
    Never,
    /// `true`: also if the subscription exists.
    Again,
}

/// The role of a subscription, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives events.
    Subscriber,
    /// Receives requests.
    Handler {
        /// `false`: takes commands that are never answered.
        answers: bool,
        /// Knows no ids: it gets one request at a time, and its next envelope is the reply.
        ordered: bool,
        /// Other topics and subtopics on which an ordered handler replies; at most [`REPLIES_MAX`].
        replies: Vec<(String, String)>,
    },
}

/// The role of a subscription, without its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// Receives events.
    Subscriber,
    /// Receives requests.
    Handler,
}

impl Role {
    /// Returns the role without its options.
    #[must_use]
    pub fn name(&self) -> RoleName {
        match self {
            Self::Subscriber => RoleName::Subscriber,
            Self::Handler { .. } => RoleName::Handler,
        }
    }

    /// Returns the role as it is written.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.name().as_str()
    }
}

impl RoleName {
    /// Returns the role as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subscriber => "subscriber",
            Self::Handler => "handler",
        }
    }

    fn read(options: &Options<'_>) -> Result<Option<Self>, Refusal> {
        match options.text("role")?.as_deref() {
            None => Ok(None),
            Some("subscriber") => Ok(Some(Self::Subscriber)),
            Some("handler") => Ok(Some(Self::Handler)),
            Some(_) => Err(invalid("data.role must be \"subscriber\" or \"handler\"")),
        }
    }
}

impl Subscribe {
    const OPTIONS: &[&str] = &[
        "channel", "topic", "subtopic", "role", "group", "user", "answers", "ordered", "replies", "retained", "recover",
    ];

    /// Returns a subscription without further options.
    #[must_use]
    pub fn new(pattern: Pattern, role: Role) -> Self {
        Self { pattern, role, group: None, user: None, retained: Retained::default(), recover: false }
    }

    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = Options::read(envelope, Self::OPTIONS)?;
        let (pattern, role) = (read_pattern(&options)?, read_role(&options)?);
        let group = options.name("group")?;
        if role.name() == RoleName::Handler && pattern.channel.is_none() {
            return Err(invalid("data.channel: a handler must name its channel"));
        }
        if group.is_some() && pattern.channel.as_deref() == Some(BROKER) {
            return Err(invalid("data.group does not apply to the channel 'Broker'; subscribe without it"));
        }
        Ok(Self {
            pattern,
            role,
            group,
            user: options.name("user")?,
            retained: match options.flag("retained")? {
                None => Retained::WhenNew,
                Some(false) => Retained::Never,
                Some(true) => Retained::Again,
            },
            recover: options.object("recover")?,
        })
    }

    /// Returns the `Hint` of the reply if a part of the pattern looks like another broker's wildcard.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let (name, part) = self.pattern.foreign_wildcard()?;
        Some(format!("the {name} '{part}' matches only itself; the one wildcard is '*', which stands for a whole part"))
    }
}

fn read_pattern(options: &Options<'_>) -> Result<Pattern, Refusal> {
    let (channel, topic, subtopic) = (options.text("channel")?, options.text("topic")?, options.text("subtopic")?);
    if channel.as_deref().is_some_and(resembles_broker) {
        return Err(Refusal::new(ErrorCode::ReservedChannel, "data.channel: write 'Broker' exactly so"));
    }
    Pattern::from_parts(channel.as_deref(), topic.as_deref(), subtopic.as_deref())
        .map_err(|(part, fault)| invalid(format!("data.{part} {fault}")))
}

fn read_role(options: &Options<'_>) -> Result<Role, Refusal> {
    let answers = options.flag("answers")?;
    let ordered = options.flag("ordered")?.unwrap_or(false);
    let replies = read_replies(options)?;
    match RoleName::read(options)?.unwrap_or(RoleName::Subscriber) {
        RoleName::Subscriber if answers.is_some() || ordered || !replies.is_empty() => {
            Err(invalid("data.answers, ordered and replies are options of a handler: add \"role\":\"handler\""))
        }
        RoleName::Subscriber => Ok(Role::Subscriber),
        RoleName::Handler if !replies.is_empty() && !ordered => {
            Err(invalid("data.replies is an option of an ordered handler: add \"ordered\":true"))
        }
        RoleName::Handler if ordered && answers == Some(false) => {
            Err(invalid("data.ordered and \"answers\":false exclude each other: an ordered handler answers"))
        }
        RoleName::Handler => Ok(Role::Handler { answers: answers.unwrap_or(true), ordered, replies }),
    }
}

fn read_replies(options: &Options<'_>) -> Result<Vec<(String, String)>, Refusal> {
    let wrong = || invalid("data.replies must be an array of strings \"Topic/Subtopic\"");
    let Some(raw) = options.raw("replies") else { return Ok(Vec::new()) };
    let replies: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| wrong())?;
    if replies.len() > REPLIES_MAX {
        return Err(invalid(format!("data.replies lists {} triples; {REPLIES_MAX} are allowed", replies.len())));
    }
    let read = |reply: &&RawValue| {
        let reply: String = serde_json::from_str(reply.get()).ok()?;
        let (topic, subtopic) = reply.split_once('/')?;
        let is_name = check_part(topic).is_ok() && check_part(subtopic).is_ok();
        is_name.then(|| (topic.to_owned(), subtopic.to_owned()))
    };
    replies.iter().map(|reply| read(reply).ok_or_else(wrong)).collect()
}

/// `data` of Unsubscribe.
pub enum Unsubscribe {
    /// By `SubscriptionId`.
    Id(String),
    /// By pattern: every subscription of the session that fits ends.
    Matching(Box<SubscriptionFilter>),
}

/// The subscriptions of a session that have a pattern, and these properties, if they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFilter {
    /// The pattern as it was subscribed to.
    pub pattern: Pattern,
    /// The role.
    pub role: Option<RoleName>,
    /// The group.
    pub group: Option<String>,
    /// The user.
    pub user: Option<String>,
}

impl Unsubscribe {
    const OPTIONS: &[&str] =
        &["SubscriptionId", "subscriptionId", "channel", "topic", "subtopic", "role", "group", "user"];

    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = Options::read(envelope, Self::OPTIONS)?;
        let any_set = |names: &[&str]| names.iter().any(|name| options.is_set(name));
        let by_pattern = any_set(&["channel", "topic", "subtopic"]);
        match (options.text("SubscriptionId")?, options.text("subscriptionId")?) {
            (Some(_), Some(_)) => Err(invalid("data.SubscriptionId and data.subscriptionId are the same option")),
            (Some(_), None) | (None, Some(_)) if by_pattern || any_set(&["role", "group", "user"]) => {
                Err(invalid("data.SubscriptionId names one subscription; send it without other options"))
            }
            (Some(id), None) | (None, Some(id)) => Ok(Self::Id(id.into_owned())),
            (None, None) if !by_pattern => Err(invalid(
                "data names neither SubscriptionId nor channel, topic or subtopic; to end */*/*, write \"channel\":\"*\"",
            )),
            (None, None) => Ok(Self::Matching(Box::new(SubscriptionFilter {
                pattern: read_pattern(&options)?,
                role: RoleName::read(&options)?,
                group: options.name("group")?,
                user: options.name("user")?,
            }))),
        }
    }
}
