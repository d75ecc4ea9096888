//! [`Publisher`]: a connection that publishes an event and waits until it is on disk, in either protocol.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::wire;

/// Bytes of the payload.
const PAYLOAD: usize = 256;

pub(crate) struct Publisher {
    stream: TcpStream,
    /// The event as it is sent.
    message: Vec<u8>,
    /// What was received and not looked at yet.
    received: Vec<u8>,
    protocol: Protocol,
    inbox: String,
}

#[derive(Clone, Copy)]
enum Protocol {
    Switchboard,
    Nats,
}

impl Publisher {
    pub(crate) fn of_switchboard(address: &str, number: usize) -> Self {
        let mut publisher = Self::connect(address, Protocol::Switchboard, number);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        publisher.stream.write_all(request.as_bytes()).unwrap();
        publisher.wait_for(|bytes| find(bytes, b"\r\n\r\n").map(|at| at + 4));
        publisher.stream.write_all(&wire::frame(&wire::register("durable", "bench"))).unwrap();
        publisher.wait_for_frame(b"\"Success\":true");
        let payload = "x".repeat(PAYLOAD);
        publisher.message = wire::frame(&format!(
            r#"{{"channel":"Durable","topic":"Load","subtopic":"Event","id":"1","data":"{payload}"}}"#
        ));
        publisher
    }

    pub(crate) fn of_nats(address: &str, number: usize) -> Self {
        let mut publisher = Self::connect(address, Protocol::Nats, number);
        let inbox = &publisher.inbox;
        let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\nPING\r\n");
        publisher.message = format!("PUB durable.load {inbox} {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD)).into_bytes();
        publisher.stream.write_all(hello.as_bytes()).unwrap();
        publisher.wait_for(|bytes| find(bytes, b"PONG\r\n").map(|at| at + 6));
        publisher
    }

    fn connect(address: &str, protocol: Protocol, number: usize) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, message: Vec::new(), received: Vec::new(), protocol, inbox: format!("_INBOX.durable.{number}") }
    }

    /// Makes the stream, in a file.
    pub(crate) fn create_stream(&mut self) {
        let stream = r#"{"name":"DURABLE","subjects":["durable.>"],"storage":"file"}"#;
        let create = format!("PUB $JS.API.STREAM.CREATE.DURABLE {} {}\r\n{stream}\r\n", self.inbox, stream.len());
        self.stream.write_all(create.as_bytes()).unwrap();
        self.wait_for_message();
    }

    /// Publishes one event, and waits until it is on disk.
    pub(crate) fn publish(&mut self) {
        self.stream.write_all(&self.message).unwrap();
        match self.protocol {
            Protocol::Switchboard => self.wait_for_frame(b"\"Offset\":"),
            Protocol::Nats => self.wait_for_message(),
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

    /// Waits for the answer of `JetStream`.
    fn wait_for_message(&mut self) {
        loop {
            let mut is_message = false;
            self.wait_for(|bytes| {
                let head = find(bytes, b"\r\n")?;
                let line = std::str::from_utf8(&bytes[..head]).unwrap();
                let Some(rest) = line.strip_prefix("MSG ") else { return Some(head + 2) };
                let len: usize = rest.rsplit(' ').next().unwrap().parse().unwrap();
                let end = head + 2 + len + 2;
                let answer = bytes.get(head + 2..end)?;
                assert!(find(answer, b"\"error\"").is_none(), "{}", String::from_utf8_lossy(answer));
                is_message = true;
                Some(end)
            });
            if is_message {
                return;
            }
            // Another line is a ping, or the greeting.
            self.stream.write_all(b"PONG\r\n").unwrap();
        }
    }

    /// Reads until `whole` gives a length, and drops that many bytes.
    fn wait_for(&mut self, mut whole: impl FnMut(&[u8]) -> Option<usize>) {
        let mut buffer = [0; 4096];
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
