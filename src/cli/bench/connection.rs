//! [`Connection`]: a registered session over a bare WebSocket, which reads and writes many messages at a time.
//!
//! `switchboard-client` and tungstenite do more work per message than the broker, so the bench would measure them.

use std::future::Future;
use std::io::Cursor;
use std::pin::pin;

use anyhow::{Context as _, bail};
use bytes::{Buf, BufMut, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::lookup_host;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::process::Process;
use switchboard_client::{ByteStream, Endpoint, Error, Failure};

/// The size of one read. A connection has this buffer only while there is something in it.
const READ_BYTES: usize = 64 << 10;

/// A mask keeps a page from choosing the bytes that a proxy sees (RFC 6455, section 10.3). There is no page here, and the
/// broker does the same work for any mask.
const MASK: Option<[u8; 4]> = Some([0; 4]);

/// The broker to measure, and the sessions that do it.
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) source: String,
    pub(super) user: String,
    pub(super) token: Option<SecretString>,
}

impl Target {
    /// Returns the process of the broker, if it is on this computer.
    pub(super) async fn process(&self) -> Option<Process> {
        #[cfg(unix)]
        if let Some(path) = self.endpoint.socket() {
            let broker = tokio::net::UnixStream::connect(path).await.ok()?.peer_cred().ok()?;
            return Process::of(broker.pid()?.try_into().ok()?);
        }
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        Process::listening_on(lookup_host((host, port)).await.ok()?.next()?)
    }
}

/// One registered session.
pub(super) struct Connection {
    stream: Box<dyn ByteStream>,
    /// The bytes that arrived, from the message on that was taken last.
    incoming: BytesMut,
    /// The length of that message.
    taken: usize,
    /// The bytes that [`Connection::flush`] will send.
    outgoing: BytesMut,
}

impl Connection {
    /// Connects and registers.
    pub(super) async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = target.endpoint.open().await?;
        let (socket, _) = client_async(target.endpoint.handshake_url(), stream).await.map_err(refused)?;
        // The broker sends nothing before Register, so tungstenite has read nothing beyond the handshake.
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
                break serde_json::from_str(text).context("the reply is not JSON")?;
            }
            self.read().await?;
        };
        let text = |key: &str| answer.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match answer.pointer("/data/Success") {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err(Error::from(Failure::new(text("/data/ErrorCode"), text("/data/ErrorMessage"))).into()),
        }
    }

    /// Adds an envelope to those that [`Connection::flush`] will send.
    pub(super) fn feed(&mut self, text: &str) -> anyhow::Result<()> {
        self.put(OpCode::Data(Data::Text), text.as_bytes())
    }

    fn put(&mut self, opcode: OpCode, payload: &[u8]) -> anyhow::Result<()> {
        let header = FrameHeader { opcode, mask: MASK, ..FrameHeader::default() };
        header.format(u64::try_from(payload.len())?, &mut (&mut self.outgoing).writer())?;
        self.outgoing.extend_from_slice(payload);
        Ok(())
    }

    /// How many bytes [`Connection::flush`] will send.
    pub(super) fn outgoing_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends all outgoing bytes. Cancel-safe: bytes that were not sent stay.
    pub(super) async fn flush(&mut self) -> anyhow::Result<()> {
        if !self.outgoing.has_remaining() {
            return Ok(());
        }
        while self.outgoing.has_remaining() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        // TLS keeps what does not fit into the socket.
        Ok(self.stream.flush().await?)
    }

    /// Sends all outgoing bytes, then waits for incoming ones. Cancel-safe.
    pub(super) async fn read(&mut self) -> anyhow::Result<()> {
        self.flush().await?;
        self.incoming.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.incoming).await? {
            0 => Err(Error::Disconnected.into()),
            _ => Ok(()),
        }
    }

    /// Returns the next envelope that has arrived. The answer to a ping is sent with the next flush.
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
                _ => bail!("the broker sent a frame that a broker never sends"),
            }
        }
    }

    /// Awaits another future, and answers pings meanwhile.
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

/// Returns the error of a refused handshake, with the broker's reason.
fn refused(error: tungstenite::Error) -> anyhow::Error {
    let tungstenite::Error::Http(response) = error else {
        return anyhow::Error::new(error).context("the WebSocket handshake failed");
    };
    let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
    let text = body.lines().next().filter(|line| !line.is_empty()).unwrap_or("no reason given").to_owned();
    Error::Handshake { status: response.status().as_u16(), text }.into()
}

/// Returns the code and the reason of a Close frame (RFC 6455, section 5.5.1).
fn reason(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, words)) => format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(words)),
        None => "no reason given".to_owned(),
    }
}
