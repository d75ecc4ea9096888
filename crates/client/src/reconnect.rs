//! [`Driver`]: the one task of a client. It serves a registered connection until that ends, waits, connects, registers
//! and subscribes again. It ends with the last [`Client`](super::Client), subscription and handler.
//!
//! An operation fails at once while there is no connection, and fails when its connection is lost. Nothing is sent
//! twice, because only the caller knows whether repeating it is safe.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::backoff::{Backoff, can_retry, next};
use super::connection::{Link, Sink, Stream, closed, establish, lost};
use super::message::{Outgoing, Payload};
use super::pace::Pace;
use super::renew::{Renewal, renewal};
use super::subscription::Wanted;
use super::table::{Received, Table};
use super::waiting::{Incoming, Waiting};
use super::{Error, Failure, Message, Shared, State};
use wire::{ErrorCode, Reconnect, Refusal, notice};

/// How many orders are carried out before one flush.
const BATCH: usize = 64;
/// How long closing a connection may take.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted this long resets the back-off.
const STABLE: Duration = Duration::from_secs(10);

/// An order for the driver.
pub(super) enum Order {
    /// Send a text.
    Send(String),
    /// Send a text, and pass on the answers to this id.
    Ask { id: String, text: String, waiting: Waiting },
    /// Send the answer to a request, if the request is still open.
    Answer { to: String, more: bool, text: String },
    /// Subscribe. `done` gets the broker's reply.
    Subscribe { id: String, wanted: Wanted, queue: mpsc::Sender<Incoming>, done: oneshot::Sender<Incoming> },
    /// Unregister, close the connection and end.
    Close(oneshot::Sender<()>),
}

/// How a connection ended.
enum End {
    /// By this client.
    Wanted,
    /// By the broker or the network.
    Lost { error: Error, at: Instant },
}

/// See the module.
pub(super) struct Driver {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    table: Table,
    out: VecDeque<tungstenite::Message>,
    backoff: Backoff,
    /// `ReconnectAfterMs` of `Broker/Connection/Draining`, if that arrived on this connection.
    reconnect_after: Option<Duration>,
    renewal: Renewal,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, orders: mpsc::Receiver<Order>, backoff: Backoff) -> Self {
        let renewal = Renewal::new(Instant::now(), backoff.fresh());
        Self { shared, orders, table: Table::default(), out: VecDeque::new(), backoff, reconnect_after: None, renewal }
    }

    /// Runs from the first registered connection until the client ends.
    pub(super) async fn run(mut self, first: Link) {
        let mut link = first;
        let error = loop {
            let since = Instant::now();
            let end = self.serve(link).await;
            self.out.clear();
            let (lost, at) = match end {
                End::Wanted => {
                    self.table.disconnected(&Error::Disconnected);
                    break closed_here();
                }
                End::Lost { error, at } => (error, at),
            };
            // Otherwise the caller learns that it must not send the same message again.
            let is_blamed = next(&lost) == Reconnect::DropMessage;
            self.table.disconnected(if is_blamed { &lost } else { &Error::Disconnected });
            if since.elapsed() >= STABLE {
                self.backoff.reset();
            }
            link = match self.reconnect(lost, at).await {
                Ok(link) => link,
                Err(error) => break error,
            };
        };
        self.table.close(&error);
        let (code, reason) = match error {
            Error::Closed { code, reason } => (code, reason),
            error => (None, error.to_string()),
        };
        self.shared.states.send_replace(State::Closed { code, reason });
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, link: Link) -> End {
        let Link { mut sink, mut stream, session, early } = link;
        let mut pace = Pace::new(Instant::now(), session.heartbeat, self.shared.settings.limits.command);
        self.shared.message_bytes_max.store(session.message_bytes_max, Ordering::Relaxed);
        let mut batch = Vec::with_capacity(BATCH);
        let mut unannounced = Some(session);
        self.reconnect_after = None;
        self.renewal.reset(Instant::now());
        for message in early {
            self.receive(message);
        }
        self.subscribe_again();
        loop {
            if self.table.is_complete()
                && let Some(session) = unannounced.take()
            {
                pace.subscribed();
                self.shared.states.send_replace(State::Connected(session));
            }
            let may_read = self.table.may_read();
            pace.note(Instant::now(), may_read, !self.out.is_empty());
            let outcome = tokio::select! {
                read = stream.next(), if may_read => {
                    pace.read(Instant::now());
                    self.handle_read(read)
                }
                written = write(&mut sink, &mut self.out), if pace.is_writing() => {
                    pace.written();
                    written.map_err(|error| lost(&error))
                }
                count = self.orders.recv_many(&mut batch, BATCH), if !pace.is_writing() => {
                    let closing = if count == 0 { Some(None) } else { self.carry_out(&mut batch).map(Some) };
                    if let Some(done) = closing {
                        self.leave(&mut sink, &mut stream, done).await;
                        return End::Wanted;
                    }
                    Ok(())
                }
                () = self.shared.sweep.notified() => {
                    self.sweep();
                    Ok(())
                }
                () = self.table.unpark() => Ok(()),
                token = self.renewal.token(&self.shared.settings) => {
                    self.renew(&token);
                    Ok(())
                }
                () = sleep_until(pace.deadline()) => Err(Error::TimedOut("what was sent to the broker")),
            };
            if let Err(error) = outcome {
                let at = Instant::now();
                timeout(CLOSING_MAX, sink.close()).await.ok();
                return End::Lost { error, at };
            }
        }
    }

    /// Handles what was read from the socket.
    fn handle_read(&mut self, read: Option<Result<tungstenite::Message, tungstenite::Error>>) -> Result<(), Error> {
        match read {
            Some(Ok(tungstenite::Message::Text(text))) => match Message::read(text) {
                Ok(message) => self.receive(message),
                Err(error) => tracing::warn!(%error, "skipped a message of the broker"),
            },
            Some(Ok(tungstenite::Message::Close(frame))) => return Err(closed(frame)),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(&error)),
            None => return Err(Error::Disconnected),
        }
        Ok(())
    }

    fn receive(&mut self, message: Message) {
        match self.table.receive(message) {
            Received::Handled => {}
            Received::Draining(after) => self.reconnect_after = Some(after),
            Received::Expiring => self.renewal.begin(Instant::now(), &self.shared.settings),
            Received::Renewed(reply) => self.renewal.answered(Instant::now(), &self.shared.settings, &reply),
            Received::Subscribed => self.sweep(),
            Received::Unserved(request) => self.out.extend(self.shared.unserved(&request)),
        }
    }

    /// Sends Renew with a new token.
    fn renew(&mut self, token: &SecretString) {
        let (settings, id) = (&self.shared.settings, self.shared.next_id());
        match renewal(settings, token, &id) {
            Ok(message) => {
                self.table.wait(id.clone(), Waiting::Renewal);
                self.out.push_back(message);
                self.renewal.sent(id, Instant::now() + settings.limits.command);
            }
            Err(error) => tracing::warn!(%error, "the new token cannot be sent"),
        }
    }

    /// Carries out orders. If one of them closes the client, returns the sender that reports it.
    fn carry_out(&mut self, batch: &mut Vec<Order>) -> Option<oneshot::Sender<()>> {
        for order in batch.drain(..) {
            match order {
                Order::Send(text) => self.out.push_back(text.into()),
                Order::Ask { id, text, waiting } => {
                    self.table.wait(id, waiting);
                    self.out.push_back(text.into());
                }
                Order::Answer { to, more, text } => {
                    if self.table.answered(&to, more) {
                        self.out.push_back(text.into());
                    }
                }
                Order::Subscribe { id, wanted, queue, done } => {
                    self.out.extend(self.shared.command("Subscription", "Subscribe", Some(&id), &wanted.data()));
                    let asked = self.table.hold(wanted.clone(), queue);
                    self.table.wait(id, Waiting::Subscribe(wanted, asked, done));
                }
                Order::Close(done) => return Some(done),
            }
        }
        None
    }

    /// Cancels requests and ends subscriptions that were dropped.
    fn sweep(&mut self) {
        let (cancelled, left) = self.table.sweep();
        for id in cancelled {
            self.out.extend(self.shared.command("Request", "Cancel", None, &json!({ "id": id }).into()));
        }
        for (subscription, dropped) in left {
            let id = self.shared.next_id();
            let data = json!({ "SubscriptionId": subscription });
            self.out.extend(self.shared.command("Subscription", "Unsubscribe", Some(&id), &data.into()));
            self.table.unsubscribing(dropped, &id);
        }
    }

    fn subscribe_again(&mut self) {
        for (wanted, asked) in self.table.again() {
            let id = self.shared.next_id();
            self.out.extend(self.shared.command("Subscription", "Subscribe", Some(&id), &wanted.data()));
            self.table.wait(id, Waiting::Again(wanted, asked));
        }
    }

    /// Connects again after a connection that ended at `at`, for as long as that can help.
    async fn reconnect(&mut self, lost: Error, at: Instant) -> Result<Link, Error> {
        let shared = Arc::clone(&self.shared);
        let (mut error, mut at) = (lost, at);
        let mut is_registering = false;
        loop {
            let next = next(&error);
            if !self.meanwhile(can_retry(&error, &shared.settings, is_registering)).await? {
                return Err(error);
            }
            if next == Reconnect::DropMessage {
                tracing::warn!(%error, "the broker closed the connection because of a message, which is not sent again");
            }
            let after = if next == Reconnect::AfterDelay { self.reconnect_after.take() } else { None };
            let wait = after.unwrap_or_else(|| self.backoff.next());
            let due = at + wait;
            let retry_in = due.saturating_duration_since(Instant::now());
            self.shared.states.send_replace(State::Disconnected { reason: error.to_string(), retry_in });
            self.meanwhile(sleep_until(due)).await?;
            self.shared.states.send_replace(State::Connecting);
            match self.meanwhile(Box::pin(establish(&shared.settings))).await? {
                Ok(link) => return Ok(link),
                Err(again) => (error, at, is_registering) = (again, Instant::now(), true),
            }
        }
    }

    /// Runs a future while the client is disconnected. Orders fail meanwhile. Fails if the client ends.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Error> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                outcome = &mut future => return Ok(outcome),
                order = self.orders.recv() => match order {
                    None => return Err(closed_here()),
                    Some(Order::Close(done)) => {
                        done.send(()).ok();
                        return Err(closed_here());
                    }
                    // Dropped: the caller's queue closes without an answer, which means `Disconnected`.
                    Some(Order::Send(_) | Order::Ask { .. } | Order::Answer { .. } | Order::Subscribe { .. }) => {}
                },
                () = self.table.unpark() => {}
            }
        }
    }

    /// Closes the connection. Unregisters first if the application asked for the close, so that the broker does not
    /// wait for this session to return.
    async fn leave(&mut self, sink: &mut Sink, stream: &mut Stream, done: Option<oneshot::Sender<()>>) {
        if done.is_some() {
            self.out.extend(self.shared.command("Application", "Unregister", None, &Payload::default()));
        }
        close(sink, stream, &mut self.out).await;
        if let Some(done) = done {
            done.send(()).ok();
        }
    }
}

/// The error of a client that the application itself has closed.
fn closed_here() -> Error {
    Error::Closed { code: None, reason: "closed by this application".into() }
}

impl Shared {
    /// Returns the answer to a request whose handler has stopped. Otherwise the requester would wait until its time
    /// limit.
    fn unserved(&self, request: &Message) -> Option<tungstenite::Message> {
        let refusal = Refusal::new(ErrorCode::HandlerGone, "the handler stopped before it began this request");
        let payload = Failure::from(refusal).payload();
        let in_reply_to = request.id();
        let outgoing = Outgoing { in_reply_to, ..Outgoing::new(request.triple(), &self.settings.source, &payload) };
        outgoing.text().ok().map(Into::into)
    }

    /// Returns a command for the broker.
    fn command(
        &self,
        topic: &'static str,
        subtopic: &'static str,
        id: Option<&str>,
        data: &Payload,
    ) -> Option<tungstenite::Message> {
        let triple = notice::triple(topic, subtopic);
        let outgoing = Outgoing { id, ..Outgoing::new(&triple, &self.settings.source, data) };
        // Cannot fail: strings and a raw value.
        outgoing.text().ok().map(Into::into)
    }
}

/// Writes all messages and flushes once. Cancel-safe: a message leaves the queue when the sink has taken it.
async fn write(sink: &mut Sink, out: &mut VecDeque<tungstenite::Message>) -> Result<(), tungstenite::Error> {
    while !out.is_empty() {
        poll_fn(|context| sink.poll_ready_unpin(context)).await?;
        if let Some(message) = out.pop_front() {
            sink.start_send_unpin(message)?;
        }
    }
    sink.flush().await
}

/// Writes the remaining messages, closes, and reads until the broker has closed too. Dropping a socket with unread
/// bytes resets the connection, and the reset can overtake what was written.
async fn close(sink: &mut Sink, stream: &mut Stream, out: &mut VecDeque<tungstenite::Message>) {
    let closing = async {
        if write(sink, out).await.is_ok() && sink.close().await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    timeout(CLOSING_MAX, closing).await.ok();
}
