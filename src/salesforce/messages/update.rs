//! [`UpdateObject`]: answers `Salesforce/Call/UpdateObject` by changing mapped fields of one record.
//!
//! Writing the same values twice changes nothing, so repeated requests need no memory.

use std::sync::Arc;

use super::audited::{Requester, Write};
use super::data::{Asked, Told};
use super::known::Record;
use super::writable::{Way, Writable, mapped};
use super::{CallKey, Change, Writer, named, wanted_by_many};
use crate::adapter::{Answer, Given, Handler, Refused, Response};
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

    async fn update(&self, writable: &Writable, given: &Given) -> Result<Response, Refusal> {
        let user = named(given)?;
        let asked = Asked::read(given.payload.as_ref())?;
        let (call, name, oid, (sfid, id)) = (asked.call()?, asked.name()?, asked.oid()?, asked.record()?);
        let params = asked.params()?;
        let object = writable.object(&name, Way::Update)?;
        if given.waited > given.timeout {
            // Begun now, it might be done after its requester was told that it had failed.
            return Err(wanted_by_many(object).refusal());
        }
        let fields = mapped(&name, object, params)?;
        let record = Record { name, id };
        let key = CallKey::new(user, &call.id);
        let change = Change { call: &key, call_id: &call.id, record: &record, fields };
        let written = self.writer.change(object, change).await.map_err(|fault| fault.refusal())?;
        self.writer.record_written(&Requester::of(given), user, (object, &record.id), &written);
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
        if self.writer.writable().allows(Way::Update) { vec![exactly(UPDATE_OBJECT)] } else { Vec::new() }
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
        let writable = self.writer.writable();
        let write = Write::new(&self.writer, &writable, Way::Update, &given);
        Box::pin(async move { write.end(self.update(&writable, &given).await) })
    }

    fn refused(&self, refused: &Refused<'_>) {
        self.writer.record_refused(refused);
    }
}
