//! [`Driver`]: the client's one task. It serves a registered connection until that is lost, waits, connects, registers
//! and subscribes again, and ends when the last [`Client`](super::Client), subscription and handler is gone.
//!
//! What is asked while there is no connection fails at once; what was pending when it was lost fails then. Nothing is
//! sent twice: only the caller knows whether that would be harmless.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::connection::{Link, Sink, Stream, closed, establish, lost};
use super::message::{Outgoing, Payload};
use super::subscription::Wanted;
use super::table::{Incoming, Table, Told, Waiting};
use super::{Error, Failure, Message, Shared, State};
use wire::notice;
use wire::{ErrorCode, Refusal};

/// How many orders are written before one flush.
const BATCH: usize = 64;
/// How long a write may take; a broker that reads more slowly is given this much patience.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted this long starts the backoff anew; one that is lost at once does not.
const STABLE: Duration = Duration::from_secs(10);
/// How long `SOURCE_IN_USE` may be this client's own lost session, which the broker has not yet missed.
const OWN_GHOST: Duration = Duration::from_mins(2);

/// What the driver is asked to do.
pub(super) enum Order {
    /// Send this, and no more.
    Send(String),
    /// Send this and hand on the answers to this id.
    Ask { id: String, text: String, waiting: Waiting },
    /// Send the answer to a request, if that is still open.
    Answer { to: String, more: bool, text: String },
    /// Subscribe; the answer to the id says whether it worked.
    Subscribe { id: String, wanted: Wanted, queue: mpsc::Sender<Incoming>, done: oneshot::Sender<Incoming> },
    /// Unregister, close, end.
    Close(oneshot::Sender<()>),
}

/// How a connection ended.
enum End {
    /// As this client wished.
    Wished,
    /// Without that; the broker may have said when to come back.
    Lost(Error),
}

/// See the module.
pub(super) struct Driver {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    table: Table,
    out: VecDeque<tungstenite::Message>,
    backoff: Backoff,
    /// What `Broker/Connection/Draining` said.
    reconnect_after: Option<Duration>,
    subscriptions: u64,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, orders: mpsc::Receiver<Order>, backoff: Backoff) -> Self {
        Self {
            shared,
            orders,
            backoff,
            table: Table::default(),
            out: VecDeque::new(),
            reconnect_after: None,
            subscriptions: 0,
        }
    }

    /// Runs from the first registered connection to the end.
    pub(super) async fn run(mut self, first: Link) {
        let mut link = first;
        let error = loop {
            let since = Instant::now();
            let end = self.serve(link).await;
            self.table.disconnected();
            self.out.clear();
            let lost = match end {
                End::Wished => break Error::Closed { code: None, reason: "closed by this application".into() },
                End::Lost(error) => error,
            };
            if since.elapsed() >= STABLE {
                self.backoff.reset();
            }
            link = match self.come_back(lost).await {
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
        let mut batch = Vec::with_capacity(BATCH);
        let mut announce = Some(session);
        for message in early {
            self.receive(message);
        }
        self.subscribe_again();
        loop {
            if self.table.is_complete()
                && let Some(session) = announce.take()
            {
                pace.complete();
                self.shared.states.send_replace(State::Connected(session));
            }
            let may_read = self.table.may_read();
            pace.note(Instant::now(), may_read, !self.out.is_empty());
            let outcome = tokio::select! {
                read = stream.next(), if may_read => {
                    pace.heard(Instant::now());
                    self.hear(read)
                }
                written = write(&mut sink, &mut self.out), if pace.is_writing() => {
                    pace.written();
                    written.map_err(|error| lost(&error))
                }
                count = self.orders.recv_many(&mut batch, BATCH), if !pace.is_writing() => {
                    if count == 0 {
                        say_goodbye(&mut sink, &mut stream, &mut self.out).await;
                        return End::Wished;
                    }
                    match self.obey(&mut batch) {
                        Some(done) => {
                            self.leave(&mut sink, &mut stream, done).await;
                            return End::Wished;
                        }
                        None => Ok(()),
                    }
                }
                () = self.shared.sweep.notified() => {
                    self.sweep();
                    Ok(())
                }
                () = self.table.unpark() => Ok(()),
                () = sleep_until(pace.deadline()) => Err(Error::TimedOut("what was sent to the broker")),
            };
            if let Err(error) = outcome {
                timeout(GOODBYE_MAX, sink.close()).await.ok();
                return End::Lost(error);
            }
        }
    }

    /// Takes what was read from the socket.
    fn hear(&mut self, read: Option<Result<tungstenite::Message, tungstenite::Error>>) -> Result<(), Error> {
        match read {
            Some(Ok(tungstenite::Message::Text(text))) => match Message::read(text) {
                Ok(message) => self.receive(message),
                Err(error) => tracing::warn!(%error, "a message of the broker was passed over"),
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
            Told::Nothing => {}
            Told::Draining(after) => self.reconnect_after = Some(after),
            Told::Unserved(request) => self.out.extend(self.shared.unserved(&request)),
        }
    }

    /// Does what was ordered; says whom to tell when the order was to close.
    fn obey(&mut self, batch: &mut Vec<Order>) -> Option<oneshot::Sender<()>> {
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
                    self.subscriptions += 1;
                    self.out.extend(self.shared.command("Subscription", "Subscribe", Some(&id), &wanted.data()));
                    self.table.hold(self.subscriptions, wanted, queue);
                    self.table.wait(id, Waiting::Subscribe(self.subscriptions, done));
                }
                Order::Close(done) => return Some(done),
            }
        }
        None
    }

    /// Tells the broker what nobody waits for any longer.
    fn sweep(&mut self) {
        let (cancelled, left) = self.table.sweep();
        for id in cancelled {
            self.out.extend(self.shared.command("Request", "Cancel", None, &json!({ "id": id }).into()));
        }
        for wanted in left {
            self.out.extend(self.shared.command("Subscription", "Unsubscribe", None, &wanted.filter()));
        }
    }

    fn subscribe_again(&mut self) {
        for wanted in self.table.again() {
            let id = self.shared.next_id();
            self.out.extend(self.shared.command("Subscription", "Subscribe", Some(&id), &wanted.data()));
            self.table.wait(id, Waiting::Again(wanted));
        }
    }

    /// Waits and connects until there is a connection again, or no hope of one.
    async fn come_back(&mut self, lost: Error) -> Result<Link, Error> {
        let since = Instant::now();
        let mut error = lost;
        loop {
            if is_final(since.elapsed(), &error) {
                return Err(error);
            }
            let retry_in = self.reconnect_after.take().unwrap_or_else(|| self.backoff.next());
            self.shared.states.send_replace(State::Disconnected { reason: error.to_string(), retry_in });
            self.meanwhile(sleep_until(Instant::now() + retry_in)).await?;
            self.shared.states.send_replace(State::Connecting);
            let shared = Arc::clone(&self.shared);
            match self.meanwhile(Box::pin(establish(&shared.settings))).await? {
                Ok(link) => return Ok(link),
                Err(again) => error = again,
            }
        }
    }

    /// Awaits something while there is no connection: orders fail, the end of the client is noticed.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Error> {
        let wished = || Error::Closed { code: None, reason: "closed by this application".into() };
        tokio::pin!(future);
        loop {
            tokio::select! {
                outcome = &mut future => return Ok(outcome),
                order = self.orders.recv() => match order {
                    None => return Err(wished()),
                    Some(Order::Close(done)) => {
                        done.send(()).ok();
                        return Err(wished());
                    }
                    // Whoever waits sees the queue close without an answer: `Disconnected`.
                    Some(Order::Send(_) | Order::Ask { .. } | Order::Answer { .. } | Order::Subscribe { .. }) => {}
                },
                () = self.table.unpark() => {}
            }
        }
    }

    /// Unregisters, then closes: the broker need not wonder whether this session comes back.
    async fn leave(&mut self, sink: &mut Sink, stream: &mut Stream, done: oneshot::Sender<()>) {
        self.out.extend(self.shared.command("Application", "Unregister", None, &Payload::default()));
        say_goodbye(sink, stream, &mut self.out).await;
        done.send(()).ok();
    }
}

impl Shared {
    /// The answer to a request that nobody here serves: better said at once than found out by a time limit.
    fn unserved(&self, request: &Message) -> Option<tungstenite::Message> {
        let refusal = Refusal::new(ErrorCode::HandlerGone, "the handler stopped before it came to this request");
        let payload = Failure::from(refusal).payload();
        let in_reply_to = request.id();
        let outgoing = Outgoing { in_reply_to, ..Outgoing::new(request.triple(), &self.settings.source, &payload) };
        outgoing.text().ok().map(Into::into)
    }

    /// A command of the broker's, ready to be sent.
    fn command(
        &self,
        topic: &'static str,
        subtopic: &'static str,
        id: Option<&str>,
        data: &Payload,
    ) -> Option<tungstenite::Message> {
        let triple = notice::triple(topic, subtopic);
        let outgoing = Outgoing { id, ..Outgoing::new(&triple, &self.settings.source, data) };
        // Strings and a raw value: nothing that JSON cannot say.
        outgoing.text().ok().map(Into::into)
    }
}

/// Writes all there is and flushes once. Cancel-safe: a message leaves the queue in the moment the sink takes it.
async fn write(sink: &mut Sink, out: &mut VecDeque<tungstenite::Message>) -> Result<(), tungstenite::Error> {
    while !out.is_empty() {
        poll_fn(|context| sink.poll_ready_unpin(context)).await?;
        if let Some(message) = out.pop_front() {
            sink.start_send_unpin(message)?;
        }
    }
    sink.flush().await
}

/// Writes what is left, closes, and reads on until the broker has closed too: a socket that is dropped with unread
/// bytes resets the connection, and the reset may overtake what was written.
async fn say_goodbye(sink: &mut Sink, stream: &mut Stream, out: &mut VecDeque<tungstenite::Message>) {
    let goodbye = async {
        if write(sink, out).await.is_ok() && sink.close().await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    timeout(GOODBYE_MAX, goodbye).await.ok();
}

/// Whether trying again is hopeless until a person has changed something.
fn is_final(since_lost: Duration, error: &Error) -> bool {
    match error {
        Error::Invalid(_) => true,
        Error::Closed { code, .. } => matches!(code, Some(4401 | 4403 | 4409)),
        Error::Refused(failure) => match failure.code() {
            Some(ErrorCode::SourceInUse) => since_lost > OWN_GHOST,
            // It stands in place of UNAUTHENTICATED: a good token always passes.
            Some(ErrorCode::RateLimited) | None => true,
            Some(code) => !code.retryable(),
        },
        Error::Unreachable { .. }
        | Error::Handshake { .. }
        | Error::TimedOut(_)
        | Error::Disconnected
        | Error::Protocol(_) => false,
    }
}

/// Full-jitter exponential backoff: any time between nothing and a ceiling that doubles. Clients that were
/// disconnected together do not come back together.
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    fn next(&mut self) -> Duration {
        let ceiling = self.first.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(rand::random_range(0.0..=1.0))
    }

    fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// The deadlines of a connection.
struct Pace {
    /// When something was last heard, or could not be because nothing was read.
    heard: Instant,
    silence_max: Duration,
    /// Since when something waits to be written.
    writing: Option<Instant>,
    /// By when everything has to be subscribed to again.
    complete_by: Option<Instant>,
}

impl Pace {
    fn new(now: Instant, heartbeat: Duration, command_max: Duration) -> Self {
        // The broker pings once a heartbeat: three that are missing are no coincidence.
        Self { heard: now, silence_max: heartbeat * 3, writing: None, complete_by: Some(now + command_max) }
    }

    fn note(&mut self, now: Instant, may_read: bool, has_output: bool) {
        if !may_read {
            self.heard = now;
        }
        if has_output && self.writing.is_none() {
            self.writing = Some(now);
        }
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    fn written(&mut self) {
        self.writing = None;
    }

    fn complete(&mut self) {
        self.complete_by = None;
    }

    fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    fn deadline(&self) -> Instant {
        let silence = self.heard + self.silence_max;
        let writing = self.writing.map(|since| since + WRITE_MAX);
        [writing, self.complete_by].into_iter().flatten().fold(silence, Instant::min)
    }
}
