//! [`decode`]: reads the routing fields of a text message in one pass, and borrows everything.
//!
//! `scan` checks the grammar of the whole text, the payload included, and builds nothing. Only top-level keys route,
//! because payloads have a `source` or `channel` of their own.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::key::Key;
use super::scan::{Broken, Member, Scanner, Token};
use super::trace::TraceParent;
use super::triple::{NAME_BYTES_MAX, check_name, check_part, resembles_broker};
use super::{Envelope, Fields, Spans, Triple};
use crate::error::{ErrorCode, Refusal};

/// The limits of a text message. Its size was checked before, on the frame's header.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// The number of levels to which objects and arrays may nest; the envelope itself is 1.
    pub depth: usize,
    /// Whether the fields that only a broker sets are accepted.
    pub broker_fields: bool,
}

impl DecodeLimits {
    /// For texts that a broker made or has already checked.
    pub const OWN: Self = Self { depth: usize::MAX, broker_fields: true };

    /// For texts from a client.
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

/// The error for a text message that is not an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The reason.
    pub refusal: Refusal,
    /// The `id` of the message, if it could be read.
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
/// `INVALID_JSON` with the byte offset, `INVALID_ENVELOPE` with the field, or `RESERVED_CHANNEL` for another spelling of
/// `Broker`. The message never quotes the payload.
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

/// Returns the reason why a text is broken. A text that nests too deep is refused for that, whatever else is wrong.
#[cold]
fn explain(text: &str, depth_max: usize) -> Refusal {
    if too_deep(text, depth_max) {
        return invalid(format!("objects and arrays nest deeper than {depth_max} levels"));
    }
    // The syntax errors of `serde_json` name the grammar and never quote the text.
    let Err(error) = serde_json::from_str::<&RawValue>(text) else {
        return invalid("a message must be one JSON object, an envelope");
    };
    if text.starts_with('\u{feff}') {
        return Refusal::new(ErrorCode::InvalidJson, "byte 0: a byte order mark; send the JSON text without one");
    }
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or("not JSON");
    Refusal::new(ErrorCode::InvalidJson, format!("byte {offset}: {words}; send one JSON object in each message"))
}

/// Returns whether brackets outside strings nest deeper than `limit`. The text need not be JSON.
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

/// The longest key or channel that a message quotes, in bytes.
const QUOTED_BYTES_MAX: usize = 32;

/// The field of W3C Trace Context. It is read if it is well-formed, and otherwise unknown: the last one counts.
const TRACE_PARENT: &str = "traceparent";

struct Reader<'a> {
    /// The envelope as far as it was read.
    envelope: Envelope<'a>,
    broker_fields: bool,
    /// The bits of the keys that occurred.
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
            // The first mistake is reported. Reading goes on, because the answer repeats the `id`.
            if let Err(refusal) = self.member(key, value, span) {
                self.refusal.get_or_insert(refusal);
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<Refusal> {
        let missing = [Key::Channel, Key::Topic, Key::Subtopic].into_iter().find(|key| self.seen & key.bit() == 0)?;
        let name = missing.name();
        Some(invalid(format!("the field '{name}' is missing: every envelope has channel, topic and subtopic")))
    }

    fn member(&mut self, key: Token<'a>, value: Token<'a>, span: Range<usize>) -> Result<(), Refusal> {
        // A key with a lone surrogate is unknown, and resembles no key.
        let Some(name) = string(key) else { return Ok(()) };
        let Some(key) = Key::of(&name) else {
            if name == TRACE_PARENT {
                self.envelope.fields.trace = string(value).and_then(|text| TraceParent::read(&text)).map(Box::new);
                return Ok(());
            }
            return unknown(&name);
        };
        if self.seen & key.bit() != 0 {
            return Err(invalid(format!("the field '{}' occurs twice", key.name())));
        }
        self.seen |= key.bit();
        // Of the values of JSON, only `null` begins with this letter.
        if value.raw.starts_with('n') && !matches!(key, Key::Data | Key::Message) {
            return self.null(key, span);
        }
        let Envelope { triple, fields, spans, .. } = &mut self.envelope;
        let payload = value.start..value.start + value.raw.len();
        match key {
            Key::Channel => triple.channel = channel(value)?,
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
            Key::Once => {
                fields.once = flag("once", value.raw)?;
                spans.others.push((key, span));
            }
            Key::Data => fields.data = Some(payload),
            Key::Message => fields.message = Some(payload),
            Key::RequestId if !self.broker_fields => {
                return Err(invalid("the field 'requestId' is set by the broker only; a reply leaves it out"));
            }
            _ if !self.broker_fields => {
                return Err(invalid(format!("the field '{}' is set by the broker only", key.name())));
            }
            Key::RequestId => fields.request_id = string(value),
            Key::Retained => fields.retained = value.raw == "true",
            Key::Offset => fields.logged.get_or_insert_default().offset = value.raw.parse().ok(),
            Key::Epoch => fields.logged.get_or_insert_default().epoch = string(value),
            Key::Replayed => fields.logged.get_or_insert_default().replayed = value.raw == "true",
            Key::Seq => {}
        }
        Ok(())
    }

    /// Reads a `null`: the field is absent. Its place is kept, so that a broker can put a value of its own there.
    #[cold]
    fn null(&mut self, key: Key, span: Range<usize>) -> Result<(), Refusal> {
        let spans = &mut self.envelope.spans;
        match key {
            Key::Channel | Key::Topic | Key::Subtopic => {
                return Err(invalid(format!("the field '{}' must be a string, not null", key.name())));
            }
            Key::Id => spans.id = Some(span),
            Key::InReplyTo => spans.in_reply_to = Some(span),
            Key::User => spans.user = Some(span),
            Key::Timeout => spans.timeout = Some(span),
            Key::More => spans.more = Some(span),
            _ => spans.others.push((key, span)),
        }
        Ok(())
    }
}

/// Passes an unknown key, unless a receiver could take it for one that routes.
fn unknown(name: &str) -> Result<(), Refusal> {
    match Key::resembled_by(name) {
        None => Ok(()),
        Some(key) => Err(invalid(format!(
            "the key '{}' could be taken for '{key}'; write '{key}', or choose another one",
            shown(name),
            key = key.name()
        ))),
    }
}

/// Returns a key that resembles a known one, so it is safe to quote, without most of a long white space around it.
#[cold]
fn shown(name: &str) -> String {
    match name.len() {
        ..=QUOTED_BYTES_MAX => name.escape_debug().collect(),
        _ => format!(" {} ", name.trim()),
    }
}

/// Returns the text of a string token, borrowed unless it has escapes. `None` if the token is not a string of characters.
#[inline]
fn string(token: Token<'_>) -> Option<Cow<'_, str>> {
    if token.is_plain {
        return token.raw.get(1..token.raw.len() - 1).map(Cow::Borrowed);
    }
    serde_json::from_str(token.raw).ok().map(Cow::Owned)
}

/// Returns the kind of a raw JSON value, for messages, which never quote the value.
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
            invalid(format!("the field '{field}' has a lone surrogate, which is not a character"))
        } else {
            invalid(format!("the field '{field}' must be a string, not {}", kind(raw)))
        }
    })
}

fn channel(token: Token<'_>) -> Result<Cow<'_, str>, Refusal> {
    let channel = part("channel", token)?;
    match resembles_broker(&channel) {
        false => Ok(channel),
        true => Err(Refusal::new(
            ErrorCode::ReservedChannel,
            format!("the field 'channel' is '{}'; the broker's own channel is written 'Broker'", shown(&channel)),
        )),
    }
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
        _ => Err(invalid(format!("the field '{field}' must be true or false, not {}", kind(raw)))),
    }
}

fn milliseconds(raw: &str) -> Result<u64, Refusal> {
    match raw.parse() {
        Ok(ms @ 1..) => Ok(ms),
        _ => Err(invalid("the field 'timeout' must be a whole number of milliseconds, 1 or more")),
    }
}
