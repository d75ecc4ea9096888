//! Target `frame`: the bytes that a registered application sends over its WebSocket.

use super::broker::{ask, finish};

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const REGISTER: &[u8] = br#"{"channel":"Broker","topic":"Application","subtopic":"Register","source":"fuzz"}"#;

/// Returns the code of the broker's Close frame, `close` for one without a code, or `open` if there is none.
pub fn frame(bytes: &[u8]) -> String {
    let register_len = u8::try_from(REGISTER.len()).expect("a short frame");
    // A mask of zeros changes nothing.
    let register = [&[0x81, 0x80 | register_len, 0, 0, 0, 0], REGISTER].concat();
    let (stream, response) = ask(HANDSHAKE);
    assert!(response.starts_with(b"HTTP/1.1 101 "), "no WebSocket");
    let received = finish(stream, &[&register, bytes].concat());
    let mut rest = received.as_slice();
    while let Some((first, payload, after)) = split_frame(rest) {
        match (first, payload) {
            (0x81 | 0x89 | 0x8A, _) => rest = after,
            (0x88, [high, low, ..]) => return u16::from_be_bytes([*high, *low]).to_string(),
            (0x88, []) => return "close".to_owned(),
            _ => panic!("a server does not send {first:#x}"),
        }
    }
    assert!(rest.is_empty(), "half a frame of {} bytes", rest.len());
    "open".to_owned()
}

/// Splits an unmasked frame off: its first byte, its payload, and the bytes that follow.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, len, rest) = match bytes {
        [first, 126, high, low, rest @ ..] => (*first, usize::from(u16::from_be_bytes([*high, *low])), rest),
        [first, 127, len @ ..] => {
            let (len, rest) = len.split_first_chunk()?;
            (*first, usize::try_from(u64::from_be_bytes(*len)).ok()?, rest)
        }
        [first, len @ ..=125, rest @ ..] => (*first, usize::from(*len), rest),
        _ => return None,
    };
    let (payload, after) = rest.split_at_checked(len)?;
    Some((first, payload, after))
}
