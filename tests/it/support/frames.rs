//! WebSocket frames by hand (RFC 6455, section 5.2), for what a decent client would never send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use super::framing::*;
use super::http::{HANDSHAKE, try_read_response};
use super::{Broker, Conversation, envelope, within};

/// One frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its opcode.
    pub(crate) opcode: u8,
    /// Its payload.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close frame.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        (self.opcode == CLOSE).then_some(code).flatten()
    }

    /// The reason of a Close frame.
    pub(crate) fn close_reason(&self) -> &str {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        std::str::from_utf8(self.payload.get(2..).unwrap_or_default()).unwrap()
    }

    /// The text of a text frame.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// A connection that has shaken hands and then follows no rules.
pub(crate) struct RawSocket {
    stream: TcpStream,
    /// What was read after the last frame.
    incoming: Vec<u8>,
    conversation: Conversation,
}

impl RawSocket {
    /// Connects and upgrades.
    pub(crate) async fn connect(broker: &Broker) -> Self {
        Self::try_connect(broker).await.expect("an upgrade")
    }

    /// Connects. Returns `None` if the broker refuses to upgrade.
    pub(crate) async fn try_connect(broker: &Broker) -> Option<Self> {
        let mut stream = within("a connection", TcpStream::connect(broker.address())).await.unwrap();
        within("sending", stream.write_all(HANDSHAKE.as_bytes())).await.unwrap();
        let response = try_read_response(&mut stream).await?;
        (response.status == 101).then(|| Self {
            stream,
            incoming: Vec::new(),
            conversation: broker.conversation().clone(),
        })
    }

    /// Connects and registers as this source.
    pub(crate) async fn registered(broker: &Broker, source: &str) -> Self {
        let mut socket = Self::connect(broker).await;
        let register =
            format!(r#"{{"channel":"Broker","topic":"Application","subtopic":"Register","source":"{source}"}}"#);
        socket.write(&frame(TEXT, register.as_bytes())).await;
        let reply = socket.read().await.unwrap();
        assert!(reply.text().contains("\"Success\":true"), "{}", reply.text());
        socket
    }

    /// Subscribes as a handler to the pattern written `channel/topic/subtopic`.
    pub(crate) async fn handle(&mut self, pattern: &str) {
        let mut data = envelope(pattern, serde_json::json!({ "role": "handler" }));
        data = envelope("Broker/Subscription/Subscribe", serde_json::json!({ "data": data }));
        self.write(&frame(TEXT, data.to_string().as_bytes())).await;
        let reply = self.read_message().await.unwrap();
        assert!(reply.text().contains("\"Success\":true"), "{}", reply.text());
    }

    /// Writes bytes as they are. An error is not a failure: the broker may have closed already, which a read shows.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        self.conversation.add("raw", '>', &shown);
        within("writing", self.stream.write_all(bytes)).await.ok();
    }

    /// The next frame; `None` where the connection has ended.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        let (start, end) = loop {
            match measure(&self.incoming) {
                Some(frame) => break frame,
                None if within("a frame", self.stream.read_buf(&mut self.incoming)).await.ok()? == 0 => return None,
                None => {}
            }
        };
        let frame: Vec<u8> = self.incoming.drain(..end).collect();
        let payload = frame[start..].to_vec();
        self.conversation.add("raw", '<', &String::from_utf8_lossy(&payload));
        Some(Frame { opcode: frame[0] & 0x0F, payload })
    }

    /// The next frame that is not a ping of the broker.
    pub(crate) async fn read_message(&mut self) -> Option<Frame> {
        loop {
            match self.read().await {
                Some(Frame { opcode: PING, .. }) => {}
                other => return other,
            }
        }
    }

    /// Dies without a word: the connection is reset, as when a process is killed.
    pub(crate) fn kill(self) {
        self.conversation.add("raw", '>', "(dies)");
        self.stream.set_zero_linger().unwrap();
    }

    /// The code of the Close frame that has to come next.
    pub(crate) async fn close_code(&mut self) -> u16 {
        let frame = self.read_message().await.expect("a Close frame before the end of the connection");
        frame.close_code().unwrap_or_else(|| panic!("a Close frame with a code was expected: {frame:?}"))
    }
}
