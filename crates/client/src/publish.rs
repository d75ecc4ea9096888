//! [`Publishing`]: an event to publish, with or without a [`Receipt`].

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::message::{Outgoing, Payload, check_triple};
use super::order::Order;
use super::{Client, Error, Message};
use wire::Triple;

/// The broker's receipt of an event that was published with an id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Receipt {
    /// The number of outbound queues that the event is in.
    pub receivers: u64,
    /// A similar triple that has receivers or a handler, if no pattern names this one exactly.
    pub hint: Option<String>,
    /// Whether the broker already had an event with this id, so it delivered nothing.
    pub duplicate: bool,
    /// The number of the event in its log, if its channel has history.
    pub offset: Option<u64>,
    /// The life of that log.
    pub epoch: Option<String>,
    /// The answer of a handler. There is one if a handler serves this triple: then the envelope was a request.
    #[serde(skip)]
    pub reply: Option<Message>,
}

/// An event to publish. Set its options, then `.await` it, which ends when the event is queued for sending. While there is
/// no connection, it is kept or refused, by [`Builder::while_away`](super::Builder::while_away).
///
/// Without [`receipt`](Self::receipt), a refusal is only logged. If a session cannot be resumed, it is unknown whether the
/// last events arrived, and [`Client::reconnections`] reports that as lost.
#[must_use = "nothing is published until this is awaited"]
pub struct Publishing<'c> {
    client: &'c Client,
    triple: Triple<'c>,
    payload: Payload,
    target: Option<String>,
    user: Option<String>,
    retain: bool,
}

impl<'c> Publishing<'c> {
    pub(super) fn new(client: &'c Client, triple: Triple<'c>, payload: Payload) -> Self {
        Self { client, triple, payload, target: None, user: None, retain: false }
    }

    /// Retains the event as the last value of its triple, for later subscribers. A payload of `null` clears it.
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Sends the event only to sessions of this source.
    pub fn target(mut self, source: impl Into<String>) -> Self {
        self.target = Some(source.into());
        self
    }

    /// Names the user whom the event is for. A service must name one on a user-scoped channel.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Requests a receipt. `.await` then returns the receipt, or the refusal as an error.
    pub fn receipt(self) -> Receipted<'c> {
        Receipted { event: self, id: None, once: false }
    }

    fn text(&self, id: Option<&str>, once: bool) -> Result<String, Error> {
        check_triple(&self.triple)?;
        let outgoing = Outgoing {
            id,
            target: self.target.as_deref(),
            user: self.user.as_deref(),
            retain: self.retain,
            once,
            ..Outgoing::new(&self.triple, self.client.source(), &self.payload)
        };
        self.client.check_size(outgoing.text()?)
    }

    async fn publish(self) -> Result<(), Error> {
        let text = self.text(None, false)?;
        if self.client.check_may_publish()? {
            return self.client.order(Order::Send(text)).await;
        }
        let (kept, is_kept) = oneshot::channel();
        self.client.order(Order::Keep { text, kept }).await?;
        is_kept.await.map_err(|_| self.client.why_closed())
    }
}

impl<'c> IntoFuture for Publishing<'c> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}

/// An event to publish with a receipt. While there is no connection, it is kept or refused, and the time limit of the
/// receipt rests. Dropping the future does not take the event back.
#[must_use = "nothing is published until this is awaited"]
pub struct Receipted<'c> {
    event: Publishing<'c>,
    id: Option<String>,
    once: bool,
}

impl Receipted<'_> {
    /// Sets the event's id, instead of one that the client makes.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Lets the broker deliver an event with this id at most once, so that it can be published again. The client does so by
    /// itself if a session ends before the receipt. Only in a channel with history.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    async fn publish(self) -> Result<Receipt, Error> {
        let client = self.event.client;
        let id = self.id.unwrap_or_else(|| client.shared.next_id());
        let text = self.event.text(Some(&id), self.once)?;
        client.check_may_publish()?;
        let (receipt, answer) = oneshot::channel();
        client.order(Order::Publish { id, text, once: self.once, receipt }).await?;
        let receipt = client.receipt(answer).await?;
        if !receipt.is_notice("Message", "Receipt") {
            return Ok(Receipt { reply: Some(receipt), ..Receipt::default() });
        }
        receipt.data().map_err(|_| Error::Protocol("a receipt has no Receivers".into()))
    }
}

impl<'c> IntoFuture for Receipted<'c> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}
