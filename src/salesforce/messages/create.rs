//! [`CreateObject`]: answers `Salesforce/Call/CreateObject` by creating one record, and announces it to the user's
//! applications with the documented event on the same triple.
//!
//! A repeated request creates no second record, because the record's External ID is a hash of the request.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::creations::{Made, key};
use super::data::{Asked, Told};
use super::{CallKey, Record, Way, Writer, json_text, mapped, named, target, told};
use crate::adapter::{Answer, Event, Given, Handler, Response};
use crate::config::WritableObject;
use crate::salesforce::write::Field;
use crate::salesforce::{CHANNEL, CREATE_OBJECT, exactly};
use wire::Refusal;
use wire::{Pattern, Triple};

/// The handler.
pub(super) struct CreateObject {
    writer: Arc<Writer>,
}

impl CreateObject {
    /// Shares a writer with the other handlers.
    pub(super) fn new(writer: &Arc<Writer>) -> Self {
        Self { writer: Arc::clone(writer) }
    }

    async fn create(&self, given: Given) -> Result<Response, Refusal> {
        let user = named(&given)?;
        let asked = Asked::read(given.payload.as_ref())?;
        let (call, name, oid) = (asked.call()?, asked.name()?, asked.oid()?);
        let params = asked.params()?;
        let object = self.writer.object(&name, Way::Create)?;
        let mut fields = mapped(&name, object, params)?;
        if !object.call_field.is_empty() {
            fields.push((object.call_field.clone(), json_text(&call.id)));
        }
        // A request without an id cannot be repeated.
        let drawn = || hex::encode(rand::random::<[u8; 16]>()).into();
        let request_id = given.request_id.clone().unwrap_or_else(drawn);
        let key = key([user, &given.source, &request_id, &call.id, &name]);
        let made = self.make(user, object, &fields, &key).await?;

        let record = Record { name: name.clone(), id: made.id.clone() };
        self.writer.calls.know(Instant::now().into_std(), &CallKey::new(user, &call.id), record);
        let about = Told::default()
            .raw("callId", call.raw)
            .value("Name", &name)
            .raw("OId", oid)
            .value("sfid", &made.id)
            .value("DisplayField", Some(&object.display_field).filter(|it| !it.is_empty()))
            .raw("DisplayValue", shown(object, &fields));
        let mut response = Response::from(
            about.clone().value("Success", true).value("ErrorMessage", None::<&str>).fields(&fields).data(),
        );
        if made.now {
            let (topic, subtopic) = CREATE_OBJECT;
            response.events.push(Event {
                triple: Triple::new(CHANNEL, topic, subtopic),
                user: Some(user.to_owned()),
                payload: about.fields(&fields).payload(),
            });
        }
        Ok(response)
    }

    async fn make(&self, user: &str, object: &WritableObject, fields: &[Field], key: &str) -> Result<Made, Refusal> {
        let Writer { org, creations, .. } = &*self.writer;
        let make = |look| async move {
            let target = target(object, fields);
            org.count_call(user).map_err(|fault| told(&fault, &target))?;
            let mut fields = fields.to_vec();
            fields.push((object.external_id.clone(), json_text(key)));
            org.create(&target, &fields, (&object.external_id, key), look).await.map_err(|fault| {
                let refusal = told(&fault, &target);
                match refusal.code.retryable() {
                    true => Refusal::new(
                        refusal.code,
                        format!("{}; repeated with the same id, it makes one record at most", refusal.message),
                    ),
                    false => refusal,
                }
            })
        };
        creations.once(Instant::now().into_std(), key, make).await
    }
}

/// The value of the display field, if this request set it.
fn shown<'a>(object: &WritableObject, fields: &'a [Field]) -> &'a RawValue {
    let shown = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(&object.display_field));
    shown.map_or(RawValue::NULL, |(_, value)| value)
}

impl Handler for CreateObject {
    fn serves(&self) -> Vec<Pattern> {
        vec![exactly(CREATE_OBJECT)]
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        &["callId", "Name", "OId", "sfid", "DisplayField", "DisplayValue"]
    }

    fn repeats(&self) -> &'static [&'static str] {
        &["callId", "Name", "OId", "sfid"]
    }

    fn handle(&self, given: Given) -> Answer<'_> {
        Box::pin(self.create(given))
    }
}
