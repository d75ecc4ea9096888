//! [`Connection`]: a registered session over a bare WebSocket, read and written many messages at a time. Neither
//! `client`'s nor tungstenite's, whose work a message would be more than the broker's, and be measured for it.

use std::future::Future;
use std::io::Cursor;
use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context as _, bail};
use bytes::{Buf, BufMut, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::cli::Usage;
use switchboard_client::{Error, Failure};

/// What one read may bring; a connection holds it only while there is something in it.
const READ_BYTES: usize = 64 << 10;

/// Masks hide from proxies what a page makes a browser send (RFC 6455, section 10.3). Here is no page, and the broker
/// does the same work for any mask.
const MASK: Option<[u8; 4]> = Some([0; 4]);

/// Whom to measure, and as whom.
#[derive(Default)]
pub(super) struct Target {
    pub(super) url: String,
    host: String,
    port: u16,
    pub(super) source: String,
    pub(super) user: String,
    pub(super) token: Option<SecretString>,
}

impl Target {
    /// The broker at a URL.
    pub(super) fn of(url: &str) -> Result<Self, Usage> {
        let wrong = || Usage::new("the URL cannot be read; a broker's address is like ws://127.0.0.1:7420/ws");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("ws") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { url: url.to_owned(), host, port: uri.port_u16().unwrap_or(80), ..Self::default() })
    }

    /// Where it is.
    pub(super) async fn address(&self) -> anyhow::Result<SocketAddr> {
        lookup_host((self.host.as_str(), self.port)).await?.next().context("the host has no address")
    }
}

/// One registered session.
pub(super) struct Connection {
    stream: TcpStream,
    /// What has come, from the message on that was taken last.
    incoming: BytesMut,
    /// How long that one is.
    taken: usize,
    /// What waits for [`Connection::flush`].
    outgoing: BytesMut,
}

impl Connection {
    /// Connects and registers.
    pub(super) async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| {
            let address = format!("{}:{}", target.host, target.port);
            Error::Unreachable { address, reason: error.to_string(), kind: error.kind() }
        })?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(&target.url, stream).await.context("no WebSocket there")?;
        // A broker says nothing before it is asked something, so nothing was read ahead.
        let stream = socket.into_inner();
        let mut connection = Self { stream, incoming: BytesMut::new(), taken: 0, outgoing: BytesMut::new() };
        let token = target.token.as_ref().map(ExposeSecret::expose_secret);
        let data = json!({ "user": target.user, "token": token });
        connection.command("Application", "Register", &target.source, &data).await?;
        Ok(connection)
    }

    /// Subscribes to one triple of the channel `Bench`, as a subscriber or as a handler.
    pub(super) async fn subscribe(&mut self, target: &Target, topic: &str, role: &str) -> anyhow::Result<()> {
        let data = json!({ "channel": "Bench", "topic": topic, "subtopic": "load", "role": role });
        self.command("Subscription", "Subscribe", &target.source, &data).await
    }

    async fn command(&mut self, topic: &str, subtopic: &str, source: &str, data: &Value) -> anyhow::Result<()> {
        let command =
            json!({ "channel": "Broker", "topic": topic, "subtopic": subtopic, "source": source, "data": data });
        self.feed(&command.to_string())?;
        let answer: Value = loop {
            if let Some(text) = self.take()? {
                break serde_json::from_str(text).context("the answer is no JSON")?;
            }
            self.read().await?;
        };
        let text = |key: &str| answer.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match answer.pointer("/data/Success") {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err(Error::from(Failure::new(text("/data/ErrorCode"), text("/data/ErrorMessage"))).into()),
        }
    }

    /// Puts an envelope behind those that wait for [`Connection::flush`].
    pub(super) fn feed(&mut self, text: &str) -> anyhow::Result<()> {
        self.put(OpCode::Data(Data::Text), text.as_bytes())
    }

    fn put(&mut self, opcode: OpCode, payload: &[u8]) -> anyhow::Result<()> {
        let header = FrameHeader { opcode, mask: MASK, ..FrameHeader::default() };
        header.format(u64::try_from(payload.len())?, &mut (&mut self.outgoing).writer())?;
        self.outgoing.extend_from_slice(payload);
        Ok(())
    }

    /// Sends what waits. Cancel-safe: what is not sent waits on.
    pub(super) async fn flush(&mut self) -> anyhow::Result<()> {
        while self.outgoing.has_remaining() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        Ok(())
    }

    /// Sends what waits, then waits until more has come. Cancel-safe.
    pub(super) async fn read(&mut self) -> anyhow::Result<()> {
        self.flush().await?;
        self.incoming.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.incoming).await? {
            0 => Err(Error::Disconnected.into()),
            _ => Ok(()),
        }
    }

    /// The next envelope that has come. Pings are answered, with what is sent next.
    pub(super) fn take(&mut self) -> anyhow::Result<Option<&str>> {
        loop {
            self.incoming.advance(std::mem::take(&mut self.taken));
            if self.incoming.is_empty() {
                self.incoming = BytesMut::new();
                return Ok(None);
            }
            let mut cursor = Cursor::new(&*self.incoming);
            let Some((header, len)) = FrameHeader::parse(&mut cursor)? else { return Ok(None) };
            let (start, len) = (usize::try_from(cursor.position())?, usize::try_from(len)?);
            if self.incoming.len() < start + len {
                return Ok(None);
            }
            self.taken = start + len;
            match header.opcode {
                OpCode::Data(Data::Text) if header.is_final => {
                    let payload = self.incoming.get(start..start + len).unwrap_or_default();
                    return Ok(Some(std::str::from_utf8(payload)?));
                }
                OpCode::Control(Control::Ping) => {
                    let payload = self.incoming.get(start..start + len).unwrap_or_default().to_vec();
                    self.put(OpCode::Control(Control::Pong), &payload)?;
                }
                OpCode::Control(Control::Pong) => {}
                OpCode::Control(Control::Close) => {
                    let payload = self.incoming.get(start..start + len).unwrap_or_default();
                    bail!("the broker closed the connection: {}", reason(payload))
                }
                _ => bail!("the broker sent a frame that no broker sends"),
            }
        }
    }

    /// Waits for something else, and answers pings meanwhile.
    pub(super) async fn wait<T>(&mut self, other: impl Future<Output = T>) -> anyhow::Result<()> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                _ = &mut other => return Ok(()),
                read = self.read() => read?,
            }
            while self.take()?.is_some() {}
        }
    }
}

/// What a Close frame says (RFC 6455, section 5.5.1).
fn reason(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, words)) => format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(words)),
        None => "it does not say why".to_owned(),
    }
}
