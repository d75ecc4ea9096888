//! The Broker commands of a session: registering, subscribing, and the small ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::audit::{Entry, Event};
use crate::auth::{AuthError, Claim, Identity, Principal};
use crate::connection::log::Leaving;
use crate::connection::message::Next;
use crate::connection::pause::Pause;
use crate::connection::proof::Proven;
use crate::connection::renew::Renewing;
use crate::connection::timer::Timer;
use crate::connection::{Connection, Effect, HandshakeToken, Phase, network_of};
use crate::router::explain::{self, About};
use crate::router::{
    Application, Ending, HeldLine, Listed, LookTicket, NotAttached, Position, Recovered, RefusedMessage, Registered,
    Registration,
};
use crate::router::{Resumption, Router, Session, Subscribed, Wanted};
use crate::telemetry::metrics::{EnvelopeKind, RegistrationOutcome};
use wire::command::{self, Command, Explain, Register, Resume, RoleName, Subscribe, Unsubscribe, WillOption};
use wire::{Close, CloseCode, ErrorCode, Refusal};
use wire::{Envelope, Triple, notice};

/// How long an address that failed too often waits for its answer.
pub(super) const DELAY: Duration = Duration::from_secs(1);

/// How often the time to register starts anew because a verifier could not answer. Anybody can name a key that it does not
/// know, and so would keep one of `limits.unregistered` connections for ever.
const RESTARTS_MAX: u8 = 6;

/// As how many messages a question counts against the rate of its session: an answer can take as long as a publish to many.
const EXPLAIN_COUNTS: u32 = 100;

/// The version of the protocol.
const PROTOCOL: u32 = 1;

/// The broker's name and version.
const SERVER: &str = concat!("switchboard/", env!("CARGO_PKG_VERSION"));

/// What the verifier looks at.
pub(super) enum Verifying {
    Register(Registering),
    Renew(Renewing),
}

/// A registration while the verifier looks at it.
pub(super) struct Registering {
    source: String,
    id: Option<String>,
    echo: Option<bool>,
    resume: Resume,
    will: WillOption,
    /// What is verified, and again if there is a reload meanwhile.
    claim: Claim,
    /// The number of the last reload when the verification began.
    reloads: u64,
}

impl Registering {
    #[cfg(test)]
    pub(super) fn of(source: &str) -> Self {
        let claim = Claim { source: source.to_owned(), user: None, token: None, certificate: None };
        let (echo, resume, will) = (None, Resume::No, WillOption::Absent);
        Self { source: source.to_owned(), id: None, echo, resume, will, claim, reloads: 0 }
    }

    pub(super) fn failure(&self, refusal: &Refusal) -> String {
        notice::failure(&register(), self.id.as_deref(), &[], refusal)
    }
}

pub(super) fn register() -> Triple<'static> {
    notice::triple("Application", "Register")
}

/// What answers a command: more than `Success`, or why not.
type Answer = Result<Value, Refusal>;

/// Nothing to say but that it was done.
const DONE: Value = Value::Null;

impl Connection {
    pub(super) fn command(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        router: &Router,
        mut line: Option<&mut HeldLine<'_>>,
    ) -> Next {
        if !self.is_handled_again() {
            self.settings.metrics.traffic.undelivered(EnvelopeKind::Command);
        }
        let triple = envelope.triple();
        let is_register = command::is(triple, "Application", "Register");
        if let Some(line) = line.as_mut().filter(|_| !is_register) {
            line.count_received();
        }
        // They have a token.
        self.secret_read |= is_register || command::is(triple, "Application", "Renew");
        let may_come_first = is_register || command::is(triple, "Connection", "Ping");
        if self.session().is_none() && !may_come_first {
            self.not_registered(now, envelope, router);
            return Next::Stay(None);
        }
        tracing::debug!(topic = &*triple.topic, subtopic = &*triple.subtopic, "a command");
        let answer = match self.read(envelope) {
            Err(refusal) if !command::is_command(triple) => {
                // It may be a misspelt Register.
                self.secret_read = true;
                self.note_refusal(now, router, (Some(triple), envelope.id()), &refusal);
                self.push(now, notice::error(envelope.id(), &refusal));
                return Next::Stay(None);
            }
            Err(refusal) => Err(refusal),
            Ok(Command::Register(options)) => match self.register(now, envelope, *options, router) {
                Ok(effect) => return Next::Stay(effect),
                Err(refusal) => Err(refusal),
            },
            Ok(Command::Renew(options)) => match self.session().map(Arc::clone) {
                Some(session) => return Next::Stay(Some(self.renew(now, &session, envelope.id(), options, router))),
                None => Err(impossible("a renewal without a session")),
            },
            Ok(Command::Unregister) => return Next::Unregister(envelope.id().map(str::to_owned)),
            Ok(Command::Acknowledge(received)) => match self.acknowledge(received, line) {
                Ok(()) if envelope.id().is_none() => return Next::Stay(None),
                outcome => outcome.map(|()| DONE),
            },
            Ok(Command::Ping) => Ok(DONE),
            Ok(Command::Subscribe(wanted)) => match self.subscribe(now, &wanted, envelope.id(), router) {
                Ok(None) => return Next::Stay(None),
                Ok(Some(ticket)) => return Next::Wait(ticket),
                Err(refusal) => Err(refusal),
            },
            Ok(command) => self.registered(now, command, router),
        };
        let frame = match answer {
            Ok(more) => notice::success(triple, envelope.id(), more),
            Err(refusal) => {
                if is_register {
                    self.count_registration(RegistrationOutcome::Refused(refusal.code));
                }
                self.note_refusal(now, router, (Some(triple), envelope.id()), &refusal);
                notice::failure(triple, envelope.id(), &[], &refusal)
            }
        };
        if is_register && self.attachment != 0 {
            // What answers a Register is not counted, so it is not in the queue of the session.
            self.replies.push_back(frame.into());
        } else {
            self.push(now, frame);
        }
        Next::Stay(None)
    }

    fn read(&self, envelope: &Envelope<'_>) -> Result<Command, Refusal> {
        let command = Command::read(envelope)?;
        match self.session() {
            Some(_) if matches!(command, Command::Register(_)) => Err(Refusal::new(
                ErrorCode::AlreadyRegistered,
                "this session is registered; send Broker/Application/Unregister first, or open another connection",
            )),
            Some(session) => session.check_source(envelope).map(|()| command),
            None => Ok(command),
        }
    }

    /// The commands that only a registered session has.
    fn registered(&mut self, now: Instant, command: Command, router: &Router) -> Answer {
        let Some(session) = self.session() else { return Err(impossible("a command without a session")) };
        match command {
            Command::ListApplications => Ok(applications(&router.applications(session))),
            Command::SetState(state) => {
                router.set_state(now, session, state);
                Ok(DONE)
            }
            Command::Unsubscribe(Unsubscribe::Id(id)) => {
                router.unsubscribe(now, session, &id)?;
                tracing::debug!(source = session.source(), subscription = id, "unsubscribed");
                Ok(DONE)
            }
            Command::Unsubscribe(Unsubscribe::Matching(filter)) => {
                router.unsubscribe_matching(now, session, &filter)?;
                let role = filter.role.map(RoleName::as_str);
                let (source, pattern) = (session.source(), &filter.pattern);
                tracing::debug!(source, %pattern, role, group = filter.group, user = filter.user, "unsubscribed");
                Ok(DONE)
            }
            Command::ListSubscriptions => Ok(subscriptions(&router.subscriptions(session))),
            Command::Explain(question) => {
                let answer = explain(now, session, &question, self.limits.json_depth, router)?;
                self.rate.count(now, EXPLAIN_COUNTS - 1);
                Ok(answer)
            }
            Command::Cancel(id) => router.cancel(now, session, &id).map(|()| DONE),
            Command::Register(_)
            | Command::Renew(_)
            | Command::Unregister
            | Command::Ping
            | Command::Acknowledge(_)
            | Command::Subscribe(_) => Err(impossible("a command that was handled before")),
        }
    }

    fn register(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        options: Register,
        router: &Router,
    ) -> Result<Option<Effect>, Refusal> {
        let Some(source) = envelope.source() else {
            return Err(Refusal::new(
                ErrorCode::InvalidEnvelope,
                "the field 'source' is missing: it is the name to register under",
            ));
        };
        let source = source.to_owned();
        let certificate = self.certificate.clone();
        let token = HandshakeToken::agreed(self.token.as_deref(), options.token);
        let id = envelope.id().map(str::to_owned);
        let (echo, resume, will, reloads) = (options.echo, options.resume, options.will, router.reloads());
        let differ = token.is_err();
        let token = token.unwrap_or_default();
        let claim = Claim { source: source.clone(), user: options.user, token, certificate };
        let registering = Registering { source, id, echo, resume, will, claim, reloads };
        if differ {
            self.verifying = Some(Box::new(Verifying::Register(registering)));
            let why = "the tokens differ: all places of a connection that have a token (Authorization, the sub-protocol, \
                       data.token) must have the same one";
            return Ok(self.verified(now, Err(AuthError::Unauthenticated(why.into())), router));
        }
        Ok(Some(self.verify(registering)))
    }

    fn verify(&mut self, registering: Registering) -> Effect {
        let claim = registering.claim.clone();
        self.verifying = Some(Box::new(Verifying::Register(registering)));
        // The deadline for registering goes on: no connection waits longer for a verifier.
        self.heartbeat.not_read();
        Effect::Verify(claim)
    }

    pub(super) fn verified(
        &mut self,
        now: Instant,
        outcome: Result<Identity, AuthError>,
        router: &Router,
    ) -> Option<Effect> {
        if self.is_refusal_delayed() {
            // It is decided already. This answers an earlier question.
            return None;
        }
        let mut registering = match *self.verifying.take()? {
            Verifying::Register(registering) => registering,
            Verifying::Renew(renewing) => return self.renewed(now, renewing, outcome, router),
        };
        let refusal = match outcome {
            Ok(identity) => return self.attach(now, registering, identity, router),
            Err(AuthError::Unauthenticated(why)) => {
                if self.settings.failed_logins.fail(now, self.address) {
                    registering.claim.token = None;
                    self.verifying = Some(Box::new(Verifying::Register(registering)));
                    self.timers.set(Timer::Delay, now + DELAY);
                    return None;
                }
                Refusal::new(ErrorCode::Unauthenticated, why)
            }
            Err(AuthError::Forbidden(why)) => Refusal::new(ErrorCode::Forbidden, why),
            Err(AuthError::Unavailable(why)) => {
                let refusal = Refusal::new(ErrorCode::UpstreamUnavailable, why);
                self.count_registration(RegistrationOutcome::Refused(refusal.code));
                self.record_refusal(&registering, None, &refusal);
                self.note_refused_register(now, router, &registering, &refusal);
                self.push(now, registering.failure(&refusal));
                if self.restarts < RESTARTS_MAX {
                    self.restarts += 1;
                    self.timers.set(Timer::Registration, now + self.limits.registration);
                }
                return None;
            }
        };
        Some(self.refuse(now, &registering, None, &refusal, router))
    }

    /// The delay after too many failed registrations is over.
    pub(super) fn refuse_delayed(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let verifying = self.verifying.take()?;
        let refusal = Refusal::new(
            ErrorCode::RateLimited,
            "too many failed registrations from this address in the last minute; check the token, then try again later \
             (limits.failed_registrations)",
        );
        match *verifying {
            Verifying::Register(registering) => Some(self.refuse(now, &registering, None, &refusal, router)),
            Verifying::Renew(renewing) => {
                self.refuse_renewal(now, &renewing, &refusal, router);
                None
            }
        }
    }

    /// Answers a registration that is refused, and closes the connection. `principal`: what was proved.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        registering: &Registering,
        principal: Option<&Principal>,
        refusal: &Refusal,
        router: &Router,
    ) -> Effect {
        self.count_registration(RegistrationOutcome::Refused(refusal.code));
        self.record_refusal(registering, principal, refusal);
        self.log_refused_registration(now, &registering.source, refusal);
        self.note_refused_register(now, router, registering, refusal);
        self.push(now, registering.failure(refusal));
        let close = match refusal.code {
            ErrorCode::Forbidden => CloseCode::Forbidden.into(),
            ErrorCode::SourceInUse => CloseCode::SourceInUse.into(),
            ErrorCode::TooManySessions => Close::new(CloseCode::SourceInUse, "too many sessions"),
            ErrorCode::RateLimited => Close::new(CloseCode::Unauthenticated, "too many failed registrations"),
            _ => CloseCode::Unauthenticated.into(),
        };
        self.close(now, router, close)
    }

    /// Logs and records that a registration was refused.
    fn note_refused_register(&self, now: Instant, router: &Router, registering: &Registering, refusal: &Refusal) {
        self.log_refusal(Some(&register()), refusal);
        router.note_refused(
            now,
            &RefusedMessage {
                session: None,
                source: &registering.source,
                address: network_of(self.address),
                triple: Some(&register()),
                id: registering.id.as_deref(),
                code: refusal.code,
            },
        );
    }

    fn count_registration(&self, outcome: RegistrationOutcome) {
        self.settings.metrics.registrations.count(outcome);
    }

    fn record_refusal(&self, registering: &Registering, principal: Option<&Principal>, refusal: &Refusal) {
        if let Some(audit) = &self.settings.audit {
            audit.record_unregistered(&Entry {
                outcome: Some(refusal.code),
                source: Some(&registering.source),
                user: principal.and_then(Principal::user),
                address: Some(self.address),
                target: Some(register().to_string().into()),
                ..Entry::new(Event::RegistrationRefused)
            });
        }
    }

    fn attach(
        &mut self,
        now: Instant,
        mut registering: Registering,
        identity: Identity,
        router: &Router,
    ) -> Option<Effect> {
        let (proven, principal) = (Proven::new(now, &identity), identity.principal.clone());
        let registration = Registration {
            source: registering.source.clone(),
            identity,
            echo: registering.echo.unwrap_or_default(),
            address: Some(self.address),
            outbox: self.settings.outbox(),
            will: match &registering.will {
                WillOption::Given(text) => Some(text.clone()),
                WillOption::Absent | WillOption::None => None,
            },
        };
        let Registering { resume, echo, will, reloads, .. } = &registering;
        let wanted = Wanted { resume, echo: *echo, keeps_will: *will == WillOption::Absent, reloads: *reloads };
        let Registered { session, attachment, resumption } = match router.register(now, registration, &wanted) {
            Ok(Some(registered)) => registered,
            Ok(None) => {
                registering.reloads = router.reloads();
                return Some(self.verify(registering));
            }
            Err(NotAttached::Refused(refusal)) => {
                return Some(self.refuse(now, &registering, Some(&principal), &refusal, router));
            }
            Err(NotAttached::Will(refusal)) => {
                self.count_registration(RegistrationOutcome::Refused(refusal.code));
                self.record_refusal(&registering, Some(&principal), &refusal);
                self.note_refused_register(now, router, &registering, &refusal);
                self.push(now, registering.failure(&refusal));
                return None;
            }
        };
        let is_resumed = matches!(resumption, Resumption::Resumed { .. });
        self.count_registration(if is_resumed { RegistrationOutcome::Resumed } else { RegistrationOutcome::Ok });
        self.log_registered(now, &session, is_resumed);
        let expires = self.keep_proof(now, proven);
        let limits = &self.limits;
        let more = json!({
            "SessionId": session.id().to_string(),
            "User": session.user(),
            "Protocol": PROTOCOL,
            "Server": SERVER,
            "HeartbeatSeconds": seconds(limits.heartbeat),
            "MaxMessageBytes": limits.message_bytes,
            "ExpiresInSeconds": expires,
        });
        let Value::Object(more) = more else { return None };
        (self.phase, self.attachment) = (Phase::Registered(session), attachment);
        self.unregistered = None;
        self.timers.stop(Timer::Registration);
        self.push_registered(now, registering.id.as_deref(), more, resumption);
        self.watch_proof(now);
        None
    }

    /// Subscribes; the router itself replies, before anything that the subscription brings. With a ticket, nothing was done
    /// yet.
    fn subscribe(
        &mut self,
        now: Instant,
        wanted: &Subscribe,
        in_reply_to: Option<&str>,
        router: &Router,
    ) -> Result<Option<LookTicket>, Refusal> {
        let found = self.take_found();
        let Some(session) = self.session() else { return Err(impossible("a subscription without a session")) };
        let (mut subscription, mut narrowed, mut recovered) = (None, false, None);
        let waits = router.subscribe_when_read(now, session, wanted, found, |subscribed| {
            (subscription, narrowed, recovered) = (Some(subscribed.id), subscribed.is_narrowed, subscribed.recovered);
            let more = subscribed_with(&subscribed, wanted);
            Some(notice::success(&notice::triple("Subscription", "Subscribe"), in_reply_to, more).into())
        })?;
        if waits.is_some() {
            return Ok(waits);
        }
        tracing::debug!(
            source = session.source(),
            pattern = %wanted.pattern,
            role = wanted.role.as_str(),
            group = wanted.group,
            user = wanted.user,
            subscription = subscription.map(tracing::field::display),
            narrowed,
            "subscribed"
        );
        if matches!(recovered, Some(Recovered::Replayed(1..))) {
            let pause = Pause::Replay(Arc::clone(session));
            self.begin_pause(now, pause, now + self.limits.slow_consumer);
        }
        Ok(None)
    }

    /// Ends the session as its client wishes. The reply follows everything of the session.
    pub(super) fn unregister(&mut self, now: Instant, id: Option<&str>, router: &Router) {
        self.leave(now, router, &Leaving { reason: "unregistered", code: None, ending: Ending::Unregistered });
        self.push(now, notice::success(&notice::triple("Application", "Unregister"), id, DONE));
        self.unregistered = Some(self.settings.unregistered.enter().0);
        self.end_pause(now);
        self.timers.set(Timer::Registration, now + self.limits.registration);
    }
}

/// What the reply to Subscribe has.
fn subscribed_with(subscribed: &Subscribed, wanted: &Subscribe) -> Value {
    let mut more = Map::new();
    more.insert("SubscriptionId".into(), subscribed.id.to_string().into());
    more.extend(subscribed.is_narrowed.then(|| ("Narrowed".to_owned(), true.into())));
    if let Some(Position { offset, epoch }) = &subscribed.position {
        more.insert("Epoch".into(), (**epoch).into());
        more.insert("Offset".into(), (*offset).into());
    }
    match subscribed.recovered {
        None => {}
        Some(Recovered::Replayed(count)) => {
            more.insert("Recovered".into(), true.into());
            more.insert("Replayed".into(), count.into());
        }
        Some(Recovered::Lost(reason)) => {
            more.insert("Recovered".into(), false.into());
            more.insert("RecoverReason".into(), reason.as_str().into());
        }
    }
    more.extend(wanted.pattern.hint().map(|hint| ("Hint".to_owned(), hint.into())));
    more.into()
}

/// A state that cannot be, which a test would meet as a panic. In service it costs its session an answer.
fn impossible(what: &'static str) -> Refusal {
    debug_assert!(false, "{what}");
    tracing::error!(what, "an impossible state");
    Refusal::new(ErrorCode::Internal, "the broker failed; its log says more")
}

/// Whole seconds as an integer, others as a fraction.
pub(super) fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 { duration.as_secs().into() } else { duration.as_secs_f64().into() }
}

/// What answers a session that asks what would become of an envelope.
fn explain(now: Instant, session: &Arc<Session>, question: &Explain, json_depth: usize, router: &Router) -> Answer {
    let envelope = explain::envelope(&question.envelope, json_depth)?;
    let about = question.to.as_ref().map(|to| About { source: &to.source, user: to.user.as_deref() });
    Ok(router.explain_to_sender(now, session, &envelope, about.as_ref()).on_the_wire())
}

fn applications(rows: &[Application]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "Source": row.source,
                "User": row.user,
                "Since": humantime::format_rfc3339_millis(row.since).to_string(),
                "Sessions": row.sessions,
                "State": row.state.as_str(),
            })
        })
        .collect();
    json!({ "Applications": rows })
}

fn subscriptions(rows: &[Listed]) -> Value {
    let part = |part: &Option<Box<str>>| part.as_deref().unwrap_or("*").to_owned();
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "SubscriptionId": row.id.to_string(),
                "Channel": part(&row.pattern.channel),
                "Topic": part(&row.pattern.topic),
                "Subtopic": part(&row.pattern.subtopic),
                "Role": row.role.as_str(),
                "Group": row.group,
            })
        })
        .collect();
    json!({ "Subscriptions": rows })
}
