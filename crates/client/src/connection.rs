//! One attempt to connect: token, stream, WebSocket handshake, registration. `reconnect` makes further attempts.
//!
//! Every wait has a time limit.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{SplitSink, SplitStream};
use secrecy::SecretString;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::endpoint::{ByteStream, Dial, Endpoint};
use super::register::register;
use super::resume::Resume;
use super::token::Token;
use super::{Error, Message, Session, WhileAway};
use wire::CloseCode;

/// The writing half of a WebSocket.
pub(super) type Sink = SplitSink<WebSocketStream<Box<dyn ByteStream>>, tungstenite::Message>;
/// The reading half of a WebSocket.
pub(super) type Stream = SplitStream<WebSocketStream<Box<dyn ByteStream>>>;

/// The longest line of text that is read from a refused handshake, in bytes.
const REFUSAL_BYTES_MAX: usize = 300;

/// Time limits.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// For the token provider.
    pub(super) token: Duration,
    /// For opening the stream, and again for the WebSocket handshake.
    pub(super) connect: Duration,
    /// For the registration.
    pub(super) register: Duration,
    /// For the reply to a command.
    pub(super) command: Duration,
}

/// The settings of a client, which each of its connections uses.
pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) source: String,
    pub(super) token: Token,
    pub(super) user: Option<String>,
    pub(super) echo: bool,
    pub(super) resume: bool,
    pub(super) recover: bool,
    pub(super) while_away: WhileAway,
    pub(super) dial: Option<Dial>,
    pub(super) limits: Limits,
}

/// A registered connection.
pub(super) struct Link {
    pub(super) sink: Sink,
    pub(super) stream: Stream,
    pub(super) session: Session,
    /// The token of the session, if that is resumable.
    pub(super) resume_token: Option<SecretString>,
    /// If the session continues: how many of its messages the broker has taken.
    pub(super) resumed: Option<u64>,
    /// Messages that arrived before the reply to Register.
    pub(super) early: Vec<Message>,
}

/// Connects and registers, once. The session of `resume` continues, if that is possible.
pub(super) async fn establish(settings: &Settings, resume: &Resume) -> Result<Link, Error> {
    let Settings { endpoint, limits, .. } = settings;
    // Before dialling: the broker gives a new connection 10 s to register, and a provider can take longer.
    let token = settings.token.get(limits.token).await?;
    let late = |what: &str| endpoint.unreachable(std::io::ErrorKind::TimedOut, what.to_owned());
    let opening = timeout(limits.connect, endpoint.open_by(settings.dial.as_ref()));
    let stream = opening.await.unwrap_or_else(|_| Err(late("no connection within the time limit")))?;
    let handshake = timeout(limits.connect, shake_hands(endpoint, stream));
    let socket = handshake.await.unwrap_or_else(|_| Err(late("no handshake within the time limit")))?;
    let (sink, stream) = socket.split();
    timeout(limits.register, register(settings, token.as_ref(), resume, sink, stream))
        .await
        .unwrap_or(Err(Error::TimedOut("the registration")))
}

async fn shake_hands(
    endpoint: &Endpoint,
    stream: Box<dyn ByteStream>,
) -> Result<WebSocketStream<Box<dyn ByteStream>>, Error> {
    // The default of tungstenite is 128 KiB for each socket.
    let config = WebSocketConfig::default().read_buffer_size(16 << 10);
    let shaking =
        async { client_async_with_config(endpoint.handshake_url().into_client_request()?, stream, Some(config)).await };
    shaking.await.map(|(socket, _)| socket).map_err(|error| refused(endpoint, error))
}

/// Returns the error of a WebSocket handshake that failed.
fn refused(endpoint: &Endpoint, error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            // The broker writes one line. The page of another server is not for a terminal.
            let text = String::from_utf8_lossy(body.get(..body.len().min(REFUSAL_BYTES_MAX)).unwrap_or_default());
            let line: String = text.lines().next().unwrap_or_default().chars().filter(|it| !it.is_control()).collect();
            let text = if line.is_empty() { "no reason given".into() } else { line };
            Error::Handshake { status: response.status().as_u16(), text }
        }
        tungstenite::Error::Io(error) => endpoint.unreachable(error.kind(), error.to_string()),
        error => Error::Protocol(error.to_string()),
    }
}

/// Returns the error of a connection that ended with a Close frame.
pub(super) fn closed(frame: Option<CloseFrame>) -> Error {
    let Some(frame) = frame else {
        return Error::Closed { code: None, reason: "the broker gave no reason".into() };
    };
    let code = u16::from(frame.code);
    let reason = match (frame.reason.as_str(), CloseCode::from_code(code)) {
        ("", Some(code)) => code.reason(),
        ("", None) => "no reason given",
        (reason, _) => reason,
    };
    Error::Closed { code: Some(code), reason: reason.to_owned() }
}

/// Returns the error of a connection that ended without a Close frame.
pub(super) fn lost(error: &tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Error::Disconnected,
        tungstenite::Error::Protocol(fault) => Error::Protocol(fault.to_string()),
        tungstenite::Error::Capacity(fault) => Error::Protocol(fault.to_string()),
        _ => Error::Disconnected,
    }
}
