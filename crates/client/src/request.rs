//! [`Requesting`]: a request on its way, and its answers: one, several ([`Answers`]) or everybody's ([`Gather`]).

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::message::{Outgoing, Payload, check_triple};
use super::reconnect::Order;
use super::subscription::Queue;
use super::table::Waiting;
use super::{Client, Error, Message};
use wire::ErrorCode;
use wire::Triple;

/// How long a request waits unless told otherwise: the broker's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The broker keeps the time limit; this much later the client no longer believes in an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers that are kept for a consumer that is busy.
const QUEUE: usize = 64;

/// A request in the making: options, then `.await` for its answer, or [`answers`](Self::answers) or
/// [`gather`](Self::gather) for several. To drop what waits for the answer cancels the request.
#[must_use = "nothing is requested until this is awaited"]
pub struct Requesting<'c> {
    client: &'c Client,
    triple: Triple<'c>,
    payload: Payload,
    timeout: Duration,
    idempotent: bool,
    target: Option<String>,
    user: Option<String>,
}

impl<'c> Requesting<'c> {
    pub(super) fn new(client: &'c Client, triple: Triple<'c>, payload: Payload) -> Self {
        Self { client, triple, payload, timeout: TIMEOUT, idempotent: false, target: None, user: None }
    }

    /// How long to wait (default 10 s); the broker's configuration has an upper bound. Each progressive answer starts
    /// the clock anew.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the broker ask another handler if the first one dies.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Only handlers that are registered under this source.
    pub fn target(mut self, source: impl Into<String>) -> Self {
        self.target = Some(source.into());
        self
    }

    /// For this user; for services.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sends the request; its answers come as they are given, the last one last.
    ///
    /// # Errors
    /// The request could not be sent; what happens later is an item of the stream.
    pub async fn answers(self) -> Result<Answers, Error> {
        self.send(false).await
    }

    /// Asks every handler; the answers come as they are given, then who has answered and who has not.
    ///
    /// # Errors
    /// The request could not be sent; what happens later is an item of the stream.
    pub async fn gather(self) -> Result<Gather, Error> {
        self.send(true).await.map(Gather)
    }

    async fn send(self, gather: bool) -> Result<Answers, Error> {
        check_triple(&self.triple)?;
        let id = self.client.shared.next_id();
        let outgoing = Outgoing {
            id: Some(&id),
            timeout: Some(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX).max(1)),
            idempotent: self.idempotent,
            gather,
            target: self.target.as_deref(),
            user: self.user.as_deref(),
            ..Outgoing::new(&self.triple, self.client.source(), &self.payload)
        };
        let text = self.client.check_size(outgoing.text()?)?;
        self.client.check_connected()?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let queue = Queue::new(receiver, self.client.clone());
        let waiting = Waiting::Stream { queue: sender };
        self.client.order(Order::Ask { id, text, waiting }).await?;
        Ok(Answers { queue, patience: self.timeout.saturating_add(PATIENCE), ended: false })
    }

    async fn reply(self) -> Result<Message, Error> {
        let mut answers = self.answers().await?;
        loop {
            match answers.next().await {
                Some(Ok(part)) if part.more() => {}
                Some(outcome) => return outcome,
                None => return Err(Error::Disconnected),
            }
        }
    }
}

/// The last answer; those that came before it are passed over.
impl<'c> IntoFuture for Requesting<'c> {
    type Output = Result<Message, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.reply())
    }
}

/// The answers to one request. Dropped before its end, it cancels the request.
pub struct Answers {
    queue: Queue,
    patience: Duration,
    ended: bool,
}

impl Answers {
    /// The next answer; after the last one, or an error, `None`. An answer that says `"Success":false` is
    /// [`Error::Refused`].
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        let message = match self.message().await? {
            Ok(message) => message,
            Err(error) => return Some(Err(error)),
        };
        match message.failure() {
            Some(failure) => Some(Err(failure.into())),
            None => Some(Ok(message)),
        }
    }

    /// The next message, whatever it says.
    async fn message(&mut self) -> Option<Result<Message, Error>> {
        if self.ended {
            return None;
        }
        let outcome = match timeout(self.patience, self.queue.receiver.recv()).await {
            Ok(Some(Ok(message))) => Ok(message),
            Ok(Some(Err(error))) => Err(error),
            Ok(None) => Err(Error::Disconnected),
            Err(_) => Err(Error::TimedOut("the request")),
        };
        if !outcome.as_ref().is_ok_and(Message::more) {
            self.ended = true;
            // Told now rather than when dropped: a request that timed out here is cancelled at once.
            self.queue.close();
        }
        Some(outcome)
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Message, Error>> + Send {
        unfold(self, async |mut answers| answers.next().await.map(|item| (item, answers)))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// What a gathered request brings.
#[derive(Clone, Debug)]
pub enum Gathered {
    /// One handler's answer, which may be a [`failure`](Message::failure).
    Answer(Message),
    /// The end: who was asked, who answered.
    End(Summary),
}

/// The end of a gathered request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Summary {
    /// How many handlers were asked.
    pub expected: u64,
    /// How many answered.
    pub answered: u64,
    /// Those that did not.
    #[serde(default)]
    pub failed: Vec<FailedHandler>,
}

/// A handler that did not answer a gathered request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct FailedHandler {
    /// Its application.
    pub source: String,
    /// The code, as it was written.
    pub error_code: String,
}

impl FailedHandler {
    /// The code, if it is one of the protocol's catalogue.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.error_code.parse().ok()
    }
}

/// The answers to a request that was asked of every handler. Dropped before its end, it cancels the request.
#[derive(Debug)]
pub struct Gather(Answers);

impl Gather {
    /// The next answer, at last the summary, then `None`.
    pub async fn next(&mut self) -> Option<Result<Gathered, Error>> {
        let message = match self.0.message().await? {
            Ok(message) => message,
            Err(error) => return Some(Err(error)),
        };
        if message.more() {
            return Some(Ok(Gathered::Answer(message)));
        }
        if let Some(failure) = message.failure() {
            return Some(Err(failure.into()));
        }
        let wrong = |_| Error::Protocol("a gathered request ended without its summary".into());
        Some(message.data().map(Gathered::End).map_err(wrong))
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Gathered, Error>> + Send {
        unfold(self, async |mut gather| gather.next().await.map(|item| (item, gather)))
    }
}
