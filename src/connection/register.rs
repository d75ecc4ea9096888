//! `Broker/Application/Register`: from the claim to a session, or to a refusal.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::audit::{Entry, Event};
use crate::auth::{AuthError, Claim, Identity, Principal};
use crate::connection::fetching::Fetching;
use crate::connection::proof::Proven;
use crate::connection::renew::Renewing;
use crate::connection::timer::Timer;
use crate::connection::{Connection, Effect, HandshakeToken, Phase, network_of};
use crate::router::{
    Fetched, LeaseHold, NotAttached, RefusedMessage, Registered, Registration, Resumption, Router, Wanted,
};
use crate::telemetry::metrics::RegistrationOutcome;
use wire::command::{Register, Resume, WillOption};
use wire::{Close, CloseCode, Envelope, ErrorCode, Refusal, Triple, notice};

/// How long an address that failed too often waits for its answer.
pub(super) const DELAY: Duration = Duration::from_secs(1);

/// How often the time to register starts anew because a verifier could not answer. Anybody can name a key that it does not
/// know, and so would keep one of `limits.unregistered` connections for ever.
const RESTARTS_MAX: u8 = 6;

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
    /// What became of its session, if another node was asked for it.
    pub(super) fetched: Option<Fetched>,
}

impl Registering {
    #[cfg(test)]
    pub(super) fn of(source: &str) -> Self {
        let claim = Claim { source: source.to_owned(), user: None, token: None, certificate: None };
        let (echo, resume, will) = (None, Resume::No, WillOption::Absent);
        Self { source: source.to_owned(), id: None, echo, resume, will, claim, reloads: 0, fetched: None }
    }

    /// The name to register under.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn failure(&self, refusal: &Refusal) -> String {
        notice::failure(&register(), self.id.as_deref(), &[], refusal)
    }
}

pub(super) fn register() -> Triple<'static> {
    notice::triple("Application", "Register")
}

impl Connection {
    pub(super) fn register(
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
        let registering = Registering { source, id, echo, resume, will, claim, reloads, fetched: None };
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
            Ok(identity) => return self.attach(now, registering, identity, None, router),
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
                self.refuse_unavailable(now, &registering, &refusal, router);
                return None;
            }
        };
        Some(self.refuse(now, &registering, None, &refusal, router))
    }

    /// Answers a registration that nobody could decide. The connection goes on, and has its time to register once more.
    pub(super) fn refuse_unavailable(
        &mut self,
        now: Instant,
        registering: &Registering,
        refusal: &Refusal,
        router: &Router,
    ) {
        self.count_registration(RegistrationOutcome::Refused(refusal.code));
        self.record_refusal(registering, None, refusal);
        self.note_refused_register(now, router, registering, refusal);
        self.push(now, registering.failure(refusal));
        if self.restarts < RESTARTS_MAX {
            self.restarts += 1;
            self.timers.set(Timer::Registration, now + self.limits.registration);
        }
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

    pub(super) fn count_registration(&self, outcome: RegistrationOutcome) {
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

    fn registration(&self, registering: &Registering, identity: Identity) -> Registration {
        Registration {
            source: registering.source.clone(),
            identity,
            echo: registering.echo.unwrap_or_default(),
            address: Some(self.address),
            outbox: self.settings.outbox(),
            will: match &registering.will {
                WillOption::Given(text) => Some(text.clone()),
                WillOption::Absent | WillOption::None => None,
            },
        }
    }

    /// Registers the session, or lets one continue, for which it may have to wait. `lease`: that of its source, if it has one
    /// already.
    pub(super) fn attach(
        &mut self,
        now: Instant,
        mut registering: Registering,
        identity: Identity,
        lease: Option<LeaseHold>,
        router: &Router,
    ) -> Option<Effect> {
        let (proven, principal) = (Proven::new(now, &identity), identity.principal.clone());
        // Only such a registration may have to wait for a lease.
        let again = identity.exclusive.then(|| identity.clone());
        let Registering { resume, echo, will, reloads, fetched, .. } = &registering;
        let elsewhere = match fetched {
            Some(Fetched::Not(why)) => Some(*why),
            Some(Fetched::Here) | None => None,
        };
        let keeps_will = *will == WillOption::Absent;
        let wanted = Wanted { resume, echo: *echo, keeps_will, reloads: *reloads, elsewhere, lease };
        if fetched.is_none() {
            let ends = proven.as_ref().and_then(|proven| self.proof_accepted_until(now, proven));
            let ticket = router.fetch(&wanted, ends, || self.registration(&registering, identity.clone()));
            if let Some(ticket) = ticket {
                self.wait_for_session(now, Fetching::new(now, ticket, registering, identity));
                return None;
            }
        }
        let registration = self.registration(&registering, identity);
        let Registered { session, attachment, resumption } = match router.register(now, registration, &wanted) {
            Ok(Some(registered)) => registered,
            Ok(None) => {
                registering.reloads = router.reloads();
                return Some(self.verify(registering));
            }
            Err(NotAttached::Leaseless) => {
                self.wait_for_lease(now, registering, again?, router);
                return None;
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
}

/// Whole seconds as an integer, others as a fraction.
pub(super) fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 { duration.as_secs().into() } else { duration.as_secs_f64().into() }
}
