//! The subscriptions in the [`Table`]: how they are made, made again, and which of them gets an event.
//!
//! The events of a replay follow the reply to the Subscribe command that asked for it, and the broker reads no other command
//! until they are sent. So they are for the subscription that was confirmed last, whatever other patterns match.

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::folding::{Folding, matches_folded};
use super::position::{Recover, Track};
use super::subscription::Wanted;
use super::table::{Received, Table};
use super::waiting::Incoming;
use super::{Error, Message, Position};
use wire::ErrorCode;

/// The equal subscriptions of this client.
#[derive(Default)]
pub(super) struct Held {
    /// `SubscriptionId`, which the broker gives to patterns that differ only in case if it ignores case in their channel.
    pub(super) id: Option<String>,
    /// How many Subscribe commands have no reply yet.
    pub(super) unanswered: u32,
    /// Whether it was made again, and is not confirmed yet.
    is_unconfirmed: bool,
    /// In the order of subscribing.
    pub(super) listeners: Vec<Listener>,
}

/// One subscription of this client.
pub(super) struct Listener {
    pub(super) queue: mpsc::Sender<Incoming>,
    /// The number of its latest Subscribe command.
    asked: u64,
    /// Whether retained values can be for it.
    fresh: bool,
    /// Takes the reply to the first Subscribe command.
    pub(super) done: Option<oneshot::Sender<Incoming>>,
    track: Track,
}

/// A Subscribe command to send.
pub(super) struct Asking {
    pub(super) wanted: Wanted,
    pub(super) asked: u64,
    pub(super) recover: Option<Recover>,
}

/// `data` of the reply to Subscribe.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subscribed {
    subscription_id: Option<String>,
    epoch: Option<String>,
    offset: Option<u64>,
    #[serde(default)]
    recovered: bool,
    replayed: Option<u64>,
}

impl Held {
    pub(super) fn is_open(&self) -> bool {
        self.listeners.iter().any(|listener| !listener.queue.is_closed())
    }

    /// Ends the subscriptions that are not confirmed yet.
    pub(super) fn fail_new(&mut self, error: &Error) {
        for listener in self.listeners.extract_if(.., |listener| listener.done.is_some()) {
            if let Some(done) = listener.done {
                done.send(Err(error.clone())).ok();
            }
        }
    }

    /// Forgets what the session knew.
    pub(super) fn session_ended(&mut self) {
        (self.id, self.unanswered, self.is_unconfirmed) = (None, 0, false);
    }

    /// Returns where to begin again, so that no listener misses an event. Listeners that have later ones leave out the
    /// others.
    fn recover(&self, has_missed: &mut bool) -> Option<Recover> {
        let mut first: Option<Recover> = None;
        for (recover, is_complete) in self.listeners.iter().filter_map(|listener| listener.track.recover()) {
            *has_missed |= !is_complete;
            first = Some(match (first, recover) {
                (Some(Recover::After(one)), Recover::After(other)) => {
                    // A reply named the log of both, so another epoch can only be an older one.
                    Recover::After(if other.epoch == one.epoch && other.offset < one.offset { other } else { one })
                }
                (Some(Recover::Last(one)), Recover::Last(other)) => Recover::Last(one.max(other)),
                (Some(after @ Recover::After(_)), Recover::Last(_)) => after,
                (_, recover) => recover,
            });
        }
        first
    }
}

impl Table {
    /// Adds a subscription, and returns the number of its Subscribe command. This happens before Subscribe is sent, because
    /// retained values can arrive before the reply.
    pub(super) fn hold(
        &mut self,
        wanted: Wanted,
        queue: mpsc::Sender<Incoming>,
        done: oneshot::Sender<Incoming>,
        track: Track,
    ) -> u64 {
        self.asked += 1;
        let held = self.held.entry(wanted).or_default();
        held.listeners.push(Listener { queue, asked: self.asked, fresh: true, done: Some(done), track });
        held.unanswered += 1;
        self.asked
    }

    /// Returns the subscriptions to make in a new session. With `recovers`, from where the application is.
    pub(super) fn again(&mut self, recovers: bool) -> Vec<Asking> {
        self.sweep();
        self.folding = Folding::default();
        self.unconfirmed = self.held.len();
        let mut again = Vec::new();
        for (wanted, held) in &mut self.held {
            self.asked += 1;
            (held.unanswered, held.is_unconfirmed) = (1, true);
            let may_recover = recovers && wanted.has_log();
            let recover = if may_recover { held.recover(&mut self.has_missed) } else { None };
            for listener in &mut held.listeners {
                (listener.asked, listener.fresh) = (self.asked, true);
                listener.track.ask(recover.is_some());
            }
            again.push(Asking { wanted: wanted.clone(), asked: self.asked, recover });
        }
        again
    }

    /// Handles the reply to the Subscribe command with this number.
    pub(super) fn subscribed(&mut self, wanted: Wanted, asked: u64, reply: &Message) -> Received {
        if let Some(failure) = reply.failure() {
            let listeners = self.held.get(&wanted).map_or(&[][..], |held| &held.listeners);
            let recovering = |listener: &Listener| listener.done.is_none() && listener.track.awaits_replay();
            let was_recovering = listeners.iter().any(|listener| listener.asked == asked && recovering(listener));
            if failure.code() == Some(ErrorCode::InvalidEnvelope) && was_recovering {
                // The channel has no history any more.
                return Received::Unrecoverable(wanted);
            }
            self.refused(&wanted, asked, reply, &Error::from(failure));
            return Received::Subscribed;
        }
        let Some(held) = self.held.get_mut(&wanted) else { return Received::Subscribed };
        held.unanswered = held.unanswered.saturating_sub(1);
        let subscribed: Option<Subscribed> = reply.data().ok();
        let (id, at, replayed) = subscribed.map_or((None, None, None), |data| {
            let at = data.epoch.zip(data.offset).map(|(epoch, offset)| Position { epoch, offset });
            (data.subscription_id, at, data.replayed.filter(|_| data.recovered))
        });
        held.id.clone_from(&id);
        let mut is_again = false;
        for listener in held.listeners.iter_mut().filter(|listener| listener.asked == asked) {
            listener.track.begin(at.clone().filter(|_| wanted.has_log()), replayed);
            match listener.done.take() {
                Some(done) => drop(done.send(Ok(reply.clone()))),
                None => is_again = true,
            }
        }
        self.has_missed |= is_again && replayed.is_none() && !wanted.handler;
        self.unconfirmed -= usize::from(std::mem::take(&mut held.is_unconfirmed));
        if replayed.is_some() {
            self.replaying = Some(wanted.clone());
        }
        self.older_are_not_fresh(asked);
        let is_shared =
            |(other, held): (&Wanted, &Held)| other.pattern != wanted.pattern && id.is_some() && held.id == id;
        if self.held.iter().any(is_shared) {
            self.folding.learn(&wanted.pattern);
        }
        Received::Subscribed
    }

    /// Ends the subscriptions that the broker has refused.
    fn refused(&mut self, wanted: &Wanted, asked: u64, reply: &Message, error: &Error) {
        let Some(held) = self.held.get_mut(wanted) else { return };
        held.unanswered = held.unanswered.saturating_sub(1);
        let mut queues = Vec::new();
        for listener in held.listeners.extract_if(.., |listener| listener.asked == asked) {
            match listener.done {
                Some(done) => drop(done.send(Ok(reply.clone()))),
                None => queues.push(listener.queue),
            }
        }
        self.unconfirmed -= usize::from(std::mem::take(&mut held.is_unconfirmed));
        if !queues.is_empty() {
            tracing::warn!(pattern = %wanted.pattern, %error, "a subscription could not be made again");
        }
        for queue in queues {
            self.deliver(queue, Err(error.clone()));
        }
    }

    /// Prepares to make a subscription again without `recover`.
    pub(super) fn without_recover(&mut self, wanted: &Wanted) -> u64 {
        self.asked += 1;
        for listener in self.held.get_mut(wanted).into_iter().flat_map(|held| &mut held.listeners) {
            listener.asked = self.asked;
            listener.track.ask(false);
        }
        self.asked
    }

    /// Passes an event to every subscription that it can be for.
    pub(super) fn event(&mut self, message: &Message) {
        if message.replayed()
            && let Some(held) = self.replaying.as_ref().and_then(|wanted| self.held.get(wanted))
        {
            let taking = held.listeners.iter().filter(|listener| listener.track.takes_replayed(message));
            let queues: Vec<_> = taking.map(|listener| listener.queue.clone()).collect();
            for queue in queues {
                self.deliver(queue, Ok(message.for_subscription(true)));
            }
            return;
        }
        for (queue, moves) in self.recipients(message) {
            self.deliver(queue, Ok(message.for_subscription(moves)));
        }
    }

    /// Returns the queues for an event, and for each whether it moves the position there.
    fn recipients(&mut self, message: &Message) -> Vec<(mpsc::Sender<Incoming>, bool)> {
        let triple = message.triple();
        let events = || self.held.iter().filter(|(wanted, _)| !wanted.handler);
        let mut matching: Vec<_> =
            events().filter(|(wanted, _)| self.folding.matches(&wanted.pattern, triple)).collect();
        if matching.is_empty() {
            if self.folding.is_leaving(triple, false) {
                return Vec::new();
            }
            matching = events().filter(|(wanted, _)| matches_folded(&wanted.pattern, triple)).collect();
            if !self.folding.was_dropped(triple) {
                for (wanted, _) in &matching {
                    self.folding.learn(&wanted.pattern);
                }
            }
        }
        // The broker sent it for one of them, so a filter that leaves none is not applied.
        let narrowed: Vec<_> = matching.iter().filter(|(wanted, _)| wanted.is_for(message.user())).copied().collect();
        let matching = if narrowed.is_empty() { matching } else { narrowed };
        // With an observing subscription beside it, an event of another user need not be from the log of this user.
        let is_foreign =
            message.user() != self.user.as_deref() && matching.iter().any(|(wanted, _)| wanted.user.is_some());
        let listeners = || matching.iter().flat_map(|(wanted, held)| held.listeners.iter().map(move |it| (wanted, it)));
        let only_fresh = message.retained() && listeners().any(|(_, listener)| listener.fresh);
        let chosen = listeners().filter(|(_, listener)| listener.fresh || !only_fresh);
        let taking = chosen.filter_map(|(wanted, listener)| {
            let moves = !message.retained() && (!is_foreign || wanted.user.is_some());
            let takes = message.retained() || listener.track.takes_live(message, moves);
            takes.then(|| (listener.queue.clone(), moves))
        });
        taking.collect()
    }

    /// Marks the subscriptions that were sent before the one that is now confirmed. Retained values arrive with the reply
    /// to Subscribe, so later ones are not for these.
    fn older_are_not_fresh(&mut self, asked: u64) {
        for listener in self.held.values_mut().flat_map(|held| &mut held.listeners) {
            listener.fresh &= listener.asked >= asked;
        }
    }
}
