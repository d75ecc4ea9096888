//! A client by hand: its commands and its frames.

#[path = "../../tests/it/support/framing.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod framing;

pub(crate) use framing::measure;

/// The request with which a WebSocket begins.
#[allow(dead_code, reason = "other benches connect")]
pub(crate) fn handshake(address: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Registers in open mode.
pub(crate) fn register(source: &str, user: &str) -> String {
    format!(
        r#"{{"channel":"Broker","topic":"Application","subtopic":"Register","source":"{source}","data":{{"user":"{user}"}}}}"#
    )
}

/// Subscribes, `*` being a wildcard.
pub(crate) fn subscribe([channel, topic, subtopic]: [&str; 3]) -> String {
    format!(
        r#"{{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe","data":{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}"}}}}"#
    )
}

/// Subscribes as a handler of requests.
#[allow(dead_code, reason = "most benches have no handlers outside of the broker")]
pub(crate) fn handle([channel, topic, subtopic]: [&str; 3]) -> String {
    format!(
        r#"{{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe","data":{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}","role":"handler"}}}}"#
    )
}

/// A text frame as a client sends it.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    framing::frame(framing::TEXT, text.as_bytes())
}
