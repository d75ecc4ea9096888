//! What the broker itself says: the answers to commands, errors, receipts and events of the channel `Broker`.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{BROKER, Triple};
use crate::error::Refusal;

/// The topic and subtopic of everything only the broker sends.
pub const NOTICES: &[(&str, &str)] = &[
    ("Application", "Joined"),
    ("Application", "Left"),
    ("Request", "Cancelled"),
    ("Message", "Receipt"),
    ("Message", "Error"),
    ("Message", "Dropped"),
    ("Connection", "Lagging"),
    ("Connection", "Draining"),
];

/// Whether only the broker sends this topic and subtopic on its channel.
#[must_use]
pub fn is_notice(topic: &str, subtopic: &str) -> bool {
    NOTICES.contains(&(topic, subtopic))
}

/// The triple of a message of the broker.
#[must_use]
pub fn triple(topic: &'static str, subtopic: &'static str) -> Triple<'static> {
    Triple::new(BROKER, topic, subtopic)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a, D> {
    channel: &'a str,
    topic: &'a str,
    subtopic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    more: bool,
    data: D,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(value: &bool) -> bool {
    !value
}

fn text(triple: &Triple<'_>, in_reply_to: Option<&str>, data: impl Serialize) -> String {
    let message = Message {
        channel: &triple.channel,
        topic: &triple.topic,
        subtopic: &triple.subtopic,
        in_reply_to,
        more: false,
        data,
    };
    // Strings, numbers and maps with string keys: nothing that JSON cannot say.
    serde_json::to_string(&message).unwrap_or_default()
}

/// A success on a triple: `Success`, `ErrorMessage`, then what `more` says, in its order.
#[must_use]
pub fn success(triple: &Triple<'_>, in_reply_to: Option<&str>, more: Value) -> String {
    let mut data = Map::new();
    data.insert("Success".into(), true.into());
    data.insert("ErrorMessage".into(), Value::Null);
    if let Value::Object(more) = more {
        data.extend(more);
    }
    text(triple, in_reply_to, data)
}

/// A failure on a triple. `keys` are the null keys that an adapter's triple bears before `Success`.
#[must_use]
pub fn failure(triple: &Triple<'_>, in_reply_to: Option<&str>, keys: &[&str], refusal: &Refusal) -> String {
    text(triple, in_reply_to, failure_data(keys, refusal))
}

/// Returns `data` of a failure: with declared keys `…, Success, ErrorMessage, ErrorCode`, without them `Success,
/// ErrorCode, ErrorMessage`. The refusal's details follow; a detail with a declared key takes its place.
#[must_use]
pub fn failure_data(keys: &[&str], refusal: &Refusal) -> Value {
    let mut data = Map::new();
    for key in keys {
        data.insert((*key).to_owned(), Value::Null);
    }
    data.insert("Success".into(), false.into());
    let (code, message) = (Value::from(refusal.code.as_str()), Value::from(&*refusal.message));
    if keys.is_empty() {
        data.insert("ErrorCode".into(), code);
        data.insert("ErrorMessage".into(), message);
    } else {
        data.insert("ErrorMessage".into(), message);
        data.insert("ErrorCode".into(), code);
    }
    for (key, value) in refusal.details() {
        data.insert(key.to_owned(), value.clone());
    }
    Value::Object(data)
}

/// `Broker/Message/Error`.
#[must_use]
pub fn error(in_reply_to: Option<&str>, refusal: &Refusal) -> String {
    failure(&triple("Message", "Error"), in_reply_to, &[], refusal)
}

/// `Broker/Message/Receipt`.
#[must_use]
pub fn receipt(id: &str, receivers: usize, hint: Option<&str>) -> String {
    let mut more = json!({ "Receivers": receivers });
    if let (Some(hint), Value::Object(more)) = (hint, &mut more) {
        more.insert("Hint".into(), hint.into());
    }
    success(&triple("Message", "Receipt"), Some(id), more)
}

/// How full an outbound queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Messages waiting.
    pub messages: usize,
    /// How many may wait.
    pub messages_max: usize,
    /// Bytes waiting.
    pub bytes: usize,
    /// How many may wait.
    pub bytes_max: usize,
}

/// `Broker/Connection/Lagging`.
#[must_use]
pub fn lagging(depth: Depth) -> String {
    let data = json!({
        "Messages": depth.messages,
        "MessagesMax": depth.messages_max,
        "Bytes": depth.bytes,
        "BytesMax": depth.bytes_max,
    });
    text(&triple("Connection", "Lagging"), None, data)
}

/// `Broker/Message/Dropped`: how many events a full queue lost since the last notice.
#[must_use]
pub fn dropped(count: u64) -> String {
    text(&triple("Message", "Dropped"), None, json!({ "Count": count }))
}

/// `Broker/Connection/Draining`.
#[must_use]
pub fn draining(reconnect_after_ms: u64) -> String {
    text(&triple("Connection", "Draining"), None, json!({ "ReconnectAfterMs": reconnect_after_ms }))
}

/// `Broker/Request/Cancelled`, to the handler: the id that the request was delivered with.
#[must_use]
pub fn cancelled(delivered_id: &str) -> String {
    text(&triple("Request", "Cancelled"), Some(delivered_id), json!({}))
}

/// `Broker/Application/Joined` or `Left`.
#[must_use]
pub fn presence(subtopic: &'static str, source: &str, user: Option<&str>, session_id: &str) -> String {
    let data = json!({ "Source": source, "User": user, "SessionId": session_id });
    text(&triple("Application", subtopic), None, data)
}

/// An answer of an in-process adapter, on the request's triple; the bytes are zeroised after sending.
#[must_use]
pub fn answer(triple: &Triple<'_>, in_reply_to: &str, data: &RawValue) -> Zeroizing<String> {
    let message = Message {
        channel: &triple.channel,
        topic: &triple.topic,
        subtopic: &triple.subtopic,
        in_reply_to: Some(in_reply_to),
        more: false,
        data,
    };
    // With room for all of it from the start: growing would leave a copy of the password in freed memory.
    let room = data.get().len() + in_reply_to.len() + triple.to_string().len() + 128;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    // Writing strings and a raw value to memory cannot fail.
    serde_json::to_writer(&mut *text, &message).ok();
    Zeroizing::new(String::from_utf8(std::mem::take(&mut *text)).unwrap_or_default())
}
