//! [`Peer`]: one WebSocket of a client. It knows frames and envelopes, but no session.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::script::{Failure, Outcome};
use wire::command::Command;
use wire::{DecodeLimits, Envelope, Triple, decode};

/// How long a client has for its end of a close, and for what was written to reach it.
const CLOSING: Duration = Duration::from_secs(2);

/// What a client did.
pub(super) enum Came {
    /// A message that follows the rules of the envelope.
    Message(Received),
    /// A pong with this payload.
    Pong(Bytes),
    /// The connection has ended, with this code if there was a Close frame that has one.
    Ended(End),
    /// Nothing in time.
    Nothing,
}

/// How a client ended its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a Close frame, and this code.
    Closed(Option<u16>),
    /// Without a Close frame.
    Lost,
}

/// An envelope of the client.
pub(super) struct Received {
    pub(super) triple: Triple<'static>,
    /// The whole envelope.
    pub(super) fields: Value,
    /// On the channel `Broker`: which command.
    pub(super) command: Option<Command>,
    /// The length of the text in bytes.
    pub(super) len: usize,
}

impl Received {
    fn read(text: &str) -> Outcome<Self> {
        let rules = "an envelope that follows the rules of docs/protocol.md#envelope";
        let broken = |code: wire::ErrorCode, message: &str| {
            Failure::new(rules, format!("a message that the broker refuses: {code}")).mend(message)
        };
        let limits = DecodeLimits::default();
        let envelope: Envelope<'_> = decode(text, limits).map_err(|it| broken(it.refusal.code, &it.refusal.message))?;
        let command = match envelope.triple().is_broker() {
            true => Some(Command::read(&envelope).map_err(|it| broken(it.code, &it.message))?),
            false => None,
        };
        // `decode` has found it to be JSON.
        let fields = serde_json::from_str(text).unwrap_or_default();
        Ok(Self { triple: envelope.triple().to_owned(), fields, command, len: text.len() })
    }

    /// Returns a field that is a text.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    /// Returns the payload.
    pub(super) fn payload(&self) -> &Value {
        self.fields.get("data").or_else(|| self.fields.get("message")).unwrap_or(&Value::Null)
    }

    /// Returns what it is in words, without its payload, which can have a token.
    pub(super) fn describe(&self) -> String {
        let mut words = format!("a message on {}", self.triple);
        for field in ["id", "inReplyTo"] {
            if let Some(value) = self.text(field) {
                // Writing to a string cannot fail.
                write!(words, ", {field} {value:.60}").ok();
            }
        }
        words
    }
}

/// The broker's end of a connection.
pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub(super) since: Instant,
}

impl Peer {
    pub(super) fn new(since: Instant, socket: WebSocketStream<TcpStream>) -> Self {
        Self { socket, since }
    }

    /// Returns what the client does next, until a time.
    pub(super) async fn next(&mut self, until: Instant) -> Outcome<Came> {
        loop {
            let Ok(message) = timeout_at(until, self.socket.next()).await else { return Ok(Came::Nothing) };
            return match message {
                Some(Ok(Message::Text(text))) => Received::read(&text).map(Came::Message),
                Some(Ok(Message::Pong(payload))) => Ok(Came::Pong(payload)),
                Some(Ok(Message::Close(frame))) => Ok(Came::Ended(End::Closed(frame.map(|it| it.code.into())))),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Binary(_))) => {
                    Err(Failure::new("text messages", "a binary message").mend("send each envelope as a text message"))
                }
                Some(Err(error)) => fault(&error),
                None => Ok(Came::Ended(End::Lost)),
            };
        }
    }

    /// Sends a text. A connection that has ended shows when it is read.
    pub(super) async fn send(&mut self, text: String) {
        self.write(Message::text(text)).await;
    }

    /// Sends a text in three fragments, with a ping between the first two.
    pub(super) async fn send_in_fragments(&mut self, text: &str) {
        let third = text.len() / 3;
        let (first, rest) = text.split_at(text.floor_char_boundary(third));
        let (second, last) = rest.split_at(rest.floor_char_boundary(third));
        let frame = |part: &str, opcode, is_last| {
            Message::Frame(Frame::message(Bytes::copy_from_slice(part.as_bytes()), OpCode::Data(opcode), is_last))
        };
        self.write(frame(first, Data::Text, false)).await;
        self.ping(b"between").await;
        self.write(frame(second, Data::Continue, false)).await;
        self.write(frame(last, Data::Continue, true)).await;
    }

    pub(super) async fn ping(&mut self, payload: &'static [u8]) {
        self.write(Message::Ping(Bytes::from_static(payload))).await;
    }

    async fn write(&mut self, message: Message) {
        // A peer that has left, or that reads nothing, is noticed by what it should have sent.
        timeout(CLOSING, self.socket.send(message)).await.ok();
    }

    /// Closes the connection, and waits for the client's end of it.
    pub(super) async fn close(mut self, code: Option<u16>, reason: &'static str) {
        let frame = code.map(|code| CloseFrame { code: code.into(), reason: reason.into() });
        let closing = async {
            self.socket.close(frame).await.ok();
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        timeout(CLOSING, closing).await.ok();
    }

    /// Resets the TCP connection, so that the client gets no Close frame.
    pub(super) fn cut(self) {
        self.socket.get_ref().set_zero_linger().ok();
    }
}

/// What an error of the socket says about the client.
fn fault(error: &Error) -> Outcome<Came> {
    let broken = |came: &str, mend: &str| Err(Failure::new("frames that follow RFC 6455", came).mend(mend));
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) | Error::ConnectionClosed => {
            Ok(Came::Ended(End::Lost))
        }
        Error::Protocol(ProtocolError::UnmaskedFrameFromClient) => {
            broken("a frame without a mask", "mask each frame that the client sends (RFC 6455, section 5.3)")
        }
        Error::Utf8(_) => broken("a text that is not UTF-8", "encode each text message in UTF-8"),
        other => broken(&other.to_string(), "use a WebSocket library that follows RFC 6455"),
    }
}
