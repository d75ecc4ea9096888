//! The wire protocol of switchboard: envelopes, commands, notices and codes.
//!
//! [`decode()`] reads a text message into an [`Envelope`] that borrows from it. On the channel `Broker` it is a
//! [`command::Command`]; every other envelope is routed, and leaves as a [`Splice`] of its text and the fields that the
//! broker sets. Broker and client share this crate, so it has no sessions, subscriptions, sockets or clock.

mod decode;
mod key;
mod scan;
mod splice;
mod trace;
mod triple;

pub mod command;
pub mod error;
pub mod notice;

pub use decode::{DecodeLimits, Malformed, decode};
pub use error::{Close, CloseCode, ErrorCode, Reconnect, Refusal};
pub use splice::Splice;
pub use trace::TraceParent;
pub use triple::{BROKER, NAME_BYTES_MAX, NameFault, Pattern, PatternFault, Triple, check_name, check_part, fold};

use std::borrow::Cow;
use std::ops::Range;

use key::Key;

/// An envelope as it was received: its text, and the routing fields, which are checked.
///
/// It has no `Debug`, because the text may contain a password.
#[derive(Clone)]
pub struct Envelope<'a> {
    text: &'a str,
    triple: Triple<'a>,
    fields: Fields<'a>,
    spans: Spans,
    /// The end of the last member. White space and the closing brace follow.
    body_end: usize,
}

/// The optional fields of an envelope. A flag that is absent is `false`.
#[derive(Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the wire has these flags, independent of each other")]
pub(crate) struct Fields<'a> {
    source: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    in_reply_to: Option<Cow<'a, str>>,
    request_id: Option<Cow<'a, str>>,
    user: Option<Cow<'a, str>>,
    target: Option<Cow<'a, str>>,
    timeout: Option<u64>,
    more: bool,
    gather: bool,
    idempotent: bool,
    retain: bool,
    once: bool,
    retained: bool,
    /// Boxed, because only an envelope from a broker has it.
    logged: Option<Box<Logged<'a>>>,
    data: Option<Range<usize>>,
    message: Option<Range<usize>>,
    /// Boxed, because few envelopes have it.
    trace: Option<Box<TraceParent>>,
}

/// The fields that a broker sets on an event of a channel with history.
#[derive(Clone, Default)]
pub(crate) struct Logged<'a> {
    offset: Option<u64>,
    epoch: Option<Cow<'a, str>>,
    replayed: bool,
}

/// The places of the fields that a broker may have to cut out, each from the end of the previous member to the end of the
/// value. A field that is `null` has a place, too, although it counts as absent.
#[derive(Clone, Default)]
pub(crate) struct Spans {
    id: Option<Range<usize>>,
    in_reply_to: Option<Range<usize>>,
    user: Option<Range<usize>>,
    timeout: Option<Range<usize>>,
    more: Option<Range<usize>>,
    /// `once`, and any other field that is `null`. Nearly always empty.
    others: Vec<(Key, Range<usize>)>,
}

/// A field that a broker replaces or removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `id`
    Id,
    /// `inReplyTo`
    InReplyTo,
    /// `user`
    User,
    /// `timeout`
    Timeout,
    /// `more`
    More,
}

impl<'a> Envelope<'a> {
    /// Returns the text as it was received.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the routing key.
    #[must_use]
    pub fn triple(&self) -> &Triple<'a> {
        &self.triple
    }

    /// Returns `source`, if the sender wrote one.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.fields.source.as_deref()
    }

    /// Returns `id`, which asks for a receipt or marks the reply.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.fields.id.as_deref()
    }

    /// Returns `inReplyTo`, which makes the envelope a reply.
    #[must_use]
    pub fn in_reply_to(&self) -> Option<&str> {
        self.fields.in_reply_to.as_deref()
    }

    /// Returns `requestId`, the requester's own `id`. The broker sets it on a delivered request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.fields.request_id.as_deref()
    }

    /// Returns `user`, if the sender wrote one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.fields.user.as_deref()
    }

    /// Returns `target`. Only sessions of this source take part.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.fields.target.as_deref()
    }

    /// Returns `timeout` in milliseconds, at least 1.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<u64> {
        self.fields.timeout
    }

    /// Returns `more`: further replies follow.
    #[must_use]
    pub fn more(&self) -> bool {
        self.fields.more
    }

    /// Returns `gather`: every handler is asked.
    #[must_use]
    pub fn gather(&self) -> bool {
        self.fields.gather
    }

    /// Returns `idempotent`: the request may be given to a second handler.
    #[must_use]
    pub fn idempotent(&self) -> bool {
        self.fields.idempotent
    }

    /// Returns `retain`: the event is kept as the last value of its triple.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.fields.retain
    }

    /// Returns `once`: the event is delivered at most once, even if it is sent again.
    #[must_use]
    pub fn once(&self) -> bool {
        self.fields.once
    }

    /// Returns `retained`: a retained value, sent because of a new subscription. Only a broker sets it.
    #[must_use]
    pub fn retained(&self) -> bool {
        self.fields.retained
    }

    /// Returns `offset`, the number of an event in its log. Only a broker sets it.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.fields.logged.as_ref()?.offset
    }

    /// Returns `epoch`, the name of the life of the event's log. Only a broker sets it.
    #[must_use]
    pub fn epoch(&self) -> Option<&str> {
        self.fields.logged.as_ref()?.epoch.as_deref()
    }

    /// Returns `replayed`: an event from a log, sent because of a subscription with `recover`. Only a broker sets it.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.fields.logged.as_ref().is_some_and(|logged| logged.replayed)
    }

    /// Returns the JSON text of `data`, or of `message` if there is no `data`. `"data":null` is a payload, too.
    #[must_use]
    pub fn payload(&self) -> Option<&'a str> {
        self.fields.data.clone().or_else(|| self.fields.message.clone()).and_then(|span| self.text.get(span))
    }

    /// Returns whether there is a payload and it is `null`.
    #[must_use]
    pub fn payload_is_null(&self) -> bool {
        self.payload() == Some("null")
    }

    /// Returns `traceparent`, if there is one and it is well-formed. The envelope passes it on as any other unknown field.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceParent> {
        self.fields.trace.as_deref()
    }

    /// Returns whether `timeout`, `gather` or `idempotent` makes the envelope a request.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.fields.timeout.is_some() || self.fields.gather || self.fields.idempotent
    }

    fn span(&self, field: Field) -> Option<Range<usize>> {
        match field {
            Field::Id => self.spans.id.clone(),
            Field::InReplyTo => self.spans.in_reply_to.clone(),
            Field::User => self.spans.user.clone(),
            Field::Timeout => self.spans.timeout.clone(),
            Field::More => self.spans.more.clone(),
        }
    }
}
