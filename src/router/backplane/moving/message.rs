//! What nodes say to each other while a session moves from one to another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::Pattern;
use wire::command::Role;

use crate::router::backplane::message::Id;
use crate::router::history::Position;
use crate::router::index::{Observes, Subscription};
use crate::router::outbox::{Kind, OnFull};
use crate::router::request::turn_elsewhere::TurnFact;
use crate::router::resume::ResumeReason;
use crate::router::{RequestId, SubscriptionId};
use crate::websocket::Frame;

/// What a session is on one node. It has another leg for each move, so one that returns to a node is told from what it was
/// there before. Between the two nodes of a move, the name is that of the leg that ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::router) struct Leg {
    pub(in crate::router) session: Id,
    /// How often the session had moved before.
    pub(in crate::router) number: u64,
}

/// A message about one session that moves. No `Debug`: a text may hold a password.
#[derive(Serialize, Deserialize)]
pub(in crate::router) enum Moving<'a> {
    /// A client has registered here with the token of a session of the receiver.
    Take {
        /// The number of the question.
        ask: u64,
        #[serde(borrow)]
        asked: Asked<'a>,
    },
    /// The session does not move.
    Stays { ask: u64, why: Why },
    /// The session is at this node.
    At { ask: u64, node: &'a str },
    /// Answered with `Fenced`, so that everything before it is known to have arrived.
    Fence { session: Id },
    /// The answer to `Fence`.
    Fenced { session: Id },
    /// A part of the session, answered with `Next`.
    Part {
        ask: u64,
        #[serde(borrow)]
        part: Part<'a>,
    },
    /// The part has arrived.
    Next { ask: u64 },
    /// The last part. The receiver has the session now, and the sender has it no longer.
    Yours {
        ask: u64,
        counts: Counts,
        #[serde(borrow)]
        entries: Vec<Entry<'a>>,
        #[serde(borrow)]
        turns: Vec<TurnOf<'a>>,
    },
    /// The turns of ordered handlers of a session that has gone, whose requests its old node has. All others are over.
    Turns {
        leg: Leg,
        #[serde(borrow)]
        turns: Vec<TurnOf<'a>>,
    },
    /// A message for a session that has moved, which has still reached its old node.
    Relay {
        leg: Leg,
        #[serde(borrow)]
        entry: Entry<'a>,
        /// Its place in a log.
        #[serde(borrow)]
        place: Option<Reached<'a>>,
    },
    /// Where the receiver of the session was in logs when it came: from there on it gives their events itself. The last
    /// message of these says so.
    Begins {
        leg: Leg,
        #[serde(borrow)]
        logs: Vec<Reached<'a>>,
        is_last: bool,
    },
    /// The session has all events of these logs up to these, or they have been relayed.
    Through {
        leg: Leg,
        #[serde(borrow)]
        logs: Vec<Reached<'a>>,
    },
    /// From here on, the sender's events for the session go to its new node. Told to the old node and the new one.
    Cut { session: Id },
    /// Everything of a node that had reached the old node for the session has been relayed. `None`: of the receiver itself.
    Followed { leg: Leg, origin: Option<&'a str> },
    /// Nothing more is relayed except the ends of requests.
    Over { leg: Leg },
    /// No request needs the leg any more, at the sender or before it.
    Idle { leg: Leg },
    /// The sender has forgotten the leg: nothing at all is relayed any more.
    Forgotten { leg: Leg },
    /// The session has sent a reply to a request that it was given at its old node.
    Back {
        leg: Leg,
        /// The request whose turn it was, if the reply does not name it.
        turn: Option<u64>,
        text: &'a str,
    },
    /// The session has cancelled a request that it sent at its old node.
    Cancel { leg: Leg, id: &'a str },
    /// The session has ended at its new node.
    Ended { leg: Leg },
    /// What the session replies to this request does not go back to its old node, the sender, any more: it waits.
    Hold { request: Named },
    /// It does. Everything that the session replied before has been sent.
    Held { request: Named },
    /// The request stays where it is. What has waited goes back to the sender.
    Release { request: Named },
    /// The receiver's session asked this request. Its handler is at another node now.
    Rebind {
        request: Named,
        /// Its number at the receiver.
        part: u64,
        node: &'a str,
    },
    /// The answer to `Rebind`: whether the requester's node expects the answers from there from now on.
    Rebound { request: Named, part: u64, is_done: bool },
    /// The receiver has the session that handles this request of the sender's.
    Handle(#[serde(borrow)] Handle<'a>),
}

/// A request that a session was given before it moved.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct Named {
    /// The leg in which it was given.
    leg: Leg,
    /// The number of the id by which the session knows it.
    number: u64,
}

impl Named {
    pub(in crate::router) fn new((leg, number): (Leg, u64)) -> Self {
        Self { leg, number }
    }

    /// The leg, and the number.
    pub(in crate::router) fn key(self) -> (Leg, u64) {
        (self.leg, self.number)
    }
}

/// All that the node of a handler has to know of a request that the handler has already. It is without its text.
#[derive(Serialize, Deserialize)]
pub(in crate::router) struct Handle<'a> {
    pub(in crate::router) request: Named,
    /// Its number at the requester's node.
    pub(in crate::router) part: u64,
    pub(in crate::router) subscription: u64,
    pub(in crate::router) source: &'a str,
    /// The requester's user.
    pub(in crate::router) asker_user: Option<&'a str>,
    /// The requester's own id.
    pub(in crate::router) asker_id: Option<&'a str>,
    /// The user whom it concerns.
    pub(in crate::router) user: Option<&'a str>,
    pub(in crate::router) triple: [&'a str; 3],
    pub(in crate::router) timeout_ms: u64,
    pub(in crate::router) secret: bool,
}

/// Which session a node asks for, and who its client is.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::router) struct Asked<'a> {
    pub(in crate::router) session: Id,
    /// The number of the token.
    pub(in crate::router) number: u64,
    pub(in crate::router) source: &'a str,
    /// `None`: a service.
    pub(in crate::router) user: Option<&'a str>,
    /// A hash of its permissions.
    pub(in crate::router) permissions: [u8; 32],
}

/// Why a session does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) enum Why {
    Unknown,
    Overflowed,
    Identity,
    Replaced,
}

/// A part of a session.
#[derive(Serialize, Deserialize)]
pub(in crate::router) enum Part<'a> {
    /// The first part; parts before it are void.
    Facts(#[serde(borrow)] Facts<'a>),
    Subscriptions(#[serde(borrow)] Vec<Held<'a>>),
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
pub(in crate::router) struct Held<'a> {
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

impl Leg {
    /// The leg before this one, which the session had at the node from which it came. `None`: this is the first one.
    pub(in crate::router) fn before(self) -> Option<Self> {
        Some(Self { number: self.number.checked_sub(1)?, ..self })
    }
}

impl<'a> Reached<'a> {
    pub(in crate::router) fn new(log: &'a str, position: &'a Position) -> Self {
        Self { log, epoch: &position.epoch, offset: position.offset }
    }

    pub(in crate::router) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: Arc::from(self.epoch) }
    }

    fn len(&self) -> usize {
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

    fn len(&self) -> usize {
        self.triple.iter().flatten().map(|part| part.len()).sum::<usize>() + 40
    }
}

impl Moving<'_> {
    /// The bytes of its texts.
    pub(in crate::router) fn text_len(&self) -> usize {
        let all = |entries: &[Entry<'_>]| entries.iter().map(|entry| entry.text.len() + 16).sum();
        match self {
            Self::Part { part: Part::Entries(entries), .. } => all(entries),
            Self::Yours { entries, turns, .. } => all(entries) + turns.iter().map(TurnOf::len).sum::<usize>(),
            Self::Turns { turns, .. } => turns.iter().map(TurnOf::len).sum(),
            Self::Part { part: Part::Facts(facts), .. } => {
                let of = |it: &Question<'_>| it.id.len() + it.triple.iter().map(|part| part.len()).sum::<usize>() + 16;
                facts.will.map_or(0, str::len) + facts.asked.iter().map(of).sum::<usize>()
            }
            Self::Relay { entry, place, .. } => entry.text.len() + place.as_ref().map_or(0, Reached::len),
            Self::Part { part: Part::Logs(logs), .. } | Self::Begins { logs, .. } | Self::Through { logs, .. } => {
                logs.iter().map(Reached::len).sum()
            }
            Self::Back { text, .. } => text.len(),
            Self::Handle(it) => {
                let known = [it.asker_user, it.asker_id, it.user].into_iter().flatten().chain(it.triple);
                it.source.len() + known.map(|part| part.len() + 16).sum::<usize>()
            }
            _ => 0,
        }
    }
}

impl From<Why> for ResumeReason {
    fn from(why: Why) -> Self {
        match why {
            Why::Unknown => Self::Unknown,
            Why::Overflowed => Self::Overflowed,
            Why::Identity => Self::Identity,
            Why::Replaced => Self::Replaced,
        }
    }
}

impl<'a> Held<'a> {
    pub(in crate::router) fn of(subscription: &'a Subscription) -> Self {
        let since = subscription.since.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            id: subscription.id.number(),
            since_ms: u64::try_from(since.as_millis()).unwrap_or_default(),
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
