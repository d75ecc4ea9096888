//! What a stream has brought: its events are decoded, published and committed, and the position of the topic follows.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Status};

use super::event::{self, Heard, To};
use super::failure::Failure;
use super::schema::Schema;
use super::subscription::{Course, Subscription, outcome_of};
use super::wire::{ConsumerEvent, FetchResponse};
use crate::router::{CommitTicket, Routed, Session};
use crate::salesforce::counted::CountedCall;
use crate::salesforce::oauth::Token;
use crate::salesforce::stats::count;
use crate::telemetry::metrics::SalesforceOperation;
use wire::{DecodeLimits, ErrorCode, Refusal, decode};

impl Subscription {
    /// Publishes events and records how far the topic is.
    pub(super) async fn take(
        &self,
        course: &mut Course,
        token: &Token,
        org: &str,
        response: &FetchResponse,
    ) -> Result<(), Failure> {
        let mut pressed = Vec::new();
        // Events of a durable channel share commits.
        let mut waiting = Vec::new();
        let mut changed = BTreeSet::new();
        let mut outcome = Ok(());
        for event in &response.events {
            self.stats.received();
            let ticket = match self.read(token, event, &mut changed).await {
                Ok(Some(heard)) => self.route(course, &heard, &mut pressed),
                Ok(None) => {
                    count(&self.stats.unreadable);
                    // It may be a change of any object.
                    if changed.insert(String::new()) {
                        self.missed_changes();
                    }
                    Ok(None)
                }
                Err(failure) => Err(failure),
            };
            match ticket {
                Ok(ticket) => waiting.push((ticket, event)),
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            }
        }
        for (ticket, event) in waiting {
            if let Some(ticket) = ticket {
                self.committed(*ticket, &mut pressed).await?;
            }
            self.seat.advance(org, &event.replay_id);
        }
        outcome?;
        if response.events.is_empty() && !response.latest_replay_id.is_empty() {
            self.seat.advance(org, &response.latest_replay_id);
        }
        relief(pressed).await;
        Ok(())
    }

    /// Waits until an event is on disk. If it cannot be, the stream begins again after the last one that is.
    async fn committed(&self, mut ticket: CommitTicket, pressed: &mut Vec<Arc<Session>>) -> Result<(), Failure> {
        match poll_fn(|cx| ticket.poll(cx)).await {
            Ok(routed) => {
                count(&self.stats.routed);
                pressed.extend(routed.pressed);
                Ok(())
            }
            Err(denied) => self.refused(&denied.refusal),
        }
    }

    /// An event was refused. Salesforce keeps it while the disk cannot.
    fn refused(&self, refusal: &Refusal) -> Result<(), Failure> {
        if refusal.code == ErrorCode::StorageUnavailable {
            return Err(Failure::passing("events of a durable channel cannot be written to the disk"));
        }
        count(&self.stats.unaddressed);
        tracing::debug!(name = self.name, code = refusal.code.as_str(), "an event was not published");
        Ok(())
    }

    /// Decodes an event. `None`: it can never be decoded. `changed` has the change events that were noted since the response
    /// arrived: once is enough, because what it is about was changed before.
    async fn read(
        &self,
        token: &Token,
        event: &ConsumerEvent,
        changed: &mut BTreeSet<String>,
    ) -> Result<Option<Heard>, Failure> {
        let Some(id) = event.event.as_ref().map(|it| it.schema_id.as_str()) else { return Ok(None) };
        let schema = match self.shared.schemas.find(id) {
            Some(schema) => schema,
            None => match self.schema(token, id).await? {
                Some(schema) => schema,
                None => return Ok(None),
            },
        };
        if schema.is_change() && changed.insert(schema.name().to_owned()) {
            self.shared.changed(Some(schema.name()));
        }
        let org = self.shared.org.get();
        let heard = event::read(event, &schema, &self.settings.load(), org.password_field());
        if heard.is_none() {
            tracing::warn!(name = self.name, schema_id = id, "an event does not fit its schema and was skipped");
        }
        Ok(heard)
    }

    async fn schema(&self, token: &Token, id: &str) -> Result<Option<Arc<Schema>>, Failure> {
        let org = self.shared.org.get();
        let counted = CountedCall::begin(org.client.calls(), SalesforceOperation::Events);
        let asked = timeout(org.config.timeout, self.shared.pubsub.load().schema(token, id)).await;
        counted.end(outcome_of(&asked));
        let json = match asked {
            Ok(Err(status)) if is_unknown(&status) => {
                tracing::warn!(
                    name = self.name,
                    schema_id = id,
                    "the schema of an event is unknown; the event was skipped"
                );
                return Ok(None);
            }
            Ok(asked) => asked.map_err(|status| Failure::of(&status))?,
            Err(_) => return Err(Failure::passing("the Pub/Sub API takes too long to return a schema")),
        };
        match Schema::parse(&json) {
            Ok(schema) => {
                let schema = Arc::new(schema);
                self.shared.schemas.keep(id, Arc::clone(&schema));
                Ok(Some(schema))
            }
            Err(fault) => {
                tracing::warn!(
                    name = self.name,
                    schema_id = id,
                    fault,
                    "the schema of an event cannot be used; the event was skipped"
                );
                Ok(None)
            }
        }
    }

    /// Publishes an event. With a ticket, it is published when it is on disk.
    fn route(
        &self,
        course: &mut Course,
        heard: &Heard,
        pressed: &mut Vec<Arc<Session>>,
    ) -> Result<Option<Box<CommitTicket>>, Failure> {
        let user = match &heard.to {
            To::Everybody => None,
            To::User(user) => Some(user.as_str()),
            To::Nobody => {
                count(&self.stats.unaddressed);
                if !std::mem::replace(&mut course.told_unaddressed, true) {
                    tracing::warn!(
                        name = self.name,
                        user_field = self.settings.load().user_field,
                        "events whose user_field is empty reach nobody: a change event contains only what has changed, \
                         unless its channel is enriched with the field"
                    );
                }
                return Ok(None);
            }
        };
        let Ok(envelope) = decode(&heard.text, DecodeLimits::OWN) else {
            count(&self.stats.unreadable);
            return Ok(None);
        };
        // Another node may be publishing it by now.
        if !self.seat.is_turn() {
            return Err(Failure::passing("the turn of this node is over"));
        }
        let now = Instant::now().into_std();
        match self.shared.router.announce(now, &self.shared.member, &envelope, user) {
            Ok(Routed { ticket: Some(ticket), .. }) => Ok(Some(ticket)),
            Ok(routed) => {
                count(&self.stats.routed);
                pressed.extend(routed.pressed);
                Ok(None)
            }
            Err(refusal) => self.refused(&refusal).map(|()| None),
        }
    }
}

/// Waits for receivers whose queues are more than half full, up to a limit. Salesforce keeps the events meanwhile.
async fn relief(pressed: Vec<Arc<Session>>) {
    let now = Instant::now();
    let begun: Vec<_> = pressed.iter().map(|receiver| receiver.outbox().begin_wait(now.into_std())).collect();
    for (receiver, (reliefs, most)) in pressed.iter().zip(begun) {
        let outbox = receiver.outbox();
        let relieved = poll_fn(|cx| outbox.poll_relieved_since(reliefs, cx));
        if timeout_at(now + most, relieved).await.is_err() {
            // One slow reader must not slow down everybody's events.
            outbox.waited_in_vain(Instant::now().into_std());
        }
    }
}

fn is_unknown(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::InvalidArgument)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::config::Config;
    use crate::router::{Ids, OnFull, Outbox, OutboxLimits, Policy, Pressure, Router};
    use crate::websocket::Frame;

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_takes_nothing_is_waited_for_once() {
        let now = || Instant::now().into_std();
        let router =
            Router::new(now(), SystemTime::UNIX_EPOCH, Policy::new(&Config::default()), Ids::seeded(1), Vec::new());
        let limits = OutboxLimits { messages: 10, bytes: 1 << 20, refuses: false };
        let receiver = router.attach_adapter(now(), Outbox::new(limits));
        let push = || receiver.outbox().push(now(), Frame::new("{}"), OnFull::Close).ok();
        let mut pressed = None;
        while pressed != Some(Pressure::Over) {
            pressed = push();
        }
        let start = Instant::now();
        relief(vec![Arc::clone(&receiver)]).await;
        assert_eq!(start.elapsed(), Duration::from_millis(250));
        assert_eq!(push(), Some(Pressure::Relieved), "nobody waits for it again until it is under half");
    }
}
