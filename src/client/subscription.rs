//! [`Subscription`]: a [`Stream`] of the messages that a pattern matches. [`Subscribing`] is how one is made.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::message::Payload;
use super::reconnect::Order;
use super::table::Incoming;
use super::{Client, Error, Message};
use wire::Pattern;

/// How many messages a subscription keeps for a consumer that is busy, unless told otherwise.
pub(super) const QUEUE: usize = 1024;

/// What is asked of the broker; two that are equal are one subscription there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) pattern: Pattern,
    pub(super) handler: bool,
    pub(super) group: Option<String>,
    pub(super) user: Option<String>,
}

impl Wanted {
    /// `data` of Subscribe.
    pub(super) fn data(&self) -> Payload {
        self.with_role(self.handler.then_some("handler"))
    }

    /// `data` of Unsubscribe. It names the role, so that the other role's subscription to the pattern lives on.
    pub(super) fn filter(&self) -> Payload {
        self.with_role(Some(if self.handler { "handler" } else { "subscriber" }))
    }

    fn with_role(&self, role: Option<&str>) -> Payload {
        let part = |part: &Option<Box<str>>| Value::from(part.as_deref().unwrap_or("*"));
        let Pattern { channel, topic, subtopic } = &self.pattern;
        let fields = [
            ("channel", Some(part(channel))),
            ("topic", Some(part(topic))),
            ("subtopic", Some(part(subtopic))),
            ("role", role.map(Value::from)),
            ("group", self.group.as_deref().map(Value::from)),
            ("user", self.user.as_deref().map(Value::from)),
        ];
        let fields = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(fields.collect()).into()
    }

    /// Whether an event that bears this `user` may be for this subscription: an observer's names whom it observes.
    pub(super) fn is_for(&self, user: Option<&str>) -> bool {
        match self.user.as_deref() {
            None | Some("*") => true,
            observed => observed == user,
        }
    }
}

/// A subscription in the making: options, then `.await`.
#[must_use = "nothing is subscribed to until this is awaited"]
pub struct Subscribing<'c> {
    client: &'c Client,
    wanted: Wanted,
    queue: usize,
}

impl<'c> Subscribing<'c> {
    pub(super) fn new(client: &'c Client, pattern: Pattern) -> Self {
        let wanted = Wanted { pattern, handler: false, group: None, user: None };
        Self { client, wanted, queue: QUEUE }
    }

    /// Shares the messages with the other members of a group, one each.
    ///
    /// A client that subscribes to overlapping patterns with and without a group can't tell the two apart: use a
    /// client of its own for the group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.wanted.group = Some(group.into());
        self
    }

    /// Observes a user's events, or with `*` everybody's; needs the permission `observe`.
    pub fn observe(mut self, user: impl Into<String>) -> Self {
        self.wanted.user = Some(user.into());
        self
    }

    /// How many messages to keep for a consumer that is busy (default 1024, at least 1).
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

/// Subscribes, as a subscriber or as a handler, and gives the queue that the messages come in.
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

/// The receiving end of a queue that the driver fills; tells the driver when it goes.
pub(super) struct Queue {
    pub(super) receiver: mpsc::Receiver<Incoming>,
    client: Client,
}

impl Queue {
    pub(super) fn new(receiver: mpsc::Receiver<Incoming>, client: Client) -> Self {
        Self { receiver, client }
    }

    /// Takes nothing more, and has the driver look for closed queues.
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

/// The messages that a pattern matches, as a [`Stream`]; dropping it unsubscribes.
///
/// It lasts through reconnects: what was published meanwhile is missed, kept values come again. It ends when the
/// client is closed or the broker refuses the subscription after a reconnect; [`error`](Self::error) says which.
///
/// A consumer that is slow is waited for: when its queue is full, the connection is not read any further, and the
/// broker slows the publishers down and in the end closes the connection. Code that takes from a subscription may
/// make requests of its own meanwhile; their answers are read past what is waiting, up to a bound.
pub struct Subscription {
    queue: Queue,
    /// Keeps the connection while the subscription lives.
    client: Client,
    error: Option<Error>,
}

impl Subscription {
    /// The next message; `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<Message> {
        let item = self.queue.receiver.recv().await;
        self.take(item)
    }

    /// Why the subscription ended, once it has.
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
