//! [`What`]: what an entry is about. [`Entry`]: how a ring keeps it.

use std::time::Instant;

use wire::{ErrorCode, TraceParent, Triple};

use super::{Mark, Pace};
use crate::telemetry::metrics::RequestOutcome;

/// The most bytes that an entry takes, with its texts. Names are apart, once for many entries.
pub(super) const ENTRY_BYTES_MAX: usize = size_of::<Entry>() + ID_BYTES_MAX + TraceParent::BYTES;

const _: () = assert!(ENTRY_BYTES_MAX <= 128);

/// The longest id that is kept whole. Of a longer one, its beginning and a hash of it are kept.
pub(super) const ID_BYTES_MAX: usize = 38;

/// A name that the broker made: of a request, of a subscription.
pub type Name = [u8; 9];

/// Who an entry is about: a session, or a client that has none.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// A number that no other session has; 0 for a client without a session.
    pub number: u64,
    /// The id of the session.
    pub session: [u8; 16],
    /// Its source; of a client without a session, what it says.
    pub source: &'a str,
    /// Its user.
    pub user: Option<&'a str>,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A session has registered.
    Registered,
    /// A session has a new connection.
    Resumed,
    /// A session has subscribed.
    Subscribed {
        /// The name of the subscription.
        name: Name,
        /// It is a handler's.
        is_handler: bool,
    },
    /// A subscription has ended before its session.
    Unsubscribed {
        /// The name of the subscription.
        name: Name,
        /// Why.
        why: SubscriptionEnd,
    },
    /// Something was refused.
    Refused(ErrorCode),
    /// A request has ended.
    Request {
        /// The broker's id of it; of a request that needed none, zeros.
        name: Name,
        /// How it ended.
        outcome: RequestOutcome,
        /// The code that its requester was told.
        code: Option<ErrorCode>,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// The state of a session has changed.
    State(&'static str),
    /// A session has ended.
    Closed {
        /// The status code of its connection's Close frame.
        code: Option<u16>,
        /// Why.
        why: &'static str,
    },
    /// An event was published.
    Event {
        /// In how many outbound queues it is.
        receivers: u32,
        /// The length of its text; `u32::MAX` if its triple is protected.
        bytes: u32,
        /// Its place in the log of its channel; 0 without a log.
        offset: u64,
        /// It was sent before, so it was not delivered again.
        is_duplicate: bool,
    },
    /// A session had more entries in a second than are kept.
    LeftOut {
        /// How many are left out.
        count: u32,
        /// The second, counted from the start.
        second: u32,
    },
}

impl What {
    /// The word for it in every answer.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Resumed => "resumed",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Refused(_) => "refused",
            Self::Request { .. } => "request",
            Self::State(_) => "state",
            Self::Closed { .. } => "closed",
            Self::Event { .. } => "event",
            Self::LeftOut { .. } => "left_out",
        }
    }
}

/// Why a subscription ended before its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionEnd {
    /// Its session wished it.
    Unsubscribed,
    /// A new proof does not allow it.
    Renewed,
    /// A reload does not allow it.
    Reloaded,
    /// A reload has changed the scope of its channel.
    Scope,
}

impl SubscriptionEnd {
    /// The word for it in every answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsubscribed => "unsubscribed",
            Self::Renewed => "renewed",
            Self::Reloaded => "reloaded",
            Self::Scope => "scope",
        }
    }
}

/// Who sends an event. Its names are asked for only where they are not known yet.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    /// The number of its session.
    pub number: u64,
    /// Counts its entries.
    pub pace: &'a Pace,
    /// Its names.
    pub who: &'a dyn Fn() -> Who<'a>,
}

/// An event that is to be recorded.
pub struct Published<'a> {
    /// Its triple.
    pub triple: &'a Triple<'a>,
    /// The mark of its triple, if it is known.
    pub mark: Option<Mark>,
    /// The sender's own id.
    pub id: Option<&'a str>,
    /// In how many outbound queues it is.
    pub receivers: usize,
    /// The length of its text; `None` if its triple is protected.
    pub bytes: Option<usize>,
    /// Its place in the log of its channel; 0 without a log.
    pub offset: u64,
    /// It was sent before, so it was not delivered again.
    pub is_duplicate: bool,
}

impl<'a> Published<'a> {
    /// The record of it.
    pub(super) fn record(&self, who: Who<'a>) -> Record<'a> {
        Record { triple: Some(self.triple), id: self.id, ..Record::of(who, self.what()) }
    }

    /// What its entry says. Numbers that are too large become the largest.
    pub(super) fn what(&self) -> What {
        let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let Self { receivers, bytes, offset, is_duplicate, .. } = *self;
        What::Event { receivers: number(receivers), bytes: bytes.map_or(u32::MAX, number), offset, is_duplicate }
    }
}

/// What is to be recorded.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Who it is about.
    pub who: Who<'a>,
    /// The other session, for example the handler of a request.
    pub peer: Option<Who<'a>>,
    /// The triple, or the pattern.
    pub triple: Option<&'a Triple<'a>>,
    /// The sender's own id.
    pub id: Option<&'a str>,
    /// The trace that it belongs to.
    pub trace: Option<&'a TraceParent>,
    /// What happened.
    pub what: What,
}

impl<'a> Record<'a> {
    /// A record about a session, and nothing else.
    pub fn of(who: Who<'a>, what: What) -> Self {
        Self { who, peer: None, triple: None, id: None, trace: None, what }
    }
}

/// The place of nothing in a table of names.
pub(super) const NOWHERE: u32 = u32::MAX;

/// One entry of a segment. Its names are places in the tables of that segment.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) at: Instant,
    pub(super) who: u32,
    pub(super) peer: u32,
    pub(super) triple: u32,
    /// Where its id begins in the texts of the segment. A trace follows it.
    pub(super) text: u32,
    pub(super) id_len: u8,
    pub(super) has_trace: bool,
    pub(super) what: What,
}
