//! [`Refusal`]: an answer with an error status.

use hyper::StatusCode;
use hyper::header::HeaderName;

use crate::telemetry::metrics::RefusedFor;

/// Why a request or a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    Path,
    Method,
    Head,
    Host,
    Origin,
    Query,
    /// A program of another operating-system user.
    OsUser,
    Token,
    Cap,
    AddressCap,
    /// TLS where it is not spoken, or something else where it is.
    Tls,
    Draining,
    /// Not answered at all, because it is far beyond a limit.
    Dropped,
}

impl Reason {
    /// What it is counted as.
    pub(super) fn counted(self) -> RefusedFor {
        match self {
            Self::Path => RefusedFor::Path,
            Self::Method => RefusedFor::Method,
            Self::Head | Self::Token => RefusedFor::Head,
            Self::Host => RefusedFor::Host,
            Self::Origin => RefusedFor::Origin,
            Self::Query => RefusedFor::Query,
            Self::OsUser => RefusedFor::Neighbour,
            Self::Cap | Self::Dropped => RefusedFor::Cap,
            Self::AddressCap => RefusedFor::AddressCap,
            Self::Tls => RefusedFor::Tls,
            Self::Draining => RefusedFor::Draining,
        }
    }

    /// As it is written in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::Head => "head",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Query => "query",
            Self::OsUser => "os_user",
            Self::Token => "token",
            Self::Cap => "cap",
            Self::AddressCap => "address_cap",
            Self::Tls => "tls",
            Self::Draining => "draining",
            Self::Dropped => "dropped",
        }
    }
}

/// An answer with an error status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    /// One line that says why, and names the key.
    pub(super) text: String,
    /// The configuration key that decides.
    pub(super) key: Option<&'static str>,
    pub(super) headers: Vec<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: Reason, text: impl Into<String>) -> Self {
        Self { status, reason, text: text.into(), key: None, headers: Vec::new() }
    }

    pub(super) fn decided_by(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}
