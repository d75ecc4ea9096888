//! [`Publishing`]: an event on its way, with or without a [`Receipt`].

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::message::{Outgoing, Payload, check_triple};
use super::reconnect::Order;
use super::table::Waiting;
use super::{Client, Error, Message};
use wire::Triple;

/// What the broker says of an event that was published with an id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Receipt {
    /// In how many outbound queues the event is.
    pub receivers: u64,
    /// A similar triple that a handler serves, where there was no receiver.
    pub hint: Option<String>,
    /// Whether the broker had this id already and delivered nothing.
    pub duplicate: bool,
    /// The answer of a handler that serves this triple: then the broker took the envelope for a request.
    #[serde(skip)]
    pub reply: Option<Message>,
}

/// An event in the making: options, then `.await`, which ends when the event is on its way to the broker.
///
/// Without [`receipt`](Self::receipt) nobody hears of a refusal, or of a connection that is lost in that moment.
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

    /// Keeps the event as the triple's last value for later subscribers; a `null` payload clears it.
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Only for sessions that are registered under this source.
    pub fn target(mut self, source: impl Into<String>) -> Self {
        self.target = Some(source.into());
        self
    }

    /// For this user; a service has to say so on a user-scoped channel.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Asks for a receipt: `.await` then ends with it, or with the refusal.
    pub fn receipt(self) -> Receipted<'c> {
        Receipted { event: self, id: None }
    }

    fn text(&self, id: Option<&str>) -> Result<String, Error> {
        check_triple(&self.triple)?;
        let outgoing = Outgoing {
            id,
            target: self.target.as_deref(),
            user: self.user.as_deref(),
            retain: self.retain,
            ..Outgoing::new(&self.triple, self.client.source(), &self.payload)
        };
        self.client.check_size(outgoing.text()?)
    }

    async fn publish(self) -> Result<(), Error> {
        let text = self.text(None)?;
        self.client.check_connected()?;
        self.client.order(Order::Send(text)).await
    }
}

impl<'c> IntoFuture for Publishing<'c> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}

/// An event with a receipt, in the making.
#[must_use = "nothing is published until this is awaited"]
pub struct Receipted<'c> {
    event: Publishing<'c>,
    id: Option<String>,
}

impl Receipted<'_> {
    /// The event's id, in place of one that the client makes: to publish the same event again after a lost connection
    /// without its being delivered twice, on a channel with history.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    async fn publish(self) -> Result<Receipt, Error> {
        let client = self.event.client;
        let id = self.id.unwrap_or_else(|| client.shared.next_id());
        let text = self.event.text(Some(&id))?;
        client.check_connected()?;
        let (queue, answer) = oneshot::channel();
        client.order(Order::Ask { id, text, waiting: Waiting::Once(queue) }).await?;
        let receipt = client.answer("the publication", answer).await?;
        if !receipt.is_notice("Message", "Receipt") {
            return Ok(Receipt { reply: Some(receipt), ..Receipt::default() });
        }
        receipt.data().map_err(|_| Error::Protocol("a receipt without its fields".into()))
    }
}

impl<'c> IntoFuture for Receipted<'c> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}
