//! [`Reader`]: the bytes of a connection in, messages out (RFC 6455, section 5, the server's side). It uses no stream.
//!
//! tungstenite's codec is not used, for four reasons. It never frees the largest message's buffer (1 MiB each for ten
//! thousand idle sessions), it takes no more from a syscall than that buffer's size at rest, it looks at the limit of a
//! fragmented message only after the fragment has arrived, and each message is counted bytes of its own. Here a fault is
//! found on the header, memory grows with the bytes that have arrived and not with those announced, nothing is held at rest,
//! and a message is read where it lies.

use std::mem;
use std::ops::Range;

use tokio_tungstenite::tungstenite::protocol::frame::coding;
use zeroize::Zeroize;

use super::header::{Header, Opcode, parse};
use super::{Fault, Rule};
use crate::wiped::Wiped;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The least that is read to where it stays. What is less lands in the thread's buffer first, together with what follows.
const DIRECT_BYTES_MIN: usize = 32 << 10;

/// What a peer has sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'r> {
    /// A text message, whole.
    Text(&'r str),
    /// A binary message. What it held is of no interest.
    Binary,
    /// A ping, to be answered with its payload.
    Ping(&'r [u8]),
    /// A pong.
    Pong,
    /// A fragment, with more of its message to come.
    Part,
    /// A Close frame, with its status code if it has one.
    Close(Option<u16>),
}

/// Reads frames.
pub(super) struct Reader {
    /// What has arrived; up to `from` it is decoded.
    ahead: Vec<u8>,
    from: usize,
    /// The header of the frame that begins at `from`, once it is there; it is decoded then.
    header: Option<Header>,
    /// A message that came in fragments.
    fragments: Option<Fragments>,
    message_bytes_max: usize,
}

struct Fragments {
    /// Of the first one.
    opcode: Opcode,
    /// Wiped when dropped: fragments are rare, and nobody knows yet whether they have a secret.
    bytes: Wiped,
    /// It was handed out: to be let go of.
    is_whole: bool,
}

/// A frame that has arrived as a whole.
enum Whole {
    /// In one frame, with its payload at this place of `ahead`.
    Frame(Opcode, Range<usize>),
    Fragments,
    /// Not a message yet, but a frame of one: each counts against the rate, also an empty one.
    Part,
}

impl Reader {
    /// A reader that begins with what was read together with the handshake.
    pub(super) fn new(read_ahead: &[u8], message_bytes_max: usize) -> Self {
        Self { ahead: read_ahead.to_vec(), from: 0, header: None, fragments: None, message_bytes_max }
    }

    /// From the next header on, a message may have this number of bytes.
    pub(super) fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Takes bytes that have arrived.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.from > 0 {
            self.ahead.drain(..mem::take(&mut self.from));
        }
        self.ahead.extend_from_slice(bytes);
    }

    /// Where the rest of a frame may be read to without a copy, if so much is missing that it pays; a part of it at a time.
    /// What else comes with it may land there too.
    pub(super) fn read_buffer(&mut self) -> Option<&mut Vec<u8>> {
        let missing = self.header?.len.saturating_sub(self.rest().len());
        if missing < DIRECT_BYTES_MIN {
            return None;
        }
        self.ahead.drain(..mem::take(&mut self.from));
        // It doubles with what has arrived: a header that announces much takes little.
        self.ahead.reserve(DIRECT_BYTES_MIN);
        Some(&mut self.ahead)
    }

    /// Whether a frame is there as a whole, or a fault.
    pub(super) fn is_ready(&mut self) -> bool {
        self.header().map_or(true, |header| header.is_some_and(|header| self.rest().len() >= header.len))
    }

    /// The next message, if it is there.
    ///
    /// # Errors
    /// The code to close with. After that the bytes mean nothing any more.
    pub(super) fn next(&mut self) -> Result<Option<Message<'_>>, Fault> {
        match (self.next_whole()?, &self.fragments) {
            (Some(Whole::Frame(opcode, place)), _) => {
                message(opcode, self.ahead.get(place).unwrap_or_default()).map(Some)
            }
            (Some(Whole::Fragments), Some(fragments)) => message(fragments.opcode, &fragments.bytes).map(Some),
            (Some(Whole::Part), _) => Ok(Some(Message::Part)),
            (_, _) => {
                if self.from == self.ahead.len() {
                    (self.ahead, self.from) = (Vec::new(), 0);
                }
                Ok(None)
            }
        }
    }

    /// Wipes what is decoded of the last message. Bytes that are not decoded yet are masked.
    pub(super) fn wipe(&mut self) {
        if let Some(decoded) = self.ahead.get_mut(..self.from) {
            decoded.zeroize();
        }
        self.fragments.take_if(|fragments| fragments.is_whole);
    }

    fn next_whole(&mut self) -> Result<Option<Whole>, Fault> {
        let Some(header) = self.header()? else { return Ok(None) };
        let place = self.from..self.from.saturating_add(header.len);
        let Some(payload) = self.ahead.get_mut(place.clone()) else { return Ok(None) };
        unmask(payload, header.mask);
        (self.header, self.from) = (None, place.end);
        if header.opcode.is_control() || (header.last && self.fragments.is_none()) {
            return Ok(Some(Whole::Frame(header.opcode, place)));
        }
        let first = Fragments { opcode: header.opcode, bytes: Wiped::default(), is_whole: false };
        let fragments = self.fragments.get_or_insert(first);
        let fits = fragments.bytes.push(payload, self.message_bytes_max);
        payload.zeroize();
        if !fits {
            return Err(Fault::TooLarge);
        }
        fragments.is_whole = header.last;
        Ok(Some(if header.last { Whole::Fragments } else { Whole::Part }))
    }

    fn rest(&self) -> &[u8] {
        self.ahead.get(self.from..).unwrap_or_default()
    }

    fn header(&mut self) -> Result<Option<Header>, Fault> {
        self.fragments.take_if(|fragments| fragments.is_whole);
        if self.header.is_none()
            && let Some((header, len)) = parse(self.rest())?
        {
            self.check(&header)?;
            self.header = Some(header);
            self.from += len;
        }
        Ok(self.header)
    }

    /// What a header can do wrong, given what came before.
    fn check(&self, header: &Header) -> Result<(), Fault> {
        if header.opcode.is_control() {
            return match header.last {
                true if header.len <= CONTROL_BYTES_MAX => Ok(()),
                true => Err(Fault::Protocol(Rule::ControlLength)),
                false => Err(Fault::Protocol(Rule::ControlFragment)),
            };
        }
        match (header.opcode == Opcode::Continue, self.fragments.is_some()) {
            (true, false) => {
                return Err(Fault::Protocol(Rule::NothingToContinue));
            }
            (false, true) => {
                return Err(Fault::Protocol(Rule::Incomplete));
            }
            (true, true) | (false, false) => {}
        }
        let before = self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.len());
        let fits = header.len <= self.message_bytes_max.saturating_sub(before);
        if fits { Ok(()) } else { Err(Fault::TooLarge) }
    }
}

/// A whole message, by the opcode that it began with.
fn message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Fault> {
    match opcode {
        Opcode::Text | Opcode::Continue => str::from_utf8(payload).map(Message::Text).map_err(|_| Fault::InvalidUtf8),
        Opcode::Binary => Ok(Message::Binary),
        Opcode::Ping => Ok(Message::Ping(payload)),
        Opcode::Pong => Ok(Message::Pong),
        Opcode::Close => close(payload),
    }
}

fn close(payload: &[u8]) -> Result<Message<'_>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => Ok(Message::Close(None)),
            false => Err(Fault::Protocol(Rule::ClosePayload)),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !is_valid_close_code(code) {
        return Err(Fault::Protocol(Rule::CloseCode));
    }
    str::from_utf8(reason).map_err(|_| Fault::InvalidUtf8)?;
    Ok(Message::Close(Some(code)))
}

/// Whether a peer may send this status code. tungstenite does not know 1014 (bad gateway), which IANA has registered.
fn is_valid_close_code(code: u16) -> bool {
    code == 1014 || coding::CloseCode::from(code).is_allowed()
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

#[cfg(test)]
mod tests;
