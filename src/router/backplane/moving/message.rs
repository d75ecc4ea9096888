//! What nodes say to each other while a session moves from one to another.

use serde::{Deserialize, Serialize};

use super::parts::{Counts, Entry, Part, Question, Reached, TurnOf};
use crate::router::backplane::message::Id;
use crate::router::resume::ResumeReason;

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
    Hold { request: Key },
    /// It does. Everything that the session replied before has been sent.
    Held { request: Key },
    /// The request stays where it is. What has waited goes back to the sender.
    Release { request: Key },
    /// The receiver's session asked this request. Its handler is at another node now.
    Rebind {
        request: Key,
        /// Its number at the receiver.
        part: u64,
        node: &'a str,
    },
    /// The answer to `Rebind`: whether the requester's node expects the answers from there from now on.
    Rebound { request: Key, part: u64, is_done: bool },
    /// The receiver has the session that handles this request of the sender's.
    Handle(#[serde(borrow)] Handle<'a>),
}

/// A request that a session was given in a leg that has ended, by the number of the id by which the session knows it.
pub(in crate::router) type Key = (Leg, u64);

/// All that the node of a handler has to know of a request that the handler has already. It is without its text.
#[derive(Serialize, Deserialize)]
pub(in crate::router) struct Handle<'a> {
    pub(in crate::router) request: Key,
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

impl Leg {
    /// The leg before this one, which the session had at the node from which it came. `None`: this is the first one.
    pub(in crate::router) fn before(self) -> Option<Self> {
        Some(Self { number: self.number.checked_sub(1)?, ..self })
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
