//! [`Explanation`]: the answer, as the admin API prints it. `Broker/Message/Explain` prints the same with keys in `PascalCase`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What an envelope is, who would get it now, and why the others would not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What the envelope is.
    pub verdict: Verdict,
    /// The rule of docs/protocol.md that decides: its number, or the section that has it.
    pub rule: String,
    /// `REFUSED`: the error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `REFUSED`: the message that the sender would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `REFUSED`: the right that the sender lacks, if that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
    /// `REFUSED`: the rule of this right that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// Why the sender is not being read at this moment, if it is not.
    pub sender_paused: Option<SenderPaused>,
    /// The sessions that get it, at most 100.
    pub receives: Vec<Receiver>,
    /// How many more get it.
    pub more_receivers: usize,
    /// The other sessions, at most 100.
    pub others: Vec<Other>,
    /// How many more there are, by reason.
    pub more_others: BTreeMap<Reason, usize>,
    /// A node of the cluster did not answer, or what is known of it may be out of date.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// What an envelope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = ExplainVerdict)]
pub enum Verdict {
    /// An event.
    Event,
    /// A request.
    Request,
    /// A request whose handler does not answer.
    Command,
    /// A request to every handler.
    Gather,
    /// A reply.
    Reply,
    /// An event with `once` that was delivered before.
    Duplicate,
    /// It is refused.
    Refused,
}

/// Why a connection is not being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = ExplainSenderPaused)]
pub enum SenderPaused {
    /// It is faster than its rate.
    Rate,
    /// Its own queue, or one of its receivers', is over half.
    Pressure,
}

/// One session that gets the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainReceiver)]
pub struct Receiver {
    /// The session.
    #[serde(flatten)]
    pub who: Who,
    /// The node on which it is, unless it is this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pattern by which it gets it. A requester gets its reply without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The group of this subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Since when it has this subscription, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// `active`, `asleep` or `away`.
    pub state: String,
    /// What waits for it.
    pub queue: Queue,
    /// What becomes of the message there.
    pub effect: Effect,
    /// Of a request: what the handler is better in than the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainWho)]
pub struct Who {
    /// Its source; `switchboard` for an adapter.
    pub source: String,
    /// Its user; `null` for a service, and an adapter.
    pub user: Option<String>,
    /// Its id; `null` for an adapter, and if there is no such session.
    pub session: Option<String>,
}

/// A queue of outbound messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainQueue)]
pub struct Queue {
    /// Messages that wait.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What becomes of a message at a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = ExplainEffect)]
pub enum Effect {
    /// It is queued.
    Queued,
    /// It is queued, and the oldest events are dropped.
    DropsOldest,
    /// It is dropped itself, because the queue is full of what may not be dropped.
    Dropped,
    /// The queue overflows, and the session is closed.
    Closes,
    /// It waits for the turn of an ordered handler.
    Waits,
}

/// What a handler is better in than the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ExplainChosen)]
pub enum Chosen {
    /// No other handler can have the request.
    Only,
    /// The user's own come first, then adapters, services, other users'.
    Rank,
    /// It has fewer open requests, or has had none for longer.
    Load,
    /// The next one is asleep.
    Asleep,
    /// The next one is away.
    Away,
    /// The next one missed its last time limit.
    Missed,
    /// The late reply of the next one, which is ordered, is awaited.
    Turn,
}

impl Chosen {
    /// The word in the answer.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Rank => "rank",
            Self::Load => "load",
            Self::Asleep => "asleep",
            Self::Away => "away",
            Self::Missed => "missed",
            Self::Turn => "turn",
        }
    }
}

/// Why a session does not get an envelope. The first that holds is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = ExplainReason)]
pub enum Reason {
    /// No session of this source and user exists.
    NotRegistered,
    /// It is on another node.
    Elsewhere,
    /// It is the sender.
    IsSender,
    /// It belongs to another user.
    OtherUser,
    /// The envelope names another source as its target.
    Target,
    /// None of its subscriptions matches.
    NoMatch,
    /// It only subscribes, and this is a request.
    IsRequest,
    /// It only handles, and this is an event.
    IsEvent,
    /// The triple is protected, and it may not handle it.
    Protected,
    /// Its permission does not cover the triple.
    Permission,
    /// It named another user.
    UserFilter,
    /// Another member of its group gets it.
    Group,
    /// Another handler is chosen.
    NotChosen,
}

/// One session that does not get the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainOther)]
pub struct Other {
    /// The session.
    #[serde(flatten)]
    pub who: Who,
    /// Why.
    pub reason: Reason,
    /// The other reasons that hold.
    pub also: Vec<Reason>,
    /// What more there is to say.
    #[serde(flatten)]
    pub details: Details,
}

/// What more there is to say of a session that does not get an envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainDetails)]
pub struct Details {
    /// `NOT_REGISTERED`: the nearest source. `NO_MATCH`: the nearest pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
    /// `ELSEWHERE`: the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `ELSEWHERE`: how it gets the envelope there, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receives: Option<Box<Receiver>>,
    /// `NOT_REGISTERED`: how the last session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<HasLeft>,
    /// `NO_MATCH`: subscriptions that have ended, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<Ended>,
    /// `IS_REQUEST`: the handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<Who>,
    /// `IS_EVENT`: why it is not a request. `NOT_CHOSEN`: what the other handler is better in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// `PROTECTED`: the protected pattern.
    #[serde(rename = "protected", skip_serializing_if = "Option::is_none")]
    pub protected_by: Option<String>,
    /// `PERMISSION`: the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
    /// `PERMISSION`: the rule of this right that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// `USER_FILTER`: the user that it named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// `GROUP`: the member that gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<Who>,
}

/// What was probably meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainNearest)]
pub struct Nearest {
    /// A source, or a pattern.
    pub name: String,
    /// In what it differs.
    pub differs: Differs,
}

/// In what a name differs from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = ExplainDiffers)]
pub enum Differs {
    /// In letter case.
    Case,
    /// Two or three parts are swapped.
    Swapped,
    /// In spelling.
    Spelling,
}

/// How the last session of an application ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainHasLeft)]
pub struct HasLeft {
    /// When, in RFC 3339.
    pub at: String,
    /// The code with which its connection was closed, if that ended it.
    pub code: Option<u16>,
    /// Why.
    pub reason: String,
}

/// A subscription that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainEnded)]
pub struct Ended {
    /// Its pattern.
    pub pattern: String,
    /// `subscriber` or `handler`.
    pub role: String,
    /// When, in RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
}

impl Explanation {
    /// The answer with its keys in `PascalCase`, as the wire has them.
    #[must_use]
    pub fn on_the_wire(&self) -> Value {
        serde_json::to_value(self).map_or(Value::Null, in_pascal_case)
    }
}

fn in_pascal_case(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (capitalised(&key), in_pascal_case(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(in_pascal_case).collect(),
        other => other,
    }
}

fn capitalised(key: &str) -> String {
    let mut letters = key.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
