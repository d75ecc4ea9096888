//! [`Publisher`]: a connection that publishes an event and waits until it is on disk, in either protocol.

use crate::stream::{Stream, find};
use crate::wire;

/// Bytes of the payload.
const PAYLOAD: usize = 256;

pub(crate) struct Publisher {
    stream: Stream,
    /// The event as it is sent.
    message: Vec<u8>,
    /// Where `JetStream` answers; without it, this is a session of a broker.
    inbox: Option<String>,
}

impl Publisher {
    pub(crate) fn of_switchboard(address: &str) -> Self {
        let stream = Stream::of_broker(address, "durable", "bench");
        let payload = "x".repeat(PAYLOAD);
        let message = wire::frame(&format!(
            r#"{{"channel":"Durable","topic":"Load","subtopic":"Event","id":"1","data":"{payload}"}}"#
        ));
        Self { stream, message, inbox: None }
    }

    pub(crate) fn of_nats(address: &str, number: usize) -> Self {
        let inbox = format!("_INBOX.durable.{number}");
        let stream = Stream::of_nats(address, &format!("SUB {inbox} 1\r\n"));
        let message = format!("PUB durable.load {inbox} {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD)).into_bytes();
        Self { stream, message, inbox: Some(inbox) }
    }

    /// Makes the stream, in a file.
    pub(crate) fn create_stream(&mut self) {
        let stream = r#"{"name":"DURABLE","subjects":["durable.>"],"storage":"file"}"#;
        let inbox = self.inbox.as_deref().unwrap();
        let create = format!("PUB $JS.API.STREAM.CREATE.DURABLE {inbox} {}\r\n{stream}\r\n", stream.len());
        self.stream.send(create.as_bytes());
        self.wait_for_jetstream();
    }

    /// Publishes one event, and waits until it is on disk.
    pub(crate) fn publish(&mut self) {
        self.stream.send(&self.message);
        match self.inbox {
            None => self.stream.wait_for_frame(b"\"Offset\":"),
            Some(_) => self.wait_for_jetstream(),
        }
    }

    fn wait_for_jetstream(&mut self) {
        let answer = self.stream.wait_for_message();
        assert!(find(&answer, b"\"error\"").is_none(), "{}", String::from_utf8_lossy(&answer));
    }
}
