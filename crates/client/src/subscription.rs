//! [`Subscription`]: a [`Stream`] of the messages that a pattern matches. [`Subscribing`] has its options.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::message::Payload;
use super::reconnect::Order;
use super::waiting::Incoming;
use super::{Client, Error, Message};
use wire::Pattern;

/// The default of [`Subscribing::queue`].
const QUEUE: usize = 1024;

/// The options of a subscription. Equal ones are one subscription of the broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) pattern: Pattern,
    pub(super) handler: bool,
    pub(super) group: Option<String>,
    pub(super) user: Option<String>,
    /// Whether a handler answers its requests.
    pub(super) answers: bool,
    /// The further triples of an ordered handler's answers; `None` if the handler is not ordered.
    pub(super) ordered: Option<Vec<String>>,
}

impl Wanted {
    /// The options of a plain subscription.
    pub(super) fn of(pattern: Pattern) -> Self {
        Self { pattern, handler: false, group: None, user: None, answers: true, ordered: None }
    }

    /// Returns `data` of Subscribe.
    pub(super) fn data(&self) -> Payload {
        let mut data = self.identity();
        if !self.handler {
            // Otherwise a second subscription to the same pattern would get no retained values.
            data.insert("retained".to_owned(), true.into());
        }
        if !self.answers {
            data.insert("answers".to_owned(), false.into());
        }
        if let Some(replies) = &self.ordered {
            data.insert("ordered".to_owned(), true.into());
            if !replies.is_empty() {
                data.insert("replies".to_owned(), replies.as_slice().into());
            }
        }
        Value::Object(data).into()
    }

    /// Returns the fields that tell subscriptions apart.
    fn identity(&self) -> Map<String, Value> {
        let part = |part: &Option<Box<str>>| Value::from(part.as_deref().unwrap_or("*"));
        let Pattern { channel, topic, subtopic } = &self.pattern;
        let fields = [
            ("channel", Some(part(channel))),
            ("topic", Some(part(topic))),
            ("subtopic", Some(part(subtopic))),
            ("role", self.handler.then(|| "handler".into())),
            ("group", self.group.as_deref().map(Value::from)),
            ("user", self.user.as_deref().map(Value::from)),
        ];
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// Returns whether an event with this `user` can be for this subscription. The subscription of an observer names a
    /// user.
    pub(super) fn is_for(&self, user: Option<&str>) -> bool {
        match self.user.as_deref() {
            None | Some("*") => true,
            observed => observed == user,
        }
    }
}

/// A subscription to make. Set its options, then `.await` it.
#[must_use = "nothing is subscribed to until this is awaited"]
pub struct Subscribing<'c> {
    client: &'c Client,
    wanted: Wanted,
    queue: usize,
}

impl<'c> Subscribing<'c> {
    pub(super) fn new(client: &'c Client, pattern: Pattern) -> Self {
        Self { client, wanted: Wanted::of(pattern), queue: QUEUE }
    }

    /// Shares the messages with the other members of a group: each goes to one member.
    ///
    /// If a client subscribes to overlapping patterns with and without a group, it cannot tell which subscription a
    /// message is for. Use a client of its own for the group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.wanted.group = Some(group.into());
        self
    }

    /// Receives the events of this user, or of all users (`*`). Needs the permission `observe`.
    pub fn observe(mut self, user: impl Into<String>) -> Self {
        self.wanted.user = Some(user.into());
        self
    }

    /// Sets how many messages are queued for a busy consumer (default 1024, at least 1).
    pub fn queue(mut self, messages: usize) -> Self {
        self.queue = messages.max(1);
        self
    }

    async fn subscribe(self) -> Result<Subscription, Error> {
        let queue = ask(self.client, self.wanted, self.queue).await?;
        Ok(Subscription { queue, client: self.client.clone(), error: None })
    }
}

impl<'c> IntoFuture for Subscribing<'c> {
    type Output = Result<Subscription, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.subscribe())
    }
}

/// Subscribes, and returns the queue of the messages.
pub(super) async fn ask(client: &Client, wanted: Wanted, messages: usize) -> Result<Queue, Error> {
    client.check_connected()?;
    let (sender, receiver) = mpsc::channel(messages);
    let queue = Queue::new(receiver, client.clone());
    let (done, answer) = oneshot::channel();
    let id = client.shared.next_id();
    client.order(Order::Subscribe { id, wanted, queue: sender, done }).await?;
    client.answer("Subscribe", answer).await?;
    Ok(queue)
}

/// The receiving end of a queue that the driver fills. The driver is woken when it is dropped.
pub(super) struct Queue {
    pub(super) receiver: mpsc::Receiver<Incoming>,
    client: Client,
}

impl Queue {
    pub(super) fn new(receiver: mpsc::Receiver<Incoming>, client: Client) -> Self {
        Self { receiver, client }
    }

    /// Takes no further messages, and wakes the driver.
    pub(super) fn close(&mut self) {
        self.receiver.close();
        self.client.shared.sweep.notify_one();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

/// The messages that a pattern matches, as a [`Stream`]. Dropping it unsubscribes.
///
/// It outlives lost connections. Events that are published meanwhile are missed; retained values arrive again. It ends
/// when the client is closed, or when the broker refuses the subscription after a reconnect; [`error`](Self::error)
/// returns which.
///
/// When the queue of a slow consumer is full, the connection is not read. The broker then slows the publishers down,
/// and closes the connection if that lasts. A consumer can make requests of its own: their answers are read past the
/// waiting messages, up to a bound.
pub struct Subscription {
    queue: Queue,
    /// Keeps the connection open.
    client: Client,
    error: Option<Error>,
}

impl Subscription {
    /// Returns the next message, or `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<Message> {
        let item = self.queue.receiver.recv().await;
        self.take(item)
    }

    /// Returns why the subscription ended, if it has.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    fn take(&mut self, item: Option<Incoming>) -> Option<Message> {
        match item {
            Some(Ok(message)) => Some(message),
            Some(Err(error)) => {
                self.error = Some(error);
                None
            }
            None => {
                self.error.get_or_insert_with(|| self.client.why_closed());
                None
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.queue.receiver.poll_recv(context).map(|item| self.take(item))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("error", &self.error).finish_non_exhaustive()
    }
}
