//! [`Shown`]: one decision as taps show it.

use std::time::SystemTime;

use serde_json::{Value, json};
use wire::{Envelope, ErrorCode, TraceParent, Triple};

use crate::router::observe::{Kind, Observed};
use crate::router::request::pending::Pending;
use crate::router::session::Session;

/// The longest part of a payload that a line shows, in bytes.
const PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// What a line says.
pub(super) struct Shown<'a> {
    verdict: Kind,
    pub(super) sender: &'a Session,
    pub(super) triple: &'a Triple<'a>,
    /// The user of the sender, or for whom a service sends.
    pub(super) user: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) in_reply_to: Option<&'a str>,
    /// The requester's own id of the request that is answered. A filter finds it, and no line shows it.
    pub(super) answers: Option<&'a str>,
    target: Option<&'a str>,
    pub(super) code: Option<ErrorCode>,
    receivers: usize,
    /// Unless it may not be shown.
    bytes: Option<usize>,
    /// Its place in a log; 0 without one.
    offset: u64,
    trace: Option<&'a TraceParent>,
    /// Unless it may not be shown.
    payload: Option<&'a str>,
}

impl<'a> Shown<'a> {
    /// A message with what became of it.
    pub(super) fn of(sender: &'a Session, envelope: &'a Envelope<'_>, observed: &Observed) -> Self {
        let may_show = !observed.secret;
        Self {
            verdict: if observed.code.is_some() { Kind::Refused } else { observed.kind },
            sender,
            triple: envelope.triple(),
            user: sender.user().or(envelope.user()),
            id: envelope.id(),
            in_reply_to: envelope.in_reply_to(),
            answers: None,
            target: envelope.target(),
            code: observed.code,
            receivers: observed.receivers,
            bytes: may_show.then_some(observed.bytes),
            offset: observed.offset,
            trace: envelope.trace(),
            payload: envelope.payload().filter(|_| may_show),
        }
    }

    /// The answer of a handler inside the process, which is not an envelope. Its payload goes straight into the frame that
    /// leaves, so there is none to show.
    pub(super) fn of_answer(
        handler: &'a Session,
        pending: &'a Pending,
        id: Option<&'a str>,
        code: Option<ErrorCode>,
    ) -> Self {
        Self {
            verdict: Kind::Reply,
            sender: handler,
            triple: &pending.triple,
            user: pending.user.as_deref(),
            id: None,
            in_reply_to: id,
            answers: pending.asker_id.as_deref(),
            target: None,
            code,
            receivers: 1,
            bytes: None,
            offset: 0,
            trace: pending.trace.as_deref(),
            payload: None,
        }
    }

    /// One JSON object.
    pub(super) fn line(&self, at: SystemTime, payloads: bool) -> String {
        let triple = self.triple;
        let payload = self.payload.filter(|_| payloads);
        let mut line = json!({
            "at": humantime::format_rfc3339_micros(at).to_string(),
            "verdict": self.verdict.verdict(),
            "channel": triple.channel,
            "topic": triple.topic,
            "subtopic": triple.subtopic,
            "source": self.sender.source(),
            "session": self.sender.id.to_string(),
            "receivers": self.receivers,
        });
        let Some(fields) = line.as_object_mut() else { return String::new() };
        let text = |text: Option<&str>| text.map(Value::from);
        let cut = payload.map(|payload| payload.floor_char_boundary(PAYLOAD_BYTES_MAX));
        let optional = [
            ("user", text(self.user)),
            ("id", text(self.id)),
            ("inReplyTo", text(self.in_reply_to)),
            ("target", text(self.target)),
            ("bytes", self.bytes.map(Value::from)),
            ("code", text(self.code.map(ErrorCode::as_str))),
            ("offset", (self.offset > 0).then(|| self.offset.into())),
            ("traceparent", self.trace.map(|trace| trace.to_string().into())),
            ("payload", text(payload.zip(cut).and_then(|(payload, cut)| payload.get(..cut)))),
            ("payloadCut", payload.zip(cut).filter(|(payload, cut)| *cut < payload.len()).map(|_| true.into())),
        ];
        fields.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        line.to_string()
    }
}
