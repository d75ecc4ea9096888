//! [`Heard`]: an event as applications receive it, and its user. No network, no router.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::schema::{HEADER, Schema};
use super::wire::ConsumerEvent;
use crate::config::EventTopic;
use crate::salesforce::{CHANGE_EVENT, CHANNEL, PLATFORM_EVENT};

/// An event that is ready to be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// The envelope.
    pub(super) text: String,
    /// Its receivers.
    pub(super) to: To,
}

/// The receivers of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum To {
    /// All users.
    Everybody,
    /// One user.
    User(String),
    /// The field that names the user is empty or absent.
    Nobody,
}

#[derive(Serialize)]
struct Envelope<'a> {
    channel: &'a str,
    topic: &'a str,
    subtopic: &'a str,
    data: Map<String, Value>,
}

/// Reads an event. `secret` is the name of a field that is never passed on. Returns `None` if the payload does not fit
/// its schema.
pub(super) fn read(event: &ConsumerEvent, schema: &Schema, topic: &EventTopic, secret: &str) -> Option<Heard> {
    let produced = event.event.as_ref()?;
    let mut record = schema.read(&produced.payload)?;
    let to = match &topic.user_field {
        // It has no fields, and says that changes were missed: anybody's.
        Some(_) if is_gap(&record) => To::Everybody,
        Some(field) => user(&record, field).map_or(To::Nobody, To::User),
        None => To::Everybody,
    };
    if let Some(passed) = &topic.fields {
        record.retain(|name, _| name == HEADER || passed.iter().any(|it| it.eq_ignore_ascii_case(name)));
    }
    withhold(&mut record, secret);
    record.insert("replayId".to_owned(), STANDARD.encode(&event.replay_id).into());
    record.insert("schemaId".to_owned(), produced.schema_id.as_str().into());
    record.insert("eventUuid".to_owned(), produced.id.as_str().into());
    let envelope = Envelope {
        channel: CHANNEL,
        topic: if schema.is_change() { CHANGE_EVENT } else { PLATFORM_EVENT },
        subtopic: schema.name(),
        data: record,
    };
    Some(Heard { text: serde_json::to_string(&envelope).ok()?, to })
}

/// Returns whether Salesforce could not make the events of changes, and says only that there were some.
fn is_gap(record: &Map<String, Value>) -> bool {
    let kind = record.get(HEADER).and_then(|header| header.get("changeType"));
    kind.and_then(Value::as_str).is_some_and(|kind| kind.starts_with("GAP_"))
}

/// Returns the user in a field, or in a field inside another.
fn user(record: &Map<String, Value>, path: &str) -> Option<String> {
    let mut parts = path.split('.');
    let mut value = record.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Removes a field at every depth.
fn withhold(record: &mut Map<String, Value>, secret: &str) {
    if secret.is_empty() {
        return;
    }
    record.retain(|name, _| !name.eq_ignore_ascii_case(secret));
    record.values_mut().for_each(|value| withhold_within(value, secret));
}

fn withhold_within(value: &mut Value, secret: &str) {
    match value {
        Value::Object(inner) => withhold(inner, secret),
        Value::Array(items) => items.iter_mut().for_each(|item| withhold_within(item, secret)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::salesforce::events::wire::ProducerEvent;

    const CHANGE: &str = r#"{"type":"record","name":"CTI_Login__ChangeEvent","fields":[
        {"name":"ChangeEventHeader","type":{"type":"record","name":"ChangeEventHeader","fields":[
            {"name":"changeType","type":{"type":"enum","name":"ChangeType","symbols":
                ["CREATE","UPDATE","GAP_UPDATE","GAP_OVERFLOW"]}}]}},
        {"name":"User_Id__c","type":["null","string"],"default":null}]}"#;

    #[test]
    fn a_gap_is_told_to_everybody_though_it_names_no_user() {
        let topic = EventTopic { user_field: Some("User_Id__c".to_owned()), ..EventTopic::default() };
        let schema = Schema::parse(CHANGE).unwrap();
        // The number of the symbol, and no user; or a user.
        for (payload, to) in [
            (vec![0, 0], To::Nobody),
            (vec![2, 0], To::Nobody),
            (vec![2, 2, 2, b'a'], To::User("a".to_owned())),
            (vec![4, 0], To::Everybody),
            (vec![6, 0], To::Everybody),
        ] {
            let event = ProducerEvent { id: "1".to_owned(), schema_id: "s".to_owned(), payload: payload.clone() };
            let heard = read(&ConsumerEvent { event: Some(event), replay_id: vec![1] }, &schema, &topic, "").unwrap();
            assert_eq!(heard.to, to, "{payload:?}");
        }
    }

    #[test]
    fn a_field_is_withheld_wherever_it_stands() {
        let mut record = json!({ "a": { "P__c": 1, "b": [[{ "p__C": 2, "c": 3 }], 4] }, "P__C": 5, "d": "P__c" });
        withhold(record.as_object_mut().unwrap(), "P__c");
        assert_eq!(record, json!({ "a": { "b": [[{ "c": 3 }], 4] }, "d": "P__c" }));
    }
}
