//! An application that does what `switchboard conformance` asks, written without any of our clients; or all of it but one
//! thing, its *fault*.

use std::future::pending;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::client::fake_broker::triple;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The first pause before another connection. Each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(100);
const ACKNOWLEDGE_EVERY: u64 = 64;
const ACKNOWLEDGE_AFTER: Duration = Duration::from_secs(5);

/// How a connection ended.
enum End {
    /// By the broker, with this code if there was one, or lost.
    Lost(Option<u16>),
    /// By the application, which does not return.
    Left,
}

/// See the module.
pub(super) struct Application {
    url: String,
    suite: String,
    fault: &'static str,
    proofs: u32,
    pause: Duration,
    drain: Option<Duration>,
    resume_token: Option<String>,
    /// Counted messages of the session, in both directions.
    received: u64,
    acknowledged: u64,
    acknowledge_at: Option<Instant>,
    sent: Vec<String>,
    last_event: Option<String>,
    message_bytes_max: u64,
    /// The id of the request that waits for its answer.
    request: Option<String>,
    /// Requests that it was given and has not answered: those on `Wait`.
    waiting: Vec<String>,
    is_draining: bool,
    position: Option<Value>,
    /// Messages of a replay that are still to come.
    replayed: u64,
}

impl Application {
    /// Connects to a script, and does what it asks until it is told to stop.
    pub(super) async fn play(url: String, fault: &'static str) {
        let suite = url.rsplit('/').nth(1).unwrap().to_owned();
        let mut application = Self {
            url,
            suite,
            fault,
            proofs: 0,
            pause: PAUSE,
            drain: None,
            resume_token: None,
            received: 0,
            acknowledged: 0,
            acknowledge_at: None,
            sent: Vec::new(),
            last_event: None,
            message_bytes_max: 0,
            request: None,
            waiting: Vec::new(),
            is_draining: false,
            position: None,
            replayed: 0,
        };
        while let Some(end) = application.connection().await {
            let End::Lost(code) = end else { return };
            if !application.comes_back(code).await {
                return;
            }
        }
    }

    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }

    /// Waits as the code says. Returns whether the application connects again.
    async fn comes_back(&mut self, code: Option<u16>) -> bool {
        if self.has("stays away") {
            return false;
        }
        let stops = matches!(code, Some(4403 | 4409 | 4410));
        if stops && !self.has("never stops") {
            return false;
        }
        let pause = match (self.drain.take(), self.fault) {
            (_, "does not wait") => Duration::ZERO,
            (Some(drain), _) if code == Some(1012) => drain,
            _ => self.pause,
        };
        self.pause *= 2;
        sleep_until(Instant::now() + pause).await;
        true
    }

    /// Makes one connection. `None`: it gives up.
    async fn connection(&mut self) -> Option<End> {
        let bytes_max = if self.has("small buffer") { 1 << 20 } else { 8 << 20 };
        let config = WebSocketConfig::default().max_message_size(Some(bytes_max)).max_frame_size(Some(bytes_max));
        let mut socket = match connect_async_with_config(self.url.as_str(), Some(config), true).await {
            Ok((socket, _)) => socket,
            Err(Error::Http(_)) if self.has("gives up when busy") => return None,
            Err(_) => return Some(End::Lost(None)),
        };
        self.register(&mut socket).await;
        loop {
            let until = self.acknowledge_at.unwrap_or_else(|| Instant::now() + Duration::from_mins(1));
            match timeout_at(until, socket.next()).await {
                Err(_) => self.acknowledge(&mut socket).await,
                Ok(Some(Ok(Message::Text(text)))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if let Some(end) = self.receive(&mut socket, &message).await {
                        return Some(end);
                    }
                }
                Ok(Some(Ok(Message::Close(frame)))) => {
                    // The answer to the Close leaves with the next read.
                    socket.next().await;
                    return Some(End::Lost(frame.map(|frame| frame.code.into())));
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Some(End::Lost(None)),
            }
        }
    }

    async fn register(&mut self, socket: &mut Socket) {
        if self.has("subscribes first") {
            self.subscribe(socket).await;
        }
        if !self.has("same token") || self.proofs == 0 {
            self.proofs += 1;
        }
        let mut data = json!({ "token": format!("token-{}", self.proofs) });
        if self.suite == "resume" && !self.has("does not resume") {
            let again = self.resume_token.as_ref().map(|it| json!({ "token": it, "received": self.received }));
            data["resume"] = again.unwrap_or(true.into());
        }
        if self.has("forgets a used token") {
            self.resume_token = None;
        }
        let register = json!({ "channel": "Broker", "topic": "Application", "subtopic": "Register",
            "source": "application", "data": data });
        socket.send(Message::text(register.to_string())).await.ok();
    }

    async fn subscribe(&mut self, socket: &mut Socket) {
        let mut data = match self.suite.as_str() {
            "handler" => json!({ "channel": "Conformance", "topic": "Ask", "role": "handler" }),
            _ => json!({ "channel": "Conformance", "topic": "Do" }),
        };
        if self.has("subscribes to events") {
            data["role"] = "subscriber".into();
        }
        if let Some(position) = &self.position
            && !self.has("does not recover")
        {
            data["recover"] = position.clone();
        }
        self.command(socket, "Subscription/Subscribe", Some("subscribe"), data).await;
    }

    /// Sends a message of the session.
    async fn send(&mut self, socket: &mut Socket, message: Value) {
        let text = message.to_string();
        self.sent.push(text.clone());
        socket.send(Message::text(text)).await.ok();
    }

    async fn command(&mut self, socket: &mut Socket, command: &str, id: Option<&str>, data: Value) {
        let (topic, subtopic) = command.split_once('/').unwrap();
        let mut message = json!({ "channel": "Broker", "topic": topic, "subtopic": subtopic, "data": data });
        if let Some(id) = id {
            message["id"] = id.into();
        }
        self.send(socket, message).await;
    }

    async fn publish(&mut self, socket: &mut Socket, subtopic: &str, data: Value) {
        let source = if self.has("another source") { "somebody" } else { "application" };
        let mut event = json!({ "channel": "Conformance", "topic": "Done", "subtopic": subtopic, "source": source,
            "id": format!("event-{}", self.sent.len()), "data": data });
        if self.has("misspells a field") {
            event["InReplyTo"] = "x".into();
        }
        if event.to_string().len() as u64 > self.message_bytes_max && !self.has("checks no size") {
            return;
        }
        match self.fault {
            "floods" => {
                let other = json!({ "channel": "Other", "topic": "T", "subtopic": "S" }).to_string();
                for _ in 0..10_000 {
                    // The script ends before the last one.
                    socket.feed(Message::text(other.clone())).await.ok();
                }
            }
            "sends binary" => socket.send(Message::binary(event.to_string())).await.unwrap(),
            "does not mask" => {
                let MaybeTlsStream::Plain(stream) = socket.get_mut() else { unreachable!("plain") };
                stream.write_all(&[0x81, 2, b'{', b'}']).await.unwrap();
            }
            _ => {}
        }
        self.last_event = Some(event.to_string());
        self.send(socket, event).await;
    }

    async fn receive(&mut self, socket: &mut Socket, message: &Value) -> Option<End> {
        let data = &message["data"];
        let name = triple(message);
        if name == "Broker/Application/Register" {
            return self.registered(socket, data).await;
        }
        if name != "Broker/Connection/Replaced" && self.counts(&name) {
            self.received += 1;
            self.acknowledge_at.get_or_insert(Instant::now() + ACKNOWLEDGE_AFTER);
        }
        if self.replayed > 0 {
            self.replayed -= 1;
            return None;
        }
        let end = match name.as_str() {
            "Broker/Connection/Draining" => {
                self.drain = Some(Duration::from_millis(data["ReconnectAfterMs"].as_u64().unwrap()));
                self.is_draining = true;
                None
            }
            "Broker/Connection/Lagging" if self.has("registers again") => {
                self.register(socket).await;
                None
            }
            "Broker/Subscription/Subscribe" if self.has("stops reading") => pending().await,
            "Broker/Future/Notice" if self.has("knows every notice") => {
                let frame = CloseFrame { code: 4000.into(), reason: "unknown notice".into() };
                socket.close(Some(frame)).await.ok();
                Some(End::Lost(None))
            }
            "Broker/Request/Cancelled" => {
                let id = message["inReplyTo"].as_str().unwrap();
                if !self.has("does one thing at a time") {
                    self.waiting.retain(|it| it != id);
                }
                if self.has("answers what is cancelled") {
                    self.answer(socket, id, json!(0), false).await;
                }
                None
            }
            _ if message["inReplyTo"].is_string() || name.starts_with("Conformance/Ask/") && self.suite == "client" => {
                self.answered(socket, message).await;
                None
            }
            _ if name.starts_with("Conformance/Do/") => self.told(socket, message).await,
            _ if name.starts_with("Conformance/Ask/") => {
                self.asked(socket, message).await;
                None
            }
            _ => None,
        };
        let is_due = self.received - self.acknowledged >= ACKNOWLEDGE_EVERY && !self.has("acknowledges late only");
        if is_due && self.suite == "resume" {
            self.acknowledge(socket).await;
        }
        end
    }

    /// Whether a message is counted.
    fn counts(&self, name: &str) -> bool {
        match self.fault {
            "does not count receipts" => name != "Broker/Message/Receipt",
            "does not count notices" => !name.starts_with("Broker/Connection/"),
            _ => true,
        }
    }

    async fn acknowledge(&mut self, socket: &mut Socket) {
        self.acknowledge_at = None;
        if self.suite == "resume" && !self.has("does not acknowledge") {
            self.acknowledged = self.received;
            self.command(socket, "Connection/Acknowledge", None, json!({ "received": self.received })).await;
        }
    }

    async fn registered(&mut self, socket: &mut Socket, data: &Value) -> Option<End> {
        if data["Success"] == false {
            if self.has("forgets the token when refused") {
                self.resume_token = None;
            }
            return self.has("gives up when refused").then_some(End::Left);
        }
        self.message_bytes_max = data["MaxMessageBytes"].as_u64().unwrap();
        self.resume_token = data["ResumeToken"].as_str().map(str::to_owned);
        if data["Resumed"] == true {
            let taken = usize::try_from(data["Received"].as_u64().unwrap()).unwrap();
            let from = if self.has("sends everything again") { 0 } else { taken };
            for text in &self.sent[from..] {
                socket.send(Message::text(text.clone())).await.ok();
            }
            if self.has("skips what is replayed") {
                self.replayed = data["Replayed"].as_u64().unwrap();
            }
            if self.has("counts each connection") {
                self.received = 0;
            }
            if !self.has("does not acknowledge a resume") {
                self.acknowledge(socket).await;
            }
            if self.has("subscribes after a resume") {
                self.subscribe(socket).await;
            }
            return None;
        }
        self.sent.clear();
        if !self.has("counts on in a new session") {
            self.received = 0;
        }
        self.acknowledged = self.received;
        if self.has("answers in another session") {
            for id in std::mem::take(&mut self.waiting) {
                self.answer(socket, &id, json!(0), false).await;
            }
        }
        self.waiting.clear();
        self.subscribe(socket).await;
        if self.has("repeats")
            && let Some(text) = self.last_event.take()
        {
            socket.send(Message::text(text)).await.ok();
        }
        None
    }

    /// Does what an event asks.
    async fn told(&mut self, socket: &mut Socket, message: &Value) -> Option<End> {
        let mut data = message["data"].clone();
        if message["offset"].is_u64() {
            self.position = Some(json!({ "epoch": message["epoch"], "offset": message["offset"] }));
        }
        match message["subtopic"].as_str().unwrap() {
            "Publish" => {
                if self.has("changes payloads") {
                    data = json!(data.to_string());
                }
                if self.has("reads the first fragment") && data.to_string().len() > 200 {
                    data = json!(data.as_str().unwrap().chars().take(20).collect::<String>());
                }
                self.publish(socket, "Publish", data).await;
            }
            "Request" => {
                let id = format!("request-{}", self.sent.len());
                self.request = Some(id.clone());
                let request = json!({ "channel": "Conformance", "topic": "Ask", "subtopic": "Echo", "id": id,
                    "timeout": 5000, "data": data });
                self.send(socket, request).await;
            }
            "Leave" if self.has("just ends") => return Some(End::Left),
            "Leave" => {
                self.command(socket, "Application/Unregister", Some("leave"), json!({})).await;
                socket.close(Some(CloseFrame { code: 1000.into(), reason: "".into() })).await.ok();
                while let Some(Ok(_)) = socket.next().await {}
                return Some(End::Left);
            }
            _ => {}
        }
        None
    }

    /// Takes an answer.
    async fn answered(&mut self, socket: &mut Socket, message: &Value) {
        let own = self.request.clone();
        let is_mine = match self.fault {
            "knows answers by triple" => triple(message) == "Conformance/Ask/Echo",
            "takes any answer" => message["channel"] == "Conformance" && own.is_some(),
            _ => own.is_some() && message["inReplyTo"].as_str() == own.as_deref(),
        };
        if !is_mine || message["more"] == true && !self.has("takes the first answer") {
            return;
        }
        self.request = None;
        let data = &message["data"];
        let is_failure = data["Success"] == false && !self.has("takes failures for answers");
        let data = if is_failure { json!({ "ErrorCode": data["ErrorCode"] }) } else { data.clone() };
        self.publish(socket, "Request", data).await;
    }

    async fn answer(&mut self, socket: &mut Socket, id: &str, data: Value, more: bool) {
        let mut answer = json!({ "channel": "Conformance", "topic": "Ask", "subtopic": "Echo", "inReplyTo": id,
            "data": data });
        if more {
            answer["more"] = true.into();
        }
        self.send(socket, answer).await;
    }

    /// Answers a request.
    async fn asked(&mut self, socket: &mut Socket, message: &Value) {
        let field = if self.has("answers by requestId") { "requestId" } else { "id" };
        let id = message[field].as_str().unwrap();
        let id = if self.has("mixes requests up") { "r-0" } else { id };
        let is_ignored = self.is_draining && self.has("stops when draining")
            || message["priority"].is_u64() && self.has("knows every field")
            || !self.waiting.is_empty() && self.has("does one thing at a time");
        if is_ignored {
            return;
        }
        let data = message["data"].clone();
        match message["subtopic"].as_str().unwrap() {
            "Fail" => {
                let refusal = match self.fault {
                    "fails in its own words" => json!({ "error": "busy" }),
                    _ => json!({ "Success": false, "ErrorCode": "BUSY", "ErrorMessage": "try again later" }),
                };
                self.answer(socket, id, refusal, false).await;
            }
            "Wait" => self.waiting.push(id.to_owned()),
            subtopic => {
                if subtopic == "Progress" {
                    let more = !self.has("does not say more");
                    self.answer(socket, id, json!("half"), more).await;
                }
                self.answer(socket, id, data.clone(), false).await;
                if self.has("answers twice") {
                    self.answer(socket, id, data, false).await;
                }
            }
        }
    }
}
