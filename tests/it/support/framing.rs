//! The framing of the WebSocket protocol (RFC 6455, section 5.2) for tests and benches, which shares no code with the
//! broker.

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

/// Where the payload of the first frame of a server begins, and where the frame ends. `None`: it is not complete.
pub(crate) fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, len) = match *bytes.get(1)? {
        LEN_16 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        LEN_64 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        len => (2, u64::from(len)),
    };
    let end = start + usize::try_from(len).unwrap();
    (bytes.len() >= end).then_some((start, end))
}
