//! [`Serving`]: a handler whose requests a closure answers. [`Serve`] has its options; the closure gets a [`Request`] and
//! returns a [`Reply`].

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::message::{Outgoing, Payload, check_triple};
use super::order::Order;
use super::position::Track;
use super::subscription::{Queue, Wanted, ask};
use super::{Client, Error, Failure, Message};
use wire::{ErrorCode, Pattern, Refusal, Triple};

/// The default of [`Serve::concurrency`].
const CONCURRENCY: usize = 64;

/// A handler to start. Set its options, then `.await` it.
#[must_use = "nothing is served until this is awaited"]
pub struct Serve<'c, H> {
    client: &'c Client,
    wanted: Wanted,
    handler: H,
    concurrency: usize,
}

impl<'c, H> Serve<'c, H> {
    pub(super) fn new(client: &'c Client, pattern: Pattern, handler: H) -> Self {
        let wanted = Wanted { handler: true, ..Wanted::of(pattern) };
        Self { client, wanted, handler, concurrency: CONCURRENCY }
    }

    /// Sets how many requests are worked on at once (default 64). The others wait, within their time limits.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// Takes one request at a time, in the order in which they were sent. `replies` lists further triples of answers, as
    /// `Topic/Subtopic`.
    pub fn ordered<R: Into<String>>(mut self, replies: impl IntoIterator<Item = R>) -> Self {
        self.wanted.ordered = Some(replies.into_iter().map(Into::into).collect());
        self
    }

    /// Takes commands that have no answer: the broker completes each when it delivers it. What the closure returns is
    /// not sent.
    pub fn without_answers(mut self) -> Self {
        self.wanted.answers = false;
        self
    }
}

impl<'c, H, F> IntoFuture for Serve<'c, H>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Reply, Failure>> + Send + 'static,
{
    type Output = Result<Serving, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, wanted, handler, concurrency } = self;
            let answers = wanted.answers;
            let (queue, _) = ask(client, wanted, None, Track::default(), concurrency).await?;
            let stop = CancellationToken::new();
            let parts = Work { client: client.clone(), handler: Arc::new(handler), answers, concurrency };
            let work = work(queue, parts, stop.clone());
            #[expect(clippy::disallowed_methods, reason = "a library has no task tracker; ends with its Serving")]
            let task = tokio::spawn(work);
            Ok(Serving { stop: stop.drop_guard(), task })
        })
    }
}

/// Takes requests from the queue, and works on up to `concurrency` of them at once.
async fn work<H, F>(mut queue: Queue, serve: Work<H>, stop: CancellationToken) -> Error
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Reply, Failure>> + Send + 'static,
{
    let Work { client, handler, answers, concurrency } = serve;
    let mut running = JoinSet::new();
    loop {
        let item = tokio::select! {
            item = queue.receiver.recv(), if running.len() < concurrency => item,
            Some(_) = running.join_next() => continue,
            () = stop.cancelled() => None,
        };
        let message = match item {
            Some(Ok(message)) => message,
            Some(Err(error)) => return finish(running, error).await,
            None => break,
        };
        let answer = Answer { message: message.clone(), client: client.clone(), due: answers };
        let request = Request { message, client: client.clone() };
        let handler = Arc::clone(&handler);
        // The closure is called in a task of its own, so that a panic ends this request only.
        running.spawn(async move { answer.give(handler(request).await).await });
    }
    // Requests that have not begun are refused now. Otherwise their requesters would wait until the time limit.
    queue.close();
    while let Some(Ok(message)) = queue.receiver.recv().await {
        let gone = Refusal::new(ErrorCode::HandlerGone, "the handler stopped before it began this request");
        Answer { message, client: client.clone(), due: answers }.give(Err(gone.into())).await;
    }
    drop(queue);
    finish(running, client.why_closed()).await
}

/// The parts of a running handler.
struct Work<H> {
    client: Client,
    handler: Arc<H>,
    answers: bool,
    concurrency: usize,
}

/// Waits until the running requests are answered.
async fn finish(mut running: JoinSet<()>, error: Error) -> Error {
    while running.join_next().await.is_some() {}
    error
}

/// A running handler. Dropping it unsubscribes; running requests are still answered.
pub struct Serving {
    stop: DropGuard,
    task: JoinHandle<Error>,
}

impl Serving {
    /// Takes no further requests, and waits until the running ones are answered.
    pub async fn stop(self) {
        let Self { stop, task } = self;
        drop(stop);
        // An error means that the task has already ended.
        task.await.ok();
    }

    /// Waits until the handler has ended by itself: the client was closed, or the broker refused the handler after a
    /// reconnect. Returns the reason.
    pub async fn ended(&mut self) -> Error {
        let panicked = |_| Error::Invalid("the handler panicked".into());
        (&mut self.task).await.unwrap_or_else(panicked)
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

/// A request to answer. It dereferences to its [`Message`].
pub struct Request {
    message: Message,
    client: Client,
}

impl Request {
    /// Sends a partial answer, which restarts the requester's clock. The closure's result is the last answer.
    ///
    /// # Errors
    /// The connection has ended, or the reply cannot be sent.
    pub async fn progress(&self, reply: impl Into<Reply>) -> Result<(), Error> {
        let order = order(&self.client, &self.message, &reply.into(), true)?;
        self.client.order(order).await
    }

    /// The size of the largest message that the broker takes, in bytes. A longer reply is answered with `TOO_LARGE`.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.client.shared.message_bytes_max.load(Ordering::Relaxed)
    }

    /// Waits until the requester cancels or leaves, or this session ends: then its requests are over.
    pub async fn cancelled(&self) {
        self.message.cancellation().cancelled().await;
    }

    /// Returns whether the requester has cancelled or left, or this session has ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.message.cancellation().is_cancelled()
    }
}

impl Deref for Request {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Request").field(&self.message).finish()
    }
}

/// The answer to a request: a payload, on the request's own triple or on another one.
///
/// Everything that can be a [`Payload`] can be one, by `into()`.
#[derive(Clone, Default)]
pub struct Reply {
    payload: Payload,
    triple: Option<Triple<'static>>,
}

impl Reply {
    /// Sends the answer on this triple, as some interfaces expect: `Login` is answered by `LoginSuccess`.
    #[must_use]
    pub fn on(self, triple: &Triple<'_>) -> Self {
        Self { triple: Some(triple.to_owned()), ..self }
    }
}

impl<P: Into<Payload>> From<P> for Reply {
    fn from(payload: P) -> Self {
        Self { payload: payload.into(), triple: None }
    }
}

/// A request that waits for its answer. If it is dropped before that, the answer is `INTERNAL`.
struct Answer {
    message: Message,
    client: Client,
    /// Whether an answer is still to be sent.
    due: bool,
}

impl Answer {
    async fn give(mut self, outcome: Result<Reply, Failure>) {
        if !std::mem::take(&mut self.due) {
            return;
        }
        let reply = outcome.unwrap_or_else(|failure| failure.payload().into());
        if let Err(error) = self.send(&reply).await {
            tracing::warn!(%error, "an answer could not be sent");
        }
    }

    /// Sends the reply, or in place of one that cannot be sent the reason.
    async fn send(&self, reply: &Reply) -> Result<(), Error> {
        let order = match order(&self.client, &self.message, reply, false) {
            Ok(order) => order,
            Err(error) => {
                let is_triple = reply.triple.as_ref().is_some_and(|triple| check_triple(triple).is_err());
                let code = if is_triple { ErrorCode::Internal } else { ErrorCode::TooLarge };
                tracing::warn!(%error, code = code.as_str(), "an answer was replaced by a failure");
                let refusal = Refusal::new(code, format!("the handler's answer cannot be sent: {error}"));
                order(&self.client, &self.message, &Failure::from(refusal).payload().into(), false)?
            }
        };
        self.client.order(order).await
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.due {
            let refusal = Refusal::new(ErrorCode::Internal, "the handler ended without an answer");
            if let Ok(order) = order(&self.client, &self.message, &Failure::from(refusal).payload().into(), false) {
                // If the queue is full, the broker's time limit ends the request.
                self.client.try_order(order);
            }
        }
    }
}

/// Returns the order to send an answer.
fn order(client: &Client, request: &Message, reply: &Reply, more: bool) -> Result<Order, Error> {
    let to = request.id().unwrap_or_default();
    let triple = reply.triple.as_ref().unwrap_or_else(|| request.triple());
    check_triple(triple)?;
    let outgoing = Outgoing { in_reply_to: Some(to), more, ..Outgoing::new(triple, client.source(), &reply.payload) };
    let text = client.check_size(outgoing.text()?)?;
    Ok(Order::Answer { to: to.to_owned(), more, text })
}
