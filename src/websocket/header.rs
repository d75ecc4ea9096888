//! [`Header`]: the header of a frame (RFC 6455, section 5.2, as a server reads it).

use super::{Fault, Rule};

/// What a frame is for (RFC 6455, section 11.8).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continue,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// Control frames are short, whole, and may come between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame that a client sent.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    /// The last, or only, frame of its message.
    pub(super) last: bool,
    pub(super) mask: [u8; 4],
    /// Bytes of payload.
    pub(super) len: usize,
}

/// Parses a header and its own length, if all of it has arrived.
///
/// # Errors
/// The rule that it breaks. Lengths have to be encoded in the fewest bytes (RFC 6455, section 5.2).
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let opcode = match first & 0x0F {
        0x0 => Opcode::Continue,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xA => Opcode::Pong,
        _ => return Err(Fault::Protocol(Rule::Opcode)),
    };
    if second & 0x80 == 0 {
        return Err(Fault::Protocol(Rule::Mask));
    }
    if first & 0x70 != 0 {
        return Err(Fault::Protocol(Rule::ReservedBit));
    }
    let len_and_rest = match second & 0x7F {
        short @ ..=125 => Some((u64::from(short), rest)),
        126 => rest.split_first_chunk().map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest)),
        _ => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest)),
    };
    let Some((len, rest)) = len_and_rest else { return Ok(None) };
    let is_minimal = match second & 0x7F {
        ..=125 => true,
        126 => len > 125,
        _ => len > u64::from(u16::MAX),
    };
    if !is_minimal {
        return Err(Fault::Protocol(Rule::Length));
    }
    let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let len = usize::try_from(len).map_err(|_| Fault::TooLarge)?;
    Ok(Some((Header { opcode, last: first & 0x80 != 0, mask: *mask, len }, bytes.len() - rest.len())))
}
