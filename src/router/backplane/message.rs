//! What nodes say to each other: the content of link messages, version 1.
//!
//! A message is written with postcard: fields in order, lengths before texts, no names. A changed type here
//! is another version of the link protocol.

use serde::{Deserialize, Serialize};
use wire::{Pattern, command};
use zeroize::Zeroizing;

use super::load::Load;
use super::moving::message::Moving;
use super::narrowing::Narrowing;
use crate::router::history::Position;

/// The bytes of a message beside its longest text.
const ROOM: usize = 2048;

/// One message on a link. No `Debug`: a text may hold a password.
#[derive(Serialize, Deserialize)]
pub(in crate::router) enum Message<'a> {
    /// Everything that the sender announces. What it announced before is void.
    Snapshot {
        #[serde(borrow)]
        changes: Vec<Change<'a>>,
    },
    /// One change of what the sender announces.
    Change(#[serde(borrow)] Change<'a>),
    /// An event, for the sessions of the receiving node that match it.
    Event(#[serde(borrow)] Sent<'a>),
    /// An event, for one member of a group.
    Grouped {
        /// The member's subscription.
        subscription: u64,
        group: &'a str,
        #[serde(borrow)]
        event: Sent<'a>,
    },
    /// An event for a member of a group that has gone, and no other member at its node takes it.
    Returned {
        /// The group: the subscription that was chosen may have gone meanwhile.
        group: &'a str,
        #[serde(borrow)]
        event: Sent<'a>,
    },
    /// A request for one handler.
    Request(#[serde(borrow)] Request<'a>),
    /// The session that a request was meant for has gone, or may not have it.
    Gone(Part),
    /// A reply, as the requester is to get it.
    Answer {
        part: Part,
        /// The number of the session that replies, for its own node.
        sender: u64,
        /// Other replies follow.
        more: bool,
        text: &'a str,
    },
    /// A request has failed at the handler's node.
    Failed {
        part: Part,
        /// Its code, as on the wire.
        code: &'a str,
        words: &'a str,
    },
    /// The requester no longer waits.
    Cancel {
        part: Part,
        /// Its time limit is over: the handler is late.
        late: bool,
    },
    /// How many requests handlers of the sender have.
    Loads(Vec<Load>),
    /// A message of a session has filled the queue of a session over half.
    Pressed {
        /// The number of the session that sent the message.
        sender: u64,
        receiver: Id,
    },
    /// A queue over half of which was told is under half.
    Relieved { receiver: Id },
    /// A message of the program, which is not about sessions.
    Control(#[serde(borrow)] &'a [u8]),
    /// A retained event that the bucket has with this revision.
    Retained {
        revision: u64,
        /// Sessions that match it are to receive it. Otherwise it is only kept.
        is_event: bool,
        /// A service sent it, or an adapter.
        by_service: bool,
        #[serde(borrow)]
        event: Sent<'a>,
    },
    /// The bucket has cleared a value with this revision, for an operator.
    Cleared {
        revision: u64,
        /// To whom it belonged; `None`: a shared channel.
        user: Option<&'a str>,
        /// Canonical, with slashes.
        triple: &'a str,
        target: Option<&'a str>,
    },
    /// The bucket has something that was not sent.
    ReadValues,
    /// Records of another system have changed, or may have.
    RecordsChanged {
        /// The API name of the change event; `None`: of any object.
        event: Option<&'a str>,
    },
    /// The sender claims a lease that the receiver has. Is its session away?
    AskLease {
        /// The claim of the sender.
        claim: u64,
        #[serde(borrow)]
        lease: LeaseOf<'a>,
    },
    /// The answer.
    Lease {
        claim: u64,
        #[serde(borrow)]
        lease: LeaseOf<'a>,
        answer: LeaseGiven,
    },
    /// Nothing. That it is acknowledged shows that what precedes it is in force.
    Mark,
    /// A session moves from one node to another.
    Moving(#[serde(borrow)] Moving<'a>),
    /// A question about sessions of the receiver, or an order to close some.
    Ask {
        /// The number that the asker gave it.
        ask: u64,
        #[serde(borrow)]
        question: Question<'a>,
    },
    /// The answer.
    Told {
        ask: u64,
        #[serde(borrow)]
        answer: Answer<'a>,
    },
}

/// What a node asks another one for an operator, or for a session that asks why others do not get what it sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::router) enum Question<'a> {
    /// What would become of an envelope at some sessions.
    Explain(#[serde(borrow)] Explain<'a>),
    /// Close the sessions that have all of what is given.
    Close { source: Option<&'a str>, user: Option<&'a str>, session: Option<&'a str>, reason: &'a str, reconnect: bool },
}

/// A question about an envelope that the node which asks has decided on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::router) struct Explain<'a> {
    /// The sessions. Empty: there is none of this source; then it is asked how the last one ended.
    pub(in crate::router) sessions: Vec<Id>,
    pub(in crate::router) source: &'a str,
    /// The user that was asked about.
    pub(in crate::router) about_user: Option<&'a str>,
    /// The user whom the envelope concerns.
    pub(in crate::router) user: Option<&'a str>,
    pub(in crate::router) is_request: bool,
    /// It is an event that is not refused, so matching sessions get it.
    pub(in crate::router) delivers: bool,
    /// The envelope.
    pub(in crate::router) text: &'a str,
}

/// What a node answers to a [`Question`].
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::router) enum Answer<'a> {
    /// In JSON, as the admin API prints it.
    Explained(&'a [u8]),
    /// How many sessions were closed.
    Closed(u64),
}

/// Whether a node has given a lease up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) enum LeaseGiven {
    /// It has, with all of its claims up to this one.
    Up { claims: u64 },
    /// It has not: a session registered at this time, in milliseconds since 1970.
    No { since_ms: u64 },
}

/// The lease of an exclusive source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct LeaseOf<'a> {
    /// `None`: a service's.
    pub(in crate::router) user: Option<&'a str>,
    pub(in crate::router) source: &'a str,
}

/// A session, by its id on the wire.
pub(in crate::router) type Id = [u8; 16];

/// A request that one handler was given: the parts of a gather share a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::router) struct Part {
    /// The id that the requester's node made.
    pub(in crate::router) request: u64,
    /// The handler's session.
    pub(in crate::router) handler: Id,
}

/// An event on its way between nodes.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::router) struct Sent<'a> {
    /// The number of the session that published it, for its own node; 0: none that could wait.
    pub(in crate::router) sender: u64,
    /// The application that published it.
    pub(in crate::router) source: &'a str,
    pub(in crate::router) scope: SentScope<'a>,
    /// As its publisher sent it.
    pub(in crate::router) text: &'a str,
    /// Its place in a log, if its channel has history.
    #[serde(borrow)]
    pub(in crate::router) place: Option<Place<'a>>,
}

/// The place of an event in a log, as the stream has decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct Place<'a> {
    pub(in crate::router) offset: u64,
    pub(in crate::router) epoch: &'a str,
    /// The sender appended the event before it, too.
    pub(in crate::router) follows: bool,
    /// It is one of the copies of an adapter's event for all users.
    pub(in crate::router) to_all: bool,
}

impl Place<'_> {
    pub(in crate::router) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch.into() }
    }
}

/// The place of an event as it crosses a link.
pub(in crate::router) fn placed(position: &Position, follows: bool, to_all: bool) -> Place<'_> {
    Place { offset: position.offset, epoch: &position.epoch, follows, to_all }
}

/// The users whom an event concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) enum SentScope<'a> {
    /// Of a user-scoped channel: one user's.
    User(&'a str),
    /// Of a shared channel, sent by or for this user.
    Shared(Option<&'a str>),
    /// Of a user-scoped channel: every user's.
    All,
    /// The same, for services and observers of all users alone: users get copies that are in their logs.
    Watchers,
}

/// A request on its way to a handler of another node.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::router) struct Request<'a> {
    pub(in crate::router) part: Part,
    /// The handler's subscription.
    pub(in crate::router) subscription: u64,
    /// The number of the session that asks, for its own node.
    pub(in crate::router) sender: u64,
    /// The application that asks.
    pub(in crate::router) source: &'a str,
    /// The user whose application asks; `None`: a service.
    pub(in crate::router) asker_user: Option<&'a str>,
    /// The user whom it concerns.
    pub(in crate::router) user: Option<&'a str>,
    /// How long the requester still waits, in milliseconds.
    pub(in crate::router) timeout_ms: u64,
    /// As its requester sent it.
    pub(in crate::router) text: &'a str,
}

/// A change of what a node announces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::router) enum Change<'a> {
    /// Whether events of this user are wanted.
    User { user: &'a str, wanted: bool },
    /// Whether events of this channel are wanted: of a shared one, or those of all users. `*` stands for every channel.
    Channel { channel: &'a str, shared: bool, wanted: bool },
    /// A session registered.
    Joined(#[serde(borrow)] Application<'a>),
    /// A session has ended.
    Left { session: Id },
    /// How a session is.
    State { session: Id, state: State },
    /// What a session may receive by its subscriptions that other nodes choose. Without it: everything.
    Narrowed {
        session: Id,
        #[serde(borrow)]
        narrowing: Narrowing<'a>,
    },
    /// A session subscribed as a handler, or as a member of a group.
    Subscribed(#[serde(borrow)] Subscribed<'a>),
    /// Such a subscription has ended.
    Unsubscribed { session: Id, subscription: u64 },
    /// A session has arrived from another node, with those of its subscriptions that other nodes choose.
    Moved {
        /// The node where it was.
        from: &'a str,
        #[serde(borrow)]
        application: Application<'a>,
        #[serde(borrow)]
        subscribed: Vec<Subscribed<'a>>,
    },
}

/// A registered session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct Application<'a> {
    pub(in crate::router) session: Id,
    pub(in crate::router) source: &'a str,
    /// `None`: a service.
    pub(in crate::router) user: Option<&'a str>,
    /// When it registered, in milliseconds since 1970.
    pub(in crate::router) since_ms: u64,
    pub(in crate::router) state: State,
}

/// How a session is, as far as others choose by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct State {
    pub(in crate::router) asleep: bool,
    /// It let a request time out, and has not answered since.
    pub(in crate::router) late: bool,
    /// Since when it has had no connection, in milliseconds since 1970; `None`: it has one.
    pub(in crate::router) away_since_ms: Option<u64>,
}

/// A subscription that other nodes choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct Subscribed<'a> {
    pub(in crate::router) session: Id,
    pub(in crate::router) id: u64,
    pub(in crate::router) channel: Option<&'a str>,
    pub(in crate::router) topic: Option<&'a str>,
    pub(in crate::router) subtopic: Option<&'a str>,
    /// A handler that answers, or one that does not; `None`: a subscriber.
    pub(in crate::router) answers: Option<bool>,
    pub(in crate::router) group: Option<&'a str>,
    /// The user whom it observes; `*`: all.
    pub(in crate::router) observes: Option<&'a str>,
}

impl Subscribed<'_> {
    pub(in crate::router) fn pattern(&self) -> Pattern {
        let part = |part: Option<&str>| part.map(Box::from);
        Pattern { channel: part(self.channel), topic: part(self.topic), subtopic: part(self.subtopic) }
    }

    /// The role as other nodes see it: which requests an ordered handler has is known where it is.
    pub(in crate::router) fn role(&self) -> command::Role {
        match self.answers {
            Some(answers) => command::Role::Handler { answers, ordered: false, replies: Vec::new() },
            None => command::Role::Subscriber,
        }
    }
}

impl Message<'_> {
    /// Writes the message. It may hold a password.
    pub(in crate::router) fn write(&self) -> Zeroizing<Vec<u8>> {
        let text = match self {
            Self::Event(event)
            | Self::Grouped { event, .. }
            | Self::Returned { event, .. }
            | Self::Retained { event, .. } => event.text.len(),
            Self::Request(request) => request.text.len(),
            Self::Answer { text, .. } => text.len(),
            Self::Snapshot { .. }
            | Self::Change(_)
            | Self::Gone(_)
            | Self::Failed { .. }
            | Self::Cancel { .. }
            | Self::Loads(_)
            | Self::Pressed { .. }
            | Self::Relieved { .. }
            | Self::Cleared { .. }
            | Self::ReadValues
            | Self::RecordsChanged { .. }
            | Self::AskLease { .. }
            | Self::Lease { .. }
            | Self::Ask { question: Question::Close { .. }, .. }
            | Self::Told { answer: Answer::Closed(_), .. }
            | Self::Mark => 0,
            Self::Control(bytes) | Self::Told { answer: Answer::Explained(bytes), .. } => bytes.len(),
            Self::Moving(moving) => moving.text_len(),
            Self::Ask { question: Question::Explain(Explain { sessions, text, .. }), .. } => {
                text.len() + sessions.len() * size_of::<Id>()
            }
        };
        // Never grown where a text may be secret, which would leave a copy behind.
        let buffer = Vec::with_capacity(text + ROOM);
        Zeroizing::new(postcard::to_extend(self, buffer).unwrap_or_default())
    }

    /// Reads a message; `None` for anything else. What it borrows is in `bytes`.
    pub(in crate::router) fn read(bytes: &[u8]) -> Option<Message<'_>> {
        postcard::from_bytes(bytes).ok()
    }
}
