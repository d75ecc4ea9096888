//! The requests that write to an org: `Call/UpdateObject`, `Call/CreateObject`, `Call/SaveCustomVariables` and
//! `Call/RemoveCustomVariables`.
//!
//! Only objects and fields in `[salesforce.objects.NAME]` are ever written. Without such a table there is no handler,
//! and the triples are ordinary ones.
//!
//! `data` reads and writes payloads. `calls` keeps the variables of a call, and `known` its records. `creation`, `creations`
//! and `doubt` make sure that a record is created only once. `unwritten` has the variables that could not be written.
//! `audited` records what is written. [`Writer`] is what the handlers share.

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

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, timeout};

use self::audited::Audited;
use self::calls::{CallKey, Calls, Kept};
use self::create::CreateObject;
use self::creations::Creations;
use self::data::Variable;
use self::known::{Known, Record};
use self::update::UpdateObject;
use self::variables::CustomVariables;
use super::CurrentOrg;
use super::fault::Fault;
use super::write::{Field, Turns};
use super::write_fault::Target;
use crate::adapter::{Given, Handler};
use crate::audit::Audit;
use crate::config::{CallVariables, Salesforce, WritableObject, nearest};
use crate::router::SwitchedOff;
use crate::salesforce::{CREATE_OBJECT, REMOVE_VARIABLES, SAVE_VARIABLES, UPDATE_OBJECT, exactly};
use wire::{ErrorCode, Refusal};

/// Returns the handlers that the configuration of an org needs. What they write is recorded in `audit`.
pub fn writers(org: &Arc<CurrentOrg>, config: &Salesforce, audit: &Arc<Audit>) -> Vec<Arc<dyn Handler>> {
    let Salesforce { objects, variables, creations, .. } = config;
    let writer = Arc::new(Writer {
        org: Arc::clone(org),
        objects: objects.clone(),
        variables: variables.clone(),
        audit: Arc::clone(audit),
        calls: Calls::new(variables),
        known: Known::new(variables),
        creations: Creations::new(Instant::now().into_std(), creations),
        turns: Turns::default(),
    });
    let mut handlers: Vec<Arc<dyn Handler>> = Vec::new();
    if objects.values().any(|it| it.update) {
        handlers.push(Arc::new(Audited::new(UpdateObject::new(&writer), Way::Update, &writer)));
        handlers.push(Arc::new(CustomVariables::new(&writer)));
    }
    if objects.values().any(|it| it.create) {
        handlers.push(Arc::new(Audited::new(CreateObject::new(&writer, creations), Way::Create, &writer)));
    }
    handlers
}

/// The handlers that a configuration switches off.
pub fn switched_off(salesforce: &Salesforce) -> Vec<SwitchedOff> {
    let objects = || salesforce.objects.values();
    let mut off = Vec::new();
    if !objects().any(|it| it.update) {
        let serves = [UPDATE_OBJECT, SAVE_VARIABLES, REMOVE_VARIABLES].map(exactly).to_vec();
        off.push(SwitchedOff { serves, key: "salesforce.objects.NAME.update" });
    }
    if !objects().any(|it| it.create) {
        off.push(SwitchedOff { serves: vec![exactly(CREATE_OBJECT)], key: "salesforce.objects.NAME.create" });
    }
    off
}

/// What the handlers share.
struct Writer {
    org: Arc<CurrentOrg>,
    /// What may be written. Changes with a restart only.
    objects: BTreeMap<String, WritableObject>,
    variables: CallVariables,
    audit: Arc<Audit>,
    calls: Calls,
    known: Known,
    creations: Creations,
    turns: Turns,
}

/// How a record may be written.
#[derive(Clone, Copy)]
enum Way {
    Update,
    Create,
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
    /// Returns the object of a NAME, if its records may be written in this way.
    fn object(&self, name: &str, way: Way) -> Result<&WritableObject, Refusal> {
        let (done, key) = match way {
            Way::Update => ("changed", "update"),
            Way::Create => ("made", "create"),
        };
        let may = |object: &&WritableObject| match way {
            Way::Update => object.update,
            Way::Create => object.create,
        };
        let objects = &self.objects;
        objects.get(name).filter(may).ok_or_else(|| {
            let others = objects.iter().filter(|(_, object)| may(object)).map(|(name, _)| name);
            let similar = nearest_of(name, others);
            let message = match similar.is_empty() {
                true => format!(
                    "data.Name: no record called '{name}' may be {done}; {key} = true in [salesforce.objects.{name}] would \
                     allow it"
                ),
                false => format!("data.Name: no record called '{name}' may be {done}{similar}"),
            };
            Refusal::new(ErrorCode::Forbidden, message)
        })
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

fn target<'a>(object: &'a WritableObject, fields: &'a [Field]) -> Target<'a> {
    Target { object: &object.object, fields: fields.iter().map(|(field, _)| field.as_str()).collect() }
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

/// Writes a text as JSON.
fn json_text(text: &str) -> Box<RawValue> {
    // A text can always be written as JSON.
    to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Logs a fault for the operator.
fn log(fault: &Fault, target: &Target<'_>) {
    fault.log_unwritten(target.object, &target.named_fields());
}

/// Translates variables into fields.
fn mapped(name: &str, object: &WritableObject, variables: Vec<Variable>) -> Result<Vec<Field>, Refusal> {
    let field = |(variable, value): Variable| match object.fields.get(&variable) {
        Some(field) => Ok((field.clone(), value)),
        None => Err(Refusal::new(
            ErrorCode::Forbidden,
            format!(
                "data.params: the variable '{variable}' is not mapped; fields in [salesforce.objects.{name}] would map it{}",
                nearest_of(&variable, object.fields.keys())
            ),
        )),
    };
    variables.into_iter().map(field).collect()
}

/// Returns a question about the configured name that is most like this one; empty if none is.
fn nearest_of<'a>(name: &str, configured: impl Iterator<Item = &'a String>) -> String {
    nearest(name, configured.map(String::as_str)).map_or_else(String::new, |it| format!(" (did you mean '{it}'?)"))
}

/// Returns the user of a request.
fn named(given: &Given) -> Result<&str, Refusal> {
    given.user.as_deref().ok_or_else(|| {
        Refusal::new(ErrorCode::UserRequired, "a service has to say for whom it asks: add \"user\" to the envelope")
    })
}
