//! [`decode`]: one pass over a text message to its routing keys, borrowing everything.
//!
//! The payload's grammar is checked and nothing of it is built (`serde_json`'s raw values). Raw values do not check
//! depth, so a scan of our own does. Only top-level keys route: payloads carry a nested `source` or `channel`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::triple::{NAME_BYTES_MAX, check_name, check_part};
use super::{Envelope, Fields, Spans, Triple};
use crate::error::{ErrorCode, Refusal};

/// What a text message may be. Its size is checked before, on the frame's header.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// How deep objects and arrays may nest, the envelope itself being 1.
    pub depth: usize,
    /// Whether it may have the fields that only a broker sets.
    pub broker_fields: bool,
}

impl DecodeLimits {
    /// For what the broker itself made, or has checked before.
    pub const OWN: Self = Self { depth: usize::MAX, broker_fields: true };

    /// For what a client sends.
    #[must_use]
    pub const fn client(depth: usize) -> Self {
        Self { depth, broker_fields: false }
    }
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self::client(128)
    }
}

/// The keys of protocol.md's envelope table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Channel,
    Topic,
    Subtopic,
    Source,
    Data,
    Message,
    Id,
    InReplyTo,
    More,
    User,
    Target,
    Timeout,
    Gather,
    Idempotent,
    Retain,
    /// Set by the broker only.
    Brokers(&'static str),
}

impl Key {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "channel" => Self::Channel,
            "topic" => Self::Topic,
            "subtopic" => Self::Subtopic,
            "source" => Self::Source,
            "data" => Self::Data,
            "message" => Self::Message,
            "id" => Self::Id,
            "inReplyTo" => Self::InReplyTo,
            "more" => Self::More,
            "user" => Self::User,
            "target" => Self::Target,
            "timeout" => Self::Timeout,
            "gather" => Self::Gather,
            "idempotent" => Self::Idempotent,
            "retain" => Self::Retain,
            "requestId" => Self::Brokers("requestId"),
            "seq" => Self::Brokers("seq"),
            "offset" => Self::Brokers("offset"),
            "epoch" => Self::Brokers("epoch"),
            "retained" => Self::Brokers("retained"),
            _ => return None,
        })
    }

    fn bit(self) -> u32 {
        let place = match self {
            Self::Channel => 0,
            Self::Topic => 1,
            Self::Subtopic => 2,
            Self::Source => 3,
            Self::Data => 4,
            Self::Message => 5,
            Self::Id => 6,
            Self::InReplyTo => 7,
            Self::More => 8,
            Self::User => 9,
            Self::Target => 10,
            Self::Timeout => 11,
            Self::Gather => 12,
            Self::Idempotent => 13,
            Self::Retain => 14,
            Self::Brokers(_) => 15,
        };
        1 << place
    }
}

/// A text message that is no envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Why.
    pub refusal: Refusal,
    /// Its `id`, where that much could be read.
    pub id: Option<String>,
}

impl From<Refusal> for Malformed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, id: None }
    }
}

/// Reads one text message.
///
/// # Errors
/// `INVALID_JSON` with the byte offset, or `INVALID_ENVELOPE` with the field; never a word of the payload.
pub fn decode(text: &str, limits: DecodeLimits) -> Result<Envelope<'_>, Malformed> {
    if too_deep(text, limits.depth) {
        return Err(invalid(format!("objects and arrays nest deeper than {} levels", limits.depth)).into());
    }
    let mut reader = Reader { text, broker_fields: limits.broker_fields, ..Reader::default() };
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = (&mut reader).deserialize(&mut json).and_then(|()| json.end());
    outcome.map_err(|error| explain(text, &error))?;
    if let Some(refusal) = reader.refusal {
        return Err(Malformed { refusal, id: reader.fields.id.map(Cow::into_owned) });
    }
    let missing = match (&reader.channel, &reader.topic) {
        (None, _) => "channel",
        (_, None) => "topic",
        _ => "subtopic",
    };
    let (Some(channel), Some(topic), Some(subtopic)) = (reader.channel, reader.topic, reader.subtopic) else {
        let refusal =
            invalid(format!("the field '{missing}' is missing: every envelope has channel, topic and subtopic"));
        return Err(Malformed { refusal, id: reader.fields.id.map(Cow::into_owned) });
    };
    Ok(Envelope {
        text,
        triple: Triple { channel, topic, subtopic },
        fields: reader.fields,
        spans: reader.spans,
        body_end: reader.body_end,
    })
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, message)
}

/// Whether brackets outside strings nest deeper than `limit`. Anything may follow: the grammar is checked elsewhere.
fn too_deep(text: &str, limit: usize) -> bool {
    // Nearly every message has fewer brackets than levels are allowed, wherever they stand, and counting them is cheap:
    // '[' and '{' differ in one bit, and sums that fit a byte become vector instructions, 16 bytes each.
    let brackets = |chunk: &[u8]| usize::from(chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>());
    if text.as_bytes().chunks(usize::from(u8::MAX)).map(brackets).sum::<usize>() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Says where the JSON breaks. The words of `serde_json` for syntax errors name the grammar, never the text.
fn explain(text: &str, error: &serde_json::Error) -> Refusal {
    use serde_json::error::Category;
    if error.classify() == Category::Data {
        // Read no further than to see that it is no object: the rest may be no JSON at all.
        return match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => invalid("a message has to be one JSON object, an envelope"),
            Err(error) => explain(text, &error),
        };
    }
    if text.starts_with('\u{feff}') {
        return Refusal::new(ErrorCode::InvalidJson, "byte 0: a byte order mark; send the JSON text without one");
    }
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or("not JSON");
    Refusal::new(ErrorCode::InvalidJson, format!("byte {offset}: {words}; send one JSON object a message"))
}

#[derive(Default)]
struct Reader<'a> {
    text: &'a str,
    broker_fields: bool,
    channel: Option<Cow<'a, str>>,
    topic: Option<Cow<'a, str>>,
    subtopic: Option<Cow<'a, str>>,
    fields: Fields<'a>,
    spans: Spans,
    seen: u32,
    body_end: usize,
    refusal: Option<Refusal>,
}

impl<'a> DeserializeSeed<'a> for &mut Reader<'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for &mut Reader<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        // The opening brace, after any white space.
        self.body_end = self.text.find('{').map_or(0, |at| at + 1);
        while let Some(key) = map.next_key::<&RawValue>()? {
            let value = map.next_value::<&RawValue>()?;
            let end = self.offset(value.get()) + value.get().len();
            let span = self.body_end..end;
            self.body_end = end;
            let outcome = self.member(key.get(), value.get(), span);
            // The first mistake is told; the others are read on for the `id` that the answer bears.
            self.refusal = self.refusal.take().or(outcome.err());
        }
        Ok(())
    }
}

impl<'a> Reader<'a> {
    /// Where a slice of the text starts in it.
    fn offset(&self, slice: &str) -> usize {
        slice.as_ptr() as usize - self.text.as_ptr() as usize
    }

    fn member(&mut self, raw_key: &'a str, value: &'a str, span: Range<usize>) -> Result<(), Refusal> {
        let Some(name) = string(raw_key) else {
            // A key with a lone surrogate is none of ours.
            return Ok(());
        };
        let Some(key) = Key::of(&name) else { return Ok(()) };
        if let Key::Brokers(name) = key {
            if self.broker_fields {
                if name == "requestId" {
                    self.fields.request_id = string(value);
                }
                return Ok(());
            }
            return Err(invalid(format!("the field '{name}' is set by the broker only")));
        }
        if self.seen & key.bit() != 0 {
            return Err(invalid(format!("the field '{name}' stands twice")));
        }
        self.seen |= key.bit();
        let value_start = self.offset(value);
        match key {
            Key::Channel => self.channel = Some(part("channel", value)?),
            Key::Topic => self.topic = Some(part("topic", value)?),
            Key::Subtopic => self.subtopic = Some(part("subtopic", value)?),
            Key::Source => self.fields.source = Some(name_of("source", value)?),
            Key::Target => self.fields.target = Some(name_of("target", value)?),
            Key::User => (self.fields.user, self.spans.user) = (Some(name_of("user", value)?), Some(span)),
            Key::Id => (self.fields.id, self.spans.id) = (Some(id_of(value)?), Some(span)),
            Key::InReplyTo => {
                (self.fields.in_reply_to, self.spans.in_reply_to) = (Some(text_of("inReplyTo", value)?), Some(span));
            }
            Key::Timeout => {
                (self.fields.timeout, self.spans.timeout) = (Some(milliseconds(value)?), Some(span));
            }
            Key::More => (self.fields.more, self.spans.more) = (flag("more", value)?, Some(span)),
            Key::Gather => self.fields.gather = flag("gather", value)?,
            Key::Idempotent => self.fields.idempotent = flag("idempotent", value)?,
            Key::Retain => self.fields.retain = flag("retain", value)?,
            Key::Data => self.fields.data = Some(value_start..value_start + value.len()),
            Key::Message => self.fields.message = Some(value_start..value_start + value.len()),
            Key::Brokers(_) => {}
        }
        Ok(())
    }
}

/// The string that a raw value is, if it is one; borrowed unless it has escapes.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// What kind of JSON value a raw value is, for words that never quote it.
pub(super) fn kind(raw: &str) -> &'static str {
    match raw.bytes().next() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn text_of<'a>(field: &'static str, raw: &'a str) -> Result<Cow<'a, str>, Refusal> {
    string(raw).ok_or_else(|| {
        if raw.starts_with('"') {
            invalid(format!("the field '{field}' has an escape that is no character (a lone surrogate)"))
        } else {
            invalid(format!("the field '{field}' has to be a string, not {}", kind(raw)))
        }
    })
}

fn part<'a>(field: &'static str, raw: &'a str) -> Result<Cow<'a, str>, Refusal> {
    let text = text_of(field, raw)?;
    check_part(&text).map_err(|fault| invalid(format!("the field '{field}' {fault}")))?;
    Ok(text)
}

fn name_of<'a>(field: &'static str, raw: &'a str) -> Result<Cow<'a, str>, Refusal> {
    let text = text_of(field, raw)?;
    check_name(&text).map_err(|fault| invalid(format!("the field '{field}' {fault}")))?;
    Ok(text)
}

fn id_of(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    let text = text_of("id", raw)?;
    match text.len() {
        1..=NAME_BYTES_MAX => Ok(text),
        0 => Err(invalid("the field 'id' must not be empty")),
        _ => Err(invalid("the field 'id' must not be longer than 128 bytes")),
    }
}

fn flag(field: &'static str, raw: &str) -> Result<bool, Refusal> {
    match raw {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(format!("the field '{field}' has to be true or false, not {}", kind(raw)))),
    }
}

fn milliseconds(raw: &str) -> Result<u64, Refusal> {
    match raw.parse() {
        Ok(ms @ 1..) => Ok(ms),
        _ => Err(invalid("the field 'timeout' has to be a whole number of milliseconds, 1 or more")),
    }
}
