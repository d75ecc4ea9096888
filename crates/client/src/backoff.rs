//! The reaction to a connection that has ended: [`next`] and [`can_retry`] decide, [`Backoff`] computes the wait.

use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use super::connection::Settings;
use wire::{ErrorCode, Reconnect};

/// Returns what to do after an error, by the table "Close codes" of docs/errors.md.
///
/// A refused registration counts as the Close frame that follows it: the reply arrives first, and says more.
pub(super) fn next(error: &Error) -> Reconnect {
    match error {
        Error::Invalid(_) => Reconnect::Stop,
        Error::Closed { code, .. } => code.map_or(Reconnect::BackOff, Reconnect::after),
        Error::Refused(failure) => match failure.code() {
            // RATE_LIMITED takes the place of UNAUTHENTICATED. A valid token always passes.
            Some(ErrorCode::Unauthenticated | ErrorCode::RateLimited) => Reconnect::NewToken,
            Some(code) if code.retryable() => Reconnect::BackOff,
            Some(_) | None => Reconnect::Stop,
        },
        Error::Unreachable { .. }
        | Error::Handshake { .. }
        | Error::Token(_)
        | Error::TimedOut(_)
        | Error::Disconnected
        | Error::OutcomeUnknown
        | Error::Protocol(_) => Reconnect::BackOff,
    }
}

/// Returns whether another attempt to connect can succeed. The registration is the one message that is sent again by
/// itself; only a token provider makes another one.
pub(super) async fn can_retry(error: &Error, settings: &Settings, is_registering: bool) -> bool {
    let has_new_token = settings.token.has_changed(settings.limits.token);
    match next(error) {
        Reconnect::BackOff | Reconnect::AfterDelay => true,
        Reconnect::NewToken => has_new_token.await,
        Reconnect::DropMessage => !is_registering || has_new_token.await,
        Reconnect::Stop => false,
    }
}

/// How many closes because of a message the client takes within [`DROPS_WITHIN`]. At the last one it stops: the application
/// does not notice that its messages are refused.
const DROPS_MAX: usize = 3;
const DROPS_WITHIN: Duration = Duration::from_mins(1);

/// The last closes because of a message.
#[derive(Default)]
pub(super) struct Drops([Option<Instant>; DROPS_MAX - 1]);

impl Drops {
    /// Notes one. Returns whether the client stops.
    pub(super) fn note(&mut self, now: Instant) -> bool {
        let [first, second] = self.0;
        self.0 = [second, Some(now)];
        first.is_some_and(|first| now.duration_since(first) <= DROPS_WITHIN)
    }
}

/// Exponential back-off with full jitter: each wait is a random time below a ceiling, which doubles from attempt to
/// attempt. Without jitter, clients that lost their connections at once would return at once.
pub(super) struct Backoff {
    first: Duration,
    last: Duration,
    attempts: u32,
}

impl Backoff {
    /// A back-off whose ceiling doubles from `first` to `last`.
    pub(super) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, attempts: 0 }
    }

    /// Returns another one with the same ceilings, at its first one.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.first, self.last)
    }

    /// Returns how long to wait before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.first.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.last);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(rand::random_range(0.0..=1.0))
    }

    /// Resets the ceiling to the first one.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}
