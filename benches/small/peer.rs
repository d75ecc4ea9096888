//! [`Peer`]: one connection to a broker, blocking, in either protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use crate::wire;

/// A JSON string of 14 digits: the number of the message.
pub(crate) const PAYLOAD_BYTES: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Switchboard,
    Nats,
}

impl Protocol {
    pub(crate) fn of(label: &str) -> Self {
        if label == "nats" { Self::Nats } else { Self::Switchboard }
    }
}

pub(crate) struct Peer {
    protocol: Protocol,
    stream: TcpStream,
    /// What the server has sent, as frames, and what was in the frames where they hold a stream of their own.
    frames: Vec<u8>,
    text: Vec<u8>,
    subject: String,
}

impl Peer {
    /// Connects, and registers where that is the custom.
    pub(crate) fn connect(protocol: Protocol, url: &str) -> Self {
        let (host, path) =
            url.strip_prefix("ws://").and_then(|rest| rest.split_once('/')).expect("ws://HOST:PORT/PATH");
        let stream = TcpStream::connect(host).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Self { protocol, stream, frames: Vec::new(), text: Vec::new(), subject: String::new() };
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        peer.stream.write_all(request.as_bytes()).unwrap();
        let head = loop {
            peer.read();
            if let Some(end) = find(&peer.frames, b"\r\n\r\n") {
                break end + 4;
            }
        };
        peer.frames.drain(..head);
        match protocol {
            Protocol::Switchboard => peer.command(&wire::register("small", "bench"), b"true"),
            Protocol::Nats => peer.command("CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n", b"PONG\r\n"),
        }
        peer
    }

    pub(crate) fn subscribe(&mut self, subject: &str) {
        match self.protocol {
            Protocol::Switchboard => self.command(&wire::subscribe(["Small", subject, "load"]), b"true"),
            Protocol::Nats => self.command(&format!("SUB Small.{subject}.load 1\r\nPING\r\n"), b"PONG\r\n"),
        }
    }

    /// Sends, and waits for the answer.
    fn command(&mut self, text: &str, answer: &[u8]) {
        self.stream.write_all(&wire::frame(text)).unwrap();
        self.text.clear();
        while find(&self.text, answer).is_none() {
            self.read();
            while let Some((start, whole)) = wire::measure(&self.frames) {
                self.text.extend_from_slice(&self.frames[start..whole]);
                self.frames.drain(..whole);
            }
        }
        self.text.clear();
    }

    pub(crate) fn publishes_on(&mut self, subject: &str) {
        subject.clone_into(&mut self.subject);
    }

    /// Publishes all these numbers at once, a frame each.
    pub(crate) fn publish(&mut self, numbers: Range<u32>) {
        let subject = &self.subject;
        let message = |number: u32| match self.protocol {
            Protocol::Switchboard => wire::frame(&format!(
                r#"{{"channel":"Small","topic":"{subject}","subtopic":"load","data":"{number:014}"}}"#
            )),
            Protocol::Nats => wire::frame(&format!("PUB Small.{subject}.load {PAYLOAD_BYTES}\r\n\"{number:014}\"\r\n")),
        };
        let messages: Vec<u8> = numbers.flat_map(message).collect();
        self.stream.write_all(&messages).unwrap();
    }

    /// Reads these, in this order and nothing else.
    pub(crate) fn expect(&mut self, numbers: Range<u32>) {
        let mut expected = numbers;
        while !expected.is_empty() {
            self.read();
            match self.protocol {
                Protocol::Switchboard => self.take_envelopes(&mut expected),
                Protocol::Nats => self.take_messages(&mut expected),
            }
        }
    }

    fn take_envelopes(&mut self, expected: &mut Range<u32>) {
        let mut at = 0;
        while let Some((start, whole)) = wire::measure(&self.frames[at..]) {
            let envelope = &self.frames[at + start..at + whole];
            let payload = find(envelope, b"\"data\":").expect("an event") + 7;
            check(&envelope[payload..payload + PAYLOAD_BYTES], expected);
            at += whole;
        }
        self.frames.drain(..at);
    }

    /// `MSG subject sid 16\r\n`, the payload, `\r\n`: a frame may end anywhere.
    fn take_messages(&mut self, expected: &mut Range<u32>) {
        let mut at = 0;
        while let Some((start, whole)) = wire::measure(&self.frames[at..]) {
            self.text.extend_from_slice(&self.frames[at + start..at + whole]);
            at += whole;
        }
        self.frames.drain(..at);
        let mut at = 0;
        while let Some(head) = find(&self.text[at..], b"\r\n") {
            if self.text[at..].starts_with(b"PING") {
                self.stream.write_all(&wire::frame("PONG\r\n")).unwrap();
                at += head + 2;
                continue;
            }
            assert!(self.text[at..].starts_with(b"MSG "), "a message");
            let (payload, end) = (at + head + 2, at + head + 2 + PAYLOAD_BYTES + 2);
            if self.text.len() < end {
                break;
            }
            check(&self.text[payload..payload + PAYLOAD_BYTES], expected);
            at = end;
        }
        self.text.drain(..at);
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        let len = self.stream.read(&mut buffer).unwrap();
        assert!(len > 0, "the server closed a connection");
        self.frames.extend_from_slice(&buffer[..len]);
    }
}

fn check(payload: &[u8], expected: &mut Range<u32>) {
    let number = std::str::from_utf8(&payload[1..PAYLOAD_BYTES - 1]).unwrap().parse::<u32>().unwrap();
    assert_eq!(Some(number), expected.next(), "every message once, and in order");
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
