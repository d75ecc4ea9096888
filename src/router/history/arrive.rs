//! How events enter a log of a cluster, in which the stream has decided their places: those of this node when they are
//! appended, and those of other nodes by their links.

use std::sync::Arc;
use std::time::Instant;

use wire::{DecodeLimits, Refusal, decode};

use super::clustered::{Arrival, Arrivals, Missing};
use super::ends::Fill;
use super::log::Of;
use super::publish::entry;
use super::{Locked, LogName, Position, name_of};
use crate::config::LogBounds;
use crate::router::backplane::Peer;
use crate::router::backplane::message::{Sent, SentScope, placed};
use crate::router::disk::{DiskRead, Purpose};
use crate::router::fan_out::Delivery;
use crate::router::forms::Forms;
use crate::router::index::{Audience, Matches};
use crate::router::recipients::{Origin, may_repeat};
use crate::router::session::Session;
use crate::router::{Routed, Router, Scope, Uncommitted, not_kept};
use crate::store::history as stored;

/// An event whose place in a log of a cluster is known.
pub(in crate::router) enum Arrived {
    /// This node has appended it. `true`: and the one before it, too.
    Own(Box<Uncommitted>, bool),
    /// One of the copies of an adapter's event for all users, which this node has appended.
    Copy { adapter: Arc<Session>, text: Arc<str>, follows: bool },
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
}

/// What follows when the lock of the log is free.
pub(super) enum Done {
    Own(Box<Uncommitted>, Result<Routed, Refusal>),
    /// A link that had to wait.
    Peer(Arc<Peer>),
}

/// A log whose lock is held, with its bounds.
type Held<'a, 'l> = (&'a mut Locked<'l>, LogBounds);

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
            let Some(bounds) = self.policy.history(name.channel) else { return Self::outside(arrived, &mut done) };
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
    fn outside(arrived: Arrived, done: &mut Vec<Done>) {
        match arrived {
            Arrived::Own(event, _) => {
                done.push(Done::Own(event, Err(not_kept())));
            }
            Arrived::Copy { .. } => {}
            Arrived::Peer(event) => done.push(Done::Peer(event.peer)),
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
            Arrived::Own(event, follows) => {
                let routed = self.deliver_appended(now, (log, &bounds), &event, (position, follows));
                done.push(Done::Own(event, routed));
            }
            Arrived::Copy { adapter, text, follows } => {
                self.forward_copy(now, log, &adapter, &text, (position, follows));
                let copy = Kept { source: &adapter.source, user: None, to_all: true, text: &text };
                self.deliver_kept(now, (log, bounds), position, Origin::Session(&adapter), &copy);
            }
            Arrived::Peer(event) => {
                let FromPeer { peer, source, user, to_all, text } = *event;
                let kept = Kept { source: &source, user: user.as_deref(), to_all, text: &text };
                self.deliver_kept(now, (log, bounds), position, Origin::Node, &kept);
                done.push(Done::Peer(peer));
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
            Arrived::Own(event, follows) => {
                let routed = self.forward_appended(now, &event, (position, follows));
                done.push(Done::Own(event, routed));
            }
            Arrived::Copy { adapter, text, follows } => {
                self.forward_copy(now, log, &adapter, &text, (position, follows));
            }
            Arrived::Peer(event) => done.push(Done::Peer(event.peer)),
        }
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
    fn deliver_kept(
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
        let matches = match name_of(&key.key).owner {
            Some(user) if kept.to_all => {
                entry.address.of = Of::Everyone;
                self.of_user(user, &facts)
            }
            Some(_) | None => self.subscribers(&facts, scope),
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
                Done::Own(event, routed) => self.complete_event(now, *event, routed),
                Done::Peer(peer) => self.release_link(now, &peer),
            }
        }
        self.logs_advanced(now);
    }

    /// An event of another node in a log. Its link waits until it is delivered.
    pub(in crate::router) fn logged_from(&self, now: Instant, peer: &Arc<Peer>, event: &Sent<'_>) {
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
        };
        // Until the event is delivered: nothing that follows on the link overtakes it.
        peer.hold_link();
        self.arrived(now, &name, (&place.position(), place.follows), Arrived::Peer(Box::new(from_peer)));
    }

    /// Takes what was missing in a log and was read from the stream. Returns what is to be read next.
    pub fn take_missing(
        &self,
        now: Instant,
        read: DiskRead,
        outcome: Result<Vec<MissingEntry>, stored::Unread>,
    ) -> Option<DiskRead> {
        let DiskRead { range, pin, purpose } = read;
        let Purpose::Fill(fill) = purpose else { return None };
        let name = LogName::from(&range.log);
        let mut done = Vec::new();
        let last_read = outcome.as_ref().ok().and_then(|entries| entries.last()).map(|entry| entry.offset);
        let is_failed = matches!(outcome, Err(stored::Unread::Fault(_)));
        let rest = last_read.filter(|last| last < range.offsets.end()).map(|last| last + 1..=*range.offsets.end());
        self.history.with(&name, |log| {
            let Some(bounds) = self.policy.history(name.channel) else { return };
            for MissingEntry { offset, attempt, entry } in outcome.unwrap_or_default() {
                let position = Position { offset, epoch: Arc::clone(&range.epoch) };
                if log.state.arrivals.read(&position) {
                    self.deliver_read(now, (&mut *log, bounds), &position, attempt, &entry);
                }
            }
            // What cannot be read is left out only if something waits for it, which must not wait without a bound.
            if rest.is_none() && (!is_failed || fill.is_for_waiting()) {
                let through = Position { offset: *range.offsets.end(), epoch: Arc::clone(&range.epoch) };
                log.state.arrivals.was_read(now, &through);
            }
            self.settle(now, (log, bounds), &mut done);
        });
        if is_failed && fill.is_for_waiting() {
            tracing::warn!(log = %range.log, "events that are missing cannot be read from the stream, and are left out");
        }
        self.finish_arrived(now, done);
        match rest {
            Some(offsets) => {
                let range = stored::ReadRange { offsets, ..range };
                Some(DiskRead { range, pin, purpose: Purpose::Fill(fill) })
            }
            None => {
                fill.finish(is_failed);
                None
            }
        }
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

    fn deliver_read(
        &self,
        now: Instant,
        (log, bounds): Held<'_, '_>,
        position: &Position,
        attempt: [u8; 16],
        entry: &stored::Entry,
    ) {
        let Ok(envelope) = decode(&entry.text, DecodeLimits::OWN) else { return };
        let source = envelope.source().unwrap_or_default().to_owned();
        let before = Position { offset: position.offset - 1, epoch: Arc::clone(&position.epoch) };
        log.change(|state| state.place(&before));
        let kept = Kept { source: &source, user: entry.user.as_deref(), to_all: entry.to_all, text: &entry.text };
        // This node can have appended it, and not know yet.
        let sender = self.sender_of(attempt);
        let origin = sender.as_ref().map_or(Origin::Node, Origin::Session);
        self.deliver_kept(now, (log, bounds), position, origin, &kept);
    }

    /// Lets what is missing in logs be read when it is time.
    pub(super) fn read_gaps(&self, now: Instant) {
        for log in self.history.due_gaps(now) {
            let mut done = Vec::new();
            let mut locked = Locked { history: &self.history, state: log.state.lock(), log: &log };
            locked.state.gap_due = None;
            let missing = if locked.state.is_removed { None } else { locked.state.arrivals.due(now) };
            let name = name_of(&log.key);
            let epoch = locked.state.arrivals.cursor().map(|cursor| Arc::clone(&cursor.epoch));
            if let (Some(Missing::Nothing) | None, Some(bounds)) = (&missing, self.policy.history(name.channel))
                && !locked.state.is_removed
            {
                self.settle(now, (&mut locked, bounds), &mut done);
            }
            drop(locked);
            self.finish_arrived(now, done);
            match (missing, epoch) {
                (Some(Missing::Events(offsets)), Some(epoch)) => {
                    self.fill(now, &name, epoch, offsets, Fill::ForWaiting);
                }
                (Some(Missing::Ends), _) => self.check_log(&name),
                (Some(Missing::Nothing | Missing::Events(_)) | None, _) => {}
            }
        }
    }
}

impl super::History {
    /// The logs in which it is time to read what is missing.
    fn due_gaps(&self, now: Instant) -> Vec<Arc<super::log::Log>> {
        let mut gaps = self.gaps.lock();
        gaps.due(now)
    }
}

impl Locked<'_> {
    /// Lets the log be looked at when what is missing is to be read.
    fn set_gap_due(&mut self) {
        let due = self.state.arrivals.deadline();
        if due == self.state.gap_due {
            return;
        }
        let mut gaps = self.history.gaps.lock();
        if let Some(before) = self.state.gap_due {
            gaps.remove(before, self.log);
        }
        if let Some(due) = due {
            gaps.add(due, self.log);
        }
        drop(gaps);
        self.state.gap_due = due;
    }

    /// Returns whether this node follows the log, although it may hold nothing.
    pub(super) fn is_followed(&self) -> bool {
        let arrivals: &Arrivals<Arrived> = &self.state.arrivals;
        self.log.is_subscribed_soon() || arrivals.cursor().is_some() || arrivals.any_wait()
    }
}

/// An event that was missing, as the stream has it.
pub struct MissingEntry {
    /// Its offset.
    pub offset: u64,
    /// What names the attempt to append it.
    pub attempt: [u8; 16],
    /// The event.
    pub entry: stored::Entry,
}

/// An event as it was kept.
struct Kept<'a> {
    source: &'a str,
    user: Option<&'a str>,
    to_all: bool,
    text: &'a str,
}
