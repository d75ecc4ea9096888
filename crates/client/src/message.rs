//! [`Message`], an envelope from the broker, and [`Payload`], the content of one to the broker.
//!
//! Payloads are passed on byte for byte in both directions. They are never printed, because one can hold a password.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::{Error, Failure, Position};
use wire::{DecodeLimits, Envelope, Triple, check_part, decode};

/// An envelope from the broker. Cheap to clone. `Debug` shows its triple and source, never its payload.
#[derive(Clone)]
pub struct Message {
    parts: Arc<Parts>,
    /// Whether it moves the position of the subscription that it is passed to.
    moves_position: bool,
}

/// The envelope's text and what the decoder found in it.
struct Parts {
    text: Utf8Bytes,
    triple: Triple<'static>,
    source: Option<String>,
    user: Option<String>,
    id: Option<String>,
    in_reply_to: Option<String>,
    request_id: Option<String>,
    timeout: Option<Duration>,
    more: bool,
    retained: bool,
    position: Option<Position>,
    replayed: bool,
    /// Where the payload is in `text`.
    payload: Option<Range<usize>>,
    /// Only for requests: cancelled when the requester cancels or leaves, or when the session ends.
    cancelled: CancellationToken,
}

impl Message {
    /// Reads a text message from the broker.
    ///
    /// # Errors
    /// [`Error::Protocol`]: the text is not an envelope.
    pub(super) fn read(text: Utf8Bytes) -> Result<Self, Error> {
        let envelope = decode(&text, DecodeLimits::OWN)
            .map_err(|malformed| Error::Protocol(format!("not an envelope: {}", malformed.refusal.message)))?;
        let owned = |field: Option<&str>| field.map(str::to_owned);
        let parts = Parts {
            triple: envelope.triple().to_owned(),
            source: owned(envelope.source()),
            user: owned(envelope.user()),
            id: owned(envelope.id()),
            in_reply_to: owned(envelope.in_reply_to()),
            request_id: owned(envelope.request_id()),
            timeout: envelope.timeout_ms().map(Duration::from_millis),
            more: envelope.more(),
            retained: envelope.retained(),
            position: envelope
                .epoch()
                .zip(envelope.offset())
                .map(|(epoch, offset)| Position { epoch: epoch.to_owned(), offset }),
            replayed: envelope.replayed(),
            payload: payload_span(&envelope),
            cancelled: CancellationToken::new(),
            text,
        };
        Ok(Self { parts: Arc::new(parts), moves_position: false })
    }

    /// The envelope's JSON text, byte for byte as the broker sent it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.parts.text
    }

    /// The routing key.
    #[must_use]
    pub fn triple(&self) -> &Triple<'static> {
        &self.parts.triple
    }

    /// The application that sent it, verified by the broker. On a reply it is what the handler wrote.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.parts.source.as_deref()
    }

    /// The user whom the envelope concerns. The broker sets it for services and observers, on requests, and on shared
    /// channels.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.parts.user.as_deref()
    }

    /// The publisher's id on an event, the broker's id on a request.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.parts.id.as_deref()
    }

    /// The id of the request or command that it answers.
    #[must_use]
    pub fn in_reply_to(&self) -> Option<&str> {
        self.parts.in_reply_to.as_deref()
    }

    /// On a request: the requester's own id, for handlers that must not carry out a request twice.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.parts.request_id.as_deref()
    }

    /// On a request: how much longer the requester waits.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.parts.timeout
    }

    /// On a reply: whether further replies follow.
    #[must_use]
    pub fn more(&self) -> bool {
        self.parts.more
    }

    /// Whether it is a retained value, sent because of a new subscription.
    #[must_use]
    pub fn retained(&self) -> bool {
        self.parts.retained
    }

    /// The position of an event in its log, if its channel has history.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        self.parts.position.as_ref()
    }

    /// Whether it is an event from a log, sent because a subscription recovered.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.parts.replayed
    }

    /// The JSON text of `data`, or of `message` if there is no `data`.
    #[must_use]
    pub fn payload(&self) -> Option<&str> {
        self.parts.payload.clone().and_then(|span| self.parts.text.get(span))
    }

    /// Deserializes the payload. An absent payload is read as `null`.
    ///
    /// # Errors
    /// Those of serde: the payload has another shape.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.payload().unwrap_or("null"))
    }

    /// The failure in this answer, if its payload has `"Success":false`.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let payload = self.payload().filter(|payload| payload.starts_with('{') && payload.contains("Success"))?;
        let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(payload).ok()?;
        if fields.get("Success")?.get() != "false" {
            return None;
        }
        let text = |key| fields.get(key).and_then(|raw: &&RawValue| serde_json::from_str(raw.get()).ok());
        Some(Failure::from_reply(text("ErrorCode"), text("ErrorMessage"), self.clone()))
    }

    /// Returns whether this session has to answer this envelope.
    ///
    /// An `id` alone does not make a request, because an event can have its publisher's id. `timeout` does: by rule 2.1
    /// of the protocol an envelope with `timeout` is a request, and the broker sets it on every request.
    pub(super) fn is_request(&self) -> bool {
        self.parts.timeout.is_some()
            && self.parts.id.is_some()
            && self.parts.in_reply_to.is_none()
            && !self.parts.triple.is_broker()
    }

    /// Returns a copy for a subscription, whose position it moves or not.
    pub(super) fn for_subscription(&self, moves_position: bool) -> Self {
        Self { parts: Arc::clone(&self.parts), moves_position }
    }

    pub(super) fn moves_position(&self) -> bool {
        self.moves_position
    }

    /// Returns the token that is cancelled with this request.
    pub(super) fn cancellation(&self) -> &CancellationToken {
        &self.parts.cancelled
    }

    /// Returns whether it does not count as a message of a session.
    pub(super) fn is_uncounted(&self) -> bool {
        self.is_notice("Application", "Register") || self.is_notice("Connection", "Replaced")
    }

    /// Returns whether this is the message of the broker with this topic and subtopic.
    pub(super) fn is_notice(&self, topic: &str, subtopic: &str) -> bool {
        let triple = &self.parts.triple;
        triple.is_broker() && triple.topic == topic && triple.subtopic == subtopic
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("triple", &format_args!("{}", self.parts.triple))
            .field("source", &self.parts.source)
            .field("in_reply_to", &self.parts.in_reply_to)
            .field("bytes", &self.parts.text.len())
            .finish_non_exhaustive()
    }
}

/// Where the payload is in the envelope's text.
fn payload_span(envelope: &Envelope<'_>) -> Option<Range<usize>> {
    let payload = envelope.payload()?;
    let start = payload.as_ptr().addr() - envelope.text().as_ptr().addr();
    Some(start..start + payload.len())
}

/// The payload of an envelope: JSON, or nothing.
///
/// Use `into()` for a [`serde_json::Value`], [`Payload::of`] for any serializable value, [`Payload::json`] for JSON
/// text, and `()` for no payload. There is no `Debug`, because a payload can hold a password.
#[derive(Clone, Default)]
pub struct Payload {
    json: Option<Box<RawValue>>,
    /// Whether its field is `message`, not `data`.
    in_message: bool,
}

impl Payload {
    /// Serializes a value.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the value cannot be written as JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, Error> {
        serde_json::value::to_raw_value(value)
            .map(Self::from)
            .map_err(|_| Error::Invalid("the payload cannot be written as JSON".into()))
    }

    /// Takes JSON text, which is passed on byte for byte without the white space around it.
    ///
    /// # Errors
    /// [`Error::Invalid`], which says where the text stops being JSON.
    pub fn json(text: String) -> Result<Self, Error> {
        RawValue::from_string(text)
            .map(Self::from)
            .map_err(|error| Error::Invalid(format!("not JSON (line {}, column {})", error.line(), error.column())))
    }

    /// Sends the payload in the envelope's field `message` instead of `data`, for receivers that read only that field.
    #[must_use]
    pub fn in_message(self) -> Self {
        Self { in_message: true, ..self }
    }
}

impl From<()> for Payload {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Box<RawValue>> for Payload {
    fn from(raw: Box<RawValue>) -> Self {
        Self { json: Some(raw), in_message: false }
    }
}

impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Self {
        // Cannot fail: a `Value` has string keys and finite numbers only.
        Self { json: serde_json::value::to_raw_value(&value).ok(), in_message: false }
    }
}

/// An envelope to the broker.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the wire has five independent flags")]
pub(super) struct Outgoing<'a> {
    pub(super) channel: &'a str,
    pub(super) topic: &'a str,
    pub(super) subtopic: &'a str,
    pub(super) source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) gather: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) idempotent: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) retain: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) once: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a RawValue>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(triple: &'a Triple<'_>, source: &'a str, payload: &'a Payload) -> Self {
        let json = payload.json.as_deref();
        let (data, message) = if payload.in_message { (None, json) } else { (json, None) };
        Self {
            channel: &triple.channel,
            topic: &triple.topic,
            subtopic: &triple.subtopic,
            source,
            data,
            message,
            ..Self::default()
        }
    }

    /// Returns the text for the wire.
    pub(super) fn text(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|_| Error::Invalid("the envelope cannot be written as JSON".into()))
    }
}

/// Checks a triple before it is sent. The broker would refuse it too, but its answer to an event without an id has no
/// `inReplyTo`, so the caller would never see it.
pub(super) fn check_triple(triple: &Triple<'_>) -> Result<(), Error> {
    for (name, part) in [("channel", &triple.channel), ("topic", &triple.topic), ("subtopic", &triple.subtopic)] {
        check_part(part).map_err(|fault| Error::Invalid(format!("the {name} {fault}")))?;
    }
    if triple.is_broker() {
        return Err(Error::Invalid("the channel 'Broker' is reserved for the broker".into()));
    }
    Ok(())
}
