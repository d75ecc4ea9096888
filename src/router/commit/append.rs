//! Events of a node of a cluster, which are delivered when they are in their logs in JetStream.
//!
//! Each is planned alone ([`Router::plan_append`]). What stores it says at which position it is ([`Router::appended`]), and it
//! is delivered when all before it in its log were: by `history/arrive`.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, decode};

use super::last_value::{Unplaced, ValueOutcome};
use super::plan::announced_scope;
use super::{Awaited, To, Uncommitted};
use crate::config::LogBounds;
use crate::router::backplane::message::{SentScope, placed};
use crate::router::decide::Facts;
use crate::router::forms::Forms;
use crate::router::history::{Arrived, Keeping, Kept, Locked, LogName, Position};
use crate::router::observe::Expected;
use crate::router::retained::Author;
use crate::router::session::Session;
use crate::router::{Receipt, Routed, Router, Scope, access};
use crate::store::history::{Entry, LogName as StoredName, millis};

/// An event that is to be appended to its logs.
pub struct Append {
    event: Uncommitted,
    planned: Result<Planned, Refusal>,
}

/// What has to be stored of an event.
enum Planned {
    /// Nothing: it waited for earlier events of its sender only.
    Unstored,
    Stored(Box<Stored>),
}

pub(super) struct Stored {
    logs: Vec<StoredName>,
    pub(super) entry: Entry,
    /// What it leaves as the last value of its triple.
    pub(super) value: Option<Unplaced>,
    once: Option<Once>,
    attempt: [u8; 16],
    to_all: bool,
}

/// What makes an event the same as an earlier one, in the same log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Its sender.
    pub source: Box<str>,
    /// The user whom it concerns.
    pub user: Option<Box<str>>,
    /// Its `id`.
    pub id: Box<str>,
}

/// Where an event is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The place.
    pub position: Position,
    /// This node appended the event before it, too.
    pub follows: bool,
    /// An earlier event with its `id` is there in its place.
    pub is_duplicate: bool,
}

/// An event that this node has appended.
pub(in crate::router) struct Own {
    event: Uncommitted,
    /// This node appended the event before it, too.
    follows: bool,
    value: ValueOutcome,
}

/// An adapter's event for all users, of which a copy is in the log of each.
pub(in crate::router) struct Broadcast(Uncommitted);

impl Broadcast {
    pub(in crate::router) fn adapter(&self) -> &Arc<Session> {
        &self.0.sender
    }

    pub(in crate::router) fn text(&self) -> &str {
        &self.0.text
    }
}

impl Own {
    /// Whether the bucket has its value.
    pub(in crate::router) fn has_value(&self) -> bool {
        self.value.revision().is_some()
    }
}

impl Append {
    /// When the event was accepted.
    pub fn at(&self) -> Instant {
        self.event.at
    }

    /// The number of its sender, whose events are stored one after the other.
    pub fn sender(&self) -> u64 {
        self.event.sender()
    }

    /// The logs that it enters.
    pub fn logs(&self) -> &[StoredName] {
        self.planned_stored().map_or(&[], |stored| &stored.logs)
    }

    /// What is stored: the event, what names this attempt to store it, and what makes it the same as an earlier one.
    pub fn stored(&self) -> Option<(&Entry, [u8; 16], Option<&Once>)> {
        self.planned_stored().map(|stored| (&stored.entry, stored.attempt, stored.once.as_ref()))
    }

    pub(super) fn author(&self) -> Author<'_> {
        self.event.sender.author()
    }

    pub(super) fn planned_stored(&self) -> Option<&Stored> {
        match &self.planned {
            Ok(Planned::Stored(stored)) => Some(stored),
            Ok(Planned::Unstored) | Err(_) => None,
        }
    }

    /// Ready when the event was delivered, or refused.
    pub fn delivered(&mut self) -> oneshot::Receiver<()> {
        self.event.delivered()
    }
}

impl Router {
    /// Whether an event is for a log. Another one that waits for the storage has a retained value only, or none.
    pub fn is_for_log(&self, event: &Uncommitted) -> bool {
        if matches!(event.to, To::Removed(_) | To::End) {
            return false;
        }
        let envelope = decode(&event.text, DecodeLimits::OWN);
        envelope.is_ok_and(|envelope| self.policy.facts(envelope.triple()).history)
    }

    /// Says what has to be stored of an event.
    pub fn plan_append(&self, event: Uncommitted) -> Append {
        let planned = self.plan_stored(&event);
        if let (Ok(Planned::Stored(stored)), Some(commits)) = (&planned, &self.commits) {
            commits.attempts.lock().insert(stored.attempt, Arc::clone(&event.sender));
        }
        Append { event, planned }
    }

    fn plan_stored(&self, event: &Uncommitted) -> Result<Planned, Refusal> {
        let envelope = decode(&event.text, DecodeLimits::OWN).map_err(|malformed| malformed.refusal)?;
        let facts = self.policy.facts(envelope.triple());
        if matches!(event.to, To::Removed(_)) || !facts.history {
            return Ok(Planned::Unstored);
        }
        let (scope, to_all) = scope_of(event, &envelope, &facts)?;
        let channel = &*facts.canonical.channel;
        let logs = match to_all {
            true => self
                .users_of_cluster(channel)
                .iter()
                .map(|user| LogName { channel, owner: Some(user) }.stored())
                .collect(),
            false => vec![LogName::of(channel, scope).stored()],
        };
        let once = envelope.id().filter(|_| envelope.once()).map(|id| Once {
            source: (*event.sender.source).into(),
            user: scope.user().map(Box::from),
            id: id.into(),
        });
        let text: Box<str> = Forms::new(&envelope, &event.sender.source, scope).stored().into();
        // No value is kept of a broadcast.
        let value = if to_all { None } else { self.plan_value(event, &envelope, (scope, &facts), &text)? };
        let entry = Entry {
            at: millis(self.date(event.at)),
            topic: envelope.triple().topic.as_ref().into(),
            subtopic: envelope.triple().subtopic.as_ref().into(),
            user: match scope {
                Scope::User(_) => None,
                Scope::Shared(user) => user.map(Box::from),
            },
            to_all,
            target: envelope.target().map(Box::from),
            text,
        };
        Ok(Planned::Stored(Box::new(Stored { logs, entry, value, once, attempt: self.ids.attempt(), to_all })))
    }

    /// The session of this node whose event this attempt stores.
    pub(in crate::router) fn sender_of(&self, attempt: [u8; 16]) -> Option<Arc<Session>> {
        self.commits.as_ref()?.attempts.lock().get(&attempt).cloned()
    }

    /// An event is in its logs: in each of [`Append::logs`], one after the other. It is delivered now, or when those before
    /// it in its log were. `value`: what became of [`Append::value`], or of
    /// [`Router::value_of_first`].
    ///
    /// # Errors
    /// It is in none: why not.
    pub fn appended(&self, now: Instant, append: Append, outcome: Result<Vec<Appended>, Refusal>, value: ValueOutcome) {
        let Append { event, planned } = append;
        let stored = match planned {
            Ok(Planned::Stored(stored)) => stored,
            Ok(Planned::Unstored) => return self.finish_unstored(now, event),
            Err(refusal) => return self.refuse_event(now, event, refusal),
        };
        let places = match outcome {
            Ok(places) => places,
            Err(refusal) => {
                self.forget_attempt(stored.attempt);
                return self.refuse_event(now, event, refusal);
            }
        };
        if stored.to_all {
            self.deliver_copies(now, event, &stored, &places);
        } else if let (Some(log), Some(place)) = (stored.logs.first(), places.first()) {
            let at = (&place.position, place.follows);
            match place.is_duplicate {
                true => self.finish_duplicate(now, event, &place.position, value),
                false => {
                    let own = Box::new(Own { event, follows: place.follows, value });
                    self.arrived(now, &LogName::from(log), at, Arrived::Own(own));
                }
            }
        } else {
            self.refuse_event(now, event, unavailable());
        }
        self.forget_attempt(stored.attempt);
    }

    fn forget_attempt(&self, attempt: [u8; 16]) {
        if let Some(commits) = &self.commits {
            commits.attempts.lock().remove(&attempt);
        }
    }

    /// An adapter's event for all users is in the log of each.
    fn deliver_copies(&self, now: Instant, event: Uncommitted, stored: &Stored, places: &[Appended]) {
        let broadcast = Arc::new(Broadcast(event));
        for (log, place) in stored.logs.iter().zip(places) {
            let copy = Arrived::Copy { broadcast: Arc::clone(&broadcast), follows: place.follows };
            self.arrived(now, &LogName::from(log), (&place.position, place.follows), copy);
        }
        self.finish_copies(now, broadcast);
    }

    /// A copy of an adapter's event for all users was delivered. With the last one, services get it, and what the adapter has
    /// sent later may follow. No lock is held.
    pub(in crate::router) fn finish_copies(&self, now: Instant, broadcast: Arc<Broadcast>) {
        let Some(Broadcast(event)) = Arc::into_inner(broadcast) else { return };
        let routed = match decode(&event.text, DecodeLimits::OWN) {
            Ok(envelope) => {
                let facts = self.policy.facts(envelope.triple());
                let watchers = self.watchers(&facts);
                let mut forms = Forms::new(&envelope, &event.sender.source, Scope::Shared(None));
                let delivered = self.give_to_all(now, &event.sender, &watchers, &mut forms, &facts);
                let nodes = self.forward(now, &event.sender, &envelope, SentScope::Watchers, None);
                let receipt = Some(Receipt { receivers: delivered.receivers, hint: None, kept: None, nodes });
                let (pressed, deliveries) = (delivered.pressed, delivered.deliveries);
                let routed = Ok(Routed { receipt, pressed, deliveries, ..Routed::default() });
                self.observe(now, &event.sender, &envelope, &facts, (Expected::EVENT, routed.as_ref()));
                routed
            }
            Err(malformed) => Err(malformed.refusal),
        };
        self.complete_event(now, event, routed);
    }

    /// Delivers an event whose log ends before its position.
    pub(in crate::router) fn deliver_appended(
        &self,
        now: Instant,
        (log, bounds): (&mut Locked<'_>, &LogBounds),
        Own { event, follows, value }: &Own,
        position: &Position,
    ) -> Result<Routed, Refusal> {
        let envelope = decode(&event.text, DecodeLimits::OWN).map_err(|malformed| malformed.refusal)?;
        let facts = self.policy.facts(envelope.triple());
        let (scope, _) = scope_of(event, &envelope, &facts)?;
        let (sender, revision) = (&event.sender, value.revision());
        let keeping = Keeping::Revised(revision);
        let published = self.publish_at(now, (log, bounds), sender, &envelope, scope, &facts, (position, keeping));
        let routed = published.map(|published| {
            let (nodes, waits_for) = self.send_logged(now, sender, &envelope, scope, (position, *follows), revision);
            let routed = self.after_publishing(now, sender, &envelope, scope, &facts, (published, nodes));
            Routed { waits_for, ..routed }
        });
        self.observe(now, sender, &envelope, &facts, (Expected::EVENT, routed.as_ref()));
        routed
    }

    /// Passes an event on that sessions of this node have, because it was read from the stream before this node knew that it
    /// had appended it.
    pub(in crate::router) fn forward_appended(
        &self,
        now: Instant,
        Own { event, follows, value }: &Own,
        position: &Position,
    ) -> Result<Routed, Refusal> {
        let envelope = decode(&event.text, DecodeLimits::OWN).map_err(|malformed| malformed.refusal)?;
        let facts = self.policy.facts(envelope.triple());
        let (scope, _) = scope_of(event, &envelope, &facts)?;
        if let Some(revision) = value.revision() {
            let forms = Forms::new(&envelope, &event.sender.source, scope).at(position);
            self.keep_value(now, event.sender.author(), &forms, revision);
        }
        let (nodes, waits_for) =
            self.send_logged(now, &event.sender, &envelope, scope, (position, *follows), value.revision());
        let kept = Some(Box::new(Kept { position: position.clone(), is_duplicate: false }));
        let receipt = Some(Receipt { receivers: 0, hint: None, kept, nodes });
        let routed = Ok(Routed { receipt, waits_for, ..Routed::default() });
        self.observe(now, &event.sender, &envelope, &facts, (Expected::EVENT, routed.as_ref()));
        routed
    }

    /// Sends an event in a log to the peers that want it, and its value to all of them if it has one. Returns to how many the
    /// event went, and what they have to take before its sender is told.
    fn send_logged(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        (position, follows): (&Position, bool),
        revision: Option<u64>,
    ) -> (Option<usize>, Awaited) {
        let place = Some(placed(position, follows, false));
        match revision {
            None => (self.forward(now, sender, envelope, scope.into(), place), Awaited::default()),
            Some(revision) => {
                let (nodes, waits_for) = self.share_value(now, sender, envelope, scope, (revision, place));
                (Some(nodes), waits_for)
            }
        }
    }

    /// Says what became of an event that this node has appended. No lock is held.
    pub(in crate::router) fn complete_own(&self, now: Instant, own: Own, routed: Result<Routed, Refusal>) {
        let Own { event, value, .. } = own;
        self.complete_logged(now, event, value, routed);
    }
}

/// The scope of an event, and whether it is an adapter's for every user of a user-scoped channel.
fn scope_of<'e>(
    event: &'e Uncommitted,
    envelope: &'e Envelope<'_>,
    facts: &Facts<'_>,
) -> Result<(Scope<'e>, bool), Refusal> {
    match &event.to {
        To::Rules | To::Will => Ok((access::scope(&event.sender, envelope, facts)?, false)),
        To::Announced(None) if !facts.shared => Ok((Scope::Shared(None), true)),
        To::End => Err(unavailable()),
        To::Announced(user) | To::Removed(user) => Ok((announced_scope(user.as_deref(), facts), false)),
    }
}

/// The refusal of an event that JetStream does not keep now.
#[must_use]
pub fn unavailable() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "the cluster cannot keep the event now, so it was not delivered; send it again later",
    )
}
