//! [`CallClaim`]: what a call over HTTP says of itself. Its source follows from its token, or is named by its envelope.

use std::future::Future;
use std::pin::Pin;

use secrecy::SecretString;

use super::{AuthError, Identity};

/// A call over HTTP that is to be proved. Its token does not print.
#[derive(Clone, Debug)]
pub struct CallClaim {
    /// What is to prove it.
    pub token: SecretString,
    /// The source that its envelope names.
    pub source: Option<String>,
}

/// Who makes a call over HTTP.
#[derive(Debug)]
pub struct Caller {
    /// The application.
    pub source: String,
    /// Whose it is, and what it may do.
    pub identity: Identity,
}

/// Why a call was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Its token is not good, or not good for calls.
    Auth(AuthError),
    /// Its token is good for another source than the one that its envelope names.
    SourceMismatch,
    /// Its token is good for several sources, and its envelope names none.
    SourceMissing,
}

impl From<AuthError> for CallError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

/// The outcome of a call's verification, some time later.
pub type CallVerification<'a> = Pin<Box<dyn Future<Output = Result<Caller, CallError>> + Send + 'a>>;

/// What a broker answers that has no tokens.
pub(super) fn no_tokens() -> CallError {
    let why = "this broker asks for no tokens, so it accepts no calls over HTTP; set auth.mode = \"tokens\", and over_http = \
               true in a row of [[applications]]";
    AuthError::Unauthenticated(why.into()).into()
}

/// A token that is good for sessions only.
pub(super) fn for_sessions_only() -> CallError {
    let why = "the token is good for WebSockets only; write over_http = true in its row of [[applications]], or in the table \
               [auth.jwt.NAME] of its issuer";
    AuthError::Forbidden(why.into()).into()
}
