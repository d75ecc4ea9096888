//! The whole catalogue of codes that cross the wire: [`ErrorCode`] in envelopes, [`CloseCode`] in Close frames.
//!
//! A *refusal* ([`Refusal`]) tells a sender that one envelope was not accepted and leaves its session alive; a *close*
//! ends a session; a *fault* is for the operator's log and has no place here. `docs/errors.md` explains every code to
//! integrators, and a test keeps the two lists equal.

use std::borrow::Cow;
use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $retryable:literal;)+) => {
        /// Why an envelope was refused or a request failed: `data.ErrorCode` on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)+ }

        impl ErrorCode {
            /// Every code, in the order of the protocol's list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code as it stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Whether the same envelope, sent again later, may succeed without anybody changing anything.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)+ }
            }
        }
    };
}

error_codes! {
    /// The message is not one JSON text.
    InvalidJson = "INVALID_JSON", false;
    /// The message is JSON, but breaks a rule of the envelope or of a command.
    InvalidEnvelope = "INVALID_ENVELOPE", false;
    /// The session has to register before it may do this.
    NotRegistered = "NOT_REGISTERED", false;
    /// The session is registered already.
    AlreadyRegistered = "ALREADY_REGISTERED", false;
    /// The token does not prove who this is.
    Unauthenticated = "UNAUTHENTICATED", false;
    /// The session is known, and may not do this.
    Forbidden = "FORBIDDEN", false;
    /// The envelope names another source than the one registered.
    SourceMismatch = "SOURCE_MISMATCH", false;
    /// An exclusive source is registered by another session of the same user.
    SourceInUse = "SOURCE_IN_USE", true;
    /// A service must say for which user an envelope on a user-scoped channel is.
    UserRequired = "USER_REQUIRED", false;
    /// The channel `Broker` is the broker's own.
    ReservedChannel = "RESERVED_CHANNEL", false;
    /// No command of the broker has this topic and subtopic.
    UnknownCommand = "UNKNOWN_COMMAND", false;
    /// The session holds no such subscription.
    NoSuchSubscription = "NO_SUCH_SUBSCRIPTION", false;
    /// No pending request has this id for this session.
    NoSuchRequest = "NO_SUCH_REQUEST", false;
    /// Nobody who may answer the request is connected.
    NoHandler = "NO_HANDLER", true;
    /// The handler left before it answered.
    HandlerGone = "HANDLER_GONE", true;
    /// The handler did not answer in time.
    RequestTimeout = "REQUEST_TIMEOUT", true;
    /// The requester cancelled the request.
    RequestCancelled = "REQUEST_CANCELLED", false;
    /// A limit on kept values would be exceeded.
    TooLarge = "TOO_LARGE", false;
    /// The session holds as many subscriptions as it may.
    TooManySubscriptions = "TOO_MANY_SUBSCRIPTIONS", false;
    /// The session has as many requests pending as it may.
    TooManyRequests = "TOO_MANY_REQUESTS", true;
    /// Too many failed registrations from this address.
    RateLimited = "RATE_LIMITED", true;
    /// The system behind an adapter cannot be reached.
    UpstreamUnavailable = "UPSTREAM_UNAVAILABLE", true;
    /// The system behind an adapter refused.
    UpstreamRejected = "UPSTREAM_REJECTED", false;
    /// No credentials are stored for the user.
    CredentialsNotFound = "CREDENTIALS_NOT_FOUND", false;
    /// The broker failed; its log says more.
    Internal = "INTERNAL", true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ErrorCode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(())
    }
}

/// An envelope that was not accepted: the code, and words that say what was wrong, where, and what to do.
///
/// The words never quote a payload or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code on the wire.
    pub code: ErrorCode,
    /// The text of `ErrorMessage`.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with its words.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $reason:literal;)+) => {
        /// Why the broker ends a connection: the status code of its Close frame (RFC 6455, section 7.4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode { $($(#[$doc])* $variant,)+ }

        impl CloseCode {
            /// Every code the broker sends.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The words in the Close frame; at most 123 bytes (RFC 6455, section 5.5).
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason,)+ }
            }
        }
    };
}

close_codes! {
    /// The broker is going away and does not come back by itself.
    GoingAway = 1001, "going away";
    /// A frame that RFC 6455 forbids.
    Protocol = 1002, "a frame that RFC 6455 forbids";
    /// A text message that is not UTF-8.
    InvalidUtf8 = 1007, "a text message has to be UTF-8";
    /// Too many malformed messages in a row.
    Policy = 1008, "too many malformed messages in a row";
    /// A message over the limit.
    TooLarge = 1009, "message over the limit";
    /// The broker restarts; come back after `ReconnectAfterMs`.
    Restart = 1012, "restarting: reconnect after ReconnectAfterMs";
    /// Not registered in time, or the token proved nobody.
    Unauthenticated = 4401, "unauthenticated";
    /// A source that this identity may not use.
    Forbidden = 4403, "source not allowed";
    /// Nothing was heard, pings included.
    HeartbeatMissed = 4408, "heartbeat missed";
    /// Another connection resumed this session.
    Replaced = 4409, "replaced by a resume";
    /// The receiver does not keep up.
    SlowConsumer = 4413, "slow consumer";
}
