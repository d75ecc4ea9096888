//! [`Serving`]: requests that a closure answers. [`Serve`] is how that is begun, [`Request`] what the closure gets.

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

/// How many requests are worked on at once unless told otherwise.
const CONCURRENCY: usize = 64;

/// A handler in the making: options, then `.await`.
#[must_use = "nothing is served until this is awaited"]
pub struct Serve<'c, H> {
    client: &'c Client,
    wanted: Wanted,
    handler: H,
    concurrency: usize,
}

impl<'c, H> Serve<'c, H> {
    pub(super) fn new(client: &'c Client, pattern: Pattern, handler: H) -> Self {
        let wanted = Wanted { pattern, handler: true, group: None, user: None };
        Self { client, wanted, handler, concurrency: CONCURRENCY }
    }

    /// How many requests to work on at once (default 64); the others wait, within their own time.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests.max(1);
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

/// Takes requests one by one, and works on as many at once as is allowed.
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
        // Called inside the task, where a panic costs no more than this request.
        let request = Request { message, client: client.clone() };
        let outcome = handler(request);
        running.spawn(async move { answer.give(outcome.await).await });
    }
    // What was given to this handler and not begun will not be: better said at once than found out by a time limit.
    queue.close();
    while let Some(Ok(message)) = queue.receiver.recv().await {
        let gone = Refusal::new(ErrorCode::HandlerGone, "the handler stopped before it came to this request");
        Answer { message, client: client.clone(), given: false }.give(Err(gone.into())).await;
    }
    drop(queue);
    finish(running, client.why_closed()).await
}

/// Lets what has been begun come to its end.
async fn finish(mut running: JoinSet<()>, error: Error) -> Error {
    while running.join_next().await.is_some() {}
    error
}

/// A handler at work. Dropping it unsubscribes; requests that are being answered still are.
pub struct Serving {
    stop: DropGuard,
    task: JoinHandle<Error>,
}

impl Serving {
    /// Takes no further request, and waits until those that were begun are answered.
    pub async fn stop(self) {
        let Self { stop, task } = self;
        drop(stop);
        // An error says that the task has ended, which is what was wanted.
        task.await.ok();
    }

    /// Waits until the handler has ended by itself: the client was closed, or the broker refused the handler after a
    /// reconnect.
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

/// A request that waits for an answer: the [`Message`], and what can be done about it before the answer.
pub struct Request {
    message: Message,
    client: Client,
}

impl Request {
    /// Gives a part of the answer; the asker's clock starts anew. The closure's result is the last part.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn progress(&self, payload: impl Into<Payload>) -> Result<(), Error> {
        answer(&self.client, &self.message, &payload.into(), true).await
    }

    /// Waits until nobody waits for the answer any longer: the asker cancelled or left, or the connection was lost.
    pub async fn cancelled(&self) {
        self.message.cancellation().cancelled().await;
    }

    /// Whether nobody waits for the answer any longer.
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

/// The answer that is owed to a request: given once, by its drop at the latest.
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
            tracing::warn!(%error, "an answer could not be given");
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            let refusal = Refusal::new(ErrorCode::Internal, "the handler broke off without an answer");
            if let Ok(order) = order(&self.client, &self.message, &Failure::from(refusal).payload(), false) {
                // A full queue: the broker's time limit ends the request.
                self.client.try_order(order);
            }
        }
    }
}

async fn answer(client: &Client, request: &Message, payload: &Payload, more: bool) -> Result<(), Error> {
    client.order(order(client, request, payload, more)?).await
}

/// An answer on the request's own triple.
fn order(client: &Client, request: &Message, payload: &Payload, more: bool) -> Result<Order, Error> {
    let to = request.id().unwrap_or_default();
    let outgoing =
        Outgoing { in_reply_to: Some(to), more, ..Outgoing::new(request.triple(), client.source(), payload) };
    let text = client.check_size(outgoing.text()?)?;
    Ok(Order::Answer { to: to.to_owned(), more, text })
}
