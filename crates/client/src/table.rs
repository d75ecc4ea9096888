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
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::folding::{Folding, matches_folded};
use super::held::Held;
use super::parking::Parking;
use super::subscription::Wanted;
use super::waiting::{Incoming, Repeatable, Waiting};
use super::{Error, Message};
use wire::{ErrorCode, Pattern, Triple};

/// How many messages may be parked while an answer is pending.
const PARKED_MAX: usize = 4096;
/// How long after an event with `once` was first sent it may be sent again. The broker knows its id for longer, by default
/// for two minutes.
const REPEAT_WITHIN: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    pub(super) held: BTreeMap<Wanted, Held>,
    pub(super) asked: u64,
    pub(super) folding: Folding,
    /// The user of the session.
    pub(super) user: Option<String>,
    /// The subscription whose replay is arriving, or was the last to arrive.
    pub(super) replaying: Option<Wanted>,
    /// Whether a subscription may have missed events since this was last asked.
    pub(super) has_missed: bool,
    waiting: HashMap<String, Pending>,
    /// The requests that this session's handlers are working on, by the broker's id.
    running: BTreeMap<String, CancellationToken>,
    parking: Parking,
    /// How many of the subscriptions that are made again are not confirmed yet.
    pub(super) unconfirmed: usize,
}

/// An envelope that has no last answer yet.
struct Pending {
    waiting: Waiting,
    /// Its sequence in the outbox.
    sequence: u64,
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
    /// A subscription is to be made again without `recover`.
    Unrecoverable(Wanted),
    /// The reply to Ping.
    Pong,
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
            && let Some(Pending { waiting: Waiting::Stream(queue), .. }) = self.waiting.get(id)
        {
            let queue = queue.clone();
            self.deliver(queue, Ok(message));
            return Received::Handled;
        }
        match self.waiting.remove(id).map(|pending| pending.waiting) {
            // The reply to Unsubscribe, or a late answer.
            None => self.folding.replied(id),
            Some(Waiting::Once(queue) | Waiting::Receipt(queue, _)) => {
                queue.send(Ok(message)).ok();
            }
            Some(Waiting::Stream(queue)) => self.deliver(queue, Ok(message)),
            Some(Waiting::Renewal) => return Received::Renewed(message),
            Some(Waiting::Ping) => return Received::Pong,
            Some(Waiting::Subscribe(wanted, asked)) => return self.subscribed(wanted, asked, &message),
        }
        Received::Handled
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

    pub(super) fn deliver(&mut self, queue: mpsc::Sender<Incoming>, item: Incoming) {
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

    /// Registers the recipient of the answers to an id. `sequence` is that of the message in the outbox.
    pub(super) fn wait(&mut self, id: String, sequence: u64, waiting: Waiting) {
        self.waiting.insert(id, Pending { waiting, sequence });
    }

    /// Returns the sequence of the message with this id.
    pub(super) fn sequence(&self, id: &str) -> Option<u64> {
        self.waiting.get(id).map(|pending| pending.sequence)
    }

    /// Notes that messages have other sequences now, by their old ones.
    pub(super) fn move_sequences(&mut self, moved: &HashMap<u64, u64>) {
        self.waiting.values_mut().for_each(|pending| {
            if let Some(sequence) = moved.get(&pending.sequence) {
                pending.sequence = *sequence;
            }
        });
    }

    /// Notes that a handler answered. Returns whether the request is still open, so that the answer is worth sending.
    pub(super) fn answered(&mut self, id: &str, more: bool) -> bool {
        if more { self.running.contains_key(id) } else { self.running.remove(id).is_some() }
    }

    /// Removes what was dropped. Returns the ids of the requests to cancel, and the subscriptions to end by
    /// `SubscriptionId`.
    pub(super) fn sweep(&mut self) -> (Vec<String>, BTreeMap<String, Vec<Wanted>>) {
        let mut cancelled = Vec::new();
        self.waiting.retain(|id, Pending { waiting, .. }| {
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

    /// Notes that a connection of a session that goes on is lost.
    pub(super) fn disconnected(&mut self) {
        self.waiting.retain(|_, pending| !matches!(pending.waiting, Waiting::Renewal | Waiting::Ping));
    }

    /// Notes that the session has ended. Pending operations fail: those that were sent with `error`, those with a sequence
    /// from `unwritten_from` on with [`Error::Disconnected`]. Running requests are cancelled. Subscriptions stay.
    ///
    /// Receipts of unwritten events stay, too. If `repeats`, so do new subscriptions, and receipts of events that may be sent
    /// again; the ids and texts of these are returned in order.
    pub(super) fn end_session(
        &mut self,
        now: Instant,
        error: &Error,
        unwritten_from: u64,
        repeats: bool,
    ) -> Vec<(String, Utf8Bytes)> {
        let mut repeated = Vec::new();
        // In the order of sending: that of the map is random.
        let mut pending: Vec<_> = self.waiting.drain().collect();
        pending.sort_unstable_by_key(|(_, pending)| pending.sequence);
        for (id, Pending { waiting, sequence }) in pending {
            let is_written = sequence < unwritten_from;
            match &waiting {
                Waiting::Receipt(..) if !is_written => {}
                Waiting::Receipt(_, Some(Repeatable { text, since })) if repeats && now < *since + REPEAT_WITHIN => {
                    repeated.push((id.clone(), text.clone()));
                }
                _ => {
                    waiting.fail(if is_written { error.clone() } else { Error::Disconnected });
                    continue;
                }
            }
            self.waiting.insert(id, Pending { waiting, sequence });
        }
        self.unconfirmed = 0;
        self.replaying = None;
        for held in self.held.values_mut() {
            if !repeats {
                held.fail_new(error);
            }
            held.session_ended();
        }
        for (_, token) in std::mem::take(&mut self.running) {
            token.cancel();
        }
        repeated
    }

    /// Notes the new sequence of an event that is sent again.
    pub(super) fn repeated(&mut self, id: &str, sequence: u64) {
        if let Some(pending) = self.waiting.get_mut(id) {
            pending.sequence = sequence;
        }
    }

    /// Returns whether all subscriptions are confirmed on this connection.
    pub(super) fn is_complete(&self) -> bool {
        self.unconfirmed == 0
    }

    /// Ends all subscriptions, and operations that are still pending, with this error.
    pub(super) fn close(&mut self, error: &Error) {
        self.waiting.drain().for_each(|(_, pending)| pending.waiting.fail(error.clone()));
        for listener in std::mem::take(&mut self.held).into_values().flat_map(|held| held.listeners) {
            if let Some(done) = listener.done {
                done.send(Err(error.clone())).ok();
            }
            // A full queue ends too, when its sender is dropped.
            listener.queue.try_send(Err(error.clone())).ok();
        }
    }
}

/// Returns how many parts of the pattern are `*`.
fn width(pattern: &Pattern) -> usize {
    [&pattern.channel, &pattern.topic, &pattern.subtopic].iter().filter(|part| part.is_none()).count()
}
