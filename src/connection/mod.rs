//! [`Connection`]: one WebSocket, from its first message to its last. A state machine without socket, clock or task.
//!
//! [`Connection::handle`] is its only mutation: what happened goes in as an [`Input`], and what must wait or end comes out
//! as an [`Effect`]. Before registration its replies go into a small queue of its own. Afterwards they go into the outbox
//! of the [`Session`], where the router pushes too, so a reply and the events after it keep their order. All of its
//! timers are in one table. `driver` turns a socket and a clock into inputs; nothing else in this room waits.

mod closing;
mod command;
mod commits;
mod driver;
mod due;
mod failed_logins;
mod fetching;
mod handshake_token;
mod heartbeat;
mod input;
mod leasing;
mod log;
mod looking;
mod message;
mod pause;
mod proof;
#[cfg(test)]
mod races;
mod rate;
mod register;
mod renew;
mod resume;
mod settings;
mod shutdown;
mod taking;
mod timer;
mod unregistered;

pub use driver::{Admission, Context, Upgraded, serve};
pub use failed_logins::{FailedLogins, network_of};
pub use handshake_token::HandshakeToken;
pub use input::{Effect, Gone, Input};
pub use rate::Rate;
pub use settings::Settings;
pub use shutdown::{Shutdown, Stage};
pub use unregistered::{Unregistered, UnregisteredGuard};

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Instant;

use wire::notice;

use crate::auth::ClientCertificate;
use crate::config::Limits;
use crate::router::{Allowance, End, OnFull, Router, Session};
use crate::websocket::Frame;
use commits::Commits;
use fetching::Fetching;
use heartbeat::Heartbeat;
use leasing::Leasing;
use log::Leaving;
use looking::Looking;
use pause::Pause;
use proof::Proven;
use register::Verifying;
use timer::{Timer, Timers};

/// Replies that wait in the connection's own queue before it is read on.
const REPLIES_MAX: usize = 64;

/// One WebSocket.
pub struct Connection {
    settings: Arc<Settings>,
    /// The limits that it keeps, and the number of the last reload when it looked at them.
    limits: Arc<Limits>,
    reloads: u64,
    address: IpAddr,
    /// What the client showed in its TLS handshake.
    certificate: Option<Arc<ClientCertificate>>,
    phase: Phase,
    /// The number under which its resumable session knows it; 0 for any other session.
    attachment: u64,
    /// Counts the connection while it is not registered.
    unregistered: Option<UnregisteredGuard>,
    /// The token of the handshake.
    token: Option<Box<HandshakeToken>>,
    /// A registration or a renewal that is not decided yet.
    verifying: Option<Box<Verifying>>,
    /// When what proves the session ends, if it does.
    proven: Option<Box<Proven>>,
    /// Frames to send before those of the session's outbox: replies without a session, and pings.
    replies: VecDeque<Frame>,
    timers: Timers,
    heartbeat: Heartbeat,
    rate: Rate,
    /// Counts bytes, if they are limited.
    rate_bytes: Option<Box<Rate>>,
    pause: Option<Pause>,
    /// When it began.
    paused: Instant,
    /// Envelopes that wait for the disk.
    commits: Option<Box<Commits>>,
    /// A Subscribe that waits for the disk.
    looking: Option<Box<Looking>>,
    /// A Register that waits for the lease of its source.
    leasing: Option<Box<Leasing>>,
    /// A Register that waits for its session, which another node has.
    fetching: Option<Box<Fetching>>,
    /// How long it may wait for receivers. Made at the first wait.
    allowance: Option<Box<Allowance>>,
    /// Malformed messages in a row.
    malformed: u32,
    /// Requests on protected triples that came before a registration.
    unregistered_requests: u32,
    /// A message that was handled may have had a secret.
    secret_read: bool,
    /// How often the time to register has started anew.
    restarts: u8,
    /// It has had a session.
    registered_before: bool,
    /// The log says that the present session has registered.
    is_logged: bool,
}

enum Phase {
    Unregistered,
    Registered(Arc<Session>),
    Ended,
}

impl Connection {
    /// A connection that has just been opened from `address`. `seed` decides the jitter of its pings.
    #[must_use]
    pub fn new(now: Instant, address: IpAddr, settings: Arc<Settings>, seed: u64) -> Self {
        let (guard, _) = settings.unregistered.enter();
        Self::accepted(now, address, settings, seed, guard)
    }

    /// The same for a connection that has been counted as unregistered since it was accepted.
    #[must_use]
    pub fn accepted(
        now: Instant,
        address: IpAddr,
        settings: Arc<Settings>,
        seed: u64,
        guard: UnregisteredGuard,
    ) -> Self {
        let limits = settings.limits();
        let mut heartbeat = Heartbeat::new(limits.heartbeat, limits.missed_pings, seed);
        let mut timers = Timers::default();
        timers.set(Timer::Registration, now + limits.registration);
        timers.set(Timer::Heartbeat, heartbeat.next(now));
        Self {
            address,
            certificate: None,
            phase: Phase::Unregistered,
            attachment: 0,
            unregistered: Some(guard),
            token: None,
            verifying: None,
            proven: None,
            replies: VecDeque::new(),
            timers,
            heartbeat,
            rate: Rate::new(now, limits.rate, limits.burst),
            rate_bytes: Rate::of_bytes(now, &limits),
            pause: None,
            paused: now,
            commits: None,
            looking: None,
            leasing: None,
            fetching: None,
            allowance: None,
            malformed: 0,
            unregistered_requests: 0,
            secret_read: false,
            restarts: 0,
            registered_before: false,
            is_logged: false,
            limits,
            reloads: 0,
            settings,
        }
    }

    /// The same with a certificate that proves its sessions if they have no token.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<Arc<ClientCertificate>>) -> Self {
        Self { certificate, ..self }
    }

    /// The same with the token of its handshake.
    #[must_use]
    pub fn with_token(self, token: Option<HandshakeToken>) -> Self {
        Self { token: token.map(Box::new), ..self }
    }

    /// The registered session, if there is one.
    pub fn session(&self) -> Option<&Arc<Session>> {
        match &self.phase {
            Phase::Registered(session) => Some(session),
            Phase::Unregistered | Phase::Ended => None,
        }
    }

    /// The largest message that it may send now, in bytes: more after registration.
    pub fn message_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Registered(_) => self.limits.message_bytes,
            Phase::Unregistered | Phase::Ended => self.limits.registration_bytes,
        }
    }

    /// When it wants [`Input::Timeout`] next.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether the next message may be read now.
    pub fn reads(&self) -> bool {
        self.verifying.is_none()
            && self.pause.is_none()
            && self.may_join()
            && self.looking.is_none()
            && self.leasing.is_none()
            && self.fetching.is_none()
            && self.replies.len() < REPLIES_MAX
    }

    /// Whether it waits for the verifier.
    pub fn is_verifying(&self) -> bool {
        self.verifying.is_some() && !self.is_refusal_delayed()
    }

    /// Whether a registration or a renewal was refused, and its answer is delayed.
    fn is_refusal_delayed(&self) -> bool {
        self.timers.get(Timer::Delay).is_some()
    }

    /// Whether it uses [`Input::Received`].
    pub fn counts_bytes(&self) -> bool {
        self.rate_bytes.is_some()
    }

    /// Whether it is not read because this receiver's queue is over half.
    pub fn waits_for(&self, receiver: &Session) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.is_for(receiver))
    }

    /// Whether a message that was handled since the last call may have had a secret, so that its bytes have to be wiped.
    pub fn take_secret_read(&mut self) -> bool {
        std::mem::take(&mut self.secret_read)
    }

    /// Ready when there is something for [`Connection::take`], or the session's outbox ended.
    pub fn poll_ready(&self, cx: &mut task::Context<'_>) -> Poll<()> {
        if !self.replies.is_empty() {
            return Poll::Ready(());
        }
        if self.is_reply_held() {
            return self.poll_end(cx).map(drop);
        }
        self.session().map_or(Poll::Pending, |session| session.outbox().taker(self.attachment).poll_ready(cx))
    }

    /// Ready when the session's outbox ended. With `None`, the connection wants [`Input::Timeout`] now.
    pub fn poll_end(&self, cx: &mut task::Context<'_>) -> Poll<Option<End>> {
        self.session().map_or(Poll::Pending, |session| session.outbox().taker(self.attachment).poll_end(cx))
    }

    /// Why the session's outbox ended, if it did.
    pub fn ended(&self) -> Option<End> {
        self.session().and_then(|session| session.outbox().taker(self.attachment).ended())
    }

    /// Ready when a pause is over before its time: then it wants [`Input::Relieved`].
    #[inline]
    pub fn poll_pause(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        self.pause.as_mut().map_or(Poll::Pending, |pause| pause.poll_over(cx))
    }

    /// Takes in what happened. The only mutation besides taking frames.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, router: &Router) -> Option<Effect> {
        if matches!(self.phase, Phase::Ended) {
            return None;
        }
        if self.reloads != router.reloads() {
            self.take_over_limits(now, router);
        }
        match input {
            Input::Text(text) => self.message(now, Some(text), router),
            Input::Binary => self.message(now, None, router),
            Input::Frame => {
                self.heartbeat.hear();
                self.count(now);
                None
            }
            Input::Received(bytes) => {
                self.count_bytes(now, bytes);
                None
            }
            Input::Alive => {
                self.heartbeat.hear();
                None
            }
            Input::Timeout
            | Input::Verified(_)
            | Input::Committed
            | Input::Looked
            | Input::Drain(_)
            | Input::MoveAfter(_)
            | Input::Restart
                if self.is_replaced() =>
            {
                Some(self.replaced(now, router))
            }
            Input::Timeout => self.fire_timers(now, router),
            Input::Verified(outcome) => self.verified(now, outcome, router),
            Input::Relieved => {
                self.end_pause(now);
                None
            }
            Input::Committed => self.committed(now, router),
            Input::Looked => self.looked(now, router),
            Input::Leased => self.leased(now, router),
            Input::Fetched => self.fetched(now, router),
            Input::Blocked => {
                self.heartbeat.not_read();
                self.timers.set(Timer::SlowConsumer, now + self.limits.slow_consumer);
                None
            }
            Input::Taken => {
                // While the peer took nothing it was not read either, so its pongs have not been read.
                self.heartbeat.hear();
                self.timers.stop(Timer::SlowConsumer);
                None
            }
            Input::Ended(end) => self.outbox_ended(now, end, router),
            Input::Drain(reconnect_after) => {
                self.push(now, notice::draining(u64::try_from(reconnect_after.as_millis()).unwrap_or(u64::MAX)));
                None
            }
            Input::MoveAfter(after) => {
                self.timers.set(Timer::Move, now + after);
                None
            }
            Input::Restart => self.restart(now, router),
            Input::Gone(gone) => {
                self.leave(now, router, &Leaving::of(&gone));
                self.end(now);
                None
            }
        }
    }

    /// Takes over the limits that a reload has put in force. What concerns its queue is for new sessions.
    #[cold]
    fn take_over_limits(&mut self, now: Instant, router: &Router) {
        self.reloads = router.reloads();
        let limits = self.settings.limits();
        let mut waits_for_rate = false;
        if (limits.rate, limits.burst) != (self.limits.rate, self.limits.burst) {
            self.rate = Rate::new(now, limits.rate, limits.burst);
            waits_for_rate |= matches!(self.pause, Some(Pause::Rate));
        }
        if (limits.rate_bytes, limits.message_bytes) != (self.limits.rate_bytes, self.limits.message_bytes) {
            self.rate_bytes = Rate::of_bytes(now, &limits);
            waits_for_rate |= matches!(self.pause, Some(Pause::RateBytes));
        }
        if waits_for_rate {
            self.end_pause(now);
        }
        self.heartbeat.set(limits.heartbeat, limits.missed_pings);
        self.limits = limits;
    }

    /// Sends a frame to the application. A session that is ending has its own close to say why.
    fn push(&mut self, now: Instant, frame: impl Into<Frame>) {
        match &self.phase {
            Phase::Registered(session) => {
                session.outbox().push(now, frame.into(), OnFull::Close).ok();
            }
            Phase::Unregistered | Phase::Ended => self.replies.push_back(frame.into()),
        }
    }
}

#[cfg(test)]
mod tests;
