//! [`Session`]: one connected application, from its first message to its last. A plain struct without socket, clock,
//! task or queue of its own.
//!
//! [`Session::handle`] is its only mutation: what happened goes in as an [`Input`], what must wait or end comes out as
//! an [`Effect`]. What is to be sent goes into the outbox, where the router pushes too, so a reply and the events after
//! it cannot change places. `task` turns a socket and a clock into inputs; nothing else of the room waits.

mod command;
mod driver;
mod heartbeat;
mod limit;

pub use driver::{Admission, Context, Upgraded, serve};
pub use limit::FailedLogins;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::{AuthError, Claim, Identity};
use crate::config::Limits;
use crate::router::{Denied, OnFull, Outbox, OutboxLimits, Refused, Routed, Router, Session};
use crate::websocket::Frame;
use command::Registering;
use heartbeat::{Beat, Heartbeat};
use limit::Rate;
use wire::{CloseCode, ErrorCode, Refusal};
use wire::{DecodeLimits, Envelope, Malformed, command as broker_command, decode, notice};

/// How long a publisher waits for a receiver's queue to be under half again (protocol.md, Pressure).
const PRESSURE_WAIT: Duration = Duration::from_millis(250);

/// How many requests of a connection that has not registered an adapter hears of.
const UNREGISTERED_RECORDED: u32 = 10;

/// How often a draining session looks whether its requests are finished.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Everything that can happen to a session.
pub enum Input<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary,
    /// A ping or pong: a sign of life.
    Pong,
    /// The deadline of [`Session::deadline`] has come.
    Timeout,
    /// What [`Effect::Verify`] found.
    Verified(Result<Identity, AuthError>),
    /// The broker drains; the session should come back after that many milliseconds.
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
    /// Do not read until the time has come, or all these outboxes are under half; with none, until the time has come.
    Pause(Instant, Vec<Arc<Outbox>>),
    /// Send what waits, then a Close frame, and end.
    Close(CloseCode),
}

/// What all sessions of a broker share.
pub struct Settings {
    limits: Limits,
    attempts: FailedLogins,
}

impl Settings {
    /// Settings with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { attempts: FailedLogins::new(limits.failed_registrations), limits }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// An outbox of the configured size.
    #[must_use]
    pub fn outbox(&self) -> Arc<Outbox> {
        Arc::new(Outbox::new(OutboxLimits {
            messages: self.limits.outbound_messages,
            bytes: self.limits.outbound_bytes,
            refuses: false,
        }))
    }
}

/// One connected application.
pub struct Connection {
    settings: Arc<Settings>,
    address: IpAddr,
    outbox: Arc<Outbox>,
    phase: Phase,
    heartbeat: Heartbeat,
    rate: Rate,
    /// Malformed messages in a row.
    malformed: u32,
    /// Requests on protected triples that came before a registration.
    unregistered_requests: u32,
    /// Draining, until when at most.
    drain: Option<(Instant, Instant)>,
    /// At the drain's limit: what was still asked has been answered for.
    gave_up: bool,
}

/// How far a session is.
enum Phase {
    /// Connected; has to register until then.
    Unregistered(Instant),
    /// The verifier looks at its token.
    Verifying(Box<Registering>),
    /// Its token proved nobody once too often; it is told then.
    Slowed(Instant, Box<Registering>),
    /// Registered; until then, if the proof does not hold for ever.
    Registered(Arc<Session>, Option<Instant>),
    /// Nothing happens any more.
    Ended,
}

impl Connection {
    /// A session of a connection that has just been opened from `address`.
    #[must_use]
    pub fn new(now: Instant, address: IpAddr, settings: Arc<Settings>, outbox: Arc<Outbox>) -> Self {
        let limits = &settings.limits;
        Self {
            address,
            outbox,
            phase: Phase::Unregistered(now + limits.registration),
            heartbeat: Heartbeat::new(now, limits.heartbeat, limits.missed_pings),
            rate: Rate::new(now, limits.rate, limits.burst),
            malformed: 0,
            unregistered_requests: 0,
            drain: None,
            gave_up: false,
            settings,
        }
    }

    /// Where its messages wait.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The registered session, if it is one.
    pub fn member(&self) -> Option<&Arc<Session>> {
        match &self.phase {
            Phase::Registered(member, _) => Some(member),
            Phase::Unregistered(_) | Phase::Verifying(_) | Phase::Slowed(..) | Phase::Ended => None,
        }
    }

    /// The largest message it may send now, in bytes; more after registration.
    pub fn message_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Registered(..) => self.settings.limits.message_bytes,
            _ => self.settings.limits.registration_bytes,
        }
    }

    /// When it wants [`Input::Timeout`] next.
    pub fn deadline(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Unregistered(until) | Phase::Slowed(until, _) => Some(*until),
            Phase::Verifying(registering) => Some(registering.until),
            Phase::Registered(_, until) => *until,
            Phase::Ended => return None,
        };
        let look = self.drain.map(|(look, _)| look);
        [own, look, Some(self.heartbeat.deadline())].into_iter().flatten().min()
    }

    /// Takes in what happened. The only mutation.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, router: &Router) -> Option<Effect> {
        let effect = match input {
            Input::Text(text) => self.message(now, Some(text), router),
            Input::Binary => self.message(now, None, router),
            Input::Pong => {
                self.heartbeat.hear();
                None
            }
            Input::Timeout => self.timeout(now, router),
            Input::Verified(outcome) => self.verified(now, outcome, router),
            Input::Drain(reconnect_after_ms) => {
                self.push(now, notice::draining(reconnect_after_ms));
                self.drain = Some((now, now + self.settings.limits.drain));
                self.drained(now, router)
            }
            Input::Overflow => self.close(now, router, CloseCode::SlowConsumer),
            Input::Gone => {
                self.leave(now, router);
                self.phase = Phase::Ended;
                None
            }
        };
        match (&effect, &self.phase) {
            (Some(Effect::Pause(until, _)), _) => self.heartbeat.pause(*until),
            (Some(Effect::Verify(_)), Phase::Verifying(registering)) => self.heartbeat.pause(registering.until),
            _ => {}
        }
        effect
    }

    /// A message, with its text unless it is a binary one. Whatever it is, it counts, and its sender's own queue does.
    fn message(&mut self, now: Instant, text: Option<&str>, router: &Router) -> Option<Effect> {
        self.heartbeat.hear();
        if matches!(self.phase, Phase::Ended) {
            return None;
        }
        let slow_down = self.rate.count(now).map(|until| Effect::Pause(until, Vec::new()));
        let limits = DecodeLimits::client(self.settings.limits.json_depth);
        let binary = || Refusal::new(ErrorCode::InvalidEnvelope, "a binary message; send text messages").into();
        let effect = match text.map_or_else(|| Err(binary()), |text| decode(text, limits)) {
            Err(malformed) => self.malformed(now, &malformed, router),
            Ok(envelope) => {
                self.malformed = 0;
                if envelope.triple().is_broker() {
                    self.command(now, &envelope, router)
                } else {
                    self.envelope(now, &envelope, router)
                }
            }
        };
        effect.or_else(|| self.wait_for_own(now)).or(slow_down)
    }

    /// An envelope for others.
    fn envelope(&mut self, now: Instant, envelope: &Envelope<'_>, router: &Router) -> Option<Effect> {
        let Phase::Registered(member, _) = &self.phase else {
            self.not_registered(now, envelope, router);
            return None;
        };
        match router.route(now, member, envelope) {
            Ok(Routed { receipt, mut pressed }) => {
                if let (Some(receipt), Some(id)) = (receipt, envelope.id()) {
                    self.push(now, notice::receipt(id, receipt.receivers, receipt.hint.as_deref()));
                }
                pressed.retain(|outbox| !Arc::ptr_eq(outbox, &self.outbox));
                (!pressed.is_empty()).then(|| Effect::Pause(now + PRESSURE_WAIT, pressed))
            }
            Err(Denied { refusal, is_request }) => {
                let frame = match is_request {
                    true => router.failure(envelope.triple(), envelope.id(), &refusal),
                    false => notice::error(envelope.id(), &refusal).into(),
                };
                self.push(now, frame);
                None
            }
        }
    }

    fn not_registered(&mut self, now: Instant, envelope: &Envelope<'_>, router: &Router) {
        let refusal = Refusal::new(
            ErrorCode::NotRegistered,
            "register first: send Broker/Application/Register with your application's name as 'source'",
        );
        let triple = envelope.triple();
        let frame = if router.policy().is_protected(triple) {
            let source = envelope.source().unwrap_or_default();
            self.unregistered_requests += 1;
            // What nobody proved must not wash away the record of what was.
            if self.unregistered_requests <= UNREGISTERED_RECORDED {
                router.tell_refused(&Refused { triple, source, user: None, session: None, refusal: &refusal });
            }
            router.failure(triple, envelope.id(), &refusal)
        } else if broker_command::is_command(triple) {
            notice::failure(triple, envelope.id(), &[], &refusal).into()
        } else {
            notice::error(envelope.id(), &refusal).into()
        };
        self.push(now, frame);
    }

    /// A session whose own queue is over half is not read until it has taken some: what it asks for only adds to it.
    /// If it takes nothing it ends as a slow consumer before that.
    fn wait_for_own(&self, now: Instant) -> Option<Effect> {
        let wait = self.settings.limits.slow_consumer;
        (!self.outbox.is_relieved()).then(|| Effect::Pause(now + wait, vec![Arc::clone(&self.outbox)]))
    }

    /// A message that is no envelope is answered; many in a row end the session.
    fn malformed(&mut self, now: Instant, malformed: &Malformed, router: &Router) -> Option<Effect> {
        self.push(now, notice::error(malformed.id.as_deref(), &malformed.refusal));
        self.malformed += 1;
        if self.malformed >= self.settings.limits.malformed {
            return self.close(now, router, CloseCode::Policy);
        }
        None
    }

    fn timeout(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        match &self.phase {
            Phase::Unregistered(until) if *until <= now => {
                return self.close(now, router, CloseCode::Unauthenticated);
            }
            Phase::Verifying(registering) if registering.until <= now => {
                return self.close(now, router, CloseCode::Unauthenticated);
            }
            Phase::Slowed(until, registering) if *until <= now => {
                let refusal = Refusal::new(
                    ErrorCode::RateLimited,
                    "too many failed registrations from this address in the last minute; check the token, then try \
                     again later (limits.failed_registrations)",
                );
                self.push(now, registering.failure(&refusal));
                return self.close(now, router, CloseCode::Unauthenticated);
            }
            Phase::Registered(_, Some(until)) if *until <= now => {
                let refusal = Refusal::new(
                    ErrorCode::Unauthenticated,
                    "the proof of who this session is has grown old (auth.session_max): connect again, and register with \
                     a new one",
                );
                self.push(now, notice::error(None, &refusal));
                return self.close(now, router, CloseCode::Unauthenticated);
            }
            _ => {}
        }
        match self.heartbeat.beat(now) {
            Beat::Rest => {}
            Beat::Ping => self.outbox.ping(),
            Beat::Dead => return self.close(now, router, CloseCode::HeartbeatMissed),
        }
        self.drained(now, router)
    }

    /// While the broker drains: ends as soon as nothing that it asked, or was given, is open, at the latest at the limit.
    fn drained(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let (_, until) = self.drain?;
        let in_flight = self.member().is_some_and(|member| router.is_in_flight(member));
        if in_flight && now < until {
            self.drain = Some((now + DRAIN_LOOK, until));
            return None;
        }
        if let Some(member) = self.member().filter(|_| in_flight && !self.gave_up) {
            router.give_up_all(now, member);
            // One more look: a handler that ends at this moment, on another thread, may have taken an answer upon itself.
            self.gave_up = true;
            self.drain = Some((now + DRAIN_LOOK, until));
            return None;
        }
        self.close(now, router, CloseCode::Restart)
    }

    fn close(&mut self, now: Instant, router: &Router, code: CloseCode) -> Option<Effect> {
        if matches!(self.phase, Phase::Ended) {
            return None;
        }
        self.leave(now, router);
        self.phase = Phase::Ended;
        Some(Effect::Close(code))
    }

    fn leave(&self, now: Instant, router: &Router) {
        if let Phase::Registered(member, _) = &self.phase {
            router.detach(now, member);
        }
    }

    /// An outbox that is ending has its own task to say so.
    fn push(&self, now: Instant, frame: impl Into<Frame>) {
        self.outbox.push(now, frame.into(), OnFull::Close).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::SystemTime;

    use super::*;
    use crate::auth::{Permission, Permissions, Principal};
    use crate::config::Config;
    use crate::router::{Ids, Policy};

    /// A session that is registered, and that takes nothing from now on.
    fn registered(limits: Limits) -> (Instant, Connection, Router) {
        registered_for(limits, None)
    }

    /// The same, with a proof that holds for so long.
    #[expect(clippy::disallowed_methods, reason = "where the clock begins is no matter")]
    fn registered_for(limits: Limits, lasts: Option<Duration>) -> (Instant, Connection, Router) {
        let now = Instant::now();
        let policy = Policy::new(&Config::default());
        let router = Router::new(now, SystemTime::UNIX_EPOCH, policy, Ids::seeded(1), Vec::new());
        let settings = Arc::new(Settings::new(limits));
        let outbox = settings.outbox();
        let mut session = Connection::new(now, Ipv4Addr::LOCALHOST.into(), settings, outbox);
        let text = r#"{"channel":"Broker","topic":"Application","subtopic":"Register","source":"phone"}"#;
        assert!(matches!(session.handle(now, Input::Text(text), &router), Some(Effect::Verify(_))));
        let identity = Identity {
            principal: Principal::User("alice".into()),
            exclusive: false,
            permissions: Permissions { observe: false, handle: Permission::All, request: Permission::All },
            lasts,
        };
        assert!(session.handle(now, Input::Verified(Ok(identity)), &router).is_none());
        (now, session, router)
    }

    /// What makes a session that reads no answers wait: the queue that is its own.
    fn check_own_queue(bad: fn() -> Input<'static>) {
        let (now, mut session, router) =
            registered(Limits { outbound_messages: 32, rate: 0, malformed: 1000, ..Limits::default() });
        for _ in 0..32 {
            match session.handle(now, bad(), &router) {
                None => {}
                Some(Effect::Pause(_, own)) => return assert!(Arc::ptr_eq(&own[0], session.outbox())),
                Some(Effect::Verify(_) | Effect::Close(_)) => break,
            }
        }
        panic!("it was read until its queue overflowed");
    }

    #[test]
    fn whoever_reads_no_answers_to_bad_messages_is_not_read_from() {
        check_own_queue(|| Input::Text("no JSON"));
        check_own_queue(|| Input::Binary);
    }

    #[test]
    fn a_proof_that_grows_old_ends_its_session_and_no_other() {
        let quiet = || Limits { heartbeat: Duration::from_hours(24), ..Limits::default() };
        let (now, mut session, router) = registered_for(quiet(), Some(Duration::from_hours(12)));
        let until = now + Duration::from_hours(12);
        assert_eq!(session.deadline(), Some(until));
        assert!(session.handle(now + Duration::from_hours(11), Input::Timeout, &router).is_none());
        let effect = session.handle(until, Input::Timeout, &router);
        assert!(matches!(effect, Some(Effect::Close(CloseCode::Unauthenticated))));
        let mut frames = Vec::new();
        session.outbox().take(8, &mut frames);
        assert!(frames.last().is_some_and(|frame| frame.text().contains("auth.session_max")));
        assert!(session.member().is_none());

        let (now, mut session, router) = registered(quiet());
        assert_eq!(session.deadline(), Some(now + Duration::from_hours(24)));
        assert!(session.handle(now + Duration::from_hours(12), Input::Timeout, &router).is_none());
    }

    #[test]
    fn bad_messages_count_for_the_rate() {
        for bad in [|| Input::Text("no JSON"), || Input::Binary] {
            let (now, mut session, router) = registered(Limits { rate: 10, burst: 3, ..Limits::default() });
            let paused =
                (0..4).filter(|_| matches!(session.handle(now, bad(), &router), Some(Effect::Pause(..)))).count();
            assert_eq!(paused, 2, "Register and two of them are the burst");
        }
    }
}
