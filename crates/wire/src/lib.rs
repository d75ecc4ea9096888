//! The vocabulary of the wire: what a text message says, and the bytes that leave for it.
//!
//! text -> [`Envelope`] (`decode`, one pass that borrows) -> [`command::Command`] or a routed envelope -> [`Splice`]
//! (the fields a broker adds) -> text. Nothing here knows a session, a subscription, a socket or a clock: broker and
//! client share it.

mod decode;
mod scan;
mod splice;
mod triple;

pub mod command;
pub mod error;
pub mod notice;

pub use decode::{DecodeLimits, Malformed, decode};
pub use error::{Close, CloseCode, ErrorCode, Reconnect, Refusal};
pub use splice::Splice;
pub use triple::{BROKER, NAME_BYTES_MAX, NameFault, Pattern, PatternFault, Triple, check_name, check_part, fold};

use std::borrow::Cow;
use std::ops::Range;

/// One envelope as it came: the routing fields, checked, and the text they stand in.
///
/// No `Debug`: the text may hold a password.
#[derive(Clone)]
pub struct Envelope<'a> {
    text: &'a str,
    triple: Triple<'a>,
    fields: Fields<'a>,
    spans: Spans,
    /// Where the text of the last member ends; after it come white space and the closing brace.
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
    retained: bool,
    data: Option<Range<usize>>,
    message: Option<Range<usize>>,
}

/// Where the fields stand that a broker may have to cut out: from the end of the member before to the end of the value.
#[derive(Clone, Default)]
pub(crate) struct Spans {
    id: Option<Range<usize>>,
    in_reply_to: Option<Range<usize>>,
    user: Option<Range<usize>>,
    timeout: Option<Range<usize>>,
    more: Option<Range<usize>>,
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
    /// The text as it came.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The routing key.
    #[must_use]
    pub fn triple(&self) -> &Triple<'a> {
        &self.triple
    }

    /// `source`, where the sender wrote one.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.fields.source.as_deref()
    }

    /// `id`: asks for a receipt, or marks the reply.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.fields.id.as_deref()
    }

    /// `inReplyTo`: makes the envelope a reply.
    #[must_use]
    pub fn in_reply_to(&self) -> Option<&str> {
        self.fields.in_reply_to.as_deref()
    }

    /// `requestId`: the asker's own `id`, on a request as the broker delivers it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.fields.request_id.as_deref()
    }

    /// `user`, where the sender wrote one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.fields.user.as_deref()
    }

    /// `target`: only sessions of this source take part.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.fields.target.as_deref()
    }

    /// `timeout` in milliseconds, at least 1.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<u64> {
        self.fields.timeout
    }

    /// `more`: other replies follow.
    #[must_use]
    pub fn more(&self) -> bool {
        self.fields.more
    }

    /// `gather`: ask every handler.
    #[must_use]
    pub fn gather(&self) -> bool {
        self.fields.gather
    }

    /// `idempotent`: may be given to another handler if the first dies.
    #[must_use]
    pub fn idempotent(&self) -> bool {
        self.fields.idempotent
    }

    /// `retain`: keep as the triple's last value.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.fields.retain
    }

    /// `retained`: a retained value, sent because of a new subscription. Only a broker sets it.
    #[must_use]
    pub fn retained(&self) -> bool {
        self.fields.retained
    }

    /// The text of `data`, or of `message` where there is no `data`; JSON, byte for byte as it came.
    #[must_use]
    pub fn payload(&self) -> Option<&'a str> {
        self.fields.data.clone().or_else(|| self.fields.message.clone()).and_then(|span| self.text.get(span))
    }

    /// Whether there is a payload and it is `null`.
    #[must_use]
    pub fn payload_is_null(&self) -> bool {
        self.payload() == Some("null")
    }

    /// Whether the sender says by a field of its own that this is a request.
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
