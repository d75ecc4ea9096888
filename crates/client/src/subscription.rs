//! [`Subscription`]: a [`Stream`] of the messages that a pattern matches. [`Subscribing`] has its options.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::message::Payload;
use super::order::Order;
use super::position::Track;
use super::waiting::Incoming;
use super::{Client, Error, Message, Position, Recover};
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

    /// Returns whether the broker can keep a log for it from which it recovers.
    pub(super) fn has_log(&self) -> bool {
        !self.handler && self.group.is_none() && self.pattern.channel.is_some()
    }

    /// Returns `data` of Subscribe.
    pub(super) fn data(&self, recover: Option<&Recover>) -> Payload {
        let mut data = self.identity();
        if let Some(recover) = recover {
            data.insert("recover".to_owned(), recover.option());
        }
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
    recover: Option<Recover>,
    queue: usize,
}

impl<'c> Subscribing<'c> {
    pub(super) fn new(client: &'c Client, pattern: Pattern) -> Self {
        Self { client, wanted: Wanted::of(pattern), recover: None, queue: QUEUE }
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

    /// Begins with events from the log of a channel with history, before the live ones. If they are not all kept any more,
    /// the subscription begins with live events, and [`Subscription::recover_reason`] says why.
    ///
    /// Needs a pattern that names the channel, and no group. A service has to [`observe`](Self::observe) one user, unless
    /// the channel is shared.
    pub fn recover(mut self, recover: Recover) -> Self {
        self.recover = Some(recover);
        self
    }

    /// Sets how many messages are queued for a busy consumer (default 1024, at least 1).
    pub fn queue(mut self, messages: usize) -> Self {
        self.queue = messages.max(1);
        self
    }

    async fn subscribe(self) -> Result<Subscription, Error> {
        let recovers = self.recover.is_some();
        let track = Track::new(self.recover.clone());
        let (queue, reply) = ask(self.client, self.wanted, self.recover, track.clone(), self.queue).await?;
        let recover_reason = if recovers { recover_reason(&reply) } else { None };
        let client = self.client.clone();
        Ok(Subscription { queue, client, track, taken: None, recover_reason, error: None })
    }
}

impl<'c> IntoFuture for Subscribing<'c> {
    type Output = Result<Subscription, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.subscribe())
    }
}

/// Subscribes, and returns the queue of the messages and the broker's reply.
pub(super) async fn ask(
    client: &Client,
    wanted: Wanted,
    recover: Option<Recover>,
    track: Track,
    messages: usize,
) -> Result<(Queue, Message), Error> {
    client.check_connected()?;
    let (sender, receiver) = mpsc::channel(messages);
    let queue = Queue::new(receiver, client.clone());
    let (done, answer) = oneshot::channel();
    let id = client.shared.next_id();
    client.order(Order::Subscribe { id, wanted, recover, track, queue: sender, done }).await?;
    let reply = client.answer("Subscribe", answer).await?;
    Ok((queue, reply))
}

/// Returns why the broker does not replay the events that a Subscribe asked for.
fn recover_reason(reply: &Message) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Recovery {
        recovered: Option<bool>,
        recover_reason: Option<String>,
    }
    let Recovery { recovered, recover_reason } = reply.data().ok()?;
    if recovered == Some(true) { None } else { Some(recover_reason.unwrap_or_else(|| "no reason given".into())) }
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
/// It outlives lost connections. [`Client::reconnections`] says whether events that were published meanwhile can be missed.
/// In a new session, retained values arrive again. It ends when the client is closed, or when the broker refuses the
/// subscription after a reconnect; [`error`](Self::error) returns which.
///
/// An event counts as handled when the next one is asked for. In a channel with history, [`position`](Self::position) is that
/// of the last event that was handled, and a new session begins after it.
///
/// When the queue of a slow consumer is full, the connection is not read. The broker then slows the publishers down,
/// and closes the connection if that lasts. A consumer can make requests of its own: their answers are read past the
/// waiting messages, up to a bound.
pub struct Subscription {
    queue: Queue,
    /// Keeps the connection open.
    client: Client,
    track: Track,
    /// The message that the application is handling.
    taken: Option<Message>,
    recover_reason: Option<String>,
    error: Option<Error>,
}

impl Subscription {
    /// Returns the next message, or `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<Message> {
        self.handled();
        let item = self.queue.receiver.recv().await;
        self.take(item)
    }

    /// Returns why the subscription ended, if it has.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Returns the position of the last event that was handled, or of the last one before the subscription. `None` if the
    /// broker keeps no log for it. [`Recover::After`] continues there, in another process too.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.track.position()
    }

    /// Returns the broker's `RecoverReason`, such as `TOO_OLD`, if it could not replay what
    /// [`recover`](Subscribing::recover) asked for.
    #[must_use]
    pub fn recover_reason(&self) -> Option<&str> {
        self.recover_reason.as_deref()
    }

    /// Notes that the application has handled what it took.
    fn handled(&mut self) {
        if let Some(message) = self.taken.take() {
            self.track.handle(&message);
        }
    }

    fn take(&mut self, item: Option<Incoming>) -> Option<Message> {
        match item {
            Some(Ok(message)) => {
                self.taken = message.moves_position().then(|| message.clone());
                Some(message)
            }
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
        self.handled();
        self.queue.receiver.poll_recv(context).map(|item| self.take(item))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("error", &self.error).finish_non_exhaustive()
    }
}
