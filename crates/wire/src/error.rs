//! The catalogue of codes on the wire: [`ErrorCode`] in envelopes, [`CloseCode`] in Close frames.
//!
//! A *refusal* ([`Refusal`]) tells a sender that one envelope was not accepted; its session lives on. A *close*
//! ([`Close`]) ends a connection. A *fault* is for the operator's log and is not part of this crate. `docs/errors.md`
//! explains every code to integrators, and a test compares it with this file.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $retryable:literal;)+) => {
        /// The reason why an envelope was refused or a request failed: `data.ErrorCode` on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)+ }

        impl ErrorCode {
            /// All codes, in the order of the protocol's table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the code as it is written on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Returns whether the same envelope may succeed later without any change.
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
    /// Only a registered session may do this.
    NotRegistered = "NOT_REGISTERED", false;
    /// The session is already registered.
    AlreadyRegistered = "ALREADY_REGISTERED", false;
    /// The proof of identity is wrong, has expired or was removed.
    Unauthenticated = "UNAUTHENTICATED", false;
    /// The session is not permitted to do this.
    Forbidden = "FORBIDDEN", false;
    /// The envelope's `source` is not the registered name.
    SourceMismatch = "SOURCE_MISMATCH", false;
    /// The exclusive source is taken by another session of the same user.
    SourceInUse = "SOURCE_IN_USE", true;
    /// A service sent on a user-scoped channel without naming a user.
    UserRequired = "USER_REQUIRED", false;
    /// Only the broker may use this triple.
    ReservedChannel = "RESERVED_CHANNEL", false;
    /// The broker has no command with this topic and subtopic.
    UnknownCommand = "UNKNOWN_COMMAND", false;
    /// The session has no such subscription.
    NoSuchSubscription = "NO_SUCH_SUBSCRIPTION", false;
    /// No open request fits.
    NoSuchRequest = "NO_SUCH_REQUEST", false;
    /// There is no handler for the request.
    NoHandler = "NO_HANDLER", true;
    /// The handler left before it answered.
    HandlerGone = "HANDLER_GONE", true;
    /// The handler did not answer in time.
    RequestTimeout = "REQUEST_TIMEOUT", true;
    /// The requester, or a drain, cancelled the request.
    RequestCancelled = "REQUEST_CANCELLED", false;
    /// The envelope exceeds a limit on kept values, or its will is too long.
    TooLarge = "TOO_LARGE", false;
    /// The session has reached a limit on subscriptions.
    TooManySubscriptions = "TOO_MANY_SUBSCRIPTIONS", false;
    /// The session has reached a limit on pending requests.
    TooManyRequests = "TOO_MANY_REQUESTS", true;
    /// Too many registrations from this address failed, or too many calls reached a system behind an adapter.
    RateLimited = "RATE_LIMITED", true;
    /// A system behind the broker cannot be reached.
    UpstreamUnavailable = "UPSTREAM_UNAVAILABLE", true;
    /// A system behind an adapter refused the request.
    UpstreamRejected = "UPSTREAM_REJECTED", false;
    /// No credentials are stored for the user.
    CredentialsNotFound = "CREDENTIALS_NOT_FOUND", false;
    /// A limit on sessions is reached.
    TooManySessions = "TOO_MANY_SESSIONS", true;
    /// Data that has to be stored cannot be written now, or stored data cannot be read.
    StorageUnavailable = "STORAGE_UNAVAILABLE", true;
    /// The broker or a handler failed; the broker's log says more.
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

/// The reason why an envelope was not accepted: a code, and a message that says what was wrong, where, and what to do.
///
/// The message never quotes a payload or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code on the wire.
    pub code: ErrorCode,
    /// The text of `ErrorMessage`.
    pub message: Cow<'static, str>,
    /// Boxed, because few refusals have details and all of them are moved around.
    details: Option<Box<Details>>,
}

/// Further keys for `data` of the failure, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Details(Vec<(&'static str, Value)>);

impl Refusal {
    /// Returns a refusal without details.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// Adds a key to `data` of the failure, such as the `Hint` of a `NO_HANDLER` answer.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.details.get_or_insert_default().0.push((key, value.into()));
        self
    }

    /// Returns the further keys of `data` and their values.
    pub fn details(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.details.iter().flat_map(|details| &details.0).map(|(key, value)| (*key, value))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $reason:literal, $reconnect:ident;)+) => {
        /// The status code of the broker's Close frame (RFC 6455, section 7.4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode { $($(#[$doc])* $variant,)+ }

        impl CloseCode {
            /// All codes that the broker sends, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the number on the wire.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// Returns the code with this number, if the broker sends it.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// Returns the usual reason in the Close frame. A [`Close`] can have another.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason,)+ }
            }

            /// Returns what a client does when its connection was closed with this code.
            #[must_use]
            pub const fn reconnect(self) -> Reconnect {
                match self { $(Self::$variant => Reconnect::$reconnect,)+ }
            }
        }
    };
}

close_codes! {
    /// The broker is going away, and nothing says when it returns.
    GoingAway = 1001, "going away", BackOff;
    /// The client sent a frame that RFC 6455 forbids.
    Protocol = 1002, "the frame is forbidden by RFC 6455", DropMessage;
    /// A text message was not UTF-8.
    InvalidUtf8 = 1007, "a text message must be UTF-8", DropMessage;
    /// Too many messages in a row were malformed, or an ordered handler has not answered for too long.
    Policy = 1008, "too many malformed messages in a row", BackOff;
    /// A message exceeded the limit.
    TooLarge = 1009, "the message exceeds the limit", DropMessage;
    /// The broker restarts; `Broker/Connection/Draining` came before.
    Restart = 1012, "restarting: reconnect after ReconnectAfterMs", AfterDelay;
    /// The proof of identity is wrong or has expired.
    Unauthenticated = 4401, "unauthenticated", NewToken;
    /// The proof does not permit this source.
    Forbidden = 4403, "source not allowed", Stop;
    /// The exclusive source is in use, its lease was lost, or there are too many sessions.
    SourceInUse = 4404, "source in use", BackOff;
    /// The connection did not register in time.
    NotRegistered = 4406, "not registered in time", BackOff;
    /// The client did not answer the broker's pings.
    HeartbeatMissed = 4408, "heartbeat missed", BackOff;
    /// Another connection resumed the session.
    Replaced = 4409, "another connection resumed the session", Stop;
    /// An operator closed the connection.
    Kicked = 4410, "closed by an operator", Stop;
    /// The client takes messages too slowly.
    SlowConsumer = 4413, "slow consumer", BackOff;
}

/// What a client does when its connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// Reconnects, and waits longer before each attempt.
    BackOff,
    /// Reports the close, then does as for [`BackOff`](Self::BackOff). It does not send the last message again, because
    /// the broker would close the connection again.
    DropMessage,
    /// Reconnects when `ReconnectAfterMs` of `Broker/Connection/Draining` has passed, counted from the Close frame. If
    /// no such notice arrived, does as for [`BackOff`](Self::BackOff).
    AfterDelay,
    /// Asks its token provider for a new token, then does as for [`BackOff`](Self::BackOff). With a fixed token, stops.
    NewToken,
    /// Stops, and reports the reason.
    Stop,
}

impl Reconnect {
    /// Returns what a client does after a close with this number.
    ///
    /// A code that the broker never sends, such as 1006 (no Close frame arrived) or 1011 (a proxy failed), says nothing
    /// about the session. The client backs off.
    #[must_use]
    pub const fn after(code: u16) -> Self {
        match CloseCode::from_code(code) {
            Some(code) => code.reconnect(),
            None => Self::BackOff,
        }
    }

    /// Returns what a client does, in a sentence for docs/errors.md.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::BackOff => "Reconnects, and waits longer each time.",
            Self::DropMessage => "Reports it and reconnects as after 1001, but does not send that message again.",
            Self::AfterDelay => "Reconnects when `ReconnectAfterMs` has passed since the Close frame.",
            Self::NewToken => {
                "Asks for a new token and reconnects as after 1001. If it has only a fixed token, it stops."
            }
            Self::Stop => "Stops, and reports the reason.",
        }
    }
}

/// The longest reason in a Close frame, in bytes (RFC 6455, section 5.5: 125, less two for the code).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// The content of a Close frame: a code, and a reason for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    code: CloseCode,
    reason: Cow<'static, str>,
}

impl Close {
    /// Returns a close with a reason of its own, cut to [`CLOSE_REASON_BYTES_MAX`] at the end of a character.
    pub fn new(code: CloseCode, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        let end = reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX);
        if end < reason.len() {
            reason.to_mut().truncate(end);
        }
        Self { code, reason }
    }

    /// Returns the code.
    #[must_use]
    pub const fn code(&self) -> CloseCode {
        self.code
    }

    /// Returns the reason, at most [`CLOSE_REASON_BYTES_MAX`] bytes long.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<CloseCode> for Close {
    fn from(code: CloseCode) -> Self {
        Self { code, reason: Cow::Borrowed(code.reason()) }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.code(), self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table "Close codes" of docs/protocol.md.
    #[test]
    fn each_close_code_says_what_a_client_does() {
        let expected = [
            (Reconnect::DropMessage, &[1002, 1007, 1009][..]),
            (Reconnect::AfterDelay, &[1012]),
            (Reconnect::NewToken, &[4401]),
            (Reconnect::Stop, &[4403, 4409, 4410]),
            (Reconnect::BackOff, &[1001, 1008, 4404, 4406, 4408, 4413]),
        ];
        let mut codes: Vec<u16> = Vec::new();
        for (reconnect, group) in expected {
            for code in group {
                assert_eq!(Reconnect::after(*code), reconnect, "{code}");
                codes.push(*code);
            }
        }
        codes.sort_unstable();
        assert_eq!(codes, CloseCode::ALL.iter().map(|code| code.code()).collect::<Vec<_>>());
        for code in [0, 1000, 1005, 1006, 1011, 1014, 3000, 4402, 4999, u16::MAX] {
            assert_eq!(Reconnect::after(code), Reconnect::BackOff, "{code}");
        }
    }

    #[test]
    fn a_close_keeps_its_reason_within_a_control_frame() {
        assert_eq!(Close::from(CloseCode::Policy).reason(), "too many malformed messages in a row");
        let blocked = Close::new(CloseCode::Policy, "an ordered handler did not answer for 60 s");
        assert_eq!(blocked.to_string(), "1008 an ordered handler did not answer for 60 s");
        let long = Close::new(CloseCode::Kicked, "é".repeat(100));
        assert_eq!(long.reason(), "é".repeat(61));
        assert!(CloseCode::ALL.iter().all(|code| code.reason().len() <= CLOSE_REASON_BYTES_MAX));
    }

    #[test]
    fn every_error_code_is_read_back() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert_eq!("no_handler".parse::<ErrorCode>(), Err(()));
    }

    #[test]
    fn a_refusal_is_small_with_and_without_details() {
        assert!(size_of::<Refusal>() <= 40);
        let plain = Refusal::new(ErrorCode::NoHandler, "no handler");
        assert_eq!(plain.details().count(), 0);
        let hinted = plain.with("Hint", "did you mean 'Phone/Call/Dial'?").with("Receivers", 0);
        let details: Vec<_> = hinted.details().collect();
        assert_eq!(
            details,
            [("Hint", &Value::from("did you mean 'Phone/Call/Dial'?")), ("Receivers", &Value::from(0))]
        );
    }
}
