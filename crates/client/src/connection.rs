//! One connection, up to the point where it is registered: dial, WebSocket handshake, `Broker/Application/Register`.
//!
//! Nothing here tries twice; `reconnect` does. Every wait has a bound.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use zeroize::Zeroizing;

use super::{Error, Message, Session};

/// A stream of bytes to a broker.
pub(super) trait Bidirectional: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bidirectional for S {}

/// A stream that is being opened.
pub(super) type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Bidirectional>>> + Send>>;
/// Opens a stream to the broker.
pub(super) type Dial = Arc<dyn Fn() -> Dialling + Send + Sync>;
/// The half of a WebSocket that is written to.
pub(super) type Sink = SplitSink<WebSocketStream<Box<dyn Bidirectional>>, tungstenite::Message>;
/// The half that is read from.
pub(super) type Stream = SplitStream<WebSocketStream<Box<dyn Bidirectional>>>;

/// How long the parts of connecting may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Dialling and the WebSocket handshake, each.
    pub(super) connect: Duration,
    /// Registration.
    pub(super) register: Duration,
    /// The answer to a command.
    pub(super) command: Duration,
}

/// What a connection is made with, now and after each loss.
pub(super) struct Settings {
    pub(super) url: String,
    pub(super) source: String,
    pub(super) token: Option<SecretString>,
    pub(super) user: Option<String>,
    pub(super) echo: bool,
    pub(super) dial: Option<Dial>,
    pub(super) limits: Limits,
}

/// A registered connection.
pub(super) struct Link {
    pub(super) sink: Sink,
    pub(super) stream: Stream,
    pub(super) session: Session,
    /// Messages that came before the answer to Register.
    pub(super) early: Vec<Message>,
}

/// Connects and registers, once.
pub(super) async fn establish(settings: &Settings) -> Result<Link, Error> {
    let address = Address::of(&settings.url)?;
    let bounded = timeout(settings.limits.connect, dial(settings, &address));
    let stream = match bounded.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(address.unreachable(error.kind(), error.to_string())),
        Err(_) => return Err(address.unreachable(io::ErrorKind::TimedOut, "no answer in time".into())),
    };
    let socket = match timeout(settings.limits.connect, shake_hands(&settings.url, stream)).await {
        Ok(socket) => socket.map_err(|error| address.explain(error))?,
        Err(_) => return Err(address.unreachable(io::ErrorKind::TimedOut, "no handshake in time".into())),
    };
    let (sink, stream) = socket.split();
    timeout(settings.limits.register, register(settings, sink, stream))
        .await
        .unwrap_or(Err(Error::TimedOut("the registration")))
}

/// Host and port of a `ws://` URL.
struct Address {
    host: String,
    port: u16,
}

impl Address {
    fn of(url: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Invalid(format!("{what}; a broker's address is like ws://127.0.0.1:7420/ws"));
        let uri: Uri = url.parse().map_err(|_| wrong("the URL cannot be read"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(wrong("wss:// (TLS) is not supported")),
            _ => return Err(wrong("the URL does not begin with ws://")),
        }
        // The user info of a URL would be sent nowhere, and is where people put passwords by mistake.
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("the URL has a user name in it, which the broker does not use"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("the URL names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80) })
    }

    fn unreachable(&self, kind: io::ErrorKind, reason: String) -> Error {
        let Self { host, port } = self;
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Error::Unreachable { address, reason, kind }
    }

    /// Why a handshake failed.
    fn explain(&self, error: tungstenite::Error) -> Error {
        match error {
            tungstenite::Error::Http(response) => {
                let body = response.body().as_deref().unwrap_or_default();
                // One line, as the broker writes it; another server's page is not for a terminal.
                let text = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default());
                let text: String =
                    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
                let text = if text.is_empty() { "no reason given".into() } else { text };
                Error::Handshake { status: response.status().as_u16(), text }
            }
            tungstenite::Error::Io(error) => self.unreachable(error.kind(), error.to_string()),
            error => Error::Protocol(error.to_string()),
        }
    }
}

async fn dial(settings: &Settings, address: &Address) -> io::Result<Box<dyn Bidirectional>> {
    if let Some(dial) = &settings.dial {
        return dial().await;
    }
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

async fn shake_hands(
    url: &str,
    stream: Box<dyn Bidirectional>,
) -> Result<WebSocketStream<Box<dyn Bidirectional>>, tungstenite::Error> {
    // tungstenite takes a read buffer of 128 KiB for each socket unless told otherwise.
    let config = WebSocketConfig::default().read_buffer_size(16 << 10);
    client_async_with_config(url.into_client_request()?, stream, Some(config)).await.map(|(socket, _)| socket)
}

#[derive(Serialize)]
struct Register<'a> {
    channel: &'static str,
    topic: &'static str,
    subtopic: &'static str,
    source: &'a str,
    data: Options<'a>,
}

#[derive(Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    echo: bool,
}

/// What the broker says of a new session.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registered {
    session_id: String,
    user: Option<String>,
    #[serde(default)]
    server: String,
    #[serde(default = "heartbeat_seconds")]
    heartbeat_seconds: u64,
    #[serde(default = "max_message_bytes")]
    max_message_bytes: usize,
}

fn heartbeat_seconds() -> u64 {
    25
}

fn max_message_bytes() -> usize {
    1 << 20
}

async fn register(settings: &Settings, mut sink: Sink, mut stream: Stream) -> Result<Link, Error> {
    sink.send(registration(settings)?).await.map_err(|error| lost(&error))?;
    let mut early = Vec::new();
    loop {
        let message = match stream.next().await {
            Some(Ok(tungstenite::Message::Text(text))) => Message::read(text)?,
            Some(Ok(tungstenite::Message::Close(frame))) => return Err(closed(frame)),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(lost(&error)),
            None => return Err(Error::Disconnected),
        };
        if !message.is_notice("Application", "Register") && !message.is_notice("Message", "Error") {
            early.push(message);
            continue;
        }
        if let Some(failure) = message.failure() {
            return Err(failure.into());
        }
        let registered: Registered =
            message.data().map_err(|_| Error::Protocol("the answer to Register names no session".into()))?;
        let session = Session {
            id: registered.session_id,
            user: registered.user,
            server: registered.server,
            heartbeat: Duration::from_secs(registered.heartbeat_seconds.max(1)),
            message_bytes_max: registered.max_message_bytes,
        };
        return Ok(Link { sink, stream, session, early });
    }
}

/// The registration, in bytes that are zeroised when they have been copied to the socket's buffer.
fn registration(settings: &Settings) -> Result<tungstenite::Message, Error> {
    let register = Register {
        channel: "Broker",
        topic: "Application",
        subtopic: "Register",
        source: &settings.source,
        data: Options {
            token: settings.token.as_ref().map(ExposeSecret::expose_secret),
            user: settings.user.as_deref(),
            echo: settings.echo,
        },
    };
    // With room for all of it: growing would leave a copy of the token in freed memory. JSON may escape every byte.
    let room = 256 + 6 * (settings.source.len() + settings.user.as_deref().map_or(0, str::len));
    let room = room + 6 * settings.token.as_ref().map_or(0, |token| token.expose_secret().len());
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *text, &register)
        .map_err(|_| Error::Invalid("the registration cannot be written as JSON".into()))?;
    let text = Utf8Bytes::try_from(Bytes::from_owner(text))
        .map_err(|_| Error::Invalid("the registration is not UTF-8".into()))?;
    Ok(tungstenite::Message::Text(text))
}

/// A connection that the broker closed.
pub(super) fn closed(frame: Option<tungstenite::protocol::CloseFrame>) -> Error {
    match frame {
        Some(frame) => Error::Closed { code: Some(frame.code.into()), reason: frame.reason.as_str().to_owned() },
        None => Error::Closed { code: None, reason: "the broker closed the connection without a reason".into() },
    }
}

/// A connection that broke.
pub(super) fn lost(error: &tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Error::Disconnected,
        tungstenite::Error::Protocol(fault) => Error::Protocol(fault.to_string()),
        tungstenite::Error::Capacity(fault) => Error::Protocol(fault.to_string()),
        _ => Error::Disconnected,
    }
}
