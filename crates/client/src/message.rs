//! [`Message`]: an envelope as it came from the broker. [`Payload`]: what an application puts into one.
//!
//! Payloads pass byte for byte both ways; nothing here prints them, because one may hold a password.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::{Error, Failure};
use wire::{Triple, check_part};

/// An envelope from the broker. Cheap to clone; `Debug` shows where it belongs, never its payload.
#[derive(Clone)]
pub struct Message(Arc<Parts>);

struct Parts {
    text: Utf8Bytes,
    triple: Triple<'static>,
    source: Option<String>,
    user: Option<String>,
    id: Option<String>,
    in_reply_to: Option<String>,
    request_id: Option<String>,
    timeout: Option<u64>,
    more: bool,
    retained: bool,
    payload: Option<Range<usize>>,
    /// Of a request: tells its handler that nobody waits for the answer any longer.
    cancelled: CancellationToken,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    subtopic: Cow<'a, str>,
    source: Option<String>,
    user: Option<String>,
    id: Option<String>,
    in_reply_to: Option<String>,
    request_id: Option<String>,
    timeout: Option<u64>,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    retained: bool,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    message: Option<&'a RawValue>,
}

/// A field that is there, `null` included: serde would read an optional `null` as an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Message {
    /// Reads a text message of the broker, who sends fields that no application may.
    pub(super) fn read(text: Utf8Bytes) -> Result<Self, Error> {
        // serde's words may quote what they could not read, so only the place is told.
        let head: Head<'_> = serde_json::from_str(&text)
            .map_err(|error| Error::Protocol(format!("no envelope: broken at column {}", error.column())))?;
        let payload = head.data.or(head.message).map(|raw| {
            let start = raw.get().as_ptr() as usize - text.as_str().as_ptr() as usize;
            start..start + raw.get().len()
        });
        let triple = Triple::new(head.channel, head.topic, head.subtopic).to_owned();
        let Head { source, user, id, in_reply_to, request_id, timeout, more, retained, .. } = head;
        Ok(Self(Arc::new(Parts {
            text,
            triple,
            source,
            user,
            id,
            in_reply_to,
            request_id,
            timeout,
            more,
            retained,
            payload,
            cancelled: CancellationToken::new(),
        })))
    }

    /// The envelope's JSON text, byte for byte as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The routing key.
    #[must_use]
    pub fn triple(&self) -> &Triple<'static> {
        &self.0.triple
    }

    /// The application that sent it, which the broker has verified; replies bear what their handler wrote.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.0.source.as_deref()
    }

    /// Whose envelope it is, as the broker tells services and observers.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// The publisher's id of an event, the broker's of a request.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// What it is an answer to.
    #[must_use]
    pub fn in_reply_to(&self) -> Option<&str> {
        self.0.in_reply_to.as_deref()
    }

    /// On a request: the asker's own id, for handlers that must not do a thing twice.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// On a request: how long the asker will wait from now on.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.0.timeout.map(Duration::from_millis)
    }

    /// On a reply: whether others follow.
    #[must_use]
    pub fn more(&self) -> bool {
        self.0.more
    }

    /// Whether it is a kept value, delivered because of a new subscription.
    #[must_use]
    pub fn retained(&self) -> bool {
        self.0.retained
    }

    /// The JSON text of `data`, or of `message` where there is no `data`.
    #[must_use]
    pub fn payload(&self) -> Option<&str> {
        self.0.payload.clone().and_then(|span| self.0.text.get(span))
    }

    /// The payload as a type; an absent payload reads like `null`.
    ///
    /// # Errors
    /// serde's: the payload has another shape.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.payload().unwrap_or("null"))
    }

    /// The failure that this answer is, if its payload says `"Success":false`.
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

    /// Whether this is a request that this session has to answer.
    ///
    /// An event may bear its publisher's `id`, so the id alone says nothing. An envelope that bears `timeout` is a
    /// request by the protocol's second rule and never an event, and the broker gives every request one.
    pub(super) fn is_request(&self) -> bool {
        self.0.timeout.is_some() && self.0.id.is_some() && self.0.in_reply_to.is_none() && !self.0.triple.is_broker()
    }

    /// The token of a request, cancelled when nobody waits for the answer any longer.
    pub(super) fn cancellation(&self) -> &CancellationToken {
        &self.0.cancelled
    }

    /// Whether the broker itself says this.
    pub(super) fn is_notice(&self, topic: &str, subtopic: &str) -> bool {
        let triple = &self.0.triple;
        triple.is_broker() && triple.topic == topic && triple.subtopic == subtopic
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("triple", &format_args!("{}", self.0.triple))
            .field("source", &self.0.source)
            .field("in_reply_to", &self.0.in_reply_to)
            .field("bytes", &self.0.text.len())
            .finish_non_exhaustive()
    }
}

/// What an envelope carries in `data`: JSON, or nothing at all.
///
/// Made of a [`serde_json::Value`] by `into()`, of any serialisable value by [`Payload::of`], of JSON text by
/// [`Payload::json`]; `()` is no payload. No `Debug`: it may hold a password.
#[derive(Clone, Default)]
pub struct Payload(Option<Box<RawValue>>);

impl Payload {
    /// A value that serde can write.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the value can't be JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, Error> {
        serde_json::value::to_raw_value(value)
            .map(|raw| Self(Some(raw)))
            .map_err(|_| Error::Invalid("the payload cannot be written as JSON".into()))
    }

    /// JSON text, passed on byte for byte but for the white space around it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the place: the text is not JSON.
    pub fn json(text: String) -> Result<Self, Error> {
        RawValue::from_string(text).map(|raw| Self(Some(raw))).map_err(|error| {
            Error::Invalid(format!("not JSON: broken at line {}, column {}", error.line(), error.column()))
        })
    }

    fn raw(&self) -> Option<&RawValue> {
        self.0.as_deref()
    }
}

impl From<()> for Payload {
    fn from((): ()) -> Self {
        Self(None)
    }
}

impl From<Box<RawValue>> for Payload {
    fn from(raw: Box<RawValue>) -> Self {
        Self(Some(raw))
    }
}

impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Self {
        // A `Value` has string keys and finite numbers only: nothing that JSON cannot say.
        Self(serde_json::value::to_raw_value(&value).ok())
    }
}

/// An envelope on its way to the broker.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the wire has four flags, independent of each other")]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a RawValue>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(triple: &'a Triple<'_>, source: &'a str, payload: &'a Payload) -> Self {
        Self {
            channel: &triple.channel,
            topic: &triple.topic,
            subtopic: &triple.subtopic,
            source,
            data: payload.raw(),
            ..Self::default()
        }
    }

    /// The text for the wire.
    pub(super) fn text(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|_| Error::Invalid("the envelope cannot be written as JSON".into()))
    }
}

/// Refuses a triple that no envelope may bear before the broker has to: its refusal of an event without an id would
/// reach nobody.
pub(super) fn check_triple(triple: &Triple<'_>) -> Result<(), Error> {
    for (name, part) in [("channel", &triple.channel), ("topic", &triple.topic), ("subtopic", &triple.subtopic)] {
        check_part(part).map_err(|fault| Error::Invalid(format!("the {name} {fault}")))?;
    }
    if triple.is_broker() {
        return Err(Error::Invalid("the channel 'Broker' is the broker's own".into()));
    }
    Ok(())
}
