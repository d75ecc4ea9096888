//! [`UpdateObject`]: answers `Salesforce/Call/UpdateObject` by changing mapped fields of one record.
//!
//! Writing the same values twice changes nothing, so repeated requests need no memory.

use std::sync::Arc;

use super::audited::Requester;
use super::data::{Asked, Told};
use super::known::Record;
use super::{CallKey, Change, Way, Writer, mapped, named, wanted_by_many};
use crate::adapter::{Answer, Given, Handler, Response};
use crate::salesforce::{UPDATE_OBJECT, exactly};
use wire::Pattern;
use wire::Refusal;

/// The handler.
pub(super) struct UpdateObject {
    writer: Arc<Writer>,
}

impl UpdateObject {
    /// Shares a writer with the other handlers.
    pub(super) fn new(writer: &Arc<Writer>) -> Self {
        Self { writer: Arc::clone(writer) }
    }

    async fn update(&self, given: Given) -> Result<Response, Refusal> {
        let user = named(&given)?;
        let asked = Asked::read(given.payload.as_ref())?;
        let (call, name, oid, (sfid, id)) = (asked.call()?, asked.name()?, asked.oid()?, asked.record()?);
        let params = asked.params()?;
        let object = self.writer.object(&name, Way::Update)?;
        if given.waited > given.timeout {
            // Begun now, it might be done after its requester was told that it had failed.
            return Err(wanted_by_many(object).refusal());
        }
        let fields = mapped(&name, object, params)?;
        let record = Record { name, id };
        let key = CallKey::new(user, &call.id);
        let change = Change { call: &key, call_id: &call.id, record: &record, fields };
        let written = self.writer.change(object, change).await.map_err(|fault| fault.refusal())?;
        self.writer.record_written(&Requester::of(&given), user, &record, &written);
        // The documents spell the call's id in both ways and do not say which one the answer uses.
        let told = Told::default()
            .raw("callId", call.raw)
            .raw("callid", call.raw)
            .value("Name", &record.name)
            .raw("OId", oid)
            .raw("sfid", sfid)
            .value("Success", true)
            .value("ErrorMessage", None::<&str>)
            .value("isManual", true)
            .fields(&written);
        Ok(Response::from(told.data()))
    }
}

impl Handler for UpdateObject {
    fn name(&self) -> &'static str {
        UPDATE_OBJECT.1
    }

    fn serves(&self) -> Vec<Pattern> {
        vec![exactly(UPDATE_OBJECT)]
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        &["callId", "callid", "Name", "OId", "sfid"]
    }

    fn repeats(&self) -> &'static [&'static str] {
        &["callId", "callid", "Name", "OId", "sfid"]
    }

    fn record_key(&self, given: &Given) -> Option<String> {
        Asked::read(given.payload.as_ref()).and_then(|asked| asked.record()).ok().map(|(_, id)| id)
    }

    fn handle(&self, given: Given) -> Answer<'_> {
        Box::pin(self.update(given))
    }
}
