//! Reads an answer that does not end.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::within;

/// Server-Sent Events of a call.
pub(super) struct Events {
    stream: TcpStream,
    read: String,
}

impl Events {
    /// Makes a call with a token, and checks its head.
    pub(super) async fn open(address: SocketAddr, token: &str, path: &str) -> Self {
        Self::try_open(address, token, path).await.unwrap_or_else(|head| panic!("{head}"))
    }

    /// The same, or the head of a refusal.
    pub(super) async fn try_open(address: SocketAddr, token: &str, path: &str) -> Result<Self, String> {
        let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut events = Self { stream, read: String::new() };
        while !events.read.contains("\r\n\r\n") {
            events.read_some().await;
        }
        let (head, rest) = events.read.split_once("\r\n\r\n").unwrap();
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(head.to_owned());
        }
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        events.read = rest.to_owned();
        Ok(events)
    }

    async fn read_some(&mut self) {
        let mut bytes = [0; 4096];
        let read = within("an event", self.stream.read(&mut bytes)).await.unwrap();
        assert!(read > 0, "the answer has ended: {}", self.read);
        self.read.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }

    /// Waits until the broker ends the answer: with an empty chunk.
    pub(super) async fn end(&mut self) {
        while !self.read.ends_with("\r\n0\r\n\r\n") {
            self.read_some().await;
        }
    }

    /// The data of the next event of this kind. Others are skipped.
    pub(super) async fn next(&mut self, kind: &str) -> Value {
        let begin = format!("event: {kind}\ndata: ");
        loop {
            if let Some((_, rest)) = self.read.split_once(&begin)
                && let Some((data, rest)) = rest.split_once("\n\n")
            {
                let data = serde_json::from_str(data).unwrap();
                self.read.drain(..self.read.len() - rest.len());
                return data;
            }
            self.read_some().await;
        }
    }
}
