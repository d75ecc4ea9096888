//! [`Stream`]: a blocking connection to a server, whichever protocol it speaks.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::wire;

pub(crate) struct Stream {
    socket: TcpStream,
    /// What was received and not looked at yet.
    received: Vec<u8>,
}

impl Stream {
    /// A session of a broker.
    pub(crate) fn of_broker(address: &str, source: &str, user: &str) -> Self {
        let mut stream = Self::connect(address);
        stream.send(wire::handshake(address).as_bytes());
        stream.wait_for(|bytes| find(bytes, b"\r\n\r\n").map(|at| at + 4));
        stream.send(&wire::frame(&wire::register(source, user)));
        stream.wait_for_frame(b"\"Success\":true");
        stream
    }

    /// A client of NATS, which also says `more` before it begins.
    pub(crate) fn of_nats(address: &str, more: &str) -> Self {
        let mut stream = Self::connect(address);
        stream.send(format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{more}PING\r\n").as_bytes());
        stream.wait_for(|bytes| find(bytes, b"PONG\r\n").map(|at| at + 6));
        stream
    }

    fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Waits for the next frame, which has these bytes.
    pub(crate) fn wait_for_frame(&mut self, wanted: &[u8]) {
        self.wait_for(|bytes| {
            let (start, end) = wire::measure(bytes)?;
            let text = &bytes[start..end];
            assert!(find(text, wanted).is_some(), "{}", String::from_utf8_lossy(text));
            Some(end)
        });
    }

    /// Waits for the next message of NATS, and returns its payload. Another line is a ping, or the greeting.
    pub(crate) fn wait_for_message(&mut self) -> Vec<u8> {
        loop {
            let mut message = None;
            self.wait_for(|bytes| {
                let head = find(bytes, b"\r\n")?;
                let line = std::str::from_utf8(&bytes[..head]).unwrap();
                let Some(rest) = line.strip_prefix("MSG ") else { return Some(head + 2) };
                let len: usize = rest.rsplit(' ').next().unwrap().parse().unwrap();
                let (start, end) = (head + 2, head + 2 + len);
                message = Some(bytes.get(..end + 2)?[start..end].to_vec());
                Some(end + 2)
            });
            match message {
                Some(payload) => return payload,
                None => self.send(b"PONG\r\n"),
            }
        }
    }

    /// Reads until `whole` gives a length, and drops that many bytes.
    fn wait_for(&mut self, mut whole: impl FnMut(&[u8]) -> Option<usize>) {
        let mut buffer = [0; 16_384];
        loop {
            if let Some(end) = whole(&self.received) {
                self.received.drain(..end);
                return;
            }
            let len = self.socket.read(&mut buffer).unwrap();
            assert!(len > 0, "the server closed a connection");
            self.received.extend_from_slice(&buffer[..len]);
        }
    }
}

/// Where `what` is in `bytes`.
pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
