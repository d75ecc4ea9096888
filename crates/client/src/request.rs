//! [`Requesting`]: a request to send, and its answers: one, several ([`Answers`]) or those of all handlers ([`Gather`]).

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
use super::order::Order;
use super::subscription::Queue;
use super::waiting::Waiting;
use super::{Client, Error, Message};
use wire::ErrorCode;
use wire::Triple;

/// The default time limit of a request, which is also the broker's.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The broker ends a request at its time limit. The client gives up this much later.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many answers are queued.
const QUEUE: usize = 64;

/// A request to send. Set its options, then `.await` the answer, or call [`answers`](Self::answers) or
/// [`gather`](Self::gather) for several. It is refused while there is no connection. Dropping the future, or the stream of answers, cancels the request.
#[must_use = "nothing is requested until this is awaited"]
pub struct Requesting<'c> {
    client: &'c Client,
    triple: Triple<'c>,
    payload: Payload,
    id: Option<String>,
    timeout: Duration,
    idempotent: bool,
    target: Option<String>,
    user: Option<String>,
}

impl<'c> Requesting<'c> {
    pub(super) fn new(client: &'c Client, triple: Triple<'c>, payload: Payload) -> Self {
        Self { client, triple, payload, id: None, timeout: TIMEOUT, idempotent: false, target: None, user: None }
    }

    /// Sets the request's id, instead of one that the client makes. The handler sees it as
    /// [`request_id`](Message::request_id), and can recognise a repeated request by it.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the time limit (default 10 s). The broker lowers it to its own. Each partial answer restarts the clock.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the broker give the request to a second handler if the first one goes away.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Sends the request only to handlers of this source.
    pub fn target(mut self, source: impl Into<String>) -> Self {
        self.target = Some(source.into());
        self
    }

    /// Names the user whom the request is for. A service must name one on a user-scoped channel.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sends the request, and returns its answers: partial ones first, the last one at the end.
    ///
    /// # Errors
    /// The request could not be sent. A later failure is an item of the stream.
    pub async fn answers(self) -> Result<Answers, Error> {
        self.send(false).await
    }

    /// Sends the request to all handlers, and returns their answers, then a summary.
    ///
    /// # Errors
    /// The request could not be sent. A later failure is an item of the stream.
    pub async fn gather(self) -> Result<Gather, Error> {
        self.send(true).await.map(Gather)
    }

    async fn send(self, gather: bool) -> Result<Answers, Error> {
        check_triple(&self.triple)?;
        let id = self.id.clone().unwrap_or_else(|| self.client.shared.next_id());
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
        let waiting = Waiting::Stream(sender);
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

/// Ends with the last answer; partial ones are skipped.
impl<'c> IntoFuture for Requesting<'c> {
    type Output = Result<Message, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.reply())
    }
}

/// The answers to one request. Dropping it before the last one cancels the request.
pub struct Answers {
    queue: Queue,
    patience: Duration,
    ended: bool,
}

impl Answers {
    /// Returns the next answer, or `None` after the last one or an error. An answer with `"Success":false` is
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

    /// Returns the next message, also if it is a failure.
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
            // Not only when dropped: a request that timed out here is cancelled now.
            self.queue.close();
        }
        Some(outcome)
    }

    /// Returns the answers as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Message, Error>> + Send {
        unfold(self, async |mut answers| answers.next().await.map(|item| (item, answers)))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// An item of a gathered request.
#[derive(Clone, Debug)]
pub enum Gathered {
    /// The answer of one handler, which can be a [`failure`](Message::failure).
    Answer(Message),
    /// The end.
    End(Summary),
}

/// The summary at the end of a gathered request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Summary {
    /// The number of handlers that got the request.
    pub expected: u64,
    /// The number of handlers that answered.
    pub answered: u64,
    /// The handlers that did not answer.
    #[serde(default)]
    pub failed: Vec<FailedHandler>,
}

/// A handler that did not answer a gathered request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct FailedHandler {
    /// Its source.
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

/// The answers of all handlers to one request. Dropping it before the summary cancels the request.
#[derive(Debug)]
pub struct Gather(Answers);

impl Gather {
    /// Returns the next answer, then the summary, then `None`.
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

    /// Returns the answers as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Gathered, Error>> + Send {
        unfold(self, async |mut gather| gather.next().await.map(|item| (item, gather)))
    }
}
