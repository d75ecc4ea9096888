//! WebSocket frames by hand (RFC 6455, section 5.2), for what a decent client would never send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{HANDSHAKE, try_read_response};
use super::{Broker, Conversation, envelope, within};

/// Opcodes of RFC 6455.
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Length codes that say where the length is: in two bytes, in eight.
const LEN_16: u8 = 0x7E;
const LEN_64: u8 = 0x7F;
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A masked frame with its FIN bit, its header as short as it can be.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(FIN | opcode, true, payload)
}

/// A masked frame without FIN: the first or a middle part of a message.
pub(crate) fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(opcode, true, payload)
}

/// A frame with this first byte.
pub(crate) fn frame_with(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, masked, payload.len() as u64);
    if masked {
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// Only the header of a masked text frame with a payload of `len` bytes.
pub(crate) fn header_of(len: u64) -> Vec<u8> {
    let mut bytes = header(FIN | TEXT, true, len);
    bytes.extend(MASK);
    bytes
}

/// A header up to its mask, its length in the fewest bytes.
fn header(first: u8, masked: bool, len: u64) -> Vec<u8> {
    let mask_bit = if masked { MASKED } else { 0 };
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ ..=125), _) => vec![first, mask_bit | len],
        (_, Ok(len)) => [&[first, mask_bit | LEN_16][..], &len.to_be_bytes()].concat(),
        _ => [&[first, mask_bit | LEN_64][..], &len.to_be_bytes()].concat(),
    }
}

/// The payload of a Close frame.
pub(crate) fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason);
    payload
}

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

    /// The text of a text frame.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// A connection that has shaken hands and then follows no rules.
pub(crate) struct RawSocket {
    stream: TcpStream,
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
        (response.status == 101).then(|| Self { stream, conversation: broker.conversation().clone() })
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
        let mut head = [0; 2];
        within("a frame", self.stream.read_exact(&mut head)).await.ok()?;
        let len = match head[1] {
            LEN_16 => u64::from(self.stream.read_u16().await.ok()?),
            LEN_64 => self.stream.read_u64().await.ok()?,
            len => u64::from(len),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        within("a payload", self.stream.read_exact(&mut payload)).await.ok()?;
        self.conversation.add("raw", '<', &String::from_utf8_lossy(&payload));
        Some(Frame { opcode: head[0] & 0x0F, payload })
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
