//! [`Table`]: who in this process waits for what, and therefore where a message from the broker goes.
//!
//! The broker delivers an event once to a session, however many of its patterns match, and does not say which: so the
//! table holds the patterns too and hands the message to every [`Subscription`](super::Subscription) that matches. An
//! answer goes by its `inReplyTo`, a request to one handler. No file of this table's waits: what a full queue does not
//! take is *parked*, in order, and the connection reads no more until there is room, so that the broker's pressure
//! applies. Where somebody waits for an answer the socket is still read, up to [`PARKED_MAX`] messages: the answer may
//! stand behind events that the waiting code itself would have to take.

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

/// How many messages may be parked while answers are waited for.
const PARKED_MAX: usize = 4096;

/// What a queue of this client carries; an error is the last item.
pub(super) type Incoming = Result<Message, Error>;

/// Who waits for an answer.
pub(super) enum Waiting {
    /// For one answer.
    Once(oneshot::Sender<Incoming>),
    /// For answers up to the one without `more`; an end before that is told to the broker.
    Stream {
        /// Where they go.
        queue: mpsc::Sender<Incoming>,
    },
    /// A new subscription, by its local number, for the broker's word on it.
    Subscribe(u64, oneshot::Sender<Incoming>),
    /// The subscriptions that are made again after a reconnect, by what they want.
    Again(Wanted),
}

impl Waiting {
    fn has_gone(&self) -> bool {
        match self {
            Self::Once(queue) | Self::Subscribe(_, queue) => queue.is_closed(),
            Self::Stream { queue } => queue.is_closed(),
            Self::Again(_) => false,
        }
    }
}

/// What is subscribed to, once for all who want the same.
struct Held {
    /// In the order of subscribing.
    queues: Vec<(u64, mpsc::Sender<Incoming>)>,
    /// When it was last asked for, as a count of such commands.
    asked: u64,
    /// Whether retained values may be for this subscription.
    fresh: bool,
}

/// What a full queue has not yet taken.
struct Parked {
    queue: mpsc::Sender<Incoming>,
    items: VecDeque<Incoming>,
}

impl Parked {
    /// Hands on what fits; says whether something is left.
    fn hand_on(&mut self) -> bool {
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
    /// The requests that handlers of this session work on, by the broker's id.
    running: BTreeMap<String, CancellationToken>,
    parked: Vec<Parked>,
    /// Subscriptions that are made again and not yet confirmed.
    unconfirmed: usize,
}

/// What a message means to the connection itself.
#[derive(Debug)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// The broker is about to restart; come back after this.
    Draining(Duration),
    /// A request for a handler that has just left, by the broker's id.
    Unserved(Message),
}

/// `data` of `Broker/Connection/Draining`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Draining {
    reconnect_after_ms: u64,
}

impl Table {
    /// Takes a message from the broker and hands it to those it is for.
    pub(super) fn receive(&mut self, message: Message) -> Told {
        if message.is_notice("Request", "Cancelled") {
            if let Some(token) = message.in_reply_to().and_then(|id| self.running.remove(id)) {
                token.cancel();
            }
            return Told::Nothing;
        }
        if let Some(id) = message.in_reply_to() {
            let id = id.to_owned();
            self.answer(&id, message);
            return Told::Nothing;
        }
        if message.is_request() {
            return self.request(message);
        }
        let told = Self::notice(&message);
        self.event(&message);
        told
    }

    fn answer(&mut self, id: &str, message: Message) {
        if message.more()
            && let Some(Waiting::Stream { queue }) = self.waiting.get(id)
        {
            let queue = queue.clone();
            self.deliver(queue, Ok(message));
            return;
        }
        match self.waiting.remove(id) {
            // Nobody waits any longer: the answer was late.
            None => {}
            Some(Waiting::Once(queue)) => {
                queue.send(Ok(message)).ok();
            }
            Some(Waiting::Stream { queue }) => self.deliver(queue, Ok(message)),
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

    /// Hands a request to the handler with the narrowest matching pattern.
    fn request(&mut self, message: Message) -> Told {
        let handlers = || self.held.iter().filter(|(wanted, _)| wanted.handler);
        let exact = handlers().filter(|(wanted, _)| wanted.pattern.matches(message.triple()));
        let folded = handlers().filter(|(wanted, _)| wanted.pattern.matches_any_case(message.triple()));
        let chosen = exact.min_by_key(|(wanted, _)| width(&wanted.pattern));
        let chosen = chosen.or_else(|| folded.min_by_key(|(wanted, _)| width(&wanted.pattern)));
        let queue = chosen.and_then(|(_, held)| held.queues.iter().map(|(_, queue)| queue).find(|it| !it.is_closed()));
        let Some(queue) = queue.cloned() else { return Told::Unserved(message) };
        if let Some(id) = message.id() {
            self.running.insert(id.to_owned(), message.cancellation().clone());
        }
        self.deliver(queue, Ok(message));
        Told::Nothing
    }

    /// Hands an event to every subscription that it may be for.
    fn event(&mut self, message: &Message) {
        let hears = |wanted: &Wanted| !wanted.handler && wanted.pattern.matches(message.triple());
        let mut matching: Vec<_> = self.held.iter().filter(|(wanted, _)| hears(wanted)).collect();
        if matching.is_empty() {
            // The channel folds letter case, which is the broker's configuration.
            let hears = |wanted: &Wanted| !wanted.handler && wanted.pattern.matches_any_case(message.triple());
            matching = self.held.iter().filter(|(wanted, _)| hears(wanted)).collect();
        }
        // Where a filter leaves nobody, the message is for somebody all the same.
        let narrowed: Vec<_> = matching.iter().filter(|(wanted, _)| wanted.is_for(message.user())).copied().collect();
        let matching = if narrowed.is_empty() { matching } else { narrowed };
        let fresh: Vec<_> = matching.iter().filter(|(_, held)| held.fresh && message.retained()).copied().collect();
        let matching = if fresh.is_empty() { matching } else { fresh };
        let queues: Vec<_> = matching.iter().flat_map(|(_, held)| &held.queues).map(|(_, it)| it.clone()).collect();
        for queue in queues {
            self.deliver(queue, Ok(message.clone()));
        }
    }

    /// What the broker says of the connection itself.
    fn notice(message: &Message) -> Told {
        if message.is_notice("Connection", "Draining") {
            let after = message.data::<Draining>().map_or(0, |draining| draining.reconnect_after_ms);
            return Told::Draining(Duration::from_millis(after));
        }
        if message.is_notice("Message", "Error") {
            match message.failure() {
                // Answers are given to requests that came; what is no longer known has ended meanwhile.
                Some(failure) if failure.code() == Some(ErrorCode::NoSuchRequest) => {
                    tracing::warn!("an answer came too late: its request had ended, by its time limit or its asker");
                }
                Some(failure) => tracing::warn!(%failure, "the broker refused an envelope that had no id"),
                None => {}
            }
        } else if message.is_notice("Connection", "Lagging") {
            tracing::warn!("this application takes messages more slowly than they come");
        } else if message.is_notice("Message", "Dropped") {
            tracing::warn!(data = message.payload(), "the broker dropped events that were not taken in time");
        }
        Told::Nothing
    }

    fn deliver(&mut self, queue: mpsc::Sender<Incoming>, item: Incoming) {
        if let Some(parked) = self.parked.iter_mut().find(|parked| parked.queue.same_channel(&queue)) {
            parked.items.push_back(item);
        } else if let Err(mpsc::error::TrySendError::Full(item)) = queue.try_send(item) {
            self.parked.push(Parked { queue, items: VecDeque::from([item]) });
        }
    }

    /// Waits until a full queue has room, and hands on what fits. Never ends while nothing is parked.
    pub(super) async fn unpark(&mut self) {
        if self.parked.is_empty() {
            return std::future::pending().await;
        }
        // Cancel-safe: nothing is handed on before the wait is over. A permit that is dropped gives its place back.
        let room = |parked: &Parked| Box::pin(parked.queue.clone().reserve_owned());
        drop(select_all(self.parked.iter().map(room)).await);
        self.parked.retain_mut(Parked::hand_on);
    }

    /// Whether the socket may be read.
    pub(super) fn may_read(&self) -> bool {
        let parked: usize = self.parked.iter().map(|parked| parked.items.len()).sum();
        parked == 0 || (!self.waiting.is_empty() && parked < PARKED_MAX)
    }

    /// Somebody waits for the answer to this id.
    pub(super) fn wait(&mut self, id: String, waiting: Waiting) {
        self.waiting.insert(id, waiting);
    }

    /// Holds a subscription before the broker is asked for it: kept values may come before its answer.
    pub(super) fn hold(&mut self, number: u64, wanted: Wanted, queue: mpsc::Sender<Incoming>) {
        self.asked += 1;
        let held = self.held.entry(wanted).or_insert_with(|| Held { queues: Vec::new(), asked: 0, fresh: true });
        held.queues.push((number, queue));
        (held.asked, held.fresh) = (self.asked, true);
    }

    /// Kept values come about the time of the answer to Subscribe; so once a later command is answered, those that come
    /// are no longer for the subscriptions that were asked for earlier.
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

    /// A handler answered. Says whether the request was still open, so that nothing is sent for one that is not.
    pub(super) fn answered(&mut self, id: &str, more: bool) -> bool {
        if more { self.running.contains_key(id) } else { self.running.remove(id).is_some() }
    }

    /// Drops what nobody waits for any longer; says which requests to cancel and what to unsubscribe from.
    pub(super) fn sweep(&mut self) -> (Vec<String>, Vec<Wanted>) {
        let mut cancelled = Vec::new();
        self.waiting.retain(|id, waiting| {
            if waiting.has_gone() && matches!(waiting, Waiting::Stream { .. }) {
                cancelled.push(id.clone());
            }
            !waiting.has_gone()
        });
        // In the order they were made, not in the map's.
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

    /// The connection is gone: everybody who waits for an answer hears of it, handlers learn that nobody waits for
    /// theirs. Subscriptions stay.
    pub(super) fn disconnected(&mut self) {
        // A queue that closes without its last item says `Disconnected`.
        self.waiting.clear();
        self.unconfirmed = 0;
        for (_, token) in std::mem::take(&mut self.running) {
            token.cancel();
        }
    }

    /// What to subscribe to on a new connection.
    pub(super) fn again(&mut self) -> Vec<Wanted> {
        self.sweep();
        self.unconfirmed = self.held.len();
        for held in self.held.values_mut() {
            self.asked += 1;
            (held.asked, held.fresh) = (self.asked, true);
        }
        self.held.keys().cloned().collect()
    }

    /// Whether everything held is subscribed to on this connection.
    pub(super) fn is_complete(&self) -> bool {
        self.unconfirmed == 0
    }

    /// The connection has ended for good: streams end with this.
    pub(super) fn close(&mut self, error: &Error) {
        self.disconnected();
        for (_, queue) in std::mem::take(&mut self.held).into_values().flat_map(|held| held.queues) {
            // A full queue ends all the same, when its sender goes.
            queue.try_send(Err(error.clone())).ok();
        }
    }
}

/// How many parts of the pattern match anything.
fn width(pattern: &Pattern) -> usize {
    [&pattern.channel, &pattern.topic, &pattern.subtopic].iter().filter(|part| part.is_none()).count()
}
