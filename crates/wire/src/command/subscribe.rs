//! `Subscription/Subscribe` and `Subscription/Unsubscribe`.

use serde_json::value::RawValue;

use super::options::{Options, Raw, invalid, options};
use super::recover::Recover;
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
    /// The events of the log that are sent first.
    pub recover: Option<Recover>,
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
        /// It does not use ids: it gets one request at a time, and its next envelope is the reply.
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

    fn read(role: Raw<'_>) -> Result<Option<Self>, Refusal> {
        match role.text()?.as_deref() {
            None => Ok(None),
            Some("subscriber") => Ok(Some(Self::Subscriber)),
            Some("handler") => Ok(Some(Self::Handler)),
            Some(_) => Err(invalid("data.role must be \"subscriber\" or \"handler\"")),
        }
    }
}

options!(SubscribeOptions {
    channel = "channel",
    topic = "topic",
    subtopic = "subtopic",
    role = "role",
    group = "group",
    user = "user",
    answers = "answers",
    ordered = "ordered",
    replies = "replies",
    retained = "retained",
    recover = "recover",
});

impl Subscribe {
    /// Returns a subscription without further options.
    #[must_use]
    pub fn new(pattern: Pattern, role: Role) -> Self {
        Self { pattern, role, group: None, user: None, retained: Retained::default(), recover: None }
    }

    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = SubscribeOptions::read(envelope)?;
        let pattern = read_pattern(options.channel, options.topic, options.subtopic)?;
        let (role, group) = (read_role(&options)?, options.group.checked_name()?);
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
            user: options.user.checked_name()?,
            retained: match options.retained.flag()? {
                None => Retained::WhenNew,
                Some(false) => Retained::Never,
                Some(true) => Retained::Again,
            },
            recover: Recover::read(options.recover)?,
        })
    }
}

fn read_pattern(channel: Raw<'_>, topic: Raw<'_>, subtopic: Raw<'_>) -> Result<Pattern, Refusal> {
    let (channel, topic, subtopic) = (channel.text()?, topic.text()?, subtopic.text()?);
    if channel.as_deref().is_some_and(resembles_broker) {
        return Err(Refusal::new(
            ErrorCode::ReservedChannel,
            "data.channel: the broker's own channel is written 'Broker'",
        ));
    }
    Pattern::from_parts(channel.as_deref(), topic.as_deref(), subtopic.as_deref())
        .map_err(|(part, fault)| invalid(format!("data.{part} {fault}")))
}

fn read_role(options: &SubscribeOptions<'_>) -> Result<Role, Refusal> {
    let answers = options.answers.flag()?;
    let ordered = options.ordered.flag()?.unwrap_or(false);
    let replies = read_replies(options.replies)?;
    match RoleName::read(options.role)?.unwrap_or(RoleName::Subscriber) {
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

fn read_replies(replies: Raw<'_>) -> Result<Vec<(String, String)>, Refusal> {
    let wrong = || invalid("data.replies must be an array of strings \"Topic/Subtopic\"");
    let Some(json) = replies.json() else { return Ok(Vec::new()) };
    let replies: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| wrong())?;
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

options!(UnsubscribeOptions {
    id = "SubscriptionId",
    camel_case_id = "subscriptionId",
    channel = "channel",
    topic = "topic",
    subtopic = "subtopic",
    role = "role",
    group = "group",
    user = "user",
});

impl Unsubscribe {
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = UnsubscribeOptions::read(envelope)?;
        let any_set = |options: [Raw<'_>; 3]| options.iter().any(|option| option.json().is_some());
        let by_pattern = any_set([options.channel, options.topic, options.subtopic]);
        match (options.id.text()?, options.camel_case_id.text()?) {
            (Some(_), Some(_)) => Err(invalid("data.SubscriptionId and data.subscriptionId are the same option")),
            (Some(_), None) | (None, Some(_)) if by_pattern || any_set([options.role, options.group, options.user]) => {
                Err(invalid("data.SubscriptionId names one subscription; send it without other options"))
            }
            (Some(id), None) | (None, Some(id)) => Ok(Self::Id(id.into_owned())),
            (None, None) if !by_pattern => Err(invalid(
                "data names neither SubscriptionId nor channel, topic or subtopic; to end */*/*, write \"channel\":\"*\"",
            )),
            (None, None) => Ok(Self::Matching(Box::new(SubscriptionFilter {
                pattern: read_pattern(options.channel, options.topic, options.subtopic)?,
                role: RoleName::read(options.role)?,
                group: options.group.checked_name()?,
                user: options.user.checked_name()?,
            }))),
        }
    }
}
