//! What can go wrong for an application: [`Error`], and [`Failure`], an answer that says no.

use std::fmt;
use std::io;

use serde_json::json;

use super::{Message, Payload};
use wire::{ErrorCode, Refusal};

/// Why something asked of the broker did not come about.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's own mistake, found before anything was sent.
    #[error("{0}")]
    Invalid(String),
    /// Nothing that listens was reached.
    #[error("could not connect to {address}: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        reason: String,
        /// Its kind.
        kind: io::ErrorKind,
    },
    /// Something listens, and did not let the WebSocket in.
    #[error("the handshake was refused with HTTP status {status}: {text}")]
    Handshake {
        /// The HTTP status.
        status: u16,
        /// The line of text that says why.
        text: String,
    },
    /// The broker or a handler said no.
    #[error("{0}")]
    Refused(Box<Failure>),
    /// The connection has ended for good: by [`close`](super::Client::close), or because the broker will not have it.
    #[error("the connection is closed: {reason}")]
    Closed {
        /// The code of the broker's Close frame, if there was one.
        code: Option<u16>,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer in time to {0}")]
    TimedOut(&'static str),
    /// There is no connection at present, or it was lost before the answer came; the client is connecting again.
    #[error("the connection to the broker was lost")]
    Disconnected,
    /// The other end does not speak this protocol.
    #[error("the other end breaks the protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// The code of a refusal that is in the protocol's catalogue.
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

/// An answer with `"Success":false`: what a request or command gets in place of a result, and what a handler may give.
///
/// Its words name no payload; a [`reply`](Self::reply) may hold anything and is not printed.
#[derive(Clone)]
pub struct Failure {
    code: String,
    message: String,
    reply: Option<Message>,
}

impl Failure {
    /// A handler's own failure. The code may be one of the catalogue or the application's own.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), reply: None }
    }

    pub(super) fn from_reply(code: Option<String>, message: Option<String>, reply: Message) -> Self {
        Self { code: code.unwrap_or_default(), message: message.unwrap_or_default(), reply: Some(reply) }
    }

    /// `data` of the answer that says so.
    pub(super) fn payload(&self) -> Payload {
        json!({ "Success": false, "ErrorCode": self.code, "ErrorMessage": self.message }).into()
    }

    /// The code, if it is one of the protocol's catalogue.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.code.parse().ok()
    }

    /// The code as it was written; empty where the answer had none, as with handlers written from the vendor's pages.
    #[must_use]
    pub fn code_text(&self) -> &str {
        &self.code
    }

    /// What was wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The whole answer, for keys beside the usual ones.
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
        let message = if self.message.is_empty() { "the answer says no, and not why" } else { &self.message };
        write!(f, "{code}: {message}")
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("code", &self.code).field("message", &self.message).finish_non_exhaustive()
    }
}

impl std::error::Error for Failure {}
