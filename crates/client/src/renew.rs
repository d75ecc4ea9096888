//! [`Renewal`]: a new proof of identity for a session whose old one expires soon.
//!
//! When the broker sends `Broker/Connection/Expiring`, the client asks its token provider and sends `Broker/Application/Renew`.
//! If the provider fails, or the broker cannot verify the token now, it tries again with back-off. If the broker refuses
//! the token, the session ends at its time, and the next registration has another token.

use std::future::pending;
use std::pin::Pin;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite;

use super::backoff::Backoff;
use super::connection::Settings;
use super::register::wiped_text;
use super::{Error, Message};

/// The future of a token.
type Asking = Pin<Box<dyn Future<Output = Result<Option<SecretString>, Error>> + Send>>;

/// See the module.
pub(super) struct Renewal {
    state: State,
    backoff: Backoff,
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
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { state: State::Idle, backoff }
    }

    /// Forgets what happened on the connection before.
    pub(super) fn reset(&mut self) {
        self.state = State::Idle;
        self.backoff.reset();
    }

    /// Notes that the proof of the session expires soon.
    pub(super) fn begin(&mut self, settings: &Settings) {
        if !settings.token.can_change() {
            tracing::warn!("the proof of this session expires soon, and there is no token provider for a new one");
        } else if matches!(self.state, State::Idle) {
            self.state = State::Asking(ask(settings));
        }
    }

    /// Returns the token for a Renew that is to be sent now. Cancel-safe.
    pub(super) async fn token(&mut self, settings: &Settings) -> SecretString {
        loop {
            match &mut self.state {
                State::Idle => pending().await,
                State::Waiting(at) => {
                    sleep_until(*at).await;
                    self.state = State::Asking(ask(settings));
                }
                State::Asking(asking) => {
                    let outcome = asking.as_mut().await;
                    self.state = State::Idle;
                    match outcome {
                        Ok(Some(token)) => return token,
                        Ok(None) => {}
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
    }

    /// Reads the broker's reply.
    pub(super) fn answered(&mut self, reply: &Message) {
        if !matches!(&self.state, State::Sent(id, _) if reply.in_reply_to() == Some(id)) {
            return;
        }
        match reply.failure() {
            None => self.reset(),
            Some(failure) if failure.code().is_some_and(wire::ErrorCode::retryable) => self.retry(&failure.into()),
            Some(failure) => {
                self.state = State::Idle;
                tracing::warn!(%failure, "the broker refused the new token; the session ends when the old one expires");
            }
        }
    }

    fn retry(&mut self, error: &Error) {
        let wait = self.backoff.next();
        tracing::warn!(%error, ?wait, "the proof of this session was not renewed; trying again");
        self.state = State::Waiting(Instant::now() + wait);
    }
}

fn ask(settings: &Settings) -> Asking {
    let (token, limit) = (settings.token.clone(), settings.limits.token);
    Box::pin(async move { token.get(limit).await })
}

/// Returns Renew, in a buffer that is zeroised once it has been copied to the socket's buffer.
pub(super) fn renewal(settings: &Settings, token: &SecretString, id: &str) -> Result<tungstenite::Message, Error> {
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
