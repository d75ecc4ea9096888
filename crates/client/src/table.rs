//! [`Table`]: the queues of this client's subscriptions, handlers and pending requests, and which of them gets a message
//! from the broker.
//!
//! The broker delivers an event once per session, however many of the session's patterns match. So the table has the
//! patterns too, and passes the message to every [`Subscription`](super::Subscription) that matches. An answer is found
//! by its `inReplyTo`; a request goes to one handler.
//!
//! In a channel with `fold_case`, patterns that differ in case are one subscription of the broker: its replies have one
//! `SubscriptionId`. An event for one of them is for all, and the last of them unsubscribes.
//!
//! A message for a full queue is *parked*, in order. The connection is not read while messages are parked, so the
//! broker slows the publishers down. There is one exception: while an answer is pending, reading continues until
//! [`PARKED_MAX`] messages are parked, because the answer can be behind events that the requesting code would have to
//! take.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::folding::{Folding, matches_folded};
use super::parking::Parking;
use super::subscription::Wanted;
use super::waiting::{Incoming, Waiting};
use super::{Error, Message};
use wire::{ErrorCode, Pattern, Triple};

/// How many messages may be parked while an answer is pending.
const PARKED_MAX: usize = 4096;

/// The equal subscriptions of this client.
#[derive(Default)]
struct Held {
    /// `SubscriptionId`, which the broker gives to patterns that differ only in case if it ignores case in their channel.
    id: Option<String>,
    /// How many Subscribe commands have no reply yet.
    unanswered: u32,
    /// In the order of subscribing.
    listeners: Vec<Listener>,
}

/// One subscription of this client.
struct Listener {
    queue: mpsc::Sender<Incoming>,
    /// The number of its latest Subscribe command.
    asked: u64,
    /// Whether retained values can be for it.
    fresh: bool,
}

impl Held {
    fn is_open(&self) -> bool {
        self.listeners.iter().any(|listener| !listener.queue.is_closed())
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    held: BTreeMap<Wanted, Held>,
    asked: u64,
    folding: Folding,
    waiting: HashMap<String, Waiting>,
    /// The requests that this session's handlers are working on, by the broker's id.
    running: BTreeMap<String, CancellationToken>,
    parking: Parking,
    /// How many of the subscriptions that are made again are not confirmed yet.
    unconfirmed: usize,
}

/// What a message means for the connection.
#[derive(Debug)]
pub(super) enum Received {
    /// The table has handled it.
    Handled,
    /// The broker is about to restart. Reconnect this long after the Close frame.
    Draining(Duration),
    /// The proof of the session expires soon.
    Expiring,
    /// The reply to Renew.
    Renewed(Message),
    /// A request for a handler that has just stopped.
    Unserved(Message),
    /// A subscription is confirmed that may have been dropped meanwhile.
    Subscribed,
}

/// `data` of the reply to Subscribe.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subscribed {
    subscription_id: Option<String>,
}

/// `data` of `Broker/Connection/Draining`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Draining {
    reconnect_after_ms: u64,
}

impl Table {
    /// Passes a message from the broker on to its recipients.
    pub(super) fn receive(&mut self, message: Message) -> Received {
        if message.is_notice("Request", "Cancelled") {
            if let Some(token) = message.in_reply_to().and_then(|id| self.running.remove(id)) {
                token.cancel();
            }
            return Received::Handled;
        }
        if let Some(id) = message.in_reply_to() {
            let id = id.to_owned();
            return self.answer(&id, message);
        }
        if message.is_request() {
            return self.request(message);
        }
        let received = Self::notice(&message);
        self.event(&message);
        received
    }

    fn answer(&mut self, id: &str, message: Message) -> Received {
        if message.more()
            && let Some(Waiting::Stream(queue)) = self.waiting.get(id)
        {
            let queue = queue.clone();
            self.deliver(queue, Ok(message));
            return Received::Handled;
        }
        match self.waiting.remove(id) {
            // The reply to Unsubscribe, or a late answer.
            None => self.folding.replied(id),
            Some(Waiting::Once(queue)) => {
                queue.send(Ok(message)).ok();
            }
            Some(Waiting::Stream(queue)) => self.deliver(queue, Ok(message)),
            Some(Waiting::Renewal) => return Received::Renewed(message),
            Some(Waiting::Subscribe(wanted, asked, queue)) => {
                self.subscribed(&wanted, asked, &message);
                if message.failure().is_some()
                    && let Some(held) = self.held.get_mut(&wanted)
                {
                    held.listeners.retain(|listener| listener.asked != asked);
                }
                queue.send(Ok(message)).ok();
                return Received::Subscribed;
            }
            Some(Waiting::Again(wanted, asked)) => {
                self.unconfirmed = self.unconfirmed.saturating_sub(1);
                self.subscribed(&wanted, asked, &message);
                if let Some(failure) = message.failure() {
                    tracing::warn!(pattern = %wanted.pattern, %failure, "a subscription could not be made again");
                    for listener in self.held.remove(&wanted).into_iter().flat_map(|held| held.listeners) {
                        self.deliver(listener.queue, Err(Error::from(failure.clone())));
                    }
                }
                return Received::Subscribed;
            }
        }
        Received::Handled
    }

    /// Notes the reply to the Subscribe command with this number.
    fn subscribed(&mut self, wanted: &Wanted, asked: u64, reply: &Message) {
        let Some(held) = self.held.get_mut(wanted) else { return };
        held.unanswered = held.unanswered.saturating_sub(1);
        if reply.failure().is_some() {
            return;
        }
        let id = reply.data().ok().and_then(|data: Subscribed| data.subscription_id);
        held.id.clone_from(&id);
        self.older_are_not_fresh(asked);
        let is_shared =
            |(other, held): (&Wanted, &Held)| other.pattern != wanted.pattern && id.is_some() && held.id == id;
        if self.held.iter().any(is_shared) {
            self.folding.learn(&wanted.pattern);
        }
    }

    /// Passes a request to the handler with the narrowest matching pattern.
    fn request(&mut self, message: Message) -> Received {
        let triple = message.triple();
        let handlers = || self.held.iter().filter(|(wanted, held)| wanted.handler && held.is_open());
        let matching = handlers().filter(|(wanted, _)| self.folding.matches(&wanted.pattern, triple));
        let folded = handlers().filter(|(wanted, _)| matches_folded(&wanted.pattern, triple));
        let chosen = matching.min_by_key(|(wanted, _)| width(&wanted.pattern)).or_else(|| {
            let folded = folded.min_by_key(|(wanted, _)| width(&wanted.pattern));
            // Another spelling gets no request of a handler that has just stopped.
            folded.filter(|_| !self.is_stopping(triple))
        });
        let Some((wanted, held)) = chosen else { return Received::Unserved(message) };
        let queue = held.listeners.iter().map(|listener| &listener.queue).find(|queue| !queue.is_closed());
        let Some(queue) = queue.cloned() else { return Received::Unserved(message) };
        // A command is complete when it is delivered, so no cancellation follows.
        if wanted.answers
            && let Some(id) = message.id()
        {
            self.running.insert(id.to_owned(), message.cancellation().clone());
        }
        self.deliver(queue, Ok(message));
        Received::Handled
    }

    /// Returns whether a request can be for a handler that has stopped.
    fn is_stopping(&self, triple: &Triple<'_>) -> bool {
        let mut stopped = self.held.iter().filter(|(wanted, held)| wanted.handler && !held.is_open());
        stopped.any(|(wanted, _)| wanted.pattern.matches(triple)) || self.folding.is_leaving(triple, true)
    }

    /// Passes an event to every subscription that it can be for.
    fn event(&mut self, message: &Message) {
        let triple = message.triple();
        let events = || self.held.iter().filter(|(wanted, _)| !wanted.handler);
        let mut matching: Vec<_> =
            events().filter(|(wanted, _)| self.folding.matches(&wanted.pattern, triple)).collect();
        if matching.is_empty() {
            if self.folding.is_leaving(triple, false) {
                return;
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
        let listeners = || matching.iter().flat_map(|(_, held)| &held.listeners);
        let only_fresh = message.retained() && listeners().any(|listener| listener.fresh);
        let chosen = listeners().filter(|listener| listener.fresh || !only_fresh);
        let queues: Vec<_> = chosen.map(|listener| listener.queue.clone()).collect();
        for queue in queues {
            self.deliver(queue, Ok(message.clone()));
        }
    }

    /// Reads a notice about the connection.
    fn notice(message: &Message) -> Received {
        if message.is_notice("Connection", "Draining") {
            let after = message.data::<Draining>().map_or(0, |draining| draining.reconnect_after_ms);
            return Received::Draining(Duration::from_millis(after));
        }
        if message.is_notice("Connection", "Expiring") {
            return Received::Expiring;
        }
        if message.is_notice("Message", "Error") {
            match message.failure() {
                // The handlers answer only requests that they were given, so this one has ended meanwhile.
                Some(failure) if failure.code() == Some(ErrorCode::NoSuchRequest) => {
                    tracing::warn!("an answer was too late: its request had timed out or was cancelled");
                }
                Some(failure) => tracing::warn!(%failure, "the broker refused an envelope that had no id"),
                None => {}
            }
        } else if message.is_notice("Connection", "Lagging") {
            tracing::warn!("this application takes messages more slowly than they arrive");
        } else if message.is_notice("Subscription", "Ended") {
            tracing::warn!(
                data = message.payload(),
                "the rights of this application have changed: the broker ended or narrowed subscriptions"
            );
        } else if message.is_notice("Message", "Dropped") {
            tracing::warn!(
                data = message.payload(),
                "the broker dropped events that this application did not take in time"
            );
        }
        Received::Handled
    }

    fn deliver(&mut self, queue: mpsc::Sender<Incoming>, item: Incoming) {
        self.parking.deliver(queue, item);
    }

    /// As [`Parking::unpark`].
    pub(super) async fn unpark(&mut self) {
        self.parking.unpark().await;
    }

    /// Returns whether the socket may be read.
    pub(super) fn may_read(&self) -> bool {
        let parked = self.parking.len();
        parked == 0 || (!self.waiting.is_empty() && parked < PARKED_MAX)
    }

    /// Registers the recipient of the answers to an id.
    pub(super) fn wait(&mut self, id: String, waiting: Waiting) {
        self.waiting.insert(id, waiting);
    }

    /// Adds a subscription, and returns the number of its Subscribe command. This happens before Subscribe is sent, because
    /// retained values can arrive before the reply.
    pub(super) fn hold(&mut self, wanted: Wanted, queue: mpsc::Sender<Incoming>) -> u64 {
        self.asked += 1;
        let held = self.held.entry(wanted).or_default();
        held.listeners.push(Listener { queue, asked: self.asked, fresh: true });
        held.unanswered += 1;
        self.asked
    }

    /// Marks the subscriptions that were sent before the one that is now confirmed. Retained values arrive with the reply
    /// to Subscribe, so later ones are not for these.
    fn older_are_not_fresh(&mut self, asked: u64) {
        for listener in self.held.values_mut().flat_map(|held| &mut held.listeners) {
            listener.fresh &= listener.asked >= asked;
        }
    }

    /// Notes that a handler answered. Returns whether the request is still open, so that the answer is worth sending.
    pub(super) fn answered(&mut self, id: &str, more: bool) -> bool {
        if more { self.running.contains_key(id) } else { self.running.remove(id).is_some() }
    }

    /// Removes what was dropped. Returns the ids of the requests to cancel, and the subscriptions to end by
    /// `SubscriptionId`.
    pub(super) fn sweep(&mut self) -> (Vec<String>, BTreeMap<String, Vec<Wanted>>) {
        let mut cancelled = Vec::new();
        self.waiting.retain(|id, waiting| {
            if waiting.is_dropped() && matches!(waiting, Waiting::Stream(_)) {
                cancelled.push(id.clone());
            }
            !waiting.is_dropped()
        });
        // The order of the map is random.
        cancelled.sort_unstable();
        for held in self.held.values_mut() {
            held.listeners.retain(|listener| !listener.queue.is_closed());
        }
        let mut left: BTreeMap<_, Vec<_>> = BTreeMap::new();
        // Until the last reply, it is not known whether a new pattern has the same id.
        if self.held.values().all(|held| held.unanswered == 0) {
            let empty = self.held.extract_if(.., |_, held| held.listeners.is_empty());
            for (wanted, held) in empty {
                if let Some(id) = held.id {
                    left.entry(id).or_default().push(wanted);
                }
            }
            left.retain(|id, _| !self.held.values().any(|held| held.id.as_ref() == Some(id)));
        }
        (cancelled, left)
    }

    /// Notes that the Unsubscribe command with this id ends these subscriptions.
    pub(super) fn unsubscribing(&mut self, subscriptions: Vec<Wanted>, id: &str) {
        self.folding.drop_subscriptions(subscriptions, id);
    }

    /// Notes that the connection is lost. Pending operations fail with this error, and running requests are cancelled.
    /// Subscriptions stay.
    pub(super) fn disconnected(&mut self, error: &Error) {
        self.waiting.drain().for_each(|(_, waiting)| waiting.fail(error.clone()));
        self.unconfirmed = 0;
        for held in self.held.values_mut() {
            (held.id, held.unanswered) = (None, 0);
        }
        for (_, token) in std::mem::take(&mut self.running) {
            token.cancel();
        }
    }

    /// Returns the subscriptions to make on a new connection, with the numbers of their Subscribe commands.
    pub(super) fn again(&mut self) -> Vec<(Wanted, u64)> {
        self.sweep();
        self.folding = Folding::default();
        self.unconfirmed = self.held.len();
        let mut again = Vec::new();
        for (wanted, held) in &mut self.held {
            self.asked += 1;
            held.unanswered = 1;
            for listener in &mut held.listeners {
                (listener.asked, listener.fresh) = (self.asked, true);
            }
            again.push((wanted.clone(), self.asked));
        }
        again
    }

    /// Returns whether all subscriptions are confirmed on this connection.
    pub(super) fn is_complete(&self) -> bool {
        self.unconfirmed == 0
    }

    /// Ends all subscriptions with this error.
    pub(super) fn close(&mut self, error: &Error) {
        self.disconnected(error);
        for listener in std::mem::take(&mut self.held).into_values().flat_map(|held| held.listeners) {
            // A full queue ends too, when its sender is dropped.
            listener.queue.try_send(Err(error.clone())).ok();
        }
    }
}

/// Returns how many parts of the pattern are `*`.
fn width(pattern: &Pattern) -> usize {
    [&pattern.channel, &pattern.topic, &pattern.subtopic].iter().filter(|part| part.is_none()).count()
}
