//! Retained values in a cluster (docs/cluster.md). A bucket that all nodes see has each value before any session receives it,
//! and gives it a revision. The publisher's node delivers the event then, and sends it with the revision to every peer: also
//! to one that wants no such event, because it has to keep the value.
//!
//! On a channel with history, the event is in its log before that (`commit/last_value`), and a peer that wants it delivers it in
//! the order of the log (`history/arrive`).

use std::sync::Arc;
use std::time::Instant;

use super::events::placed_forms;
use super::message::{Message, Place as At, Sent, SentScope, placed};
use super::peer::Peer;
use crate::router::commit::{Awaited, LoggedValue};
use crate::router::decide::Facts;
use crate::router::fan_out::{Delivered, Delivery};
use crate::router::forms::Forms;
use crate::router::recipients::{Origin, may_repeat};
use crate::router::retained::{self, Author};
use crate::router::session::{Role, Session};
use crate::router::{Receipt, Routed, Router, Scope};
use crate::store::history::{Place, Retained as Value};
use wire::{DecodeLimits, Envelope, Triple, decode};

/// What the bucket says of a value.
#[derive(Clone, Copy)]
pub(in crate::router) struct Revised {
    pub(in crate::router) revision: u64,
    /// A service sent it, or an adapter.
    pub(in crate::router) by_service: bool,
}

impl Router {
    /// Delivers a retained event that the bucket has with this revision, and sends it to every peer. Its receipt waits until
    /// all of them have taken it.
    pub(in crate::router) fn publish_revised(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        (scope, facts): (Scope<'_>, &Facts<'_>),
        revision: u64,
    ) -> Routed {
        let author = sender.author();
        let mut forms = Forms::new(envelope, author.source, scope);
        let (delivered, is_exact) = {
            // Held over the pushes: the value that is kept at last is the one that is delivered last.
            let _order = self.retained.order(&facts.canonical);
            let look_up = || self.subscribers(facts, scope);
            let matches = self.revise_event(now, author, (&forms, facts), revision, look_up);
            (self.give_to_all(now, sender, &matches, &mut forms, facts), matches.exact)
        };
        let Delivered { receivers, deliveries, pressed } = delivered;
        let (nodes, waits_for) = self.share_value(now, sender, envelope, scope, (revision, None));
        let gets_receipt = envelope.id().is_some() || sender.is_call();
        let hint = if gets_receipt && !is_exact && nodes == 0 {
            self.hint(now, sender, envelope, scope, facts, receivers)
        } else {
            None
        };
        let nodes = self.is_clustered().then_some(nodes);
        let receipt = Some(Receipt { receivers, hint, kept: None, nodes });
        Routed { receipt, pressed, deliveries, waits_for, ..Routed::default() }
    }

    /// Keeps the value of an event with the revision that the bucket gave it. The order lock of its triple is held. Returns
    /// what `look_up` finds while the value can be neither replayed nor replaced.
    pub(in crate::router) fn revise_event<T>(
        &self,
        now: Instant,
        author: Author<'_>,
        (forms, facts): (&Forms<'_>, &Facts<'_>),
        revision: u64,
        look_up: impl FnOnce() -> T,
    ) -> T {
        let (envelope, position) = (forms.envelope, forms.position().cloned());
        let (place, value) = retained::stored(author, envelope, forms.scope, facts, forms.stored(), position);
        let value = (!envelope.payload_is_null()).then_some(&value);
        self.retained.revise(now, &self.policy, &place, (value, revision), look_up)
    }

    /// The same for an event that is not delivered now.
    pub(in crate::router) fn keep_value(&self, now: Instant, author: Author<'_>, forms: &Forms<'_>, revision: u64) {
        let facts = self.policy.facts(forms.envelope.triple());
        if !facts.protected {
            let _order = self.retained.order(&facts.canonical);
            self.revise_event(now, author, (forms, &facts), revision, || ());
        }
    }

    /// Sends a retained event to every peer. One in a log, at `place`, is only kept by a peer that does not want it: a session
    /// that subscribes there at this moment gets it from the stream. Returns how many peers want it, and what has to be
    /// acknowledged before its sender is told.
    pub(in crate::router) fn share_value(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        (revision, place): (u64, Option<At<'_>>),
    ) -> (usize, Awaited) {
        let Some(cluster) = &self.cluster else { return (0, Awaited::default()) };
        let author = sender.author();
        // A call over HTTP has its answer before a report could arrive.
        let number = if sender.is_call() { 0 } else { sender.number };
        let event = Sent { sender: number, source: author.source, scope: scope.into(), text: envelope.text(), place };
        let (mut nodes, mut awaited) = (0, Awaited::default());
        for peer in cluster.peers.load().iter() {
            let wants = peer.wants(&envelope.triple().channel, &event);
            let is_event = wants || place.is_none();
            let message = Message::Retained { revision, is_event, by_service: author.is_service, event };
            if let Some(number) = cluster.send(peer, &message) {
                nodes += usize::from(wants);
                awaited.add(peer, number);
                if cluster.plane.is_over_half(peer.node()) {
                    self.window_pressed(now, peer, sender);
                }
            }
        }
        (nodes, awaited)
    }

    /// Keeps a value that the bucket has with this revision, and sends it to every peer: of an event that was delivered before.
    /// Returns what they have to take before its sender is told.
    pub(in crate::router) fn share_first(&self, now: Instant, first: &LoggedValue, revision: u64) -> Awaited {
        let LoggedValue { place, value, position } = first;
        self.take_over_value(now, place, value.as_ref(), revision);
        let Some(cluster) = &self.cluster else { return Awaited::default() };
        let user = place.user.as_deref();
        let decoded = value.as_ref().and_then(|value| decode(&value.text, DecodeLimits::OWN).ok());
        let message = match (value, &decoded) {
            (Some(value), Some(envelope)) => {
                let scope = user.map_or(SentScope::Shared(value.user.as_deref()), SentScope::User);
                let source = envelope.source().unwrap_or_default();
                let place = Some(placed(position, false, false));
                let event = Sent { sender: 0, source, scope, text: &value.text, place };
                Message::Retained { revision, is_event: false, by_service: value.service.is_some(), event }
            }
            _ => Message::Cleared { revision, user, triple: &place.triple, target: place.target.as_deref() },
        };
        let mut awaited = Awaited::default();
        for peer in cluster.peers.load().iter() {
            if let Some(number) = cluster.send(peer, &message) {
                awaited.add(peer, number);
            }
        }
        awaited
    }

    /// A peer sends a value that the bucket has with this revision.
    pub(super) fn retained_from(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        event: &Sent<'_>,
        revised: Revised,
        is_event: bool,
    ) {
        if is_event && event.place.is_some() {
            return self.logged_from(now, peer, event, Some(revised));
        }
        let Ok(envelope) = decode(event.text, DecodeLimits::OWN) else { return };
        let facts = self.policy.facts(envelope.triple());
        let scope = match event.scope {
            SentScope::User(user) => Scope::User(user),
            SentScope::Shared(user) => Scope::Shared(user),
            // A value belongs to one user, or is shared.
            SentScope::All | SentScope::Watchers => return,
        };
        if facts.protected {
            return;
        }
        let author = Author { source: event.source, is_service: revised.by_service };
        let position = event.place.map(|place| place.position());
        let mut forms = placed_forms(Forms::new(&envelope, event.source, scope), position.as_ref());
        let _order = self.retained.order(&facts.canonical);
        let look_up = || is_event.then(|| self.subscribers(&facts, scope));
        let matches = self.revise_event(now, author, (&forms, &facts), revised.revision, look_up);
        if let Some(matches) = matches {
            let mut delivery = Delivery::new(now, Some(peer.node()), facts.on_full, may_repeat(&matches, facts.folded));
            self.give_to_each(Origin::Node, &matches, &mut forms, &mut delivery);
            self.report_pressed(now, peer, event.sender, &delivery.delivered.pressed);
        }
    }

    /// Clears the values that an operator has removed and that the bucket has cleared with these revisions, here and on every
    /// peer. Returns how many were kept.
    pub(in crate::router) fn clear_revised<'p>(
        &self,
        now: Instant,
        cleared: impl Iterator<Item = (&'p Place, u64)>,
    ) -> (usize, Awaited) {
        let (mut removed, mut awaited) = (0, Awaited::default());
        for (place, revision) in cleared {
            removed += usize::from(self.retained.has(place));
            self.take_over_value(now, place, None, revision);
            let Some(cluster) = &self.cluster else { continue };
            let (user, target) = (place.user.as_deref(), place.target.as_deref());
            let message = Message::Cleared { revision, user, triple: &place.triple, target };
            for peer in cluster.peers.load().iter() {
                if let Some(number) = cluster.send(peer, &message) {
                    awaited.add(peer, number);
                }
            }
        }
        (removed, awaited)
    }

    /// Takes over what the bucket has with this revision: a value, or that it was cleared. Nobody is told.
    pub fn take_over_value(&self, now: Instant, place: &Place, value: Option<&Value>, revision: u64) {
        let [channel, topic, subtopic] = crate::router::replay::parts(&place.triple);
        let triple = Triple::new(channel, topic, subtopic);
        if self.policy.is_protected(&triple) {
            return;
        }
        let _order = self.retained.order(&triple);
        self.retained.revise(now, &self.policy, place, (value, revision), || ());
    }

    /// Lets every peer read the bucket on: it has a value that was not sent to them.
    pub fn let_peers_read_values(&self) {
        let Some(cluster) = &self.cluster else { return };
        for peer in cluster.peers.load().iter() {
            cluster.send(peer, &Message::ReadValues);
        }
    }
}

impl Session {
    /// The author of what it sends.
    pub(in crate::router) fn author(&self) -> Author<'_> {
        Author { source: &self.source, is_service: !matches!(self.role, Role::User(_)) }
    }
}

impl Awaited {
    fn add(&mut self, peer: &Arc<Peer>, number: u64) {
        self.0.push((Arc::clone(peer), number));
    }
}
