//! Audit records of what is written to an org: [`Audited`] around a handler of requests, and records of creations and of
//! changes that an event causes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};

use super::data::Asked;
use super::known::Record;
use super::{CallKey, Writer};
use crate::adapter::{Answer, Event, Given, Handler, Heard, Publish, Refused, Response};
use crate::audit::{self, Audit, Entry};
use crate::router::{OWN_SOURCE, SessionId};
use crate::salesforce::fault::Fault;
use crate::salesforce::write::Field;
use wire::{ErrorCode, Pattern, Refusal};

/// The keys of an answer that are not fields of the record.
const DOCUMENTED: [&str; 8] = ["callId", "callid", "Name", "OId", "sfid", "Success", "ErrorMessage", "isManual"];

/// A handler whose requests leave records.
pub(super) struct Audited<H> {
    handler: H,
    writer: Arc<Writer>,
    leaves: Leaves,
}

/// Which requests leave a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// All.
    All,
    /// Those that are refused or fail. The handler itself records what it writes.
    Failed,
}

impl<H: Handler> Audited<H> {
    /// Each request leaves a record.
    pub(super) fn new(handler: H, writer: &Arc<Writer>) -> Self {
        Self { handler, writer: Arc::clone(writer), leaves: Leaves::All }
    }

    /// Each request that is refused or fails leaves a record.
    pub(super) fn failures(handler: H, writer: &Arc<Writer>) -> Self {
        Self { leaves: Leaves::Failed, ..Self::new(handler, writer) }
    }
}

impl<H: Handler> Handler for Audited<H> {
    fn serves(&self) -> Vec<Pattern> {
        self.handler.serves()
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        self.handler.failure_keys()
    }

    fn repeats(&self) -> &'static [&'static str] {
        self.handler.repeats()
    }

    fn record_key(&self, given: &Given) -> Option<String> {
        self.handler.record_key(given)
    }

    fn handle(&self, given: Given) -> Answer<'_> {
        let write = Write::new(&self.writer, &given);
        Box::pin(async move {
            let outcome = self.handler.handle(given).await;
            match self.leaves {
                Leaves::Failed if outcome.is_ok() => write.discard(),
                Leaves::All | Leaves::Failed => write.end(&outcome),
            }
            outcome
        })
    }

    fn work<'a>(&'a self, publish: &'a Publish) -> Heard<'a> {
        self.handler.work(publish)
    }

    fn refused(&self, refused: &Refused<'_>) {
        refused.record(audit::Event::Write, &self.writer.audit);
        self.handler.refused(refused);
    }

    fn hears(&self) -> Vec<Pattern> {
        self.handler.hears()
    }

    fn hear(&self, event: Event) -> Heard<'_> {
        self.handler.hear(event)
    }
}

/// A request in progress. It is recorded when it is dropped: as cancelled, unless it has another outcome by then.
struct Write {
    audit: Arc<Audit>,
    discarded: bool,
    outcome: Option<ErrorCode>,
    source: Arc<str>,
    user: Option<Box<str>>,
    session: SessionId,
    address: Option<IpAddr>,
    triple: String,
    object: Option<String>,
    id: Option<String>,
    fields: Vec<String>,
}

impl Write {
    /// What is known before the request is handled. A payload that cannot be read names no object.
    fn new(writer: &Writer, given: &Given) -> Self {
        let asked = Asked::read(given.payload.as_ref()).ok();
        let object = asked.as_ref().and_then(|asked| writer.org.config.objects.get(&asked.name().ok()?));
        let fields = asked.as_ref().zip(object).map(|(asked, object)| {
            let variables = asked.params().unwrap_or_default();
            variables.iter().filter_map(|(name, _)| object.fields.get(name).cloned()).collect()
        });
        Self {
            audit: Arc::clone(&writer.audit),
            discarded: false,
            outcome: Some(ErrorCode::RequestCancelled),
            source: Arc::clone(&given.source),
            user: given.user.clone(),
            session: given.session,
            address: given.address,
            triple: given.triple.to_string(),
            object: object.map(|object| object.object.clone()),
            id: asked.and_then(|asked| asked.record().ok()).map(|(_, id)| id),
            fields: fields.unwrap_or_default(),
        }
    }

    /// Records this outcome.
    fn end(mut self, outcome: &Result<Response, Refusal>) {
        self.outcome = outcome.as_ref().err().map(|refusal| refusal.code);
        if let Ok(response) = outcome {
            self.note_answer(response);
        }
    }

    /// Leaves no record.
    fn discard(mut self) {
        self.discarded = true;
    }

    /// Adds the fields that only the answer has, because the broker added them.
    fn note_answer(&mut self, response: &Response) {
        let mut text = Vec::new();
        if response.data.write(&mut text).is_err() {
            return;
        }
        let Ok(answer) = serde_json::from_slice::<Map<String, Value>>(&text) else { return };
        for (key, _) in answer {
            if !DOCUMENTED.contains(&key.as_str()) && !self.fields.contains(&key) {
                self.fields.push(key);
            }
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if self.discarded {
            return;
        }
        let target = match (&self.object, &self.id) {
            (Some(object), Some(id)) => format!("{object}/{id}"),
            (Some(object), None) => object.clone(),
            (None, _) => std::mem::take(&mut self.triple),
        };
        self.audit.record(&Entry {
            outcome: self.outcome,
            source: Some(&self.source),
            user: self.user.as_deref(),
            session: Some(self.session.to_string()),
            address: self.address,
            target: Some(target.into()),
            fields: self.fields.iter().map(|field| field.as_str().into()).collect(),
            ..Entry::new(audit::Event::Write)
        });
    }
}

/// The session that requested something.
pub(super) struct Requester {
    source: Arc<str>,
    session: SessionId,
    address: Option<IpAddr>,
}

impl Requester {
    pub(super) fn of(given: &Given) -> Self {
        Self { source: Arc::clone(&given.source), session: given.session, address: given.address }
    }
}

impl Writer {
    /// Records a creation. It leaves one record, however many requests there are for it.
    pub(super) fn record_creation(&self, requester: &Requester, user: &str, record: &Record, written: &[Field]) {
        let Some(object) = self.org.config.objects.get(&record.name) else { return };
        self.audit.record(&Entry {
            source: Some(&requester.source),
            user: Some(user),
            session: Some(requester.session.to_string()),
            address: requester.address,
            target: Some(format!("{}/{}", object.object, record.id).into()),
            fields: written.iter().map(|(field, _)| field.clone().into()).collect(),
            ..Entry::new(audit::Event::Write)
        });
    }

    /// Records a change that no request asked for: an event of the call caused it. A change of no field is not recorded.
    pub(super) fn record_change(
        &self,
        now: Instant,
        call: &CallKey,
        record: &Record,
        outcome: &Result<Vec<Field>, Fault>,
    ) {
        let Some(object) = self.org.config.objects.get(&record.name) else { return };
        let fields = match outcome {
            Ok(written) if written.is_empty() => return,
            Ok(written) => written.iter().map(|(field, _)| field.clone().into()).collect(),
            // What could not be written is still saved.
            Err(_) => {
                self.calls.kept(now, call).iter().filter_map(|it| object.fields.get(&it.name)).map(Into::into).collect()
            }
        };
        self.audit.record(&Entry {
            outcome: outcome.as_ref().err().map(|fault| fault.refusal().code),
            source: Some(OWN_SOURCE),
            user: Some(call.user()),
            target: Some(format!("{}/{}", object.object, record.id).into()),
            fields,
            ..Entry::new(audit::Event::Write)
        });
    }
}
