//! [`decode`]: one pass over a text message to its routing keys, borrowing everything.
//!
//! `scan` checks the grammar of the whole, payload included, and builds nothing. Only top-level keys route: payloads
//! carry a nested `source` or `channel`.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::scan::{Broken, Member, Scanner, Token};
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// From here on those that only the broker sets.
    RequestId,
    Seq,
    Offset,
    Epoch,
    Retained,
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
            "requestId" => Self::RequestId,
            "seq" => Self::Seq,
            "offset" => Self::Offset,
            "epoch" => Self::Epoch,
            "retained" => Self::Retained,
            _ => return None,
        })
    }

    fn is_brokers(self) -> bool {
        self >= Self::RequestId
    }

    fn bit(self) -> u32 {
        1 << self as u32
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
    let envelope = Envelope {
        text,
        triple: Triple::new("", "", ""),
        fields: Fields::default(),
        spans: Spans::default(),
        body_end: 0,
    };
    let mut reader = Reader { envelope, broker_fields: limits.broker_fields, seen: 0, refusal: None };
    reader.read(limits.depth).map_err(|Broken| explain(text, limits.depth))?;
    match reader.refusal.take().or_else(|| reader.missing()) {
        None => Ok(reader.envelope),
        Some(refusal) => Err(Malformed { refusal, id: reader.envelope.fields.id.map(Cow::into_owned) }),
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, message)
}

/// Why a text is broken. What nests too deep is refused for that, whatever else it is.
#[cold]
fn explain(text: &str, depth_max: usize) -> Refusal {
    if too_deep(text, depth_max) {
        return invalid(format!("objects and arrays nest deeper than {depth_max} levels"));
    }
    // The words of `serde_json` for syntax errors name the grammar, never the text.
    let Err(error) = serde_json::from_str::<&RawValue>(text) else {
        return invalid("a message has to be one JSON object, an envelope");
    };
    if text.starts_with('\u{feff}') {
        return Refusal::new(ErrorCode::InvalidJson, "byte 0: a byte order mark; send the JSON text without one");
    }
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or("not JSON");
    Refusal::new(ErrorCode::InvalidJson, format!("byte {offset}: {words}; send one JSON object a message"))
}

/// Whether brackets outside strings nest deeper than `limit`, in a text that may be no JSON.
fn too_deep(text: &str, limit: usize) -> bool {
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

struct Reader<'a> {
    /// As far as it was read.
    envelope: Envelope<'a>,
    broker_fields: bool,
    /// The bits of the keys that stood there.
    seen: u32,
    /// The first mistake.
    refusal: Option<Refusal>,
}

impl<'a> Reader<'a> {
    fn read(&mut self, depth_max: usize) -> Result<(), Broken> {
        let mut scanner = Scanner::new(self.envelope.text, depth_max);
        scanner.open()?;
        self.envelope.body_end = scanner.at();
        while let Some(Member { key, value }) = scanner.next_member()? {
            let span = self.envelope.body_end..scanner.at();
            self.envelope.body_end = span.end;
            // The first mistake is told; the others are read on for the `id` that the answer bears.
            if let Err(refusal) = self.member(key, value, span) {
                self.refusal.get_or_insert(refusal);
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<Refusal> {
        let parts = [(Key::Channel, "channel"), (Key::Topic, "topic"), (Key::Subtopic, "subtopic")];
        let (_, missing) = parts.into_iter().find(|(key, _)| self.seen & key.bit() == 0)?;
        Some(invalid(format!("the field '{missing}' is missing: every envelope has channel, topic and subtopic")))
    }

    fn member(&mut self, key: Token<'a>, value: Token<'a>, span: Range<usize>) -> Result<(), Refusal> {
        let Some(name) = string(key) else {
            // A key with a lone surrogate is none of ours.
            return Ok(());
        };
        let Some(key) = Key::of(&name) else { return Ok(()) };
        if key.is_brokers() {
            if self.broker_fields {
                if key == Key::RequestId {
                    self.envelope.fields.request_id = string(value);
                } else if key == Key::Retained {
                    self.envelope.fields.retained = value.raw == "true";
                }
                return Ok(());
            }
            return Err(invalid(format!("the field '{name}' is set by the broker only")));
        }
        if self.seen & key.bit() != 0 {
            return Err(invalid(format!("the field '{name}' stands twice")));
        }
        self.seen |= key.bit();
        let Envelope { triple, fields, spans, .. } = &mut self.envelope;
        let payload = value.start..value.start + value.raw.len();
        match key {
            Key::Channel => triple.channel = part("channel", value)?,
            Key::Topic => triple.topic = part("topic", value)?,
            Key::Subtopic => triple.subtopic = part("subtopic", value)?,
            Key::Source => fields.source = Some(name_of("source", value)?),
            Key::Target => fields.target = Some(name_of("target", value)?),
            Key::User => (fields.user, spans.user) = (Some(name_of("user", value)?), Some(span)),
            Key::Id => (fields.id, spans.id) = (Some(id_of(value)?), Some(span)),
            Key::InReplyTo => {
                (fields.in_reply_to, spans.in_reply_to) = (Some(text_of("inReplyTo", value)?), Some(span));
            }
            Key::Timeout => {
                (fields.timeout, spans.timeout) = (Some(milliseconds(value.raw)?), Some(span));
            }
            Key::More => (fields.more, spans.more) = (flag("more", value.raw)?, Some(span)),
            Key::Gather => fields.gather = flag("gather", value.raw)?,
            Key::Idempotent => fields.idempotent = flag("idempotent", value.raw)?,
            Key::Retain => fields.retain = flag("retain", value.raw)?,
            Key::Data => fields.data = Some(payload),
            Key::Message => fields.message = Some(payload),
            Key::RequestId | Key::Seq | Key::Offset | Key::Epoch | Key::Retained => {}
        }
        Ok(())
    }
}

/// The string that a token is, if it is one; borrowed unless it has escapes.
#[inline]
fn string(token: Token<'_>) -> Option<Cow<'_, str>> {
    if token.is_plain {
        return token.raw.get(1..token.raw.len() - 1).map(Cow::Borrowed);
    }
    serde_json::from_str(token.raw).ok().map(Cow::Owned)
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

#[inline]
fn text_of<'a>(field: &'static str, token: Token<'a>) -> Result<Cow<'a, str>, Refusal> {
    string(token).ok_or_else(|| {
        let raw = token.raw;
        if raw.starts_with('"') {
            invalid(format!("the field '{field}' has an escape that is no character (a lone surrogate)"))
        } else {
            invalid(format!("the field '{field}' has to be a string, not {}", kind(raw)))
        }
    })
}

fn part<'a>(field: &'static str, token: Token<'a>) -> Result<Cow<'a, str>, Refusal> {
    let text = text_of(field, token)?;
    check_part(&text).map_err(|fault| invalid(format!("the field '{field}' {fault}")))?;
    Ok(text)
}

fn name_of<'a>(field: &'static str, token: Token<'a>) -> Result<Cow<'a, str>, Refusal> {
    let text = text_of(field, token)?;
    check_name(&text).map_err(|fault| invalid(format!("the field '{field}' {fault}")))?;
    Ok(text)
}

fn id_of(token: Token<'_>) -> Result<Cow<'_, str>, Refusal> {
    let text = text_of("id", token)?;
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
