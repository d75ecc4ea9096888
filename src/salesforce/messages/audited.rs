//! Audit records of what is written to an org: [`Write`] around a request, and records of creations and of changes that an
//! event causes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::data::Asked;
use super::writable::{Way, Writable};
use super::{CallKey, Writer};
use crate::adapter::{Given, Refused, Response};
use crate::audit::{self, Entry};
use crate::config::WritableObject;
use crate::router::{OWN_SOURCE, SessionId};
use crate::salesforce::fault::Fault;
use crate::salesforce::write::Field;
use wire::{ErrorCode, Refusal};

/// A request in progress. If it has not succeeded when it is dropped, it is recorded: as cancelled, unless it has another
/// outcome by then.
pub(super) struct Write {
    writer: Arc<Writer>,
    writable: Arc<Writable>,
    way: Way,
    failure: Option<ErrorCode>,
    requester: Requester,
    user: Option<Box<str>>,
    triple: String,
    /// The NAME of the object, if it is configured.
    name: Option<String>,
    id: Option<String>,
    call: Option<CallKey>,
    /// The requested fields.
    fields: Vec<String>,
}

impl Write {
    /// What is known before the request is handled. A payload that cannot be read names no object.
    pub(super) fn new(writer: &Arc<Writer>, writable: &Arc<Writable>, way: Way, given: &Given) -> Self {
        let asked = Asked::read(given.payload.as_ref()).ok();
        let name = asked.as_ref().and_then(|asked| asked.name().ok());
        let name = name.filter(|name| writable.objects.contains_key(name));
        let object = name.as_ref().and_then(|name| writable.objects.get(name));
        let fields = asked.as_ref().zip(object).map(|(asked, object)| {
            let variables = asked.params().unwrap_or_default();
            variables.iter().filter_map(|(name, _)| object.fields.get(name).cloned()).collect()
        });
        let call = asked.as_ref().and_then(|asked| asked.call().ok());
        Self {
            writer: Arc::clone(writer),
            writable: Arc::clone(writable),
            way,
            failure: Some(ErrorCode::RequestCancelled),
            requester: Requester::of(given),
            user: given.user.clone(),
            triple: given.triple.to_string(),
            fields: fields.unwrap_or_default(),
            id: asked.as_ref().and_then(|asked| asked.record().ok()).map(|(_, id)| id),
            call: call.zip(given.user.as_deref()).map(|(call, user)| CallKey::new(user, &call.id)),
            name,
        }
    }

    /// Ends it with this outcome. The handler records what it has written.
    pub(super) fn end(mut self, outcome: Result<Response, Refusal>) -> Result<Response, Refusal> {
        self.failure = outcome.as_ref().err().map(|refusal| refusal.code);
        outcome
    }

    /// Returns the fields that it was to write.
    fn fields(&self, now: Instant, object: &WritableObject) -> Vec<String> {
        let mut fields = self.fields.clone();
        let added = self.call.as_ref().map(|call| self.writer.added_fields(now, self.way, object, call));
        for field in added.unwrap_or_default() {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        fields
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let Some(failure) = self.failure else { return };
        let object = self.name.as_ref().and_then(|name| self.writable.objects.get(name));
        let target = match (object, &self.id) {
            (Some(object), Some(id)) => format!("{}/{id}", object.object),
            (Some(object), None) => object.object.clone(),
            (None, _) => self.triple.clone(),
        };
        let fields =
            object.map(|object| self.fields(tokio::time::Instant::now().into_std(), object)).unwrap_or_default();
        self.writer.audit.record(&Entry {
            outcome: Some(failure),
            user: self.user.as_deref(),
            target: Some(target.into()),
            fields: fields.into_iter().map(Into::into).collect(),
            ..self.requester.entry()
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

    /// An entry about something that it requested.
    fn entry(&self) -> Entry<'_> {
        Entry {
            source: Some(&self.source),
            session: Some(self.session.to_string()),
            address: self.address,
            ..Entry::new(audit::Event::Write)
        }
    }
}

impl Writer {
    /// Records a request that was refused before it was handled.
    pub(super) fn record_refused(&self, refused: &Refused<'_>) {
        refused.record(audit::Event::Write, &self.audit);
    }

    /// Records what a request wrote to a record, by its id. A creation leaves one record, however many requests there are
    /// for it.
    pub(super) fn record_written(
        &self,
        requester: &Requester,
        user: &str,
        (object, id): (&WritableObject, &str),
        written: &[Field],
    ) {
        self.audit.record(&Entry {
            user: Some(user),
            target: Some(format!("{}/{id}", object.object).into()),
            fields: written.iter().map(|(field, _)| field.clone().into()).collect(),
            ..requester.entry()
        });
    }

    /// Records a change that no request asked for: an event of the call caused it. A change of no field is not recorded.
    pub(super) fn record_change(
        &self,
        now: Instant,
        call: &CallKey,
        (object, id): (&WritableObject, &str),
        outcome: &Result<Vec<Field>, Fault>,
    ) {
        let fields = match outcome {
            Ok(written) if written.is_empty() => return,
            Ok(written) => written.iter().map(|(field, _)| field.clone().into()).collect(),
            // What could not be written is still saved.
            Err(_) => self.added_fields(now, Way::Update, object, call).into_iter().map(Into::into).collect(),
        };
        self.audit.record(&Entry {
            outcome: outcome.as_ref().err().map(|fault| fault.refusal().code),
            source: Some(OWN_SOURCE),
            user: Some(call.user()),
            target: Some(format!("{}/{id}", object.object).into()),
            fields,
            ..Entry::new(audit::Event::Write)
        });
    }

    /// Returns the fields that a write of a call's record has besides the requested ones: those of saved variables, which
    /// only a change writes, and the one with the call's id.
    fn added_fields(&self, now: Instant, way: Way, object: &WritableObject, call: &CallKey) -> Vec<String> {
        let saved = match way {
            Way::Update => self.calls.kept(now, call),
            Way::Create => Vec::new(),
        };
        let of_call = Some(&object.call_field).filter(|field| !field.is_empty());
        saved.iter().filter_map(|variable| object.fields.get(&variable.name)).chain(of_call).cloned().collect()
    }
}
