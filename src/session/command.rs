//! The Broker commands of a session: registering, subscribing, and the small ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::auth::{AuthError, Claim, Identity};
use crate::router::{Application, Listed, Registration, Router};
use crate::session::{Effect, Phase, Session};
use wire::command::{self, Command, Register, Subscribe, Unsubscribe};
use wire::{CloseCode, ErrorCode, Refusal};
use wire::{Envelope, Triple, notice};

/// How long an address that failed too often waits for its answer.
const SLOWED_BY: Duration = Duration::from_secs(1);

/// The version of the protocol.
const PROTOCOL: u32 = 1;

/// The broker's name and version.
const SERVER: &str = concat!("switchboard/", env!("CARGO_PKG_VERSION"));

/// A registration while the verifier looks at it.
pub(super) struct Registering {
    source: String,
    id: Option<String>,
    echo: bool,
    resume: bool,
    pub(super) until: Instant,
}

impl Registering {
    pub(super) fn failure(&self, refusal: &Refusal) -> String {
        notice::failure(&register(), self.id.as_deref(), &[], refusal)
    }
}

fn register() -> Triple<'static> {
    notice::triple("Application", "Register")
}

/// What answers a command: more than `Success`, or why not.
type Answer = Result<Value, Refusal>;

/// Nothing to say but that it was done.
const DONE: Value = Value::Null;

impl Session {
    pub(super) fn command(&mut self, now: Instant, envelope: &Envelope<'_>, router: &Router) -> Option<Effect> {
        let triple = envelope.triple();
        let may_come_first =
            command::is(triple, "Application", "Register") || command::is(triple, "Connection", "Ping");
        if self.member().is_none() && !may_come_first {
            self.not_registered(now, envelope, router);
            return None;
        }
        tracing::debug!(topic = &*triple.topic, subtopic = &*triple.subtopic, "a command");
        let answer = match self.read(envelope) {
            Err(refusal) if !command::is_command(triple) => {
                self.push(now, notice::error(envelope.id(), &refusal));
                return None;
            }
            Err(refusal) => Err(refusal),
            Ok(Command::Register(options)) => match self.register(envelope, *options) {
                Ok(effect) => return effect,
                Err(refusal) => Err(refusal),
            },
            Ok(Command::Unregister) => {
                self.unregister(now, router);
                Ok(DONE)
            }
            Ok(Command::Ping) => Ok(DONE),
            Ok(Command::Subscribe(wanted)) => match self.subscribe(now, &wanted, envelope.id(), router) {
                Ok(()) => return None,
                Err(refusal) => Err(refusal),
            },
            Ok(command) => self.registered(now, command, router),
        };
        let frame = match answer {
            Ok(more) => notice::success(triple, envelope.id(), more),
            Err(refusal) => notice::failure(triple, envelope.id(), &[], &refusal),
        };
        self.push(now, frame);
        None
    }

    fn read(&self, envelope: &Envelope<'_>) -> Result<Command, Refusal> {
        let command = Command::read(envelope)?;
        match self.member() {
            Some(_) if matches!(command, Command::Register(_)) => Err(Refusal::new(
                ErrorCode::AlreadyRegistered,
                "this session is registered; send Broker/Application/Unregister first, or open another connection",
            )),
            Some(member) => member.check_source(envelope).map(|()| command),
            None => Ok(command),
        }
    }

    /// The commands that only a registered session has.
    fn registered(&mut self, now: Instant, command: Command, router: &Router) -> Answer {
        let Some(member) = self.member() else { return Ok(DONE) };
        match command {
            Command::ListApplications => Ok(applications(&router.applications(member))),
            Command::SetState(state) => {
                router.set_state(member, state);
                Ok(DONE)
            }
            Command::Unsubscribe(Unsubscribe::Id(id)) => router.unsubscribe(now, member, &id).map(|()| DONE),
            Command::Unsubscribe(Unsubscribe::Matching(filter)) => {
                router.unsubscribe_matching(now, member, &filter).map(|()| DONE)
            }
            Command::ListSubscriptions => Ok(subscriptions(&router.subscriptions(member))),
            Command::Cancel(id) => router.cancel(now, member, &id).map(|()| DONE),
            Command::Register(_) | Command::Unregister | Command::Ping | Command::Subscribe(_) => Ok(DONE),
        }
    }

    fn register(&mut self, envelope: &Envelope<'_>, options: Register) -> Result<Option<Effect>, Refusal> {
        let Phase::Unregistered(until) = self.phase else { return Ok(None) };
        let Some(source) = envelope.source() else {
            return Err(Refusal::new(
                ErrorCode::InvalidEnvelope,
                "the field 'source' is missing: it is the name to register under",
            ));
        };
        if options.will {
            return Err(Refusal::new(
                ErrorCode::InvalidEnvelope,
                "data.will: this version keeps no wills; register without it",
            ));
        }
        let source = source.to_owned();
        let claim = Claim { source: source.clone(), user: options.user, token: options.token };
        let id = envelope.id().map(str::to_owned);
        // Nobody waits longer for a verifier than for a registration: the deadline goes on.
        let registering = Registering { source, id, echo: options.echo, resume: options.resume, until };
        self.phase = Phase::Verifying(Box::new(registering));
        Ok(Some(Effect::Verify(claim)))
    }

    pub(super) fn verified(
        &mut self,
        now: Instant,
        outcome: Result<Identity, AuthError>,
        router: &Router,
    ) -> Option<Effect> {
        let Phase::Verifying(registering) = std::mem::replace(&mut self.phase, Phase::Ended) else { return None };
        match outcome {
            Ok(identity) => self.attach(now, &registering, identity, router),
            Err(AuthError::Unauthenticated(_)) if self.settings.attempts.fail(now, self.address) => {
                let until = now + SLOWED_BY;
                self.phase = Phase::Slowed(until, registering);
                Some(Effect::Pause(until, Vec::new()))
            }
            Err(AuthError::Unauthenticated(why)) => Some(self.refuse(
                now,
                &registering,
                &Refusal::new(ErrorCode::Unauthenticated, why),
                CloseCode::Unauthenticated,
            )),
            Err(AuthError::Forbidden(why)) => {
                Some(self.refuse(now, &registering, &Refusal::new(ErrorCode::Forbidden, why), CloseCode::Forbidden))
            }
            Err(AuthError::Unavailable(why)) => {
                self.push(now, registering.failure(&Refusal::new(ErrorCode::UpstreamUnavailable, why)));
                self.phase = Phase::Unregistered(registering.until);
                None
            }
        }
    }

    /// Answers a registration that is refused for good, and ends the session.
    fn refuse(&self, now: Instant, registering: &Registering, refusal: &Refusal, code: CloseCode) -> Effect {
        // The words are the broker's own, with nothing of a token in them; the person at the screen never sees them.
        let (source, reason) = (&*registering.source, &*refusal.message);
        tracing::info!(source, code = refusal.code.as_str(), reason, "a registration was refused");
        self.push(now, registering.failure(refusal));
        Effect::Close(code)
    }

    fn attach(
        &mut self,
        now: Instant,
        registering: &Registering,
        identity: Identity,
        router: &Router,
    ) -> Option<Effect> {
        let until = identity.lasts.map(|lasts| now + lasts);
        let registration = Registration {
            source: registering.source.clone(),
            identity,
            echo: registering.echo,
            outbox: Arc::clone(&self.outbox),
        };
        let member = match router.attach(now, registration) {
            Ok(member) => member,
            Err(refusal) => return Some(self.refuse(now, registering, &refusal, CloseCode::Forbidden)),
        };
        tracing::info!(source = member.source(), session = %member.id(), "registered");
        let limits = &self.settings.limits;
        let mut more = json!({
            "SessionId": member.id().to_string(),
            "User": member.user(),
            "Protocol": PROTOCOL,
            "Server": SERVER,
            "HeartbeatSeconds": seconds(limits.heartbeat),
            "MaxMessageBytes": limits.message_bytes,
        });
        if let (true, Value::Object(more)) = (registering.resume, &mut more) {
            more.insert("Resumed".into(), false.into());
            more.insert("Reason".into(), "this version resumes no sessions".into());
        }
        self.push(now, notice::success(&register(), registering.id.as_deref(), more));
        self.phase = Phase::Registered(member, until);
        None
    }

    /// Subscribes; the router itself replies, before anything that the subscription brings.
    fn subscribe(
        &self,
        now: Instant,
        wanted: &Subscribe,
        in_reply_to: Option<&str>,
        router: &Router,
    ) -> Result<(), Refusal> {
        let Some(member) = self.member() else { return Ok(()) };
        if wanted.recover {
            return Err(Refusal::new(
                ErrorCode::InvalidEnvelope,
                "data.recover: this version keeps no history; subscribe without it",
            ));
        }
        router.subscribe(now, member, wanted, |id| {
            let mut more = json!({ "SubscriptionId": id.to_string() });
            if let (Some(hint), Value::Object(more)) = (wanted.hint(), &mut more) {
                more.insert("Hint".into(), hint.into());
            }
            Some(notice::success(&notice::triple("Subscription", "Subscribe"), in_reply_to, more).into())
        })
    }

    fn unregister(&mut self, now: Instant, router: &Router) {
        self.leave(now, router);
        self.phase = Phase::Unregistered(now + self.settings.limits.registration);
    }
}

/// Whole seconds as an integer, others as a fraction.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 { duration.as_secs().into() } else { duration.as_secs_f64().into() }
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
