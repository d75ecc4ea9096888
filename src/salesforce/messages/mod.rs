//! The requests that write to an org: `Call/UpdateObject`, `Call/CreateObject`, `Call/SaveCustomVariables` and
//! `Call/RemoveCustomVariables`.
//!
//! Only objects and fields in `[salesforce.objects.NAME]` are ever written. Without such a table the handlers serve
//! nothing, and the triples are ordinary ones.
//!
//! `writable` is what the configuration allows. `data` reads and writes payloads. `calls` keeps the variables of a call, and
//! `known` its records. `creation`, `creations` and `doubt` make sure that a record is created only once. `unwritten` has the
//! variables that could not be written. `audited` records what is written. [`Writer`] is what the handlers share: it outlives
//! a reload, which replaces what is writable and the bounds of the rest.

mod audited;
mod calls;
mod create;
mod creation;
mod creations;
mod data;
mod doubt;
mod known;
mod unwritten;
mod update;
mod values;
mod variables;
mod writable;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::{Instant, timeout};

use self::calls::{CallKey, Calls, Kept};
use self::create::CreateObject;
use self::creations::Creations;
use self::known::{Known, Record};
use self::unwritten::Unwritten;
use self::update::UpdateObject;
use self::variables::CustomVariables;
use self::writable::{Way, Writable, json_text, target};
use super::CurrentOrg;
use super::fault::Fault;
use super::write::{Field, Turns};
use super::write_fault::Target;
use crate::adapter::{Given, Handler};
use crate::audit::Audit;
use crate::config::{Salesforce, WritableObject};
use crate::router::SwitchedOff;
use crate::salesforce::{CREATE_OBJECT, REMOVE_VARIABLES, SAVE_VARIABLES, UPDATE_OBJECT, exactly};
use wire::{ErrorCode, Refusal};

/// The handlers of an org. Those that the configuration switches off serve nothing.
pub struct Writers {
    writer: Arc<Writer>,
    handlers: [Arc<dyn Handler>; 3],
}

impl Writers {
    /// What the handlers write is recorded in `audit`.
    #[must_use]
    pub fn new(org: &Arc<CurrentOrg>, config: &Salesforce, audit: &Arc<Audit>) -> Self {
        let Salesforce { variables, creations, .. } = config;
        let writer = Arc::new(Writer {
            org: Arc::clone(org),
            writable: ArcSwap::from_pointee(Writable::new(config)),
            audit: Arc::clone(audit),
            calls: Calls::new(variables),
            known: Known::new(variables),
            unwritten: Unwritten::new(variables),
            creations: Creations::new(Instant::now().into_std(), creations),
            turns: Turns::default(),
        });
        let handlers: [Arc<dyn Handler>; 3] = [
            Arc::new(UpdateObject::new(&writer)),
            Arc::new(CustomVariables::new(&writer)),
            Arc::new(CreateObject::new(&writer)),
        ];
        Self { writer, handlers }
    }

    /// The handlers of `UpdateObject`, of saved variables, and of `CreateObject`.
    pub fn handlers(&self) -> &[Arc<dyn Handler>] {
        &self.handlers
    }

    /// Puts another configuration in force. A request that a handler has begun ends with the one with which it began; those
    /// that wait are handled by the new one. What was saved, created and is known stays.
    pub fn replace(&self, config: &Salesforce) {
        let Salesforce { variables, creations, .. } = config;
        let now = Instant::now().into_std();
        let writer = &self.writer;
        writer.calls.set_bounds(now, variables);
        writer.known.set_bounds(now, variables);
        writer.unwritten.set_bounds(variables);
        writer.creations.set_bounds(creations);
        writer.writable.store(Arc::new(Writable::new(config)));
    }
}

/// The handlers that a configuration switches off.
pub fn switched_off(config: &Salesforce) -> Vec<SwitchedOff> {
    let writable = Writable::new(config);
    let mut off = Vec::new();
    if !writable.allows(Way::Update) {
        let serves = [UPDATE_OBJECT, SAVE_VARIABLES, REMOVE_VARIABLES].map(exactly).to_vec();
        off.push(SwitchedOff { serves, key: "salesforce.objects.NAME.update" });
    }
    if !writable.allows(Way::Create) {
        off.push(SwitchedOff { serves: vec![exactly(CREATE_OBJECT)], key: "salesforce.objects.NAME.create" });
    }
    off
}

/// What the handlers share.
struct Writer {
    org: Arc<CurrentOrg>,
    writable: ArcSwap<Writable>,
    audit: Arc<Audit>,
    calls: Calls,
    known: Known,
    unwritten: Unwritten,
    creations: Creations,
    turns: Turns,
}

/// A change of a record.
struct Change<'a> {
    /// The call that it belongs to.
    call: &'a CallKey,
    call_id: &'a str,
    record: &'a Record,
    /// The fields in the request, without the saved variables of the call.
    fields: Vec<Field>,
}

impl Writer {
    /// What may be written now.
    fn writable(&self) -> Arc<Writable> {
        self.writable.load_full()
    }

    /// Writes the requested fields and the saved variables of the call that are mapped, and returns what was written.
    /// The written variables are dropped. A failure is logged for the operator.
    async fn change(&self, object: &WritableObject, change: Change<'_>) -> Result<Vec<Field>, Fault> {
        let before = self.calls.kept(Instant::now().into_std(), change.call);
        let org = self.org.get();
        let written = org.client.within(async {
            // Half of the time is reserved for the write. A write that is cut short counts as a failure of Salesforce,
            // so one record that many want to change could open the breaker for everybody.
            let turn = timeout(org.config.timeout / 2, self.turns.take(&change.record.id));
            let _turn = turn.await.map_err(|_| wanted_by_many(object))?;
            // Looked up only now that it is our turn: the write before ours may have written or replaced the variables.
            let (fields, taken) = self.due(&change, object, &before);
            if !fields.is_empty() {
                org.change(change.call.user(), &target(object, &fields), &change.record.id, &fields).await?;
            }
            self.calls.written(change.call, &taken);
            self.known.know(Instant::now().into_std(), change.call, change.record.clone());
            Ok(fields)
        });
        written.await.inspect_err(|fault| log(fault, &target(object, &self.due(&change, object, &before).0)))
    }

    /// Returns the fields that a change writes, and the variables that are done afterwards. `before` is what was saved
    /// when the request arrived.
    fn due(&self, change: &Change<'_>, object: &WritableObject, before: &[Kept]) -> (Vec<Field>, Vec<Kept>) {
        let mut fields = change.fields.clone();
        let mut taken = Vec::new();
        for variable in self.calls.kept(Instant::now().into_std(), change.call) {
            let Some(field) = object.fields.get(&variable.name) else { continue };
            if !change.fields.iter().any(|(asked, _)| asked == field) {
                fields.push((field.clone(), variable.value.clone()));
                taken.push(variable);
            } else if before.iter().any(|it| it.is(&variable)) {
                // The requested value is newer than one that was saved before the request.
                taken.push(variable);
            }
        }
        if !object.call_field.is_empty() {
            fields.push((object.call_field.clone(), json_text(change.call_id)));
        }
        (fields, taken)
    }
}

fn wanted_by_many(object: &WritableObject) -> Fault {
    Fault::locked(
        "others are changing this record just now; try again in a moment",
        format!(
            "changes of one record of {} wait for each other: many at once, or a slow trigger or flow on it",
            object.object
        ),
    )
}

/// Logs a fault for the operator.
fn log(fault: &Fault, target: &Target<'_>) {
    fault.log_unwritten(target.object, &target.named_fields());
}

/// Returns the user of a request.
fn named(given: &Given) -> Result<&str, Refusal> {
    given.user.as_deref().ok_or_else(|| {
        Refusal::new(ErrorCode::UserRequired, "a service has to say for whom it asks: add \"user\" to the envelope")
    })
}
