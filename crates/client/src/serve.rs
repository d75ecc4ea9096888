//! [`Serving`]: a handler whose requests a closure answers. [`Serve`] has its options; [`Request`] is what the closure
//! gets.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::message::{Outgoing, Payload};
use super::reconnect::Order;
use super::subscription::{Queue, Wanted, ask};
use super::{Client, Error, Failure, Message};
use wire::Pattern;
use wire::{ErrorCode, Refusal};

/// The default of [`Serve::concurrency`].
const CONCURRENCY: usize = 64;

/// A handler to start: options, then `.await`.
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

    /// Takes one request at a time, as a handler without ids does. `replies` lists further triples of answers, as
    /// `Topic/Subtopic`.
    pub fn ordered(mut self, replies: impl IntoIterator<Item = String>) -> Self {
        self.wanted.ordered = Some(replies.into_iter().collect());
        self
    }
}

impl<'c, H, F> IntoFuture for Serve<'c, H>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Payload, Failure>> + Send + 'static,
{
    type Output = Result<Serving, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let queue = ask(self.client, self.wanted, self.concurrency).await?;
            let stop = CancellationToken::new();
            let work = work(queue, self.client.clone(), self.handler, self.concurrency, stop.clone());
            #[expect(clippy::disallowed_methods, reason = "a library has no task tracker; ends with its Serving")]
            let task = tokio::spawn(work);
            Ok(Serving { stop: stop.drop_guard(), task })
        })
    }
}

/// Takes requests from the queue, and works on up to `concurrency` of them at once.
async fn work<H, F>(mut queue: Queue, client: Client, handler: H, concurrency: usize, stop: CancellationToken) -> Error
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Payload, Failure>> + Send + 'static,
{
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
        let answer = Answer { message: message.clone(), client: client.clone(), given: false };
        // In a task of its own, so that a panic ends this request only.
        let request = Request { message, client: client.clone() };
        let outcome = handler(request);
        running.spawn(async move { answer.give(outcome.await).await });
    }
    // Requests that have not begun are refused now. Otherwise their requesters would wait until the time limit.
    queue.close();
    while let Some(Ok(message)) = queue.receiver.recv().await {
        let gone = Refusal::new(ErrorCode::HandlerGone, "the handler stopped before it began this request");
        Answer { message, client: client.clone(), given: false }.give(Err(gone.into())).await;
    }
    drop(queue);
    finish(running, client.why_closed()).await
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
    /// The connection has ended.
    pub async fn progress(&self, payload: impl Into<Payload>) -> Result<(), Error> {
        answer(&self.client, &self.message, &payload.into(), true).await
    }

    /// Waits until the answer is no longer wanted: the requester cancelled or left, or the connection was lost.
    pub async fn cancelled(&self) {
        self.message.cancellation().cancelled().await;
    }

    /// Returns whether the answer is no longer wanted.
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

/// The answer to a request. If it is dropped before it was given, it answers with `INTERNAL`.
struct Answer {
    message: Message,
    client: Client,
    given: bool,
}

impl Answer {
    async fn give(mut self, outcome: Result<Payload, Failure>) {
        self.given = true;
        let payload = outcome.unwrap_or_else(|failure| failure.payload());
        if let Err(error) = answer(&self.client, &self.message, &payload, false).await {
            tracing::warn!(%error, "an answer could not be sent");
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            let refusal = Refusal::new(ErrorCode::Internal, "the handler ended without an answer");
            if let Ok(order) = order(&self.client, &self.message, &Failure::from(refusal).payload(), false) {
                // If the queue is full, the broker's time limit ends the request.
                self.client.try_order(order);
            }
        }
    }
}

async fn answer(client: &Client, request: &Message, payload: &Payload, more: bool) -> Result<(), Error> {
    client.order(order(client, request, payload, more)?).await
}

/// Returns the order to send an answer, on the request's own triple.
fn order(client: &Client, request: &Message, payload: &Payload, more: bool) -> Result<Order, Error> {
    let to = request.id().unwrap_or_default();
    let outgoing =
        Outgoing { in_reply_to: Some(to), more, ..Outgoing::new(request.triple(), client.source(), payload) };
    let text = client.check_size(outgoing.text()?)?;
    Ok(Order::Answer { to: to.to_owned(), more, text })
}
