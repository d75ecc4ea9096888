//! [`Client`]: a resumable application that counts as docs/protocol.md says.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::Scene;
use crate::support::envelope;

/// A client that has received nothing for this long takes its connection for dead.
const SILENCE: Duration = Duration::from_secs(3);

/// The number of other clients to which each one subscribes.
const HEARD: usize = 5;

/// A client acknowledges after this number of messages.
const ACKNOWLEDGE_EVERY: u64 = 64;

/// The number of events in a flood.
const FLOOD: u64 = 300;

type Socket = WebSocketStream<TcpStream>;

/// One application.
pub(super) struct Client<'s> {
    scene: &'s Scene,
    number: usize,
    rng: StdRng,
    token: Option<String>,
    /// The number of messages of the session that it has received.
    received: u64,
    /// All messages that it means to send in this session, in their order, and how many of them it has sent.
    outgoing: Vec<Outgoing>,
    sent: usize,
    /// Subscriptions that were confirmed.
    subscribed: usize,
    /// The number of the last event from each client to which it subscribes.
    heard: BTreeMap<usize, u64>,
    /// The number of its own last event.
    published: u64,
    last_heard: Instant,
    is_done: bool,
    /// How often its session has continued.
    pub(super) resumed: u64,
}

struct Outgoing {
    text: String,
    is_acknowledgement: bool,
}

impl<'s> Client<'s> {
    pub(super) fn new(scene: &'s Scene, number: usize, rng: StdRng) -> Self {
        let mut client = Self {
            scene,
            number,
            rng,
            token: None,
            received: 0,
            outgoing: Vec::new(),
            sent: 0,
            subscribed: 0,
            heard: (1..=HEARD).map(|step| ((number + step) % scene.clients, 0)).collect(),
            published: 0,
            last_heard: Instant::now(),
            is_done: false,
            resumed: 0,
        };
        for of in client.heard.clone().into_keys() {
            let data = json!({"channel": "Chaos", "topic": format!("c{of}"), "subtopic": "*"});
            client.say("Broker/Subscription/Subscribe", json!({ "data": data }));
        }
        client
    }

    /// Publishes as long as the scene lasts, and returns when every client has received everything.
    pub(super) async fn run(&mut self) {
        while !self.scene.is_over() {
            match self.connect().await {
                Some(mut socket) => self.converse(&mut socket).await,
                None => sleep_until(Instant::now() + Duration::from_millis(20)).await,
            }
        }
    }

    /// Connects and registers, or resumes. `None`: the network did not let it.
    async fn connect(&mut self) -> Option<Socket> {
        let stream = TcpStream::connect(self.scene.proxy).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let url = format!("ws://{}/ws", self.scene.broker);
        let (mut socket, _) = timeout(SILENCE, tokio_tungstenite::client_async(url, stream)).await.ok()?.ok()?;
        let resume = match &self.token {
            Some(token) => json!({"token": token, "received": self.received}),
            None => json!(true),
        };
        let register = json!({"source": format!("client-{}", self.number), "data": {"resume": resume}});
        let register = envelope("Broker/Application/Register", register).to_string();
        timeout(SILENCE, socket.send(Message::text(register))).await.ok()?.ok()?;
        let reply = loop {
            match timeout(SILENCE, socket.next()).await.ok()?? {
                Ok(Message::Text(text)) => break serde_json::from_str::<Value>(&text).unwrap(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        };
        self.registered(&reply["data"]);
        Some(socket)
    }

    fn registered(&mut self, reply: &Value) {
        assert_eq!(reply["Success"], true, "{reply}");
        assert_eq!(reply["Resumed"], self.token.is_some(), "a session continues whatever the network did: {reply}");
        self.token = Some(reply["ResumeToken"].as_str().unwrap().to_owned());
        self.last_heard = Instant::now();
        self.resumed += u64::from(reply["Resumed"] == true);
        // What the broker has not taken in is sent again, but for acknowledgements, which are stale.
        self.sent = usize::try_from(reply["Received"].as_u64().unwrap_or_default()).unwrap();
        let lost = self.outgoing.split_off(self.sent);
        self.outgoing.extend(lost.into_iter().filter(|it| !it.is_acknowledgement));
        self.acknowledge();
    }

    /// Sends and receives until the connection fails, or the scene is over.
    async fn converse(&mut self, socket: &mut Socket) {
        let mut next_tick = Instant::now();
        while !self.scene.is_over() {
            while let Some(next) = self.outgoing.get(self.sent) {
                let message = Message::text(next.text.clone());
                if !matches!(timeout(SILENCE, socket.send(message)).await, Ok(Ok(()))) {
                    return;
                }
                self.sent += 1;
            }
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.receive(&text),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                () = sleep_until(next_tick) => {
                    if self.last_heard.elapsed() > SILENCE {
                        return;
                    }
                    next_tick = Instant::now() + self.tick();
                }
            }
        }
    }

    fn receive(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        self.last_heard = Instant::now();
        if message["subtopic"] == "Replaced" {
            return;
        }
        self.received += 1;
        match message["channel"].as_str() {
            Some("Chaos") => {
                let of: usize = message["topic"].as_str().unwrap().trim_start_matches('c').parse().unwrap();
                let heard = self.heard.get_mut(&of).unwrap();
                assert_eq!(message["data"], *heard + 1, "client {} has received {heard} from {of}", self.number);
                *heard += 1;
            }
            _ => {
                assert_ne!(message["subtopic"], "Error", "{message}");
                if message["topic"] == "Subscription" {
                    assert_eq!(message["data"]["Success"], true, "{message}");
                    self.subscribed += 1;
                    if self.subscribed == HEARD {
                        self.scene.note_ready();
                    }
                }
            }
        }
        if self.received.is_multiple_of(ACKNOWLEDGE_EVERY) {
            self.acknowledge();
        }
    }

    /// Publishes while it is time to. Returns when the next tick is due.
    fn tick(&mut self) -> Duration {
        let publishes = self.scene.publishes();
        if publishes {
            let events = if self.rng.random_ratio(1, 300) { FLOOD } else { 1 };
            for _ in 0..events {
                self.published += 1;
                let data = json!({ "data": self.published });
                self.say(&format!("Chaos/c{}/Tick", self.number), data);
            }
            return Duration::from_millis(self.rng.random_range(5..40));
        }
        // Its answers show that the connection is alive.
        self.say("Broker/Connection/Ping", json!({}));
        if self.scene.is_ready() {
            self.scene.note_published(self.number, self.published);
        }
        if !self.is_done && self.scene.is_everything(&self.heard) {
            self.is_done = true;
            self.scene.note_done();
        }
        Duration::from_millis(200)
    }

    fn say(&mut self, triple: &str, more: Value) {
        self.outgoing.push(Outgoing { text: envelope(triple, more).to_string(), is_acknowledgement: false });
    }

    fn acknowledge(&mut self) {
        let data = json!({"data": {"received": self.received}});
        let text = envelope("Broker/Connection/Acknowledge", data).to_string();
        self.outgoing.push(Outgoing { text, is_acknowledgement: true });
    }
}
