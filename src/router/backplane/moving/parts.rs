//! What a session is made of, as its nodes hand it over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::Pattern;
use wire::command::Role;

use crate::router::backplane::date;
use crate::router::history::Position;
use crate::router::index::{Observes, Subscription};
use crate::router::outbox::{Kind, OnFull};
use crate::router::request::turn_elsewhere::TurnFact;
use crate::router::{RequestId, SubscriptionId};
use crate::websocket::Frame;

/// A part of a session.
#[derive(Serialize, Deserialize)]
pub(in crate::router) enum Part<'a> {
    /// The first part; parts before it are void.
    Facts(#[serde(borrow)] Facts<'a>),
    Subscriptions(#[serde(borrow)] Vec<SubscriptionFacts<'a>>),
    /// Where the old node is in the logs that the session reads.
    Logs(#[serde(borrow)] Vec<Reached<'a>>),
    /// Messages in the order of its queue.
    Entries(#[serde(borrow)] Vec<Entry<'a>>),
}

/// An event of a log.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::router) struct Reached<'a> {
    /// The key of the log.
    pub(in crate::router) log: &'a str,
    pub(in crate::router) epoch: &'a str,
    pub(in crate::router) offset: u64,
}

/// A turn of an ordered handler.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::router) struct TurnOf<'a> {
    request: u64,
    subscription: u64,
    #[serde(borrow)]
    triple: Option<[&'a str; 3]>,
    is_owed: bool,
}

/// What a session is.
#[derive(Default, Serialize, Deserialize)]
pub(in crate::router) struct Facts<'a> {
    /// How often it has moved.
    pub(in crate::router) moves: u64,
    pub(in crate::router) echo: bool,
    pub(in crate::router) asleep: bool,
    pub(in crate::router) missed: bool,
    /// When it registered, in milliseconds since 1970.
    pub(in crate::router) since_ms: u64,
    /// How many messages of it were taken in.
    pub(in crate::router) received: u64,
    /// The numbers of its tokens that are valid.
    pub(in crate::router) newest: u64,
    pub(in crate::router) previous: Option<u64>,
    pub(in crate::router) will: Option<&'a str>,
    /// What it may still send at once: messages and bytes.
    pub(in crate::router) allowance: Option<(Allowed, Option<Allowed>)>,
    /// The requests that it has sent and whose answers its old node still expects.
    #[serde(borrow)]
    pub(in crate::router) asked: Vec<Question<'a>>,
}

/// A request of a session that moves: its own id, and its triple.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::router) struct Question<'a> {
    pub(in crate::router) id: &'a str,
    pub(in crate::router) triple: [&'a str; 3],
}

/// An allowance, and how many milliseconds ago it was counted.
pub(in crate::router) type Allowed = (f64, u64);

/// A subscription of a session that moves.
#[derive(Serialize, Deserialize)]
pub(in crate::router) struct SubscriptionFacts<'a> {
    pub(in crate::router) id: u64,
    pub(in crate::router) since_ms: u64,
    channel: Option<&'a str>,
    topic: Option<&'a str>,
    subtopic: Option<&'a str>,
    #[serde(borrow)]
    handler: Option<Handler<'a>>,
    pub(in crate::router) group: Option<&'a str>,
    observes: Watched<'a>,
}

/// What makes a subscription a handler's.
#[derive(Serialize, Deserialize)]
struct Handler<'a> {
    answers: bool,
    ordered: bool,
    /// Where an ordered handler replies.
    #[serde(borrow)]
    replies: Vec<(&'a str, &'a str)>,
}

/// The other users whose envelopes a subscription receives.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Watched<'a> {
    Nobody,
    User(&'a str),
    All,
}

/// One message of a queue.
#[derive(Serialize, Deserialize)]
pub(in crate::router) struct Entry<'a> {
    pub(in crate::router) text: &'a str,
    /// A full queue drops it.
    drops: bool,
    kind: u8,
    secret: bool,
}

/// What a session was sent. The numbers are those of [`Window`](crate::router::outbox::Window).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct Counts {
    pub(in crate::router) floor: u64,
    pub(in crate::router) lost: u64,
    pub(in crate::router) acknowledged: u64,
    pub(in crate::router) kept: u64,
    pub(in crate::router) numbered: u64,
    /// Events that were dropped since the session began, and those of them of which it was not told.
    pub(in crate::router) dropped: u64,
    pub(in crate::router) untold: u64,
}

impl<'a> Reached<'a> {
    pub(in crate::router) fn new(log: &'a str, position: &'a Position) -> Self {
        Self { log, epoch: &position.epoch, offset: position.offset }
    }

    pub(in crate::router) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: Arc::from(self.epoch) }
    }

    pub(super) fn len(&self) -> usize {
        self.log.len() + self.epoch.len() + 16
    }
}

impl<'a> From<&'a TurnFact> for TurnOf<'a> {
    fn from(fact: &'a TurnFact) -> Self {
        let triple = fact.triple.as_deref().map(|it| [&*it.channel, &*it.topic, &*it.subtopic]);
        let (request, subscription) = (fact.request.number(), fact.subscription.number());
        Self { request, subscription, triple, is_owed: fact.is_owed }
    }
}

impl TurnOf<'_> {
    pub(in crate::router) fn fact(&self) -> TurnFact {
        TurnFact {
            request: RequestId::from_number(self.request),
            subscription: SubscriptionId::from_number(self.subscription),
            triple: self
                .triple
                .map(|[channel, topic, subtopic]| Arc::new(wire::Triple::new(channel, topic, subtopic).to_owned())),
            is_owed: self.is_owed,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.triple.iter().flatten().map(|part| part.len()).sum::<usize>() + 40
    }
}

impl<'a> SubscriptionFacts<'a> {
    pub(in crate::router) fn of(subscription: &'a Subscription) -> Self {
        Self {
            id: subscription.id.number(),
            since_ms: date::to_ms(subscription.since),
            channel: subscription.pattern.channel.as_deref(),
            topic: subscription.pattern.topic.as_deref(),
            subtopic: subscription.pattern.subtopic.as_deref(),
            handler: match &subscription.role {
                Role::Subscriber => None,
                Role::Handler { answers, ordered, replies } => {
                    let replies = replies.iter().map(|(one, two)| (&**one, &**two)).collect();
                    Some(Handler { answers: *answers, ordered: *ordered, replies })
                }
            },
            group: subscription.group.as_deref(),
            observes: match &subscription.observes {
                None => Watched::Nobody,
                Some(Observes::User(user)) => Watched::User(user),
                Some(Observes::All) => Watched::All,
            },
        }
    }

    pub(in crate::router) fn pattern(&self) -> Pattern {
        let part = |part: Option<&str>| part.map(Box::from);
        Pattern { channel: part(self.channel), topic: part(self.topic), subtopic: part(self.subtopic) }
    }

    pub(in crate::router) fn role(&self) -> Role {
        match &self.handler {
            None => Role::Subscriber,
            Some(Handler { answers, ordered, replies }) => Role::Handler {
                answers: *answers,
                ordered: *ordered,
                replies: replies.iter().map(|(one, two)| ((*one).to_owned(), (*two).to_owned())).collect(),
            },
        }
    }

    pub(in crate::router) fn observes(&self) -> Option<Observes> {
        match self.observes {
            Watched::Nobody => None,
            Watched::User(user) => Some(Observes::User(Box::from(user))),
            Watched::All => Some(Observes::All),
        }
    }
}

impl<'a> Entry<'a> {
    pub(in crate::router) fn new(frame: &'a Frame, on_full: OnFull, kind: Kind) -> Self {
        let kind = match kind {
            Kind::Event => 0,
            Kind::Request => 1,
            Kind::Other => 2,
        };
        Self { text: frame.text(), drops: on_full == OnFull::Drop, kind, secret: frame.is_secret() }
    }

    pub(in crate::router) fn frame(&self) -> Frame {
        Frame::join(&[self.text], self.secret)
    }

    pub(in crate::router) fn on_full(&self) -> OnFull {
        if self.drops { OnFull::Drop } else { OnFull::Close }
    }

    pub(in crate::router) fn kind(&self) -> Kind {
        match self.kind {
            0 => Kind::Event,
            1 => Kind::Request,
            _ => Kind::Other,
        }
    }
}
