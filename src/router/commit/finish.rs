//! [`Router::finish`]: what follows when a batch of events is on disk, or cannot be.

use std::sync::Arc;
use std::time::Instant;

use wire::{DecodeLimits, Envelope, Refusal, decode, notice};

use super::plan::{Batch, Item, Planned, Written, announced_scope, unavailable};
use super::{Awaited, To, Uncommitted};
use crate::router::access;
use crate::router::decide::Facts;
use crate::router::history::{First, Kept, LogName, Position};
use crate::router::observe::Expected;
use crate::router::outbox::OnFull;
use crate::router::{Denied, Receipt, Routed, Router, Scope};
use crate::store::history::{Change, Place};

impl Router {
    /// Delivers the events of a batch that is on disk, or refuses them if it is not, and tells their connections.
    pub fn finish(&self, now: Instant, batch: Batch, is_on_disk: bool) {
        for Item { event, planned, .. } in batch.events {
            let planned = match planned {
                Ok(planned) if !is_on_disk && planned.is_stored() => Err(unavailable()),
                planned => planned,
            };
            self.finish_event(now, event, planned, &[]);
        }
    }

    /// Delivers the events of a batch whose changes the bucket of a cluster has with these revisions, or refuses them.
    pub fn finish_revised(&self, now: Instant, batch: Batch, outcome: Result<&[u64], &Refusal>) {
        let mut batch = batch;
        let changes = batch.take_changes();
        let changes: Vec<_> = changes.iter().zip(outcome.unwrap_or_default().iter().copied()).collect();
        for Item { event, planned, changes: own } in batch.events {
            let planned = match (planned, outcome) {
                (Ok(planned), Err(refusal)) if planned.is_stored() => Err(refusal.clone()),
                (planned, _) => planned,
            };
            self.finish_event(now, event, planned, changes.get(own).unwrap_or_default());
        }
    }

    /// Refuses an event that waits for the disk, because nothing is written any more.
    pub fn refuse_waiting(&self, now: Instant, event: Uncommitted) {
        self.finish_event(now, event, Err(unavailable()), &[]);
    }

    fn finish_event(
        &self,
        now: Instant,
        event: Uncommitted,
        planned: Result<Planned, Refusal>,
        revised: &[(&Change, u64)],
    ) {
        let routed = match planned {
            _ if event.to == To::End => Ok(Routed::default()),
            Err(refusal) => self.refuse_committed(now, &event, refusal),
            Ok(planned) => self.deliver_committed(now, &event, &planned, revised),
        };
        self.complete_event(now, event, routed);
    }

    /// Refuses an event that was not stored.
    pub(super) fn refuse_event(&self, now: Instant, event: Uncommitted, refusal: Refusal) {
        let refused = self.refuse_committed(now, &event, refusal);
        self.complete_event(now, event, refused);
    }

    /// Publishes an event that need not be stored, and has waited for earlier ones only.
    pub(super) fn finish_unstored(&self, now: Instant, event: Uncommitted) {
        self.finish_event(now, event, Ok(Planned::Unstored), &[]);
    }

    /// Says what became of an event that waited, to its sender and to what waits for it. No lock is held.
    pub(in crate::router) fn complete_event(
        &self,
        now: Instant,
        mut event: Uncommitted,
        routed: Result<Routed, Refusal>,
    ) {
        let outcome = routed.map_err(|refusal| Denied { refusal, is_request: false });
        match event.rest.take() {
            Some(rest) if event.to == To::End => self.end_rest(now, &event.sender, rest),
            Some(rest) => {
                self.note_will(now, &event.sender, outcome.as_ref().err().map(|denied| &denied.refusal), rest);
            }
            None => {}
        }
        event.tell(now, outcome);
    }

    /// `revised`: its changes, with the revisions that the bucket of a cluster gave them.
    fn deliver_committed(
        &self,
        now: Instant,
        event: &Uncommitted,
        planned: &Planned,
        revised: &[(&Change, u64)],
    ) -> Result<Routed, Refusal> {
        let envelope = decode(&event.text, DecodeLimits::OWN).map_err(|malformed| malformed.refusal)?;
        let facts = self.policy.facts(envelope.triple());
        let _steady = self.steady();
        let routed = match (planned, &event.to) {
            (_, To::End) => return Ok(Routed::default()),
            (_, To::Removed(user)) => {
                let (removed, waits_for) = match self.is_clustered() {
                    true => self.clear_revised(now, revised.iter().filter_map(|(it, at)| Some((it.cleared()?, *at)))),
                    false => (self.retained.remove(user.as_deref(), &facts.canonical), Awaited::default()),
                };
                let receipt = Some(Receipt { receivers: removed, hint: None, kept: None, nodes: None });
                // It was not an event.
                return Ok(Routed { receipt, waits_for, ..Routed::default() });
            }
            // A reload has given its channel a log meanwhile, which the cluster keeps, and the event is not in it.
            _ if self.is_clustered() && facts.history => Err(unavailable()),
            (Planned::All { users, .. }, _) => {
                return self.announced(now, &event.sender, &envelope, None, &facts, Some(users));
            }
            (Planned::One(_) | Planned::Second(_) | Planned::Unstored, To::Announced(user)) => {
                let user = user.as_deref();
                match self.check_planned(now, planned, &facts, announced_scope(user, &facts)) {
                    Ok(()) => return self.announced(now, &event.sender, &envelope, user, &facts, None),
                    Err(refusal) => Err(refusal),
                }
            }
            (Planned::Duplicate(First { position, receivers }), _) => {
                let kept = Some(Box::new(Kept { position: position.clone(), is_duplicate: true }));
                let receipt = Some(Receipt { receivers: *receivers, hint: None, kept, nodes: None });
                Ok(Routed { receipt, ..Routed::default() })
            }
            (Planned::One(_) | Planned::Second(_) | Planned::Unstored, To::Rules | To::Will) => {
                let revision = revised.first().map(|(_, revision)| *revision);
                self.publish_committed(now, event, (&envelope, &facts), planned, revision)
            }
        };
        self.observe(now, &event.sender, &envelope, &facts, (Expected::EVENT, routed.as_ref()));
        routed
    }

    /// Publishes an event of a session that was committed, or that has waited for earlier ones only.
    fn publish_committed(
        &self,
        now: Instant,
        event: &Uncommitted,
        (envelope, facts): (&Envelope<'_>, &Facts<'_>),
        planned: &Planned,
        revision: Option<u64>,
    ) -> Result<Routed, Refusal> {
        let scope = access::scope(&event.sender, envelope, facts)?;
        self.check_planned(now, planned, facts, scope)?;
        if let Some(revision) = revision.filter(|_| !facts.history) {
            return Ok(self.publish_revised(now, &event.sender, envelope, (scope, facts), revision));
        }
        let matches = self.subscribers(facts, scope);
        self.publish_now(now, &event.sender, envelope, scope, &matches, facts)
    }

    /// Refuses an event that was not committed.
    fn refuse_committed(&self, now: Instant, event: &Uncommitted, refusal: Refusal) -> Result<Routed, Refusal> {
        if let Ok(envelope) = decode(&event.text, DecodeLimits::OWN) {
            let facts = self.policy.facts(envelope.triple());
            self.observe(now, &event.sender, &envelope, &facts, (Expected::EVENT, Err(&refusal)));
        }
        Err(refusal)
    }

    /// Checks whether an event is on disk where it belongs. A reload can have ended its log, or changed scope or folding of
    /// its channel, while it was written. A second event with an id has nothing on disk, so it relies on the first one.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`. What is on disk of it is removed.
    fn check_planned(
        &self,
        now: Instant,
        planned: &Planned,
        facts: &Facts<'_>,
        scope: Scope<'_>,
    ) -> Result<(), Refusal> {
        let Written { is_shared, log, value } = match planned {
            Planned::One(written) => written,
            Planned::Second(id) => {
                let retry = self.policy.limits().history.retry;
                return if self.history.knows((now, retry), id) { Ok(()) } else { Err(unavailable()) };
            }
            Planned::Unstored | Planned::Duplicate(_) | Planned::All { .. } => return Ok(()),
        };
        let is_next =
            |position: &Position| self.history.next(&LogName::of(&facts.canonical.channel, scope)) == *position;
        let is_its_place = |place: &Place| *place.triple == *facts.canonical.to_string();
        if *is_shared == facts.shared
            && log.as_ref().is_none_or(|(_, position)| is_next(position))
            && value.as_ref().is_none_or(is_its_place)
        {
            return Ok(());
        }
        if let Some(commits) = &self.commits {
            if let Some((log, position)) = log {
                commits.forgotten.add_log(log.clone(), Arc::clone(&position.epoch));
            }
            commits.forgotten.add_values(value.clone());
        }
        Err(unavailable())
    }
}

impl Uncommitted {
    /// Tells the sender what became of the event, and what waits for it.
    pub(super) fn told(mut self, now: Instant, outcome: Result<Routed, Denied>) {
        if self.to == To::Rules {
            self.tell_sender(now, &outcome);
        }
        let Some(sender) = self.outcome.take() else { return };
        if let Err(Err(denied)) = sender.send(outcome) {
            // The ticket was dropped, because its session has ended.
            let (source, code) = (&*self.sender.source, denied.refusal.code.as_str());
            tracing::debug!(source, code, "an event of a durable channel was not published");
        }
    }

    /// Tells the sender what became of its event: through its session, which can have lost its connection meanwhile.
    fn tell_sender(&self, now: Instant, outcome: &Result<Routed, Denied>) {
        let Ok(envelope) = decode(&self.text, DecodeLimits::OWN) else { return };
        let text = match (outcome, envelope.id()) {
            (Ok(Routed { receipt: Some(receipt), .. }), Some(id)) => receipt.notice(id),
            (Ok(_), _) => return,
            (Err(Denied { refusal, .. }), id) => notice::error(id, refusal),
        };
        // A session that has ended is told nothing.
        self.sender.outbox().push(now, text.into(), OnFull::Close).ok();
    }
}
