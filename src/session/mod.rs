//! (being built)
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::auth::{AuthError, Claim, Identity};
use crate::config::Limits;
use crate::error::CloseCode;
use crate::router::{Outbox, Router};

/// Everything that can happen to a session.
pub enum Input {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary,
    /// A ping or pong: a sign of life.
    Pong,
    /// The deadline of [`Session::deadline`] has come.
    Timeout,
    /// What [`Effect::Verify`] found.
    Verified(Result<Identity, AuthError>),
    /// The broker drains: `reconnect_after_ms` for this session.
    Drain(u64),
    /// The outbox overflowed, or the peer took nothing for too long.
    Overflow,
    /// The connection has ended, by a close or without.
    Gone,
}

/// What must wait, or end. While one is carried out the task does not read.
pub enum Effect {
    /// Ask the verifier, and come back with [`Input::Verified`].
    Verify(Claim),
    /// Do not read until the time has come, or all these outboxes are under half.
    Pause(Instant, Vec<Arc<Outbox>>),
    /// Send what waits, then a Close frame, and end.
    Close(CloseCode),
}

/// One connected application.
pub struct Session {
    outbox: Arc<Outbox>,
}

/// What all sessions of a broker share.
pub struct Settings {
    /// `[limits]`
    pub limits: Limits,
}

impl Session {
    /// A session of a connection that has just been opened from `address`.
    pub fn new(_now: Instant, _address: IpAddr, _settings: Arc<Settings>, outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }

    /// Where its messages wait.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The largest message it may send now, in bytes; more after registration.
    pub fn message_bytes_max(&self) -> usize {
        1 << 20
    }

    /// When it wants [`Input::Timeout`] next.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The only mutation.
    pub fn handle(&mut self, _now: Instant, _input: Input, _router: &Router) -> Option<Effect> {
        None
    }
}
