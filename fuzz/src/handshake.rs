//! Target `handshake`: the bytes that a peer sends after it connected.

use super::broker::ask;

/// Returns the status of the first response. A head that is cut short is ended by a blank line.
pub fn handshake(bytes: &[u8]) -> String {
    let (_, received) = ask(&[bytes, b"\r\n\r\n"].concat());
    let status = received.strip_prefix(b"HTTP/1.1 ").or(received.strip_prefix(b"HTTP/1.0 ")).and_then(|it| it.get(..3));
    String::from_utf8_lossy(status.expect("a status line")).into_owned()
}
