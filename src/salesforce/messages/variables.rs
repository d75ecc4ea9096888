//! [`CustomVariables`]: answers `Salesforce/Call/SaveCustomVariables` and `RemoveCustomVariables`, and writes the saved
//! variables when the event of the call arrives.
//!
//! If Salesforce fails, the broker tries again until they are written or expire. If the org refuses them, they stay saved
//! for the next event of the call or an `UpdateObject`.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use super::data::{Asked, Told, Variable, text_at};
use super::known::Record;
use super::writable::{Way, Writable, nearest_of, target};
use super::{CallKey, Change, Writer, log, named};
use crate::adapter::{Answer, Event, Given, Handler, Heard, Publish, Response};
use crate::salesforce::fault::Fault;
use crate::salesforce::{REMOVE_VARIABLES, SAVE_VARIABLES, exactly};
use wire::{ErrorCode, Refusal};
use wire::{Pattern, check_name};

/// The handler.
pub(super) struct CustomVariables {
    writer: Arc<Writer>,
}

impl CustomVariables {
    /// Shares a writer with the other handlers.
    pub(super) fn new(writer: &Arc<Writer>) -> Self {
        Self { writer: Arc::clone(writer) }
    }

    fn answer(&self, given: &Given) -> Result<Response, Refusal> {
        let user = named(given)?;
        let asked = Asked::read(given.payload.as_ref())?;
        let call = asked.call()?;
        let (now, key) = (Instant::now().into_std(), CallKey::new(user, &call.id));
        // The channel may be configured to ignore case.
        if given.triple.subtopic.eq_ignore_ascii_case(SAVE_VARIABLES.1) {
            let variables = asked.params()?;
            let writable = self.writer.writable();
            variables.iter().try_for_each(|variable| may_be_written(&writable, variable))?;
            self.writer.calls.save(now, &key, &variables)?;
        } else {
            self.writer.calls.remove(now, &key, &asked.names()?);
        }
        let told = Told::default().raw("callId", call.raw).raw("params", asked.raw_params());
        Ok(Response::from(told.value("Success", true).value("ErrorMessage", None::<&str>).data()))
    }

    async fn heard(&self, event: Event) {
        let (Some(user), Some(payload)) = (&event.user, &event.payload) else { return };
        let writable = self.writer.writable();
        let Some(call) = ended(&writable, payload) else { return };
        let key = CallKey::new(user, &call);
        if let Err(fault) = self.write(&writable, &key).await
            && fault.may_pass()
        {
            self.writer.unwritten.put_off(key, 0, fault.pause());
        }
    }

    /// Writes the variables of ended calls that could not be written when their event arrived, one call at a time. A call
    /// whose user, object or record is the cause waits alone; only while Salesforce as a whole fails do all wait.
    async fn write_later(&self) {
        let unwritten = &self.writer.unwritten;
        loop {
            let (key, attempts) = unwritten.next().await;
            let writable = self.writer.writable();
            if !writable.allows(Way::Update) && !self.writer.calls.kept(Instant::now().into_std(), &key).is_empty() {
                // A later reload may switch changes on again before the variables expire.
                unwritten.put_off(key, attempts.saturating_add(1), None);
                continue;
            }
            match self.write(&writable, &key).await {
                Err(fault) if fault.may_pass() => {
                    unwritten.put_off(key, attempts.saturating_add(1), fault.pause());
                    if fault.concerns_all() {
                        sleep_until(unwritten.all_failed()).await;
                    }
                }
                Ok(()) | Err(_) => unwritten.succeeded(),
            }
        }
    }

    /// Writes the saved variables of a call to its records, each to the first record that has a field for it. If several
    /// records fail, returns a fault after which another attempt helps, and of these one that concerns all calls.
    async fn write(&self, writable: &Writable, key: &CallKey) -> Result<(), Fault> {
        let call = key.call();
        let now = || Instant::now().into_std();
        let Writer { calls, known, .. } = &*self.writer;
        if calls.kept(now(), key).is_empty() {
            return Ok(());
        }
        let mut records = known.records(now(), key);
        if records.is_empty() {
            records.extend(self.look_for(writable, key.user(), call).await?);
        }
        let mut failed: Option<Fault> = None;
        for record in &records {
            let Some(object) = writable.objects.get(&record.name).filter(|it| it.update) else { continue };
            if calls.kept(now(), key).iter().any(|it| object.fields.contains_key(&it.name)) {
                let change = Change { call: key, call_id: call, record, fields: Vec::new() };
                let changed = self.writer.change(object, change).await;
                self.writer.record_change(now(), key, (object, &record.id), &changed);
                let weight = |fault: &Fault| (fault.may_pass(), fault.concerns_all());
                if let Err(fault) = changed
                    && failed.as_ref().is_none_or(|earlier| weight(earlier) < weight(&fault))
                {
                    failed = Some(fault);
                }
            }
        }
        let left = calls.kept(now(), key).len();
        if left > 0 && failed.is_none() {
            tracing::info!(
                left,
                records = records.len(),
                "variables stay saved: no known record of their call has fields for them"
            );
        }
        failed.map_or(Ok(()), Err)
    }

    /// Finds the record of a call that no message has named, by the call's id in it.
    async fn look_for(&self, writable: &Writable, user: &str, call: &str) -> Result<Option<Record>, Fault> {
        let name = &writable.variables.object;
        let Some(object) = writable.objects.get(name) else { return Ok(None) };
        let target = target(object, &[]);
        let found = self.writer.org.get().find_by(user, &target, &object.call_field, call).await;
        let found = found.inspect_err(|fault| log(fault, &target))?;
        Ok(found.map(|id| Record { name: name.clone(), id }))
    }
}

/// A variable that no object maps can never be written, so it is refused at once.
fn may_be_written(writable: &Writable, (name, _): &Variable) -> Result<(), Refusal> {
    let objects = &writable.objects;
    match objects.values().any(|it| it.update && it.fields.contains_key(name)) {
        true => Ok(()),
        false => Err(Refusal::new(
            ErrorCode::Forbidden,
            format!(
                "data.params: the variable '{name}' is not mapped; fields in a table [salesforce.objects.NAME] with \
                 update = true would map it{}",
                nearest_of(name, objects.values().filter(|it| it.update).flat_map(|it| it.fields.keys()))
            ),
        )),
    }
}

/// Returns the call of an event, if the event is one that causes variables to be written.
fn ended(writable: &Writable, payload: &RawValue) -> Option<String> {
    let settings = &writable.variables;
    let counts = settings.state.is_empty() || {
        let state = text_at(payload, &settings.state)?;
        settings.states.iter().any(|it| it.eq_ignore_ascii_case(&state))
    };
    text_at(payload, &settings.call_id).filter(|call| counts && check_name(call).is_ok())
}

impl Handler for CustomVariables {
    fn name(&self) -> &'static str {
        SAVE_VARIABLES.1
    }

    fn serves(&self) -> Vec<Pattern> {
        match self.writer.writable().allows(Way::Update) {
            true => vec![exactly(SAVE_VARIABLES), exactly(REMOVE_VARIABLES)],
            false => Vec::new(),
        }
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        &["callId", "params"]
    }

    fn repeats(&self) -> &'static [&'static str] {
        &["callId"]
    }

    fn record_key(&self, given: &Given) -> Option<String> {
        Asked::read(given.payload.as_ref()).and_then(|asked| asked.call()).ok().map(|call| call.id)
    }

    fn handle(&self, given: Given) -> Answer<'_> {
        Box::pin(async move { self.answer(&given) })
    }

    fn hears(&self) -> Vec<Pattern> {
        let writable = self.writer.writable();
        if writable.allows(Way::Update) { writable.variables.write_on.clone() } else { Vec::new() }
    }

    fn hear(&self, event: Event) -> Heard<'_> {
        Box::pin(self.heard(event))
    }

    fn work<'a>(&'a self, _: &'a Publish) -> Heard<'a> {
        Box::pin(self.write_later())
    }
}
