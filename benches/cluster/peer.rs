//! [`Peer`]: a connection that publishes events or receives them, to a broker or to NATS.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::wire;

/// Bytes of the payload.
const PAYLOAD: usize = 200;

pub(crate) struct Peer {
    stream: TcpStream,
    /// The event as it is sent.
    message: Vec<u8>,
    /// What was received and not looked at yet.
    received: Vec<u8>,
    is_nats: bool,
}

impl Peer {
    /// A session of a broker, which has subscribed to all events of the measurement or not.
    pub(crate) fn of_broker(address: &str, source: &str, user: &str, subscribes: bool) -> Self {
        let mut peer = Self::connect(address, false);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        peer.send(request.as_bytes());
        peer.wait_for(|bytes| find(bytes, b"\r\n\r\n").map(|at| at + 4));
        peer.send(&wire::frame(&wire::register(source, user)));
        peer.wait_for_frame(b"\"Success\":true");
        if subscribes {
            peer.send(&wire::frame(&wire::subscribe(["Load", "*", "*"])));
            peer.wait_for_frame(b"\"Success\":true");
        }
        let payload = "x".repeat(PAYLOAD);
        let event = format!(r#"{{"channel":"Load","topic":"Call","subtopic":"Ringing","data":"{payload}"}}"#);
        peer.message = wire::frame(&event);
        peer
    }

    /// A publisher of plain NATS.
    pub(crate) fn of_nats(address: &str) -> Self {
        let mut peer = Self::connect(address, true);
        peer.greet("");
        peer.message = format!("PUB load.call {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD)).into_bytes();
        peer
    }

    /// A subscriber of plain NATS.
    pub(crate) fn of_nats_subscriber(address: &str) -> Self {
        let mut peer = Self::connect(address, true);
        peer.greet("SUB load.* 1\r\n");
        peer
    }

    fn connect(address: &str, is_nats: bool) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, message: Vec::new(), received: Vec::new(), is_nats }
    }

    fn greet(&mut self, more: &str) {
        self.send(format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{more}PING\r\n").as_bytes());
        self.wait_for(|bytes| find(bytes, b"PONG\r\n").map(|at| at + 6));
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Publishes one event.
    pub(crate) fn publish(&mut self) {
        self.stream.write_all(&self.message).unwrap();
    }

    /// Waits for the next event.
    pub(crate) fn receive(&mut self) {
        if !self.is_nats {
            return self.wait_for_frame(b"\"Ringing\"");
        }
        loop {
            let mut is_message = false;
            self.wait_for(|bytes| {
                let head = find(bytes, b"\r\n")?;
                is_message = bytes.starts_with(b"MSG ");
                let end = head + 2 + if is_message { PAYLOAD + 2 } else { 0 };
                (bytes.len() >= end).then_some(end)
            });
            if is_message {
                return;
            }
            self.send(b"PONG\r\n");
        }
    }

    /// Waits for the next frame, which has these bytes.
    fn wait_for_frame(&mut self, wanted: &[u8]) {
        self.wait_for(|bytes| {
            let (start, end) = wire::measure(bytes)?;
            let text = &bytes[start..end];
            assert!(find(text, wanted).is_some(), "{}", String::from_utf8_lossy(text));
            Some(end)
        });
    }

    /// Reads until `whole` gives a length, and drops that many bytes.
    fn wait_for(&mut self, mut whole: impl FnMut(&[u8]) -> Option<usize>) {
        let mut buffer = [0; 16_384];
        loop {
            if let Some(end) = whole(&self.received) {
                self.received.drain(..end);
                return;
            }
            let len = self.stream.read(&mut buffer).unwrap();
            assert!(len > 0, "the server closed a connection");
            self.received.extend_from_slice(&buffer[..len]);
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
