//! [`Reader`]: the bytes of a connection in, messages out (RFC 6455, section 5, the server's side). It knows no stream.
//!
//! Headers and codes are parsed by tungstenite; its codec is not used, for three reasons. It keeps the largest message's
//! buffer for good (1 MiB each for ten thousand idle sessions), it takes no more from a syscall than that buffer's size
//! at rest, and it looks at the limit of a fragmented message only after the fragment has come. Here a fault is found on
//! the header, memory grows with the bytes that have come and not with those announced, and nothing is held at rest.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{self, Control, Data, OpCode};

use crate::error::CloseCode;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// What a peer has sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A text message, whole.
    Text(Utf8Bytes),
    /// A binary message. What it held is of no interest.
    Binary,
    /// A ping, to be answered with its payload.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// A Close frame, with its status code if it bore one.
    Close(Option<u16>),
}

/// Reads frames.
pub(super) struct Reader {
    /// What has come and is not decoded.
    ahead: BytesMut,
    /// The header of the frame that stands at the start of `ahead`.
    header: Option<Header>,
    /// The fragments so far of a message that is not whole.
    partial: Option<(Data, BytesMut)>,
    message_bytes_max: usize,
}

#[derive(Clone, Copy)]
struct Header {
    opcode: OpCode,
    last: bool,
    mask: [u8; 4],
    len: usize,
}

impl Reader {
    /// A reader that begins with what was read together with the handshake.
    pub(super) fn new(read_ahead: &[u8], message_bytes_max: usize) -> Self {
        Self { ahead: BytesMut::from(read_ahead), header: None, partial: None, message_bytes_max }
    }

    /// From the next header on, a message may have so many bytes.
    pub(super) fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Takes bytes that have come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.ahead.extend_from_slice(bytes);
    }

    /// The next message, if it is there.
    ///
    /// # Errors
    /// The code to close with. After that the bytes mean nothing any more.
    pub(super) fn next(&mut self) -> Result<Option<Message>, CloseCode> {
        while let Some(header) = self.header()? {
            if self.ahead.len() < header.len {
                return Ok(None);
            }
            self.header = None;
            let mut payload = self.ahead.split_to(header.len);
            unmask(&mut payload, header.mask);
            let message = match header.opcode {
                OpCode::Control(control) => Some(self::control(control, payload.freeze())?),
                OpCode::Data(data) => self.data(data, header.last, payload)?,
            };
            if message.is_some() {
                return Ok(message);
            }
        }
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Ok(None)
    }

    fn header(&mut self) -> Result<Option<Header>, CloseCode> {
        if self.header.is_none() && !self.ahead.is_empty() {
            let mut cursor = Cursor::new(&self.ahead);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)?;
            if let Some((header, len)) = parsed {
                let header_len = usize::try_from(cursor.position()).map_err(|_| CloseCode::Protocol)?;
                self.header = Some(self.check(&header, len)?);
                self.ahead.advance(header_len);
            }
        }
        Ok(self.header)
    }

    /// All that a header can do wrong.
    fn check(&self, header: &FrameHeader, len: u64) -> Result<Header, CloseCode> {
        let Some(mask) = header.mask else { return Err(CloseCode::Protocol) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(CloseCode::Protocol);
        }
        let len = usize::try_from(len).map_err(|_| CloseCode::TooLarge)?;
        match header.opcode {
            OpCode::Control(_) if !header.is_final || len > CONTROL_BYTES_MAX => return Err(CloseCode::Protocol),
            OpCode::Control(_) => {}
            OpCode::Data(data) => {
                if (data == Data::Continue) != self.partial.is_some() {
                    return Err(CloseCode::Protocol);
                }
                let before = self.partial.as_ref().map_or(0, |(_, fragments)| fragments.len());
                if len > self.message_bytes_max.saturating_sub(before) {
                    return Err(CloseCode::TooLarge);
                }
            }
        }
        Ok(Header { opcode: header.opcode, last: header.is_final, mask, len })
    }

    fn data(&mut self, data: Data, last: bool, payload: BytesMut) -> Result<Option<Message>, CloseCode> {
        let (data, whole) = match self.partial.take() {
            Some((data, mut fragments)) => {
                fragments.extend_from_slice(&payload);
                (data, fragments)
            }
            None => (data, payload),
        };
        if !last {
            self.partial = Some((data, whole));
            return Ok(None);
        }
        if data == Data::Binary {
            return Ok(Some(Message::Binary));
        }
        Utf8Bytes::try_from(whole).map(|text| Some(Message::Text(text))).map_err(|_| CloseCode::InvalidUtf8)
    }
}

fn control(control: Control, payload: Bytes) -> Result<Message, CloseCode> {
    match control {
        Control::Ping => Ok(Message::Ping(payload)),
        Control::Pong => Ok(Message::Pong),
        Control::Close => close(&payload),
        Control::Reserved(_) => Err(CloseCode::Protocol),
    }
}

fn close(payload: &[u8]) -> Result<Message, CloseCode> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(Message::Close(None)) } else { Err(CloseCode::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    if !coding::CloseCode::from(code).is_allowed() {
        return Err(CloseCode::Protocol);
    }
    str::from_utf8(reason).map_err(|_| CloseCode::InvalidUtf8)?;
    Ok(Message::Close(Some(code)))
}

/// RFC 6455, section 5.3. In words of eight bytes, which compilers turn into vector instructions.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let long = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ long).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
