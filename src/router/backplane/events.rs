//! Events that cross a link: pushed once to each peer that wants them, and matched where they arrive.

use std::sync::Arc;
use std::time::Instant;

use super::message::{Message, Place, Sent, SentScope};
use super::peer::{Lost, Peer};
use crate::router::fan_out::Delivery;
use crate::router::forms::Forms;
use crate::router::history::Position;
use crate::router::index::receivers::Receivers;
use crate::router::index::{Matches, Subscription};
use crate::router::outbox::OnFull;
use crate::router::recipients::{Origin, may_repeat};
use crate::router::session::Session;
use crate::router::{Router, Scope, SubscriptionId};
use crate::websocket::Frame;
use wire::{DecodeLimits, Envelope, decode, notice};

impl<'a> From<Scope<'a>> for SentScope<'a> {
    fn from(scope: Scope<'a>) -> Self {
        match scope {
            Scope::User(user) => Self::User(user),
            Scope::Shared(user) => Self::Shared(user),
        }
    }
}

impl<'a> SentScope<'a> {
    fn scope(self) -> Scope<'a> {
        match self {
            Self::User(user) => Scope::User(user),
            Self::Shared(user) => Scope::Shared(user),
            Self::All | Self::Watchers => Scope::Shared(None),
        }
    }
}

impl Router {
    /// Pushes an event to each peer that wants it. Returns to how many; `None` without a cluster.
    #[inline]
    pub(in crate::router) fn forward(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        scope: SentScope<'_>,
        place: Option<Place<'_>>,
    ) -> Option<usize> {
        self.cluster.as_ref()?;
        Some(self.forward_to_peers(now, sender, envelope, (scope, place)))
    }

    #[cold]
    fn forward_to_peers(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        (scope, place): (SentScope<'_>, Option<Place<'_>>),
    ) -> usize {
        let Some(cluster) = &self.cluster else { return 0 };
        // A call over HTTP has its answer before a report could arrive.
        let number = if sender.is_call() { 0 } else { sender.number };
        let event = Sent { sender: number, source: &sender.source, scope, text: envelope.text(), place };
        let peers = cluster.peers.load();
        let wanting = peers.iter().filter(|peer| peer.wants(&envelope.triple().channel, &event));
        let given = wanting.filter(|peer| cluster.send(peer, &Message::Event(event)).is_some());
        let pressed = given.inspect(|peer| {
            if cluster.plane.is_over_half(peer.node()) {
                self.window_pressed(now, peer, sender);
            }
        });
        pressed.count()
    }

    /// An event of a peer, for the sessions here that match it.
    pub(super) fn event_from(&self, now: Instant, peer: &Arc<Peer>, event: &Sent<'_>) {
        if event.place.is_some() {
            return self.logged_from(now, peer, event, None);
        }
        let Ok(envelope) = decode(event.text, DecodeLimits::OWN) else { return };
        let facts = self.policy.facts(envelope.triple());
        if facts.protected {
            return;
        }
        let matches = match event.scope {
            SentScope::All => self.subscribers_of_all(&facts),
            SentScope::Watchers => self.watchers(&facts),
            SentScope::User(_) | SentScope::Shared(_) => self.subscribers(&facts, event.scope.scope()),
        };
        let mut forms = Forms::new(&envelope, event.source, event.scope.scope());
        let mut delivery = Delivery::new(now, Some(peer.node()), facts.on_full, may_repeat(&matches, facts.folded));
        self.give_to_each(Origin::Node, &matches, &mut forms, &mut delivery);
        self.report_pressed(now, peer, event.sender, &delivery.delivered.pressed);
    }

    /// An event of a peer, for one member of a group. If that member has gone, another one here gets it, else the peer is told.
    pub(super) fn grouped_from(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        (subscription, group): (u64, &str),
        event: &Sent<'_>,
    ) {
        let Ok(envelope) = decode(event.text, DecodeLimits::OWN) else { return };
        let facts = self.policy.facts(envelope.triple());
        if facts.protected {
            return;
        }
        let scope = event.scope.scope();
        let matches = self.subscribers(&facts, scope);
        let position = event.place.map(|place| place.position());
        let mut forms = placed_forms(Forms::new(&envelope, event.source, scope), position.as_ref());
        let mut delivery = Delivery::new(now, Some(peer.node()), facts.on_full, false);
        let mut members: Vec<_> = members_here(&matches, group).collect();
        let chosen = SubscriptionId::from_number(subscription);
        members.sort_by_key(|member| member.id != chosen);
        let is_taken = members.into_iter().any(|member| delivery.push(member, &mut forms));
        self.report_pressed(now, peer, event.sender, &delivery.delivered.pressed);
        if !is_taken {
            peer.send(&Message::Returned { group, event: *event });
        }
    }

    /// An event that this node gave to a member of a group at a peer, which has none any more. Another member gets it, once.
    pub(super) fn returned_from(&self, now: Instant, peer: &Arc<Peer>, group: &str, event: &Sent<'_>) {
        let Ok(envelope) = decode(event.text, DecodeLimits::OWN) else { return };
        let facts = self.policy.facts(envelope.triple());
        let scope = event.scope.scope();
        let matches = self.subscribers(&facts, scope);
        let is_elsewhere = |it: &&Arc<Subscription>| it.session.remote().is_none_or(|remote| !remote.is_at(peer));
        let position = event.place.map(|place| place.position());
        let mut forms = placed_forms(Forms::new(&envelope, event.source, scope), position.as_ref());
        let mut delivery = Delivery::new(now, None, facts.on_full, false);
        let mut members = matches
            .iter()
            .flat_map(Receivers::iter)
            .filter(|it| it.group.as_deref() == Some(group))
            .filter(is_elsewhere);
        members.any(|member| delivery.push(member, &mut forms));
    }

    /// Tells the sessions that want to know that events may be missing.
    pub(super) fn tell_gap(&self, now: Instant, lost: Lost) {
        let triple = notice::triple("Cluster", "Gap");
        let matches = self.subscribers(&self.policy.facts(&triple), Scope::Shared(None));
        let frame = Frame::from(notice::gap(&humantime::format_rfc3339_millis(lost.since).to_string()));
        let named = |it: &&Arc<Subscription>| it.pattern.topic.as_deref() == Some("Cluster");
        for subscription in matches.iter().flat_map(Receivers::iter).filter(named) {
            // A session that is ending receives nothing more.
            subscription.session.push(now, frame.clone(), OnFull::Close).ok();
        }
    }
}

pub(super) fn placed_forms<'e>(forms: Forms<'e>, position: Option<&'e Position>) -> Forms<'e> {
    match position {
        Some(position) => forms.at(position),
        None => forms,
    }
}

/// The members of a group that are sessions of this node.
fn members_here<'m>(matches: &'m Matches, group: &'m str) -> impl Iterator<Item = &'m Arc<Subscription>> {
    let lists = matches.iter().flat_map(Receivers::iter);
    lists.filter(move |it| it.group.as_deref() == Some(group) && it.session.remote().is_none())
}
