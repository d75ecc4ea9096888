//! A broker that the test plays, for what the real one does not do on demand.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::support::DEADLINE;

/// The listener.
pub(crate) struct FakeBroker {
    listener: TcpListener,
}

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.listener.local_addr().unwrap())
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        let (stream, _) = timeout(DEADLINE, self.listener.accept()).await.expect("nobody connects").unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Returns the next connection, not yet registered.
    pub(crate) async fn connection(&self) -> Peer<TcpStream> {
        Peer::shake_hands(self.tcp().await).await
    }

    /// Returns the next connection, registered, and its Register.
    pub(crate) async fn session(&self) -> (Peer<TcpStream>, Value) {
        let mut peer = self.connection().await;
        let register = peer.register("session-1").await;
        (peer, register)
    }
}

/// The broker's end of a connection.
pub(crate) struct Peer<S> {
    socket: WebSocketStream<S>,
    /// How many subscriptions were granted.
    granted: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn shake_hands(stream: S) -> Self {
        Self { socket: accept_async(stream).await.unwrap(), granted: 0 }
    }

    /// Answers Register, and returns it.
    pub(crate) async fn register(&mut self, session_id: &str) -> Value {
        self.register_with(session_id, json!({})).await
    }

    /// As [`register`](Self::register), with further keys in `data` of the reply.
    pub(crate) async fn register_with(&mut self, session_id: &str, more: Value) -> Value {
        let register = self.next().await;
        assert_eq!(triple(&register), "Broker/Application/Register");
        let mut data = json!({
            "Success": true, "ErrorMessage": null, "SessionId": session_id, "User": "local", "Protocol": 1,
            "Server": "fake/1", "HeartbeatSeconds": 25, "MaxMessageBytes": 2048,
        });
        extend(&mut data, more);
        self.answer(&register, data).await;
        register
    }

    /// Returns the next envelope of the application.
    pub(crate) async fn next(&mut self) -> Value {
        match self.read().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no envelope, but {other:?}"),
        }
    }

    /// Returns the next envelope, which must have this triple.
    pub(crate) async fn expect(&mut self, expected: &str) -> Value {
        let envelope = self.next().await;
        assert_eq!(triple(&envelope), expected, "{envelope}");
        envelope
    }

    /// Returns whether the application closes the WebSocket without sending anything before.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let closed = matches!(self.read().await, Some(Message::Close(_)) | None);
        // The answer to a Close leaves with the next read.
        closed && self.read().await.is_none()
    }

    /// Checks that the application sends nothing for a moment.
    pub(crate) async fn receives_nothing(&mut self) {
        self.receives_nothing_for(Duration::from_millis(50)).await;
    }

    /// Checks that the application sends nothing for this long.
    pub(crate) async fn receives_nothing_for(&mut self, duration: Duration) {
        let heard = timeout(duration, self.socket.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    /// Checks that the application sends nothing for this long but what keeps its session. Pings are answered.
    pub(crate) async fn receives_only_upkeep_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while let Ok(message) = timeout_at(until, self.next()).await {
            match triple(&message).as_str() {
                "Broker/Connection/Ping" => {
                    self.answer(&message, json!({ "Success": true, "ErrorMessage": null })).await;
                }
                other => assert_eq!(other, "Broker/Connection/Acknowledge"),
            }
        }
    }

    /// Returns the code of the application's Close, after its other messages.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.read().await {
                Some(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Some(_) => {}
                None => return None,
            }
        }
    }

    async fn read(&mut self) -> Option<Message> {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.expect("nothing arrives from the application") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                message => return message.transpose().ok().flatten(),
            }
        }
    }

    pub(crate) async fn say(&mut self, envelope: Value) {
        self.say_text(&envelope.to_string()).await;
    }

    /// Sends a text as it is.
    pub(crate) async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn ping(&mut self) {
        self.socket.send(Message::Ping("".into())).await.unwrap();
    }

    /// Answers on the envelope's own triple.
    pub(crate) async fn answer(&mut self, to: &Value, data: Value) {
        self.answer_with(to, data, false).await;
    }

    /// Answers partially.
    pub(crate) async fn answer_partly(&mut self, to: &Value, data: Value) {
        self.answer_with(to, data, true).await;
    }

    async fn answer_with(&mut self, to: &Value, data: Value, more: bool) {
        let mut answer = json!({ "channel": to["channel"], "topic": to["topic"], "subtopic": to["subtopic"] });
        if !to["id"].is_null() {
            answer["inReplyTo"] = to["id"].clone();
        }
        if more {
            answer["more"] = true.into();
        }
        answer["data"] = data;
        self.say(answer).await;
    }

    /// Accepts the next envelope, which must be a subscription, and returns its `data`. The `SubscriptionId`s are 1, 2
    /// and so on.
    pub(crate) async fn grant(&mut self) -> Value {
        self.granted += 1;
        let id = self.granted.to_string();
        self.grant_as(&id).await
    }

    /// As [`grant`](Self::grant), with this `SubscriptionId`.
    pub(crate) async fn grant_as(&mut self, id: &str) -> Value {
        self.grant_with(json!({ "SubscriptionId": id })).await
    }

    /// As [`grant`](Self::grant), with further keys in `data` of the reply.
    pub(crate) async fn grant_with(&mut self, more: Value) -> Value {
        let subscribe = self.expect("Broker/Subscription/Subscribe").await;
        let mut data = json!({ "Success": true, "ErrorMessage": null, "SubscriptionId": "1" });
        extend(&mut data, more);
        self.answer(&subscribe, data).await;
        subscribe["data"].clone()
    }

    pub(crate) async fn close(self, code: u16, reason: &str) {
        self.close_with(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() })).await;
    }

    /// Closes with a Close frame that has neither code nor reason.
    pub(crate) async fn close_without_code(self) {
        self.close_with(None).await;
    }

    async fn close_with(mut self, frame: Option<CloseFrame>) {
        self.socket.close(frame).await.unwrap();
        // Until the application has closed too.
        while let Some(Ok(_)) = timeout(DEADLINE, self.socket.next()).await.unwrap() {}
    }
}

/// The triple of an envelope, as it is written in text.
pub(crate) fn triple(envelope: &Value) -> String {
    let part = |key: &str| envelope[key].as_str().unwrap_or("?").to_owned();
    format!("{}/{}/{}", part("channel"), part("topic"), part("subtopic"))
}

/// An event as the broker delivers it.
pub(crate) fn event(written: &str, data: impl Into<Value>) -> Value {
    let parts: Vec<_> = written.split('/').collect();
    json!({ "channel": parts[0], "topic": parts[1], "subtopic": parts[2], "source": "other", "data": data.into() })
}

/// A request as the broker delivers it.
pub(crate) fn request(written: &str, id: &str, data: impl Into<Value>) -> Value {
    let mut request = event(written, data);
    request["id"] = id.into();
    request["timeout"] = 10_000.into();
    request
}

/// Adds the members of an object to another one.
fn extend(data: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("no object: {more}") };
    data.as_object_mut().unwrap().extend(more);
}
