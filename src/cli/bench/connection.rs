//! [`Connection`]: a registered session over a bare WebSocket. Not `client`'s, whose own work would be measured too.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::{TcpStream, lookup_host};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::cli::Usage;
use crate::client::{Error, Failure};

/// What one read may bring; tungstenite would take 128 KiB for each connection.
const READ_BYTES: usize = 16 << 10;

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
    socket: WebSocketStream<TcpStream>,
}

impl Connection {
    /// Connects and registers.
    pub(super) async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| {
            let address = format!("{}:{}", target.host, target.port);
            Error::Unreachable { address, reason: error.to_string(), kind: error.kind() }
        })?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
        let (socket, _) =
            client_async_with_config(&target.url, stream, Some(config)).await.context("no WebSocket there")?;
        let mut connection = Self { socket };
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
        self.send(command.to_string()).await?;
        let answer: Value = serde_json::from_str(&self.next().await?).context("the answer is no JSON")?;
        let text = |key: &str| answer.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match answer.pointer("/data/Success") {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err(Error::from(Failure::new(text("/data/ErrorCode"), text("/data/ErrorMessage"))).into()),
        }
    }

    /// Sends an envelope, and what waits before it.
    pub(super) async fn send(&mut self, text: String) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// Puts an envelope behind those that wait for [`Connection::flush`].
    pub(super) async fn feed(&mut self, text: String) -> anyhow::Result<()> {
        Ok(self.socket.feed(Message::text(text)).await?)
    }

    /// Sends what waits.
    pub(super) async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.socket.flush().await?)
    }

    /// Waits for something else, and answers pings meanwhile.
    pub(super) async fn wait<T>(&mut self, other: impl Future<Output = T>) -> anyhow::Result<()> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                _ = &mut other => return Ok(()),
                text = self.next() => drop(text?),
            }
        }
    }

    /// The next envelope. Cancel-safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<Utf8Bytes> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(Some(frame)))) => {
                    bail!("the broker closed the connection: {} {}", u16::from(frame.code), frame.reason.as_str())
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Error::Disconnected.into()),
            }
        }
    }
}
