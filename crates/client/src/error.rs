//! [`Error`], and [`Failure`]: an answer with `"Success":false`.

use std::fmt;
use std::io;

use serde_json::json;

use super::{Message, Payload};
use wire::{CloseCode, ErrorCode, Refusal};

/// The reason why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is invalid. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// The client could not connect to the broker's address.
    #[error("could not connect to {address}: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The reason, from the system or from TLS.
        reason: String,
        /// Its kind. `InvalidData`: the server's certificate is not trusted, or it does not speak TLS.
        kind: io::ErrorKind,
    },
    /// The server refused the WebSocket handshake.
    #[error("the handshake was refused with HTTP status {status}: {text}")]
    Handshake {
        /// The HTTP status.
        status: u16,
        /// The line of text that gives the reason.
        text: String,
    },
    /// The [token provider](super::Builder::token_provider) failed.
    #[error("no token: {0}")]
    Token(String),
    /// The broker or a handler refused.
    #[error("{0}")]
    Refused(Box<Failure>),
    /// The connection was closed, by the broker or by [`close`](super::Client::close).
    #[error("{}", describe_close(*.code, .reason))]
    Closed {
        /// The code of the broker's Close frame, if there was one.
        code: Option<u16>,
        /// The reason.
        reason: String,
    },
    /// No answer within the time limit.
    #[error("no answer in time to {0}")]
    TimedOut(&'static str),
    /// Not connected, so nothing was sent. The client reconnects by itself.
    #[error("the connection to the broker was lost")]
    Disconnected,
    /// The session ended before the answer arrived. The broker may have received what was sent, or not.
    #[error("the connection to the broker was lost before the answer: it is unknown whether the broker received it")]
    OutcomeUnknown,
    /// The server does not follow the protocol.
    #[error("the broker does not follow the protocol: {0}")]
    Protocol(String),
}

/// Returns the text of a close. `KICKED` is the word that scripts look for after an operator closed the session.
fn describe_close(code: Option<u16>, reason: &str) -> String {
    match code {
        Some(code) if code == CloseCode::Kicked.code() => format!("KICKED: {reason}"),
        Some(code) => format!("the broker closed the connection with {code}: {reason}"),
        None => format!("the connection is closed: {reason}"),
    }
}

impl Error {
    /// The code of a refusal, if it is in the protocol's catalogue.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(failure) => failure.code(),
            _ => None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(failure))
    }
}

/// An answer with `"Success":false`, which a request or a command gets instead of a result. A handler can return one.
///
/// The [`reply`](Self::reply) can hold anything, so it is never printed.
#[derive(Clone)]
pub struct Failure {
    code: String,
    message: String,
    reply: Option<Message>,
}

impl Failure {
    /// Returns a failure for a handler to answer with. The code is one of the catalogue, or the application's own.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), reply: None }
    }

    pub(super) fn from_reply(code: Option<String>, message: Option<String>, reply: Message) -> Self {
        Self { code: code.unwrap_or_default(), message: message.unwrap_or_default(), reply: Some(reply) }
    }

    /// Returns `data` of the answer.
    pub(super) fn payload(&self) -> Payload {
        json!({ "Success": false, "ErrorCode": self.code, "ErrorMessage": self.message }).into()
    }

    /// The code, if it is one of the protocol's catalogue.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.code.parse().ok()
    }

    /// The code as it was written. Empty if the answer had none; the vendor's own handlers send none.
    #[must_use]
    pub fn code_text(&self) -> &str {
        &self.code
    }

    /// What went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The whole answer, with its further keys.
    #[must_use]
    pub fn reply(&self) -> Option<&Message> {
        self.reply.as_ref()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code.as_str(), refusal.message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code.is_empty() { "FAILED" } else { &self.code };
        let message = if self.message.is_empty() { "the answer gives no reason" } else { &self.message };
        write!(f, "{code}: {message}")
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("code", &self.code).field("message", &self.message).finish_non_exhaustive()
    }
}

impl std::error::Error for Failure {}
