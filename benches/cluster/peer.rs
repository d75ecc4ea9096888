//! [`Peer`]: a connection that publishes events or receives them, to a broker or to NATS.

use crate::stream::Stream;
use crate::wire;

/// Bytes of the payload.
const PAYLOAD: usize = 200;

pub(crate) struct Peer {
    stream: Stream,
    /// The event as it is sent.
    message: Vec<u8>,
    is_nats: bool,
}

impl Peer {
    /// A session of a broker, which has subscribed to all events of the measurement or not.
    pub(crate) fn of_broker(address: &str, source: &str, user: &str, subscribes: bool) -> Self {
        let mut stream = Stream::of_broker(address, source, user);
        if subscribes {
            stream.send(&wire::frame(&wire::subscribe(["Load", "*", "*"])));
            stream.wait_for_frame(b"\"Success\":true");
        }
        Self::on(stream)
    }

    /// A session of a broker that has subscribed, and answers the requests of a triple.
    pub(crate) fn of_handler(address: &str, source: &str, user: &str) -> Self {
        let mut peer = Self::of_broker(address, source, user, true);
        peer.stream.send(&wire::frame(&wire::handle(["Phone", "Call", "Dial"])));
        peer.stream.wait_for_frame(b"\"Success\":true");
        peer
    }

    fn on(stream: Stream) -> Self {
        let payload = "x".repeat(PAYLOAD);
        let event = format!(r#"{{"channel":"Load","topic":"Call","subtopic":"Ringing","data":"{payload}"}}"#);
        Self { stream, message: wire::frame(&event), is_nats: false }
    }

    /// A publisher of plain NATS.
    pub(crate) fn of_nats(address: &str) -> Self {
        let message = format!("PUB load.call {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD)).into_bytes();
        Self { stream: Stream::of_nats(address, ""), message, is_nats: true }
    }

    /// A subscriber of plain NATS.
    pub(crate) fn of_nats_subscriber(address: &str) -> Self {
        Self { stream: Stream::of_nats(address, "SUB load.* 1\r\n"), message: Vec::new(), is_nats: true }
    }

    /// Publishes one event.
    pub(crate) fn publish(&mut self) {
        self.stream.send(&self.message);
    }

    /// Waits for the next event.
    pub(crate) fn receive(&mut self) {
        if self.is_nats {
            self.stream.wait_for_message();
        } else {
            self.stream.wait_for_frame(b"\"Ringing\"");
        }
    }
}
