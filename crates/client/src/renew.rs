//! [`Renewal`]: a new proof of identity for a session whose old one expires soon.
//!
//! When the broker sends `Broker/Connection/Expiring`, the client asks its token provider and sends `Broker/Application/Renew`.
//! If the provider fails, or the broker cannot verify the token now, it tries again with back-off. If the broker refuses
//! the token, the session ends at its time, and the next registration has another token.
//!
//! A provider may return the same token until its last second. Then `Expiring` follows the reply to Renew, and the next
//! attempt is made after a pause of seconds. A reader is asked after each pause, but a token that does not help is not
//! sent again: Renew waits for another one.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::backoff::Backoff;
use super::connection::Settings;
use super::register::wiped_text;
use super::token::Token;
use super::{Error, Message};

/// If `Expiring` arrives this soon after the broker accepted a token, another Renew with that token would not help.
const SOON: Duration = Duration::from_secs(10);
/// The shortest pause before another attempt if the last token did not help.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The first and the last ceiling of the random time that is added to [`PAUSE_MIN`]. Short, because a new token has to be
/// found in the last minute of the old one.
const PAUSE_MORE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));

/// The future of a token.
type Asking = Pin<Box<dyn Future<Output = Result<Option<SecretString>, Error>> + Send>>;

/// See the module.
pub(super) struct Renewal {
    state: State,
    /// For attempts that failed.
    backoff: Backoff,
    /// For attempts after a token that did not help.
    pauses: Backoff,
    /// When the broker last answered Register or Renew.
    answered_at: Instant,
    /// Renew was sent on this connection.
    has_renewed: bool,
    /// The last token did not help, so a reader has to return another one.
    needs_change: bool,
}

enum State {
    /// The proof does not expire soon, or nothing can be done about it.
    Idle,
    /// The next attempt is at this time.
    Waiting(Instant),
    /// The token provider was asked.
    Asking(Asking),
    /// Renew was sent with this id. The broker has to answer by this time.
    Sent(String, Instant),
}

#[derive(Serialize)]
struct Renew<'a> {
    channel: &'static str,
    topic: &'static str,
    subtopic: &'static str,
    source: &'a str,
    id: &'a str,
    data: Options<'a>,
}

#[derive(Serialize)]
struct Options<'a> {
    token: &'a str,
}

impl Renewal {
    pub(super) fn new(now: Instant, backoff: Backoff) -> Self {
        let (first, last) = PAUSE_MORE;
        Self {
            state: State::Idle,
            backoff,
            pauses: Backoff::new(first, last),
            answered_at: now,
            has_renewed: false,
            needs_change: false,
        }
    }

    /// Begins anew, for a session that has just registered.
    pub(super) fn reset(&mut self, now: Instant) {
        *self = Self::new(now, self.backoff.fresh());
    }

    /// Notes that the proof of the session expires soon.
    pub(super) fn begin(&mut self, now: Instant, settings: &Settings) {
        if !settings.token.can_change() {
            tracing::warn!("the proof of this session expires soon, and there is no token provider for a new one");
            return;
        }
        if !matches!(self.state, State::Idle) {
            return;
        }
        self.needs_change = now < self.answered_at + SOON;
        if self.needs_change && self.has_renewed {
            self.pause(now);
        } else {
            self.pauses.reset();
            self.state = State::Asking(ask(settings, self.needs_change));
        }
    }

    /// Returns the token for a Renew that is to be sent now. Cancel-safe.
    pub(super) async fn token(&mut self, settings: &Settings) -> SecretString {
        loop {
            match &mut self.state {
                State::Idle => pending().await,
                State::Waiting(at) => {
                    sleep_until(*at).await;
                    self.state = State::Asking(ask(settings, self.needs_change));
                }
                State::Asking(asking) => {
                    let outcome = asking.as_mut().await;
                    self.state = State::Idle;
                    match outcome {
                        Ok(Some(token)) => {
                            // If the attempt fails for now, the next one is with this token.
                            self.needs_change = false;
                            return token;
                        }
                        Ok(None) => self.pause(Instant::now()),
                        Err(error) => self.retry(&error),
                    }
                }
                State::Sent(_, until) => {
                    sleep_until(*until).await;
                    self.retry(&Error::TimedOut("Application/Renew"));
                }
            }
        }
    }

    /// Notes that Renew was sent.
    pub(super) fn sent(&mut self, id: String, answered_by: Instant) {
        self.state = State::Sent(id, answered_by);
        self.has_renewed = true;
    }

    /// Reads the broker's reply.
    pub(super) fn answered(&mut self, now: Instant, settings: &Settings, reply: &Message) {
        if !matches!(&self.state, State::Sent(id, _) if reply.in_reply_to() == Some(id)) {
            return;
        }
        self.answered_at = now;
        match reply.failure() {
            None => {
                self.state = State::Idle;
                self.backoff.reset();
            }
            Some(failure) if failure.code().is_some_and(wire::ErrorCode::retryable) => self.retry(&failure.into()),
            Some(failure) if matches!(settings.token, Token::Reader(..)) => {
                tracing::warn!(%failure, "the broker refused the new token; waiting for another one");
                self.needs_change = true;
                self.pause(now);
            }
            Some(failure) => {
                self.state = State::Idle;
                tracing::warn!(%failure, "the broker refused the new token; the session ends when the old one expires");
            }
        }
    }

    /// Waits before the next attempt, because the last token did not help.
    fn pause(&mut self, now: Instant) {
        let wait = PAUSE_MIN + self.pauses.next();
        tracing::debug!(?wait, "no token yet that is valid for longer; looking again");
        self.state = State::Waiting(now + wait);
    }

    fn retry(&mut self, error: &Error) {
        let wait = self.backoff.next();
        tracing::warn!(%error, ?wait, "the proof of this session was not renewed; trying again");
        self.state = State::Waiting(Instant::now() + wait);
    }
}

/// Asks for a token. With `needs_change`, a reader's token counts only if it is another one than before.
fn ask(settings: &Settings, needs_change: bool) -> Asking {
    let (token, limit) = (settings.token.clone(), settings.limits.token);
    Box::pin(async move { if needs_change { token.get_changed(limit).await } else { token.get(limit).await } })
}

/// Returns Renew, in a buffer that is zeroised once it has been copied to the socket's buffer.
pub(super) fn renewal(settings: &Settings, token: &SecretString, id: &str) -> Result<Utf8Bytes, Error> {
    let token = token.expose_secret();
    let renew = Renew {
        channel: "Broker",
        topic: "Application",
        subtopic: "Renew",
        source: &settings.source,
        id,
        data: Options { token },
    };
    wiped_text(&renew, &[&settings.source, id, token])
}
