//! [`Inbox`]: what one connection has still to read, and what it has read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use super::history::{DueReplay, Told};
use super::model::ConnId;

/// Owed frames and read ones.
#[derive(Default)]
pub(super) struct Inbox {
    /// Everything that was pushed has been read.
    pub(super) is_read: bool,
    /// Numbers of the events and answers that have to come.
    pub(super) owed: BTreeSet<u64>,
    /// Events of logs that have to come, in their order.
    pub(super) replays: VecDeque<DueReplay>,
    /// Retained values that have to come.
    pub(super) retained: Vec<DueValue>,
    /// Words of the broker itself that have to come.
    pub(super) due: Vec<Due>,
    /// Numbers of the live events that have arrived.
    pub(super) read: BTreeSet<u64>,
    /// The last event of each publisher.
    pub(super) last_of: BTreeMap<ConnId, u64>,
    /// The last live event of each triple.
    pub(super) last_on: BTreeMap<[String; 3], u64>,
    /// Events that a full queue lost, as the broker said.
    pub(super) dropped: usize,
}

/// A retained value that has to come, unless it is replaced or its subscription ends before.
#[derive(Clone, Debug)]
pub(super) struct DueValue {
    pub(super) n: u64,
    /// How far the world was when it was asked for.
    pub(super) asked_at: u64,
    /// The subscription that brings it.
    pub(super) subscription: String,
}

/// Words of the broker that have to come.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// The triple.
    pub(super) on: String,
    pub(super) in_reply_to: Option<String>,
    pub(super) what: What,
}

/// What they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Done,
    Refused(&'static str),
    /// One or the other: the model cannot tell.
    DoneOr(&'static str),
    /// A receipt, with as many receivers, and the event's place in a log.
    Receipt(RangeInclusive<usize>, Option<u64>),
    /// The receipt of an event that was sent before: as many receivers, and the place of the first one.
    Duplicate(RangeInclusive<usize>, u64),
    /// A subscription, and where its log is.
    Subscribed(Option<Told>),
    /// A session joined or left.
    Presence {
        session: String,
        stage: Stage,
    },
    /// A request that it was given is over.
    Cancelled,
    Draining,
    /// The proof of the session ends in this number of seconds.
    Expiring {
        seconds: u64,
        /// The session did not end at the same time.
        is_certain: bool,
    },
}

/// Whether a presence event comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is in the queue.
    Pushed,
    /// The queue was over half, so it may be held back. It comes unless the session leaves meanwhile.
    Held,
    /// The session has joined and left, perhaps while both were held back: both come, or none.
    Either,
    /// It may have been held back when its receiver's session ended.
    Maybe,
}

impl Inbox {
    /// The session ends. What may be held back may come, or not.
    pub(super) fn ends(&mut self) {
        for due in &mut self.due {
            if let What::Presence { stage, .. } = &mut due.what
                && *stage != Stage::Pushed
            {
                *stage = Stage::Maybe;
            }
        }
    }
}

impl Due {
    /// On `Broker/topic/subtopic`.
    pub(super) fn on_broker(topic: &str, subtopic: &str, in_reply_to: Option<String>, what: What) -> Self {
        Self { on: format!("Broker/{topic}/{subtopic}"), in_reply_to, what }
    }

    /// `Broker/Message/Error`
    pub(super) fn error(in_reply_to: Option<String>, code: &'static str) -> Self {
        Self::on_broker("Message", "Error", in_reply_to, What::Refused(code))
    }
}
