//! [`Table`]: the queues of this client's subscriptions, handlers and pending requests, and which of them gets a message
//! from the broker.
//!
//! The broker delivers an event once per session, however many of the session's patterns match. So the table has the
//! patterns too, and passes the message to every [`Subscription`](super::Subscription) that matches. An answer is found
//! by its `inReplyTo`; a request goes to one handler.
//!
//! A message for a full queue is *parked*, in order. The connection is not read while messages are parked, so the
//! broker slows the publishers down. There is one exception: while an answer is pending, reading continues until
//! [`PARKED_MAX`] messages are parked, because the answer can be behind events that the requesting code would have to
//! take.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use futures_util::future::select_all;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::subscription::Wanted;
use super::{Error, Message};
use wire::ErrorCode;
use wire::Pattern;

/// How many messages may be parked while an answer is pending.
const PARKED_MAX: usize = 4096;

/// An item of a queue. An error is the last one.
pub(super) type Incoming = Result<Message, Error>;

/// The recipient of an answer.
pub(super) enum Waiting {
    /// Takes one answer.
    Once(oneshot::Sender<Incoming>),
    /// Takes answers up to the one without `more`. If it is dropped before that, the request is cancelled.
    Stream(mpsc::Sender<Incoming>),
    /// Takes the reply to Subscribe, for the new subscription with this number.
    Subscribe(u64, oneshot::Sender<Incoming>),
    /// The subscriptions that are made again after a reconnect.
    Again(Wanted),
}

impl Waiting {
    fn is_dropped(&self) -> bool {
        match self {
            Self::Once(queue) | Self::Subscribe(_, queue) => queue.is_closed(),
            Self::Stream(queue) => queue.is_closed(),
            Self::Again(_) => false,
        }
    }

    /// Passes on why there will be no answer.
    fn fail(self, error: Error) {
        match self {
            Self::Once(queue) | Self::Subscribe(_, queue) => {
                queue.send(Err(error)).ok();
            }
            Self::Stream(queue) => {
                queue.try_send(Err(error)).ok();
            }
            Self::Again(_) => {}
        }
    }
}

/// A subscription of the broker, shared by all equal subscriptions of this client.
struct Held {
    /// In the order of subscribing.
    queues: Vec<(u64, mpsc::Sender<Incoming>)>,
    /// The number of the Subscribe command that was sent last.
    asked: u64,
    /// Whether retained values can be for this subscription.
    fresh: bool,
}

/// The messages that did not fit into a full queue.
struct Parked {
    queue: mpsc::Sender<Incoming>,
    items: VecDeque<Incoming>,
}

impl Parked {
    /// Passes on the messages that fit. Returns whether some are left.
    fn pass_on(&mut self) -> bool {
        while let Some(item) = self.items.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(item)) = self.queue.try_send(item) {
                self.items.push_front(item);
                return true;
            }
        }
        false
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    held: BTreeMap<Wanted, Held>,
    asked: u64,
    waiting: HashMap<String, Waiting>,
    /// The requests that this session's handlers are working on, by the broker's id.
    running: BTreeMap<String, CancellationToken>,
    parked: Vec<Parked>,
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
    /// A request for a handler that has just stopped.
    Unserved(Message),
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
            self.answer(&id, message);
            return Received::Handled;
        }
        if message.is_request() {
            return self.request(message);
        }
        let received = Self::notice(&message);
        self.event(&message);
        received
    }

    fn answer(&mut self, id: &str, message: Message) {
        if message.more()
            && let Some(Waiting::Stream(queue)) = self.waiting.get(id)
        {
            let queue = queue.clone();
            self.deliver(queue, Ok(message));
            return;
        }
        match self.waiting.remove(id) {
            // The answer is late.
            None => {}
            Some(Waiting::Once(queue)) => {
                queue.send(Ok(message)).ok();
            }
            Some(Waiting::Stream(queue)) => self.deliver(queue, Ok(message)),
            Some(Waiting::Subscribe(number, queue)) => {
                if message.failure().is_some() {
                    self.forget(number);
                } else {
                    let held = self.held.values().find(|held| held.queues.iter().any(|it| it.0 == number));
                    let asked = held.map(|held| held.asked);
                    self.older_are_not_fresh(asked);
                }
                queue.send(Ok(message)).ok();
            }
            Some(Waiting::Again(wanted)) => {
                self.unconfirmed = self.unconfirmed.saturating_sub(1);
                let Some(failure) = message.failure() else {
                    let asked = self.held.get(&wanted).map(|held| held.asked);
                    return self.older_are_not_fresh(asked);
                };
                tracing::warn!(pattern = %wanted.pattern, %failure, "a subscription could not be made again");
                for (_, queue) in self.held.remove(&wanted).into_iter().flat_map(|held| held.queues) {
                    self.deliver(queue, Err(Error::from(failure.clone())));
                }
            }
        }
    }

    /// Passes a request to the handler with the narrowest matching pattern.
    fn request(&mut self, message: Message) -> Received {
        let handlers = || self.held.iter().filter(|(wanted, _)| wanted.handler);
        let exact = handlers().filter(|(wanted, _)| wanted.pattern.matches(message.triple()));
        let folded = handlers().filter(|(wanted, _)| wanted.pattern.matches_any_case(message.triple()));
        let chosen = exact.min_by_key(|(wanted, _)| width(&wanted.pattern));
        let chosen = chosen.or_else(|| folded.min_by_key(|(wanted, _)| width(&wanted.pattern)));
        let queue = chosen.and_then(|(_, held)| held.queues.iter().map(|(_, queue)| queue).find(|it| !it.is_closed()));
        let Some(queue) = queue.cloned() else { return Received::Unserved(message) };
        if let Some(id) = message.id() {
            self.running.insert(id.to_owned(), message.cancellation().clone());
        }
        self.deliver(queue, Ok(message));
        Received::Handled
    }

    /// Passes an event to every subscription that it can be for.
    fn event(&mut self, message: &Message) {
        let matches = |wanted: &Wanted| !wanted.handler && wanted.pattern.matches(message.triple());
        let mut matching: Vec<_> = self.held.iter().filter(|(wanted, _)| matches(wanted)).collect();
        if matching.is_empty() {
            // The broker is configured to ignore case in this channel.
            let matches = |wanted: &Wanted| !wanted.handler && wanted.pattern.matches_any_case(message.triple());
            matching = self.held.iter().filter(|(wanted, _)| matches(wanted)).collect();
        }
        // The broker sent it for one of them, so a filter that leaves none is not applied.
        let narrowed: Vec<_> = matching.iter().filter(|(wanted, _)| wanted.is_for(message.user())).copied().collect();
        let matching = if narrowed.is_empty() { matching } else { narrowed };
        let fresh: Vec<_> = matching.iter().filter(|(_, held)| held.fresh && message.retained()).copied().collect();
        let matching = if fresh.is_empty() { matching } else { fresh };
        let queues: Vec<_> = matching.iter().flat_map(|(_, held)| &held.queues).map(|(_, it)| it.clone()).collect();
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
        } else if message.is_notice("Message", "Dropped") {
            tracing::warn!(
                data = message.payload(),
                "the broker dropped events that this application did not take in time"
            );
        }
        Received::Handled
    }

    fn deliver(&mut self, queue: mpsc::Sender<Incoming>, item: Incoming) {
        if let Some(parked) = self.parked.iter_mut().find(|parked| parked.queue.same_channel(&queue)) {
            parked.items.push_back(item);
        } else if let Err(mpsc::error::TrySendError::Full(item)) = queue.try_send(item) {
            self.parked.push(Parked { queue, items: VecDeque::from([item]) });
        }
    }

    /// Waits until a full queue has room, and passes on the messages that fit. If nothing is parked, never ends.
    pub(super) async fn unpark(&mut self) {
        if self.parked.is_empty() {
            return std::future::pending().await;
        }
        // Cancel-safe: nothing is passed on before the wait is over, and a dropped permit frees its place.
        let room = |parked: &Parked| Box::pin(parked.queue.clone().reserve_owned());
        drop(select_all(self.parked.iter().map(room)).await);
        self.parked.retain_mut(Parked::pass_on);
    }

    /// Returns whether the socket may be read.
    pub(super) fn may_read(&self) -> bool {
        let parked: usize = self.parked.iter().map(|parked| parked.items.len()).sum();
        parked == 0 || (!self.waiting.is_empty() && parked < PARKED_MAX)
    }

    /// Registers the recipient of the answers to an id.
    pub(super) fn wait(&mut self, id: String, waiting: Waiting) {
        self.waiting.insert(id, waiting);
    }

    /// Adds a subscription. This happens before Subscribe is sent, because retained values can arrive before the reply.
    pub(super) fn hold(&mut self, number: u64, wanted: Wanted, queue: mpsc::Sender<Incoming>) {
        self.asked += 1;
        let held = self.held.entry(wanted).or_insert_with(|| Held { queues: Vec::new(), asked: 0, fresh: true });
        held.queues.push((number, queue));
        (held.asked, held.fresh) = (self.asked, true);
    }

    /// Marks the subscriptions that were sent before the one that is now confirmed. Retained values arrive with the reply
    /// to Subscribe, so later ones are not for these.
    fn older_are_not_fresh(&mut self, asked: Option<u64>) {
        for held in self.held.values_mut().filter(|held| Some(held.asked) < asked) {
            held.fresh = false;
        }
    }

    fn forget(&mut self, number: u64) {
        self.held.retain(|_, held| {
            held.queues.retain(|it| it.0 != number);
            !held.queues.is_empty()
        });
    }

    /// Notes that a handler answered. Returns whether the request is still open, so that the answer is worth sending.
    pub(super) fn answered(&mut self, id: &str, more: bool) -> bool {
        if more { self.running.contains_key(id) } else { self.running.remove(id).is_some() }
    }

    /// Removes what was dropped. Returns the requests to cancel and the subscriptions to end.
    pub(super) fn sweep(&mut self) -> (Vec<String>, Vec<Wanted>) {
        let mut cancelled = Vec::new();
        self.waiting.retain(|id, waiting| {
            if waiting.is_dropped() && matches!(waiting, Waiting::Stream(_)) {
                cancelled.push(id.clone());
            }
            !waiting.is_dropped()
        });
        // The order of the map is random.
        cancelled.sort_unstable();
        let mut left = Vec::new();
        self.held.retain(|wanted, held| {
            held.queues.retain(|(_, queue)| !queue.is_closed());
            if held.queues.is_empty() {
                left.push(wanted.clone());
            }
            !held.queues.is_empty()
        });
        (cancelled, left)
    }

    /// Notes that the connection is lost. Pending operations fail with this error, and running handlers are told that
    /// their answers are no longer wanted. Subscriptions stay.
    pub(super) fn disconnected(&mut self, error: &Error) {
        self.waiting.drain().for_each(|(_, waiting)| waiting.fail(error.clone()));
        self.unconfirmed = 0;
        for (_, token) in std::mem::take(&mut self.running) {
            token.cancel();
        }
    }

    /// Returns the subscriptions to make on a new connection.
    pub(super) fn again(&mut self) -> Vec<Wanted> {
        self.sweep();
        self.unconfirmed = self.held.len();
        for held in self.held.values_mut() {
            self.asked += 1;
            (held.asked, held.fresh) = (self.asked, true);
        }
        self.held.keys().cloned().collect()
    }

    /// Returns whether all subscriptions are confirmed on this connection.
    pub(super) fn is_complete(&self) -> bool {
        self.unconfirmed == 0
    }

    /// Ends all subscriptions with this error.
    pub(super) fn close(&mut self, error: &Error) {
        self.disconnected(error);
        for (_, queue) in std::mem::take(&mut self.held).into_values().flat_map(|held| held.queues) {
            // A full queue ends too, when its sender is dropped.
            queue.try_send(Err(error.clone())).ok();
        }
    }
}

/// Returns how many parts of the pattern are `*`.
fn width(pattern: &Pattern) -> usize {
    [&pattern.channel, &pattern.topic, &pattern.subtopic].iter().filter(|part| part.is_none()).count()
}
