//! [`Driver`]: the one task of a client. It serves a registered connection until that ends, waits and connects again
//! (`away`). It ends with the last [`Client`](super::Client), subscription and handler.
//!
//! A session that continues on another connection goes on as if nothing had happened: what the broker has not taken is sent
//! again, and pending operations stay pending. In a new session, the subscriptions are made again where the application is,
//! and only events are sent again, those that were not sent and those that the broker recognises.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};

use super::backoff::{Backoff, Drops, next};
use super::connection::{Link, Sink, Stream, closed, lost};
use super::message::{Outgoing, Payload};
use super::order::Order;
use super::outbox::{Kind, Outbox};
use super::pace::Pace;
use super::reconnection::Outage;
use super::renew::{Renewal, renewal};
use super::resume::Resume;
use super::table::{Received, Table};
use super::waiting::{Incoming, Repeatable, Waiting};
use super::{Error, Failure, Message, Shared, State};
use wire::{ErrorCode, Reconnect, Refusal, notice};

/// How many orders are carried out before one flush.
const BATCH: usize = 64;
/// How long closing a connection may take.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted this long resets the back-off.
const STABLE: Duration = Duration::from_secs(10);
/// The code with which the client gives up a connection. Without a code, the broker would end the session.
const GIVEN_UP: u16 = 4000;

/// How a connection ended.
enum End {
    /// By this client.
    Wanted,
    /// By the broker or the network.
    Lost { error: Error, at: Instant },
}

/// See the module.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) table: Table,
    pub(super) out: Outbox,
    pub(super) resume: Resume,
    pub(super) backoff: Backoff,
    drops: Drops,
    /// `ReconnectAfterMs` of `Broker/Connection/Draining`, if that arrived on this connection.
    pub(super) reconnect_after: Option<Duration>,
    renewal: Renewal,
    /// What has happened since the client was last connected.
    pub(super) outage: Option<Outage>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, orders: mpsc::Receiver<Order>, backoff: Backoff) -> Self {
        let (renewal, resume) = (Renewal::new(Instant::now(), backoff.fresh()), Resume::new(shared.settings.resume));
        let (table, out) = (Table::default(), Outbox::default());
        let drops = Drops::default();
        Self { shared, orders, table, out, resume, backoff, drops, reconnect_after: None, renewal, outage: None }
    }

    /// Runs from the first registered connection until the client ends.
    pub(super) async fn run(mut self, first: Link) {
        let mut link = first;
        let error = loop {
            let since = Instant::now();
            let end = self.serve(link).await;
            let (lost, at) = match end {
                End::Wanted => break closed_here(),
                End::Lost { error, at } => (error, at),
            };
            if next(&lost) == Reconnect::DropMessage {
                // The caller learns that it must not send the same message again.
                self.end_session(&lost, false);
                if self.drops.note(at) {
                    break lost;
                }
            } else if !self.resume.is_possible() {
                self.end_session(&Error::OutcomeUnknown, true);
            }
            self.table.disconnected();
            if since.elapsed() >= STABLE {
                self.backoff.reset();
            }
            link = match self.reconnect(lost, at).await {
                Ok(link) => link,
                Err(error) => break error,
            };
        };
        self.end_session(&Error::OutcomeUnknown, false);
        self.table.close(&error);
        let (code, reason) = match error {
            Error::Closed { code, reason } => (code, reason),
            error => (None, error.to_string()),
        };
        self.shared.states.send_replace(State::Closed { code, reason });
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, link: Link) -> End {
        let Link { mut sink, mut stream, session, resume_token, resumed, early } = link;
        let mut pace = Pace::new(Instant::now(), session.heartbeat, self.shared.settings.limits.command);
        self.shared.message_bytes_max.store(session.message_bytes_max, Ordering::Relaxed);
        self.table.user.clone_from(&session.user);
        let mut batch = Vec::with_capacity(BATCH);
        let mut unannounced = Some(session);
        self.reconnect_after = None;
        self.renewal.reset(Instant::now());
        for message in early {
            self.receive(message);
        }
        match resumed {
            Some(taken) => self.resume_session(resume_token, taken),
            None => self.begin_session(resume_token),
        }
        loop {
            if self.table.is_complete()
                && let Some(session) = unannounced.take()
            {
                pace.subscribed();
                self.announce(session);
            }
            let now = Instant::now();
            self.keep_up(now);
            let (may_read, upkeep_due) = (self.table.may_read(), self.upkeep_due());
            pace.note(now, may_read, self.out.has_unwritten());
            let outcome = tokio::select! {
                read = stream.next(), if may_read => {
                    if matches!(read, Some(Ok(_))) {
                        pace.read(Instant::now());
                    }
                    self.handle_read(read)
                }
                written = write(&mut sink, &mut self.out), if pace.is_writing() => {
                    pace.written();
                    written.map_err(|error| lost(&error))
                }
                count = self.orders.recv_many(&mut batch, BATCH), if !pace.is_writing() && self.out.has_room() => {
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
                () = at(upkeep_due) => Ok(()),
                () = sleep_until(pace.deadline()) => Err(Error::TimedOut("what was sent to the broker")),
            };
            if let Err(error) = outcome {
                let at = Instant::now();
                let silence = at.saturating_duration_since(pace.last_read());
                self.outage.get_or_insert_with(|| Outage::after(silence));
                timeout(CLOSING_MAX, give_up(&mut sink, &error)).await.ok();
                return End::Lost { error, at };
            }
        }
    }

    /// Handles what was read from the socket.
    fn handle_read(&mut self, read: Option<Result<tungstenite::Message, tungstenite::Error>>) -> Result<(), Error> {
        match read {
            Some(Ok(tungstenite::Message::Text(text))) => match Message::read(text) {
                Ok(message) => {
                    if !message.is_uncounted() {
                        self.resume.count(Instant::now());
                    }
                    self.receive(message);
                }
                Err(error) => {
                    self.resume.count(Instant::now());
                    tracing::warn!(%error, "skipped a message of the broker");
                }
            },
            Some(Ok(tungstenite::Message::Close(frame))) => return Err(closed(frame)),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(&error)),
            None => return Err(Error::Disconnected),
        }
        Ok(())
    }

    fn receive(&mut self, message: Message) {
        let own = message.in_reply_to().filter(|id| self.shared.is_own(id));
        if let Some(sequence) = own.and_then(|id| self.table.sequence(id)) {
            self.out.prove(Instant::now(), sequence);
        }
        match self.table.receive(message) {
            Received::Handled => {}
            Received::Draining(after) => self.reconnect_after = Some(after),
            Received::Expiring => self.renewal.begin(Instant::now(), &self.shared.settings),
            Received::Renewed(reply) => self.renewal.answered(Instant::now(), &self.shared.settings, &reply),
            Received::Subscribed => self.sweep(),
            Received::Unrecoverable(wanted) => {
                let asked = self.table.without_recover(&wanted);
                self.subscribe(self.shared.next_id(), &wanted.data(None), Waiting::Subscribe(wanted, asked));
            }
            Received::Pong => self.out.set_asking(false),
            Received::Unserved(request) => self.push(Kind::OfSession, self.shared.unserved(&request)),
        }
    }

    /// Sends Renew with a new token.
    fn renew(&mut self, token: &SecretString) {
        let (settings, id) = (&self.shared.settings, self.shared.next_id());
        match renewal(settings, token, &id) {
            Ok(text) => {
                let sequence = self.out.push(Kind::Upkeep, text);
                self.renewal.sent(id.clone(), Instant::now() + settings.limits.command);
                self.table.wait(id, sequence, Waiting::Renewal);
            }
            Err(error) => tracing::warn!(%error, "the new token cannot be sent"),
        }
    }

    /// Adds a message, if there is one.
    fn push(&mut self, kind: Kind, text: Option<Utf8Bytes>) {
        if let Some(text) = text {
            self.out.push(kind, text);
        }
    }

    pub(super) fn subscribe(&mut self, id: String, data: &Payload, waiting: Waiting) {
        if let Some(text) = self.shared.command("Subscription", "Subscribe", Some(&id), data) {
            let sequence = self.out.push(Kind::OfSession, text);
            self.table.wait(id, sequence, waiting);
        }
    }

    /// Sends an event with a receipt.
    pub(super) fn publish(&mut self, id: String, text: String, once: bool, receipt: oneshot::Sender<Incoming>) {
        let text = Utf8Bytes::from(text);
        let repeatable = once.then(|| Repeatable { text: text.clone(), since: Instant::now() });
        let sequence = self.out.push(Kind::Event { silent: false }, text);
        self.table.wait(id, sequence, Waiting::Receipt(receipt, repeatable));
    }

    /// Carries out orders. If one of them closes the client, returns the sender that reports it.
    fn carry_out(&mut self, batch: &mut Vec<Order>) -> Option<oneshot::Sender<()>> {
        for order in batch.drain(..) {
            match order {
                Order::Send(text) => {
                    self.out.push(Kind::Event { silent: true }, text);
                }
                Order::Keep { text, kept } => {
                    self.out.push(Kind::Event { silent: true }, text);
                    kept.send(()).ok();
                }
                Order::Publish { id, text, once, receipt } => self.publish(id, text, once, receipt),
                Order::Ask { id, text, waiting } => {
                    let sequence = self.out.push(Kind::OfSession, text);
                    self.table.wait(id, sequence, waiting);
                }
                Order::Answer { to, more, text } => self.answer(&to, more, text),
                Order::Subscribe { id, wanted, recover, track, queue, done } => {
                    let data = wanted.data(recover.as_ref());
                    let asked = self.table.hold(wanted.clone(), queue, done, track);
                    self.subscribe(id, &data, Waiting::Subscribe(wanted, asked));
                }
                Order::Close(done) => return Some(done),
            }
        }
        None
    }

    /// Sends the answer to a request, if that is still open.
    pub(super) fn answer(&mut self, to: &str, more: bool, text: String) {
        if self.table.answered(to, more) {
            self.out.push(Kind::OfSession, text);
        }
    }

    /// Cancels requests and ends subscriptions that were dropped.
    fn sweep(&mut self) {
        let (cancelled, left) = self.table.sweep();
        for id in cancelled {
            self.push(Kind::OfSession, self.shared.command("Request", "Cancel", None, &json!({ "id": id }).into()));
        }
        for (subscription, dropped) in left {
            let id = self.shared.next_id();
            let data = json!({ "SubscriptionId": subscription });
            self.push(Kind::OfSession, self.shared.command("Subscription", "Unsubscribe", Some(&id), &data.into()));
            self.table.unsubscribing(dropped, &id);
        }
    }

    /// Closes the connection. Unregisters first if the application asked for the close, so that the broker does not
    /// wait for this session to return.
    async fn leave(&mut self, sink: &mut Sink, stream: &mut Stream, done: Option<oneshot::Sender<()>>) {
        if done.is_some() {
            self.push(Kind::OfSession, self.shared.command("Application", "Unregister", None, &Payload::default()));
        }
        close(sink, stream, &mut self.out).await;
        if let Some(done) = done {
            done.send(()).ok();
        }
    }
}

/// The error of a client that the application itself has closed.
pub(super) fn closed_here() -> Error {
    Error::Closed { code: None, reason: "closed by this application".into() }
}

impl Shared {
    /// Returns the answer to a request whose handler has stopped. Otherwise the requester would wait until its time
    /// limit.
    fn unserved(&self, request: &Message) -> Option<Utf8Bytes> {
        let refusal = Refusal::new(ErrorCode::HandlerGone, "the handler stopped before it began this request");
        let payload = Failure::from(refusal).payload();
        let in_reply_to = request.id();
        let outgoing = Outgoing { in_reply_to, ..Outgoing::new(request.triple(), &self.settings.source, &payload) };
        outgoing.text().ok().map(Into::into)
    }

    /// Returns a command for the broker.
    pub(super) fn command(
        &self,
        topic: &'static str,
        subtopic: &'static str,
        id: Option<&str>,
        data: &Payload,
    ) -> Option<Utf8Bytes> {
        let triple = notice::triple(topic, subtopic);
        let outgoing = Outgoing { id, ..Outgoing::new(&triple, &self.settings.source, data) };
        // Cannot fail: strings and a raw value.
        outgoing.text().ok().map(Into::into)
    }
}

/// Writes all messages and flushes once. Cancel-safe: a message leaves the queue when the sink has taken it.
async fn write(sink: &mut Sink, out: &mut Outbox) -> Result<(), tungstenite::Error> {
    while out.has_unwritten() {
        poll_fn(|context| sink.poll_ready_unpin(context)).await?;
        if let Some(message) = out.take(Instant::now()) {
            sink.start_send_unpin(message)?;
        }
    }
    sink.flush().await
}

/// Closes a connection that has failed.
async fn give_up(sink: &mut Sink, error: &Error) {
    if matches!(error, Error::TimedOut(_)) {
        let frame = CloseFrame { code: GIVEN_UP.into(), reason: Utf8Bytes::from_static("given up") };
        sink.send(tungstenite::Message::Close(Some(frame))).await.ok();
    }
    sink.close().await.ok();
}

/// Waits until a time; for ever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Writes the remaining messages, closes, and reads until the broker has closed too. Dropping a socket with unread
/// bytes resets the connection, and the reset can overtake what was written.
async fn close(sink: &mut Sink, stream: &mut Stream, out: &mut Outbox) {
    let closing = async {
        if write(sink, out).await.is_ok() && sink.close().await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    timeout(CLOSING_MAX, closing).await.ok();
}
