//! [`Peer`]: one WebSocket connection that sends what it is told to and reads only when it is asked to.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use super::{Broker, Conversation, within};

/// Bytes of read buffer a peer: tests hold thousands of them, and the library's default is 128 KiB.
const READ_BUFFER_BYTES: usize = 4096;

/// An envelope of the triple written `channel/topic/subtopic`, with these other fields behind it.
pub(crate) fn envelope(triple: &str, more: Value) -> Value {
    let parts: Vec<&str> = triple.split('/').collect();
    let mut fields = Map::new();
    for (key, part) in ["channel", "topic", "subtopic"].into_iter().zip(&parts) {
        fields.insert(key.to_owned(), Value::from(*part));
    }
    assert_eq!(parts.len(), 3, "a triple has three parts: {triple}");
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    Value::Object(fields)
}

/// A connection to a broker.
pub(crate) struct Peer {
    name: String,
    socket: WebSocketStream<TcpStream>,
    conversation: Conversation,
    /// What was read while waiting for something else.
    inbox: VecDeque<String>,
    made: u64,
    close_reason: String,
}

impl Peer {
    /// Connects, without registering.
    pub(crate) async fn connect(broker: &Broker, name: &str) -> Self {
        Self::connect_with(broker, name, &[]).await
    }

    /// Connects with these headers, without registering.
    pub(crate) async fn connect_with(broker: &Broker, name: &str, headers: &[(&str, String)]) -> Self {
        let stream = within("a connection", TcpStream::connect(broker.address())).await.unwrap();
        // Small messages at once: a test measures the broker, not Nagle's algorithm.
        stream.set_nodelay(true).unwrap();
        let mut request = format!("ws://{}/ws", broker.address()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = within("a handshake", handshake).await.unwrap();
        let conversation = broker.conversation().clone();
        Self {
            name: name.to_owned(),
            socket,
            conversation,
            inbox: VecDeque::new(),
            made: 0,
            close_reason: String::new(),
        }
    }

    /// Registers and gives the reply.
    pub(crate) async fn register(&mut self, source: &str, options: Value) -> Value {
        let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": source, "data": options});
        self.send(register).await;
        self.next().await
    }

    /// Sends one envelope.
    pub(crate) async fn send(&mut self, envelope: Value) {
        self.send_text(&envelope.to_string()).await;
    }

    /// Sends one text message, whatever it says.
    pub(crate) async fn send_text(&mut self, text: &str) {
        self.conversation.add(&self.name, '>', text);
        within("sending", self.socket.send(Message::text(text))).await.unwrap();
    }

    /// Sends one binary message.
    pub(crate) async fn send_binary(&mut self, bytes: &[u8]) {
        self.conversation.add(&self.name, '>', "(binary)");
        within("sending", self.socket.send(Message::binary(bytes.to_vec()))).await.unwrap();
    }

    /// Sends many envelopes and flushes once.
    pub(crate) async fn send_all(&mut self, envelopes: impl IntoIterator<Item = Value>) {
        for envelope in envelopes {
            let text = envelope.to_string();
            self.conversation.add(&self.name, '>', &text);
            within("sending", self.socket.feed(Message::text(text))).await.unwrap();
        }
        within("flushing", self.socket.flush()).await.unwrap();
    }

    /// Sends an event: `data` on the triple.
    pub(crate) async fn publish(&mut self, triple: &str, data: impl Into<Value>) {
        self.send(envelope(triple, json!({ "data": data.into() }))).await;
    }

    /// Sends a request with this id, which marks the answer.
    pub(crate) async fn ask(&mut self, triple: &str, id: &str) {
        self.send(envelope(triple, json!({ "id": id }))).await;
    }

    /// Answers a request that was delivered to this peer, on its own triple, with these other fields.
    pub(crate) async fn reply(&mut self, request: &Value, more: Value) {
        let mut reply = json!({
            "channel": request["channel"], "topic": request["topic"], "subtopic": request["subtopic"],
            "inReplyTo": request["id"],
        });
        if let (Value::Object(reply), Value::Object(more)) = (&mut reply, more) {
            reply.extend(more);
        }
        self.send(reply).await;
    }

    /// Sends a command of the channel `Broker` and gives its reply, which has to be the next message.
    pub(crate) async fn command(&mut self, topic: &str, subtopic: &str, data: Value) -> Value {
        self.made += 1;
        let id = format!("command-{}", self.made);
        self.send(json!({"channel": "Broker", "topic": topic, "subtopic": subtopic, "id": id, "data": data})).await;
        let reply = self.next().await;
        assert_eq!(reply["inReplyTo"], *id, "{}: the next message is not the reply to the command: {reply}", self.name);
        assert_eq!(reply["topic"], topic, "{reply}");
        assert_eq!(reply["subtopic"], subtopic, "{reply}");
        reply
    }

    /// Subscribes to the pattern written `channel/topic/subtopic` and gives the `SubscriptionId`.
    pub(crate) async fn subscribe(&mut self, pattern: &str) -> String {
        self.subscribe_with(pattern, json!({})).await
    }

    /// Subscribes as a handler.
    pub(crate) async fn handle(&mut self, pattern: &str) -> String {
        self.subscribe_with(pattern, json!({"role": "handler"})).await
    }

    /// Subscribes with these options.
    pub(crate) async fn subscribe_with(&mut self, pattern: &str, options: Value) -> String {
        let reply = self.command("Subscription", "Subscribe", envelope(pattern, options)).await;
        assert_eq!(reply["data"]["Success"], true, "{reply}");
        reply["data"]["SubscriptionId"].as_str().expect("a SubscriptionId").to_owned()
    }

    /// Is refused a subscription, and returns the `ErrorCode`.
    pub(crate) async fn subscribe_refused(&mut self, pattern: &str, options: Value) -> String {
        let reply = self.command("Subscription", "Subscribe", envelope(pattern, options)).await;
        assert_eq!(reply["data"]["Success"], false, "{reply}");
        reply["data"]["ErrorCode"].as_str().expect("an ErrorCode").to_owned()
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: not JSON: {error}: {text}", self.name))
    }

    /// The next message, on this triple.
    pub(crate) async fn next_on(&mut self, triple: &str) -> Value {
        let message = self.next().await;
        let found = [&message["channel"], &message["topic"], &message["subtopic"]].map(|it| it.as_str().unwrap_or("-"));
        assert_eq!(found.join("/"), triple, "{}: {message}", self.name);
        message
    }

    /// The next message, which has to be a failure with this code, on this triple.
    pub(crate) async fn next_failure(&mut self, triple: &str, code: &str) -> Value {
        let message = self.next_on(triple).await;
        assert_eq!(message["data"]["Success"], false, "{message}");
        assert_eq!(message["data"]["ErrorCode"], code, "{message}");
        let words = message["data"]["ErrorMessage"].as_str().unwrap_or_default();
        assert!(!words.is_empty(), "an error says what was wrong: {message}");
        message
    }

    /// The next message, which has to be `Broker/Message/Error` with this code.
    pub(crate) async fn next_error(&mut self, code: &str) -> Value {
        self.next_failure("Broker/Message/Error", code).await
    }

    /// The next message, which has to be the receipt for this id; gives `Receivers`.
    pub(crate) async fn next_receipt(&mut self, id: &str) -> u64 {
        let receipt = self.next_on("Broker/Message/Receipt").await;
        assert_eq!(receipt["inReplyTo"], id, "{receipt}");
        assert_eq!(receipt["data"]["Success"], true, "{receipt}");
        assert_eq!(receipt["data"]["ErrorMessage"], Value::Null, "{receipt}");
        receipt["data"]["Receivers"].as_u64().expect("a count")
    }

    /// The next message's text.
    pub(crate) async fn next_text(&mut self) -> String {
        if let Some(text) = self.inbox.pop_front() {
            return text;
        }
        match self.read().await {
            Read::Text(text) => text,
            Read::Closed(code) => panic!("{}: closed with {code:?}, a message was expected", self.name),
        }
    }

    /// Sends envelopes to a broker that may die meanwhile. Returns `false` if it has.
    pub(crate) async fn try_send(&mut self, envelopes: impl IntoIterator<Item = Value>) -> bool {
        for envelope in envelopes {
            if within("sending", self.socket.feed(Message::text(envelope.to_string()))).await.is_err() {
                return false;
            }
        }
        within("flushing", self.socket.flush()).await.is_ok()
    }

    /// The next message; `None` if the connection ended.
    pub(crate) async fn try_next(&mut self) -> Option<Value> {
        match self.inbox.pop_front() {
            Some(text) => serde_json::from_str(&text).ok(),
            None => match self.read().await {
                Read::Text(text) => serde_json::from_str(&text).ok(),
                Read::Closed(_) => None,
            },
        }
    }

    /// Waits until the broker has done everything that this peer sent; what arrives meanwhile is kept for `next`.
    ///
    /// The broker does what a session sends in order, so the answer to a ping tells that what went before is done.
    pub(crate) async fn fence(&mut self) {
        self.made += 1;
        let id = format!("fence-{}", self.made);
        self.send(json!({"channel": "Broker", "topic": "Connection", "subtopic": "Ping", "id": id})).await;
        loop {
            match self.read().await {
                Read::Text(text) => {
                    let value: Value = serde_json::from_str(&text).unwrap();
                    if value["channel"] == "Broker" && value["subtopic"] == "Ping" && value["inReplyTo"] == *id {
                        return;
                    }
                    self.inbox.push_back(text);
                }
                Read::Closed(code) => panic!("{}: closed with {code:?}, an answer to Ping was expected", self.name),
            }
        }
    }

    /// Whether nothing that was read waits for [`Peer::next`]. See [`Peer::fence`].
    pub(crate) fn has_read_all(&self) -> bool {
        self.inbox.is_empty()
    }

    /// The next message, on this triple, which answers the request that was asked with this id.
    pub(crate) async fn next_answer(&mut self, triple: &str, id: &str) -> Value {
        let answer = self.next_on(triple).await;
        assert_eq!(answer["inReplyTo"], id, "{}: {answer}", self.name);
        answer
    }

    /// Nothing has arrived for this peer. What another peer did before has to be done: see [`Peer::fence`].
    pub(crate) async fn expect_nothing(&mut self) {
        self.fence().await;
        assert!(self.inbox.is_empty(), "{}: nothing was expected, got {:?}", self.name, self.inbox);
    }

    /// All that has arrived for this peer. What another peer did before has to be done: see [`Peer::fence`].
    pub(crate) async fn drain_events(&mut self) -> Vec<Value> {
        self.fence().await;
        self.inbox.drain(..).map(|text| serde_json::from_str(&text).unwrap()).collect()
    }

    /// Nothing has arrived for this peer from all that `other` has sent.
    pub(crate) async fn expect_nothing_from(&mut self, other: &mut Self) {
        other.fence().await;
        self.expect_nothing().await;
    }

    /// The broker closes the connection; gives what came before and the code.
    pub(crate) async fn until_closed(&mut self) -> (Vec<Value>, u16) {
        let mut texts: Vec<String> = self.inbox.drain(..).collect();
        loop {
            match self.read().await {
                Read::Text(text) => texts.push(text),
                Read::Closed(Some(code)) => {
                    return (texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect(), code);
                }
                Read::Closed(None) => panic!("{}: the connection ended without a Close frame", self.name),
            }
        }
    }

    /// The next thing is a Close frame; gives its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        let (before, code) = self.until_closed().await;
        assert!(before.is_empty(), "{}: a Close was expected, got first {before:?}", self.name);
        code
    }

    /// The words of the broker's Close frame.
    pub(crate) fn close_reason(&self) -> &str {
        &self.close_reason
    }

    /// Says goodbye as a browser does, and waits for the broker's Close.
    pub(crate) async fn close(mut self) {
        self.conversation.add(&self.name, '>', "(close)");
        within("closing", self.socket.close(None)).await.unwrap();
        while let Read::Text(_) = self.read().await {}
    }

    /// Closes with a status code, as a browser does when its page calls `close`, and waits for the broker's Close.
    pub(crate) async fn close_with(mut self, code: u16) {
        self.conversation.add(&self.name, '>', &format!("(close {code})"));
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        within("closing", self.socket.close(Some(frame))).await.unwrap();
        while let Read::Text(_) = self.read().await {}
    }

    /// Dies without a word: the connection is reset, as when a process is killed.
    pub(crate) fn kill(self) {
        self.conversation.add(&self.name, '>', "(dies)");
        self.socket.get_ref().set_zero_linger().unwrap();
    }

    async fn read(&mut self) -> Read {
        let what = format!("{}: the next message", self.name);
        loop {
            let text = match within(&what, self.socket.next()).await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Binary(_))) => panic!("{}: the broker never sends binary messages", self.name),
                Some(Ok(Message::Close(frame))) => {
                    self.close_reason = frame.as_ref().map(|frame| frame.reason.to_string()).unwrap_or_default();
                    let code = frame.map(|frame| u16::from(frame.code));
                    self.conversation.add(&self.name, '<', &format!("(close {code:?})"));
                    return Read::Closed(code);
                }
                Some(Err(_)) | None => {
                    self.conversation.add(&self.name, '<', "(end)");
                    return Read::Closed(None);
                }
            };
            self.conversation.add(&self.name, '<', &text);
            return Read::Text(text.as_str().to_owned());
        }
    }
}

enum Read {
    Text(String),
    Closed(Option<u16>),
}
