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
mod failed_logins;
mod fetching;
mod handshake_token;
mod heartbeat;
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
mod timer;
mod unregistered;

pub use driver::{Admission, Context, Upgraded, serve};
pub use failed_logins::{FailedLogins, network_of};
pub use handshake_token::HandshakeToken;
pub use rate::Rate;
pub use settings::Settings;
pub use shutdown::{Shutdown, Stage, spread};
pub use unregistered::{Unregistered, UnregisteredGuard};

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use wire::{Close, CloseCode, notice};

use crate::auth::{AuthError, Claim, ClientCertificate, Identity};
use crate::config::Limits;
use crate::router::{Allowance, End, Ending, OnFull, Router, Session};
use crate::telemetry::metrics::SlowFor;
use crate::websocket::{Frame, ping};
use commits::Commits;
use fetching::Fetching;
use heartbeat::{Beat, Heartbeat};
use leasing::Leasing;
use log::Leaving;
use looking::Looking;
use pause::Pause;
use proof::Proven;
use register::Verifying;
use timer::{Timer, Timers};

/// Replies that wait in the connection's own queue before it is read on.
const REPLIES_MAX: usize = 64;

/// Everything that can happen to a connection.
pub enum Input<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary,
    /// Another frame: a ping, a pong, a fragment. It counts against the rate as a message does.
    Frame,
    /// This number of bytes was read since the last burst, of whole frames and of parts. Used if
    /// [`Connection::counts_bytes`].
    Received(usize),
    /// Bytes came, perhaps of a frame that is not whole yet: a sign of life.
    Alive,
    /// The time of [`Connection::deadline`] is reached.
    Timeout,
    /// The verifier's answer to [`Effect::Verify`].
    Verified(Result<Identity, AuthError>),
    /// The receivers that the connection waited for are relieved.
    Relieved,
    /// Envelopes that waited for the disk are on it, or refused.
    Committed,
    /// Events that a Subscribe waited for were read from the disk, or cannot be.
    Looked,
    /// The lease that a Register waited for was taken, or cannot be.
    Leased,
    /// The session that a Register waited for is here, or does not continue.
    Fetched,
    /// The peer takes nothing, although there is something to take.
    Blocked,
    /// The peer took something.
    Taken,
    /// The session's outbox ended.
    Ended(End),
    /// The broker drains; the client should return this long after the Close frame.
    Drain(Duration),
    /// The broker drains, and another node takes the session over; the connection closes after this time.
    MoveAfter(Duration),
    /// The broker closes all sessions.
    Restart,
    /// The socket has ended.
    Gone(Gone),
}

/// How a socket ended.
#[derive(Clone, Debug)]
pub enum Gone {
    /// The peer sent a Close frame, with this status code if it gave one.
    ByPeer(Option<u16>),
    /// The peer broke a rule of WebSocket, and is told so by this Close frame.
    Fault(Close),
    /// The stream broke or ended without a Close frame.
    Lost,
}

/// What must wait or end.
#[derive(Debug)]
pub enum Effect {
    /// Ask the verifier, and return with [`Input::Verified`]. The connection is not read meanwhile.
    Verify(Claim),
    /// Send what waits, then this Close frame, and end.
    Close(Close),
}

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

    /// Takes up to `most` frames that are to be sent, oldest first.
    pub fn take(&mut self, now: Instant, most: usize, router: &Router, frames: &mut Vec<Frame>) {
        let own = most.min(self.replies.len());
        frames.extend(self.replies.drain(..own));
        if self.replies.is_empty() && self.replies.capacity() > 0 {
            self.replies = VecDeque::new();
        }
        let Phase::Registered(session) = &self.phase else { return };
        if self.attachment != 0 {
            if self.is_reply_held() {
                if let Some(end) = session.outbox().take_proof_end() {
                    self.limit_proof(now, end);
                }
                return;
            }
            if let Some(end) = self.take_resumable(now, (session, self.attachment), most - own, router, frames) {
                self.limit_proof(now, end);
            }
            return;
        }
        let outbox = session.outbox();
        let (room, at) = (most - own, frames.len());
        let (mut lagging, mut dropped, mut proof_end) = (None, 0, None);
        loop {
            let taken = outbox.take(now, room.saturating_sub(frames.len() - at), frames);
            // Most often there was nothing but frames.
            let Some(taken) = taken else { break };
            lagging = lagging.or(taken.lagging);
            proof_end = proof_end.or(taken.proof_end);
            dropped += taken.dropped;
            let Some(mut replay) = taken.replay else { break };
            if !router.pull(&mut replay, room.saturating_sub(frames.len() - at), frames) {
                outbox.put_back(replay);
                break;
            }
        }
        session.release_presence(now);
        // Notices about the queue itself are sent before its contents. Most often there is none.
        if lagging.is_some() || dropped > 0 {
            self.count_notices(lagging.is_some(), dropped);
            frames.splice(at..at, queue_notices(lagging, dropped));
        }
        if let Some(end) = proof_end {
            self.limit_proof(now, end);
        }
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

    /// The outbox of the session has ended.
    fn outbox_ended(&mut self, now: Instant, end: End, router: &Router) -> Option<Effect> {
        let close = match end {
            End::Overflowed => {
                self.settings.metrics.slow_consumers.count(SlowFor::Overflow);
                Close::new(CloseCode::SlowConsumer, "slow consumer: the outbound queue overflowed")
            }
            End::Longest => {
                self.settings.metrics.slow_consumers.count(SlowFor::Memory);
                let reason = "slow consumer: all queues exceed limits.outbound_total_bytes, and this was the longest";
                Close::new(CloseCode::SlowConsumer, reason)
            }
            End::Close(code, reason) => Close::new(code, reason),
            End::Kicked | End::SentAway => return Some(self.close_by_operator(now, router, end)),
            End::Replaced => return Some(self.replaced(now, router)),
            // The connection itself detaches its session, and then it has none.
            End::Detached => return None,
        };
        Some(self.close(now, router, close))
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

    fn fire_timers(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        if let Some(end) = self.session().and_then(|session| session.outbox().take_proof_end()) {
            self.limit_proof(now, end);
        }
        while let Some(timer) = self.timers.take_due(now) {
            let effect = match timer {
                Timer::Registration => Some(self.close(now, router, CloseCode::NotRegistered)),
                Timer::Delay => self.refuse_delayed(now, router),
                Timer::Renewal => {
                    self.renewal_late(now, router);
                    None
                }
                Timer::Proof => self.check_proof(now, router),
                Timer::Heartbeat => self.beat(now, router),
                Timer::Pause => {
                    let slow_consumer = self.limits.slow_consumer;
                    match self.pause.as_mut().and_then(|pause| pause.fire(now, slow_consumer)) {
                        Some(until) => self.timers.set(Timer::Pause, until),
                        None => self.end_pause(now),
                    }
                    None
                }
                Timer::SlowConsumer => {
                    self.settings.metrics.slow_consumers.count(SlowFor::Stalled);
                    let stalled = "slow consumer: nothing was taken for too long";
                    Some(self.close_for(now, router, Close::new(CloseCode::SlowConsumer, stalled), Ending::Stalled))
                }
                Timer::Fetch => self.fetch_is_late(now, router),
                Timer::Move => self.move_on(now, router),
                Timer::Restart => {
                    // What it asked since the drain ended.
                    if let Some(session) = self.session() {
                        router.give_up_all(now, session);
                    }
                    Some(self.close(now, router, CloseCode::Restart))
                }
            };
            if effect.is_some() {
                return effect;
            }
        }
        None
    }

    fn beat(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let reads = self.reads() && self.timers.get(Timer::SlowConsumer).is_none();
        match self.heartbeat.beat(reads) {
            Beat::Ping => {
                self.replies.push_back(ping());
                self.timers.set(Timer::Heartbeat, self.heartbeat.next(now));
                None
            }
            Beat::Dead => Some(self.close(now, router, CloseCode::HeartbeatMissed)),
        }
    }

    /// Counts what a session is told about its own queue.
    fn count_notices(&self, lags: bool, dropped: u64) {
        let metrics = &self.settings.metrics;
        if lags {
            metrics.lagging.count(());
        }
        metrics.dropped.add((), dropped);
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

/// What a session is told about its own queue: that it lagged, and how many events were dropped.
fn queue_notices(lagging: Option<notice::Depth>, dropped: u64) -> impl Iterator<Item = Frame> {
    let lagging = lagging.map(|depth| notice::lagging(depth).into());
    let dropped = (dropped > 0).then(|| notice::dropped(dropped).into());
    lagging.into_iter().chain(dropped)
}

#[cfg(test)]
mod tests;
