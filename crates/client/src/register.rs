//! `Broker/Application/Register`: the first exchange on a connection.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};
use zeroize::Zeroizing;

use super::connection::{Link, Settings, Sink, Stream, closed, lost};
use super::resume::Resume;
use super::{Error, Message, Session};

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
    #[serde(skip_serializing_if = "Resume::is_unwanted")]
    resume: &'a Resume,
}

/// Limits the heartbeat that a broker names, because deadlines are computed from it.
const HEARTBEAT_SECONDS_MAX: u64 = 24 * 60 * 60;

/// `data` of the reply.
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
    #[serde(default)]
    resumed: bool,
    resume_token: Option<Box<str>>,
    received: Option<u64>,
    resume_reason: Option<String>,
}

fn heartbeat_seconds() -> u64 {
    25
}

fn max_message_bytes() -> usize {
    1 << 20
}

/// Registers on a new connection.
pub(super) async fn register(
    settings: &Settings,
    token: Option<&SecretString>,
    resume: &Resume,
    mut sink: Sink,
    mut stream: Stream,
) -> Result<Link, Error> {
    sink.send(tungstenite::Message::Text(registration(settings, token, resume)?))
        .await
        .map_err(|error| lost(&error))?;
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
            message.data().map_err(|_| Error::Protocol("the reply to Register has no session".into()))?;
        let session = Session {
            id: registered.session_id,
            user: registered.user,
            server: registered.server,
            heartbeat: Duration::from_secs(registered.heartbeat_seconds.clamp(1, HEARTBEAT_SECONDS_MAX)),
            message_bytes_max: registered.max_message_bytes,
        };
        if let Some(reason) = registered.resume_reason {
            tracing::info!(%reason, "the session does not continue");
        }
        let resume_token = registered.resume_token.map(SecretString::new);
        let resumed = match (registered.resumed, registered.received) {
            (true, None) => return Err(Error::Protocol("the reply to a resume has no Received".into())),
            (true, received) => received,
            (false, _) => None,
        };
        return Ok(Link { sink, stream, session, resume_token, resumed, early });
    }
}

/// Returns the registration, in a buffer that is zeroised once it has been copied to the socket's buffer.
fn registration(settings: &Settings, token: Option<&SecretString>, resume: &Resume) -> Result<Utf8Bytes, Error> {
    let token = token.map(ExposeSecret::expose_secret);
    let register = Register {
        channel: "Broker",
        topic: "Application",
        subtopic: "Register",
        source: &settings.source,
        data: Options { token, user: settings.user.as_deref(), echo: settings.echo, resume },
    };
    let (user, token) = (settings.user.as_deref().unwrap_or_default(), token.unwrap_or_default());
    wiped_text(&register, &[&settings.source, user, token, resume.token()])
}

/// Returns a command with a token, in a buffer that is zeroised when it is dropped. `variable` are the
/// texts in it whose length is not known.
pub(super) fn wiped_text(command: &impl Serialize, variable: &[&str]) -> Result<Utf8Bytes, Error> {
    // Of the final size, because growing would leave a copy of the token in freed memory. JSON escapes a byte by at
    // most six.
    let size = 256 + 6 * variable.iter().map(|text| text.len()).sum::<usize>();
    let mut text = Zeroizing::new(Vec::with_capacity(size));
    serde_json::to_writer(&mut *text, command)
        .map_err(|_| Error::Invalid("the command cannot be written as JSON".into()))?;
    Utf8Bytes::try_from(Bytes::from_owner(text)).map_err(|_| Error::Invalid("the command is not UTF-8".into()))
}
