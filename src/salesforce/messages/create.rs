//! [`CreateObject`]: answers `Salesforce/Call/CreateObject` by creating one record, and announces it to the user's
//! applications with the documented event on the same triple.
//!
//! A repeated request creates no second record: the record's External ID is a hash of the request, and a creation runs to
//! its end even if its requester no longer waits. [`CreateObject::request`] is what a request does, and
//! [`CreateObject::carry_out`] what a creation does.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::audited::{Requester, Write};
use super::creation::{Before, Created, Creation, Failed, Outcome, Waiting};
use super::creations::{Begun, key};
use super::data::{Asked, Told};
use super::doubt::look_for;
use super::known::Record;
use super::values::Values;
use super::writable::{Way, Writable, json_text, mapped, target};
use super::{CallKey, Writer, log, named};
use crate::adapter::{Answer, Event, Given, Handler, Heard, Publish, Refused, Response};
use crate::config::WritableObject;
use crate::salesforce::fault::Fault;
use crate::salesforce::write::{Field, Posted};
use crate::salesforce::write_fault::Target;
use crate::salesforce::{CHANNEL, CREATE_OBJECT, exactly};
use wire::{ErrorCode, Pattern, Refusal, Triple};

/// The handler.
pub(super) struct CreateObject {
    writer: Arc<Writer>,
    begin: mpsc::Sender<Job>,
    /// Taken by [`Handler::work`].
    begun: Mutex<Option<mpsc::Receiver<Job>>>,
}

/// A creation that has to be carried out.
struct Job {
    creation: Arc<Creation>,
    before: Before,
    key: String,
    requester: Requester,
    wanted: Arc<Wanted>,
}

/// A record that a request wants.
struct Wanted {
    /// The object as it was configured when the request began.
    object: WritableObject,
    user: String,
    call: String,
    /// The call's id as it came.
    call_raw: Box<RawValue>,
    name: String,
    oid: Box<RawValue>,
    /// The requested fields, and the one with the call's id.
    fields: Vec<Field>,
}

impl CreateObject {
    /// Shares a writer with the other handlers.
    pub(super) fn new(writer: &Arc<Writer>) -> Self {
        // Each creation in progress is at most once in the queue, and `Creations` bounds them.
        let (begin, begun) = mpsc::channel(Semaphore::MAX_PERMITS);
        Self { writer: Arc::clone(writer), begin, begun: Mutex::new(Some(begun)) }
    }

    /// Answers a request. The answer may be that the outcome is not known yet.
    async fn request(&self, writable: &Writable, given: &Given) -> Result<Response, Refusal> {
        let user = named(given)?;
        let asked = Asked::read(given.payload.as_ref())?;
        let (call, name, oid) = (asked.call()?, asked.name()?, asked.oid()?);
        let params = asked.params()?;
        let values = Values::of(&params);
        let object = writable.object(&name, Way::Create)?;
        let mut fields = mapped(&name, object, params)?;
        if !object.call_field.is_empty() {
            fields.push((object.call_field.clone(), json_text(&call.id)));
        }
        // A request without an id cannot be repeated.
        let drawn = || hex::encode(rand::random::<[u8; 16]>()).into();
        let request_id = given.request_id.clone().unwrap_or_else(drawn);
        let key = key([user, &given.source, &request_id, &call.id, &name]);
        let (repeatable, requester) = (given.request_id.is_some(), Requester::of(given));
        let wanted = Wanted {
            object: object.clone(),
            user: user.to_owned(),
            call: call.id,
            call_raw: call.raw.to_owned(),
            name,
            oid: oid.to_owned(),
            fields,
        };

        let now = Instant::now().into_std();
        let wanted = Arc::new(wanted);
        let (outcome, announces) = match self.writer.creations.begin(now, (&key, user), values, repeatable)? {
            Begun::Done(created) => (Ok(created), false),
            Begun::Running(waiting) => self.wait(waiting, repeatable).await?,
            Begun::New(creation, before, waiting) => {
                self.start(Job { creation, before, key, requester, wanted: Arc::clone(&wanted) });
                self.wait(waiting, repeatable).await?
            }
        };
        let created = outcome.map_err(|failed| failed.refusal)?;
        let announcement = Announcement::new(&wanted, &created);
        let mut response = Response::from(announcement.answer());
        if announces {
            response.events.push(announcement.event(&wanted.user));
        }
        Ok(response)
    }

    fn start(&self, job: Job) {
        // It fails only while the broker ends.
        if let Err(refused) = self.begin.try_send(job) {
            let job = refused.into_inner();
            let refusal =
                Refusal::new(ErrorCode::UpstreamUnavailable, "the broker is about to end; try again in a moment");
            let failed = Failed { refusal, before_next: job.before };
            self.writer.creations.end(Instant::now().into_std(), &job.creation, Err(failed));
        }
    }

    /// Waits for a creation for as long as for any request to Salesforce. The creation goes on.
    async fn wait(&self, waiting: Waiting, repeatable: bool) -> Result<(Outcome, bool), Refusal> {
        timeout(self.writer.org.get().config.timeout, waiting.ended()).await.ok();
        waiting.leave().ok_or_else(|| {
            let advice = match repeatable {
                true => "send the request again with the same id to get the outcome; it makes one record at most",
                false => "without an id in the request, the outcome cannot be asked for",
            };
            Refusal::new(
                ErrorCode::UpstreamUnavailable,
                format!("Salesforce has not said yet whether the record was created; {advice}"),
            )
        })
    }

    /// Carries a creation out: records it in the audit log if this process created the record, and announces the record if
    /// nobody waits for it any more.
    async fn carry_out(&self, job: Job, publish: &Publish) {
        let outcome = self.create(&job).await;
        let wanted = &job.wanted;
        if let Ok(created) = &outcome {
            if created.found.is_none() {
                let record = (&wanted.object, created.id.as_str());
                self.writer.record_written(&job.requester, &wanted.user, record, &wanted.fields);
            }
            let call = CallKey::new(&wanted.user, &wanted.call);
            let record = Record { name: wanted.name.clone(), id: created.id.clone() };
            self.writer.known.know(Instant::now().into_std(), &call, record);
        }
        let announces = self.writer.creations.end(Instant::now().into_std(), &job.creation, outcome.clone());
        if announces && let Ok(created) = &outcome {
            publish(Announcement::new(wanted, created).event(&wanted.user));
        }
    }

    async fn create(&self, job: &Job) -> Outcome {
        let (org, object) = (self.writer.org.get(), &job.wanted.object);
        let target = target(object, &job.wanted.fields);
        let key = (object.external_id.as_str(), job.key.as_str());
        let failed = |fault: &Fault| failed(fault, &target, job.before);
        // The first request counts as a call of the user, the others do not.
        let mut user = Some(job.wanted.user.as_str());
        if job.before != Before::Absent {
            let found = org.by_external_id(user.take(), &target, key).await;
            if let Some(id) = found.map_err(|fault| failed(&fault))? {
                return self.found(job, id).await;
            }
        }
        let mut fields = job.wanted.fields.clone();
        fields.push((object.external_id.clone(), json_text(&job.key)));
        match org.post(user, &target, &fields).await {
            Ok(Posted::New(id)) => Ok(Created { id, found: None }),
            Ok(Posted::Duplicate) => match org.by_external_id(None, &target, key).await {
                Ok(Some(id)) => self.found(job, id).await,
                Ok(None) => Err(failed(&duplicate(object))),
                Err(fault) => Err(failed(&fault)),
            },
            Err(fault) if fault.is_in_doubt() => {
                log(&fault, &target);
                tracing::info!(object = target.object, "the record may exist anyway; the broker looks for it");
                match look_for(|| org.by_external_id(None, &target, key)).await {
                    Ok(Some(id)) => Ok(Created { id, found: None }),
                    Ok(None) => Err(Failed { refusal: repeatable(fault.refusal()), before_next: Before::AsAsked }),
                    Err(fault) => Err(failed(&fault.in_doubt())),
                }
            }
            Err(fault) => Err(failed(&fault)),
        }
    }

    /// Ends the creation of a record that the org has already. If this process may not have created it, reads the fields
    /// that messages may write, without those that are empty and were not requested.
    async fn found(&self, job: &Job, id: String) -> Outcome {
        if job.before == Before::AsAsked {
            return Ok(Created { id, found: None });
        }
        let object = &job.wanted.object;
        let is_wanted = |field: &str| job.wanted.fields.iter().any(|(it, _)| it == field);
        let mut target = target(object, &job.wanted.fields);
        target.fields.extend(object.fields.values().map(String::as_str).filter(|field| !is_wanted(field)));
        let read = self.writer.org.get().read(&target, &id).await;
        let mut fields = read.map_err(|fault| failed(&fault, &target, Before::Unknown))?;
        fields.retain(|(field, value)| value.get() != "null" || is_wanted(field));
        Ok(Created { id, found: Some(fields.into()) })
    }
}

/// What the requester and the user's applications are told of a record.
struct Announcement {
    about: Told,
    fields: Vec<Field>,
}

impl Announcement {
    /// Reports the values with which the record was found, or the requested ones if it was created.
    fn new(wanted: &Wanted, created: &Created) -> Self {
        let object = &wanted.object;
        let fields = created.found.as_deref().unwrap_or(&wanted.fields).to_vec();
        let shown = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(&object.display_field));
        let about = Told::default()
            .raw("callId", &wanted.call_raw)
            .value("Name", &wanted.name)
            .raw("OId", &wanted.oid)
            .value("sfid", &created.id)
            .value("DisplayField", Some(&object.display_field).filter(|it| !it.is_empty()))
            .raw("DisplayValue", shown.map_or(RawValue::NULL, |(_, value)| value));
        Self { about, fields }
    }

    fn answer(&self) -> crate::adapter::Data {
        self.about.clone().value("Success", true).value("ErrorMessage", None::<&str>).fields(&self.fields).data()
    }

    fn event(self, user: &str) -> Event {
        let (topic, subtopic) = CREATE_OBJECT;
        Event {
            triple: Triple::new(CHANNEL, topic, subtopic),
            user: Some(user.to_owned()),
            payload: self.about.fields(&self.fields).payload(),
        }
    }
}

/// The failure of a creation. `before` says whether the org may have had the record when the attempt began.
fn failed(fault: &Fault, target: &Target<'_>, before: Before) -> Failed {
    log(fault, target);
    Failed {
        refusal: repeatable(fault.refusal()),
        before_next: if fault.is_in_doubt() { Before::AsAsked } else { before },
    }
}

fn repeatable(refusal: Refusal) -> Refusal {
    match refusal.code.retryable() {
        true => Refusal::new(
            refusal.code,
            format!("{}; repeated with the same id, it makes one record at most", refusal.message),
        ),
        false => refusal,
    }
}

fn duplicate(object: &WritableObject) -> Fault {
    Fault::row(
        "Salesforce refuses the write: there is such a record already (DUPLICATE_VALUE)",
        format!(
            "DUPLICATE_VALUE: a field of {} that is unique, not {}, has the value",
            object.object, object.external_id
        ),
    )
}

impl Handler for CreateObject {
    fn name(&self) -> &'static str {
        CREATE_OBJECT.1
    }

    fn serves(&self) -> Vec<Pattern> {
        if self.writer.writable().allows(Way::Create) { vec![exactly(CREATE_OBJECT)] } else { Vec::new() }
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        &["callId", "Name", "OId", "sfid", "DisplayField", "DisplayValue"]
    }

    fn repeats(&self) -> &'static [&'static str] {
        &["callId", "Name", "OId", "sfid"]
    }

    fn handle(&self, given: Given) -> Answer<'_> {
        let writable = self.writer.writable();
        let write = Write::new(&self.writer, &writable, Way::Create, &given);
        Box::pin(async move { write.end(self.request(&writable, &given).await) })
    }

    fn refused(&self, refused: &Refused<'_>) {
        self.writer.record_refused(refused);
    }

    fn work<'a>(&'a self, publish: &'a Publish) -> Heard<'a> {
        Box::pin(async move {
            let Some(mut begun) = self.begun.lock().take() else { return };
            let mut running = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(job) = begun.recv() => running.push(self.carry_out(job, publish)),
                    Some(()) = running.next() => {}
                    else => return,
                }
            }
        })
    }
}
