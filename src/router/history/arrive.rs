//! How events enter a log of a cluster, in which the stream has decided their places: those of this node when they are
//! appended, and those of other nodes by their links.

use std::sync::Arc;
use std::time::Instant;

use wire::{DecodeLimits, Refusal, decode};

use super::clustered::{Arrival, Arrivals};
use super::log::Of;
use super::publish::entry;
use super::{Locked, LogName, Position, name_of};
use crate::config::LogBounds;
use crate::router::backplane::message::{Sent, SentScope, placed};
use crate::router::backplane::{Peer, Revised};
use crate::router::commit::{Broadcast, Own};
use crate::router::fan_out::Delivery;
use crate::router::forms::Forms;
use crate::router::index::{Audience, Matches};
use crate::router::recipients::{Origin, may_repeat};
use crate::router::retained::Author;
use crate::router::session::Session;
use crate::router::{Routed, Router, Scope, not_kept};

/// An event whose place in a log of a cluster is known.
pub(in crate::router) enum Arrived {
    /// This node has appended it.
    Own(Box<Own>),
    /// One of the copies of an adapter's event for all users, which this node has appended.
    Copy { broadcast: Arc<Broadcast>, follows: bool },
    /// Another node has.
    Peer(Box<FromPeer>),
}

/// An event of another node.
pub(in crate::router) struct FromPeer {
    peer: Arc<Peer>,
    source: Box<str>,
    /// On a shared channel, the user in whose name it was sent.
    user: Option<Box<str>>,
    to_all: bool,
    text: Box<str>,
    revised: Option<Revised>,
}

/// What follows when the lock of the log is free.
pub(super) enum Done {
    Own(Box<Own>, Result<Routed, Refusal>),
    Copy(Arc<Broadcast>),
    /// A link that had to wait.
    Peer(Arc<Peer>),
}

/// A log whose lock is held, with its bounds.
pub(super) type Held<'a, 'l> = (&'a mut Locked<'l>, LogBounds);

impl Router {
    /// An event is in the log, and is delivered when all before it were. `follows`: the event before it was appended by the
    /// same node.
    pub(in crate::router) fn arrived(
        &self,
        now: Instant,
        name: &LogName<'_>,
        (position, follows): (&Position, bool),
        arrived: Arrived,
    ) {
        let mut done = Vec::new();
        self.history.with(name, |log| {
            let Some(bounds) = self.policy.history(name.channel) else {
                return self.outside(now, (name, position), arrived, &mut done);
            };
            if !self.keep_cursor(log) && !log.state.arrivals.any_wait() {
                // No session of this node has to see the log in its order.
                self.deliver_arrived(now, (log, bounds), position, arrived, &mut done);
                return log.remove();
            }
            match log.state.arrivals.arrive(now, position, follows, arrived) {
                Arrival::Next(arrived) => self.deliver_arrived(now, (log, bounds), position, arrived, &mut done),
                Arrival::Known(arrived) => self.pass_known(now, log, position, arrived, &mut done),
                Arrival::Waits => {}
            }
            self.settle(now, (log, bounds), &mut done);
        });
        self.bound_history(now);
        self.finish_arrived(now, done);
    }

    /// A reload has ended the history of the channel, so there is no order to keep.
    fn outside(
        &self,
        now: Instant,
        (name, position): (&LogName<'_>, &Position),
        arrived: Arrived,
        done: &mut Vec<Done>,
    ) {
        match arrived {
            Arrived::Own(own) => {
                if own.has_value() {
                    self.note_values_missed();
                    self.let_peers_read_values();
                }
                done.push(Done::Own(own, Err(not_kept())));
            }
            Arrived::Copy { broadcast, .. } => done.push(Done::Copy(broadcast)),
            Arrived::Peer(event) => {
                self.keep_only(now, (name, position), &event.kept());
                done.push(Done::Peer(event.peer));
            }
        }
    }

    /// Forgets the cursor of a log that this node has not followed all the time. Returns whether it follows it now.
    pub(super) fn keep_cursor(&self, log: &mut Locked<'_>) -> bool {
        let wanted = match log.log.is_subscribed_soon() {
            true => Some(0),
            false => self.wanted_since(&name_of(&log.log.key)),
        };
        log.state.arrivals.keep_if_wanted(wanted, self.ids.stamp());
        wanted.is_some()
    }

    /// Delivers what need not wait any more, and notes when to look at what still does.
    pub(super) fn settle(&self, now: Instant, (log, bounds): Held<'_, '_>, done: &mut Vec<Done>) {
        while let Some((position, arrival)) = log.state.arrivals.next() {
            match arrival {
                Arrival::Next(arrived) => self.deliver_arrived(now, (log, bounds), &position, arrived, done),
                Arrival::Known(arrived) => self.pass_known(now, log, &position, arrived, done),
                Arrival::Waits => {}
            }
        }
        if let Some(cursor) = log.state.arrivals.cursor().cloned() {
            log.change(|state| state.place(&cursor));
        }
        log.set_gap_due();
        if log.state.gap_due.is_some() {
            self.requests.earlier().notify_one();
        }
        if log.state.due.is_none() {
            log.set_due(now + super::bounds::check_after(&bounds));
        }
        let is_wanted = log.log.is_subscribed_soon() || self.wanted_since(&name_of(&log.log.key)).is_some();
        if !is_wanted && !log.state.arrivals.any_wait() {
            log.remove();
        }
    }

    fn deliver_arrived(
        &self,
        now: Instant,
        (log, bounds): Held<'_, '_>,
        position: &Position,
        arrived: Arrived,
        done: &mut Vec<Done>,
    ) {
        let before = Position { offset: position.offset - 1, epoch: Arc::clone(&position.epoch) };
        log.change(|state| state.place(&before));
        match arrived {
            Arrived::Own(own) => {
                let routed = self.deliver_appended(now, (log, &bounds), &own, position);
                done.push(Done::Own(own, routed));
            }
            Arrived::Copy { broadcast, follows } => {
                let (adapter, text) = (broadcast.adapter(), broadcast.text());
                self.forward_copy(now, log, adapter, text, (position, follows));
                let copy = Kept { source: &adapter.source, user: None, to_all: true, text, revised: None };
                self.deliver_kept(now, (log, bounds), position, Origin::Session(adapter), &copy);
                done.push(Done::Copy(broadcast));
            }
            Arrived::Peer(event) => {
                self.deliver_kept(now, (log, bounds), position, Origin::Node, &event.kept());
                done.push(Done::Peer(event.peer));
            }
        }
    }

    /// An event that was read from the stream before it arrived, and was delivered then.
    fn pass_known(
        &self,
        now: Instant,
        log: &mut Locked<'_>,
        position: &Position,
        arrived: Arrived,
        done: &mut Vec<Done>,
    ) {
        match arrived {
            Arrived::Own(own) => {
                let routed = self.forward_appended(now, &own, position);
                done.push(Done::Own(own, routed));
            }
            Arrived::Copy { broadcast, follows } => {
                self.forward_copy(now, log, broadcast.adapter(), broadcast.text(), (position, follows));
                done.push(Done::Copy(broadcast));
            }
            Arrived::Peer(event) => {
                self.keep_only(now, (&name_of(&log.log.key), position), &event.kept());
                done.push(Done::Peer(event.peer));
            }
        }
    }

    /// Keeps the value of an event that is not to be delivered any more.
    fn keep_only(&self, now: Instant, (name, position): (&LogName<'_>, &Position), kept: &Kept<'_>) {
        let Some(revised) = kept.revised else { return };
        let Ok(envelope) = decode(kept.text, DecodeLimits::OWN) else { return };
        let scope = name.owner.map_or(Scope::Shared(kept.user), Scope::User);
        let forms = Forms::new(&envelope, kept.source, scope).at(position);
        self.keep_value(now, Author { source: kept.source, is_service: revised.by_service }, &forms, revised.revision);
    }

    fn forward_copy(
        &self,
        now: Instant,
        log: &Locked<'_>,
        adapter: &Session,
        text: &str,
        (position, follows): (&Position, bool),
    ) {
        let LogName { owner: Some(user), .. } = name_of(&log.log.key) else { return };
        let Ok(envelope) = decode(text, DecodeLimits::OWN) else { return };
        let place = Some(placed(position, follows, true));
        self.forward(now, adapter, &envelope, SentScope::User(user), place);
    }

    /// Delivers an event of another node, or one that was read from the stream. Its log is placed before it.
    pub(super) fn deliver_kept(
        &self,
        now: Instant,
        (log, bounds): Held<'_, '_>,
        position: &Position,
        origin: Origin<'_>,
        kept: &Kept<'_>,
    ) {
        let Ok(envelope) = decode(kept.text, DecodeLimits::OWN) else { return };
        let facts = self.policy.facts(envelope.triple());
        if facts.protected {
            return;
        }
        let key = Arc::clone(log.log);
        let scope = match name_of(&key.key).owner {
            Some(_) if kept.to_all => Scope::Shared(None),
            Some(user) => Scope::User(user),
            None => Scope::Shared(kept.user),
        };
        let mut forms = Forms::new(&envelope, kept.source, scope).at(position);
        let mut entry = entry(now, &forms, position);
        let everyone_of = name_of(&key.key).owner.filter(|_| kept.to_all);
        if everyone_of.is_some() {
            entry.address.of = Of::Everyone;
        }
        let look_up = || match everyone_of {
            Some(user) => self.of_user(user, &facts),
            None => self.subscribers(&facts, scope),
        };
        // Held over the pushes, as by the publisher's node.
        let _order = kept.revised.and_then(|_| self.retained.order(&facts.canonical));
        let matches = match kept.revised {
            None => look_up(),
            Some(revised) => {
                let author = Author { source: kept.source, is_service: revised.by_service };
                self.revise_event(now, author, (&forms, &facts), revised.revision, look_up)
            }
        };
        self.append(log, entry, &bounds);
        let may_repeat = may_repeat(&matches, facts.folded);
        let mut delivery = Delivery::new(now, None, facts.on_full, may_repeat).in_order_of(&key.key);
        self.give_to_each(origin, &matches, &mut forms, &mut delivery);
    }

    /// The receivers of a user's copy of an adapter's event for all.
    fn of_user(&self, user: &str, facts: &crate::router::decide::Facts<'_>) -> Matches {
        let audiences = [Audience::User(user), Audience::Observes(user)];
        self.events.matches(&audiences, &facts.canonical, facts.folded)
    }

    /// Does what follows when no lock is held.
    pub(super) fn finish_arrived(&self, now: Instant, done: Vec<Done>) {
        for done in done {
            match done {
                Done::Own(own, routed) => self.complete_own(now, *own, routed),
                Done::Copy(broadcast) => self.finish_copies(now, broadcast),
                Done::Peer(peer) => self.release_link(now, &peer),
            }
        }
        self.logs_advanced(now);
    }

    /// Lets what waits in a log go on, after `change`.
    pub(super) fn settle_log(
        &self,
        now: Instant,
        name: &LogName<'_>,
        change: impl FnOnce(&mut Arrivals<Arrived>, Instant),
    ) {
        let mut done = Vec::new();
        self.history.with(name, |log| {
            if let Some(bounds) = self.policy.history(name.channel) {
                change(&mut log.state.arrivals, now);
                self.settle(now, (log, bounds), &mut done);
            }
        });
        self.finish_arrived(now, done);
    }

    /// An event of another node in a log. Its link waits until it is delivered. `revised`: it is the last value of its triple,
    /// too.
    pub(in crate::router) fn logged_from(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        event: &Sent<'_>,
        revised: Option<Revised>,
    ) {
        let Some(place) = event.place else { return };
        let Ok(envelope) = decode(event.text, DecodeLimits::OWN) else { return };
        let (owner, user) = match event.scope {
            SentScope::User(user) => (Some(user), None),
            SentScope::Shared(user) => (None, user),
            SentScope::All | SentScope::Watchers => return,
        };
        let name = LogName { channel: &envelope.triple().channel, owner };
        let from_peer = FromPeer {
            peer: Arc::clone(peer),
            source: event.source.into(),
            user: user.map(Box::from),
            to_all: place.to_all,
            text: event.text.into(),
            revised,
        };
        // Until the event is delivered: nothing that follows on the link overtakes it.
        peer.hold_link();
        self.arrived(now, &name, (&place.position(), place.follows), Arrived::Peer(Box::new(from_peer)));
    }
}

impl FromPeer {
    fn kept(&self) -> Kept<'_> {
        let Self { source, user, to_all, text, revised, .. } = self;
        Kept { source, user: user.as_deref(), to_all: *to_all, text, revised: *revised }
    }
}

impl Locked<'_> {
    /// Returns whether this node follows the log, although it may hold nothing.
    pub(super) fn is_followed(&self) -> bool {
        let arrivals: &Arrivals<Arrived> = &self.state.arrivals;
        self.log.is_subscribed_soon() || arrivals.cursor().is_some() || arrivals.any_wait()
    }
}

/// An event as it was kept.
pub(super) struct Kept<'a> {
    pub(super) source: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) to_all: bool,
    pub(super) text: &'a str,
    /// It is the last value of its triple, too.
    pub(super) revised: Option<Revised>,
}
