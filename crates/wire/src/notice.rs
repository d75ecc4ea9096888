//! Texts that the broker itself writes: answers to commands, failures, and the notices of the channel `Broker`.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{BROKER, Triple};
use crate::error::Refusal;

/// The topic and subtopic of every notice.
pub const NOTICES: &[(&str, &str)] = &[
    ("Application", "Joined"),
    ("Application", "Left"),
    ("Subscription", "Ended"),
    ("Request", "Cancelled"),
    ("Message", "Receipt"),
    ("Message", "Error"),
    ("Message", "Dropped"),
    ("Connection", "Lagging"),
    ("Connection", "Draining"),
    ("Connection", "Expiring"),
    ("Connection", "Replaced"),
    ("Cluster", "Gap"),
];

/// Returns whether this topic and subtopic are a notice, which only the broker sends.
#[must_use]
pub fn is_notice(topic: &str, subtopic: &str) -> bool {
    NOTICES.contains(&(topic, subtopic))
}

/// Returns a triple of the channel `Broker`.
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
    data: D,
}

fn text(triple: &Triple<'_>, in_reply_to: Option<&str>, data: impl Serialize) -> String {
    let message =
        Message { channel: &triple.channel, topic: &triple.topic, subtopic: &triple.subtopic, in_reply_to, data };
    // Strings, numbers and maps with string keys always serialise.
    serde_json::to_string(&message).unwrap_or_default()
}

/// Returns a success on a triple. Its `data` has `Success` and `ErrorMessage`, then the members of `more` in their order.
#[must_use]
pub fn success(triple: &Triple<'_>, in_reply_to: Option<&str>, more: Value) -> String {
    text(triple, in_reply_to, Success { more })
}

/// `data` of a success. Written as it is: copying the members behind two others would cost more than writing them.
struct Success {
    more: Value,
}

impl Serialize for Success {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut data = serializer.serialize_map(None)?;
        data.serialize_entry("Success", &true)?;
        data.serialize_entry("ErrorMessage", &())?;
        for (key, value) in self.more.as_object().into_iter().flatten() {
            data.serialize_entry(key, value)?;
        }
        data.end()
    }
}

/// Returns a failure on a triple. `keys` are the keys that an adapter declared for its triple: they are `null` and come
/// before `Success`.
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

/// Returns `Broker/Message/Error`.
#[must_use]
pub fn error(in_reply_to: Option<&str>, refusal: &Refusal) -> String {
    failure(&triple("Message", "Error"), in_reply_to, &[], refusal)
}

/// The place of an event in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// Its number.
    pub offset: u64,
    /// The life of the log in which the number counts.
    pub epoch: &'a str,
    /// The event was sent before, so it was not delivered again.
    pub is_duplicate: bool,
}

/// Returns `Broker/Message/Receipt` for the envelope with this `id`. `kept` is the place of the event if its channel has
/// history, `nodes` the number of other nodes to which it went if the broker is in a cluster.
#[must_use]
pub fn receipt(id: &str, receivers: usize, kept: Option<Kept<'_>>, nodes: Option<usize>, hint: Option<&str>) -> String {
    let mut more = Map::new();
    more.insert("Receivers".into(), receivers.into());
    if let Some(Kept { offset, epoch, is_duplicate }) = kept {
        more.insert("Offset".into(), offset.into());
        more.insert("Epoch".into(), epoch.into());
        more.extend(is_duplicate.then(|| ("Duplicate".to_owned(), true.into())));
    }
    if let Some(nodes) = nodes {
        more.insert("Cluster".into(), true.into());
        more.insert("Nodes".into(), nodes.into());
    }
    more.extend(hint.map(|hint| ("Hint".to_owned(), hint.into())));
    success(&triple("Message", "Receipt"), Some(id), more.into())
}

/// The length of an outbound queue, and its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The number of messages in the queue.
    pub messages: usize,
    /// The number of messages that it holds at most.
    pub messages_max: usize,
    /// The number of bytes in the queue.
    pub bytes: usize,
    /// The number of bytes that it holds at most.
    pub bytes_max: usize,
}

/// Returns `Broker/Connection/Lagging`.
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

/// Returns `Broker/Message/Dropped` with the number of events that were dropped since the last such notice.
#[must_use]
pub fn dropped(count: u64) -> String {
    text(&triple("Message", "Dropped"), None, json!({ "Count": count }))
}

/// Returns `Broker/Connection/Draining`. A client waits this long after the Close frame before it reconnects.
#[must_use]
pub fn draining(reconnect_after_ms: u64) -> String {
    text(&triple("Connection", "Draining"), None, json!({ "ReconnectAfterMs": reconnect_after_ms }))
}

/// Returns `Broker/Connection/Expiring` with the time that is left of the session's proof, in whole seconds.
#[must_use]
pub fn expiring(expires_in_seconds: u64) -> String {
    text(&triple("Connection", "Expiring"), None, json!({ "ExpiresInSeconds": expires_in_seconds }))
}

/// Returns `Broker/Connection/Replaced`: another connection has resumed this session.
#[must_use]
pub fn replaced(session_id: &str) -> String {
    text(&triple("Connection", "Replaced"), None, json!({ "SessionId": session_id }))
}

/// Returns `Broker/Request/Cancelled` for the handler that was given the request with this `id`.
#[must_use]
pub fn cancelled(delivered_id: &str) -> String {
    text(&triple("Request", "Cancelled"), Some(delivered_id), json!({}))
}

/// Returns `Broker/Application/Joined` or `Left`. A service has no user.
#[must_use]
pub fn presence(subtopic: &'static str, source: &str, user: Option<&str>, session_id: &str) -> String {
    let data = json!({ "Source": source, "User": user, "SessionId": session_id });
    text(&triple("Application", subtopic), None, data)
}

/// Returns `Broker/Subscription/Ended` with the ids of subscriptions that ended, and of those that get less than before.
#[must_use]
pub fn subscriptions_ended(ended: &[String], narrowed: &[String], reason: &str) -> String {
    let data = json!({ "SubscriptionIds": ended, "Narrowed": narrowed, "Reason": reason });
    text(&triple("Subscription", "Ended"), None, data)
}

/// Returns `Broker/Cluster/Gap`. `since` is a time as RFC 3339 has it.
#[must_use]
pub fn gap(since: &str) -> String {
    text(&triple("Cluster", "Gap"), None, json!({ "Since": since }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn each_notice_has_its_data() {
        let depth = Depth { messages: 768, messages_max: 1024, bytes: 9, bytes_max: 10 };
        let notices = [
            (
                presence("Joined", "crm", Some("alice"), "s1"),
                "Application",
                r#"{"Source":"crm","User":"alice","SessionId":"s1"}"#,
            ),
            (presence("Left", "crm", None, "s1"), "Application", r#"{"Source":"crm","User":null,"SessionId":"s1"}"#),
            (cancelled("r1"), "Request", "{}"),
            (receipt("m1", 2, None, None, None), "Message", r#"{"Success":true,"ErrorMessage":null,"Receivers":2}"#),
            (
                receipt("m1", 0, None, None, Some("h")),
                "Message",
                r#"{"Success":true,"ErrorMessage":null,"Receivers":0,"Hint":"h"}"#,
            ),
            (
                receipt("m1", 1, Some(Kept { offset: 7, epoch: "e", is_duplicate: false }), None, None),
                "Message",
                r#"{"Success":true,"ErrorMessage":null,"Receivers":1,"Offset":7,"Epoch":"e"}"#,
            ),
            (
                receipt("m1", 1, Some(Kept { offset: 7, epoch: "e", is_duplicate: true }), None, Some("h")),
                "Message",
                r#"{"Success":true,"ErrorMessage":null,"Receivers":1,"Offset":7,"Epoch":"e","Duplicate":true,"Hint":"h"}"#,
            ),
            (dropped(3), "Message", r#"{"Count":3}"#),
            (lagging(depth), "Connection", r#"{"Messages":768,"MessagesMax":1024,"Bytes":9,"BytesMax":10}"#),
            (draining(200), "Connection", r#"{"ReconnectAfterMs":200}"#),
            (
                subscriptions_ended(&["s1".into()], &[], "RENEWED"),
                "Subscription",
                r#"{"SubscriptionIds":["s1"],"Narrowed":[],"Reason":"RENEWED"}"#,
            ),
            (expiring(60), "Connection", r#"{"ExpiresInSeconds":60}"#),
            (replaced("s1"), "Connection", r#"{"SessionId":"s1"}"#),
            (gap("2026-01-02T03:04:05Z"), "Cluster", r#"{"Since":"2026-01-02T03:04:05Z"}"#),
        ];
        for (text, topic, data) in notices {
            let envelope = crate::decode(&text, crate::DecodeLimits::client(3)).map_err(|it| it.refusal).unwrap();
            let triple = envelope.triple();
            assert!(triple.is_broker() && is_notice(&triple.topic, &triple.subtopic), "{text}");
            assert_eq!((&*triple.topic, envelope.payload()), (topic, Some(data)));
            let named = ["Receipt", "Cancelled"].contains(&&*triple.subtopic);
            assert_eq!(envelope.in_reply_to().is_some(), named, "{text}");
        }
    }

    #[test]
    fn a_failure_has_the_details_of_its_refusal() {
        let refusal = Refusal::new(ErrorCode::NoSuchRequest, "no open request").with("InReplyTo", "r1");
        assert_eq!(
            error(Some("m1"), &refusal),
            r#"{"channel":"Broker","topic":"Message","subtopic":"Error","inReplyTo":"m1","data":{"Success":false,"ErrorCode":"NO_SUCH_REQUEST","ErrorMessage":"no open request","InReplyTo":"r1"}}"#
        );
    }

    #[test]
    fn a_failure_has_the_declared_keys_first() {
        let refusal = Refusal::new(ErrorCode::Internal, "m").with("callId", 7).with("Hint", "h");
        assert_eq!(
            failure_data(&["callId", "Name"], &refusal).to_string(),
            r#"{"callId":7,"Name":null,"Success":false,"ErrorMessage":"m","ErrorCode":"INTERNAL","Hint":"h"}"#
        );
    }
}
