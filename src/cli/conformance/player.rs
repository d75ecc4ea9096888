//! [`Player`]: the broker's side of one script, over all connections of the client.
//!
//! A script waits for what it judges. What every script needs is in `upkeep`, which sees each message first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Bytes;

use super::peer::{Came, End, Peer, Received};
use super::script::{Failure, Outcome, Script, Suite};
use super::session::{Registration, Session};
use wire::command::{Command, Role};
use wire::{Triple, notice};

/// How long a client is watched that must not return. Its back-off begins with less.
const WATCHED: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct Player {
    pub(super) script: &'static Script,
    arrivals: mpsc::Receiver<Peer>,
    /// How many handshakes are answered with 503 from now on.
    refusals: Arc<AtomicU32>,
    /// How long the client has for a step.
    step: Duration,
    peer: Option<Peer>,
    pub(super) session: Session,
    /// What has arrived and was not asked for yet.
    pub(super) inbox: VecDeque<Received>,
    /// Whether events with an id get a receipt.
    pub(super) receipts: bool,
    /// `MaxMessageBytes` of the next reply to Register.
    pub(super) message_bytes_max: usize,
    /// Further keys for `data` of the replies to Subscribe.
    pub(super) subscribed_more: Value,
}

/// What [`Player::advance`] has seen.
enum Step {
    /// A message, which was answered or put into the inbox.
    Took,
    Pong(Bytes),
    Ended(End),
    TimeOver,
}

impl Player {
    pub(super) fn new(
        script: &'static Script,
        arrivals: mpsc::Receiver<Peer>,
        refusals: Arc<AtomicU32>,
        step: Duration,
    ) -> Self {
        Self {
            script,
            arrivals,
            refusals,
            step,
            peer: None,
            session: Session::default(),
            inbox: VecDeque::new(),
            receipts: true,
            message_bytes_max: 1 << 20,
            subscribed_more: json!({}),
        }
    }

    /// Waits for the first connection, for as long as it takes. The program ends the wait.
    pub(super) async fn arrive(&mut self) {
        self.peer = self.arrivals.recv().await;
    }

    /// Ends the script: the client is told to stop.
    pub(super) async fn leave(&mut self) {
        self.close(4410, "the script is over").await;
    }

    // Connections

    /// Registers the client that has connected, and waits until it has subscribed.
    pub(super) async fn open(&mut self) -> Outcome {
        self.register("a Register as the first message").await?;
        self.accept(json!({})).await;
        self.subscribed().await
    }

    /// Waits for another connection, on which the client registers for a session that begins, and subscribes.
    pub(super) async fn open_again(&mut self, after: &str) -> Outcome {
        let registration = self.register_again(after).await?;
        self.accept(registration.not_resumed("UNKNOWN")).await;
        self.subscribed().await
    }

    /// Waits for another connection and its Register.
    pub(super) async fn register_again(&mut self, after: &str) -> Outcome<Registration> {
        self.connected(&format!("another connection after {after}")).await?;
        self.register(&format!("a Register on the connection after {after}")).await
    }

    /// Waits for another connection. Returns when it was made.
    pub(super) async fn connected(&mut self, expected: &str) -> Outcome<Instant> {
        self.cut();
        match timeout(self.step, self.arrivals.recv()).await {
            Ok(Some(peer)) => Ok(self.peer.insert(peer).since),
            Ok(None) | Err(_) => Err(Failure::new(expected, format!("no connection within {:?}", self.step))),
        }
    }

    /// Returns the time of the next connection before a moment, if there is one.
    pub(super) async fn connected_before(&mut self, until: Instant) -> Option<Instant> {
        let peer = tokio::time::timeout_at(until, self.arrivals.recv()).await.ok().flatten()?;
        Some(self.peer.insert(peer).since)
    }

    /// Watches that the client does not return.
    pub(super) async fn stays_away(&mut self, after: &str) -> Outcome {
        match self.connected_before(Instant::now() + WATCHED).await {
            None => Ok(()),
            Some(_) => Err(Failure::new(format!("no connection after {after}"), "another connection")),
        }
    }

    /// Answers the next handshakes with 503.
    pub(super) fn refuse(&self, handshakes: u32) {
        self.refusals.store(handshakes, Ordering::Relaxed);
    }

    /// How many of them are left.
    pub(super) fn refusals_left(&self) -> u32 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self, code: u16, reason: &'static str) {
        if let Some(peer) = self.peer.take() {
            peer.close(Some(code), reason).await;
        }
    }

    /// Closes the connection with a Close frame that has no code.
    pub(super) async fn close_without_code(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.close(None, "").await;
        }
    }

    /// Ends the connection without a Close frame.
    pub(super) fn cut(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.cut();
        }
    }

    // Registering

    /// Waits for Register. A client may send pings before.
    pub(super) async fn register(&mut self, expected: &str) -> Outcome<Registration> {
        let until = Instant::now() + self.step;
        loop {
            let came = match &mut self.peer {
                Some(peer) => peer.next(until).await?,
                None => Came::Ended(End::Lost),
            };
            match came {
                Came::Message(Received { command: Some(Command::Ping), fields, triple, .. }) => {
                    let id = fields.get("id").and_then(Value::as_str);
                    self.send_uncounted(notice::success(&triple, id, json!({}))).await;
                }
                Came::Message(received) => {
                    let registration =
                        Registration::read(&received).ok_or_else(|| Failure::new(expected, received.describe()))?;
                    self.session.register(&registration)?;
                    return Ok(registration);
                }
                Came::Pong(_) => {}
                Came::Ended(end) => return Err(ended(expected, end)),
                Came::Nothing => return Err(self.nothing(expected)),
            }
        }
    }

    /// Answers Register: a session begins, or goes on if `more` says so.
    pub(super) async fn accept(&mut self, more: Value) {
        let data = self.session.accept(self.message_bytes_max, &more);
        let reply = notice::success(&notice::triple("Application", "Register"), self.session.register_id(), data);
        self.send_uncounted(reply).await;
    }

    /// Answers Register with a refusal.
    pub(super) async fn refuse_register(&mut self, code: wire::ErrorCode, message: &'static str) {
        let refusal = wire::Refusal::new(code, message);
        let triple = notice::triple("Application", "Register");
        self.send_uncounted(notice::failure(&triple, self.session.register_id(), &[], &refusal)).await;
    }

    /// Waits for the subscription that the suite needs.
    pub(super) async fn subscribed(&mut self) -> Outcome {
        let expected = match self.script.suite {
            Suite::Client | Suite::Resume => "a Subscribe for Conformance/Do/*",
            Suite::Handler => "a Subscribe for Conformance/Ask/*, with the role handler",
        };
        let until = Instant::now() + self.step;
        while !self.session.is_subscribed(self.script.suite) {
            match self.advance(until).await? {
                Step::Took | Step::Pong(_) => {}
                Step::Ended(end) => return Err(ended(expected, end)),
                Step::TimeOver => return Err(self.nothing(expected)),
            }
        }
        Ok(())
    }

    // Messages

    /// Sends a message of the session, which both sides count.
    pub(super) async fn send(&mut self, text: String) {
        self.session.sent.push(text.clone());
        self.send_uncounted(text).await;
    }

    /// Sends a message that is not counted.
    pub(super) async fn send_uncounted(&mut self, text: String) {
        if let Some(peer) = &mut self.peer {
            peer.send(text).await;
        }
    }

    /// Sends a message of the session in fragments.
    pub(super) async fn send_in_fragments(&mut self, text: String) {
        if let Some(peer) = &mut self.peer {
            peer.send_in_fragments(&text).await;
        }
        self.session.sent.push(text);
    }

    /// Sends the client a ping, and waits for its pong.
    pub(super) async fn ponged(&mut self, payload: &'static [u8]) -> Outcome {
        let expected = "a pong with the payload of the ping";
        if let Some(peer) = &mut self.peer {
            peer.ping(payload).await;
        }
        self.pong(payload, expected).await
    }

    /// Waits for a pong with this payload.
    pub(super) async fn pong(&mut self, payload: &[u8], expected: &str) -> Outcome {
        let until = Instant::now() + self.step;
        loop {
            match self.advance(until).await? {
                Step::Pong(came) if came == payload => return Ok(()),
                Step::Pong(_) => return Err(Failure::new(expected, "a pong with another payload")),
                Step::Took => {}
                Step::Ended(end) => return Err(ended(expected, end)),
                Step::TimeOver => return Err(self.nothing(expected)),
            }
        }
    }

    /// Waits for the next message that is not a command.
    pub(super) async fn next(&mut self, expected: &str) -> Outcome<Received> {
        let until = Instant::now() + self.step;
        loop {
            if let Some(received) = self.inbox.pop_front() {
                return Ok(received);
            }
            match self.advance(until).await? {
                Step::Took | Step::Pong(_) => {}
                Step::Ended(end) => return Err(ended(expected, end)),
                Step::TimeOver => return Err(self.nothing(expected)),
            }
        }
    }

    /// Returns the next message that is not a command, if one arrives in this time.
    pub(super) async fn next_within(&mut self, time: Duration) -> Outcome<Option<Received>> {
        let until = Instant::now() + time;
        while self.inbox.is_empty() {
            match self.advance(until).await? {
                Step::Took | Step::Pong(_) => {}
                Step::Ended(_) | Step::TimeOver => return Ok(None),
            }
        }
        Ok(self.inbox.pop_front())
    }

    /// Waits until the client has acknowledged this many messages, or more.
    pub(super) async fn acknowledged(&mut self, count: usize, time: Duration, expected: &str) -> Outcome {
        let until = Instant::now() + time.min(self.step);
        while self.session.acknowledged < count {
            match self.advance(until).await? {
                Step::Took | Step::Pong(_) => {}
                Step::Ended(end) => return Err(ended(expected, end)),
                Step::TimeOver => {
                    let count = self.session.acknowledged;
                    return Err(Failure::new(expected, format!("{count} messages acknowledged in all")));
                }
            }
        }
        Ok(())
    }

    /// Waits until the connection ends.
    pub(super) async fn ended(&mut self, expected: &str) -> Outcome<End> {
        let until = Instant::now() + self.step;
        loop {
            match self.advance(until).await? {
                Step::Took | Step::Pong(_) => {}
                Step::Ended(end) => return Ok(end),
                Step::TimeOver => return Err(self.nothing(expected)),
            }
        }
    }

    fn nothing(&self, expected: &str) -> Failure {
        Failure::new(expected, format!("nothing within {:?}", self.step))
    }

    /// Takes one message. What is not upkeep goes into the inbox.
    async fn advance(&mut self, until: Instant) -> Outcome<Step> {
        let came = match &mut self.peer {
            Some(peer) => peer.next(until).await?,
            None => Came::Ended(End::Lost),
        };
        match came {
            Came::Message(received) => self.take(received).await.map(|()| Step::Took),
            Came::Pong(payload) => Ok(Step::Pong(payload)),
            Came::Ended(end) => Ok(Step::Ended(end)),
            Came::Nothing => Ok(Step::TimeOver),
        }
    }
}

/// The failure of a client whose connection has ended.
fn ended(expected: &str, end: End) -> Failure {
    let came = match end {
        End::Closed(Some(code)) => format!("the client closed the connection with {code}"),
        End::Closed(None) => "the client closed the connection without a code".to_owned(),
        End::Lost => "the client ended the connection without a Close frame".to_owned(),
    };
    Failure::new(expected, came)
}

/// Adds the members of an object to another one.
pub(super) fn extend(data: &mut Value, more: &Value) {
    if let (Value::Object(data), Value::Object(more)) = (data, more) {
        data.extend(more.clone());
    }
}

/// Returns whether a subscription has the role, and matches the triple.
pub(super) fn serves(role: &Role, suite: Suite) -> Option<Triple<'static>> {
    match (role, suite) {
        (Role::Subscriber, Suite::Client | Suite::Resume) => Some(Triple::new("Conformance", "Do", "Publish")),
        (Role::Handler { .. }, Suite::Handler) => Some(Triple::new("Conformance", "Ask", "Echo")),
        (Role::Subscriber, Suite::Handler) | (Role::Handler { .. }, Suite::Client | Suite::Resume) => None,
    }
}
